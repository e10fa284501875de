"""Does a GPU give what the CPU gives, how fast, and in how much memory? ``python scripts/reproduce.py gpu``.

Needs torch, numpy, scipy and safetensors; no SimpleITK, database, server or network. First, where the program is installed:
    python scripts/reproduce.py gpu --prepare              arrays into runs/gpu-data (images there are: never commit it)
then on the machine with the GPU, with the repository and that folder copied there, as often as it says "call again":
    PYTHONPATH=lib python3 scripts/reproduce.py gpu --out DIR
and, with DIR and its files brought back, the same command once more here: it writes scripts/results/gpu.json.
A call ends within --minutes; a killed one loses a minute of training, or one short measurement.
The CPU in fp32 is the reference; "product" is the arithmetic the program chooses by itself (bf16 where it pays).
Exit codes: 0 done and in agreement, 1 done and not, 2 cannot, 3 call again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import gpu_data
import gpu_measure
import torch
from experiment import hardware
from gpu_measure import Job

from landmarklabel.errors import LandmarkLabelError
from landmarklabel.io.files import write_json
from landmarklabel.networks.devices import choose_device

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "scripts" / "results"
METHODS = ("scn", "global_local")
DONE, DISAGREES, CANNOT, CALL_AGAIN = 0, 1, 2, 3
LEAST_SHARE = 0.1  # of a call's time must be left for a part to be started
# Each in a process of its own: their peak memory is theirs alone, and a killed one takes nothing with it.
PARTS = ("train_reference", "train_device", "step", "predict_reference", "predict_device")


@dataclass(frozen=True)
class Settings:
    """What must stay the same from call to call, for figures that belong together."""

    device: str  # cuda, or cpu: then the CPU is compared with itself in another number of threads
    steps: int
    images: int
    tiny: bool
    data: dict[str, str]  # sha256 of each set
    hardware: str
    driver: str | None
    torch: str


def main(words: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    o = _parser().parse_args(words)
    try:
        if o.prepare:
            gpu_data.prepare(o.arrays, o.data)
            return DONE
        return _measure(o)
    except LandmarkLabelError as error:
        print(f"error: {error}", file=sys.stderr)
        return CANNOT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reproduce.py gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prepare", action="store_true", help="write the arrays and stop")
    parser.add_argument("--arrays", type=Path, default=ROOT / "runs" / "gpu-data", help="folder of the arrays")
    data = os.environ.get("LANDMARKLABEL_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(data), help="real images, for --prepare; phantoms need none")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu", help="folder of the results: one small JSON a set")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "gpu-work", help="models and training states; may be lost")
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "cpu"), help="cpu: against other threads")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which a call ends (default %(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="of each training (default %(default)s)")
    parser.add_argument("--images", type=int, default=8, help="predicted of each set, at most (default %(default)s)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="default: both")
    parser.add_argument("--tiny", action="store_true", help="small grids and few crops: tries this program, measures nothing")
    return parser


def _measure(o: argparse.Namespace) -> int:
    ends = time.monotonic() + 60 * o.minutes
    data = gpu_data.sets_in(o.arrays)
    if not data:
        print(f"error: no arrays in {o.arrays}; make them with --prepare, or name their folder with --arrays", file=sys.stderr)
        return CANNOT
    found = {name: _read(o.out / f"{name}.json") for name in data}
    if not _missing(found, o.methods):
        return _finish(o, found)
    if (settings := _settings(o, data)) is None:
        return CANNOT
    for content in found.values():
        if content and content["settings"] != asdict(settings):
            changed = [k for k, v in asdict(settings).items() if content["settings"].get(k) != v]
            print(f"error: {o.out} has figures with other {', '.join(changed)}; give another --out", file=sys.stderr)
            return CANNOT
    for name, method, part in _missing(found, o.methods):
        content = found[name] or {"settings": asdict(settings)}
        work = o.work / f"{name}-{data[name][:8]}-{settings.device}-{o.steps}{'-tiny' * o.tiny}" / method
        job = Job(o.arrays / f"{name}.npz", work, method, settings.device, o.steps, o.images, o.tiny)
        print(f"{name} {method} {part} …", flush=True)
        enough = ends - time.monotonic() > 60 * o.minutes * LEAST_SHARE
        result = _in_own_process(part, job, ends) if enough else None
        if result is None:
            print(f"{len(_missing(found, o.methods))} parts are left: call again", flush=True)
            return CALL_AGAIN
        found[name] = content | {method: content.get(method, {}) | {part: result}}
        write_json(o.out / f"{name}.json", found[name])
    return _finish(o, found)


def _missing(found: dict[str, dict], methods: Sequence[str]) -> list[tuple[str, str, str]]:
    return [(n, m, p) for n, content in found.items() for m in methods for p in PARTS if p not in content.get(m, {})]


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _settings(o: argparse.Namespace, data: dict[str, str]) -> Settings | None:
    device = choose_device(o.device).type
    if o.device == "auto" and device == "cpu":
        print("error: no GPU that torch can use; --device cpu compares the CPU with itself in other threads", file=sys.stderr)
        return None
    driver = _driver() if device == "cuda" else None
    return Settings(device, o.steps, o.images, o.tiny, data, hardware(), driver, torch.__version__)


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=True, encoding="utf-8").stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _finish(o: argparse.Namespace, found: dict[str, dict]) -> int:
    settings = next(iter(found.values()))["settings"]
    sets = {
        name: {method: gpu_measure.compare(content[method]) for method in o.methods} | {"data_sha256": settings["data"][name]}
        for name, content in found.items()
    }
    agree = all(sets[name][method]["agrees"] for name in sets for method in o.methods)
    content = {
        "command": "python scripts/reproduce.py gpu",
        **{k: v for k, v in settings.items() if k != "data"},
        "tolerances": asdict(gpu_measure.TOLERANCES),
        "agrees": agree,
        "sets": sets,
    }
    write_json(o.out / "gpu.json", content)
    print(f"{o.out / 'gpu.json'} written: the device {'agrees' if agree else 'DOES NOT agree'} with the CPU")
    if settings["device"] == "cuda" and not settings["tiny"]:  # the CPU against itself is no result
        write_json(RESULTS / "gpu.json", content)
    return DONE if agree else DISAGREES


# --- a part in a process of its own --------------------------------------------------------------------------------


def _in_own_process(part: str, job: Job, ends: float) -> dict | None:
    """What a part of the measurements found; None when the time does not suffice. LandmarkLabelError when it fails."""
    left = ends - time.monotonic()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    # a training stops by itself, so early that its state is saved and its few validation images are measured
    process = context.Process(target=_work, args=(part, replace(job, seconds=0.8 * left), theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(max(0.0, left)):
            return None
        found, failed = ours.recv()
    except EOFError:
        raise LandmarkLabelError(f"{part} ended without a result (out of memory?)") from None
    finally:
        process.terminate()
        process.join()
    if failed:
        raise LandmarkLabelError(f"{part} failed:\n{failed}")
    return found


def _work(part: str, job: Job, results) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        results.send((getattr(gpu_measure, part)(job), None))
    except Exception:  # the parent shows it
        results.send((None, traceback.format_exc()))


def _end_with_parent() -> None:
    """Two processes must not write one training state: when the parent is killed, so is this one."""
    multiprocessing.parent_process().join()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
