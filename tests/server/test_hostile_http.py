"""Requests that mean harm, made from the server's own description: nothing outside changes, nothing leaks, nobody waits."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import Material, phantoms, tail

from landmarklabel.io.markups import dump_markups
from landmarklabel.store.study import Study

WORDS = (
    "landmarks", "base_revision", "author", "key", "repeat", "fixed", "absent", "model", "client_id", "strategy", "name",
    "position", "status", "thumb_tip", "minutes", "image", "params",
)  # fmt: skip
PATIENT = "DOE_JANE_19700101"
NAMES = [
    "../x", "..", "../../../../etc/passwd", "/etc/passwd", "%2e%2e%2fx", "..%2fx", "..\\x", "C:\\x", "x\0.png", "．．／x", "‥/x",
    "a" * 300, "-", ".", ".hidden", "labels", "~root", "CON", "phantom00/../x", "file:///etc/passwd", "http://127.0.0.1:9/x",
    "$(id)", "'; DROP TABLE revisions; --", "\u202egnp.x", "🦴",
]  # fmt: skip
_SPY = """
import os, socket
_connect = socket.socket.connect
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        with open(os.environ["SPY"], "a") as file:
            file.write(f"{address}\\n")
    return _connect(self, address)
socket.socket.connect = connect
"""


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    return phantoms(tmp_path_factory.mktemp("hostile"), 4)


@pytest.fixture(scope="module")
def spied(tmp_path_factory) -> Path:
    """Where the server's process and its children write each connection that they open."""
    folder = tmp_path_factory.mktemp("spy")
    (folder / "sitecustomize.py").write_text(_SPY, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def server(material, running_server, spied):
    more = {"PYTHONPATH": str(spied), "SPY": str(spied / "connections")}
    with running_server(material, "max_upload_mb", "4", more=more) as server:
        yield server


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder and the hash of its content."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def outside(material: Material) -> dict[str, str]:
    """What lies beside the study, but for the log."""
    beside = tree(material.study.parent)
    return {name: digest for name, digest in beside.items() if not name.startswith(("study/", "server-"))}


def test_no_parameter_of_any_route_names_a_place_outside(server, material):
    """Every path and query parameter of every operation, with every name above."""
    before, images = outside(material), sorted(material.truth)
    markups = dump_markups(material.truth["phantom00"])
    asked = 0
    with requests.Session() as session:
        for path, methods in server.get("/openapi.json")["paths"].items():
            for method, about in methods.items():
                if (method, path) in (("delete", "/train/"), ("delete", "/batch/infer"), ("get", "/")):
                    continue
                whole = "nobody" if method == "delete" else "phantom00"
                for parameter in about.get("parameters", []):
                    if parameter["schema"].get("type", "string") != "string" and "anyOf" not in parameter["schema"]:
                        continue
                    for name in NAMES:
                        given = {p["name"]: whole for p in about["parameters"] if p.get("required")} | {parameter["name"]: name}
                        inside = {p["name"]: given.pop(p["name"]) for p in about["parameters"] if p["in"] == "path"}
                        place = re.sub(r"{(\w+)}", lambda m, inside=inside: requests.utils.quote(inside[m[1]], safe=""), path)
                        files = {"file": ("x.png", b"x"), "label": ("x.mrk.json", markups), "files": ("x.png", b"x")}
                        sent = {"files": files} if method == "put" and "/landmarks/" not in path else {"json": {}}
                        if method in ("get", "head", "delete"):
                            sent = {}
                        answer = session.request(method, server.url + place, params=given, timeout=60, **sent)
                        assert answer.status_code < 500, (method, path, parameter["name"], name, answer.text)
                        assert "root:" not in answer.text
                        asked += 1
    assert asked > 500
    assert outside(material) == before and sorted(server.client.datastore()["objects"]) == images


def test_the_server_opens_no_connections(server, material, spied):
    """After all of the above, an inference, and a look at every page."""
    for path in ("/info/", "/landmarks/", "/openapi.json"):
        server.http("GET", path)
    assert server.http("POST", "/infer/scn", params={"image": "phantom01"}).status_code == 200
    server.http("POST", "/infer/scn", params={"image": "http://127.0.0.1:9/x.png"})
    log = spied / "connections"
    assert not log.exists(), log.read_text(encoding="utf-8")


# --- bodies ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def steady(server):
    """Others are answered meanwhile, and the server's memory stays bounded."""
    process, times, stop = psutil.Process(server.process.pid), [], threading.Event()
    before = process.memory_info().rss
    peak = [before]

    def watch():
        with requests.Session() as session:
            while not stop.is_set() or len(times) < 5:
                started = time.perf_counter()
                assert session.get(f"{server.url}/landmarks/task", timeout=30).status_code == 200
                times.append(time.perf_counter() - started)
                peak[0] = max(peak[0], process.memory_info().rss)
                time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield
    stop.set()
    watcher.join(60)
    assert not watcher.is_alive() and times
    assert (peak[0] - before) / 2**20 < 64  # JSON takes some twenty times its bytes as Python objects
    assert np.percentile(times, 50) < 0.2


def endless(first: bytes, piece: bytes, sent: list[int], most: int = 64 * 2**20):
    yield first
    while sum(sent) < most:
        sent.append(len(piece))
        yield piece


def test_an_upload_over_the_limit_is_cut_off_soon(server, steady):
    big = b"x" * (5 * 2**20)
    assert server.http("PUT", "/datastore/image", params={"image": "big"}, files={"file": ("big.png", big)}).status_code == 413
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n\r\n'
    sent: list[int] = []
    body = endless(head, b"x" * 2**16, sent)
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    try:
        status = requests.put(f"{server.url}/datastore/image?image=big", data=body, headers=headers, timeout=60).status_code
    except requests.ConnectionError:  # the answer was given and the connection closed while the client was still sending
        status = 413
    assert status == 413 and sum(sent) < 4 * 2**20 + 8 * 2**20  # what the kernel's buffers take comes on top


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"landmarks":' * 50_000,
        b'{"landmarks": [], "base_revision": NaN, "fixed": NaN, "minutes": NaN}',
        b'{"landmarks": [{"name": "a", "position": [Infinity, 1], "status": "placed"}], "base_revision": 0}',
        b'{"landmarks": [{"name": "a", "position": [1e999, 1], "status": "placed"}], "base_revision": 0}',
        b'{"landmarks": ' + b"9" * 100_000 + b', "base_revision": 0}',
        b'{"base_revision": ' + b"9" * 5000 + b', "landmarks": []}',
        b'{"landmarks": [' + b'{"name": "a"},' * 100_000 + b'{}], "base_revision": 0}',
        b"\xff\xfe{\x00",
        b"\x00" * 1000,
        b'{"landmarks": "\\ud800", "base_revision": 0}',
    ],
    ids=["brackets", "objects", "nan", "infinity", "overflow", "digits", "revision", "rows", "utf16", "zeros", "surrogate"],
)
@pytest.mark.parametrize(
    "path", ["PUT /landmarks/images/phantom00", "POST /landmarks/images/phantom00/update", "POST /train/nothere"]
)
def test_json_that_means_harm_is_refused(server, steady, path, body):
    method, _, place = path.partition(" ")
    answer = server.http(method, place, data=body, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text
    assert len(answer.text) < 10_000


def test_a_hundred_thousand_parts_are_refused(server, steady):
    part = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    answer = server.http(
        "PUT", "/datastore/image?image=x", data=part * 50_000, headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert answer.status_code == 400


def test_connections_that_send_a_byte_now_and_then_hold_nobody_up(server, steady):
    held = [socket.create_connection(server.url.removeprefix("http://").split(":"), timeout=30) for _ in range(150)]
    try:
        for k, connection in enumerate(held):
            connection.sendall(
                b"PUT /landmarks/images/phantom00 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n"[: 20 + k]
            )
        for _ in range(5):
            for connection in held:
                connection.sendall(b"x")
            assert server.http("GET", "/info/").status_code == 200
    finally:
        for connection in held:
            connection.close()


def test_a_connection_lost_at_any_byte_saves_nothing_or_once(server, material):
    """Two hundred cuts of a submission, then the whole of it: one revision."""
    image_id, task = "phantom02", material.task
    rows = [{"name": n, "position": [float(k), 5.0], "status": "placed"} for k, n in enumerate(task.names)]
    content = json.dumps({"landmarks": rows, "base_revision": 0, "key": "once", "author": "ann"}).encode()
    head = f"PUT /landmarks/images/{image_id} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    whole = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
    address = server.url.removeprefix("http://").split(":")

    def cut(at: int) -> None:
        with socket.create_connection(address, timeout=30) as connection:
            connection.sendall(whole[:at])

    cuts = sorted({*np.linspace(1, len(whole) - 1, 195).astype(int), *range(len(whole) - 5, len(whole))})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(cut, cuts))
    assert server.get(f"/landmarks/images/{image_id}")["revision"] == 0
    for _ in range(5):
        cut(len(whole))  # sent, and gone before the answer
    body = {"data": content, "headers": {"Content-Type": "application/json"}}
    assert server.http("PUT", f"/landmarks/images/{image_id}", **body).json()["revision"] == 1
    history = server.get(f"/landmarks/images/{image_id}/history")["revisions"]
    assert [(r["revision"], r["author"]) for r in history] == [(1, "ann")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=8), inner, max_size=6),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_json_for_any_operation_gets_an_answer_that_is_no_internal_error(server, data):
    """Operations and their parameters as the server describes them; bodies near and far from what they take."""
    operations = _operations(server.url)
    path, method, names = data.draw(st.sampled_from(operations))
    value = st.sampled_from(["phantom00", "scn", "random", "final", "1", "true"]) | st.text(max_size=12)
    query = {name: data.draw(value, label=name) for name, where in names if where == "query" and data.draw(st.booleans())}
    place = re.sub(r"{(\w+)}", lambda m: requests.utils.quote(data.draw(value, label=m[1]), safe=""), path)
    body = json.dumps(data.draw(st.dictionaries(st.sampled_from(WORDS), JSON) | JSON, label="body"))
    sent = {
        "json": {"headers": {"Content-Type": "application/json"}, "data": body},
        "form": {"data": {"params": body, "info": body}},
    }
    answer = server.http(method, place, params=query, **sent[data.draw(st.sampled_from(sorted(sent)))])
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400 and method != "head":
        assert answer.json()["detail"]


@functools.cache
def _operations(url: str) -> list[tuple]:
    """Path, method and parameters of all but those that stop, remove or train something."""
    described = requests.get(f"{url}/openapi.json", timeout=30).json()["paths"]
    listed = [(p, m, about) for p, methods in described.items() for m, about in methods.items()]
    kept = [(p, m, a) for p, m, a in listed if m != "delete" and not p.startswith(("/train/", "/batch/"))]
    return [(p, m, [(x["name"], x["in"]) for x in a.get("parameters", [])]) for p, m, a in kept]


# --- what is said ----------------------------------------------------------------------------------------------------


def test_the_log_holds_no_names(tmp_path, running_server):
    """Names of patients in file names, image headers, labels, parameters, headers of requests, and a damaged label file."""
    material = phantoms(tmp_path, 2)
    (material.study / "phantom00.png").rename(material.study / f"{PATIENT}.png")
    (material.study / f"{PATIENT}b.nii").write_bytes(b"\x5c\x01\0\0" + PATIENT.encode() + bytes(400))
    study = Study(material.study, material.task)
    study.save(PATIENT, material.truth["phantom00"], author=PATIENT)
    study.close()
    (material.study / "labels" / "final" / "phantom01.mrk.json").write_text(f'{{"x": "{PATIENT}"', encoding="utf-8")
    with running_server(material) as server:
        ask = {"headers": {"X-Patient": PATIENT, "User-Agent": PATIENT}}
        for image in (PATIENT, f"{PATIENT}b", f"{PATIENT}-nobody"):
            server.http("POST", "/infer/scn", params={"image": image}, data={"params": json.dumps({"note": PATIENT})}, **ask)
            server.http("GET", "/datastore/image", params={"image": image}, **ask)
            server.http("GET", f"/landmarks/images/{image}", **ask)
        label = dump_markups(material.truth["phantom00"]).encode()
        for content in (label, PATIENT.encode()):
            sent = {"files": {"label": (f"{PATIENT}.mrk.json", content)}, "data": {"params": json.dumps({"user": PATIENT})}}
            server.http("PUT", "/datastore/label", params={"image": PATIENT}, **sent, **ask)
        server.http("PUT", "/datastore/image", params={"image": f"{PATIENT}c"}, files={"file": (f"{PATIENT}.png", b"x")}, **ask)
        server.http("PUT", "/session/", files={"files": (f"{PATIENT}.nii", PATIENT.encode())}, **ask)
        server.http("POST", "/activelearning/random", json={"client_id": PATIENT}, **ask)
        server.http("POST", "/batch/infer/scn", json={"images": "all", "note": PATIENT}, **ask)
        server.wait_for_end("/batch/infer")
        server.train({"max_epochs": 1, "name": PATIENT})
        said = tail(server, 10**7) + "".join(
            p.read_text(errors="replace", encoding="utf-8") for p in material.study.rglob("*.log") if p != server.log
        )
    for name in (PATIENT, "DOE", "JANE"):
        assert name not in said
    assert "Traceback" not in said and "LandmarkLabel" in said
