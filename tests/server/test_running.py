"""Both entrances: what the console says, a taken port at once, and an end within ten seconds whatever is going on."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests
import torch
import uvicorn
from serving import LIB, START_S, Material, is_alive, phantoms, processes_of, wait_until
from test_access import another_address, self_signed

from landmarklabel.io.files import write_json
from landmarklabel.networks.presets import find_preset
from landmarklabel.server.running import address
from landmarklabel.services.cases import load_cases
from landmarklabel.services.console import said_of_models
from landmarklabel.services.settings import live_models
from landmarklabel.store.study import Study
from landmarklabel.store.tokens import Tokens
from landmarklabel.training.fit import FitConfig, fit
from landmarklabel.training.loop import Budget
from landmarklabel.training.publishing import Decision

APP = Path(__file__).resolve().parents[2] / "apps" / "landmarks"
END_S = 10


@pytest.fixture
def material(tmp_path) -> Material:
    return phantoms(tmp_path, 6)


def label(material: Material) -> None:
    study = Study(material.study, material.task)
    for image_id, landmarks in material.truth.items():
        study.save(image_id, landmarks, author="ann")
    study.close()


def publish_a_model(material: Material, name: str = "scn") -> None:
    """Hardly trained, and live."""
    study = Study(material.study, material.task)
    cases = load_cases(study, dict(list(material.truth.items())[:2]))
    study.close()
    registry = type(material.registry)(material.study / ".landmarklabel" / "models" / name)
    config = FitConfig(find_preset(name.replace("_", ":"), 2), Budget(steps=2), device=torch.device("cpu"))
    fit(material.task, cases, [], config, registry.candidate)
    assert registry.finalize_candidate(Decision(True, "for the test")) == 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def command(entrance: str, material: Material, port: int, *more: str) -> list[str]:
    if entrance == "serve":
        python, own = [sys.executable, "-m", "landmarklabel", "serve"], ("--task", str(material.task_file))
    else:
        python = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(APP)]
        own = ("--conf", "task", str(material.task_file))
    host = () if "--host" in more else ("--host", "127.0.0.1")
    return [*python, "--studies", str(material.study), *own, *host, "--port", str(port), *more]


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MONAI_LABEL_")}
    return kept | {"PYTHONPATH": str(LIB), "MONAI_LABEL_TRACKING_ENABLED": "false", "CUDA_VISIBLE_DEVICES": ""}


@contextmanager
def started(entrance: str, material: Material, *more: str, scheme: str = "http") -> Iterator[tuple]:
    """Process, address and a function for what it has said, once it answers."""
    port, log = free_port(), material.study.parent / "console"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(entrance, material, port, *more), stdout=output, stderr=output, env=environment(), start_new_session=True
        )
    url = f"{scheme}://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        with suppress(requests.RequestException):
            return requests.get(f"{url}/health", timeout=5, verify=False).status_code == 200
        return False

    try:
        wait_until(answers, START_S, "the server to answer")
        yield process, url, lambda: log.read_text(encoding="utf-8")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


# --- what is said ----------------------------------------------------------------------------------------------------


def test_serve_says_one_line_and_of_monai_label_nothing(material):
    with started("serve", material) as (_, url, said):
        wait_until(lambda: "\n" in said(), 10, "the line")
        text = 'study "study", 0 of 6 cases labelled · no proposals yet: no case is labelled, no model trained'
        assert said() == f"LandmarkLabel: open {url}/landmarks/ · {text} · annotate at {url}/annotate/\n"
        assert requests.post(f"{url}/infer/scn", params={"image": "phantom00"}, timeout=60).status_code == 200
        assert said().count("\n") == 1


def test_the_browser_is_opened_at_the_front_end(material, tmp_path, monkeypatch):
    """By what ``BROWSER`` names, as everywhere; here a program that writes the address down."""
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n', encoding="utf-8")
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    with started("serve", material, "--open") as (_, url, _said):
        wait_until(lambda: seen.exists() and seen.read_text(encoding="utf-8").endswith("\n"), 20, "the browser")
        assert seen.read_text(encoding="utf-8") == f"{url}/annotate/\n"


def test_the_other_entrance_says_it_too(material):
    label(material)
    publish_a_model(material)
    publish_a_model(material, "scn_single")
    with started("monailabel", material) as (_, url, said):
        wait_until(lambda: "LandmarkLabel: open" in said(), 10, "the line")
        text = 'study "study", 6 of 6 cases labelled · scn version 1 and scn_single version 1 answer'
        assert f"LandmarkLabel: open {url}/landmarks/ · {text} · annotate at {url}/annotate/\n" in said()
        assert sorted(requests.get(f"{url}/info/", timeout=60).json()["models"]) == ["scn", "scn_single"]


def test_the_line_of_a_server_for_others_has_an_address_they_can_use(material, tmp_path):
    certificate, key = self_signed(tmp_path)
    Tokens(material.study).new("ann", "annotator")
    tls = ("--certificate", str(certificate), "--key", str(key))
    with started("serve", material, "--host", "0.0.0.0", *tls, scheme="https") as (_, url, said):
        wait_until(lambda: "\n" in said(), 10, "the line")
        place = re.search(r"open (\S+)/landmarks/ ", said())[1]
        assert place == url.replace("127.0.0.1", another_address())
        assert requests.get(f"{place}/health", timeout=30, verify=False).status_code == 200


@pytest.mark.parametrize(
    ("options", "others", "found"),
    [
        ({"host": "127.0.0.1"}, True, "http://127.0.0.1:81"),
        ({"host": "0.0.0.0"}, False, "http://127.0.0.1:81"),
        ({"host": "::1"}, False, "http://[::1]:81"),
        ({"host": "localhost", "ssl_certfile": "c", "ssl_keyfile": "k"}, False, "https://localhost:81"),
        ({"host": "scanner.example", "root_path": "/labels/"}, True, "http://scanner.example:81"),
    ],
)
def test_addresses(options, others, found):
    assert address(uvicorn.Config("x", **options), 81, others) == found


def test_what_is_said_of_models():
    assert said_of_models({"scn": 3}, 0) == "scn version 3 answers"
    assert said_of_models({"scn": 3, "global_local": 0, "scn_single": 1}, 9) == "scn version 3 and scn_single version 1 answer"
    assert said_of_models({"scn": 0}, 1) == "the shape template answers, no model trained yet"


def test_models_that_are_live_are_served_when_none_are_named(tmp_path):
    assert live_models(tmp_path, 2) == "scn"
    for name in ("scn_payer2016", "global_local", "scn", "nobody_knows", "scn_single"):
        (tmp_path / ".landmarklabel" / "models" / name).mkdir(parents=True)
    assert live_models(tmp_path, 2) == "scn", "none is live"
    for name in ("scn_payer2016", "global_local", "nobody_knows"):
        write_json(tmp_path / ".landmarklabel" / "models" / name / "live.json", {"version": 1})
    assert live_models(tmp_path, 2) == "global_local,scn:payer2016"
    assert live_models(tmp_path, 3) == "global_local", "of those made for such images"
    write_json(tmp_path / ".landmarklabel" / "models" / "scn" / "live.json", {"version": 1})
    assert live_models(tmp_path, 2) == "scn,global_local,scn:payer2016"


# --- what cannot start -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entrance", ["serve", "monailabel"])
def test_a_taken_port_is_one_line_and_code_2(material, entrance, record_property):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port, begun = other.getsockname()[1], time.monotonic()
        done = subprocess.run(
            command(entrance, material, port),
            env=environment(),
            capture_output=True,
            timeout=START_S,
            check=False,
            encoding="utf-8",
        )
    record_property("said_after_s", round(time.monotonic() - begun, 2))
    says = f"landmarklabel: port {port} of 127.0.0.1 is taken, perhaps by a server that still runs; choose another --port"
    assert done.returncode == 2 and says in done.stderr.splitlines()
    assert "Traceback" not in done.stderr and not (material.study / ".landmarklabel").exists()
    assert entrance == "monailabel" or (done.stdout == "" and done.stderr == says + "\n")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--conf", "retrian", "5"), "--conf retrian is not known; there are task, models, store, retrain, retrain_minutes,"),
        (("--conf", "retrain", "-1"), "--conf retrain '-1' must be a whole number from 0 on, below 1000000"),
        (("--conf", "insecure", "maybe"), "--conf insecure 'maybe' must be true or false"),
        (("--conf", "models", "snc"), "no model called 'snc'"),
    ],
    ids=["unknown", "number", "truth", "model"],
)
def test_a_setting_that_is_wrong_is_one_line_and_code_2_for_the_other_entrance(material, more, says):
    done = subprocess.run(
        command("monailabel", material, free_port(), *more),
        env=environment(),
        capture_output=True,
        timeout=START_S,
        encoding="utf-8",
    )
    assert done.returncode == 2 and f"landmarklabel: {says}" in done.stderr and "Traceback" not in done.stderr


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entrance", ["serve", "monailabel"])
def test_a_signal_ends_it_within_ten_seconds_with_fifty_inferences_and_a_training_under_way(tmp_path, entrance, record_property):
    material = phantoms(tmp_path, 20, size=(600, 800), n_landmarks=30)
    label(material)
    publish_a_model(material)
    with started(entrance, material) as (process, url, said):
        assert requests.post(f"{url}/train/scn", json={"minutes": 5}, timeout=60).status_code == 200
        running = lambda: requests.get(f"{url}/info/", timeout=60).json()["train_stats"]["scn"].get("state") == "running"  # noqa: E731
        wait_until(running, START_S, "the training to begin", 0.5)

        def infer(k: int) -> None:
            with suppress(requests.RequestException):
                requests.post(f"{url}/infer/scn", params={"image": f"phantom{k % 20:02d}", "output": "json"}, timeout=120)

        workers = [threading.Thread(target=infer, args=(k,), daemon=True) for k in range(50)]
        for worker in workers:
            worker.start()
        wait_until(lambda: len(in_flight(process.pid)) >= 50, 60, "fifty requests to be there")
        assert requests.get(f"{url}/health", timeout=30).status_code == 200
        assert sum(worker.is_alive() for worker in workers) > 20, "the network is too quick for this test"
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        record_property("ended_after_s", round(time.monotonic() - begun, 2))
        assert time.monotonic() - begun < END_S, said()
        wait_until(lambda: not any(map(is_alive, processes_of(material.study))), 120, "the training to end by itself")


def in_flight(pid: int) -> list:
    import psutil

    connections = psutil.Process(pid).net_connections("inet")
    return [c for c in connections if c.status == psutil.CONN_ESTABLISHED]


def test_a_second_interrupt_ends_it_at_once(tmp_path):
    material = phantoms(tmp_path, 20, size=(600, 800), n_landmarks=30)
    publish_a_model(material)
    with started("serve", material) as (process, url, _):
        ask = lambda k: requests.post(f"{url}/infer/scn", params={"image": f"phantom{k:02d}"}, timeout=120)  # noqa: E731

        def infer(k: int) -> None:
            with suppress(requests.RequestException):
                ask(k)

        for k in range(20):
            threading.Thread(target=infer, args=(k,), daemon=True).start()
        wait_until(lambda: len(in_flight(process.pid)) >= 20, 60, "twenty requests to be there")
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, "it lets requests end first"
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 128 + signal.SIGINT
        assert time.monotonic() - begun < 2
