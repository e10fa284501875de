"""``serve``: the server of a study, or of several; MONAI Label is not needed."""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import ssl
from pathlib import Path
from typing import Any

from landmarklabel.errors import StudyError, UsageError
from landmarklabel.services.console import fault_of
from landmarklabel.services.listen_address import check_can_listen
from landmarklabel.services.settings import ServerSettings, live_models
from landmarklabel.store.study_task import check_same_task
from landmarklabel.store.tokens import Tokens
from landmarklabel.tasks import resolve_models, resolve_study_task

_ROOT_PATH = re.compile(r"(/[A-Za-z0-9_.-]+)+/?")
_BELOW = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
SETTINGS = (
    "store",
    "retrain",
    "retrain_minutes",
    "repeat",
    "max_upload_mb",
    "origins",
    "allow_outside",
    "device",
    "train_devices",
)


def serve(args: argparse.Namespace) -> int:
    """Start the server in this process; returns when it stops."""
    _check_side_by_side(args)
    _check_options(args)
    several, settings = len(args.studies) > 1, dict[str, ServerSettings]()
    for study in args.studies:
        with fault_of(study, several):
            _check_safe(args, study)
    check_can_listen(args.host, args.port)  # before anything slow
    for study in args.studies:
        with fault_of(study, several):
            settings[study] = _settings(args, study)
    from landmarklabel.server.running import serve as run

    config: dict[str, Any] = {"host": args.host, "port": args.port, "root_path": args.root_path.rstrip("/")}
    if args.certificate:
        config |= {"ssl_certfile": args.certificate, "ssl_keyfile": args.key}
    run(settings, config, args.open)
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
    task = resolve_study_task(args.task, study, url=args.store)
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


def _check_options(args: argparse.Namespace) -> None:
    """What the options say of the address and of TLS, whatever is served."""
    if args.root_path and not _ROOT_PATH.fullmatch(args.root_path):
        raise UsageError(f"--root-path {args.root_path[:60]!r} must begin with / and have letters, digits, '-', '_' and '/' only")
    if bool(args.certificate) != bool(args.key):
        raise UsageError("--certificate and --key belong together")
    if unreadable := [p for p in (args.certificate, args.key) if p and not Path(p).is_file()]:
        raise UsageError(f"{unreadable[0]}: no such file")
    if args.certificate:
        _check_certificate(args.certificate, args.key)


def _check_certificate(certificate: str, key: str) -> None:
    """Raise UsageError naming the file of the two that cannot be used; OpenSSL does not say which."""
    for path in (certificate, key):
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise UsageError(f"{path} cannot be read ({error.strerror}): give the server the right to") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(certificate)
    except ssl.SSLError:
        raise UsageError(f"{certificate} holds no certificate in PEM format; give --certificate such a file") from None

    def protected() -> str:
        raise UsageError(f"{key} is protected by a password: give --key a file with the key in the clear")

    try:
        context.load_cert_chain(certificate, key, protected)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UsageError(f"{key} is not the key of {certificate}: give the two that were made together") from None
        raise UsageError(f"{key} holds no private key in PEM format; give --key such a file") from None


def _check_safe(args: argparse.Namespace, study: str) -> None:
    """Other computers are let in with a token over TLS, or on the operator's word; nobody where tokens have been lost."""
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
