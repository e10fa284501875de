"""What an operator may set of a server, checked in one place for ``landmarklabel serve`` and for ``--conf``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from landmarklabel.active.configuration import RetrainingConfig
from landmarklabel.errors import UsageError
from landmarklabel.networks.presets import presets

DEFAULT_MODEL = "scn"
_RETRAINING = RetrainingConfig()
_ORIGIN = re.compile(r"https?://[^/\s,]+")
_YES, _NO = ("1", "true", "yes"), ("", "0", "false", "no")
_OTHERS = ("server_mode",)  # MONAI Label's own


@dataclass(frozen=True)
class ServerSettings:
    """How a study is served.

    Args:
        task: name or file; empty where none is given.
        models: comma-separated; empty for those that are live in the study.
        store: URL of the revision store; None for SQLite inside the study.
        retrain: new labels after which training starts by itself; 0 for never.
        retrain_minutes: how long it then trains.
        repeat: every so many cases one comes again for a second reading; 0 for never.
        max_upload_mb: MiB of the largest image that is taken.
        origins: of web pages that may send requests.
        insecure: let other computers in without token and TLS.
        allow_outside: mm (px without spacing) that a submitted point may lie outside of its image.
        device: where networks run, as in ``networks.precision.choose_device``.
        train_devices: how many devices, each with a process of its own, train a model.
    """

    task: str = ""
    models: str = ""
    store: str | None = None
    retrain: int = _RETRAINING.after_labels
    retrain_minutes: float = _RETRAINING.minutes
    repeat: int = 0
    max_upload_mb: int = 2048
    origins: frozenset[str] = frozenset()
    insecure: bool = False
    allow_outside: float = 0.0
    device: str = "auto"
    train_devices: int = 1

    @staticmethod
    def of(conf: Mapping[str, str], said: Callable[[str], str] = "--conf {}".format) -> ServerSettings:
        """Read settings given as names and texts.

        Args:
            conf: as MONAI Label hands them over.
            said: how a setting is written where the person gave it.

        Raises:
            UsageError: an unknown setting, or a value that is not allowed.
        """
        if unknown := sorted(set(conf) - {*ServerSettings.__dataclass_fields__, *_OTHERS}):
            known = ", ".join(ServerSettings.__dataclass_fields__)
            raise UsageError(f"{said(unknown[0][:40])} is not known; there are {known}")

        def number(key: str, default: float, least: float, whole: bool = False) -> float:
            return _number(conf.get(key, default), said(key), least, whole)

        return ServerSettings(
            conf.get("task", ""),
            conf.get("models", ""),
            conf.get("store") or None,
            int(number("retrain", _RETRAINING.after_labels, 0, whole=True)),
            number("retrain_minutes", _RETRAINING.minutes, 0.01),
            int(number("repeat", 0, 0, whole=True)),
            int(number("max_upload_mb", 2048, 1, whole=True)),
            _origins(str(conf.get("origins", "")), said("origins")),
            _truth(str(conf.get("insecure", "")), said("insecure")),
            number("allow_outside", 0.0, 0.0),
            conf.get("device") or "auto",
            int(number("train_devices", 1, 1, whole=True)),
        )


def live_models(study: Path, dims: int) -> str:
    """Names of the models that are live in a study, comma-separated, the default one first; the default where none is."""
    folders = study / ".landmarklabel" / "models"
    pointers = folders.glob("*/live.json") if folders.is_dir() else ()
    live = {pointer.parent.name for pointer in pointers if _has_version(pointer)}
    served = {p.served_as: p.method if p.name == "default" else p.key for p in presets() if dims in p.dims}
    found = sorted((name for name in live if name in served), key=lambda name: (name != DEFAULT_MODEL, name))
    return ",".join(served[name] for name in found) or DEFAULT_MODEL


def _has_version(pointer: Path) -> bool:
    """Whether a model went live: one that was refused leaves a pointer to none."""
    try:
        return bool(json.loads(pointer.read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, TypeError, KeyError):
        return True  # damaged: the server says so


def _number(text: str | float, name: str, least: float, whole: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value < 1e6 or (whole and value != int(value)):
        kind = "whole number" if whole else "number"
        raise UsageError(f"{name} {str(text)[:40]!r} must be a {kind} from {least:g} on, below 1000000")
    return value


def _origins(text: str, name: str) -> frozenset[str]:
    origins = frozenset(o.strip().rstrip("/") for o in text.split(",") if o.strip())
    for origin in sorted(origins):
        if not _ORIGIN.fullmatch(origin):
            raise UsageError(f"{name} {origin[:60]!r} is no origin: write https://viewer.example, several with commas")
    return origins


def _truth(text: str, name: str) -> bool:
    if text.lower() not in (*_YES, *_NO):
        raise UsageError(f"{name} {text[:40]!r} must be true or false")
    return text.lower() in _YES
