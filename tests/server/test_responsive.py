"""The server answers others while it is computing for one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import psutil
import pytest
import requests
import torch
from serving import Material, phantoms

from landmarklabel.networks.presets import find_preset
from landmarklabel.services.cases import load_cases
from landmarklabel.store.study import Study
from landmarklabel.training.fit import FitConfig, fit
from landmarklabel.training.loop import Budget
from landmarklabel.training.publishing import Decision


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    """Larger images, and a hardly trained model that is live."""
    material = phantoms(tmp_path_factory.mktemp("responsive"), 4, size=(600, 800), n_landmarks=30)
    study = Study(material.study, material.task)
    cases = load_cases(study, dict(list(material.truth.items())[:2]))
    for image_id, landmarks in material.truth.items():
        study.save(image_id, landmarks, author="ann")
    study.close()
    config = FitConfig(find_preset("scn", 2), Budget(steps=2), device=torch.device("cpu"))
    fit(material.task, cases, [], config, material.registry.candidate)
    assert material.registry.finalize_candidate(Decision(True, "for the test")) == 1
    return material


@pytest.fixture
def control() -> Iterator[str]:
    """A server in a process of its own that does nothing else: what it takes is the machine's doing."""
    code = (
        "import http.server as h\n"
        "class Nothing(h.BaseHTTPRequestHandler):\n"
        "    protocol_version = 'HTTP/1.1'\n"
        "    def do_GET(self):\n"
        "        self.send_response(204); self.send_header('content-length', '0'); self.end_headers()\n"
        "    def log_message(self, *_): pass\n"
        "server = h.ThreadingHTTPServer(('127.0.0.1', 0), Nothing)\n"
        "print(server.server_port, flush=True); server.serve_forever()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, encoding="utf-8") as process:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/"
        process.kill()


def timed(session: requests.Session, url: str) -> tuple[float, float]:
    started = time.perf_counter()
    assert session.get(url, timeout=30).status_code in (200, 204)
    return started, time.perf_counter()


@pytest.mark.timed
@pytest.mark.parametrize("training", [False, True], ids=["inference", "inference and a training"])
def test_info_is_quick_meanwhile(material, running_server, record_property, control, training):
    """Held against the control, because others may use the same cores."""
    with running_server(material) as server:
        memory = psutil.Process(server.process.pid).memory_info().rss / 2**20
        record_property("start_s", round(server.started_s, 2))
        record_property("idle_rss_mib", round(memory))
        if training:
            assert server.http("POST", "/train/scn", json={"minutes": 10}).status_code == 200
            processes = server.wait_for_training()
            assert all(process.nice() >= 5 for process in processes), "a training takes what requests leave"
        stop, passes = Event(), []

        def infer(worker: int) -> None:
            for image_id in sorted(material.truth) * 100:
                if stop.is_set():
                    return
                started = time.perf_counter()
                answer = server.http("POST", "/infer/scn", params={"image": image_id, "output": "json"})
                passes.append((started, time.perf_counter()))
                assert answer.status_code == 200 and answer.json()["origin"] == "model"

        with ThreadPoolExecutor(4) as pool, requests.Session() as session:
            workers = [pool.submit(infer, i) for i in range(4)]
            calls, others, deadline = [], [], time.monotonic() + 90
            try:
                while (len(calls) < 300 or len(passes) < 6) and time.monotonic() < deadline:
                    time.sleep(0.02)
                    calls.append(timed(session, f"{server.url}/info/"))
                    others.append(timed(session, control))
            finally:
                stop.set()
            for worker in workers:
                worker.result(timeout=60)
        inside = [b - a for a, b in calls if any(start < a < end for start, end in passes)]
        durations = [end - start for start, end in passes]
        assert len(inside) >= 100, f"only {len(inside)} calls of /info began during an inference"
        assert np.median(durations) > 0.05, "the inference was too quick to hold anything up"
        quantiles = 1000 * np.percentile(inside, [50, 99])
        machine = 1000 * np.percentile([b - a for a, b in others], [50, 99])
        record_property("info_ms", (*quantiles.round(1), len(inside)))
        record_property("control_ms", (*machine.round(1), round(os.getloadavg()[0], 1)))
        record_property("inference_s", (round(float(np.median(durations)), 2), len(durations)))
        said = f"/info took {quantiles.round(1)} ms (p50, p99), a server that does nothing {machine.round(1)} ms"
        assert quantiles[0] < 50 + machine[0] and quantiles[1] < 50 + 2 * machine[1], said
