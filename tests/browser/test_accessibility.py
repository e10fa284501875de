"""What axe finds against WCAG 2.1 A and AA on every page, in light and dark: names, roles, contrast."""

from __future__ import annotations

from dataclasses import replace

import pytest
from axe_playwright_python.sync_playwright import Axe
from serving import phantoms, serving

from landmarklabel.io.files import write_json
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.store.study import Study
from landmarklabel.store.tokens import Tokens

RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}


def faults(page) -> list[str]:
    """Every fault: the rule, what it wants, where on the page."""
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{v['id']}: {v['help']}: {node['html'][:160]}" for v in found for node in v["nodes"]]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Twelve labelled cases and two that are not; in one two names are swapped."""
    made = phantoms(tmp_path_factory.mktemp("pages"), 14, n_landmarks=8)
    names = made.task.names
    measured = [
        {"name": "length", "kind": "distance", "points": list(names[:2]), "norm": {"mean": 30, "sd": 2, "source": "a book"}},
        {"name": "opening", "kind": "angle", "points": list(names[:3])},
    ]
    content = made.task.to_json() | {"measurements": measured}
    write_json(made.task_file, content)
    made = replace(made, task=LandmarkTask.from_json(content))
    study = Study(made.study, made.task)
    for number, (image_id, truth) in enumerate(made.truth.items()):
        points = truth.positions_mm.copy()
        if number == 4:
            points[[2, 5]] = points[[5, 2]]
        if number < 12:
            study.save(image_id, LandmarkSet.of_positions(made.task, points), author="ann")
    study.close()
    with serving(made) as running:
        yield running


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_for_annotating_has_no_fault_in_any_state(server, person, scheme):
    ann = person(server.url, color_scheme=scheme)
    ann.sees("No case is open.")
    assert faults(ann.page) == []
    ann.page.evaluate("location.hash = '#case=phantom12'")
    ann.wait_for_image("phantom12")
    ann.press("Predict")
    ann.sees("expected error")
    ann.press("Accept")
    ann.page.locator(".more summary").click()
    assert faults(ann.page) == []
    case = "phantom03"
    ann.page.evaluate(f"location.hash = '#case={case}'")
    ann.wait_for_image(case)
    ann.press("Unlock")
    at = ann.mark(server.get("/landmarks/task")["landmarks"][0]["name"])
    ann.drag(at, (at[0] + 9, at[1] + 9))
    newest = server.get(f"/landmarks/images/{case}")
    newest["landmarks"][0]["position"][0] += 4
    other = {"landmarks": newest["landmarks"], "base_revision": newest["revision"], "author": "bob"}
    assert server.http("PUT", f"/landmarks/images/{case}", json=other).status_code == 200
    ann.submit()
    ann.sees("bob saved revision")
    assert faults(ann.page) == []
    ann.press("Keys")
    ann.sees("go to the next doubtful point")
    assert faults(ann.page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("path", "text"), [("annotate/quality.html", "points of 1"), ("landmarks/", "phantom03")])
def test_the_other_pages_have_none(server, person, scheme, path, text):
    ann = person(server.url, color_scheme=scheme)
    ann.page.goto(f"{server.url}/{path}")
    ann.sees(text)
    assert faults(ann.page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_neither_has_the_login(tmp_path, person, scheme):
    made = phantoms(tmp_path, 1)
    Tokens(made.study).new("ann", "annotator")
    with serving(made) as running:
        ann = person(running.url, color_scheme=scheme)
        ann.page.get_by_label("Token").fill("wrong")
        ann.press("Log in")
        ann.sees("this is no token of this server")
        assert faults(ann.page) == []
