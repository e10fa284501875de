"""A few labels drawn at random, the other training images without: hands and cephalograms, minutes of training on one core."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cephalograms
import numpy as np
from experiment import each_given_a_core, evaluate, hand_split, import_hands, landmarklabel, train_once

MINUTES, DRAWS = 12.0, 3


def few_cephalograms(data: Path, runs: Path) -> dict:
    """25 labels of the 150 cephalograms of ISBI 2015, drawn three times; errors on test1, truth the mean of both readers."""
    from landmarklabel.tasks import resolve_task

    task = resolve_task("cephalogram")
    read = {part: cephalograms.readings(data, part, len(task)) for part in ("train", "test1")}
    if not (runs / "test1").is_dir():
        cephalograms.study_of(task, data, read["test1"], runs / "test1")

    def one(labelled: list[str], place: Path, core: int) -> dict:
        if not (place / "study").is_dir():
            cephalograms.study_of(task, data, read["train"], place / "study", labelled)
        model = train_once(place / "study", "cephalogram", "scn", MINUTES, place / "model", core=core)
        landmarklabel("predict", model, runs / "test1" / "images", "--out", place / "predictions", core=core)
        return cephalograms.errors_mm(task, place / "predictions", runs / "test1")

    return _drawn(sorted(read["train"]), 25, one, runs)


def few_random_hands(data: Path, runs: Path) -> dict:
    """10 labels of the 91 radiographs of hands, drawn three times; errors on the 21."""
    truth, valid = import_hands(data, runs), hand_split(data, "valid")
    source, train = data / "hand_xray", hand_split(data, "train")
    images = {i: source / "images" / f"{i}.jpg" for i in (*train, *valid)}

    def one(labelled: list[str], place: Path, core: int) -> dict:
        study, listed = place / "study", place / "labelled.txt"
        place.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(labelled) + "\n", encoding="utf-8")
        words = ("--task", "hand_xray", "--images", source / "images", "--table", source / "landmarks.csv", "--only", listed)
        landmarklabel("import", study, *words, core=core)
        for image_id in set(train) - set(labelled):
            shutil.copy(images[image_id], study)
        model = train_once(study, "hand_xray", "scn", MINUTES, place / "model", core=core)
        landmarklabel("predict", model, *[images[i] for i in valid], "--out", place / "predictions", core=core)
        metrics = evaluate(place / "predictions", truth, "hand_xray", place / "report.html")
        within = {str(float(r)): share for r, share in metrics["sdr"].items()}
        return {"mean": metrics["mre_mm"], "percent_within": within, "beyond_10": metrics["outliers"]["10"]}

    return _drawn(sorted(train), 10, one, runs)


def _drawn(ids: list[str], count: int, one: Callable[[list[str], Path, int], dict], runs: Path) -> dict:
    """Every draw on a core of its own, or one after the other where there is one."""
    chosen = [sorted(np.random.default_rng(draw).choice(ids, count, replace=False).tolist()) for draw in range(DRAWS)]
    draws = each_given_a_core(one, [(c, runs / f"draw{k}") for k, c in enumerate(chosen)])
    about = {"labels": count, "unlabelled": len(ids) - count, "minutes_on_one_core": MINUTES}
    return {**about, "mean": float(np.mean([d["mean"] for d in draws])), "draws": draws}


EXPERIMENTS = (few_cephalograms, few_random_hands)
