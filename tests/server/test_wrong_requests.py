"""Every kind of wrong request is refused in words and changes nothing."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from saved_labels import pictured_study, put_label, wire
from serving import Material

from landmarklabel.io.markups import dump_markups


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    return pictured_study(tmp_path_factory.mktemp("http"))


@pytest.fixture(scope="module")
def server(material, running_server):
    with running_server(material) as server:
        for image_id in sorted(material.truth)[:5]:  # what a wrong request could spoil
            assert put_label(server, image_id, dump_markups(material.truth[image_id])).status_code == 200
        yield server
        assert "Traceback" not in server.log.read_text(errors="replace", encoding="utf-8")  # whatever it was asked


@pytest.fixture
def untouched(server, material):
    """Labels, images and revisions are the same afterwards, and nothing appeared beside the study."""
    image_id = "phantom05"
    assert put_label(server, image_id, dump_markups(material.truth[image_id])).status_code == 200

    def snapshot() -> dict:
        files = [p for p in material.study.rglob("*") if p.is_file() and ".landmarklabel" not in p.parts]
        content = {str(p): p.read_bytes() for p in files}
        beside = sorted(p.name for p in material.study.parent.iterdir())
        heads = [server.get(f"/landmarks/images/{i}")["revision"] for i in sorted(material.truth)]
        total = server.client.info()["datastore"]["total"]
        return {"files": content, "beside": beside, "heads": heads, "images": total}

    before = snapshot()
    yield image_id
    assert snapshot() == before


def detail(answer) -> str:
    """The one JSON message of a refused request."""
    return json.dumps(answer.json()["detail"])


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("POST", "/infer/nothere?image=phantom00", 404, "no model"),
        ("POST", "/infer/scn?image=nothere", 404, "no image"),
        ("POST", "/infer/scn", 400, "which image"),
        ("POST", "/infer/scn?image=phantom00&output=nonsense", 422, "output"),
        ("POST", "/activelearning/nothere", 404, "no strategy"),
        ("GET", "/landmarks/images/nothere", 404, "no image"),
        ("GET", "/landmarks/images/nothere/history", 404, "no image"),
        ("GET", "/datastore/label?label=phantom07&tag=final", 404, "no label"),
        ("GET", "/datastore/image?image=nothere", 404, "no image"),
        ("POST", "/infer/scn?session_id=../../study", 400, "names nothing here"),
        ("POST", "/infer/scn?session_id=/etc", 400, "names nothing here"),
        ("POST", "/infer/scn?session_id=etc", 404, "no session"),
        ("POST", "/train/nothere", 404, "no model 'nothere' to train"),
        ("POST", "/train/scn?run_sync=true", 400, "leave out run_sync"),
        ("POST", "/infer/scn?session_id=00000000-0000-1000-8000-000000000000", 404, "no session"),
        ("GET", "/session/..%2F..%2Fstudy", 404, "nothing at this address"),
        ("DELETE", "/session/nothere", 404, "no session"),
    ],
)
def test_what_does_not_exist(server, untouched, method, path, status, says):
    answer = server.http(method, path)
    assert answer.status_code == status, answer.text
    assert says in answer.text


@pytest.mark.parametrize(
    "image",
    ["/etc/passwd", "../server.log", "../../etc/passwd", "labels/final/phantom05", "", " ", "a\x00b", "x" * 5000],
)
def test_image_ids_never_name_other_files(server, untouched, image):
    secret = server.http("POST", "/infer/scn", params={"image": image, "output": "json"})
    assert 400 <= secret.status_code < 500, secret.text
    for path in ("/datastore/image", "/datastore/image/info"):
        assert 400 <= server.http("GET", path, params={"image": image}).status_code < 500
    label = server.http("GET", "/datastore/label", params={"label": image, "tag": "final"})
    assert 400 <= label.status_code < 500
    content = b"{}"
    saved = server.http("PUT", "/datastore/label", params={"image": image}, files={"label": ("x.mrk.json", content)})
    assert 400 <= saved.status_code < 500
    assert 400 <= server.http("DELETE", "/datastore/image", params={"id": image}).status_code < 500


def test_images_are_never_added_outside_the_study(server, material, untouched):
    pixels = material.image("phantom00").read_bytes()
    for image_id in ("../outside", "/tmp/outside", "labels/x", ".hidden"):
        answer = server.http("PUT", "/datastore/image", params={"image": image_id}, files={"file": ("a.png", pixels)})
        assert answer.status_code == 400, answer.text
    for name in ("a.py", "a.png.exe", "a"):
        answer = server.http("PUT", "/datastore/image", params={"image": "new"}, files={"file": (name, pixels)})
        assert answer.status_code == 400, answer.text
    damaged = server.http("PUT", "/datastore/image", params={"image": "new"}, files={"file": ("a.png", pixels[:500])})
    assert damaged.status_code == 400, damaged.text


@pytest.mark.parametrize(
    "params",
    [
        "{",
        "[1]",
        "null",
        "nonsense",
        "[" * 100_000,
        '{"fixed": 5}',
        '{"fixed": {"nose": [1, 2]}}',
        '{"absent": ["nose"]}',
        '{"absent": "thumb_tip"}',
        '{"fixed": {"thumb_tip": [1]}}',
        '{"fixed": {"thumb_tip": [NaN, 1]}}',
    ],
)
def test_wrong_params(server, material, untouched, params):
    assert "thumb_tip" in material.task.names
    answer = server.http("POST", "/infer/scn", params={"image": "phantom00"}, data={"params": params})
    assert answer.status_code == 400, answer.text
    assert detail(answer)


@pytest.mark.parametrize("key", ["image", "label", "model", "uploaded_file", "session"])
def test_params_cannot_replace_the_image_or_model(server, untouched, key):
    data = {"params": json.dumps({key: "/etc/passwd"})}
    answer = server.http("POST", "/infer/scn", params={"image": "phantom00"}, data=data)
    assert answer.status_code == 400 and key in detail(answer), answer.text


def faulty_labels(material: Material) -> dict[str, tuple[str, str | bytes, str]]:
    """Name to file name, content and a part of the message."""
    good = dump_markups(material.truth["phantom05"])
    first = json.dumps(material.truth["phantom05"].positions_mm[0, 0])
    return {
        "empty": ("x.mrk.json", b"", "not JSON"),
        "text": ("x.mrk.json", "hello", "not JSON"),
        "truncated": ("x.mrk.json", good[: len(good) // 2], "not JSON"),
        "binary": ("x.mrk.json", bytes(range(256)), "UTF"),
        "nan": ("x.mrk.json", good.replace(first, "NaN", 1), "NaN"),
        "huge": ("x.mrk.json", good.replace(first, "1e300", 1), "from the origin"),
        "no markups": ("x.mrk.json", "{}", "markups"),
        "other names": ("x.mrk.json", good.replace("thumb_tip", "nose_tip"), "nose_tip"),
        "twice": ("x.mrk.json", good.replace("index_tip", "thumb_tip"), "2 times"),
        "deep": ("x.mrk.json", "[" * 100_000, "deep"),
        "image": ("x.nii.gz", b"\x1f\x8b" + bytes(100), "landmarks are .mrk.json"),
        "nrrd": ("x.nrrd", good, "landmarks are .mrk.json"),
    }


@pytest.mark.parametrize(
    "name",
    [
        "empty",
        "text",
        "truncated",
        "binary",
        "nan",
        "huge",
        "no markups",
        "other names",
        "twice",
        "deep",
        "image",
        "nrrd",
    ],
)
def test_a_faulty_label_is_refused_with_its_fault(server, material, untouched, name):
    file_name, content, says = faulty_labels(material)[name]
    for tag in ("final", "original"):
        answer = put_label(server, untouched, content, file_name, tag=tag)
        assert answer.status_code == 400, answer.text
        assert says in detail(answer)


@pytest.mark.parametrize("tag", ["../x", "/tmp/x", "a/b", "..", ".hidden", "x" * 200])
def test_tags_never_name_other_folders(server, material, untouched, tag):
    answer = put_label(server, untouched, dump_markups(material.truth[untouched]), tag=tag)
    assert answer.status_code == 400 and "tag" in detail(answer), answer.text


def test_wrong_bodies_of_our_own_route(server, material, untouched):
    rows = wire(material.truth[untouched])
    newest = server.get(f"/landmarks/images/{untouched}")["revision"]
    wrong = {
        "no landmarks": {"base_revision": newest},
        "no base": {"landmarks": rows},
        "base text": {"landmarks": rows, "base_revision": "1"},
        "base true": {"landmarks": rows, "base_revision": True},
        "base null": {"landmarks": rows, "base_revision": None},
        "base a fraction": {"landmarks": rows, "base_revision": float(newest)},
        "base zero as text": {"landmarks": rows, "base_revision": "0"},
        "base negative": {"landmarks": rows, "base_revision": -1},
        "unknown name": {"landmarks": [{**rows[0], "name": "nose"}], "base_revision": newest},
        "twice": {"landmarks": [rows[0], rows[0]], "base_revision": newest},
        "status": {"landmarks": [{**rows[0], "status": "sure"}], "base_revision": newest},
        "one number": {"landmarks": [{**rows[0], "position": [1.0]}], "base_revision": newest},
        "text": {"landmarks": [{**rows[0], "position": ["1", "2"]}], "base_revision": newest},
        "no position": {"landmarks": [{"name": rows[0]["name"], "status": "placed"}], "base_revision": newest},
        "extra key": {"landmarks": [{**rows[0], "note": "x"}], "base_revision": newest},
    }
    for name, body in wrong.items():
        answer = server.http("PUT", f"/landmarks/images/{untouched}", json=body)
        assert answer.status_code == (422 if "base" in name else 400), (name, answer.text)
    nan = json.dumps({"landmarks": [{**rows[0], "position": [np.nan, 1.0]}], "base_revision": newest})
    headers = {"content-type": "application/json"}
    for content in (nan, "{", "[]", "[" * 100_000):
        answer = server.http("PUT", f"/landmarks/images/{untouched}", data=content, headers=headers)
        assert 400 <= answer.status_code < 500, answer.text
    future = server.http("PUT", f"/landmarks/images/{untouched}", json={"landmarks": rows, "base_revision": newest + 5})
    assert (future.status_code, future.json()["detail"]) == (
        409,
        f"{untouched}: your edit started from revision {newest + 5}, which is not here, the newest is {newest}: a wrong number, "
        "or the study was restored from an older copy since; look at both versions and save again",
    )


def test_a_person_who_mistypes_the_address_of_the_status_page_finds_it(server):
    shown = server.http("GET", "/landmarks/?page=<b>", headers={"Accept": "text/html"})
    assert shown.status_code == 422 and shown.headers["content-type"].startswith("text/html")
    assert "<p>query.page: Input should be a valid integer" in shown.text and '<a href="./">Status of the study</a>' in shown.text
    assert "<b>" not in shown.text
    assert server.http("GET", "/landmarks/?page=0").json()["detail"].startswith("query.page: Input should be greater")


@pytest.mark.parametrize(("misspelt", "meant"), [("autor", "author"), ("base_revison", "base_revision"), ("Key", "key")])
def test_a_misspelt_key_is_not_lost_in_silence(server, material, untouched, misspelt, meant):
    """A name under ``autor`` would be nobody's."""
    newest = server.get(f"/landmarks/images/{untouched}")
    body = {"landmarks": newest["landmarks"], "base_revision": newest["revision"], "author": "Ida", "key": "k"}
    body[misspelt] = body.pop(meant)
    refused = server.http("PUT", f"/landmarks/images/{untouched}", json=body)
    assert refused.status_code == 422
    assert refused.json()["detail"] == f"{misspelt!r} is not known here; did you mean {meant!r}?"


def test_an_edit_of_a_revision_that_has_become_another_is_refused(server, material, untouched):
    """After a restore from an older copy another revision may have the number that an edit started from."""
    newest = server.get(f"/landmarks/images/{untouched}")
    body = {"landmarks": newest["landmarks"], "base_revision": newest["revision"], "author": "Ida"}
    refused = server.http("PUT", f"/landmarks/images/{untouched}", json=body, headers={"If-Match": f'"{"0" * 64}"'})
    answer, n = refused.json(), newest["revision"]
    assert (refused.status_code, answer["current"]["revision"]) == (409, n)
    assert answer["detail"] == (
        f"{untouched}: your edit started from revision {n}, and revision {n} here is not the one you edited: "
        "the study was restored from an older copy since; look at both versions and save again"
    )


@pytest.mark.parametrize("seen", ["*", "0" * 64, f'W/"{"0" * 64}"', '"a", "b"'])
def test_if_match_has_one_form(server, material, untouched, seen):
    newest = server.get(f"/landmarks/images/{untouched}")
    body = {"landmarks": newest["landmarks"], "base_revision": newest["revision"], "author": "Ida"}
    refused = server.http("PUT", f"/landmarks/images/{untouched}", json=body, headers={"If-Match": seen})
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith(
        "If-Match must be the sha256 of the revision that the edit started from, in quotes"
    )


def test_an_edit_says_by_its_hash_which_revision_it_started_from(server, material):
    image_id = "phantom07"
    base = {"revision": 0}
    for _ in range(2):
        body = {"landmarks": wire(material.truth[image_id]), "base_revision": base["revision"], "author": "Ida"}
        headers = {"If-Match": f'"{base["sha256"]}"'} if "sha256" in base else {}
        base = server.http("PUT", f"/landmarks/images/{image_id}", json=body, headers=headers).json()
    assert base["revision"] == 2


def test_an_answer_can_be_sent_back_as_it_is(server, material):
    image_id = "phantom06"
    first = {"landmarks": wire(material.truth[image_id]), "base_revision": 0, "author": "Ida", "my_own": 1}
    saved = server.http("PUT", f"/landmarks/images/{image_id}", json=first).json()
    again = server.http("PUT", f"/landmarks/images/{image_id}", json={**saved, "base_revision": saved["revision"]})
    assert (again.status_code, again.json()["author"]) == (200, "Ida")


@pytest.mark.parametrize("params", ["{", "[" * 100_000, '{"a": NaN}'])
def test_wrong_params_of_other_routes(server, material, untouched, params):
    label, pixels = dump_markups(material.truth[untouched]), material.image("phantom00").read_bytes()
    cases = [
        ("/datastore/label", {"image": untouched, "tag": "final"}, {"label": ("x.mrk.json", label)}, "params"),
        ("/datastore/image", {"image": "../x"}, {"file": ("a.png", pixels)}, "params"),
        ("/datastore/image/info", {"image": untouched}, {}, "info"),
        ("/datastore/label/info", {"label": untouched, "tag": "final"}, {}, "info"),
    ]
    for path, query, files, key in cases[1 if "NaN" in params else 0 :]:  # of a label's params only known keys are used
        answer = server.http("PUT", path, params=query, files=files or None, data={key: params})
        assert answer.status_code == 400, (path, answer.text)


def test_archives_are_not_unpacked(server, material, untouched):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../evil.png", material.image("phantom00").read_bytes())
    files = {"files": ("a.zip", packed.getvalue())}
    answer = server.http("PUT", "/session/", params={"uncompress": "true"}, files=files)
    assert answer.status_code == 400 and "archive" in detail(answer), answer.text


def test_garbage_in_a_session_is_a_clear_answer(server, untouched):
    session = server.http("PUT", "/session/", files={"files": ("a.png", b"no image at all")}).json()["session_id"]
    answer = server.http("POST", "/infer/scn", params={"session_id": session})
    assert answer.status_code == 400, answer.text
    upload = server.http("POST", "/infer/scn", files={"file": ("a.txt", b"no image")})
    assert upload.status_code == 400 and "no image" in detail(upload)
    assert str(server.log.parent) not in answer.text + upload.text  # no paths of the server


def test_the_server_is_still_well_after_wrong_requests(server, material, untouched):
    wrong = [
        ("PUT", f"/landmarks/images/{untouched}", {"data": b"\xff{"}),
        ("PUT", "/datastore/label", {"params": {"image": untouched}, "files": {"label": ("x.mrk.json", b"[")}}),
        ("PUT", "/datastore/image", {"params": {"image": "../x"}, "files": {"file": ("x.png", b"no image")}}),
        ("POST", "/infer/scn", {"files": {"file": ("a.txt", b"no image")}}),
        ("POST", "/infer/nothing", {"params": {"image": untouched}}),
        ("GET", "/landmarks/images/nothing", {}),
    ]
    for method, path, sent in wrong:
        assert 400 <= server.http(method, path, **sent).status_code < 500, path
    assert server.client.info()["datastore"]["total"] == len(material.truth)
    assert server.get(f"/landmarks/images/{untouched}")["revision"] > 0
    log = server.log.read_text(errors="replace", encoding="utf-8")
    assert log.strip() and "Traceback" not in log
