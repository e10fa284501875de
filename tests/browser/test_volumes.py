"""Volumes in the browser: what is seen in a plane and clicked is stored where it is, whichever way the volume lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planes import Plane, axes_of, middle_of
from scipy.spatial.transform import Rotation
from serving import Material, serving
from tests.thoroughness import times

from landmarklabel.data.synthetic import phantom_task
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.files import write_json
from landmarklabel.io.image_array import Image
from landmarklabel.io.images import write_image

PLANES = ("axial", "sagittal", "coronal")
ACROSS, DOWN = {"axial": 0, "sagittal": 1, "coronal": 0}, {"axial": 1, "sagittal": 2, "coronal": 2}  # axes of the world
FLIPPED, TURNED = np.diag([-1.0, 1.0, -1.0]), np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]])
OBLIQUE = Rotation.from_euler("xyz", [20, -15, 30], degrees=True).as_matrix()
LYING = {  # size, spacing, direction
    "a_oblique": ((62, 50, 40), (0.8, 0.8, 2.0), OBLIQUE),
    "b_flipped": ((70, 44, 51), (1.0, 0.5, 0.7), FLIPPED),
    "c_turned": ((40, 66, 58), (1.5, 0.6, 0.6), TURNED),
    "d_large": ((300, 262, 48), (0.4, 0.4, 1.0), OBLIQUE @ FLIPPED),  # more samples than the screen is sent at first
}


def spots_in(size: tuple[int, ...], count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 3) samples, no two of which share a slice."""
    return np.stack([3 + rng.choice(n - 6, count, replace=False) for n in size], axis=1)


def bright(size: tuple[int, ...], spots: np.ndarray) -> np.ndarray:
    pixels = np.full(size[::-1], 30, np.int16)
    pixels[spots[:, 2], spots[:, 1], spots[:, 0]] = 1000
    return pixels


@pytest.fixture(scope="module")
def lying(tmp_path_factory):
    """A server with the study of ``study_in``, the study, and where its bright samples are."""
    material, spots = study_in(tmp_path_factory.mktemp("volumes"))
    with serving(material) as server:
        yield server, material, spots


def study_in(folder: Path) -> tuple[Material, dict[str, np.ndarray]]:
    """A study of volumes that lie in every way, single bright samples in them; and where those are, in samples."""
    rng = np.random.default_rng(2)
    task, study, spots = phantom_task(3, 12), folder / "study", {}
    study.mkdir()
    write_json(folder / "task.json", task.to_json())
    for name, (size, spacing, direction) in LYING.items():
        spots[name] = spots_in(size, len(task), rng)
        geometry = ImageGeometry(size, np.array(spacing), np.array([-31.0, 12.5, 70.0]), direction)
        write_image(study / f"{name}.nrrd", Image(geometry, bright(size, spots[name])))
    return Material(study, folder / "task.json", task, {}), spots


@pytest.mark.timeout(times(600, 3600))
@pytest.mark.parametrize("round_", range(times(1, 7)))
def test_what_is_seen_and_clicked_in_any_plane_is_stored_where_it_is(tmp_path, person, round_):
    """Half a screen pixel, in the plane and through it, on volumes that are oblique, anisotropic, flipped and large."""
    material, spots = study_in(tmp_path)  # in which nobody has placed a point yet: a click on one would take hold of it
    rng, names = np.random.default_rng([5, round_]), material.task.names[: times(3, 12)]
    errors, zooms = [], []
    with serving(material) as server:
        who = person(server.url, width=1100 + 90 * round_, height=720 + 40 * round_)
        for case, (size, spacing, direction) in LYING.items():
            who.open_case(case)
            who.page.evaluate("() => document.querySelectorAll('.plane > button').forEach(b => (b.hidden = true))")
            geometry = ImageGeometry(size, np.array(spacing), np.array([-31.0, 12.5, 70.0]), direction)
            axes, clicked = axes_of(direction), {}
            for number, name in enumerate(names):
                plane = Plane(who, PLANES[number % 3])
                through = axes[({0, 1, 2} - {ACROSS[plane.name], DOWN[plane.name]}).pop()]
                who.page.keyboard.press("Escape")  # the next landmark may be waiting for its click
                who.select(name)
                who.press("Fit")
                who.page.keyboard.down("h")  # proposals near the spot would be grabbed
                plane.scroll_to(int(spots[case][number][through]))
                who.page.mouse.click(*plane.bright_spot())  # cuts all planes there, and brings the samples around it
                plane.wait_until_sharp()
                plane.bring_to_the_middle(plane.bright_spot())
                plane.zoom(plane.bright_spot(), int(rng.integers(0, 9)))
                who.page.keyboard.press("l")
                who.page.mouse.click(*plane.bright_spot())
                who.page.keyboard.up("h")
                who.page.locator(f'.mark.placed[data-name="{name}"]').first.wait_for(state="attached", timeout=20_000)
                clicked[name] = (plane, plane.scale(), axes[ACROSS[plane.name]], axes[DOWN[plane.name]])
            who.submit()
            who.sees(f"{case} is saved as revision")
            stored = {r["name"]: r["position"] for r in server.get(f"/landmarks/images/{case}")["landmarks"]}
            for number, name in enumerate(names):
                plane, scale, across, down = clicked[name]
                off = np.abs(geometry.world_to_index(np.array(stored[name])) - spots[case][number])
                through = ({0, 1, 2} - {across, down}).pop()
                assert off[through] < 1e-6, (case, name, plane.name, off)
                errors.append(max(off[across] * scale[0], off[down] * scale[1]))
                zooms.append(scale.min())
    assert len(errors) == len(LYING) * len(names) and max(zooms) > 5 * min(zooms), (min(zooms), max(zooms))
    assert max(errors) <= 0.5, sorted(errors)[-5:]


def position(server, case: str, name: str) -> np.ndarray:
    return np.array({r["name"]: r["position"] for r in server.get(f"/landmarks/images/{case}")["landmarks"]}[name])


def mark_in(plane: Plane, name: str) -> tuple[float, float]:
    return middle_of(plane.at, f'.mark[data-name="{name}"] > circle')


def test_a_drag_in_one_plane_leaves_the_depth_and_the_other_planes_follow(lying, person):
    server, material, _ = lying
    case, name = "b_flipped", material.task.names[5]
    size, spacing, direction = LYING[case]
    geometry = ImageGeometry(size, np.array(spacing), np.array([-31.0, 12.5, 70.0]), direction)
    who = person(server.url)
    who.open_case(case)
    axial, coronal = Plane(who, "axial"), Plane(who, "coronal")
    box = axial.box
    axial.scroll_to(17)
    who.select(name)
    axial.scroll_to(17)
    who.press("Place")
    who.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    who.page.locator(f'.mark.placed[data-name="{name}"]').first.wait_for(state="attached")
    who.page.keyboard.press("Escape")
    who.select(name)
    who.page.keyboard.down("h")  # else a proposal nearby may be grabbed
    start = mark_in(axial, name)
    assert np.allclose(start, (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2), atol=1)
    scale, before = axial.scale(), int(coronal.at.get_attribute("data-slice"))
    who.drag(start, (start[0] + 30, start[1] + 8))
    who.page.wait_for_function("([p, n]) => Number(p.dataset.slice) !== n", arg=[coronal.at.element_handle(), before])
    moved = mark_in(coronal, name)  # drawn there in full: the plane has gone to the point
    coronal.at.locator(f'.mark:not(.away)[data-name="{name}"]').wait_for(state="attached", timeout=20_000)
    who.drag(moved, (moved[0], moved[1] - 20))
    who.page.keyboard.up("h")
    up = coronal.scale()[1]
    who.submit()
    who.sees(f"{case} is saved as revision")
    index = geometry.world_to_index(position(server, case, name))
    assert index[2] == pytest.approx(17 - 20 / up, abs=0.6 / up)  # the first drag left it at 17; up is against this volume's axis
    assert (index[1] - (size[1] - 1) / 2) * scale[1] == pytest.approx(8, abs=1.0)


def test_a_link_to_a_point_opens_its_case_with_all_planes_at_it(lying, person):
    server, material, spots = lying
    case, name = "b_flipped", material.task.names[7]
    size, spacing, direction = LYING[case]
    geometry = ImageGeometry(size, np.array(spacing), np.array([-31.0, 12.5, 70.0]), direction)
    place = [geometry.index_to_world(spots[case][7].astype(float)).tolist()]
    body = {"landmarks": [{"name": name, "status": "placed", "position": place[0]}]}
    body["base_revision"] = server.get(f"/landmarks/images/{case}")["revision"]
    assert server.http("PUT", f"/landmarks/images/{case}", json=body).status_code == 200
    who = person(server.url)
    who.page.goto("about:blank")
    who.page.goto(f"{server.url}/annotate/#case={case}&landmark={name}")
    who.wait_for_image(case)
    planes = {"sagittal": 0, "coronal": 1, "axial": 2}  # the axes of this volume that they cut
    for plane, axis in planes.items():
        at = Plane(who, plane)
        wanted = [at.at.element_handle(), int(spots[case][7][axis])]
        who.page.wait_for_function("([p, n]) => Number(p.dataset.slice) === n", arg=wanted, timeout=20_000)
        at.at.locator(f'.mark:not(.away)[data-name="{name}"]').wait_for(state="attached", timeout=20_000)
    assert who.page.locator(".landmarks .row.selected .name").inner_text() == name


def open_case(who, case: str) -> None:
    who.page.locator("details.more").evaluate("d => d.open = true")
    who.page.get_by_label("Open a case").select_option(case)
    who.wait_for_image(case)
    who.page.locator("details.more").evaluate("d => d.open = false")
