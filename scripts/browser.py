"""How quick the page for annotating is in Chromium, and the server with many annotators: real servers on loopback."""

from __future__ import annotations

import random
import shutil
import statistics
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import requests
from experiment import few_hands, hand_split, landmarklabel
from panel import quantiles

TESTS = Path(__file__).resolve().parents[1] / "tests"
MOVES = 100
LARGE = (512, 512, 300)
PEOPLE, CASES_EACH, PAUSE_S = 16, 6, 0.5  # a person does something about twice a second
# Of every move of a drag: until other points are drawn elsewhere.
WATCH = """() => {
    window.moved = [];
    let started = 0, before = "";
    const others = () => [...document.querySelectorAll(".mark.predicted")].map(m => m.getAttribute("transform")).join();
    document.addEventListener("pointermove", event => {
        if (event.buttons) [started, before] = [performance.now(), others()];
    }, true);
    new MutationObserver(() => {
        if (!started || others() === before) return;
        window.moved.push(performance.now() - started);
        started = 0;
    }).observe(document.querySelector(".view"), { subtree: true, childList: true });
}"""
OPEN = """([label, id]) => new Promise(done => {
    const select = [...document.querySelectorAll("label")].find(l => l.textContent.startsWith(label)).querySelector("select");
    const started = performance.now();
    const isShown = () => document.querySelector(".view").dataset.shown === id;
    const look = () => isShown() ? done(performance.now() - started) : requestAnimationFrame(look);
    select.value = id;
    select.dispatchEvent(new Event("change"));
    look();
})"""


def browser_latency(data: Path, runs: Path) -> dict:
    """Chromium: drags until the others moved (37 points in 2D, 100 in 3D), and how long a case takes to be seen."""
    from landmarklabel.data.synthetic import phantom_task
    from landmarklabel.tasks import SHIPPED

    shutil.rmtree(runs, ignore_errors=True)
    (hands, _), volumes = few_hands(data, runs / "hands"), runs / "volumes"
    _volumes(volumes, phantom_task(3, 100))
    with _page(hands, SHIPPED / "hand_xray.json") as page:
        flat = {"drag_ms": _drags(page, ".view"), "first_image_ms": _openings(page)}
    with _page(volumes, volumes.parent / "task.json") as page:
        deep = {"drag_ms": _drags(page, ".plane >> nth=0"), "first_image_ms_512x512x300": _openings(page, "volume")}
    return {"2d_37_points": flat, "3d_100_points": deep}


def _volumes(study: Path, task) -> None:
    """Twelve phantoms, ten of them labelled, and one large volume without anything on it."""
    from landmarklabel.data.synthetic import draw_phantom
    from landmarklabel.geometry import ImageGeometry
    from landmarklabel.io.files import write_json
    from landmarklabel.io.image_array import Image
    from landmarklabel.io.images import write_image
    from landmarklabel.store.study import Study

    study.mkdir(parents=True)
    write_json(study.parent / "task.json", task.to_json())
    truth = {}
    for seed in range(12):
        phantom = draw_phantom(task, seed, size=(64, 64, 96), absent_fraction=0.0)
        write_image(study / f"phantom{seed:02d}.nrrd", Image(phantom.geometry, phantom.pixels))
        truth[f"phantom{seed:02d}"] = phantom.landmarks
    pixels = np.random.default_rng(0).normal(0, 200, (30, 64, 64)).astype(np.int16).repeat(10, 0).repeat(8, 1).repeat(8, 2)
    write_image(study / "volume.nii.gz", Image(ImageGeometry.identity(LARGE, 0.5), pixels))
    opened = Study(study, task)
    for image_id in sorted(truth)[:10]:
        opened.save(image_id, truth[image_id], author="phantom")
    opened.close()


@contextmanager
def _page(study: Path, task: Path):
    """The page on a study, in Chromium."""
    from playwright.sync_api import sync_playwright

    from landmarklabel.cli.client import running_server

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    with running_server(study, task, study.parent / "server.log") as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{url}/annotate/")
        page.get_by_role("button", name="Next case", exact=True).click()
        page.wait_for_function("() => document.querySelector('.view').dataset.shown")
        yield page
        browser.close()


def _drags(page, where: str) -> dict:
    """One point goes to and fro, a move at a time."""
    page.get_by_role("button", name="Predict", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('.mark.predicted').length > 5")
    page.evaluate(WATCH)
    name = page.locator(".landmarks .row .name").first.inner_text()
    page.locator(".landmarks .row").first.click()
    page.evaluate("() => new Promise(requestAnimationFrame)")
    mark = page.locator(where).locator(f'.mark[data-name="{name}"] > circle').last.bounding_box()
    x, y = mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for number in range(MOVES):
        page.mouse.move(x + 12 * (number % 2) + 4, y + 8 * (number % 3))
        page.wait_for_function("n => window.moved.length > n", arg=number, timeout=10_000)
    page.mouse.up()
    return quantiles([ms / 1000 for ms in page.evaluate("() => window.moved")])


def _openings(page, case: str = "") -> dict:
    """Of every case, or of one before and after the server has it at hand: from choosing it until its image is shown."""
    page.locator("details.more").evaluate("d => d.open = true")
    ids = page.get_by_label("Open a case").locator("option").evaluate_all("all => all.map(o => o.value).filter(Boolean)")
    if not case:
        return quantiles([page.evaluate(OPEN, ["Open a case", i]) / 1000 for i in ids[1:]])
    first, elsewhere = page.evaluate(OPEN, ["Open a case", case]), ids[0]
    page.evaluate(OPEN, ["Open a case", elsewhere])
    return {"first_time": round(first), "again": round(page.evaluate(OPEN, ["Open a case", case]))}


def many_annotators(data: Path, runs: Path) -> dict:
    """16 annotators at once over HTTP on radiographs: how long every kind of call takes."""
    from landmarklabel.cli.client import running_server
    from landmarklabel.store.tokens import Tokens
    from landmarklabel.tasks import SHIPPED

    shutil.rmtree(runs, ignore_errors=True)
    study, spent, lock = _crowded(data, runs), defaultdict(list), threading.Lock()
    with running_server(study, SHIPPED / "hand_xray.json", runs / "server.log") as url, ThreadPoolExecutor(PEOPLE) as pool:
        tokens = Tokens(study)
        people = {name: tokens.new(name, "annotator") for name in (f"person{n:02d}" for n in range(PEOPLE))}
        list(pool.map(lambda who: _annotate(url, *who, spent, lock), people.items()))
    return {"people": PEOPLE, "pause_s": PAUSE_S, "calls_ms": {what: quantiles(times) for what, times in sorted(spent.items())}}


def _crowded(data: Path, runs: Path) -> Path:
    """All radiographs, ten of them labelled."""
    source = data / "hand_xray"
    listed = runs / "labelled.txt"
    runs.mkdir(parents=True, exist_ok=True)
    listed.write_text("\n".join(hand_split(data, "train")[:10]) + "\n", encoding="utf-8")
    words = ("--task", "hand_xray", "--images", source / "images", "--table", source / "landmarks.csv")
    landmarklabel("import", runs / "study", *words, "--only", listed)
    for path in (source / "images").iterdir():
        if not (runs / "study" / path.name).exists():
            shutil.copy(path, runs / "study")
    return runs / "study"


def _annotate(url: str, name: str, token: str, spent: dict, lock: threading.Lock) -> None:
    """What the page asks for while somebody works through some cases."""
    rng, session = random.Random(name), requests.Session()
    session.headers["Authorization"] = f"Bearer {token}"

    def call(what: str, method: str, path: str, **more) -> requests.Response:
        time.sleep(PAUSE_S * 2 * rng.random())
        started = time.perf_counter()
        answer = session.request(method, url + path, timeout=120, **more)
        answer.content  # noqa: B018  all of it has come
        with lock:
            spent[what].append(time.perf_counter() - started)
        assert answer.status_code < 400, answer.text
        return answer

    for _ in range(CASES_EACH):
        case = call("next case", "POST", "/activelearning/adaptive", json={"client_id": name}).json()["id"]
        at = f"/landmarks/images/{case}"
        call("history", "GET", f"{at}/history")
        size = call("frame", "GET", f"{at}/frame").json()["size"]
        call("image", "GET", f"{at}/picture")
        call("list of cases", "GET", "/landmarks/images")
        proposed = call("infer", "POST", f"/infer/scn?image={case}&output=json", data={"params": "{}"}).json()["landmarks"]
        call("case", "GET", at)
        fixed: dict[str, list[float]] = {}
        for number in range(6):
            moved = [v + rng.gauss(0, 10) for v in proposed[number]["position"]]  # by some pixels
            where = [min(max(v, 0.0), n - 1.0) for v, n in zip(moved, size, strict=True)]
            fixed = {**fixed, proposed[number]["name"]: where}
            call("others follow", "POST", f"{at}/update", json={"fixed": fixed, "absent": [], "model": "scn"})
        rows = [{"name": n, "status": "placed", "position": p} for n, p in fixed.items()]
        body = {"landmarks": rows, "base_revision": 0, "author": name}
        call("draft", "PUT", f"{at}/draft", json={**body, "edits": 6})
        call("save", "PUT", at, json={**body, "key": f"{name} {case}"})


def next_case_latency(data: Path, runs: Path) -> dict:
    """Four annotators as quick as a program while a training begins and the server is killed twice: seconds for a next case."""
    sys.path[:0] = [str(TESTS / "server"), str(TESTS.parent)]
    from serving import serving
    from test_active_learning import round_of_four

    shutil.rmtree(runs, ignore_errors=True)
    rounds = [round_of_four(runs / f"round{n}", serving) for n in range(5)]
    p95 = [float(np.percentile(times, 95)) for times in rounds]
    return {"rounds": [quantiles(times) for times in rounds], "median_of_p95_ms": round(1000 * statistics.median(p95), 1)}


EXPERIMENTS = (browser_latency, many_annotators, next_case_latency)
