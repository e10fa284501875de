"""The cephalograms of the ISBI 2015 challenge: readings, studies, and errors as the challenge reports them."""

from __future__ import annotations

import csv
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
from experiment import landmarklabel

FOLDER = "ceph_isbi2015"
MM_PER_PX = 0.2  # of these cephalograms
READERS = ("junior", "senior")

Reading = dict[str, np.ndarray]  # reader to (19, 2) pixels


def split(data: Path) -> dict[str, str]:
    """Image id to the part it belongs to: train or test1."""
    with (data / FOLDER / "cases.csv").open(encoding="utf-8", newline="") as file:
        return {row["id"]: row["split"] for row in csv.DictReader(file)}


def readings(data: Path, part: str, landmarks: int) -> dict[str, Reading]:
    """Of the images of a part that both readers have read as a whole."""
    of, found = split(data), defaultdict(lambda: defaultdict(dict))
    with (data / FOLDER / "landmarks.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["annotator"] in READERS and of.get(row["id"]) == part:
                found[row["id"]][row["annotator"]][row["label"]] = [float(row["x"]), float(row["y"])]
    whole = {i: r for i, r in found.items() if all(len(r[who]) == landmarks for who in READERS)}
    return {i: {who: np.array([r[who][name] for name in sorted(r[who])]) for who in READERS} for i, r in whole.items()}


def study_of(task, data: Path, read: dict[str, Reading], place: Path, labelled: list[str] | None = None) -> None:
    """A study of the images, with the mean of both readers; ``labelled``: only of these, the others have no labels."""
    from landmarklabel.io.tables import table_text

    known = sorted(read) if labelled is None else labelled
    (place / "images").mkdir(parents=True)
    header = ["id", *(f"{name}_{axis}" for name in task.names for axis in "xy")]
    rows = [[i, *np.mean([read[i][who] for who in READERS], axis=0).ravel().round(3)] for i in known]
    files = {i: next((data / FOLDER / "images").glob(f"{i}.*")) for i in read}
    for image_id in known:
        (place / "images" / files[image_id].name).symlink_to(files[image_id])
    (place / "points.csv").write_text(table_text([header, *rows]), encoding="utf-8")
    landmarklabel("import", place, "--task", "cephalogram", "--images", place / "images", "--table", place / "points.csv")
    for image_id in set(read) - set(known):
        shutil.copy(files[image_id], place)


def errors_mm(task, predictions: Path, study: Path) -> dict:
    """As the challenge reports them (Wang 2016): mean radial error, and the share of the points within so many mm."""
    from landmarklabel.services.label_folders import read_label_folder, read_many

    truth, _ = read_many(study, task, {})
    predicted = read_label_folder(predictions, task, {})
    if missing := sorted(set(truth) - set(predicted)):
        raise SystemExit(f"{predictions} lacks {len(missing)} cases: {', '.join(missing[:5])}")
    ids = sorted(truth)
    off = np.array([np.linalg.norm(predicted[i].positions_mm - truth[i].positions_mm, axis=1) for i in ids]) * MM_PER_PX
    missed, known = np.isnan(off), off[np.isfinite(off)]
    draws = np.random.default_rng(0).integers(len(ids), size=(1000, len(ids)))
    return {
        "cases": len(ids),
        "mean": float(known.mean()),
        "mean_95": np.percentile([np.nanmean(off[drawn]) for drawn in draws], [2.5, 97.5]).tolist(),
        "median": float(np.median(known)),
        "percent_within": {str(r): float(100 * (off <= r).mean()) for r in (2.0, 2.5, 3.0, 4.0)},
        "beyond_10": int((off > 10).sum()),
        "called_absent": int(missed.sum()),
        "by_landmark": dict(zip(task.names, np.nanmean(off, axis=0).round(3).tolist(), strict=True)),
    }


def readers_distance_mm(read: dict[str, Reading]) -> float:
    """Mean distance between the two readers."""
    apart = [np.linalg.norm(np.subtract(*(p[who] for who in READERS)), axis=1) for p in read.values()]
    return float(np.mean(apart) * MM_PER_PX)
