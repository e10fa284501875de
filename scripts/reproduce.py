"""Every accuracy figure in the README, from one command: ``python scripts/reproduce.py NAME``.

Experiments are made of the program's own verbs, are resumable (call again after an interruption) and leave a small JSON
file in ``scripts/results/``. They need the real data: ``--data DIR`` or the variable LANDMARKLABEL_DATA. Work files go to
``runs/``, which is not tracked. ``gpu`` needs neither the data nor most packages, and has options of its own: ``gpu --help``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from experiment import hardware

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "scripts" / "results"
MEASURED = "measured"  # in the folder of a run whose result was written
HANDS = ("hands_best", "hands_cv", "few_random_hands")
BENCHMARK = (*HANDS, "cephalogram_angles", "few_cephalograms", "mouse", "mouse_surfaces", "other_anatomies")


def main() -> int:
    if sys.argv[1:2] == ["gpu"]:
        import gpu  # alone: it runs where the others' packages are not installed

        return gpu.main(sys.argv[2:])
    experiments = _experiments()
    listed = "\n".join(f"  {name:<20}{f.__doc__.splitlines()[0]}" for name, f in experiments.items())
    listed += f"\n  benchmark           {', '.join(BENCHMARK)}: one after the other; goes on where it was interrupted."
    listed += "\n  gpu                 A GPU against the CPU: the same answers, how fast, in how much memory; see gpu --help."
    about = {"description": __doc__, "epilog": f"experiments:\n{listed}"}
    parser = argparse.ArgumentParser(**about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*experiments, "benchmark"], metavar="NAME")
    parser.add_argument("--data", default=os.environ.get("LANDMARKLABEL_DATA", str(ROOT.parent / "shared" / "data")))
    parser.add_argument("--runs", default=str(ROOT / "runs"))
    arguments = parser.parse_args()
    data, runs = Path(arguments.data), Path(arguments.runs)
    if not data.is_dir():
        sys.exit(f"{data}: no such folder; give the data with --data or LANDMARKLABEL_DATA")
    names = [arguments.name]
    if arguments.name == "benchmark":
        measured = [name for name in BENCHMARK if (runs / name / MEASURED).is_file()]
        names = [name for name in BENCHMARK if name not in measured]
        for name in measured:
            print(f"{name}: measured before; remove {runs / name} to measure it again")
    for name in names:
        _measure(name, experiments[name], data, runs / name)
    return 0


def _measure(name: str, experiment: Callable[[Path, Path], dict], data: Path, runs: Path) -> None:
    """Run an experiment, or what is left of it, and write its result."""
    runs.mkdir(parents=True, exist_ok=True)
    try:
        result = experiment(data, runs)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{name}.json"
    content = {"command": f"python scripts/reproduce.py {name}", "hardware": hardware(), **result}
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (runs / MEASURED).touch()
    print(f"{target.relative_to(ROOT)} written")


def _experiments() -> dict[str, Callable[[Path, Path], dict]]:
    import accuracy
    import active
    import browser
    import cohorts
    import interaction
    import measurements
    import other_anatomies
    import panel
    import quality
    import random_labels
    import reliability
    import template_confidence
    import training_memory

    modules = (
        *(accuracy, active, browser, cohorts, interaction, measurements, other_anatomies, panel),
        *(quality, random_labels, reliability, template_confidence, training_memory),
    )
    return {f.__name__: f for module in modules for f in module.EXPERIMENTS}


if __name__ == "__main__":
    sys.exit(main())
