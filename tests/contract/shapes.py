"""What the product shows to others, reduced to what has to stay: names and types, not values.

Nothing here knows the product's inside: it runs the command line and the server as programs, and reads files with other
libraries.
``python -m tests.contract.shapes`` (from the repository's root) writes ``contract.json`` anew.
"""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import requests
from PIL import Image as Picture

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).with_name("contract.json")
NAMES = ("tip", "base", "left", "right")
VERBS = (
    *("task new", "task show", "import", "train", "publish", "predict", "evaluate", "measure", "shapes"),
    *("cohort plan", "cohort run", "cohort status", "cohort merge", "cohort submit"),
    *("simulate clicks", "simulate labels", "export", "serve"),
    *("study status", "study rename-landmark", "study drop-landmark", "study keep-labels"),
    *("token new", "token list", "token remove", "backup", "restore", "setup-monailabel", "doctor", "demo"),
)
HEADERS = ("content-type", "cache-control", "x-content-type-options", "content-security-policy", "x-frame-options")
DEADLINE_S = 240


def run(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """The command line, as a program."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "lib"), "COLUMNS": "200"}
    command = [sys.executable, "-m", "landmarklabel", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", timeout=DEADLINE_S)


def ok(*words: object) -> str:
    done = run(*words)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def shape(value: object, names: frozenset[str] = frozenset()) -> object:
    """Keys and types of a JSON value; keys that are names of a study's things become one key ``*``.

    Elements of a list are laid over each other, since all of them have to be read by the same program.
    """
    if isinstance(value, dict):
        out: dict = {}
        for key, inside in value.items():
            known = "*" if key in names or re.fullmatch(r"[\d.]+", key) else key
            out[known] = _over(out.get(known), shape(inside, names))
        return dict(sorted(out.items()))
    if isinstance(value, list):
        inside = None
        for element in value:
            inside = _over(inside, shape(element, names))
        return [] if inside is None else [inside]
    if value is None:
        return "null"
    return "bool" if isinstance(value, bool) else "number" if isinstance(value, int | float) else "text"


def _over(a: object, b: object) -> object:
    """Two shapes of values that stand in the same place."""
    if a is None or a == b:
        return b
    if isinstance(a, dict) and isinstance(b, dict):
        return dict(sorted({key: _over(a.get(key), b.get(key, a.get(key))) for key in {**a, **b}}.items()))
    if isinstance(a, list) and isinstance(b, list):
        return [_over(a[0], b[0])] if a and b else a or b
    texts = {word for x in (a, b) for word in (x.split("|") if isinstance(x, str) else [json.dumps(x)])}
    return "|".join(sorted(texts))


# --- a study as a user makes it -----------------------------------------------------------------------------------------


class Example:
    """Ten small pictures with four landmarks each, imported, and a model of a few steps."""

    def __init__(self, folder: Path):
        self.folder, self.study, self.model = folder, folder / "study", folder / "model"
        self.images, self.task = folder / "images", folder / "task.json"
        self.images.mkdir()
        (folder / "names.txt").write_text("\n".join(NAMES), encoding="utf-8")
        ok("task", "new", "four", "--names", folder / "names.txt", "--dims", 2, "--out", self.task)
        rng, rows = np.random.default_rng(0), ["id,label,x,y,annotator"]
        for number in range(10):
            points = np.array([[20, 15], [40, 70], [12, 50], [55, 45.0]]) + rng.normal(0, 3, (4, 2))
            pixels = rng.integers(0, 60, (96, 72)).astype(np.uint8)
            for x, y in points.round().astype(int):
                pixels[y - 2 : y + 3, x - 2 : x + 3] = 255
            Picture.fromarray(pixels).save(self.images / f"c{number}.png")
            if number < 8:
                rows += [f"c{number},{n},{x:.2f},{y:.2f},ann" for n, (x, y) in zip(NAMES, points, strict=True)]
        (folder / "points.csv").write_text("\n".join(rows), encoding="utf-8")
        ok("import", self.study, "--task", self.task, "--images", self.images, "--table", folder / "points.csv")
        ok("train", self.study, "--model", "scn", "--steps", 4, "--device", "cpu", "--out", self.model, "--no-publish")
        ok("publish", self.model, self.study)

    @property
    def names(self) -> frozenset[str]:
        return frozenset({*NAMES, *(f"c{n}" for n in range(10)), *(f"c{n}.png" for n in range(10))})


def listing(folder: Path, names: frozenset[str]) -> list[str]:
    """Files of a folder by their paths, with a study's own names and numbers as ``*``."""
    out = set()
    for path in folder.rglob("*"):
        if path.is_file():
            parts = [re.sub(r"^(c\d|v?\d+)(?=[.]|$)", "*", part) for part in path.relative_to(folder).parts]
            out.add("/".join(parts))
    return sorted(p for p in out if not p.endswith(("-wal", "-shm", ".lock", "lock")))


# --- what is observed ----------------------------------------------------------------------------------------------------


def command_line() -> dict:
    """Options and positional words of every verb, by the help."""
    out = {}
    for verb in VERBS:
        text = ok(*verb.split(), "--help")
        usage = text.partition("\n\n")[0]
        words = re.findall(r"(?<![\w-])--[a-z][a-z-]*", usage)
        places = [w for w in re.findall(r"(?<![\w<-])[A-Z][A-Z_]+(?![\w.])", re.sub(r"\[[^\]]*\]|--\S+ \S+", " ", usage))]
        out[verb] = {"options": sorted(set(words)), "words": places}
    return out


def exits() -> dict:
    """Exit status and the stream that is written to, of what goes right and wrong."""
    with tempfile.TemporaryDirectory() as folder:
        tried = {
            "--version": run("--version"),
            "no verb": run(),
            "unknown verb": run("trian"),
            "no such study": run("train", f"{folder}/none", "--task", "hand_xray", "--model", "scn"),
            "unknown model": run("train", folder, "--task", "hand_xray", "--model", "xyz"),
            "doctor": run("doctor"),
        }
    return {name: {"code": done.returncode, "out": bool(done.stdout), "err": bool(done.stderr)} for name, done in tried.items()}


def files(example: Example) -> dict:
    """What lies on disk, and the keys in it."""
    out = {"study": listing(example.study, example.names), "model": listing(example.model, example.names)}
    read = lambda path: shape(json.loads(path.read_text(encoding="utf-8")), example.names)  # noqa: E731
    out["task.json"], out["label"] = read(example.task), read(example.study / "labels" / "final" / "c0.mrk.json")
    out["study.json"] = read(example.study / ".landmarklabel" / "study.json")
    out["model.json"] = read(example.model / "model.json")
    ok("predict", example.model, example.images, "--out", example.folder / "out")
    out["predictions"] = listing(example.folder / "out", example.names)
    out["prediction"] = read(example.folder / "out" / "c9.mrk.json")
    for table in ("predictions.csv", "predictions_long.csv"):
        with (example.folder / "out" / table).open(newline="", encoding="utf-8") as file:
            out[table] = next(csv.reader(file))
    evaluated = ok("evaluate", example.folder / "out", example.study, "--json", "--include-training")
    out["evaluate --json"] = shape(json.loads(evaluated), example.names)
    out["study status --json"] = shape(json.loads(ok("study", "status", example.study, "--json")), example.names)
    out["doctor --json"] = shape(json.loads(ok("doctor", example.study, "--json")), example.names)
    clicks = ok("simulate", "clicks", example.model, example.study, "--clicks", 2, "--json")
    out["simulate clicks --json"] = shape(json.loads(clicks), example.names)
    ok("export", example.model, "--bundle", example.folder / "bundle")
    out["bundle"] = listing(example.folder / "bundle", example.names)
    return out


def database(example: Example) -> dict:
    """Tables and columns of the revision store, and the keys of a revision's body."""
    with closing(sqlite3.connect(example.study / ".landmarklabel" / "revisions.sqlite")) as connection:
        tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table' order by name")]
        out = {t: [f"{c[1]} {c[2]}" for c in connection.execute(f"pragma table_info({t})")] for t in tables if "sqlite" not in t}
        (body,) = connection.execute("select body from revisions order by id limit 1").fetchone()
    return {**out, "body": shape(json.loads(body), example.names)}


def settings(example: Example) -> list[str]:
    """The names that ``--conf`` takes, by the message for one that it does not."""
    words = (*START_SERVER, "--studies", example.study, "--conf", "no_such_name", "1", "--port", _free_port())
    done = subprocess.run([*map(str, words)], env=_environment(), capture_output=True, encoding="utf-8", timeout=DEADLINE_S)
    said = re.search(r"no_such_name is not known; there are ([\w, ]+)", done.stdout + done.stderr)
    assert done.returncode and said, done.stdout + done.stderr
    return sorted(said[1].split(", "))


def _environment() -> dict[str, str]:
    """In which the program is this checkout's, and the python that ``monailabel`` finds is this one."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PYTHONPATH": str(ROOT / "lib"), "PATH": path}


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


SERVE = (sys.executable, "-m", "landmarklabel", "serve")
START_SERVER = (str(Path(sys.executable).with_name("monailabel")), "start_server", "--app", str(ROOT / "apps" / "landmarks"))


@contextmanager
def served(example: Example, entrance: tuple[str, ...] = SERVE, models: tuple[str, ...] = ("--models", "scn")):
    """The study behind a real server; yields its address."""
    port = _free_port()
    words = (*entrance, "--studies", str(example.study), "--port", str(port), *models)
    with (example.folder / "server.log").open("wb") as log:
        process = subprocess.Popen(words, env=_environment(), stdout=log, stderr=log, start_new_session=True)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + DEADLINE_S
        while True:
            try:
                requests.get(f"{url}/info/", timeout=10)
                break
            except requests.RequestException:
                assert process.poll() is None and time.monotonic() < deadline, (example.folder / "server.log").read_text()
                time.sleep(0.2)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def answers(url: str, example: Example) -> dict:
    """Status, some headers, and the shape of what every route answers, MONAI Label's own among them."""
    label = (example.study / "labels" / "final" / "c0.mrk.json").read_bytes()
    picture = (example.images / "c0.png").read_bytes()
    rows = [{"name": n, "status": "placed", "position": [10.0 + k, 20.0]} for k, n in enumerate(NAMES)]
    png = lambda name: {"file": (name, picture, "image/png")}  # noqa: E731
    steps: list[tuple[str, str, dict]] = [
        ("GET", "/", {"allow_redirects": False}),
        ("GET", "/info/", {}),
        ("GET", "/health", {}),
        ("GET", "/metrics", {}),
        ("GET", "/openapi.json", {}),
        ("GET", "/auth/", {}),
        ("POST", "/auth/token", {"data": {"username": "ann", "password": "wrong"}}),
        ("GET", "/auth/token/valid", {}),
        ("GET", "/datastore/", {}),
        ("GET", "/datastore/?output=all", {}),
        ("GET", "/datastore/?output=train", {}),
        ("GET", "/datastore/image?image=c0", {}),
        ("GET", "/datastore/image?image=none", {}),
        ("GET", "/datastore/image/info?image=c0", {}),
        ("PUT", "/datastore/image/info?image=c0", {"data": {"info": '{"note": "x"}'}}),
        ("PUT", "/datastore/?image=new", {"files": png("new.png")}),
        ("DELETE", "/datastore/?id=new", {}),
        ("GET", "/datastore/label?label=c0&tag=final", {}),
        ("GET", "/datastore/label/info?label=c0&tag=final", {}),
        ("PUT", "/datastore/label?image=c8", {"files": {"label": ("c8.mrk.json", label)}, "data": {"params": "{}"}}),
        ("PUT", "/datastore/label?image=c8", {"files": {"label": ("c8.txt", b"x")}, "data": {"params": "{}"}}),
        ("DELETE", "/datastore/label?id=c8&tag=final", {}),
        ("GET", "/datastore/dataset", {}),
        ("PUT", "/session/", {"files": {"files": ("s.png", picture, "image/png")}}),
        ("POST", "/activelearning/adaptive", {"json": {"client_id": "ann"}}),
        ("POST", "/activelearning/none", {"json": {}}),
        ("POST", "/infer/scn?image=c9&output=json", {"data": {"params": "{}"}}),
        ("POST", "/infer/scn?image=c9&output=image", {"data": {"params": "{}"}}),
        ("POST", "/infer/scn?image=c9&output=all", {"data": {"params": "{}"}}),
        ("POST", "/infer/none?image=c9&output=json", {"data": {"params": "{}"}}),
        ("GET", "/model/info/scn", {}),
        ("GET", "/train/", {}),
        ("GET", "/batch/infer/", {}),
        ("GET", "/logs/", {}),
        ("POST", "/scoring/none", {}),
        ("GET", "/landmarks/", {}),
        ("GET", "/landmarks/task", {}),
        ("GET", "/landmarks/images", {}),
        ("GET", "/landmarks/images/c0", {}),
        ("GET", "/landmarks/images/c9", {}),
        ("GET", "/landmarks/images/none", {}),
        ("GET", "/landmarks/images/c0/history", {}),
        ("PUT", "/landmarks/images/c9", {"json": {"landmarks": rows, "base_revision": 0, "author": "ann", "key": "k"}}),
        ("PUT", "/landmarks/images/c9", {"json": {"landmarks": rows[:1], "base_revision": 0, "author": "ann"}}),
        ("PUT", "/landmarks/images/c9", {"json": {"landmarks": "x"}}),
        ("POST", "/landmarks/images/c9/update", {"json": {"fixed": {"tip": [11.0, 21.0]}, "absent": ["base"]}}),
        ("POST", "/landmarks/images/c9/update", {"json": {"fixed": {"nobody": [1, 2]}}}),
    ]
    out = {}
    for method, path, options in steps:
        answer = requests.request(method, url + path, timeout=DEADLINE_S, **options)
        seen: dict = {"status": answer.status_code}
        seen["headers"] = {h: _typed(answer.headers[h]) for h in HEADERS if h in answer.headers}
        if answer.headers.get("content-type", "").startswith("application/json") and path != "/openapi.json":
            seen["body"] = shape(answer.json(), example.names | {"scn", "new", "s"})
        key = f"{method} {path}"
        while key in out:
            key += " again"
        out[key] = seen
    return out


def _typed(header: str) -> str:
    return re.sub(r"boundary=.*|charset=\S+", "", header).strip("; ")


def observe() -> dict:
    """Everything, as it is now."""
    with tempfile.TemporaryDirectory(prefix="contract-") as folder:
        example = Example(Path(folder))
        seen = {"command line": command_line(), "exits": exits(), "settings": settings(example)}
        seen |= {"files": files(example), "database": database(example)}
        with served(example) as url:
            described = requests.get(f"{url}/openapi.json", timeout=60).json()
            seen["routes"] = {
                f"{method.upper()} {path}": sorted(p["name"] for p in operation.get("parameters", ()))
                for path, methods in described["paths"].items()
                for method, operation in methods.items()
            }
            seen["answers"] = answers(url, example)
    return json.loads(json.dumps(seen))


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(observe(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"{RECORDED}: written\n")
