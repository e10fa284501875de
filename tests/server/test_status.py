"""The server's page: what asks for work comes first, fifty cases a page, their pictures with the points on them."""

from __future__ import annotations

import re
import shutil
import time
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Picture
from serving import wait_until

from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.server.status import StatusPage
from landmarklabel.services.pool_monitor import PoolMonitor
from landmarklabel.store.leases import Leases
from landmarklabel.store.revision_json import body_of
from landmarklabel.store.study import Study

TASK = LandmarkTask("pair", ("tip", "<b>base"), 2)
POINTS = np.array([[10.0, 5.0], [30.0, 15.0]])


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """120 cases: 70 labelled, one of them changed since, one in somebody's hands."""
    folder = tmp_path_factory.mktemp("status") / "study"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(120):
        Picture.fromarray(rng.integers(0, 255, (20, 40)).astype(np.uint8)).save(folder / f"c{number:03d}.png")
    with closing(Study(folder, TASK)) as study:
        for number in range(70):
            study.save(f"c{number:03d}", LandmarkSet.of_positions(TASK, POINTS), author="ann")
        half = LandmarkSet(TASK, POINTS, (Status.PLACED, Status.PREDICTED))
        study.save("c069", half, author="ann")
        Picture.fromarray(rng.integers(0, 255, (20, 40)).astype(np.uint8)).save(folder / "c033.png")
        study.verify()
        leases = Leases(folder / ".landmarklabel" / "leases.json")
        leases.take("bob", ["c100"], min)
        watch = PoolMonitor(study)
        watch.start()
        wait_until(lambda: len(watch.pictures) == 120, 300, "the pictures", 0.1)
        watch.stop()
        yield StatusPage(study, watch, leases, dict, dict)


def cases(html: str) -> list[tuple[str, str]]:
    return re.findall(r'<td><a href="\.\./annotate/#case=(\w+)">\w+</a></td><td>([^<]*)</td>', html)


def test_what_asks_for_work_comes_first(page):
    shown = [row for number in (1, 2, 3) for row in cases(page.html(number))]
    assert len(shown) == 120 and [len(cases(page.html(n))) for n in (1, 2, 3)] == [50, 50, 20]
    assert shown[0] == ("c033", "changed since it was labelled") and shown[1] == ("c100", "in somebody&#x27;s hands")
    assert [state for _, state in shown[2:]] == ["to do"] * 49 + ["labelled"] * 68 + ["labelled, 1 point left"]
    assert '<tr class="marked"><td><a href="../annotate/#case=c033">' in page.html()


def test_a_browser_whose_user_has_no_name_is_no_number_on_the_page(page, tmp_path):
    leases = Leases(tmp_path / "leases.json")
    leases.take("001796089774528-8b36e5089d0beed710380fb31a848c7d", ["c101"], min)
    leases.take("eve", ["c101", "c102"], min)
    shown = StatusPage(page.study, page.monitor, leases, dict, dict).html(1, "held")
    assert "somebody without a name" in shown and "eve" in shown and "8b36e5" not in shown


def test_cases_that_a_model_saw_before_a_person_make_a_curve(page, monkeypatch):
    made = SimpleNamespace(uncertainty=1.0)
    seen = {f"c{number:03d}": (made, np.array([1.0 + number, 3.0 + number])) for number in range(4)}
    monkeypatch.setattr(page.monitor, "observed", lambda: seen)
    monkeypatch.setattr(page, "_made", (0.0, {}))
    html = page.html()
    assert "How far off the proposals were, before a person looked" in html and '<td>tip</td><td class="number">2.50</td>' in html


def test_pages_lead_to_each_other_and_there_is_no_page_beyond(page):
    assert '<p>Page <a href="?page=1">1</a> <b>2</b> <a href="?page=3">3</a></p>' in page.html(2)
    assert cases(page.html(99)) == cases(page.html(3)) and cases(page.html(0)) == cases(page.html(1))


def test_only_some_cases_are_shown_where_that_is_asked(page):
    assert [len(cases(page.html(1, kind))) for kind in ("look", "held", "to do", "labelled")] == [1, 1, 49, 50]
    assert cases(page.html(2, "labelled"))[0] == ("c051", "labelled")  # c033 is to be looked at
    html = page.html(2, "labelled")
    assert 'Show: <a href="?page=1">all (120)</a>' in html and "<b>labelled (69)</b>" in html
    assert '<a href="?show=labelled&amp;page=1">1</a>' in html


def test_points_lie_on_their_picture(page):
    stamps = re.findall(r'<figure class="stamp[^"]*"><svg viewBox="0 0 (\d+) (\d+)".*?</figure>', page.html(3), re.DOTALL)
    assert len(stamps) == 20 and set(stamps) == {("128", "64")}
    html = page.html(3)
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"[^>]*><title>([^<]*)</title>', html)
    scale = 128 / 40
    assert len(circles) == 2 * 20
    wanted = dict(zip(("tip", "&lt;b&gt;base"), (POINTS + 0.5) * scale, strict=True))
    for pair in zip(circles[::2], circles[1::2], strict=True):
        assert {name for _, _, name in pair} == set(wanted)
        for x, y, name in pair:
            np.testing.assert_allclose([float(x), float(y)], wanted[name], atol=0.1)
    assert "<b>base" not in html


def test_columns_are_explained_and_units_are_pixels(page):
    html = page.html()
    assert "proposals within 2 px" in html and "in % of the size of what they outline" in html
    assert "expected error (% of size)" in html


@pytest.mark.release
def test_ten_thousand_cases_answer_in_a_tenth_of_a_second(tmp_path):
    folder, rng = tmp_path / "study", np.random.default_rng(0)
    folder.mkdir()
    Picture.fromarray(rng.integers(0, 255, (20, 40)).astype(np.uint8)).save(tmp_path / "one.png")
    for number in range(10_000):
        shutil.copy(tmp_path / "one.png", folder / f"c{number:05d}.png")
    with closing(Study(folder, TASK)) as study:
        body = body_of(LandmarkSet.of_positions(TASK, POINTS))
        for who in ("ann", "bob"):
            study.revisions.save_all({f"c{number:05d}": body for number in range(7_000)}, author=who, source="import")
        page = StatusPage(study, PoolMonitor(study), Leases(folder / ".landmarklabel" / "leases.json"), dict, dict)
        page.html()  # which reads the study once
        times = []
        for number in range(1, 21):
            study.save(f"c{number:05d}", LandmarkSet.of_positions(TASK, POINTS), author="cid")
            page._made = (0.0, {})  # so that nothing is answered from before
            started = time.monotonic()
            html = page.html(number)
            times.append(time.monotonic() - started)
        assert "<td>cid</td>" in html and "7000 of 10000" in html
        assert sorted(times)[10] < 0.1, times
