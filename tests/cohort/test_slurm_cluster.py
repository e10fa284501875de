"""A cohort through a real Slurm: its array predicts every case once, whatever is killed and begun again meanwhile."""

from __future__ import annotations

import json
import random
import re
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from cohort_command import command
from slurm_cluster import MISSING, is_possible, slurm
from tests.thoroughness import times

pytestmark = pytest.mark.skipif(not is_possible(), reason=MISSING)
CASES = times(1500, 10_000)
TASKS = 4


@pytest.fixture
def planned(cohort, model, scans, tmp_path):
    """Plans a cohort of so many cases; the pictures of the scans stand for many each."""
    table = tmp_path / "list.csv"
    pictures = [scans / f"patient{n // 10}" / f"scan{n:02d}.png" for n in range(40)]
    table.write_text("id,path\n" + "".join(f"c{n:05d},{pictures[n % 40]}\n" for n in range(CASES)), encoding="utf-8")

    def plan(name: str) -> Path:
        cohort("plan", table, "--model", model, "--out", tmp_path / name)
        return tmp_path / name

    return plan


def ids(folder: Path) -> list[str]:
    content = b"".join(file.read_bytes() for file in (folder / "results").glob("*.jsonl"))
    return [
        json.loads(line)["id"] for line in content.splitlines(keepends=True) if line.endswith(b"\n") and line.endswith(b"}\n")
    ]


def workers_of(folder: Path) -> list[psutil.Process] | None:
    """The workers of the array's tasks; None where no task runs."""
    running = [p for p in psutil.process_iter(["cmdline"]) if str(folder) in (p.info["cmdline"] or ())]
    workers = []
    for task in running:
        with suppress(psutil.Error):  # it has ended meanwhile
            workers += [w for w in task.children(recursive=True) if "spawn_main" in " ".join(w.cmdline())]
    return workers if running else None


@pytest.mark.timeout(1800)
def test_an_array_with_killed_and_requeued_tasks_gives_the_table_of_one_computer(cohort, planned, tmp_path):
    alone, folder, dice = planned("alone"), planned("the array 100%"), random.Random(0)
    cohort("run", alone, "--workers", 2)
    cohort("merge", alone)
    with slurm(tmp_path / "slurm") as cluster:
        said = cluster.run(*command("submit", folder, "--slurm", TASKS, "--workers", 1))
        job = re.search(r"Submitted batch job (\d+)", said)[1]
        disturbed, deadline = 0, time.monotonic() + 1500
        while disturbed < times(4, 20) and len(ids(folder)) < CASES:
            assert time.monotonic() < deadline, cluster.run("squeue") + cluster.log()
            before = len(ids(folder))
            while len(ids(folder)) < min(before + CASES // 30, CASES) and cluster.run("squeue", "--noheader"):
                time.sleep(0.2)
            workers = workers_of(folder)
            if workers is None:
                continue
            if disturbed % 2:
                cluster.run(
                    "scontrol", "requeue", f"{job}_{dice.randint(1, TASKS)}", check=False
                )  # of one that has ended: refused
            else:
                if not workers:
                    continue
                dice.choice(workers).kill()
            disturbed += 1
        cluster.wait(1500)
        assert disturbed >= 2
        again = cluster.run(*command("submit", folder, "--slurm", TASKS))  # whatever is left; here nothing
        assert "Submitted batch job" in again
        cluster.wait(300)
    found = ids(folder)
    assert len(found) == len(set(found)) == CASES
    cohort("merge", folder)
    assert (folder / "table.csv").read_bytes() == (alone / "table.csv").read_bytes()
