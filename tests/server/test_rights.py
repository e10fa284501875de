"""The same right for the same effect, by whichever address it is asked for; and nobody takes all cases."""

from __future__ import annotations

import json

import pytest
from serving import Material, phantoms

from landmarklabel.errors import NotAllowed
from landmarklabel.io.markups import dump_markups
from landmarklabel.landmarks import LandmarkSet, Status
from landmarklabel.server import routes
from landmarklabel.services.callers import ANNOTATOR, ROLES, USER, Caller, set_caller
from landmarklabel.store.tokens import Tokens

REMOVES = "that would remove it, which needs the role reviewer"


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    return phantoms(tmp_path_factory.mktemp("rights"), 10)


@pytest.fixture(scope="module")
def held(material) -> dict[str, dict]:
    """Role to the headers of somebody who has it."""
    tokens = Tokens(material.study)
    return {role: {"Authorization": f"Bearer {tokens.new(role, role)}"} for role in ROLES if role != "user"}


@pytest.fixture(scope="module")
def server(material, held, running_server):
    with running_server(material) as server:
        yield server


def rows(landmarks: LandmarkSet) -> list[dict]:
    triples = zip(landmarks.task.names, landmarks.positions_mm.tolist(), landmarks.status, strict=True)
    return [{"name": n, "position": p if s.has_position else None, "status": s.value} for n, p, s in triples]


def by_our_address(server, image_id: str, landmarks: LandmarkSet, who: dict):
    base = server.get(f"/landmarks/images/{image_id}", headers=who)["revision"]
    body = {"landmarks": rows(landmarks), "base_revision": base}
    return server.http("PUT", f"/landmarks/images/{image_id}", json=body, headers=who)


def by_monai_labels(server, image_id: str, landmarks: LandmarkSet, who: dict):
    """Partial, as the panel for a draft sends it: without it MONAI Label's address takes predictions as accepted."""
    sent = {"files": {"label": ("x.mrk.json", dump_markups(landmarks))}, "data": {"params": json.dumps({"partial": True})}}
    return server.http("PUT", f"/datastore/label?image={image_id}&tag=final", headers=who, **sent)


def left_with_nothing(material: Material, image_id: str) -> dict[str, LandmarkSet]:
    truth = material.truth[image_id]
    predicted = LandmarkSet(truth.task, truth.positions_mm, (Status.PREDICTED,) * len(truth.task))
    return {"unset": LandmarkSet.empty(truth.task), "predicted": predicted}


@pytest.mark.parametrize("save", [by_our_address, by_monai_labels])
def test_who_may_not_remove_a_label_cannot_save_nothing_over_it(server, material, held, save):
    image_id, annotator, reviewer = "phantom00", held["annotator"], held["reviewer"]
    assert save(server, image_id, material.truth[image_id], reviewer).status_code == 200
    before = server.get(f"/landmarks/images/{image_id}", headers=annotator)
    for landmarks in left_with_nothing(material, image_id).values():
        answer = save(server, image_id, landmarks, annotator)
        assert answer.status_code == 403 and REMOVES in answer.json()["detail"], answer.text
        assert save(server, "nobody", landmarks, annotator).status_code == 404 if save is by_monai_labels else True
    empty = {"landmarks": [], "base_revision": before["revision"]}
    assert server.http("PUT", f"/landmarks/images/{image_id}", json=empty, headers=annotator).status_code == 403
    assert server.http("DELETE", f"/datastore/label?id={image_id}&tag=final", headers=annotator).status_code == 403
    assert server.get(f"/landmarks/images/{image_id}", headers=annotator) == before
    one = LandmarkSet.empty(material.task).with_landmark(material.task.names[0], None, Status.ABSENT)
    assert save(server, image_id, one, annotator).status_code == 200  # says something: a correction
    assert save(server, image_id, LandmarkSet.empty(material.task), reviewer).status_code == 200
    listed = server.get("/landmarks/images", headers=reviewer)["images"]
    assert not next(row for row in listed if row["image"] == image_id)["labelled"]


@pytest.mark.parametrize("save", [by_our_address, by_monai_labels])
def test_nothing_may_be_saved_where_nothing_was(server, material, held, save):
    image_id = "phantom01"
    for landmarks in left_with_nothing(material, image_id).values():
        assert save(server, image_id, landmarks, held["annotator"]).status_code == 200


def test_a_label_that_was_edited_in_its_file_is_not_removed_either(server, material, held):
    """The store does not know of it yet: the save, which would, finds another newest revision."""
    file = material.study / "labels" / "final" / "phantom02.mrk.json"
    file.write_text(dump_markups(material.truth["phantom02"]), encoding="utf-8")
    answer = by_monai_labels(server, "phantom02", LandmarkSet.empty(material.task), held["annotator"])
    assert answer.status_code == 409, answer.text
    newest = server.get("/landmarks/images/phantom02", headers=held["annotator"])
    assert newest["revision"] == 1 and newest["author"] == "file"


def test_a_prediction_is_kept_by_those_who_may_keep_labels(server, held, material):
    """``save_label`` of an inference does what ``PUT /datastore/label`` does: for everybody else it is refused."""
    params = {"data": {"params": json.dumps({"save_label": True})}}
    ask = lambda who: server.http("POST", "/infer/scn?image=phantom03&output=json", headers=held[who], **params)  # noqa: E731
    assert ask("annotator").status_code == 200
    assert (material.study / "labels" / "original" / "phantom03.mrk.json").is_file()


def test_a_user_keeps_no_prediction():
    """No token of ours has the role user; Keycloak's may."""
    set_caller(Caller("u", USER))
    for value in (True, "true", 1):
        with pytest.raises(NotAllowed, match="needs the role annotator"):
            routes._params(json.dumps({"save_label": value}))
    assert routes._params('{"save_label": false}') == {"save_label": False}
    set_caller(Caller("a", ANNOTATOR))
    assert routes._params('{"save_label": true}') == {"save_label": True}
    set_caller(Caller())


# --- cases in hand ---------------------------------------------------------------------------------------------------


def test_a_tokens_holder_has_one_case_whatever_the_client_calls_itself(server, held):
    def ask(who: str, client: str) -> str:
        answer = server.http("POST", "/activelearning/first", json={"client_id": client}, headers=held[who])
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]

    mine = [ask("annotator", f"client {k}") for k in range(12)]
    other = ask("reviewer", "client 11")  # the same name, another person
    assert other != mine[-1]
    page = server.http("GET", "/landmarks/", headers=held["admin"]).text
    assert page.count("in somebody") == 2 and "client 1" not in page


def test_one_computer_cannot_take_all_cases_under_many_names(tmp_path, running_server):
    material = phantoms(tmp_path, 10)
    with running_server(material) as server:
        answers = [server.http("POST", "/activelearning/first", json={"client_id": f"c{k}"}) for k in range(12)]
        codes = [answer.status_code for answer in answers]
        assert codes == [200] * 5 + [429] * 7  # half of ten
        says = "this computer has 5 cases in hand, and no more than 5: submit some, or use tokens"
        assert answers[-1].json()["detail"] == says
        again = server.http("POST", "/activelearning/first", json={"client_id": "c0"})
        assert again.status_code == 200  # who has a case may change it for another
        forged = {"client_id": "c11", "address": "10.0.0.9"}
        assert server.http("POST", "/activelearning/first", json=forged).status_code == 429
