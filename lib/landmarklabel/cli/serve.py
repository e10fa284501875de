"""``serve``: the server of a study, or of several; MONAI Label is not needed."""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
from pathlib import Path
from typing import Any

from landmarklabel.errors import StudyError, UsageError
from landmarklabel.services.listen_address import check_can_listen
from landmarklabel.services.settings import ServerSettings, live_models
from landmarklabel.store.study_task import check_same_task
from landmarklabel.store.tokens import Tokens
from landmarklabel.tasks import resolve_models, resolve_study_task

_ROOT_PATH = re.compile(r"(/[A-Za-z0-9_.-]+)+/?")
_BELOW = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
SETTINGS = ("store", "retrain", "retrain_minutes", "repeat", "max_upload_mb", "origins", "allow_outside", "device")


def serve(args: argparse.Namespace) -> int:
    """Start the server in this process; returns when it stops."""
    _check_side_by_side(args)
    for study in args.studies:
        _check_safe(args, study)
    check_can_listen(args.host, args.port)  # before anything slow
    settings = {study: _settings(args, study) for study in args.studies}
    from landmarklabel.server.running import serve as run

    config: dict[str, Any] = {"host": args.host, "port": args.port, "root_path": args.root_path.rstrip("/")}
    if args.certificate:
        config |= {"ssl_certfile": args.certificate, "ssl_keyfile": args.key}
    run(settings, config)
    return 0


def _check_side_by_side(args: argparse.Namespace) -> None:
    """Several studies each need a name of their own in the address, and a database of their own."""
    if len(args.studies) == 1:
        return
    names = [Path(study).resolve().name for study in args.studies]
    for name in names:
        if not _BELOW.fullmatch(name):
            raise UsageError(f"a study beside others needs a folder name of letters, digits, '-', '_' and '.' only, not {name!r}")
        if sum(name.casefold() == other.casefold() for other in names) > 1:
            raise UsageError(f"two of the studies are called {name!r}: rename one, as each is served below its folder's name")
    if args.store:
        raise UsageError("--store is one study's database: serve a study with it alone")


def _settings(args: argparse.Namespace, study: str) -> ServerSettings:
    """How one study is served, checked before anything slow."""
    task = resolve_study_task(args.task, study)
    check_same_task(study, task)
    if Path(study).exists() and not Path(study).is_dir():
        raise StudyError(f"{study} is not a folder")
    conf = _conf(args)
    conf["models"] = args.models or live_models(Path(study), task.dims)
    resolve_models(conf["models"], task.dims)
    return ServerSettings.of(conf)


def _conf(args: argparse.Namespace) -> dict[str, str]:
    """The settings that were given, checked as the server checks them."""
    given = {name: str(value) for name in SETTINGS if (value := getattr(args, name)) is not None}
    if args.insecure:
        given["insecure"] = "true"
    ServerSettings.of(given, lambda name: f"--{name.replace('_', '-')}")
    if args.task:
        given["task"] = str(Path(args.task).resolve()) if Path(args.task).is_file() else args.task
    return given


def _check_safe(args: argparse.Namespace, study: str) -> None:
    """Other computers are let in with a token over TLS, or on the operator's word; nobody where tokens have been lost."""
    if args.root_path and not _ROOT_PATH.fullmatch(args.root_path):
        raise UsageError(f"--root-path {args.root_path[:60]!r} must begin with / and have letters, digits, '-', '_' and '/' only")
    if bool(args.certificate) != bool(args.key):
        raise UsageError("--certificate and --key belong together")
    if unreadable := [p for p in (args.certificate, args.key) if p and not Path(p).is_file()]:
        raise UsageError(f"{unreadable[0]}: no such file")
    accounts = os.environ.get("MONAI_LABEL_AUTH_ENABLE", "").lower() in ("1", "true")
    door = Tokens(study).look()
    if door.fault and not accounts:
        raise UsageError(door.fault.replace("STUDY", study))
    if args.insecure or _is_loopback(args.host):
        return
    missing = []
    if not door.needed and not accounts:
        missing.append(f"a token (landmarklabel token new {study} --name NAME --role annotator)")
    if not args.certificate:
        missing.append("TLS (--certificate and --key)")
    if missing:
        raise UsageError(
            f"--host {args.host} lets other computers in: this needs {' and '.join(missing)}; or say --insecure in a network "
            "where everybody may read and change everything"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
