"""The second look over HTTP: what is refused, and what a check leaves alone."""

from __future__ import annotations

import io
import zipfile

import pytest
import requests
from serving import phantoms, serving

from landmarklabel.landmarks import LandmarkSet, Status
from landmarklabel.services.label_folders import read_readers
from landmarklabel.store.study import Study
from landmarklabel.store.tokens import Tokens


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Ten labelled cases of a server with two people."""
    made = phantoms(tmp_path_factory.mktemp("quality"), 10)
    study = Study(made.study, made.task)
    for image_id, truth in made.truth.items():
        study.save(image_id, LandmarkSet.of_positions(made.task, truth.positions_mm, Status.PLACED), author="ann")
    study.close()
    tokens = Tokens(made.study)
    people = {"bob": "annotator", "eve": "reviewer"}
    held = {who: {"Authorization": f"Bearer {tokens.new(who, role)}"} for who, role in people.items()}
    with serving(made, ready=401) as server:
        yield made, server.url, held


def newest(url: str, who: dict, image_id: str) -> dict:
    return requests.get(f"{url}/landmarks/images/{image_id}", headers=who, timeout=30).json()


def check(url: str, who: dict, image_id: str, checked: object, **more) -> requests.Response:
    now = newest(url, who, image_id)
    body = {"landmarks": now["landmarks"], "base_revision": now["revision"], "checked": checked, **more}
    return requests.put(f"{url}/landmarks/images/{image_id}", json=body, headers=who, timeout=30)


@pytest.mark.parametrize(
    ("checked", "said"),
    [
        ("a", "must be a list of names"),
        ({"a": 1}, "must be a list of names"),
        ([1], "no person has stated '1', so it cannot be right"),
        (["nobody"], "no person has stated 'nobody', so it cannot be right"),
    ],
)
def test_what_cannot_be_called_right_is_refused_in_words(served, checked, said):
    _, url, held = served
    answer = check(url, held["bob"], "phantom01", checked)
    assert answer.status_code in (400, 422) and said in answer.text
    answer = check(url, held["bob"], "phantom01", [], unchecked=checked)
    assert answer.status_code in (400, 422) and said in answer.text
    assert newest(url, held["bob"], "phantom01")["revision"] == 1


def test_nothing_is_called_right_and_taken_back_at_once(served):
    material, url, held = served
    name = material.task.names[0]
    answer = check(url, held["bob"], "phantom01", [name], unchecked=[name])
    assert f"'{name}' is both checked and unchecked" in answer.text
    assert newest(url, held["bob"], "phantom01")["revision"] == 1


def test_a_second_reading_checks_nothing_and_all_labels_at_once_are_for_reviewers(served):
    material, url, held = served
    name = material.task.names[0]
    refused = check(url, held["bob"], "phantom02", [name], repeat=True)
    assert refused.status_code == 400 and "a second reading calls no point of the first right" in refused.text
    assert requests.get(f"{url}/landmarks/quality", headers=held["bob"], timeout=30).json()["cases"] == 10
    assert requests.get(f"{url}/landmarks/quality/specimens", headers=held["bob"], timeout=30).status_code == 403
    assert newest(url, held["bob"], "phantom02")["revision"] == 1
    assert requests.get(f"{url}/landmarks/quality", timeout=30).status_code == 401


def test_a_check_leaves_the_persons_draft_of_the_case_alone(served):
    material, url, held = served
    bob, name = held["bob"], material.task.names[0]
    draft = f"{url}/landmarks/images/phantom03/draft"
    begun = {"landmarks": newest(url, bob, "phantom03")["landmarks"], "base_revision": 1, "edits": 4}
    assert requests.put(draft, json=begun, headers=bob, timeout=30).status_code == 200
    assert check(url, bob, "phantom03", [name]).json()["source"] == "quality check"
    assert requests.get(draft, headers=bob, timeout=30).json()["draft"]["base_revision"] == 1


def test_pages_beyond_the_last_and_landmarks_left_out(served):
    material, url, held = served
    last = requests.get(f"{url}/landmarks/quality?page=1000000", headers=held["bob"], timeout=30).json()
    assert last["page"] == last["pages"] == 2 and len(last["rows"]) == last["points"] - 50
    left = {"leave_out": material.task.names[:2]}
    answer = requests.get(f"{url}/landmarks/quality/specimens", params=left, headers=held["eve"], timeout=30)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert len(archive.namelist()) == 10
        text = archive.read("phantom00.mrk.json").decode()
    assert material.task.names[0] not in text and material.task.names[2] in text
    wrong = requests.get(f"{url}/landmarks/quality/specimens?leave_out=x", headers=held["eve"], timeout=30)
    assert wrong.status_code == 400 and "the task has no landmark 'x' to leave out" in wrong.text


def save(url: str, who: dict, image_id: str, landmarks: list, base: int, **more) -> requests.Response:
    body = {"landmarks": landmarks, "base_revision": base, **more}
    return requests.put(f"{url}/landmarks/images/{image_id}", json=body, headers=who, timeout=30)


def test_who_takes_back_a_check_has_seen_it(served):
    """Else it would go without anybody having looked at it: the other points of the case were called right meanwhile."""
    material, url, held = served
    bob, eve, (first, second) = held["bob"], held["eve"], material.task.names[:2]
    seen = newest(url, bob, "phantom04")
    assert check(url, eve, "phantom04", [first]).status_code == 200
    stale = save(url, bob, "phantom04", seen["landmarks"], seen["revision"], unchecked=[first])
    assert stale.status_code == 409 and stale.json()["current"]["author"] == "eve"
    assert Study(material.study, material.task).checked("phantom04")[first].author == "eve"
    other = save(url, bob, "phantom04", seen["landmarks"], seen["revision"], unchecked=[second])  # nobody has said that
    assert other.status_code == 200
    assert check(url, bob, "phantom04", [], unchecked=[first]).status_code == 200
    assert Study(material.study, material.task).checked("phantom04") == {}


def test_who_moves_a_point_has_seen_that_it_was_called_right(served):
    """Another point of the case may be moved all the same."""
    material, url, held = served
    bob, eve, (first, second) = held["bob"], held["eve"], material.task.names[:2]
    seen = newest(url, bob, "phantom05")
    assert check(url, eve, "phantom05", [first]).status_code == 200

    def moved(name: str) -> list:
        there = [row["position"][0] + 1 for row in seen["landmarks"] if row["name"] == name]
        return [row | {"position": [*there, *row["position"][1:]]} if row["name"] == name else row for row in seen["landmarks"]]

    stale = save(url, bob, "phantom05", moved(first), seen["revision"])
    assert stale.status_code == 409 and stale.json()["current"]["author"] == "eve"
    assert check(url, eve, "phantom05", [], unchecked=[first]).status_code == 200
    again = save(url, bob, "phantom05", moved(first), seen["revision"])  # what was taken back holds up nobody
    assert again.status_code == 200
    assert save(url, bob, "phantom05", seen["landmarks"], again.json()["revision"]).status_code == 200
    assert check(url, eve, "phantom05", [first]).status_code == 200
    seen["revision"] = again.json()["revision"] + 1
    assert save(url, bob, "phantom05", moved(second), seen["revision"]).status_code == 200
    absent = [row if row["name"] != second else {"name": second, "status": "absent"} for row in moved(second)]
    at = save(url, bob, "phantom05", absent, newest(url, bob, "phantom05")["revision"]).json()["revision"]
    assert check(url, eve, "phantom05", [second]).status_code == 200
    unset = [row if row["name"] != second else {"name": second, "status": "unset"} for row in absent]
    assert save(url, bob, "phantom05", unset, at).status_code == 409  # nor is an absence taken back unseen
    assert Study(material.study, material.task).checked("phantom05")[first].author == "eve"


def test_a_labelling_that_calls_points_right_is_its_persons_reading(tmp_path):
    """The first of a case, and one that moves a point beside the check; a check alone is not."""
    made = phantoms(tmp_path, 2)
    first, second = sorted(made.truth)
    with serving(made) as server:
        rows = [
            {"name": n, "status": "placed", "position": list(p)}
            for n, p in zip(made.task.names, made.truth[first].positions_mm, strict=True)
        ]
        save(server.url, {}, first, rows, 0, author="ann", checked=[made.task.names[0]]).raise_for_status()
        save(server.url, {}, second, rows, 0, author="ann").raise_for_status()
        moved = [rows[0] | {"position": [rows[0]["position"][0] + 1, *rows[0]["position"][1:]]}, *rows[1:]]
        save(server.url, {}, second, moved, 1, author="ann", checked=[made.task.names[1]]).raise_for_status()
        save(server.url, {}, first, rows, 1, author="bob", checked=[made.task.names[1]]).raise_for_status()
    readers = read_readers(made.study, made.task, {})
    assert {who: sorted(sets) for who, sets in readers.items()} == {"ann": [first, second]}
    assert readers["ann"][second].positions_mm[0][0] == pytest.approx(made.truth[first].positions_mm[0][0] + 1)
