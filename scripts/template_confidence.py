"""Without a model: how far points are off, and how far the shape of the labelled cases says."""

from __future__ import annotations

from pathlib import Path

import cephalograms
import numpy as np
from experiment import hand_split

CASES, PLACED = (1, 2, 3, 5, 8, 15), (0, 3, 5, 10)


def template_confidence(data: Path, runs: Path, draws: int = 6, tested: int = 6) -> dict:
    """True over stated error of points that nobody has placed, for 1 to 15 labelled cases: skulls, cephalograms and hands."""
    return {
        "draws": draws,
        "tested": tested,
        "true_over_stated_by_labelled_cases_and_points_placed": {
            "skulls": _ratios(_skulls(data), draws, tested),
            "cephalograms": _ratios(_cephalograms(data), draws, tested),
            "hands": _ratios(_hands(data), draws, tested),
        },
    }


def _ratios(cases: dict, draws: int, tested: int) -> dict[str, dict[str, float]]:
    from landmarklabel.inference.calibration import Calibration
    from landmarklabel.inference.shape_prior import learn_prior
    from landmarklabel.inference.suggestion import suggest

    rng, found = np.random.default_rng(0), {}
    for count in CASES:
        true: dict[int, list[float]] = {k: [] for k in PLACED}
        stated: dict[int, list[float]] = {k: [] for k in PLACED}
        for _ in range(draws):
            order = rng.permutation(sorted(cases)).tolist()
            prior = learn_prior([cases[i] for i in order[:count]])
            for geometry, truth in (cases[i] for i in order[count : count + tested]):
                fixed: dict[str, np.ndarray] = {}
                for k in range(max(PLACED) + 1):
                    answer = suggest(truth.task, geometry, prior, None, Calibration(), fixed=fixed)
                    if k in PLACED:
                        free = [name not in fixed for name in truth.task.names]
                        off = np.linalg.norm(answer.landmarks.positions_mm - truth.positions_mm, axis=1)
                        true[k].append(float(np.nanmean(off[free])))
                        stated[k].append(float(np.nanmean(answer.landmarks.expected_error_mm[free])))
                    fixed[answer.next] = truth.positions_mm[truth.task.index(answer.next)]
        found[str(count)] = {str(k): round(float(np.mean(true[k]) / np.mean(stated[k])), 2) for k in PLACED}
    return found


def _skulls(data: Path) -> dict:
    from landmarklabel.io.markups import read_markups
    from landmarklabel.services.descriptions import describe
    from landmarklabel.tasks import resolve_task

    task, source = resolve_task("mouse_skull"), data / "mouse_ct"
    files = {p.name.removesuffix(".mrk.json"): p for p in sorted((source / "landmarks").glob("*.mrk.json"))}
    return {i: (describe(source / "images" / f"{i}.nii.gz").geometry, read_markups(p, task)) for i, p in files.items()}


def _cephalograms(data: Path) -> dict:
    from landmarklabel.landmarks import LandmarkSet
    from landmarklabel.services.descriptions import describe
    from landmarklabel.tasks import resolve_task

    task = resolve_task("cephalogram")
    files = {p.stem: p for p in (data / cephalograms.FOLDER / "images").iterdir()}
    read = cephalograms.readings(data, "train", len(task))
    points = {i: LandmarkSet.of_positions(task, np.mean(list(r.values()), axis=0)) for i, r in read.items()}
    return {i: (describe(files[i]).geometry, x) for i, x in points.items()}


def _hands(data: Path) -> dict:
    from interaction import hand_cases

    known = hand_cases(data)
    return {i: known[i] for i in hand_split(data, "train")}


EXPERIMENTS = (template_confidence,)
