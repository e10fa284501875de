"""Many clients, random kills, half an hour: is anything lost, does memory grow, how long does each call take?"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import requests

IMAGES, CLIENTS, LABELLED = 60, 8, 8
FIXTURE = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "made_by_77eac5a.tar.xz"  # six images and a model
SETTLED_S = 90.0  # after a start, when caches are full and memory should stay as it is


def soak(data: Path, runs: Path, minutes: float = 30.0) -> dict:
    """Clients that infer, update, submit, train and ask for cases while the server is killed and started again."""
    from landmarklabel.store.study import Study

    shutil.rmtree(runs, ignore_errors=True)
    served = _Served(runs)
    served.start()
    ends, log = time.monotonic() + 60 * minutes, _Log()
    threads = [threading.Thread(target=_work, args=(served, log, ends, k)) for k in range(CLIENTS)]
    for thread in threads:
        thread.start()
    rng, kills = random.Random(0), 0
    while time.monotonic() < ends:
        wait = rng.uniform(60, 420) if minutes >= 10 else rng.uniform(20, 40)
        if time.monotonic() + wait > ends:
            time.sleep(max(0.0, ends - time.monotonic()))
            break
        served.watch_memory(time.monotonic() + wait)
        served.kill()
        kills += 1
        served.start()
    for thread in threads:
        thread.join(120)
    served.kill()
    study = Study(served.study, served.task)
    study.sync()
    kept = {(r.image_id, r.number): r.sha256 for i in study.images() for r in study.history(i)}
    lost = [k for k, sha in log.acknowledged.items() if kept.get(k) != sha]
    files = sum(
        study.labels(i) is not None and not (served.study / "labels/final" / f"{i}.mrk.json").is_file() for i in study.images()
    )
    faults = study.revisions.verify()
    study.close()
    assert "Traceback" not in served.log.read_text(errors="replace", encoding="utf-8"), "a traceback is in the server's log"
    return {
        "minutes": minutes,
        "clients": CLIENTS,
        "kills": kills,
        "acknowledged": len(log.acknowledged),
        "lost": len(lost),
        "sent_twice": log.repeated,
        "label_files_missing": files,
        "faults_in_the_audit_trail": len(faults),
        "errors": dict(log.errors),
        "memory_growth_percent": served.growth,
        "calls": {name: _quantiles(times) for name, times in sorted(log.times.items())},
    }


def annotators(data: Path, runs: Path, people: int = 32, each: int = 100) -> dict:
    """Annotators who all submit the same image at once, as MONAI Label's client does; and as many who state a base."""
    from landmarklabel.io.markups import dump_markups
    from landmarklabel.landmarks import Status
    from landmarklabel.store.study import Study

    shutil.rmtree(runs, ignore_errors=True)
    served, times, stale = _Served(runs), [], [0]
    served.start()
    image_id, name = "p50", served.task.names[0]

    def submit(who: int) -> None:
        session = requests.Session()
        for k in range(each):
            label = dump_markups(served.truth[image_id].with_landmark(name, [float(who), float(k)], Status.PLACED))
            started = time.perf_counter()
            files, note = {"label": ("x.mrk.json", label)}, {"params": f'{{"user": "a{who}"}}'}
            answer = session.put(f"{served.url}/datastore/label", params={"image": image_id}, files=files, data=note, timeout=120)
            times.append(time.perf_counter() - started)
            answer.raise_for_status()
        body = {"landmarks": [], "base_revision": 0}
        answer = session.put(f"{served.url}/landmarks/images/{image_id}", json=body, timeout=120)
        stale[0] += answer.status_code == 409 and {"current", "yours"} <= answer.json().keys()

    with ThreadPoolExecutor(people) as pool:
        list(pool.map(submit, range(people)))
    served.kill()
    study = Study(served.study, served.task)
    said = [row["position"] for r in study.history(image_id) for row in r.body["landmarks"] if row["name"] == name]
    study.close()
    wanted = {(float(who), float(k)) for who in range(people) for k in range(each)}
    return {
        "people": people,
        "each": each,
        "revisions": len(said),
        "lost": len(wanted - {tuple(p[:2]) for p in said}),
        "stale_answered_with_both_versions": stale[0],
        "submit": _quantiles(times),
    }


def fuzz_http(data: Path, runs: Path, requests_sent: int = 20_000, seed: int = 0) -> dict:
    """Requests near and far from the server's own description: none may end in an error of the server, or leave a file."""
    import fuzzing

    from landmarklabel.store.study import Study
    from landmarklabel.tasks import resolve_task

    shutil.rmtree(runs, ignore_errors=True)
    shutil.unpack_archive(FIXTURE, runs, filter="data")
    place, temporary = runs / FIXTURE.name.split(".")[0], runs / "temporary"
    temporary.mkdir()
    served, task = _Server(place / "study", place / "task.json", runs / "server.log"), resolve_task(str(place / "task.json"), ())
    served.start(port=8766, TMPDIR=str(temporary))
    png, label = (served.study / "c1.png").read_bytes(), (served.study / "labels/final/c1.mrk.json").read_bytes()
    files = [("new.png", png), ("x.mrk.json", label), ("x.png", png[:200]), ("x.fcsv", b"")]
    images = [f"c{k}" for k in range(6)]
    beginning = fuzzing.files_in(temporary)  # MONAI Label's settings of the log
    own, beside = served.study / ".landmarklabel", fuzzing.files_in(runs) - fuzzing.files_in(served.study)
    started = time.monotonic()
    outcome = fuzzing.bombard(served.url, seed, requests_sent, images, task.names, files)
    minutes = (time.monotonic() - started) / 60
    left = fuzzing.files_in(own / "incoming", own / "cache" / "results") | fuzzing.files_in(temporary) - beginning
    sessions = {place.name for place in (own / "sessions").iterdir()} - outcome.sessions
    served.kill()
    study = Study(served.study, task)
    faults = study.revisions.verify()
    study.close()
    said = served.log.read_text(errors="replace", encoding="utf-8")
    kinds = defaultdict(int)
    for (_, status), count in outcome.statuses.items():
        kinds[str(status)] += count
    return {
        "seed": seed,
        "requests": outcome.statuses.total(),
        "operations": len({operation for operation, _ in outcome.statuses}),
        "operations_answered_as_meant": len({operation for operation, status in outcome.statuses if status < 400}),
        "answers": dict(sorted(kinds.items())),
        "without_a_proper_answer": [f"{sent.operation} {status}: {text[:100]}" for sent, status, text in outcome.wrong],
        "files_left": len(left) + len(sessions),
        "files_outside_the_study": len(fuzzing.files_in(runs) - fuzzing.files_in(served.study) - beside - left),
        "faults_in_the_audit_trail": len(faults),
        "internal_errors_in_the_log": said.count("internal error") + said.count("Traceback"),
        "minutes": round(minutes, 1),
    }


class _Server:
    """A study's server, as ``landmarklabel serve`` starts it."""

    def __init__(self, study: Path, task_file: Path, log: Path):
        self.study, self.task_file, self.log = study, task_file, log
        self.url, self.process = "", None

    def start(self, port: int = 8765, **environment: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        words = ("serve", "--studies", self.study, "--task", self.task_file, "--port", port)
        command = [sys.executable, "-m", "landmarklabel", *map(str, words)]
        with self.log.open("ab") as output:
            more = {"stdout": output, "stderr": subprocess.STDOUT, "env": {**os.environ, **environment}}
            self.process = subprocess.Popen(command, start_new_session=True, **more)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if requests.get(f"{self.url}/info/", timeout=5).status_code == 200:
                    return
            except requests.RequestException:
                time.sleep(0.1)
        sys.exit(f"the server did not start; see {self.log}")

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


class _Served(_Server):
    """A study of phantoms with a model, and its server."""

    def __init__(self, runs: Path):
        import SimpleITK as sitk

        from landmarklabel.data.synthetic import draw_phantom, phantom_task
        from landmarklabel.io.files import write_json
        from landmarklabel.networks.presets import find_preset
        from landmarklabel.services.cases import load_cases
        from landmarklabel.store.study import Study
        from landmarklabel.training.fit import FitConfig, fit
        from landmarklabel.training.loop import Budget
        from landmarklabel.training.publishing import Decision, ModelRegistry

        super().__init__(runs / "study", runs / "task.json", runs / "server.log")
        self.task, self.growth = phantom_task(2, 20), []
        self.study.mkdir(parents=True)
        write_json(runs / "task.json", self.task.to_json())
        self.truth = {}
        study = Study(self.study, self.task)
        for seed in range(IMAGES):
            phantom = draw_phantom(self.task, seed, size=(300, 400), absent_fraction=0.0, noise=0.5)
            sitk.WriteImage(sitk.GetImageFromArray(phantom.pixels), str(self.study / f"p{seed:02d}.png"))
            self.truth[f"p{seed:02d}"] = phantom.landmarks
        for image_id in list(self.truth)[:LABELLED]:
            study.save(image_id, self.truth[image_id], author="before")
        registry = ModelRegistry(study.models_dir / "scn")
        config = FitConfig(find_preset("scn", 2), Budget(steps=60))
        fit(self.task, load_cases(study, study.labelled()), [], config, registry.candidate)
        registry.finalize_candidate(Decision(True, "for the soak"))
        study.close()

    def watch_memory(self, until: float) -> None:
        """Growth from when it has settled to the end of this life, by medians of half a minute."""
        process, started, seen = psutil.Process(self.process.pid), time.monotonic(), []
        while time.monotonic() < until:
            seen.append((time.monotonic() - started, process.memory_info().rss))
            time.sleep(1)
        settled = [rss for t, rss in seen if SETTLED_S <= t < SETTLED_S + 30]
        if seen and seen[-1][0] > SETTLED_S + 90:
            last = [rss for t, rss in seen if t > seen[-1][0] - 30]
            self.growth.append(round(100 * (float(np.median(last) / np.median(settled)) - 1), 1))


class _Log:
    def __init__(self):
        self.times: dict[str, list[float]] = defaultdict(list)
        self.errors: dict[str, int] = defaultdict(int)
        self.acknowledged: dict[tuple[str, int], str] = {}
        self.repeated = 0


def _work(served: _Served, log: _Log, ends: float, k: int) -> None:
    """An annotator's day: the next case, its proposals, three corrections, a submission until it is acknowledged."""
    rng, session = random.Random(k), requests.Session()

    def call(name: str, method: str, path: str, **options) -> requests.Response | None:
        started = time.perf_counter()
        try:
            answer = session.request(method, served.url + path, timeout=60, **options)
        except requests.RequestException:
            time.sleep(0.5)  # the server is being started again
            return None
        log.times[name].append(time.perf_counter() - started)
        if answer.status_code >= 400 and answer.status_code not in (409, 429):
            log.errors[f"{name} {answer.status_code}: {answer.text[:80]}"] += 1
        return answer

    while time.monotonic() < ends:
        chosen = call("next_sample", "POST", "/activelearning/adaptive", json={"client_id": f"c{k}"})
        image_id = (chosen is not None and chosen.status_code == 200 and chosen.json().get("id")) or rng.choice(
            list(served.truth)
        )
        truth = served.truth[image_id]
        call("infer", "POST", f"/infer/scn?image={image_id}&output=json")
        given = {}
        for name in rng.sample(served.task.names, 3):
            given[name] = truth.positions_mm[served.task.names.index(name)].tolist()
            call("update", "POST", f"/landmarks/images/{image_id}/update", json={"fixed": given})
        call("info", "GET", "/info/")
        _submit(log, call, image_id, truth, f"c{k}", rng)
        if k == 0 and rng.random() < 0.05:
            call("train", "POST", "/train/scn", json={"minutes": 0.5})
        time.sleep(rng.uniform(0, 0.5))


def _submit(log: _Log, call: Callable, image_id: str, truth, author: str, rng: random.Random) -> None:
    rows = [
        {"name": n, "position": [x + rng.gauss(0, 0.5) for x in p], "status": "placed"}
        for n, p in zip(truth.task.names, truth.positions_mm.tolist(), strict=True)
    ]
    key = f"{author}-{rng.getrandbits(64):x}"
    for attempt in range(200):
        head = call("head", "GET", f"/landmarks/images/{image_id}")
        if head is None or head.status_code != 200:
            continue
        body = {"landmarks": rows, "base_revision": head.json()["revision"], "author": author, "key": key}
        answer = call("submit", "PUT", f"/landmarks/images/{image_id}", json=body)
        if answer is not None and answer.status_code == 200:
            saved = answer.json()
            log.acknowledged[image_id, saved["revision"]] = saved["sha256"]
            log.repeated += attempt > 0
            return


def _quantiles(seconds: list[float]) -> dict:
    p50, p95, p99 = (round(1000 * float(q), 1) for q in np.percentile(seconds, (50, 95, 99)))
    return {"calls": len(seconds), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


EXPERIMENTS = (soak, annotators, fuzz_http)
