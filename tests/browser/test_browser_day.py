"""Days in the browser on real images: no edit is lost, none is saved twice, no point is stored elsewhere.

A part of the release check: beside another browser on two cores its waits are too short.
"""

from __future__ import annotations

import csv
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from browser_day import MISHAPS, Day
from serving import Material, serving
from tests.thoroughness import times

from landmarklabel.io.files import write_json
from landmarklabel.io.markups import read_markups
from landmarklabel.io.tables import read_table
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.tasks import SHIPPED, resolve_task

LABELLED, ACTIONS = 3, 5  # cases with labels at the start, things done to a case
SEEDS, CASES = range(times(1, in_full=3)), times(4, in_full=20)
SETS = {"hand_xray": ("hand_xray", 20), "cephalograms": ("ceph_isbi2015", 20), "mouse_skull": ("mouse_ct", 17)}


def some(data: Path, name: str, folder: Path, count: int) -> Material:
    """A study of so many images of a set, and the truth about them."""
    source, study, task_file = data / SETS[name][0], folder / "study", SHIPPED / f"{name}.json"
    if name == "cephalograms":
        task, truth = cephalograms(source / "landmarks.csv")
        write_json(task_file := folder / "task.json", task.to_json())
    elif name == "hand_xray":
        task = resolve_task(name)
        truth = read_table(source / "landmarks.csv", task)
    else:
        task = resolve_task(name)
        truth = {p.name.removesuffix(".mrk.json"): read_markups(p, task) for p in (source / "landmarks").glob("*.mrk.json")}
    study.mkdir(parents=True)
    ids = sorted(i for i in truth if list((source / "images").glob(f"{i}.*")))[:count]
    for image_id in ids:
        shutil.copy(next((source / "images").glob(f"{image_id}.*")), study)
    return Material(study, task_file, task, {i: truth[i] for i in ids})


def cephalograms(table: Path) -> tuple[LandmarkTask, dict[str, LandmarkSet]]:
    """The challenge's own reading of 19 points, in pixels."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    with table.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["annotator"] == "challenge":
                found.setdefault(row["id"], {})[row["label"]] = float(row["x"]), float(row["y"])
    names = tuple(next(iter(found.values())))
    task = LandmarkTask("cephalogram", names, 2)
    full = {i: rows for i, rows in found.items() if set(rows) == set(names)}
    placed = (Status.PLACED,) * len(names)
    return task, {i: LandmarkSet(task, np.array([rows[n] for n in names]), placed) for i, rows in full.items()}


@pytest.mark.release
@pytest.mark.real_data
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("task_name", SETS)
def test_a_day_with_mishaps(data_dir, tmp_path, person, task_name, seed):
    count = min(CASES, SETS[task_name][1])
    material, place = some(data_dir, task_name, tmp_path, LABELLED + count), tmp_path / "labels"
    place.mkdir()
    ids = sorted(material.truth)
    with serving(material) as server:
        for image_id in ids[:LABELLED]:
            server.client.save_label(image_id, str(material.label_file(image_id, place)), tag="final")
    with closing(Day(material, person, seed)) as day:
        due = [MISHAPS[i] for i in day.rng.permutation(len(MISHAPS) * 2) % len(MISHAPS)]
        day.who.page.locator(".more > summary").click()
        day.who.page.get_by_label("Choose by").select_option("first")
        day.who.press("Next case")
        for number in range(count):
            case = day.who.wait_for_image(ids[LABELLED + number])
            if day.rng.random() < 0.5:
                day.who.press("Predict")
            for step in range(ACTIONS):
                day.annotate()
                if step % 2 == 0 and due and day.rng.random() < 0.8:
                    day.mishap(due.pop())
            assert day.case == case
            day.submit()
        day.who.page.locator(".unsent").wait_for(state="hidden", timeout=30_000)
        day.check_server()
        assert len(day.meant) == count
