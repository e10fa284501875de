"""What is sent and refused leaves nothing on disk, and a data set lacks only what cannot be read, which it names."""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
import requests
import SimpleITK as sitk
from serving import Material, phantoms, wait_until

from landmarklabel.io.markups import dump_markups, parse_markups
from landmarklabel.services.datastore import LEFT_OUT, StudyDatastore
from landmarklabel.store.revision_json import same_landmarks
from landmarklabel.store.study import Study

PATIENT = b"DOE_JANE_19700101"


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    return phantoms(tmp_path_factory.mktemp("uploads"), 5)


@pytest.fixture(scope="module")
def temporary(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tmpdir")


@pytest.fixture(scope="module")
def server(material, running_server, temporary):
    with running_server(material, "max_upload_mb", "4", more={"TMPDIR": str(temporary)}) as server:
        put_label(server, "phantom00", dump_markups(material.truth["phantom00"]))
        yield server


@pytest.fixture
def nothing_left(server, material, temporary):
    """Every file in the study and in TMPDIR is there afterwards, and no other; the server's own notes aside."""
    its_notes = ("revisions.sqlite", "pixels.jsonl")

    def files() -> dict[str, int]:
        found = [p for place in (material.study, temporary) for p in place.rglob("*") if not p.name.startswith(its_notes)]
        return {str(p): p.stat().st_size for p in found if p.is_file()}

    before = files()
    yield
    try:
        wait_until(lambda: files() == before, 10, "what was sent to be gone")
    except AssertionError:
        assert files() == before
        raise


def put_label(server, image_id: str, content: str | bytes, name: str = "x.mrk.json", **params):
    where, form = {"image": image_id}, {"params": json.dumps(params)}
    return server.http("PUT", "/datastore/label", params=where, files={"label": (name, content)}, data=form)


def refusals(material: Material) -> dict[str, tuple]:
    """Method, path, and what is sent with it; every one of them brings a patient's data."""
    good = material.image("phantom01").read_bytes()
    damaged = good[: len(good) // 2] + PATIENT
    label = dump_markups(material.truth["phantom01"])
    big = np.random.default_rng(0).bytes(5 * 2**20)

    def file(content=damaged, name="a.png", field="file") -> dict:
        return {"files": {field: (name, content)}}

    def params(what: object, **sent) -> dict:
        return {"data": {"params": what if isinstance(what, str) else json.dumps(what)}, **sent}

    image, infer, sessions = ("PUT", "/datastore/image?image=new"), ("POST", "/infer/scn"), ("PUT", "/session/")
    labels = ("PUT", "/datastore/label?image=phantom01")
    two = {"files": [("files", ("a.png", good)), ("files", ("b/a.png", good))]}
    return {
        "image damaged": (*image, file()),
        "image damaged, older address": ("PUT", "/datastore/?image=new", file()),
        "image of another kind": (*image, file(name="a.py")),
        "image id": ("PUT", "/datastore/image?image=.hidden", file(good)),
        "image id too long": ("PUT", "/datastore/image?image=" + "é" * 150, file(good)),
        "image id from the name": ("PUT", "/datastore/image", file(good, "..png")),
        "image taken": ("PUT", "/datastore/image?image=phantom00", file(good)),
        "image params": (*image, params("{", **file(good))),
        "image notes": (*image, params({"note": "x" * 2**17}, **file(good))),
        "image too large": (*image, file(big)),
        "no image": (*image, params({})),
        "image as text": (*image, {"data": {"file": "x" * 100}}),
        "label damaged": (*labels, file(label[:100] + str(PATIENT), "a.mrk.json", "label")),
        "label of another kind": (*labels, file(damaged, "a.nii.gz", "label")),
        "label of no image": ("PUT", "/datastore/label?image=nobody", file(label, "a.mrk.json", "label")),
        "label base": (*labels, params({"base_revision": 9}, **file(label, "a.mrk.json", "label"))),
        "label key": (*labels, params({"key": 5}, **file(label, "a.mrk.json", "label"))),
        "label tag": ("PUT", "/datastore/label?image=phantom01&tag=Final", file(label, "a.mrk.json", "label")),
        "session archive": ("PUT", "/session/?uncompress=true", file(good, "a.zip", "files")),
        "session name": (*sessions, file(good, "meta.info", "files")),
        "session hidden": (*sessions, file(good, ".png", "files")),
        "session name too long": (*sessions, file(good, "é" * 120 + ".png", "files")),
        "session names twice": (*sessions, two),
        "session too large": (*sessions, file(big, field="files")),
        "infer damaged": (*infer, file()),
        "infer of another kind": (*infer, file(name="a.txt")),
        "infer model": ("POST", "/infer/nothere", file(good)),
        "infer params": (*infer, params({"fixed": {"nose": [1, 2]}}, **file(good))),
        "infer output": ("POST", "/infer/scn?output=nothing", file(good)),
        "infer as final": ("POST", "/infer/scn?image=phantom01", params({"save_label": True, "label_tag": "final"})),
        "infer under a tag": ("POST", "/infer/scn?image=phantom01", params({"save_label": True, "label_tag": "a/b"})),
        "data set of minus one": ("GET", "/datastore/dataset?limit_cases=-1", {}),
    }


def test_nothing_of_a_refused_request_stays_on_disk(server, material, nothing_left):
    """And each is refused in words; what a request leaves is seen at the end, over all of them."""
    wrong = {}
    for name, (method, path, sent) in refusals(material).items():
        answer = server.http(method, path, **sent)
        if not (400 <= answer.status_code < 500 and answer.json()["detail"]):
            wrong[name] = answer.status_code, answer.text
    assert not wrong


def test_what_is_answered_leaves_nothing_either(server, material, nothing_left):
    sent = {"files": {"file": ("a.png", material.image("phantom01").read_bytes())}}
    for output in ("json", "image", "all"):
        assert server.http("POST", f"/infer/scn?output={output}", **sent).status_code == 200
        assert server.http("POST", f"/infer/scn?output={output}&image=phantom01").status_code == 200
    assert server.http("GET", "/datastore/dataset").status_code == 200
    session = server.http("PUT", "/session/", files={"files": ("a.png", b"x")}).json()["session_id"]
    assert server.http("DELETE", f"/session/{session}").status_code == 200
    assert server.client.upload_image(str(material.image("phantom01")), "new") == {"image": "new"}
    assert sorted(server.get("/datastore/image/info?image=new")) == ["client_id"]
    server.http("DELETE", "/datastore/image?id=new")
    for left in [*(material.study / ".landmarklabel/trash").iterdir(), material.study / ".landmarklabel/image_info/new.json"]:
        left.unlink()  # a removed image can be brought back


@pytest.mark.parametrize("path", ["/datastore/image?image=cut", "/session/", "/infer/scn", "/datastore/label?image=phantom01"])
def test_nothing_stays_of_a_client_that_goes_away_while_it_sends(server, material, nothing_left, path):
    field = {"/session/": "files", "/datastore/label?image=phantom01": "label"}.get(path, "file")
    content = PATIENT * 60_000 if field != "label" else PATIENT * 1000
    body = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="a.png"\r\n\r\n'.encode() + content
    method = "POST" if "infer" in path else "PUT"
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    whole = f"{head}Content-Length: {len(body) + 5000}\r\n\r\n".encode() + body
    with socket.create_connection(server.url.removeprefix("http://").split(":"), timeout=30) as connection:
        connection.sendall(whole)
    assert server.http("GET", "/info/").status_code == 200


def test_nothing_stays_of_a_data_set_that_nobody_reads_to_its_end(server, material, nothing_left):
    noise = np.random.default_rng(1).integers(0, 256, (1800, 2000), np.uint8)
    large = material.study / "large.png"
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(large))
    put_label(server, "large", dump_markups(material.truth["phantom00"]))
    with requests.get(f"{server.url}/datastore/dataset", stream=True, timeout=60) as answer:
        assert answer.status_code == 200 and int(answer.headers["content-length"]) > 3 * 2**20
        next(answer.iter_content(1000))
        assert not any((material.study / ".landmarklabel" / "incoming").iterdir())  # also while it is being sent
    large.unlink()
    for left in material.study.rglob("large.mrk.json"):
        left.unlink()
    # what labels were seen is noted where a study is looked through, as at the start, when there was none: not on the way
    assert not (material.study / ".landmarklabel/cache/label_files.json").exists()


def test_nothing_stays_where_the_disk_takes_no_more(server, material, nothing_left):
    """Files of this server may have 100 bytes from now on; what it then cannot do is said, and undone."""
    sent = {"files": {"file": ("a.png", material.image("phantom01").read_bytes())}}
    before = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        asked = ("GET", "/datastore/dataset", {}), ("PUT", "/datastore/image?image=new", sent), ("POST", "/infer/scn", sent)
        asked += (("PUT", "/session/", {"files": {"files": ("a.png", PATIENT * 99)}}),)
        answers = [server.http(method, path, **what) for method, path, what in asked]
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, before)
    assert [answer.status_code for answer in answers] == [507] * 4, [answer.text for answer in answers]
    remedy = "write where larger files are allowed (file system, ulimit -f), then try again"
    assert [remedy in answer.json()["detail"] for answer in answers] == [True] * 4, [answer.text for answer in answers]


# --- data sets -------------------------------------------------------------------------------------------------------


def archive(server, **query) -> zipfile.ZipFile:
    answer = server.http("GET", "/datastore/dataset", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"] == 'attachment; filename="dataset.zip"'
    return zipfile.ZipFile(io.BytesIO(answer.content))


def test_a_data_set_says_what_the_store_says_whatever_became_of_files(server, material):
    """Label files missing and damaged, an image gone, one that cannot be read, one older than zip files can say."""
    for image_id in ("phantom01", "phantom02", "phantom03", "phantom04"):
        assert put_label(server, image_id, dump_markups(material.truth[image_id])).status_code == 200
    labels = material.study / "labels" / "final"
    (labels / "phantom00.mrk.json").unlink()
    (labels / "phantom01.mrk.json").write_text("{", encoding="utf-8")
    os.utime(material.image("phantom00"), (0, 0))
    image = material.image("phantom03")
    away = image.rename(material.study.parent / "away.png")
    image.symlink_to(material.study.parent / "nowhere.png")
    try:
        kept = archive(server)
        assert sorted(kept.namelist()) == sorted(
            f"{path}" for i in ("0", "1", "2", "4") for path in (f"phantom0{i}.png", f"labels/final/phantom0{i}.mrk.json")
        )
        objects = server.get("/datastore/?output=all")["objects"]
        assert len(objects) == 4 and len(server.get("/datastore/?output=train")) == 4
    finally:
        image.unlink()
        away.rename(image)
    for name in ("phantom00", "phantom01"):
        said = parse_markups(kept.read(f"labels/final/{name}.mrk.json"), material.task, name)
        assert same_landmarks(said, material.truth[name])
    assert kept.read("phantom02.png") == material.image("phantom02").read_bytes()
    assert len(archive(server, limit_cases=2).namelist()) == 4 and archive(server, limit_cases=0).namelist() == []


def test_a_case_that_cannot_be_read_is_named_in_the_archive(material, tmp_path):
    """Between the listing and the reading an image vanishes: the others are there, and left_out.txt says which is not."""
    study = Study(tmp_path, material.task)
    for image_id in ("phantom00", "phantom01"):
        study.add_image(image_id, material.image(image_id))
        study.save(image_id, material.truth[image_id])
    store, listed = StudyDatastore(study), study.labelled

    def labelled():
        found = listed()
        (tmp_path / "phantom00.png").unlink(missing_ok=True)
        return found

    study.labelled = labelled
    file = io.BytesIO()
    store.write_archive(file)
    kept = zipfile.ZipFile(file)
    assert sorted(kept.namelist()) == ["labels/final/phantom01.mrk.json", LEFT_OUT, "phantom01.png"]
    assert kept.read(LEFT_OUT).decode().startswith("phantom00: ")
    study.close()


# --- sessions and checksums ------------------------------------------------------------------------------------------


def test_a_session_of_one_file_gives_it_back_and_one_of_several_says_that_it_does_not(server, material):
    pixels = material.image("phantom01").read_bytes()
    one = server.http("PUT", "/session/", files={"files": (r"C:\scans\a.png", pixels)}).json()
    assert server.http("GET", f"/session/{one['session_id']}?image=true").content == pixels
    assert server.get(f"/session/{one['session_id']}")["name"] == one["session_id"] == one["session_info"]["name"]
    several = server.http("PUT", "/session/", files=[("files", (f"{k}.dcm", b"x")) for k in range(3)]).json()["session_id"]
    refused = server.http("GET", f"/session/{several}?image=true")
    assert refused.status_code == 400 and "several files" in refused.json()["detail"]
    for session in (one["session_id"], several):
        assert server.http("DELETE", f"/session/{session}").status_code == 200


@pytest.mark.parametrize(
    ("given", "status"),
    [(None, 200), ("right", 200), ("SHA256:right", 200), ("SHA256:00", 404), ("00", 404), ("CRC:00", 400), ("MD5:", 200)],
)
def test_checksums(server, material, given, status):
    right = hashlib.sha256(material.image("phantom01").read_bytes()).hexdigest()
    query = {"image": "phantom01"} | ({"check_sum": given.replace("right", right)} if given else {})
    assert server.http("HEAD", "/datastore/image", params=query).status_code == status


def test_the_server_is_still_well(server):
    assert "internal error" not in server.log.read_text(errors="replace", encoding="utf-8")
