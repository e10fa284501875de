"""A real PostgreSQL server of the tests' own, in a temporary folder, on a free port of this machine only."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from itertools import count
from pathlib import Path

from sqlalchemy import create_engine

DEBIAN = Path("/usr/lib/postgresql")  # there the programs of the server are not on PATH


def find_programs() -> Path | None:
    """The folder with initdb and pg_ctl; None where PostgreSQL is not installed."""
    found = shutil.which("pg_ctl")
    folders = [Path(found).resolve().parent] if found else sorted(DEBIAN.glob("*/bin"), key=lambda p: int(p.parent.name))
    return folders[-1] if folders and (folders[-1] / "pg_ctl").is_file() else None


class PostgresServer:
    """Started once; every test gets a schema of its own, which is as fresh as a database and made in a tenth of the time.

    What is committed is on disk (fsync is on), as it would be in earnest.
    """

    def __init__(self, programs: Path):
        self._programs, self._numbers = programs, count(1)
        self.folder = Path(tempfile.mkdtemp(prefix="landmarklabel-pg-"))  # short: it holds the socket
        self._as = {}
        if os.geteuid() == 0:  # which PostgreSQL refuses to run as
            user = next(name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()})
            self._as = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
            shutil.chown(self.folder, user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql://landmarklabel@127.0.0.1:{self.port}/postgres"
        self._engine = create_engine(self.url.replace(":", "+psycopg:", 1), pool_pre_ping=True)
        self._run("initdb", "-U", "landmarklabel", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.start()

    def start(self) -> None:
        """Start and wait until it answers."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c shared_buffers=32MB"
        self._run("pg_ctl", "start", "-w", "-l", str(self.folder / "log"), "-o", options)

    def stop(self) -> None:
        """As a power cut would: nothing is flushed, nobody is told."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate")

    def remove(self) -> None:
        """Stop for good."""
        self.stop()
        shutil.rmtree(self.folder)

    def new_database(self) -> str:
        """URL of a fresh, empty database, as far as a store can tell."""
        name = f"test{next(self._numbers)}"
        with self._engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {name}")
        return f"{self.url}?options=-csearch_path%3D{name}"

    def _run(self, program: str, *words: str) -> None:
        command = [str(self._programs / program), "-D", str(self.folder / "data"), *words]
        done = subprocess.run(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            timeout=120, **self._as,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
