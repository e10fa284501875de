"""The script for Slurm: what documentation shows, what a shell runs, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from landmarklabel.cohort.slurm import sbatch_script
from landmarklabel.errors import UsageError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cohorts.md"
OPTIONS = ("--partition=gpu", "--gres=gpu:1", "--time=12:00:00")


def test_the_documentation_shows_the_script_that_is_written(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/shared/env/bin/python")
    shown = re.search(r"```text\n(#!/bin/sh\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert shown and shown[1] == sbatch_script(Path("/shared/run"), 16, OPTIONS, ["--device=auto"])


def test_a_shell_runs_the_part_of_its_task(monkeypatch, tmp_path):
    folder = tmp_path / "a run folder $HOME 100%"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "say"))
    (tmp_path / "say").write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    (tmp_path / "say").chmod(0o755)
    script = sbatch_script(folder, 5, (), ["--workers=2"])
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, encoding="utf-8", env={"SLURM_ARRAY_TASK_ID": "3"}, check=True
    )
    assert done.stdout.splitlines() == ["-m", "landmarklabel", "cohort", "run", str(folder), "--workers=2", "--shard", "3/5"]
    assert f'#SBATCH --output="{tmp_path}/a run folder $HOME 100%%/slurm-%A-%a.log"' in script


def test_what_is_no_option_or_breaks_a_line_is_refused():
    with pytest.raises(UsageError, match="--sbatch 'rm -rf /' must be an option of sbatch"):
        sbatch_script(Path("/run"), 2, ["rm -rf /"])
    with pytest.raises(UsageError, match="cannot be written into a script for sbatch"):
        sbatch_script(Path("/a run's folder"), 2)
    with pytest.raises(UsageError, match="cannot be written into a script for sbatch"):
        sbatch_script(Path("/run"), 2, ["--time=1\nrm -rf /"])


def test_where_there_is_no_slurm_the_script_is_written_all_the_same(cohort, model, scans, tmp_path):
    cohort("plan", scans, "--model", model, "--out", tmp_path / "run")
    shown = cohort("submit", tmp_path / "run", "--slurm", 3, "--dry-run")
    assert "#SBATCH --array=1-3" in shown and not (tmp_path / "run" / "submit.sbatch").exists()
    said = cohort("submit", tmp_path / "run", "--slurm", 3, code=2, env={"PATH": str(tmp_path)})
    assert "sbatch was not found on this computer" in said
    assert (tmp_path / "run" / "submit.sbatch").read_text(encoding="utf-8") == shown
