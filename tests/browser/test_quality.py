"""A second look at the labels in the browser: the slip comes first, is mended where it is, and what is right stays said."""

from __future__ import annotations

import csv
import io
import zipfile
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from serving import phantoms, serving

from landmarklabel.io.markups import parse_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.store.study import Study
from landmarklabel.store.tokens import Tokens

SLIP_PX = 25  # on images of 96 by 128


@pytest.fixture()
def material(tmp_path):
    """Twelve labelled cases; in phantom04 the third landmark lies elsewhere, and phantom07 lacks the last one."""
    made = phantoms(tmp_path, 12, n_landmarks=8)
    study = Study(made.study, made.task)
    for image_id, truth in made.truth.items():
        points, status = truth.positions_mm.copy(), list(truth.status)
        if image_id == "phantom04":
            points[2] += SLIP_PX * np.sign(np.array([48, 64]) - points[2]) / np.sqrt(2)
        if image_id == "phantom07":
            points[7], status[7] = np.nan, Status.ABSENT
        study.save(image_id, LandmarkSet(made.task, points, tuple(status)), author="ann")
    study.close()
    return made


def first_row(page) -> tuple[str, str]:
    """Case and landmark that the list has first, once it is there."""
    row = page.locator(".points tbody tr").first
    row.wait_for(timeout=20_000)
    return row.locator(".case").inner_text(), row.locator(".name").inner_text()


def log_in(who, token: str) -> None:
    who.page.get_by_label("Token").fill(token)
    who.press("Log in")


def test_a_slip_comes_first_is_mended_and_what_is_right_leaves_the_list(material, person):
    slip, task = material.task.names[2], material.task
    with serving(material) as server:
        bob = person(server.url)
        bob.page.locator(".more summary").click()
        bob.page.get_by_label("Your name").fill("Bob")
        bob.page.get_by_label("Your name").blur()
        bob.page.get_by_role("link", name="Quality of the labels").click()
        bob.sees("95 points of 12 cases")
        assert first_row(bob.page) == ("phantom04", slip)
        # On the drawing the point is drawn away from where its others expect it, as far as it was put.
        drawn = "() => [...document.querySelectorAll('.outlier, .expected')].map(e => e.getBoundingClientRect().x)"
        at = bob.page.evaluate(drawn)
        assert len(at) == 2 and abs(at[0] - at[1]) > 10
        assert bob.page.locator(".shape text").text_content() == slip

        bob.page.get_by_role("link", name="Open").first.click()
        assert bob.wait_for_image("phantom04") == "phantom04"
        assert bob.page.locator(".landmarks .row.selected .name").inner_text() == slip
        bob.press("Unlock")
        truth = material.truth["phantom04"].positions_mm[2]
        bob.drag(bob.mark(slip), bob.on_screen(*truth))
        bob.submit()
        bob.sees("phantom04 is saved as revision 2")
        saved = server.get("/landmarks/images/phantom04")["landmarks"][2]
        assert np.allclose(saved["position"][:2], truth, atol=1)

        bob.page.goto(f"{server.url}/annotate/quality.html")
        case, name = first_row(bob.page)
        assert (case, name) != ("phantom04", slip)
        before = server.get(f"/landmarks/images/{case}")
        bob.page.get_by_role("button", name="Right", exact=True).first.click()
        bob.sees(f"{case}: {name} is right where it is")
        gone = "shown => !document.querySelector('.points tbody tr').innerText.includes(shown)"
        bob.page.wait_for_function(gone, arg=f"{case}\t{name}")
        now = server.get(f"/landmarks/images/{case}")
        assert (now["revision"], now["author"], now["source"]) == (before["revision"] + 1, "Bob", "quality check")
        assert now["landmarks"] == before["landmarks"]
        bob.page.get_by_label("also those that somebody has called right").check()
        bob.sees("right, says Bob")
        assert first_row(bob.page) == (case, name)

        with bob.page.expect_download() as download:
            bob.page.get_by_role("link", name="Table (CSV)").click()
        rows = list(csv.DictReader(download.value.path().read_text(encoding="utf-8").splitlines()))
        assert len(rows) == 95 and (rows[0]["id"], rows[0]["landmark"], rows[0]["checked_by"]) == (case, name, "Bob")
        with bob.page.expect_download() as download:
            bob.page.get_by_role("link", name="Specimens for SlicerMorph (zip)").click()
        with zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes())) as archive:
            assert archive.read("left_out.txt").decode() == f"phantom07: {task.names[7]}\n"
            names = [n for n in archive.namelist() if n != "left_out.txt"]
            assert len(names) == 11
            own = LandmarkTask(task.name, task.names, dims=2)
            read = parse_markups(archive.read("phantom04.mrk.json"), own, "phantom04")
            assert np.allclose(read.positions_mm[2], truth, atol=1)


def test_a_point_that_was_moved_meanwhile_is_not_called_right(material, person):
    with serving(material) as server:
        bob = person(server.url)
        bob.page.goto(f"{server.url}/annotate/quality.html")
        case, name = first_row(bob.page)
        newest = server.get(f"/landmarks/images/{case}")
        row = next(r for r in newest["landmarks"] if r["name"] == name)
        row["position"] = [x + 1 for x in row["position"]]
        sent = {"landmarks": newest["landmarks"], "base_revision": newest["revision"], "author": "ann"}
        assert server.http("PUT", f"/landmarks/images/{case}", json=sent).status_code == 200
        bob.page.get_by_role("button", name="Right", exact=True).first.click()
        again = "() => document.querySelector('.points tbody button:not(:disabled)')"
        bob.page.wait_for_function(again)  # the list has come again, and the reason is still there
        bob.sees(f"{case} was saved meanwhile: look at its points again")
        assert server.get(f"/landmarks/images/{case}")["revision"] == 2


def test_a_link_that_opens_another_case_during_a_drag_moves_nothing(material, person):
    names = material.task.names
    with serving(material) as server:
        bob = person(server.url)
        bob.page.goto("about:blank")
        bob.page.goto(f"{server.url}/annotate/#case=phantom01&landmark={names[3]}")
        bob.wait_for_image("phantom01")
        bob.page.locator(f'.mark.selected[data-name="{names[3]}"]').wait_for(state="attached")
        bob.press("Unlock")
        before = bob.mark(names[3])
        bob.page.mouse.move(*before)
        bob.page.mouse.down()
        bob.page.mouse.move(before[0] + 40, before[1], steps=4)
        moved = "([name, x]) => document.querySelector(`.mark[data-name='${name}'] > circle`).getBoundingClientRect().x > x + 20"
        bob.page.wait_for_function(moved, arg=[names[3], before[0]])
        bob.page.evaluate(f"location.hash = '#case=phantom02&landmark={names[5]}'")
        bob.wait_for_image("phantom02")
        bob.page.mouse.up()
        bob.page.evaluate("location.hash = '#case=phantom01&landmark='")
        bob.wait_for_image("phantom01")
        assert np.allclose(bob.mark(names[3]), before, atol=1)
        bob.page.evaluate("location.hash = '#case=phantom01&landmark=nobody'")
        bob.sees("the task has no landmark nobody any more")


def test_landmarks_that_few_cases_have_are_named(material, person):
    study, rare = Study(material.study, material.task), material.task.names[7]
    for image_id, landmarks in list(study.labelled().items())[:5]:
        study.save(image_id, landmarks.with_landmark(rare, None, Status.ABSENT), author="ann")
    study.close()
    with serving(material) as server:
        bob = person(server.url)
        bob.page.goto(f"{server.url}/annotate/quality.html")
        bob.sees(f"Not looked at, because fewer than eight cases have them: {rare}.")
        assert rare not in bob.page.locator(".points tbody .name").all_inner_texts()


def test_with_few_cases_the_page_says_so(tmp_path, person):
    with serving(phantoms(tmp_path, 3)) as server:
        bob = person(server.url)
        bob.page.goto(f"{server.url}/annotate/quality.html")
        bob.sees("too few labelled cases")


def test_an_answer_outlives_an_ended_login_and_leads_back_to_the_page(material, person):
    tokens = Tokens(material.study)
    token = tokens.new("ann", "annotator")
    with serving(material) as server:
        ann = person(server.url)
        ann.page.goto(f"{server.url}/annotate/quality.html")
        log_in(ann, token)
        case, name = first_row(ann.page)
        token = tokens.new("ann", "annotator")  # the earlier one has ended, and the login with it
        ann.page.get_by_role("button", name="Right", exact=True).first.click()
        log_in(ann, token)
        ann.sees(f"{case}: {name} is right where it is")
        assert first_row(ann.page) != (case, name) and "quality.html" in ann.page.url
        bearer = {"Authorization": f"Bearer {token}"}
        newest = server.http("GET", f"/landmarks/images/{case}", headers=bearer).json()
        assert (newest["revision"], newest["author"], newest["source"]) == (2, "ann", "quality check")

        token = tokens.new("ann", "annotator")
        ann.page.get_by_role("link", name="Open").first.click()
        case = parse_qs(urlsplit(ann.page.url).fragment)["case"][0]
        log_in(ann, token)
        assert ann.wait_for_image(case) == case


def test_an_answer_is_not_saved_under_the_name_of_whoever_logs_in_in_another_tab(material, person):
    tokens = Tokens(material.study)
    of_ann, of_bob = tokens.new("ann", "annotator"), tokens.new("bob", "annotator")
    with serving(material) as server:
        ann = person(server.url)
        ann.page.goto(f"{server.url}/annotate/quality.html")
        log_in(ann, of_ann)
        case, _ = first_row(ann.page)
        ann.sees("connected as ann")
        ann.log_in_in_another_tab(of_bob)
        ann.page.get_by_role("button", name="Right", exact=True).first.click()
        ann.sees("bob has logged in in this browser since this page was opened. Nothing was saved")
        bearer = {"Authorization": f"Bearer {of_bob}"}
        assert server.http("GET", f"/landmarks/images/{case}", headers=bearer).json()["revision"] == 1
        ann.log_in_in_another_tab(of_ann)
        ann.page.reload()
        ann.sees("is right where it is")
        assert server.http("GET", f"/landmarks/images/{case}", headers=bearer).json()["author"] == "ann"


@pytest.mark.parametrize("arrives", [False, True])
def test_an_answer_is_kept_while_the_server_is_away_and_saved_once(material, person, arrives):
    with serving(material) as server:
        bob = person(server.url)
        bob.page.goto(f"{server.url}/annotate/quality.html")
        case, name = first_row(bob.page)

        def lost(route) -> None:
            """A save arrives, its answer does not, unless even the save was lost."""
            if route.request.method == "PUT":
                if arrives:
                    route.fetch()
                route.abort()
            else:
                route.continue_()

        bob.page.route("**/landmarks/images/*", lost)
        bob.page.get_by_role("button", name="Right", exact=True).first.click()
        bob.sees("It is kept in this browser")
        assert server.get(f"/landmarks/images/{case}")["revision"] == 1 + arrives
        if arrives:  # and somebody moves another point before it is sent again
            newest = server.get(f"/landmarks/images/{case}")
            other = next(r for r in newest["landmarks"] if r["name"] != name)
            other["position"] = [x + 1 for x in other["position"]]
            sent = {"landmarks": newest["landmarks"], "base_revision": newest["revision"], "author": "ann"}
            assert server.http("PUT", f"/landmarks/images/{case}", json=sent).status_code == 200
        bob.page.unroute("**/landmarks/images/*")
        bob.page.reload()
        bob.sees(f"{case}: {name} is right where it is")
        bob.page.reload()
        first_row(bob.page)
        history = server.get(f"/landmarks/images/{case}/history")["revisions"]
        assert [r["source"] for r in history].count("quality check") == 1 and len(history) == 2 + arrives


def test_what_was_called_right_is_taken_back_and_nobody_who_has_the_case_open_is_held_up(material, person):
    with serving(material) as server:
        ann, bob = person(server.url), person(server.url)
        bob.page.goto(f"{server.url}/annotate/quality.html")
        case, name = first_row(bob.page)
        ann.page.goto("about:blank")
        ann.page.goto(f"{server.url}/annotate/#case={case}&landmark={name}")
        ann.wait_for_image(case)
        bob.page.get_by_role("button", name="Right", exact=True).first.click()
        bob.sees(f"{case}: {name} is right where it is")
        bob.page.wait_for_function("() => document.activeElement.innerText === 'Right'")  # of the next point
        bob.page.get_by_label("also those that somebody has called right").check()
        bob.press("Take back")
        bob.sees(f"{case}: {name} has to be looked at again")
        bob.page.get_by_label("also those that somebody has called right").uncheck()
        bob.sees("95 points of 12 cases")
        assert first_row(bob.page) == (case, name)

        ann.press("Unlock")
        at = ann.mark(name)
        ann.drag(at, (at[0] + 12, at[1]))
        ann.submit()
        ann.sees(f"{case} is saved as revision 4")
        assert server.get(f"/landmarks/images/{case}")["source"] == "landmarks api"


def test_a_second_reading_begins_without_the_first_and_changes_no_label(material, person):
    names = material.task.names
    with serving(material) as server:
        ann = person(server.url)
        ann.page.goto("about:blank")
        ann.page.goto(f"{server.url}/annotate/#case=phantom03")
        ann.wait_for_image("phantom03")
        before = server.get("/landmarks/images/phantom03")
        ann.page.locator(".more summary").click()
        ann.press("Second reading")
        ann.sees("phantom03 (second reading)")
        ann.wait_for_image("phantom03")
        assert ann.page.locator(".mark").count() == 0
        for name, at in zip(names, material.truth["phantom03"].positions_mm, strict=True):
            ann.select(name)  # which brings its proposal into view
            ann.places(name, ann.on_screen(*at))
        ann.submit()
        ann.sees("the second reading of phantom03 is saved")
        assert server.get("/landmarks/images/phantom03") == before
    study = Study(material.study, material.task)
    (again,) = study.repeats()["phantom03"]
    assert np.allclose(study.read(again).positions_mm, material.truth["phantom03"].positions_mm, atol=1)
    study.close()
