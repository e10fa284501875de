"""The wheel alone, in a fresh environment outside the checkout: ``python scripts/wheel_check.py [--python PYTHON]…``.

For every interpreter: makes an environment, installs the wheel with its extra ``server``, lets it serve, annotate, train and
predict (``landmarklabel demo``), then installs MONAI Label by ``landmarklabel setup-monailabel`` and plays the loop of its own
client under ``monailabel start_server`` and under ``landmarklabel serve``. The outcome is kept in ``scripts/results/wheel.json``.
Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "scripts" / "results" / "wheel.json"
START_S = 180
VERSIONS = ("torch", "numpy", "pydicom", "SimpleITK", "fastapi", "monailabel")
CLIENT = """
import sys
from monailabel.client import MONAILabelClient
client = MONAILabelClient(sys.argv[1], sys.argv[2])
print(client.info()["name"])
case = client.next_sample("first", {})["id"]
file, params = client.infer("scn", case, {})
client.save_label(case, file)
before = client.info()["datastore"]["completed"]
assert before >= 1 and params["landmarks"], (before, params)
client.train_start("scn", {"max_epochs": 1})
import time
while client.train_status()["status"] in ("SUBMITTED", "RUNNING"):
    time.sleep(0.5)
print(client.info()["train_stats"]["scn"]["state"])
"""


class Environment:
    """A fresh environment; ``steps`` are what was done, with seconds."""

    def __init__(self, place: Path, python: str):
        self.place, self.bin = place, place / "env" / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.bin / ("python.exe" if os.name == "nt" else "python")
        self.steps: dict[str, float] = {}
        self.failed = ""
        own = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        self.environment = {k: v for k, v in os.environ.items() if k not in own and not k.startswith("MONAI_LABEL_")}
        self.environment["PATH"] = f"{self.bin}{os.pathsep}{self.environment['PATH']}"
        self.do("environment", python, "-m", "venv", place / "env")

    def do(self, name: str, *words: object, timeout: float = 3600) -> str:
        """Run a program in the folder beside the environment; its output. Raises RuntimeError."""
        print(f"  {name} …", flush=True)
        started = time.monotonic()
        done = subprocess.run(
            [*map(str, words)], cwd=self.place, env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        self.steps[name] = round(time.monotonic() - started, 1)
        if done.returncode:
            raise RuntimeError(f"{name}: {(done.stderr or done.stdout)[-1500:]}")
        return done.stdout

    def versions(self) -> dict[str, str]:
        ask = "import importlib.metadata as m, json; print(json.dumps({x.name: x.version for x in m.distributions()}))"
        found = {name.lower(): version for name, version in json.loads(self.do("versions", self.python, "-c", ask)).items()}
        return {name: found[name.lower()] for name in VERSIONS if name.lower() in found}

    @contextlib.contextmanager
    def serving(self, name: str, *command: object) -> Iterator[str]:
        """A server on a free port, asked until it answers; stopped afterwards."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        print(f"  {name} …", flush=True)
        url, started, log = f"http://127.0.0.1:{port}", time.monotonic(), self.place / f"{name.replace(' ', '_')}.log"
        with log.open("wb") as out:
            words = [*map(str, command), "--port", str(port), "--host", "127.0.0.1"]
            process = subprocess.Popen(words, cwd=self.place, env=self.environment, stdout=out, stderr=out)
        try:
            while not _answers(f"{url}/info/"):
                if process.poll() is not None or time.monotonic() - started > START_S:
                    raise RuntimeError(f"{name}: {log.read_text(errors='replace')[-1500:]}")
                time.sleep(0.1)
            self.steps[f"{name}: first answer"] = round(time.monotonic() - started, 1)
            yield url
        finally:
            process.terminate()
            process.wait(20)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def check(python: str, wheel: Path, place: Path) -> dict:
    """Everything for one interpreter; never raises."""
    made = Environment(place, python)
    try:
        made.do("install the wheel", made.python, "-m", "pip", "install", "-q", f"{wheel}[server]")
        landmarklabel = made.bin / "landmarklabel"
        made.do("doctor", landmarklabel, "doctor")
        made.do("demo", landmarklabel, "demo", "--minutes", 2, "--out", place / "demo")
        new = (landmarklabel, "serve", "--studies", place / "hands", "--task", "hand_xray")
        with made.serving("serve a new study", *new) as url:
            if not _answers(f"{url}/annotate/"):
                raise RuntimeError("the browser front end is not in the wheel")
        without = made.versions()
        made.do("setup-monailabel", landmarklabel, "setup-monailabel")
        study, app = place / "demo" / "study2d", place / "app"
        app.mkdir()
        (app / "main.py").write_text((ROOT / "apps" / "landmarks" / "main.py").read_text(encoding="utf-8"), encoding="utf-8")
        ours = (landmarklabel, "serve", "--studies", study)
        theirs = (made.bin / "monailabel", "start_server", "--app", app, "--studies", study)
        unlabelled = sorted((place / "demo" / "tests2d").glob("*.png"))
        for name, command in (("landmarklabel serve", ours), ("monailabel start_server", theirs)):
            image = unlabelled.pop()
            shutil.copy(image, study / f"new_{image.name}")  # the demo has labelled all others
            with made.serving(name, *command) as url:
                made.do(f"{name}: the stock client's loop", made.python, "-c", CLIENT, url, place)
        return {"passed": True, "versions": without | made.versions(), "seconds": made.steps}
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return {"passed": False, "failed": str(error)[:400], "seconds": made.steps}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", metavar="PYTHON", help="an interpreter (default: this one); may be repeated")
    parser.add_argument("--no-result", action="store_true", help="do not keep the figures, which the docs show")
    given = parser.parse_args(arguments)
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    results = before.get("environments", {})
    with tempfile.TemporaryDirectory() as folder:
        building = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, str(ROOT)]
        if subprocess.run(building).returncode:
            return 1
        wheel = next(Path(folder).glob("*.whl"))
        for python in given.python or [sys.executable]:
            ask = [python, "-c", "import platform; print(platform.python_version())"]
            version = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
            print(f"Python {version}")
            with tempfile.TemporaryDirectory() as place:
                found = check(python, wheel, Path(place))
            results[version] = {"date": time.strftime("%Y-%m-%d", time.gmtime()), **found}
            hardware = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
            content = {"hardware": hardware, "environments": results}
            if not given.no_result:
                RESULT.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            print(f"  {'passed' if found['passed'] else 'FAILED'}")
    return 0 if all(one["passed"] for one in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
