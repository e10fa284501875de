"""A plain sbatch script: every task of the array predicts its part of the cohort."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from landmarklabel.cohort.run_folder import not_writable
from landmarklabel.errors import StudyError, UsageError

SCRIPT = "submit.sbatch"


def sbatch_script(folder: Path, tasks: int, options: Sequence[str] = (), run_options: Sequence[str] = ()) -> str:
    """The text of the script.

    Args:
        folder: of the cohort; all nodes see it under this path.
        tasks: of the array, and so parts of the cohort.
        options: further ones of sbatch, such as ``--partition=gpu``.
        run_options: of ``cohort run``.

    Raises:
        UsageError: an option that is none, or a path that a script cannot hold.
    """
    folder = folder.absolute()
    for text in (str(folder), sys.executable, *options):
        if not text.isprintable() or any(mark in text for mark in "'\"\\"):
            raise UsageError(f"{text[:80]!r} cannot be written into a script for sbatch")
    for option in options:
        if not option.startswith("-"):
            raise UsageError(f"--sbatch {option[:60]!r} must be an option of sbatch, for example --sbatch=--time=12:00:00")
        if re.match(r"--array\b|-a", option):
            raise UsageError(f"--sbatch {option[:60]!r}: the array has as many tasks as --slurm says")
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", folder.name)
    asked = [
        f"--job-name=landmarklabel-{name}",
        f"--array=1-{tasks}",
        f'--output="{str(folder).replace("%", "%%")}/slurm-%A-%a.log"',
        "--requeue",  # a task that was preempted, or whose node failed, goes on
        *options,
    ]
    command = [sys.executable, "-m", "landmarklabel", "cohort", "run", str(folder), *run_options]
    lines = ["#!/bin/sh", *(f"#SBATCH {option}" for option in asked), ""]
    lines += [f'exec {shlex.join(command)} --shard "$SLURM_ARRAY_TASK_ID/{tasks}"', ""]
    return "\n".join(lines)


def submit(folder: Path, script: str) -> str:
    """Write the script into the cohort's folder and hand it to sbatch; what that says. Raises StudyError."""
    path = folder / SCRIPT
    try:
        path.write_text(script, encoding="utf-8")
    except OSError as error:
        raise not_writable(folder, error) from None
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise StudyError(f"sbatch was not found on this computer; {path} is written: submit it where Slurm is")
    done = subprocess.run(
        [sbatch, str(path)], capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise StudyError(f"sbatch refused {path}: {' '.join((done.stderr or done.stdout).split())[:500]}")
    return done.stdout.strip()
