"""Fly wings, shells and ultrasound of fetal heads: the same recipe on pictures unlike radiographs, minutes of training each."""

from __future__ import annotations

import csv
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from experiment import landmarklabel, train_once

Points = dict[str, dict[str, tuple[float, float]]]  # image id to landmark to pixels


@dataclass(frozen=True)
class _Set:
    """Pictures with points: how many train, for how long, and which pictures belong together."""

    folder: str
    train: int  # pictures, at least
    minutes: float
    annotator: str
    subject: Callable[[str], str] = str  # of an image id: all pictures of one are on the same side


WINGS = _Set("wing_drosophila", 40, 5, "author")
SHELLS = _Set("shell_baikal", 126, 8, "author")
HEADS = _Set("fetal_head_hc18", 300, 10, "multicentre", lambda image_id: image_id.split("_")[0])


def other_anatomies(data: Path, runs: Path) -> dict:
    """Wings, shells and ultrasound, each on one core: errors in pixels; of ultrasound also of the head's two diameters."""
    cores = sorted(os.sched_getaffinity(0))
    with ThreadPoolExecutor(min(2, len(cores))) as pool:  # one after the other where there is one core
        heads = pool.submit(_trained_and_tested, HEADS, data, runs / "heads", cores[0])
        plain = pool.submit(lambda: [_trained_and_tested(s, data, runs / s.folder, cores[-1]) for s in (WINGS, SHELLS)])
        (wings, shells), head = plain.result(), heads.result()
    return {
        "wings": _errors(wings) | _about(WINGS, data),
        "shells": _errors(shells) | _about(SHELLS, data),
        "heads": _errors(head) | _about(HEADS, data) | {"diameters": _diameters(head)},
    }


def _about(pictures: _Set, data: Path) -> dict:
    train, _ = _split(sorted(_files(pictures, data)), pictures)
    return {"in_training": len(train), "minutes_on_one_core": pictures.minutes}


def _files(pictures: _Set, data: Path) -> dict[str, Path]:
    """The pictures that have points, by id."""
    points = _points(data / pictures.folder / "landmarks.csv", pictures.annotator)
    return {path.stem: path for path in (data / pictures.folder / "images").iterdir() if path.stem in points}


def _trained_and_tested(pictures: _Set, data: Path, runs: Path, core: int) -> dict[str, tuple]:
    """Image id to (n, 2) found and true points in pixels, and their names, of the pictures that were not trained on."""
    from landmarklabel.io.files import write_json
    from landmarklabel.landmarks import LandmarkTask
    from landmarklabel.services.label_folders import read_label_folder

    source = data / pictures.folder
    points = _points(source / "landmarks.csv", pictures.annotator)
    task = LandmarkTask(pictures.folder, tuple(sorted({name for known in points.values() for name in known})), 2)
    files = _files(pictures, data)
    train, test = _split(sorted(files), pictures)
    (runs / "images").mkdir(parents=True, exist_ok=True)
    write_json(runs / "task.json", task.to_json())
    for image_id in train:
        if not (link := runs / "images" / files[image_id].name).is_symlink():
            link.symlink_to(files[image_id].resolve())
    _write_table(runs / "points.csv", task, {i: points[i] for i in train})
    words = ("--task", runs / "task.json", "--images", runs / "images", "--table", runs / "points.csv")
    landmarklabel("import", runs / "study", *words, core=core)
    model = train_once(runs / "study", str(runs / "task.json"), "scn", pictures.minutes, runs / "model", core=core)
    landmarklabel("predict", model, *[files[i] for i in test], "--out", runs / "predictions", core=core)
    found = read_label_folder(runs / "predictions", task, {})
    truth = {i: np.array([points[i].get(name, (np.nan, np.nan)) for name in task.names]) for i in test}
    return {i: (found[i].positions_mm, truth[i], task.names) for i in test}


def _points(table: Path, annotator: str) -> Points:
    found: Points = defaultdict(dict)
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["annotator"] == annotator:
                found[row["id"]][row["label"]] = (float(row["x"]), float(row["y"]))
    return found


def _split(ids: list[str], pictures: _Set) -> tuple[list[str], list[str]]:
    """Subjects by a hash of their names: those of training until there are enough pictures, then those of the test."""
    subjects = defaultdict(list)
    for image_id in ids:
        subjects[pictures.subject(image_id)].append(image_id)
    train: list[str] = []
    test: list[str] = []
    for subject in sorted(subjects, key=lambda name: hashlib.sha256(name.encode()).digest()):
        (train if len(train) < pictures.train else test).extend(subjects[subject])
    return train, test


def _write_table(path: Path, task, points: Points) -> None:
    from landmarklabel.io.tables import table_text

    header = ["id", *(f"{name}_{axis}" for name in task.names for axis in "xy")]
    rows = [[i, *(value for name in task.names for value in known.get(name, ("", "")))] for i, known in points.items()]
    path.write_text(table_text([header, *rows]), encoding="utf-8")


def _errors(cases: dict[str, tuple]) -> dict:
    """Distances in pixels; a landmark that was not found is counted on its own."""
    off = np.concatenate(
        [np.linalg.norm(found - true, axis=1)[np.isfinite(true).all(axis=1)] for found, true, _ in cases.values()]
    )
    known = off[np.isfinite(off)]
    return {
        "tested": len(cases),
        "mean_px": float(known.mean()),
        "median_px": float(np.median(known)),
        "percentile_99_px": float(np.percentile(known, 99)),
        "not_found": int(np.isnan(off).sum()),
    }


def _diameters(cases: dict[str, tuple]) -> dict:
    """Error of the long (OFD) and the short diameter (BPD) of the head, as a share of it, whichever end is called which."""
    out = {}
    for name in ("OFD", "BPD"):
        shares = []
        for found, true, names in cases.values():
            ends = [k for k, label in enumerate(names) if label.startswith(name)]
            lengths = [float(np.linalg.norm(np.subtract(*points[ends]))) for points in (found, true)]
            shares.append(abs(lengths[0] - lengths[1]) / lengths[1])
        known = np.array([share for share in shares if np.isfinite(share)])
        out[name] = {
            "mean_share": float(known.mean()),
            "median_share": float(np.median(known)),
            "beyond_a_fifth": float((known > 0.2).mean()),
        }
    return out


EXPERIMENTS = (other_anatomies,)
