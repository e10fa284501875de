"""What the points measure, in the browser: beside them while one is dragged, and drawn on the image."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from serving import phantoms, serving

from landmarklabel.io.files import write_json
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.scale_rules import PixelSize
from landmarklabel.store.study import Study


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Ten labelled cases and one that is not."""
    made = phantoms(tmp_path_factory.mktemp("measured"), 11, n_landmarks=8)
    names = made.task.names
    content = made.task.to_json() | {
        "measurements": [
            {"name": "length", "kind": "distance", "points": [names[0], names[3]], "definition": "From the wrist to the thumb."},
            {"name": "opening", "kind": "angle", "points": [names[1], names[0], names[4]]},
            {"name": "twice", "kind": "sum", "of": {"length": 2}},
        ]
    }
    write_json(made.task_file, content)
    made = replace(made, task=LandmarkTask.from_json(content))
    study = Study(made.study, made.task)
    for image_id in list(made.truth)[:10]:
        study.save(image_id, LandmarkSet.of_positions(made.task, made.truth[image_id].positions_mm), author="ann")
    study.close()
    return made


def wait_for_value(page, name: str, wanted: float, unit: str) -> None:
    shown = """([name, text]) => [...document.querySelectorAll('.measurements tbody tr')]
        .some(r => r.querySelector('button').innerText === name && r.querySelector('.number')?.innerText === text)"""
    page.wait_for_function(shown, arg=[name, f"{wanted:.1f}{unit}"], timeout=20_000)


def test_values_follow_a_point_that_is_dragged_and_a_measurement_is_drawn_between_its_points(material, person):
    names, truth = material.task.names, material.truth["phantom02"].positions_mm
    with serving(material) as server:
        ann = person(server.url)
        ann.page.evaluate("location.hash = '#case=phantom02'")
        ann.wait_for_image("phantom02")
        length = float(np.linalg.norm(truth[0] - truth[3]))
        wait_for_value(ann.page, "length", length, " px")
        wait_for_value(ann.page, "twice", 2 * length, " px")
        ann.page.get_by_role("button", name="length", exact=True).click()
        ends = "() => { const r = document.querySelector('.measure').getBoundingClientRect(); return [r.width, r.height]; }"
        (x0, y0), (x1, y1) = ann.mark(names[0]), ann.mark(names[3])
        assert np.allclose(ann.page.evaluate(ends), [abs(x1 - x0), abs(y1 - y0)], atol=2)

        ann.select(names[3])
        start = ann.mark(names[3])
        ann.page.mouse.move(*start)
        ann.page.mouse.down()
        ann.page.mouse.move(start[0] + 30, start[1] + 12, steps=3)
        (x0, y0), (x1, y1) = ann.mark(names[0]), ann.mark(names[3])
        wide = ann.on_screen(1, 0)[0] - ann.on_screen(0, 0)[0]
        wait_for_value(ann.page, "length", float(np.hypot(x1 - x0, y1 - y0)) / wide, " px")  # the hand still holds the point
        assert np.allclose(ann.page.evaluate(ends), [abs(x1 - x0), abs(y1 - y0)], atol=2)
        ann.page.mouse.up()
        ann.page.get_by_role("button", name="length", exact=True).click()
        ann.page.locator(".measure").wait_for(state="detached")


def test_proposed_points_have_intervals_and_what_lacks_a_point_says_so(material, person):
    names = material.task.names
    with serving(material) as server:
        ann = person(server.url)
        ann.page.evaluate("location.hash = '#case=phantom10'")
        ann.wait_for_image("phantom10")
        row = ann.page.locator(".measurements tbody tr").first
        row.get_by_text(f"{names[0]} is not placed; {names[3]} is not placed").wait_for()
        ann.press("Predict")
        ann.page.wait_for_function("() => /…/.test(document.querySelector('.measurements tbody tr').innerText)", timeout=60_000)
        ann.select(names[0])
        ann.press("Accept")
        ann.page.reload()
        ann.wait_for_image("phantom10")
        ann.page.wait_for_function("() => /…/.test(document.querySelector('.measurements tbody tr').innerText)", timeout=60_000)


def test_where_the_task_states_the_size_of_a_pixel_all_is_in_millimetres(material, person, tmp_path):
    names, place = material.task.names, tmp_path / "study"
    task = replace(material.task, scale=PixelSize(0.1))
    shutil.copytree(material.study, place)
    write_json(tmp_path / "task.json", task.to_json())
    Study(place, task).close()  # which gives the study the rule
    with serving(replace(material, study=place, task=task, task_file=tmp_path / "task.json")) as server:
        ann = person(server.url)
        ann.page.evaluate("location.hash = '#case=phantom02'")
        ann.wait_for_image("phantom02")
        truth = material.truth["phantom02"].positions_mm
        wait_for_value(ann.page, "length", 0.1 * float(np.linalg.norm(truth[0] - truth[3])), " mm")
        ann.page.evaluate("location.hash = '#case=phantom10'")
        ann.wait_for_image("phantom10")
        ann.press("Predict")
        number = ann.page.locator(".landmarks .row", has_text=names[0]).locator(".number")
        number.get_by_text(" mm").wait_for(timeout=60_000)
        answer = server.http("POST", "/infer/scn?image=phantom10&output=json", data={"params": "{}"}).json()
        (error_px,) = [r["expected_error_mm"] for r in answer["landmarks"] if r["name"] == names[0]]
        assert answer["unit"] == "px" and number.inner_text().startswith(f"± {0.1 * error_px:.1f} mm")
        image = sitk.Image(96, 128, sitk.sitkUInt8)
        image.SetSpacing((0.3, 0.3))  # its lengths are in mm: the rule would make them a tenth
        sitk.WriteImage(image, str(tmp_path / "m.mha"))
        with (tmp_path / "m.mha").open("rb") as file:
            sent = server.http("PUT", "/datastore/image?image=m", files={"file": ("m.mha", file)})
        assert sent.status_code == 400 and "m: it states its own pixel spacing" in sent.json()["detail"]
        assert not (place / "m.mha").exists()


def test_where_the_others_expect_a_point_is_seen_on_its_image(material, person):
    names, truth = material.task.names, material.truth["phantom02"].positions_mm
    with serving(material) as server:
        row = next(r for r in server.get("/landmarks/quality?page=1")["rows"] if r["image"] == "phantom02")
        k = names.index(row["landmark"])
        assert np.linalg.norm(np.array(row["expected"]) - truth[k]) == pytest.approx(row["off"], abs=0.01)
        ann = person(server.url)
        ann.page.goto(f"{server.url}/annotate/quality.html")
        ann.page.locator("tr", has=ann.page.get_by_role("button", name="phantom02", exact=True)).first.get_by_role(
            "link", name="Open"
        ).click()
        ann.wait_for_image("phantom02")
        ann.page.locator(".expected-here").wait_for(state="attached")
        middle = "r => [r.x + r.width / 2, r.y + r.height / 2]"
        cross = f"() => ({middle})(document.querySelector('.expected-here').getBoundingClientRect())"
        assert np.allclose(ann.page.evaluate(cross), ann.on_screen(*row["expected"]), atol=1.5)
        ann.sees(f"The red cross is where the other points of this case expect {row['landmark']}")
