"""``doctor``: what is installed, what it can do, and what to mend."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import URL

from landmarklabel.errors import LandmarkLabelError, StudyError
from landmarklabel.io.files import MARKUPS_SUFFIX
from landmarklabel.services.checkup import look_at_images, odd_shapes, points_outside, unlabelled_landmarks
from landmarklabel.services.models import damaged_models
from landmarklabel.store.image_files import Listing
from landmarklabel.store.revision_json import landmarks_of
from landmarklabel.store.revisions import Revision, RevisionStore
from landmarklabel.store.study_task import read_record

_SEE = "mend or remove these files"
_PACKAGES = ["landmarklabel", "torch", "monai", "monailabel", "numpy", "SimpleITK", "pydicom", "SQLAlchemy", "safetensors"]


def doctor(args: argparse.Namespace) -> int:
    """Print the checks; exit code 1 when one failed."""
    checks = [_python(), *_packages(), _pydicom(), _server(), _arithmetic(), _disk(), *(_study(args) if args.study else ())]
    if args.json:
        print(json.dumps({"ok": all(c["ok"] for c in checks), "checks": checks}, indent=1))
    else:
        for check in checks:
            mark = "LOOK" if check.get("look") else "ok  " if check["ok"] else "BAD "
            mend = "" if mark == "ok  " else f"  ->  {check['mend']}"
            print(f"{mark} {check['what']:<14} {check['found']}{mend}")
    return 0 if all(c["ok"] for c in checks) else 1


def _check(what: str, ok: bool, found: str, mend: str = "") -> dict:
    return {"what": what, "ok": bool(ok), "found": found, "mend": mend}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> dict:
    good = (3, 11) <= sys.version_info[:2] <= (3, 12)
    return _check("python", good, platform.python_version(), "use Python 3.11 or 3.12")


def _packages() -> list[dict]:
    return [_check(p, _version(p) is not None, _version(p) or "missing", f"pip install {p}") for p in _PACKAGES]


def _pydicom() -> dict:
    version = _version("pydicom") or "0"
    good = version.split(".")[0] == "2"
    return _check("pydicom < 3", good, version, "MONAI Label 0.8.5 cannot start with pydicom 3: pip install 'pydicom>=2.4.5,<3'")


def _server() -> dict:
    try:
        import monailabel.interfaces.app  # noqa: F401
    except Exception as error:
        return _check("server", False, f"{type(error).__name__}: {error}", "install with scripts/dev.py setup")
    return _check("server", True, f"MONAI Label {_version('monailabel')} imports")


def _arithmetic() -> dict:
    import torch

    from landmarklabel.networks.precision import bf16_pays

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {os.cpu_count()} cores"
    return _check("compute", True, f"{name}, {'bf16' if bf16_pays(device) else 'fp32'}")


def _disk() -> dict:
    free = shutil.disk_usage(".").free / 2**30
    return _check("disk", free > 2, f"{free:.0f} GiB free here", "free some space: models and revisions need it")


def _study(args: argparse.Namespace) -> list[dict]:
    """Images, points, label files, revisions and audit trail of a study."""
    folder, url = Path(args.study), args.store
    own = folder / ".landmarklabel"
    if not own.is_dir():
        raise StudyError(f"{args.study}: no study (it has no folder .landmarklabel)")
    if url is None and not (own / "revisions.sqlite").is_file():
        return [_check("revisions", False, "no database", "give --store URL, or restore .landmarklabel/revisions.sqlite")]
    revisions = RevisionStore(url or URL.create("sqlite", database=str(own.absolute() / "revisions.sqlite")))
    faults, heads = revisions.verify(), {}
    with contextlib.suppress(LandmarkLabelError):  # a damaged row is among the faults
        heads = revisions.heads()
    checks = [_check("audit trail", not faults, _listed(faults, f"{len(heads)} labelled images, unbroken"), "restore a backup")]
    listing = Listing.of(folder)
    images = listing.images
    missing = sorted(
        i for i, head in heads.items() if i in images and not (folder / "labels/final" / f"{i}{MARKUPS_SUFFIX}").is_file()
    )
    checks.append(
        _check("label files", not missing, _listed(missing, "complete"), "they are written again when the study is served")
    )
    revisions.close()
    broken = damaged_models(own / "models")
    mend = f"publish an earlier version: landmarklabel publish {own / 'models' / 'NAME' / 'versions' / 'NUMBER'} {folder}"
    checks.append(_check("models", not broken, _listed(broken, "all that are live can be read"), mend))
    return checks + _points(folder, heads, listing)


def _points(folder: Path, heads: Mapping[str, Revision], listing: Listing) -> list[dict]:
    """What the images and the newest points on them show; without points where the study does not know its task."""
    record = read_record(folder)
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
    odd = odd_shapes(labelled, found)
    return [
        _check("images", not faults, _listed(faults, f"{len(found)}, all readable"), _SEE),
        _check("points", not outside, _listed(outside, "all inside of their images"), "move them, or import their files again"),
        _look("landmarks", never, "all labelled somewhere", "never labelled: a model will not find them"),
        _look("shapes", odd, "no point far from its usual place", "look at these points; some may be right"),
    ]


def _look(what: str, odd: list[str], otherwise: str, mend: str) -> dict:
    """A check whose findings may be right: it does not fail, it asks for a look."""
    return {**_check(what, True, _listed(odd, otherwise), mend), "look": bool(odd)}


def _listed(faults: list[str], otherwise: str) -> str:
    more = f"; and {len(faults) - 10} more" if len(faults) > 10 else ""
    return "; ".join(faults[:10]) + more if faults else otherwise
