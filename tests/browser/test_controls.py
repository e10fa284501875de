"""Buttons and keys: without a mouse, in a small window, clicked twice, and only where they make sense."""

from __future__ import annotations

import numpy as np
import pytest
from serving import serving
from test_volumes import study_in


def opened(person, server, case: str, **more):
    who = person(server.url, **more)
    who.page.evaluate(f"location.hash = '#case={case}'")
    who.wait_for_image(case)
    return who


def selected(who) -> str:
    return who.page.locator(".landmarks .row.selected .name").inner_text()


def test_the_tab_key_leads_through_the_page(server, material, person):
    """From the image to the buttons and on; it is nobody's trap."""
    ann = opened(person, server, "phantom05")
    seen = []
    for _ in range(60):
        ann.page.keyboard.press("Tab")
        seen.append(ann.page.evaluate("document.activeElement.textContent.slice(0, 30) || document.activeElement.tagName"))
    assert {"Next case", "Submit and next", "Predict", "Accept", "Keys"} <= set(seen)


def test_landmarks_are_chosen_by_keys(server, material, person):
    ann, names = opened(person, server, "phantom05"), material.task.names
    ann.press("Predict")
    ann.sees("expected error")
    assert selected(ann) == names[0]
    for key, name in ((".", names[1]), (".", names[2]), (",", names[1])):
        ann.page.keyboard.press(key)
        ann.page.locator(".row.selected", has_text=name).wait_for()
    where = ann.mark(names[1])
    ann.page.get_by_role("listbox").focus()
    ann.page.keyboard.press("ArrowDown")
    ann.page.locator(".row.selected", has_text=names[2]).wait_for()
    listed = ann.page.get_by_role("listbox")
    active = listed.get_attribute("aria-activedescendant")
    assert ann.page.locator(f"#{active} .name").inner_text() == names[2]  # what a screen reader says
    ann.page.keyboard.press("ArrowUp")
    ann.page.locator(".row.selected", has_text=names[1]).wait_for()
    assert ann.mark(names[1]) == where and ann.page.locator(".mark.placed").count() == 0  # nothing has moved


@pytest.mark.parametrize("button", ["Accept", "Absent"])
def test_a_double_click_means_one_landmark(server, material, person, button):
    ann = opened(person, server, "phantom06")
    ann.press("Predict")
    ann.sees("expected error")
    ann.page.get_by_role("button", name=button, exact=True).dblclick()
    ann.sees("a double click counts once")
    state = {"Accept": "accepted", "Absent": "absent"}[button]
    assert ann.page.locator(f".row.{state}").count() == 1
    ann.page.wait_for_timeout(600)  # longer than a double click may take
    ann.press(button)
    ann.page.wait_for_function(f"() => document.querySelectorAll('.row.{state}').length === 2")


def test_what_is_enlarged_is_what_the_keys_act_on(tmp_path, person):
    made, _ = study_in(tmp_path)
    with serving(made) as running:
        ann = opened(person, running, "a_oblique")
        planes = ann.page.locator(".plane")
        sagittal = planes.nth(1)
        enlarge = sagittal.get_by_role("button", name="Enlarge")
        enlarge.focus()
        ann.page.keyboard.press("Enter")
        ann.page.wait_for_function("() => document.querySelectorAll('.plane')[0].hidden")
        before = [planes.nth(n).get_attribute("data-slice") for n in range(3)]
        ann.page.evaluate("document.activeElement.blur()")
        ann.page.keyboard.press("PageDown")
        ann.page.wait_for_function("was => document.querySelectorAll('.plane')[1].dataset.slice !== was", arg=before[1])
        assert [planes.nth(n).get_attribute("data-slice") for n in (0, 2)] == [before[0], before[2]]


@pytest.mark.parametrize("width", [512, 640, 1024])
def test_nothing_covers_the_buttons_in_a_small_window(server, material, person, width):
    """As in a window of 1280 pixels whose contents are enlarged to 250 and 200 %."""
    ann = opened(person, server, "phantom07", width=width, height=400 if width < 1024 else 700)
    for name in ("Next case", "Predict", "Place", "Accept all", "Submit and next"):
        at = ann.page.get_by_role("button", name=name, exact=True)
        at.scroll_into_view_if_needed()
        box = at.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        assert (
            ann.page.evaluate(
                "([x, y]) => document.elementFromPoint(x, y)?.textContent",
                [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2],
            )
            == name
        )
    ann.places(material.task.names[0], ann.on_screen(40, 60))


def test_a_second_reading_is_offered_where_there_is_a_first(server, material, person):
    ann, cases = person(server.url), sorted(material.truth)
    button = ann.page.get_by_role("button", name="Second reading", exact=True)
    for case, is_offered in ((cases[0], True), (cases[-1], False)):
        ann.page.evaluate(f"location.hash = '#case={case}'")
        ann.wait_for_image(case)
        ann.page.locator(".more summary").click()
        ann.page.wait_for_function(
            "([name, may]) => [...document.querySelectorAll('button')].find(b => b.textContent === name).disabled === !may",
            arg=["Second reading", is_offered],
        )
        assert button.is_enabled() == is_offered
        ann.page.locator(".more summary").click()


def test_what_covers_the_page_takes_the_keys(server, material, person):
    ann = opened(person, server, "phantom05")
    ann.open()  # the newer tab works on
    dialog = ann.page.get_by_role("dialog")
    dialog.wait_for()
    for _ in range(6):
        assert ann.page.evaluate("!document.querySelector('#app').contains(document.activeElement)")
        ann.page.keyboard.press("Tab")
    dialog.get_by_role("button").focus()
    ann.page.keyboard.press("Enter")
    ann.wait_for_image("phantom05")
    assert dialog.count() == 0 and not ann.page.evaluate("document.querySelector('#app').inert")


def test_arrows_move_the_point_that_was_chosen_with_the_mouse(server, material, person):
    ann, name = opened(person, server, "phantom07"), material.task.names[0]
    ann.places(name, ann.on_screen(40, 60))
    ann.page.keyboard.press("Escape")
    ann.select(name)
    before = ann.mark(name)
    ann.page.keyboard.press("Shift+ArrowRight")
    ann.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    zoom = ann.on_screen(1, 0)[0] - ann.on_screen(0, 0)[0]
    assert np.allclose(ann.mark(name), (before[0] + zoom, before[1]), atol=0.2)  # by a pixel of the image
