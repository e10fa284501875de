"""What a request may hold: numbers, names, texts and keys that no code was made for are refused in words, and change nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from serving import Material, phantoms

from landmarklabel.io.files import write_json
from landmarklabel.io.markups import dump_markups
from landmarklabel.landmarks import LandmarkTask

LONG = "n" * 150  # a landmark's name
HUGE = 10**399  # an integer no float can hold
JSON = {"Content-Type": "application/json"}
LONE = "\ud800"  # half a character


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    material = phantoms(tmp_path_factory.mktemp("requests"), 6)
    old = material.task
    task = LandmarkTask(old.name, (LONG, *old.names[1:]), old.dims)
    write_json(material.task_file, task.to_json())
    truth = {i: replace(landmarks, task=task) for i, landmarks in material.truth.items()}
    return Material(material.study, material.task_file, task, truth)


@pytest.fixture(scope="module")
def server(material, running_server):
    with running_server(material) as server:
        yield server


def rows(material: Material, image_id: str) -> list[dict]:
    truth = material.truth[image_id]
    return [
        {"name": n, "position": p, "status": "placed"} for n, p in zip(truth.task.names, truth.positions_mm.tolist(), strict=True)
    ]


def put(server, image_id: str, **body):
    return server.http(
        "PUT", f"/landmarks/images/{image_id}", data=json.dumps(body), headers={"Content-Type": "application/json"}
    )


def put_label(server, material, image_id: str, **params):
    files = {"label": ("x.mrk.json", dump_markups(material.truth[image_id]))}
    return server.http("PUT", "/datastore/label", params={"image": image_id}, files=files, data={"params": json.dumps(params)})


def revision(server, image_id: str) -> int:
    return server.get(f"/landmarks/images/{image_id}")["revision"]


def refused(answer, status: int, says: str) -> None:
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"], answer.text


# --- values ----------------------------------------------------------------------------------------------------------


def test_a_name_of_a_hundred_and_fifty_characters_is_a_name_like_others(server, material):
    assert put(server, "phantom00", landmarks=rows(material, "phantom00"), base_revision=0).json()["revision"] == 1
    fixed = {LONG: [10.0, 20.0]}
    moved = server.http("POST", "/landmarks/images/phantom00/update", json={"fixed": fixed})
    assert moved.json()["landmarks"][0]["position"] == [10.0, 20.0]
    assert server.http("POST", "/infer/scn?image=phantom00", data={"params": json.dumps({"fixed": fixed})}).status_code == 200
    twice = put(server, "phantom00", landmarks=rows(material, "phantom00")[:1] * 2, base_revision=1)
    refused(twice, 400, "appears twice")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (HUGE, "a number is too large"),
        (LONE, "half a character"),
        ("a\0b", "a NUL"),
        ([[[[]]]] * 3 + [json.loads("[" * 40 + "]" * 40)], "nested deeper than 32 levels"),
        (float("nan"), "no number at all"),
        (float("inf"), "no number at all"),
    ],
    ids=["digits", "surrogate", "nul", "deep", "nan", "infinity"],
)
def test_no_place_of_any_request_takes_what_nothing_can_use(server, material, value, says):
    """The same value in each place that a request has; in forms NaN is no JSON at all."""
    good = rows(material, "phantom01")
    update, save, infer = "/landmarks/images/phantom01/update", "/landmarks/images/phantom01", "/infer/scn?image=phantom01"
    name = next(n for n in material.task.names if n != LONG)
    asked = {
        ("POST", update): [{"fixed": {name: [value, 1]}}, {"fixed": {name: value}}, {"absent": [value]}, {"model": value}],
        ("PUT", save): [
            {"landmarks": [{**good[0], "position": [1.0, value]}], "base_revision": 0},
            {"landmarks": [{**good[0], "name": value}], "base_revision": 0},
            {"landmarks": [{**good[0], "status": value}], "base_revision": 0},
            {"landmarks": value, "base_revision": 0},
            *({"landmarks": good, "base_revision": 0, key: value} for key in ("author", "key", "repeat", "base_revision", "x")),
        ],
        ("POST", "/train/scn"): [
            {key: value} for key in ("minutes", "max_epochs", "seed", "device", "key", "pretrained", "name")
        ],
        ("POST", "/train/"): [{"scn": {"minutes": value}}, {"scn": value}],
        ("POST", "/activelearning/first"): [{"client_id": value}, {"x": value}],
        ("POST", "/batch/infer/scn"): [{"max_workers": value}, {"images": value}, {"label_tag": value}],
    }
    for (method, path), bodies in asked.items():
        for one in bodies:
            refused(server.http(method, path, data=json.dumps(one), headers=JSON), 422, says)
    status, says = (400, "must be a JSON object (JSON has no") if value != value or value == float("inf") else (422, says)
    for key in ("fixed", "absent", "device", "x"):
        refused(server.http("POST", infer, data={"params": json.dumps({key: value})}), status, says)
    for key in ("user", "client_id", "key", "base_revision", "x"):
        refused(put_label(server, material, "phantom01", **{key: value}), status, says)
    info = {"info": json.dumps({"note": value})}
    refused(server.http("PUT", "/datastore/image/info?image=phantom01", data=info), status, says)
    files = {"file": ("new.png", material.image("phantom00").read_bytes())}
    refused(server.http("PUT", "/datastore/image", files=files, data={"params": info["info"]}), status, says)
    assert revision(server, "phantom01") == 0 and server.get("/datastore/")["total"] == len(material.truth)
    assert server.http("GET", "/train/?check_if_running=true").status_code == 404


@pytest.mark.parametrize("key", ["minutes", "max_epochs", "seed"])
@pytest.mark.parametrize("value", [True, "soon", -1, 10**7, [1], {}], ids=str)
def test_a_training_is_given_numbers(server, key, value):
    refused(server.http("POST", "/train/scn", json={key: value}), 400, f"{key} ")


@pytest.mark.parametrize("device", ["tpu9", ["cuda:1"], "cuda:0", 1, {}, [[]], "CPU"], ids=str)
def test_a_device_is_one_of_those_that_are_listed(server, device):
    """What MONAI Label's own clients and Slicer send by default is: they send what ``/info/`` lists, or ``cuda``."""
    says = "must be one of auto, cpu, cuda"
    refused(server.http("POST", "/train/scn", json={"device": device}), 400, says)
    refused(server.http("POST", "/train/", json={"scn": {"device": device}}), 400, says)
    refused(server.http("POST", "/batch/infer/scn", json={"device": device}), 400, says)
    refused(server.http("POST", "/infer/scn?image=phantom01", data={"params": json.dumps({"device": device})}), 400, says)


@pytest.mark.parametrize("device", ["cuda", ["cuda"], ["auto", "cpu", "cuda"], "cpu", [], "", None], ids=str)
def test_a_device_as_clients_send_it_by_default_is_taken(server, device):
    params = {"params": json.dumps({"device": device})}
    answer = server.http("POST", "/infer/scn?image=phantom01&output=json", data=params)
    assert answer.status_code == 200, answer.text


def test_half_a_seed_is_no_seed(server):
    refused(server.http("POST", "/train/scn", json={"seed": 0.5}), 400, "seed '0.5' must be a whole number")


@pytest.mark.parametrize("value", [5, True, [], {}, "x" * 201, "tab\there", "\u202egnp"], ids=repr)
def test_names_of_people_are_text_that_can_be_shown_and_are_not_cut(server, material, value):
    says = "must be printable text of 0 to 200 characters"
    refused(put(server, "phantom01", landmarks=rows(material, "phantom01"), base_revision=0, author=value), 422, says)
    refused(put_label(server, material, "phantom01", user=value), 422, says)
    refused(put_label(server, material, "phantom01", client_id=value), 422, says)
    refused(server.http("POST", "/activelearning/first", json={"client_id": value}), 422, says)
    assert revision(server, "phantom01") == 0


def test_a_charset_that_makes_halves_of_characters_is_no_way_around(server, material):
    part = '--b\r\nContent-Disposition: form-data; name="info"\r\n\r\n{"note": "\\ud800"}\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b; charset=unicode_escape"}
    answer = server.http("PUT", "/datastore/image/info?image=phantom01", data=part.encode(), headers=headers)
    assert 400 <= answer.status_code < 500, answer.text
    assert server.get("/datastore/image/info?image=phantom01") == {}
    login = server.http("POST", "/auth/token", data=part.replace('"info"', '"password"').encode(), headers=headers)
    refused(login, 422, "the password: text")


# --- what an edit is based on, and keys ------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["0", 0.0, True, False, -1, [], {}, ""], ids=repr)
def test_the_base_of_an_edit_is_a_whole_number(server, material, base):
    says = "must be the number of the revision your edit started from: a whole number, 0 for none"
    refused(put(server, "phantom02", landmarks=rows(material, "phantom02"), base_revision=base), 422, says)
    refused(put_label(server, material, "phantom02", base_revision=base), 422, says)
    assert revision(server, "phantom02") == 0


def test_the_base_may_be_left_out_of_monai_labels_params_and_counts_where_it_is_given(server, material):
    refused(put(server, "phantom02", landmarks=rows(material, "phantom02"), base_revision=None), 422, "base_revision None")
    assert put_label(server, material, "phantom02", base_revision=None).status_code == 200
    assert put_label(server, material, "phantom02", base_revision=1).status_code == 200
    refused(put_label(server, material, "phantom02", base_revision=1), 409, "revision 2 is the newest")
    assert revision(server, "phantom02") == 2


@pytest.mark.parametrize("key", ["", "k" * 201, 5, True, [], "a\nb"], ids=repr)
def test_a_key_is_text_and_never_cut(server, material, key):
    says = "must be printable text of 1 to 200 characters"
    refused(put(server, "phantom03", landmarks=rows(material, "phantom03"), base_revision=0, key=key), 422, says)
    refused(put_label(server, material, "phantom03", key=key), 422, says)
    refused(server.http("POST", "/train/scn", json={"key": key}), 422, says)
    assert revision(server, "phantom03") == 0


def test_a_key_stands_for_one_content_of_one_image(server, material):
    """The same again answers as before; anything else under it is refused and changes nothing."""
    first, other = rows(material, "phantom03"), rows(material, "phantom03")[:-1]
    saved = put(server, "phantom03", landmarks=first, base_revision=0, key="k" * 200).json()
    assert saved["revision"] == 1
    assert put(server, "phantom03", landmarks=first, base_revision=0, key="k" * 200).json() == saved
    for image_id, content in (("phantom03", other), ("phantom04", first)):
        again = put(server, image_id, landmarks=content, base_revision=0, key="k" * 200)
        assert again.status_code == 409 and "current" not in again.json(), again.text
    refused(put_label(server, material, "phantom04", key="k" * 200), 409, "key")
    assert (revision(server, "phantom03"), revision(server, "phantom04")) == (1, 0)


@pytest.mark.parametrize("value", [1, "true", [], {}], ids=repr)
def test_a_second_reading_is_true_or_false(server, material, value):
    answer = put(server, "phantom00", landmarks=rows(material, "phantom00"), base_revision=1, repeat=value)
    refused(answer, 422, "must be true or false")


# --- names of images and tags ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "fits"), [(111, True), (112, False), (130, False), (199, False)])
def test_an_image_is_named_within_what_a_file_name_holds(server, material, count, fits):
    """222 bytes: with ``.mrk.json`` and the time of the trash a file name's 255."""
    image_id, before = "é" * count, len(server.get("/datastore/?output=all")["objects"])
    files = {"file": ("x.png", material.image("phantom00").read_bytes())}
    answer = server.http("PUT", "/datastore/image", params={"image": image_id}, files=files)
    if not fits:
        refused(answer, 400, f"has {2 * count} bytes; a file name has room for 222")
        assert len(server.get("/datastore/?output=all")["objects"]) == before
        return
    assert answer.status_code == 200
    body = {"landmarks": rows(material, "phantom00"), "base_revision": 0}
    assert put(server, image_id, **body).json()["revision"] == 1
    assert server.http("PUT", "/datastore/image/info", params={"image": image_id}, data={"info": "{}"}).status_code == 200
    assert server.http("DELETE", "/datastore/image", params={"id": image_id}).status_code == 200


@pytest.mark.parametrize("tag", ["Final", "FINAL", "fInal"])
def test_a_tag_differs_by_more_than_case(server, material, tag):
    files = {"label": ("x.mrk.json", dump_markups(material.truth["phantom04"]))}
    where = {"image": "phantom04", "tag": tag}
    says = f"label tag '{tag}' differs from 'final' only by case"
    refused(server.http("PUT", "/datastore/label", params=where, files=files), 400, says)
    params = {"params": json.dumps({"save_label": True, "label_tag": tag})}
    refused(server.http("POST", "/infer/scn?image=phantom04", data=params), 400, says)
    refused(server.http("POST", "/batch/infer/scn", json={"label_tag": tag}), 400, says)
    assert server.http("PUT", "/datastore/label", params={**where, "tag": "mine"}, files=files).status_code == 200
    refused(server.http("PUT", "/datastore/label", params={**where, "tag": "MINE"}, files=files), 400, "differs from 'mine'")
    assert sorted(p.name for p in (material.study / "labels").iterdir()) == ["final", "mine"]


# --- what is noted of images -----------------------------------------------------------------------------------------

POISON = {
    "id": "phantom00", "path": "/etc/passwd", "repeat": True, "reason": "because", "checksum": "x", "name": "y", "strategy": 5,
    "info": {}, "session_id": "z",
}  # fmt: skip


def test_what_is_noted_of_a_case_does_not_change_what_is_told_of_it(server, material):
    ask = lambda: server.http("POST", "/activelearning/first", json={"client_id": "alone"}).json()  # noqa: E731
    first = ask()
    note = server.http("PUT", "/datastore/image/info", params={"image": first["id"]}, data={"info": json.dumps(POISON)})
    assert note.status_code == 200, note.text
    while (again := ask())["id"] != first["id"]:
        pass
    assert again.pop("info") == POISON and set(again) == {"id", "path", "reason"}
    assert again["path"] == first["path"] and again["reason"] != POISON["reason"]
    assert server.get("/datastore/?output=all")["objects"][first["id"]]["image"]["info"] == POISON


@pytest.mark.parametrize(
    ("info", "status"),
    [
        ("[]", 400),
        ("5", 400),
        ('{"a": "' + "x" * 2**16 + '"}', 422),
        ('{"a":' * 9 + "1" + "}" * 9, 422),
        ('{"a": "\\ud800"}', 422),
    ],
    ids=["list", "number", "too long", "too deep", "half a character"],
)
def test_what_cannot_be_noted_is_refused(server, info, status):
    answer = server.http("PUT", "/datastore/image/info", params={"image": "phantom05"}, data={"info": info})
    assert answer.status_code == status and answer.json()["detail"]
    assert server.get("/datastore/image/info?image=phantom05") == {}


def test_notes_of_one_image_have_room_for_64_kib_together(server):
    add = lambda info: server.http("PUT", "/datastore/image/info?image=phantom05", data={"info": json.dumps(info)})  # noqa: E731
    assert add({"a": "x" * 40_000}).status_code == 200
    refused(add({"b": "x" * 40_000}), 422, "one image has room for 65536: note less")
    assert add({"a": "short"}).status_code == 200
    assert server.get("/datastore/image/info?image=phantom05") == {"a": "short"}


@pytest.mark.parametrize(
    "content",
    [
        "[1, 2]",
        "{",
        "[" * 100_000,
        '{"phantom02": 5, "phantom02": [], "phantom04": {"good": 1}}',
        '{"phantom02": {"note": "\\ud800"}, "phantom04": {"good": 1}, "../x": {"a": 1}}',
        '{"phantom02": {"n": NaN, "m": 1e999}, "phantom04": {"good": 1}}',
    ],
    ids=len,
)
def test_a_file_of_notes_that_is_damaged_hurts_no_answer_and_is_left_as_it_is(server, material, content):
    older = material.study / ".landmarklabel" / "image_info.json"
    older.write_text(content, encoding="utf-8")
    try:
        objects = server.get("/datastore/?output=all")["objects"]
        good = "good" in content
        assert objects["phantom04"]["image"]["info"] == ({"good": 1} if good else {})
        assert objects["phantom02"]["image"]["info"] == {}
        for _ in range(8):
            assert server.http("POST", "/activelearning/random", json={"client_id": "reader"}).status_code == 200
        assert older.read_text(encoding="utf-8") == content
    finally:
        older.unlink()


def test_the_server_is_still_well(server):
    assert "internal error" not in server.log.read_text(errors="replace", encoding="utf-8")


def test_a_point_outside_of_its_image_is_refused_by_name_and_saved_when_it_is_inside(server, material):
    name, image_id = material.task.names[0], "phantom05"
    before = server.get(f"/landmarks/images/{image_id}")["revision"]
    body = [{"name": name, "status": "placed", "position": [-30.0, 5.0]}]
    for repeat in ({}, {"repeat": True}):
        request = {"landmarks": body, "base_revision": before, **repeat}
        answer = server.http("PUT", f"/landmarks/images/{image_id}", json=request)
        assert answer.status_code == 400, answer.text
        said = answer.json()["detail"]
        assert f"landmark {name!r} at (-30, 5) is 29.5 outside of the image" in said and "allow_outside" in said
    assert server.get(f"/landmarks/images/{image_id}")["revision"] == before
    body[0] |= {"position": [3.0, 5.0]}
    answer = server.http("PUT", f"/landmarks/images/{image_id}", json={"landmarks": body, "base_revision": before})
    assert answer.status_code == 200 and answer.json()["revision"] == before + 1


def test_answers_say_their_unit(server, material):
    assert server.get("/landmarks/images/phantom05")["unit"] == "px"
    moved = server.http("POST", "/landmarks/images/phantom05/update", json={"fixed": {}})
    assert moved.status_code == 200 and moved.json()["unit"] == "px"
