"""``serve``: MONAI Label's server with the right settings, and nothing to configure."""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import sys
from pathlib import Path

from landmarklabel.errors import StudyError, UsageError
from landmarklabel.store.tokens import Tokens
from landmarklabel.tasks import resolve_models, resolve_task

_MAIN = '"""Made by landmarklabel serve."""\n\nfrom landmarklabel.server.app import LandmarkApp\n\n__all__ = ["LandmarkApp"]\n'


def serve(a: argparse.Namespace) -> int:
    """Start the server in this process; returns when it stops."""
    task = resolve_task(a.task)
    resolve_models(a.models, task.dims)
    if Path(a.studies).exists() and not Path(a.studies).is_dir():
        raise StudyError(f"{a.studies} is not a folder")
    _check_safe(a)
    _check_free(a.host, a.port)
    os.environ |= {"MONAI_LABEL_TRACKING_ENABLED": "false", "MONAI_LABEL_AUTO_UPDATE_SCORING": "false"}
    app = app_folder(Path(a.studies))
    known_file = Path(a.task).resolve() if Path(a.task).is_file() else a.task
    from monailabel.main import Main

    sys.argv = [
        "monailabel", "start_server", "--app", str(app), "--studies", str(a.studies), "--host", a.host,
        "--port", str(a.port), "--conf", "task", str(known_file), "--conf", "models", a.models,
        *(("--conf", "store", a.store) if a.store else ()), *(("--conf", "insecure", "true") if a.insecure else ()),
        *(("--ssl_certfile", a.certificate, "--ssl_keyfile", a.key) if a.certificate else ()),
    ]  # fmt: skip
    Main(actions=["start_server"]).run()
    return 0


def _check_safe(a: argparse.Namespace) -> None:
    """Other computers are let in with a token over TLS, or on the operator's word."""
    if bool(a.certificate) != bool(a.key):
        raise UsageError("--certificate and --key belong together")
    if unreadable := [p for p in (a.certificate, a.key) if p and not Path(p).is_file()]:
        raise UsageError(f"{unreadable[0]}: no such file")
    if a.insecure or _is_loopback(a.host):
        return
    missing = []
    if not Tokens(a.studies).holders() and os.environ.get("MONAI_LABEL_AUTH_ENABLE", "").lower() not in ("1", "true"):
        missing.append(f"a token (landmarklabel token new {a.studies} --name NAME --role annotator)")
    if not a.certificate:
        missing.append("TLS (--certificate and --key)")
    if missing:
        raise UsageError(
            f"--host {a.host} lets other computers in: this needs {' and '.join(missing)}; or say --insecure in a network "
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


def _check_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise UsageError(f"cannot listen on {host}:{port} ({error}); choose another --port") from None
