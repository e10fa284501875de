"""A 2D study of slices that lie in space: over HTTP their points have three numbers, on the slice, as Slicer shows them."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from serving import Material

from landmarklabel.io.files import write_json
from landmarklabel.landmarks import LandmarkSet, LandmarkTask

TASK = LandmarkTask("slices", ("a", "b", "c", "d"), 2)
INDEX = np.array([[5, 6], [20, 8], [12, 30], [25, 33]])  # columns, rows
CORONAL = np.array([[0.5, 0, 0, 10], [0, 0, 2.0, -40], [0, 0.8, 0, 7], [0, 0, 0, 1]])  # RAS: rows go up


@pytest.fixture(scope="module")
def server(tmp_path_factory, running_server):
    folder = tmp_path_factory.mktemp("slices")
    (folder / "study").mkdir()
    write_json(folder / "task.json", TASK.to_json())
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 200, (40, 48, 1)).astype(np.int16)
        for k, (x, y) in enumerate(INDEX + number):
            pixels[x, y, 0] = 1000 + k
        nibabel.save(nibabel.Nifti1Image(pixels, CORONAL), folder / "study" / f"s{number}.nii.gz")
    empty: dict[str, LandmarkSet] = {}
    with running_server(Material(folder / "study", folder / "task.json", TASK, empty)) as server:
        server.study = folder / "study"
        yield server


def world(number: int) -> np.ndarray:
    """(4, 3) LPS mm of an image's points, by nibabel's affine."""
    index = np.column_stack([INDEX + number, np.zeros(4), np.ones(4)])
    return (index @ CORONAL.T)[:, :3] * (-1, -1, 1)


def rows(positions: np.ndarray) -> list[dict]:
    return [{"name": n, "status": "placed", "position": p} for n, p in zip(TASK.names, positions.tolist(), strict=True)]


def test_points_go_to_the_slice_and_come_back_on_it(server):
    for number in range(3):
        answer = server.http("PUT", f"/landmarks/images/s{number}", json={"landmarks": rows(world(number)), "base_revision": 0})
        assert answer.status_code == 200, answer.text
        again = [row["position"] for row in server.get(f"/landmarks/images/s{number}")["landmarks"]]
        np.testing.assert_allclose(again, world(number), atol=1e-5)
        content = json.loads((server.study / "labels" / "final" / f"s{number}.mrk.json").read_text(encoding="utf-8"))
        kept = [p["position"] for p in content["markups"][0]["controlPoints"]]
        image = nibabel.load(server.study / f"s{number}.nii.gz")
        for k, position in enumerate(kept):  # another program finds the marked sample there
            x, y, z, _ = np.rint(np.linalg.solve(image.affine, [-position[0], -position[1], position[2], 1])).astype(int)
            assert np.asanyarray(image.dataobj)[x, y, z] == 1000 + k


def test_proposals_lie_on_the_slice_and_persons_points_stay(server):
    fixed = {"a": world(3)[0].tolist()}
    answer = server.http("POST", "/landmarks/images/s3/update", json={"fixed": fixed})
    assert answer.status_code == 200, answer.text
    found = {row["name"]: row["position"] for row in answer.json()["landmarks"]}
    np.testing.assert_allclose(found["a"], fixed["a"], atol=1e-5)
    assert all(len(p) == 3 and abs(p[1] - 40) < 1e-5 for p in found.values())  # the plane is y = -40 in RAS
    np.testing.assert_allclose([found[n] for n in TASK.names], world(3), atol=1.0)  # the others moved along


def test_a_point_off_the_slice_is_refused(server):
    off = world(3) + (0, 5, 0)
    answer = server.http("PUT", "/landmarks/images/s3", json={"landmarks": rows(off), "base_revision": 0})
    assert answer.status_code == 400 and "mm off the slice" in answer.json()["detail"], answer.text
    assert server.get("/landmarks/images/s3")["revision"] == 0
