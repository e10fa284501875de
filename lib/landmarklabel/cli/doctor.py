"""``doctor``: what is installed, what it can do, and what to mend."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from landmarklabel.errors import LandmarkLabelError, StudyError, counted, listed, one_line
from landmarklabel.io.files import MARKUPS_SUFFIX
from landmarklabel.services.backup_files import look
from landmarklabel.services.checkup import (
    look_at_images,
    not_compared,
    odd_shapes,
    points_outside,
    revisions_as_they_are,
    unlabelled_landmarks,
)
from landmarklabel.services.models import damaged_models
from landmarklabel.store.image_files import REPEAT, Listing
from landmarklabel.store.revision_json import landmarks_of
from landmarklabel.store.revisions import Revision
from landmarklabel.store.study_task import StudyRecord, read_record

_SEE = "mend or remove these files"
_PACKAGES = ["landmarklabel", "torch", "numpy", "SimpleITK", "nibabel", "pydicom", "SQLAlchemy", "safetensors"]
_OLDEST_PYTHON = (3, 11)


def doctor(args: argparse.Namespace) -> int:
    """Print the checks; exit code 1 when one failed."""
    checks = [_python(), *_packages(), _server(), _monailabel(), _arithmetic(), _disk(), *(_study(args) if args.study else ())]
    if args.json:
        print(json.dumps({"ok": all(c["ok"] for c in checks), "checks": checks}, indent=1))
    else:
        for check in checks:
            mark = "LOOK" if check.get("look") else "ok  " if check["ok"] else "BAD "
            mend = "" if mark == "ok  " else f"  ->  {check['mend']}"
            print(one_line(f"{mark} {check['what']:<14} {check['found']}{mend}"))
    return 0 if all(c["ok"] for c in checks) else 1


def _check(what: str, ok: bool, found: str, mend: str = "") -> dict:
    return {"what": what, "ok": bool(ok), "found": found, "mend": mend}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> dict:
    good = sys.version_info[:2] >= _OLDEST_PYTHON
    return _check("python", good, platform.python_version(), "use Python 3.11 or newer")


def _packages() -> list[dict]:
    return [_check(p, _version(p) is not None, _version(p) or "missing", f"pip install {p}") for p in _PACKAGES]


def _server() -> dict:
    try:
        importlib.import_module("landmarklabel.server.app")
    except Exception as error:
        mend = "install the extra server: pip install 'WHEEL[server]', or scripts/dev.py setup in a checkout"
        return _check("server", False, f"{type(error).__name__}: {error}", mend)
    return _check("server", True, f"fastapi {_version('fastapi')}, uvicorn {_version('uvicorn')}")


def _monailabel() -> dict:
    """MONAI Label is needed for ``monailabel start_server`` only, so its absence is no fault."""
    if (version := _version("monailabel")) is None:
        return _check("monailabel", True, "not installed; landmarklabel setup-monailabel would")
    try:
        importlib.import_module("landmarklabel.server.monailabel")
    except Exception as error:
        return _check("monailabel", False, f"{version}: {type(error).__name__}: {error}", "landmarklabel setup-monailabel")
    return _check("monailabel", True, version)


def _arithmetic() -> dict:
    import torch

    from landmarklabel.networks.precision import bf16_pays

    built = f"torch for CUDA {torch.version.cuda}" if torch.version.cuda else "torch without CUDA"
    driver = _driver()
    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        memory = f"{about.total_memory / 2**30:.0f} GiB, driver {driver or 'unknown'}, {built}"
        found = f"{torch.cuda.device_count()} x {about.name}, {memory}"
        return _check("compute", True, f"{found}, {'bf16' if bf16_pays(torch.device('cuda')) else 'fp32'}")
    found = f"CPU, {os.cpu_count()} cores, {'bf16' if bf16_pays(torch.device('cpu')) else 'fp32'}, {built}"
    mend = (
        "this computer has an NVIDIA GPU: pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126"
    )
    if driver and torch.version.cuda:
        mend = f"torch does not find the GPU that driver {driver} has: update the driver, or look at CUDA_VISIBLE_DEVICES"
    return _check("compute", True, found, mend) | ({"look": True} if driver else {})


def _driver() -> str:
    """Version of NVIDIA's driver; empty without one."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else ""


def _disk() -> dict:
    free = shutil.disk_usage(".").free / 2**30
    return _check("disk", free > 2, f"{free:.0f} GiB free here", "free some space: models and revisions need it")


def _study(args: argparse.Namespace) -> list[dict]:
    """Images, points, label files, revisions and audit trail of a study."""
    folder, url = Path(args.study), args.store
    own = folder / ".landmarklabel"
    if not own.is_dir():
        raise StudyError(f"{args.study}: no study (it has no folder .landmarklabel)")
    if url is None and (lost := _lost(own / "revisions.sqlite", _label_files(folder))):
        return [_check("revisions", False, lost, "give --store URL, or restore .landmarklabel/revisions.sqlite from a backup")]
    with revisions_as_they_are(own, url) as (revisions, writable):
        faults, heads, numbers = revisions.verify(), {}, None
        with contextlib.suppress(LandmarkLabelError):  # a damaged row is among the faults
            heads, numbers = revisions.heads(), revisions.numbers()
    checks = [] if writable else [_look("rights", ["you may not write this study"], "", "what can be read was checked")]
    first = [i for i in heads if not i.endswith(REPEAT)]
    again = f" and {counted(len(heads) - len(first), 'second reading')}" if len(first) < len(heads) else ""
    found = _listed(faults, f"{counted(len(first), 'labelled image')}{again}, unbroken")
    checks.append(_check("audit trail", not faults, found, "restore a backup"))
    record = read_record(folder)
    listing = Listing.of(folder) if record is None else Listing.of(folder).fitting(record.task)
    checks.append(_label_check(folder, [i for i in heads if i in listing.images], numbers))
    out = [f"{name}: {why}" for name, why in look(folder).left_out.items()]
    checks.append(_look("other files", out, "all can be backed up", "a backup leaves these out"))
    broken = damaged_models(own / "models")
    mend = f"publish an earlier version: landmarklabel publish {own / 'models' / 'NAME' / 'versions' / 'NUMBER'} {folder}"
    checks.append(_check("models", not broken, _listed(broken, "all that are live can be read"), mend))
    return checks + _points(record, heads, listing)


def _lost(database: Path, labels: list[str]) -> str:
    """What is wrong with a database file that holds nothing at all; empty where it holds something."""
    if not database.is_file():
        return "no database"
    without = f", and labels/final holds {len(labels)} label files without revisions" if labels else ""
    return "" if database.stat().st_size else f"the database is an empty file{without}"


def _label_files(folder: Path) -> list[str]:
    return sorted(p.name.removesuffix(MARKUPS_SUFFIX) for p in (folder / "labels" / "final").glob(f"[!.]*{MARKUPS_SUFFIX}"))


def _label_check(folder: Path, labelled: list[str], numbers: Mapping[str, int] | None) -> dict:
    """Label files and revisions tell of the same images; ``numbers`` is None where the database could not be asked."""
    there = _label_files(folder)
    missing = sorted(set(labelled) - set(there))
    untold = [image_id for image_id in there if numbers is not None and image_id not in numbers]
    mends = ["they are written again when the study is served"] if missing else []
    if untold:
        own = f"files that you made yourself become revisions with: landmarklabel study status {folder}"
        mends.append(f"if revisions were lost, restore a backup; {own}")
    found = _listed([*missing, *(f"{image_id}: a label file without revisions" for image_id in untold)], "complete")
    return _check("label files", not missing and not untold, found, "; ".join(mends))


def _points(record: StudyRecord | None, heads: Mapping[str, Revision], listing: Listing) -> list[dict]:
    """What the images and the newest points on them show; without points where the study does not know its task."""
    if record is None:
        return [_check("images", not listing.refused, _listed(list(listing.refused.values()), f"{len(listing.images)}"), _SEE)]
    found, unreadable = look_at_images(listing.images, record.task.dims)
    labelled = {}
    for image_id, head in heads.items():
        with contextlib.suppress(LandmarkLabelError):  # a damaged row is among the faults of the audit trail
            labelled[image_id] = landmarks_of(head.body, record.task, record.renames)
    labelled = {i: x for i, x in labelled.items() if i in listing.images and x.by_person.any()}
    faults = [*listing.refused.values(), *unreadable]
    outside, never = points_outside(labelled, found), unlabelled_landmarks(labelled, record.task)
    odd, rest = odd_shapes(labelled, found), not_compared(labelled)
    shapes = _look("shapes", odd, "no point far from its usual place", "look at these points; some may be right")
    shapes["found"] += f"; not looked at, as too few cases have them: {listed(rest)}" if rest else ""
    gone = [i for i in heads if not i.endswith(REPEAT) and i not in listing.images and i not in listing.refused]
    return [
        _check("images", not faults, _listed(faults, f"{len(found)}, all readable"), _SEE),
        _check("points", not outside, _listed(outside, "all inside of their images"), "move them, or import their files again"),
        _look("landmarks", never, "all labelled somewhere", "never labelled: a model will not find them"),
        shapes,
        _look("images gone", sorted(gone), "every label has its image", "bring them back, unless you removed them: labels stay"),
    ]


def _look(what: str, odd: list[str], otherwise: str, mend: str) -> dict:
    """A check whose findings may be right: it does not fail, it asks for a look."""
    return {**_check(what, True, _listed(odd, otherwise), mend), "look": bool(odd)}


def _listed(faults: list[str], otherwise: str) -> str:
    more = f"; and {len(faults) - 10} more" if len(faults) > 10 else ""
    return "; ".join(faults[:10]) + more if faults else otherwise
