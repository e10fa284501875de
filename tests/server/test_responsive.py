"""The server answers others while it is computing for one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import psutil
import pytest
import requests
import torch
from serving import Material, phantoms

from landmarklabel.networks.registry import find_preset
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
    study.close()
    config = FitConfig(find_preset("scn", 2), Budget(steps=2), device=torch.device("cpu"))
    fit(material.task, cases, [], config, material.shelf.candidate)
    assert material.shelf.settle(Decision(True, "for the test")) == 1
    return material


@pytest.mark.timed
def test_info_is_quick_during_inference(material, running_server, record_property):
    with running_server(material) as server:
        memory = psutil.Process(server.process.pid).memory_info().rss / 2**20
        record_property("start_s", round(server.started_s, 2))
        record_property("idle_rss_mib", round(memory))
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
            calls, deadline = [], time.monotonic() + 60
            try:
                while (len(calls) < 60 or len(passes) < 6) and time.monotonic() < deadline:
                    time.sleep(0.03)
                    started = time.perf_counter()
                    assert session.get(f"{server.url}/info/", timeout=30).status_code == 200
                    calls.append((started, time.perf_counter()))
            finally:
                stop.set()
            for worker in workers:
                worker.result(timeout=60)
        inside = [b - a for a, b in calls if any(start < a < end for start, end in passes)]
        durations = [end - start for start, end in passes]
        assert len(inside) >= 30, f"only {len(inside)} calls of /info began during an inference"
        assert np.median(durations) > 0.1, "the inference was too quick to hold anything up"
        median, longest = 1000 * np.median(inside), 1000 * max(inside)
        record_property("info_ms", (round(median, 1), round(longest, 1), len(inside)))
        record_property("inference_s", (round(float(np.median(durations)), 2), len(durations)))
        assert median < 50 and longest < 500, f"/info took {median:.0f} ms, at most {longest:.0f} ms"
