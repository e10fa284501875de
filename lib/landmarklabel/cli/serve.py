"""``serve``: MONAI Label's server with the right settings, and nothing to configure."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import logging
import os
import sys
from pathlib import Path

from landmarklabel.errors import StudyError, UsageError
from landmarklabel.services.listen_address import check_can_listen
from landmarklabel.services.settings import ServerSettings, live_models
from landmarklabel.store.study_task import check_same_task
from landmarklabel.store.tokens import Tokens
from landmarklabel.tasks import resolve_models, resolve_study_task

_MAIN = '"""Made by landmarklabel serve."""\n\nfrom landmarklabel.server.app import LandmarkApp\n\n__all__ = ["LandmarkApp"]\n'
SETTINGS = ("store", "retrain", "retrain_minutes", "repeat", "max_upload_mb", "origins", "allow_outside")  # handed on as given


def serve(args: argparse.Namespace) -> int:
    """Start the server in this process; returns when it stops."""
    _check_safe(args)
    check_can_listen(args.host, args.port)  # before anything slow
    task = resolve_study_task(args.task, args.studies)
    check_same_task(args.studies, task)
    if Path(args.studies).exists() and not Path(args.studies).is_dir():
        raise StudyError(f"{args.studies} is not a folder")
    conf = _conf(args)
    conf["models"] = args.models or live_models(Path(args.studies), task.dims)
    resolve_models(conf["models"], task.dims)
    os.environ |= {"MONAI_LABEL_TRACKING_ENABLED": "false", "MONAI_LABEL_AUTO_UPDATE_SCORING": "false"}
    app = app_folder(Path(args.studies))
    sys.argv = [
        "monailabel", "start_server", "--app", str(app), "--studies", str(args.studies),
        "--host", args.host, "--port", str(args.port),
        *(word for name, value in conf.items() for word in ("--conf", name, value)),
        *(("--ssl_certfile", args.certificate, "--ssl_keyfile", args.key) if args.certificate else ()),
    ]  # fmt: skip
    _run_quietly()
    return 0


def _conf(args: argparse.Namespace) -> dict[str, str]:
    """The settings that were given, checked as the server checks them."""
    given = {name: str(value) for name in SETTINGS if (value := getattr(args, name)) is not None}
    if args.insecure:
        given["insecure"] = "true"
    ServerSettings.of(given, lambda name: f"--{name.replace('_', '-')}")
    if args.task:
        given["task"] = str(Path(args.task).resolve()) if Path(args.task).is_file() else args.task
    return given


def _run_quietly() -> None:
    """MONAI Label prints every setting it has, and where it is; the app itself says what the operator has to know."""
    from monailabel.main import Main

    logging.disable(logging.INFO)
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        Main(logging.WARNING, ["start_server"]).run()


def _check_safe(args: argparse.Namespace) -> None:
    """Other computers are let in with a token over TLS, or on the operator's word; nobody where tokens have been lost."""
    if bool(args.certificate) != bool(args.key):
        raise UsageError("--certificate and --key belong together")
    if unreadable := [p for p in (args.certificate, args.key) if p and not Path(p).is_file()]:
        raise UsageError(f"{unreadable[0]}: no such file")
    accounts = os.environ.get("MONAI_LABEL_AUTH_ENABLE", "").lower() in ("1", "true")
    door = Tokens(args.studies).look()
    if door.fault and not accounts:
        raise UsageError(door.fault.replace("STUDY", str(args.studies)))
    if args.insecure or _is_loopback(args.host):
        return
    missing = []
    if not door.needed and not accounts:
        missing.append(f"a token (landmarklabel token new {args.studies} --name NAME --role annotator)")
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


def app_folder(study: Path) -> Path:
    """A MONAI Label app folder inside the study, where the server may write its logs."""
    folder = study / ".landmarklabel" / "app"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.py").write_text(_MAIN, encoding="utf-8")
    return folder
