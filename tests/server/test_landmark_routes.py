"""Our own routes: the task with its pictures, revisions, and many annotators at once."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor

import pytest
from saved_labels import pictured_study, put_label, wire
from serving import Material, wait_until

from landmarklabel.io.markups import dump_markups, read_markups, write_markups
from landmarklabel.landmarks import LandmarkSet, Status
from landmarklabel.store.study_task import read_record


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    return pictured_study(tmp_path_factory.mktemp("http"))


@pytest.fixture(scope="module")
def server(material, running_server):
    with running_server(material) as server:
        yield server
        assert "Traceback" not in server.log.read_text(errors="replace", encoding="utf-8")  # whatever it was asked


def moved(landmarks: LandmarkSet, x: float) -> LandmarkSet:
    """The same landmarks with the first one at (x, 5)."""
    return landmarks.with_landmark(landmarks.task.names[0], [x, 5.0], Status.PLACED)


def put(server, image_id: str, landmarks: LandmarkSet, base: int, **more):
    body = {"landmarks": wire(landmarks), "base_revision": base, **more}
    return server.http("PUT", f"/landmarks/images/{image_id}", json=body)


def test_task(server, material):
    answer = server.get("/landmarks/task")
    assert answer == material.task.to_json()
    assert [row["name"] for row in answer["landmarks"] if "image" in row] == [material.task.names[1]]
    assert base64.b64decode(answer["landmarks"][1]["image"].removeprefix("data:image/png;base64,")) == (
        material.task_file.with_name("where.png").read_bytes()
    )
    assert server.get("/info/")["task"] == material.task.to_json(pictures=False)


def test_a_process_of_the_server_leaves_the_tasks_pictures_in_the_study(server, material):
    assert read_record(material.study).task == material.task
    assert server.http("POST", "/batch/infer/scn", json={"images": "labeled"}).status_code == 200
    server.wait_for_end("/batch/infer")
    assert read_record(material.study).task == material.task


def test_saving_needs_the_newest_revision(server, material):
    image_id, truth = "phantom00", material.truth["phantom00"]
    empty = server.get(f"/landmarks/images/{image_id}")
    assert empty["revision"] == 0 and {row["status"] for row in empty["landmarks"]} == {"unset"}
    first = put(server, image_id, truth, 0, author="ann")
    assert first.status_code == 200 and first.json()["revision"] == 1 and first.json()["author"] == "ann"
    stale = put(server, image_id, moved(truth, 7.0), 0)
    assert stale.status_code == 409
    answer = stale.json()
    assert answer["current"]["revision"] == 1 and answer["current"]["landmarks"] == first.json()["landmarks"]
    assert answer["yours"]["base_revision"] == 0 and answer["yours"]["landmarks"][0]["position"] == [7.0, 5.0]
    assert "revision 1 is the newest" in answer["detail"]
    assert server.get(f"/landmarks/images/{image_id}")["revision"] == 1
    assert put(server, image_id, moved(truth, 7.0), 1).json()["revision"] == 2
    history = server.get(f"/landmarks/images/{image_id}/history")["revisions"]
    assert [r["revision"] for r in history] == [1, 2]
    assert history[0]["landmarks"] == first.json()["landmarks"]
    file = material.study / "labels" / "final" / f"{image_id}.mrk.json"
    assert read_markups(file, material.task).positions_mm[0].tolist() == [7.0, 5.0]


def test_a_repeated_key_saves_once(server, material):
    image_id, truth = "phantom01", material.truth["phantom01"]
    answers = [put(server, image_id, truth, 0, key="edit-17").json() for _ in range(3)]
    assert [a["revision"] for a in answers] == [1, 1, 1] and answers[0] == answers[2]
    assert len(server.get(f"/landmarks/images/{image_id}/history")["revisions"]) == 1


def test_unset_and_absent_survive_a_round_trip(server, material):
    names, image_id = material.task.names, "phantom02"
    body = [{"name": names[0], "status": "absent"}, {"name": names[1], "status": "accepted", "position": [1.5, 2.5]}]
    answer = server.http("PUT", f"/landmarks/images/{image_id}", json={"landmarks": body, "base_revision": 0})
    assert answer.status_code == 200, answer.text
    rows = server.get(f"/landmarks/images/{image_id}")["landmarks"]
    assert [row["status"] for row in rows] == ["absent", "accepted", *["unset"] * (len(names) - 2)]
    assert rows[0]["position"] is None and rows[1]["position"] == [1.5, 2.5]


def test_no_submission_of_eight_annotators_is_lost(server, material):
    image_id, truth = "phantom03", material.truth["phantom03"]

    def annotate(who: int) -> list[int]:
        contents = [dump_markups(moved(truth, 10.0 * who + turn / 4)) for turn in range(25)]
        return [put_label(server, image_id, content).status_code for content in contents]

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(annotate, range(8)))
    assert codes == [[200] * 25] * 8
    history = server.get(f"/landmarks/images/{image_id}/history")["revisions"]
    assert [r["revision"] for r in history] == list(range(1, 201))
    seen = [r["landmarks"][0]["position"][0] for r in history]
    assert sorted(seen) == [10.0 * who + turn / 4 for who in range(8) for turn in range(25)]
    for who in range(8):  # each one's own submissions in the order in which they were made
        own = [x for x in seen if 10 * who <= x < 10 * who + 10]
        assert own == sorted(own)
    file = material.study / "labels" / "final" / f"{image_id}.mrk.json"
    assert read_markups(file, material.task).positions_mm[0, 0] == seen[-1]


def test_annotators_who_retry_after_a_conflict_build_on_each_other(server, material):
    image_id, truth = "phantom04", material.truth["phantom04"]

    def annotate(who: int) -> int:
        conflicts = 0
        for _ in range(5):
            for _attempt in range(200):
                base = server.get(f"/landmarks/images/{image_id}")
                count = base["landmarks"][0]["position"][0] if base["revision"] else 0.0
                answer = put(server, image_id, moved(truth, count + 1), base["revision"], author=f"a{who}")
                if answer.status_code == 200:
                    break
                assert answer.status_code == 409
                conflicts += 1
            else:
                raise AssertionError("200 conflicts in a row")
        return conflicts

    with ThreadPoolExecutor(4) as pool:
        conflicts = sum(pool.map(annotate, range(4)))
    newest = server.get(f"/landmarks/images/{image_id}")
    assert newest["revision"] == 20 and newest["landmarks"][0]["position"][0] == 20.0  # a lost update would miss one
    assert conflicts > 0  # otherwise nothing was tested


def test_monai_labels_client_uploads_an_image_and_an_admin_removes_it(server, material):
    before = server.client.info()["datastore"]["total"]
    source = material.image("phantom01")
    assert server.client.upload_image(str(source), "uploaded") == {"image": "uploaded"}
    assert server.client.info()["datastore"]["total"] == before + 1
    assert server.http("GET", "/datastore/image", params={"image": "uploaded"}).content == source.read_bytes()
    assert server.http("DELETE", "/datastore/", params={"id": "uploaded"}).status_code == 200
    assert server.client.info()["datastore"]["total"] == before


def test_a_label_file_that_somebody_edits_while_the_server_runs_is_seen(server, material):
    edited = moved(material.truth["phantom05"], 7.0)
    write_markups(material.study / "labels" / "final" / "phantom05.mrk.json", edited)
    wait_until(lambda: server.get("/landmarks/images/phantom05")["revision"] == 1, 120, "the edit to be a revision")  # it rests
    newest = server.get("/landmarks/images/phantom05")
    assert (newest["author"], newest["landmarks"][0]["position"][0]) == ("file", 7.0)
