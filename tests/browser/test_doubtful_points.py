"""What the page asks, shows and says of points in doubt: before submitting, one after the other, after a change of the task."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

from saved_points import points_of
from serving import phantoms, serving, serving_labelled

from landmarklabel.io.files import write_json
from landmarklabel.scale_rules import PixelSize


def test_a_point_that_contradicts_the_others_is_submitted_by_a_second_press_only(tmp_path, person):
    material = phantoms(tmp_path, 6)
    with serving_labelled(material, 5, tmp_path / "labels") as server:
        ann, names = person(server.url), material.task.names
        truth = material.truth["phantom05"].positions_mm
        ann.open_case("phantom05")
        for name, place in zip(names[:6], truth[:6], strict=True):
            ann.places(name, ann.on_screen(*place))
            ann.page.keyboard.press("Escape")
        slip = names[2]
        ann.drag(ann.mark(slip), ann.on_screen(*(truth[2] + 25)))
        ann.page.locator(f'.mark.placed.flagged[data-name="{slip}"]').wait_for(state="attached", timeout=20_000)
        ann.press("Submit and next")
        ann.sees(
            f"far from where the other points of this case lead one to expect: {slip}. Press again to submit if that is right"
        )
        assert server.get("/landmarks/images/phantom05")["revision"] == 0
        ann.drag(ann.mark(slip), ann.on_screen(*(truth[2] + (25, -25))))
        ann.press("Submit and next")  # at once: what the server says of the move is waited for, and it is another move
        ann.page.wait_for_function("() => !document.querySelector('.app.busy')", timeout=20_000)
        ann.sees("Press again to submit if that is right")
        ann.page.get_by_role("button", name="Submit and next", exact=True).dblclick()  # is one press
        ann.sees("phantom05 is saved as revision 1")
        assert points_of(server, "phantom05")[slip][0] == "placed"


def test_a_double_click_does_not_answer_the_question_that_it_raised(tmp_path, person):
    material = phantoms(tmp_path, 6)
    with serving_labelled(material, 5, tmp_path / "labels") as server:
        ann, names = person(server.url), material.task.names
        truth = material.truth["phantom05"].positions_mm
        ann.open_case("phantom05")
        for name, place in zip(names[:6], truth[:6], strict=True):
            ann.places(name, ann.on_screen(*place))
            ann.page.keyboard.press("Escape")
        ann.drag(ann.mark(names[2]), ann.on_screen(*(truth[2] + 25)))
        ann.page.get_by_role("button", name="Submit and next", exact=True).dblclick()
        ann.sees("Press again to submit if that is right")
        ann.page.wait_for_function("() => !document.querySelector('.app.busy')", timeout=20_000)
        assert server.get("/landmarks/images/phantom05")["revision"] == 0
        ann.drag(ann.mark(names[2]), ann.on_screen(*(truth[2] + (25, -25))))
        press = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', ctrlKey: true, bubbles: true}))"
        ann.page.evaluate(f"() => {{ {press}; {press}; }}")  # the second before anybody can have seen a question
        ann.page.evaluate("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        ann.page.wait_for_function("() => !document.querySelector('.app.busy')", timeout=20_000)
        ann.sees("Press again to submit if that is right")
        assert server.get("/landmarks/images/phantom05")["revision"] == 0


def test_next_doubtful_goes_on_where_it_is_pressed_again(tmp_path, person):
    material = phantoms(tmp_path, 6)
    with serving_labelled(material, 5, tmp_path / "labels") as server:
        ann = person(server.url)
        ann.open_case("phantom05")
        ann.press("Predict")
        ann.page.locator(".mark.predicted").first.wait_for(state="attached", timeout=20_000)
        seen = []
        for _ in range(9):
            ann.page.keyboard.press("n")
            ann.page.evaluate("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
            seen.append(ann.page.locator(".landmarks .row.selected").inner_text())
        assert len(set(seen[:8])) == 8 and seen[8] == seen[0]
        first, other = material.task.names[:2]
        ann.select(first)
        ann.press("Place")
        ann.select(other)
        ann.sees(f"Click on the image to place {other};")  # what is selected is what a click places
        ann.page.keyboard.press("n")
        ann.page.wait_for_function("() => !document.querySelector('.app.placing')", timeout=20_000)


def test_a_page_that_was_opened_with_another_scale_rule_says_so(tmp_path, person):
    material = phantoms(tmp_path, 4)
    with serving_labelled(material, 3, tmp_path / "labels") as server:
        ann = person(server.url)
        ann.open_case("phantom03")
        assert ann.page.locator(".trouble").is_hidden()
        port = urlsplit(server.url).port
    write_json(material.task_file, replace(material.task, scale=PixelSize(0.25)).to_json())
    with serving(material, port=port) as server:
        ann.open_case("phantom02")
        ann.sees("Load this page again: until then numbers may be the old ones")
        ann.open_case("phantom03")
        ann.places(material.task.names[0], ann.on_screen(40, 50))
        ann.page.keyboard.press("Escape")
        ann.page.reload()
        ann.wait_for_image("phantom03")
        assert "Load this page again" not in ann.page.locator("body").inner_text()
        ann.submit()
        ann.sees("phantom03 is saved as revision 1")
        assert points_of(server, "phantom03")[material.task.names[0]][0] == "placed"


def test_nothing_is_proposed_where_a_person_wants_no_proposals(tmp_path, person):
    material = phantoms(tmp_path, 4)
    with serving_labelled(material, 3, tmp_path / "labels") as server:
        ann, names = person(server.url), material.task.names
        ann.open_case("phantom03")
        ann.page.locator(".more summary").click()
        ann.page.get_by_label("Read without proposals").check()
        ann.press("Predict")
        ann.sees("Read without proposals is on")
        ann.places(names[0], ann.on_screen(40, 50))
        ann.page.keyboard.press("Escape")
        ann.page.reload()
        ann.wait_for_image("phantom03")
        ann.places(names[1], ann.on_screen(60, 50))
        ann.page.keyboard.press("Escape")
        ann.submit()
        ann.sees("phantom03 is saved as revision 1")
        assert [n for n, (status, _) in points_of(server, "phantom03").items() if status != "unset"] == list(names[:2])
