"""What the tests of the command line share: commands in this process, and six small phantoms as a user would have them."""

from __future__ import annotations

import csv
import io
import os
import shutil
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from landmarklabel.cli import main
from landmarklabel.data.synthetic import phantom_task
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

NAMES = phantom_task(2, 8).names
IDS = [f"p{i}" for i in range(6)]
WRIST_MM = 50.0
START_S, END_S = 240, 240  # deadlines, not expectations: a busy machine is slow


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """The one line that a mistake ends with."""
        assert self.code == 2, self
        assert self.err.startswith("landmarklabel: ") and self.err.count("\n") == 1 and self.err.endswith("\n"), self
        return self.err


def run(*words: object) -> Done:
    """One command, in this process."""
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main([str(w) for w in words])
    except SystemExit as end:
        code = end.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Done(code, out.getvalue(), err.getvalue())


def ok(*words: object) -> Done:
    done = run(*words)
    assert done.code == 0, done
    return done


def unprivileged() -> list[str]:
    """What to put before a command so that it may not read and write everything; empty where the tests cannot have that."""
    if os.name != "posix" or not shutil.which("setpriv"):
        return []
    rights = "-dac_override,-dac_read_search"
    return ["setpriv", *(("--bounding-set", rights, "--inh-caps", rights) if os.geteuid() == 0 else ())]


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "landmarklabel", *map(str, words)]


@dataclass(frozen=True)
class Material:
    folder: Path
    task: LandmarkTask
    truth: dict[str, LandmarkSet]

    def __getattr__(self, name: str) -> Path:  # images, table, task_file, study, model
        return self.folder / {"table": "points.csv", "task_file": "hand.json"}.get(name, name)

    @property
    def source(self) -> tuple:
        return "--task", self.task_file, "--images", self.images


def write_table(path: Path, truth: dict[str, LandmarkSet]) -> None:
    """One row an image, as in the seeds' data: an extra column, and ``absent`` for what is not there."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "split", *(f"{axis}{i}" for i in range(len(NAMES)) for axis in "xy")])
        for image_id, landmarks in truth.items():
            absent = [s is Status.ABSENT for s in landmarks.status]
            pairs = zip(absent, landmarks.positions_mm.tolist(), strict=True)
            rows.writerow([image_id, "train", *(cell for gone, p in pairs for cell in (["absent"] * 2 if gone else p))])


def write_names(folder: Path) -> Path:
    lines = [f"{NAMES[0]}\tFar end, on the left side", *NAMES[1:], ""]
    (folder / "names.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder / "names.txt"
