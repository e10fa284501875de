"""How soon a second look at the labels comes to points that are wrong: slips and swapped names planted in real labels."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

CASES, ROUNDS = 100, 20
PLANTED = 0.1  # of the cases, one slip or one swap in each
FIRST = 0.05  # of the points: the part of the list that a person looks through
SLIPS = (2, 4, 8)  # times the spread between readers
HAND_SPREAD = 0.5 / 100  # of the hand's length: nobody has read the hands twice; about 1 mm


def planted_slips(data: Path, runs: Path) -> dict:
    """Slips of 2, 4 and 8 times the readers' spread and swapped names in 100 cases: how early they are listed."""
    names, points, spread = cephalograms(data / "ceph_isbi2015" / "landmarks.csv")
    found = {"cephalograms": _ranks(names, points, spread)}
    hands, length = _hands(data)
    found["hands"] = _ranks(hands[0], hands[1], np.full(len(hands[0]), HAND_SPREAD * length))
    return {"cases": CASES, "rounds": ROUNDS, "planted_share": PLANTED, "first": FIRST, **found}


def cephalograms(table: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray], np.ndarray]:
    """Names, the challenge's points by case, and each landmark's standard deviation between the two readers, in pixels."""
    readers: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(dict))
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            readers[row["annotator"]][row["id"]][row["label"]] = [float(row["x"]), float(row["y"])]
    names = tuple(sorted(next(iter(readers["challenge"].values()))))
    read = {
        who: {i: np.array([points[name] for name in names]) for i, points in cases.items() if len(points) == len(names)}
        for who, cases in readers.items()
    }
    apart = np.stack([read["junior"][i] - read["senior"][i] for i in sorted(read["junior"].keys() & read["senior"].keys())])
    return names, read["challenge"], np.sqrt((apart**2).sum(2).mean(0) / 2)


def _hands(data: Path) -> tuple[tuple[tuple[str, ...], dict[str, np.ndarray]], float]:
    from landmarklabel.io.tables import read_table
    from landmarklabel.tasks import resolve_task

    task = resolve_task("hand_xray")
    read = read_table(data / "hand_xray" / "landmarks.csv", task)
    points = {i: x.positions_mm for i, x in read.items() if x.defined.all()}
    return (task.names, points), float(np.median([np.ptp(p, axis=0).max() for p in points.values()]))


def _ranks(names: tuple[str, ...], points: dict[str, np.ndarray], spread: np.ndarray) -> dict:
    from landmarklabel.data.shape_outliers import score_shapes, shape_outliers, worst_first
    from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

    task, kinds = LandmarkTask("planted", names, 2), {}
    for kind in (*(f"{n}x" for n in SLIPS), "swap"):
        rng, places, told, false, points_seen = np.random.default_rng(0), [], 0, 0, 0
        for _ in range(ROUNDS):
            chosen = rng.choice(sorted(points), CASES, replace=False)
            shapes = {i: points[i].copy() for i in chosen}
            planted = {i: _plant(shapes[i], kind, spread, rng) for i in chosen[: round(PLANTED * CASES)]}
            labelled = {i: LandmarkSet.of_positions(task, x, Status.PLACED) for i, x in shapes.items()}
            scores, outliers = score_shapes(labelled), {(o.image_id, names.index(o.name)) for o in shape_outliers(labelled)}
            told += sum(any((i, k) in outliers for k in wrong) for i, wrong in planted.items())
            false += sum(i not in planted for i, _ in outliers)
            points_seen += (CASES - len(planted)) * len(names)
            order = worst_first(scores.score)
            place = {at: n / len(order) for n, at in enumerate(order)}
            row = {i: n for n, i in enumerate(scores.image_ids)}
            places += [min(place[row[i], k] for k in wrong) for i, wrong in planted.items()]
        kinds[kind] = {
            "planted": len(places),
            "among_first_share": round(float(np.mean(np.array(places) < FIRST)), 4),
            "median_place_share": round(float(np.median(places)), 4),
            "latest_place_share": round(float(np.max(places)), 4),
            "told_by_doctor_share": round(told / len(places), 4),
            "falsely_told_per_10000": round(1e4 * false / points_seen, 1),
        }
    return {"landmarks": len(names), "of_cases": len(points), **kinds}


def _plant(shape: np.ndarray, kind: str, spread: np.ndarray, rng: np.random.Generator) -> tuple[int, ...]:
    """Put one point elsewhere, or two in each other's place; which."""
    k, other = (int(n) for n in rng.choice(len(shape), 2, replace=False))
    if kind == "swap":
        shape[[k, other]] = shape[[other, k]]
        return k, other
    angle = rng.uniform(0, 2 * np.pi)
    shape[k] += float(kind.removesuffix("x")) * spread[k] * np.array([np.cos(angle), np.sin(angle)])
    return (k,)


EXPERIMENTS = (planted_slips,)
