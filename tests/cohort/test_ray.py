"""A cohort through a Ray cluster: the table of one worker on one computer, also where actors are killed meanwhile."""

from __future__ import annotations

import random
import re
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml
from cohort_command import command
from tests.thoroughness import times

pytest.importorskip("ray")
CASES = times(200, 2000)


@pytest.mark.timeout(1200)
def test_a_ray_cluster_gives_the_table_of_one_computer_although_actors_are_killed(cohort, model, scans, tmp_path):
    pictures = [scans / f"patient{n // 10}" / f"scan{n:02d}.png" for n in range(40)]
    lines = [f"c{n:05d},{pictures[n % 40]}" for n in range(CASES)]
    (tmp_path / "list.csv").write_text(
        "\n".join(["id,path", *lines, f"broken,{scans}/patient0/broken.png", ""]), encoding="utf-8"
    )
    for name in ("alone", "ray"):
        cohort("plan", tmp_path / "list.csv", "--model", model, "--out", tmp_path / name)
    cohort("run", tmp_path / "alone", "--workers", 1)
    process = subprocess.Popen(command("run", tmp_path / "ray", "--ray", "local", "--workers", 2), stderr=subprocess.PIPE)
    results, kills, dice = tmp_path / "ray" / "results", 0, random.Random(0)
    while process.poll() is None:
        done = sum(file.read_bytes().count(b"\n") for file in results.glob("*.jsonl"))
        actors = [
            p for p in psutil.process_iter(["name", "cmdline"]) if (p.info["cmdline"] or [""])[0].startswith("ray::Predictor")
        ]
        if actors and done >= (kills + 1) * CASES // 5:
            dice.choice(actors).kill()
            kills += 1
        time.sleep(0.1)
    assert process.returncode == 0, process.stderr.read().decode()
    assert kills
    for name in ("alone", "ray"):
        cohort("merge", tmp_path / name)
    assert (tmp_path / "ray" / "table.csv").read_bytes() == (tmp_path / "alone" / "table.csv").read_bytes()


def test_where_no_cluster_is_and_where_no_model_can_be_loaded_one_line_says_so(cohort, model, scans, tmp_path):
    folder = tmp_path / "run"
    cohort("plan", scans, "--model", model, "--out", folder)
    assert "--ray 127.0.0.1:1: no cluster answers there" in cohort("run", folder, "--ray", "127.0.0.1:1", code=2)
    (folder / "model" / "model.safetensors").write_bytes(b"damaged")
    said = cohort("run", folder, "--ray", "local", code=2)
    assert "no model can be loaded" in said and "its sha256 is not the one" in said


def test_ray_accepts_the_cluster_file_of_the_docs():
    from ray.autoscaler._private.util import prepare_config, validate_config

    page = (Path(__file__).parents[2] / "docs" / "cohorts.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    config = prepare_config(yaml.safe_load(block))
    validate_config(config)
    assert config["max_workers"] == 2, "one for each computer but the head"
