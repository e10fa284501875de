"""Every accuracy figure in the README, from one command: ``python scripts/reproduce.py NAME``.

Experiments are made of the program's own verbs, are resumable (call again after an interruption) and leave a small JSON
file in ``scripts/results/``. They need the real data: ``--data DIR`` or the variable LANDMARKLABEL_DATA. Work files go to
``runs/``, which is not tracked.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "scripts" / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("--data", default=os.environ.get("LANDMARKLABEL_DATA", str(ROOT.parent / "shared" / "data")))
    parser.add_argument("--runs", default=str(ROOT / "runs"))
    arguments = parser.parse_args()
    data, runs = Path(arguments.data), Path(arguments.runs) / arguments.name
    if not data.is_dir():
        sys.exit(f"{data}: no such folder; give the data with --data or LANDMARKLABEL_DATA")
    runs.mkdir(parents=True, exist_ok=True)
    result = EXPERIMENTS[arguments.name](data, runs)
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{arguments.name}.json"
    content = {"command": f"python scripts/reproduce.py {arguments.name}", "hardware": hardware(), **result}
    target.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{target.relative_to(ROOT)} written")
    return 0


def landmarklabel(*words: object, output: bool = False) -> str:
    """Run a verb of the program; stops everything when it fails."""
    command = [sys.executable, "-m", "landmarklabel", *map(str, words)]
    print("+ landmarklabel", *words, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE if output else None, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


def hardware() -> str:
    """Processor, cores and torch, for beside the figures."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.processor() or "CPU")
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{model}, {os.cpu_count()} cores{gpu}, torch {torch.__version__}"


def hands(data: Path, runs: Path, minutes: float = 30) -> dict:
    """Train on the 91 ``train`` radiographs, test on the 21 ``valid`` ones."""
    source, study = data / "hand_xray", runs / "study"
    with (source / "landmarks.csv").open() as file:
        valid = [row["id"] for row in csv.DictReader(file) if row["split"] == "valid"]
    (runs / "valid.txt").write_text("\n".join(valid) + "\n")
    given = ["--images", source / "images", "--table", source / "landmarks.csv"]
    landmarklabel("import", study, "--task", "hand_xray", *given)
    model, predictions = runs / "model", runs / "predictions"
    started = time.monotonic()
    if not (model / "model.json").exists():
        landmarklabel(
            "train", study, "--task", "hand_xray", "--model", "scn", "--minutes", minutes, "--seed", 0,
            "--valid", runs / "valid.txt", "--out", model, "--resume",
        )  # fmt: skip
    minutes_passed = (time.monotonic() - started) / 60
    landmarklabel("predict", model, *[source / "images" / f"{i}.jpg" for i in valid], "--out", predictions)
    report = ["--report", runs / "report.html"]
    text = landmarklabel("evaluate", predictions, study, "--task", "hand_xray", "--json", *report, output=True)
    return {"minutes": minutes, "wall_minutes": round(minutes_passed, 1), "metrics": json.loads(text)}


EXPERIMENTS = {"hands": hands}

if __name__ == "__main__":
    sys.exit(main())
