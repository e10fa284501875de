"""Accuracy: both methods, on radiographs, on skulls, and with absent landmarks."""

from __future__ import annotations

import os
from pathlib import Path

from experiment import (
    cross_validate,
    each_given_a_core,
    evaluate,
    hand_split,
    import_hands,
    import_mouse,
    landmarklabel,
    train_once,
)


def hands(data: Path, runs: Path, minutes: float = 30, model: str = "scn", core: int | None = None) -> dict:
    """Train on the 91 ``train`` radiographs, test on the 21 ``valid`` ones."""
    source, study, valid = data / "hand_xray", import_hands(data, runs), hand_split(data, "valid")
    (runs / "valid.txt").write_text("\n".join(valid) + "\n", encoding="utf-8")
    predictions = runs / "predictions"
    trained = train_once(study, "hand_xray", model, minutes, runs / "model", "--valid", runs / "valid.txt", core=core)
    landmarklabel("predict", trained, *[source / "images" / f"{i}.jpg" for i in valid], "--out", predictions)
    metrics = evaluate(predictions, study, "hand_xray", runs / "report.html")
    return {"model": model, f"minutes_on_{'all_cores' if core is None else 'one_core'}": minutes, "metrics": metrics}


def hands_best(data: Path, runs: Path) -> dict:
    """``hands`` with an hour of training on one core."""
    return hands(data, runs, minutes=60, core=min(os.sched_getaffinity(0)))


def hands_global_local(data: Path, runs: Path) -> dict:
    """``hands`` with the other method, on one core."""
    return hands(data, runs, minutes=12, model="global_local", core=max(os.sched_getaffinity(0)))


def hands_cv(data: Path, runs: Path, minutes: float = 12) -> dict:
    """5-fold cross-validation over all 112 radiographs."""
    study = import_hands(data, runs)
    labelled = [*hand_split(data, "train"), *hand_split(data, "valid")]
    images = {i: data / "hand_xray" / "images" / f"{i}.jpg" for i in labelled}
    models = cross_validate(study, "hand_xray", images, ("scn:default",), minutes, runs)
    return {"minutes_a_fold_on_one_core": minutes, "models": models}


def mouse(data: Path, runs: Path, minutes: float = 8) -> dict:
    """5-fold cross-validation over the 20 skulls."""
    study, images = import_mouse(data, runs)
    models = cross_validate(study, "mouse_skull", images, ("scn:default",), minutes, runs)
    return {"minutes_a_fold_on_one_core": minutes, "models": models}


def mouse_methods(data: Path, runs: Path, minutes: float = 8) -> dict:
    """``mouse`` with every other method, the published ones too, the same time for each."""
    study, images = import_mouse(data, runs)
    models = ("scn:payer2019", "global_local:noothout2020", "global_local:default")
    return {"minutes_a_fold_on_one_core": minutes, "models": cross_validate(study, "mouse_skull", images, models, minutes, runs)}


def presence(data: Path, runs: Path) -> dict:
    """Phantoms of which 30 % of the landmarks are missing: are they said to be absent?"""
    plans = {2: {"cases": 160, "tests": 60, "minutes": 4}, 3: {"cases": 120, "tests": 30, "minutes": 42}}  # on one core
    return {f"{dims}d": {**plan, "models": _presence(dims, plan, runs / f"{dims}d")} for dims, plan in plans.items()}


def _presence(dims: int, plan: dict, runs: Path) -> dict:
    from landmarklabel.data.synthetic import draw_phantom, phantom_task
    from landmarklabel.io.files import write_json
    from landmarklabel.io.images import Image, write_image
    from landmarklabel.io.markups import write_markups

    task, suffix = phantom_task(dims), {2: ".png", 3: ".nii.gz"}[dims]
    images, markups = runs / "images", runs / "markups"
    if not (runs / "task.json").exists():
        for folder in (images, markups):
            folder.mkdir(parents=True, exist_ok=True)
        for seed in range(plan["cases"] + plan["tests"]):
            phantom = draw_phantom(task, seed, absent_fraction=0.3)
            write_image(images / f"case{seed:03d}{suffix}", Image(phantom.geometry, phantom.pixels))
            write_markups(markups / f"case{seed:03d}.mrk.json", phantom.landmarks)
        write_json(runs / "task.json", task.to_json())
    ids = [f"case{seed:03d}" for seed in range(plan["cases"] + plan["tests"])]
    tests = ids[plan["cases"] :]  # never in the study: the threshold is chosen on its own validation cases
    (runs / "train.txt").write_text("\n".join(ids[: plan["cases"]]) + "\n", encoding="utf-8")
    study, name = runs / "study", runs / "task.json"
    landmarklabel("import", study, "--task", name, "--images", images, "--markups", markups, "--only", runs / "train.txt")

    def one(model: str, core: int) -> dict:
        predictions = runs / f"{model}_predictions"
        trained = train_once(study, str(name), model, plan["minutes"], runs / model, core=core)
        landmarklabel("predict", trained, *[images / f"{i}{suffix}" for i in tests], "--out", predictions, core=core)
        metrics = evaluate(predictions, markups, str(name), runs / f"{model}.html")
        return {key: metrics[key] for key in ("presence", "mre_mm", "median_mm", "sdr", "outliers")}

    models = ("scn", "global_local")
    return dict(zip(models, each_given_a_core(one, [(model,) for model in models]), strict=True))


EXPERIMENTS = (hands, hands_best, hands_global_local, hands_cv, mouse, mouse_methods, presence)
