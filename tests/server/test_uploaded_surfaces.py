"""Surfaces sent to a server: with a unit they become cases, and what is proposed for them lies on the surface that was sent."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import SimpleITK as sitk
from eggs import POLES, SAMPLE_MM, TASK, egg, serving_eggs, write_stl

from landmarklabel.io.surfaces import write_surface

pytest.importorskip("vtk", reason="surfaces of other programs need VTK: pip install vtk")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("surfaces")


@pytest.fixture(scope="module")
def server(folder):
    with serving_eggs(folder) as server:
        yield server


def sent(server, path, params: dict, image: str = ""):
    with path.open("rb") as file:
        form = {"params": json.dumps(params)}
        return server.http("PUT", "/datastore/image", params={"image": image or path.stem}, data=form, files={"file": file})


def proposed(answer) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    rows = answer.json()["landmarks"]
    assert [row["name"] for row in rows] == list(TASK.names) and {row["status"] for row in rows} == {"predicted"}
    return np.array([row["position"] for row in rows])


def test_a_surface_needs_its_unit_and_nothing_of_one_without_is_kept(server, tmp_path):
    before = server.get("/landmarks/images")["images"]
    path = write_stl(egg(1, np.zeros(3)), tmp_path / "bare.stl")
    answer = sent(server, path, {})
    assert answer.status_code == 400 and "mesh_unit, in params" in answer.json()["detail"]
    answer = sent(server, path, {"mesh_unit": "furlong"})
    assert answer.status_code == 400 and "'furlong' is not known of a surface; there are mm, cm, m, um" in answer.json()["detail"]
    answer = sent(server, path, {"mesh_unit": "mm", "mesh_frame": "up"})
    assert answer.status_code == 400 and "there are LPS, RAS" in answer.json()["detail"]
    broken = tmp_path / "broken.ply"
    broken.write_text("ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nend_header\n1\n", encoding="ascii")
    assert sent(server, broken, {"mesh_unit": "mm"}).status_code == 400
    assert server.get("/landmarks/images")["images"] == before


def test_proposals_and_followers_lie_on_the_surface_that_was_sent(server, tmp_path):
    truth, centre = egg(0.97, np.array([-3.0, 40, 9])), np.array([-3.0, 40, 9])
    path = write_stl(truth, tmp_path / "new.stl", unit_mm=10)
    assert sent(server, path, {"mesh_unit": "cm", "scanner": "light"}).status_code == 200
    assert server.get("/datastore/image/info", params={"image": "new"}) == {"scanner": "light"}
    answer = server.http("POST", "/infer/scn", params={"image": "new", "output": "json"})
    found, moved = proposed(answer), answer.json()["moved_onto_surface_mm"]
    assert truth.nearest(found)[1].max() < 0.3 * SAMPLE_MM
    assert set(moved) == set(TASK.names) and all(0 <= mm < 10 for mm in moved.values())
    on_top = (centre + 0.97 * POLES[4]).tolist()
    body = {"fixed": {"top": on_top}, "absent": [], "model": "scn"}
    answer = server.http("POST", "/landmarks/images/new/update", json=body)
    rows = {row["name"]: row for row in answer.json()["landmarks"]}
    assert rows.pop("top")["position"] == on_top  # a person's point stays where it was put
    followers = np.array([row["position"] for row in rows.values()])
    assert truth.nearest(followers)[1].max() < 0.3 * SAMPLE_MM and "top" not in answer.json()["moved_onto_surface_mm"]


def test_a_surface_in_a_wrong_unit_is_not_answered_and_the_reason_is_said(server, tmp_path):
    path = write_stl(egg(1.0, np.zeros(3)), tmp_path / "giant.stl")
    for unit, said in (("m", "the labelled images up to"), ("um", "the landmarks of the labelled images span")):
        assert sent(server, path, {"mesh_unit": unit}, image=f"in {unit}").status_code == 200
        answer = server.http("POST", "/infer/scn", params={"image": f"in {unit}", "output": "json"})
        assert answer.status_code == 400 and said in answer.json()["detail"]
        assert answer.json()["detail"].endswith("is its unit or pixel spacing right?")


def test_what_the_file_states_counts_and_that_is_said(server, tmp_path):
    write_surface(path := tmp_path / "stated.ply", egg(1.0, np.ones(3)))
    said = "its file states the unit mm, which counts, and not cm"
    assert sent(server, path, {"mesh_unit": "cm"}).json()["remarks"] == [said]
    with path.open("rb") as file:
        form = {"params": json.dumps({"mesh_unit": "cm"})}
        answer = server.http("POST", "/infer/scn", params={"output": "json"}, data=form, files={"file": file}).json()
    assert answer["remarks"] == [said]
    with path.open("rb") as file:
        answer = server.http("PUT", "/session/?mesh_unit=cm", files={"files": file}).json()
    assert answer["remarks"] == [said]


def test_several_annotators_on_several_surfaces_at_once(server, tmp_path):
    eggs = {f"many{number}": egg(0.9 + 0.02 * number, np.full(3, number)) for number in range(6)}
    for name, surface in eggs.items():
        assert sent(server, write_stl(surface, tmp_path / f"{name}.stl"), {"mesh_unit": "mm"}).status_code == 200
    ask = lambda name: server.http("POST", f"/landmarks/images/{name}/update", json={"fixed": {}, "absent": []})  # noqa: E731
    asked = list(eggs) * 4
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, asked))
    assert (
        max(eggs[name].nearest(proposed(answer))[1].max() for name, answer in zip(asked, answers, strict=True)) < 0.4 * SAMPLE_MM
    )


def test_an_exchanged_image_has_its_own_surface(server, folder, tmp_path):
    eggs = {name: egg(scale, np.full(3, 5.0 * scale)) for name, scale in (("one", 0.9), ("other", 1.2))}
    for name, surface in eggs.items():
        assert sent(server, write_stl(surface, tmp_path / f"{name}.stl"), {"mesh_unit": "mm"}).status_code == 200
    ask = lambda: proposed(server.http("POST", "/infer/scn", params={"image": "one", "output": "json"}))  # noqa: E731
    assert eggs["one"].nearest(ask())[1].max() < 0.3 * SAMPLE_MM
    shutil.copy(folder / "study" / "other.nrrd", folder / "study" / "one.nrrd")
    assert eggs["other"].nearest(ask())[1].max() < 0.4 * SAMPLE_MM


def test_the_surface_of_a_session_is_that_of_its_file(server, tmp_path):
    truth = egg(1.05, np.array([4.0, 5.0, 6.0]))
    write_surface(tmp_path / "session.ply", truth)
    with (tmp_path / "session.ply").open("rb") as file:
        session = server.http("PUT", "/session/", files={"files": file}).json()["session_id"]
    found = proposed(server.http("POST", "/infer/scn", params={"session_id": session, "output": "json"}))
    assert truth.nearest(found)[1].max() < 1e-6
    bare, way = write_stl(truth, tmp_path / "bare.stl", unit_mm=1000), {"params": json.dumps({"mesh_unit": "m"})}
    with bare.open("rb") as file:
        answer = server.http("POST", "/infer/scn", params={"output": "json"}, data=way, files={"file": file})
    np.testing.assert_allclose(proposed(answer), found, rtol=0, atol=1e-3)
    with write_stl(truth, tmp_path / "bare.stl").open("rb") as file:
        answer = server.http("PUT", "/session/", files={"files": file})
    assert answer.status_code == 400 and "states no unit" in answer.json()["detail"]


def test_points_of_any_other_volume_stay_where_they_are_predicted(server, tmp_path):
    volume = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 255, (40, 40, 40)).astype(np.uint8))
    sitk.WriteImage(volume, str(tmp_path / "ct.nrrd"))
    assert sent(server, tmp_path / "ct.nrrd", {}).status_code == 200
    answer = server.http("POST", "/infer/scn", params={"image": "ct", "output": "json"})
    assert answer.status_code == 200 and "moved_onto_surface_mm" not in answer.json()
    assert len(answer.json()["landmarks"]) == len(TASK)
