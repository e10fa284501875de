"""Interaction: what clicks do on hard and ordinary images, without a model, under confusions; do the regions hold, and speed."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
from experiment import hand_split, import_hands, import_mouse, landmarklabel, simulate_clicks, train_once

LABELLED = 10


def clicks(data: Path, runs: Path, minutes: float = 10) -> dict:
    """Ten labelled radiographs: clicks on the 21 valid ones as they are, and turned by 45 to 180 degrees, half of them mirrored.

    Two models of the same ten labels and minutes: one sees only the ten images, one also the other 81 without their labels.
    """
    ten, core = hand_split(data, "train")[:LABELLED], max(os.sched_getaffinity(0))
    everything, hard = _hand_studies(data, runs, ten)
    (runs / "valid.txt").write_text("\n".join(hand_split(data, "valid")) + "\n", encoding="utf-8")
    out = {"labels": LABELLED, "minutes_on_one_core": minutes}
    for name in ("ten", "pool"):
        model = train_once(runs / name, "hand_xray", "scn", minutes, runs / f"model_{name}", core=core)
        ordinary = simulate_clicks(model, everything, "hand_xray", runs / f"{name}_ordinary.html", runs / "valid.txt", core=core)
        turned = simulate_clicks(model, hard, "hand_xray", runs / f"{name}_hard.html", core=core)
        out[{"ten": "ten images", "pool": "ten labels, 91 images"}[name]] = {"ordinary": ordinary, "hard": turned}
    return out


def _hand_studies(data: Path, runs: Path, ten: list[str]) -> tuple[Path, Path]:
    """All hands with their labels, and the hard ones; beside them ``ten`` and ``pool``, with ten labels."""
    source, everything = data / "hand_xray", import_hands(data, runs)
    table = (source / "landmarks.csv").read_text(encoding="utf-8").splitlines()
    (runs / "ten.csv").write_text(
        "\n".join([table[0], *(row for row in table if row.split(",")[0] in ten)]) + "\n", encoding="utf-8"
    )
    for name, ids in (("ten", ten), ("pool", hand_split(data, "train"))):
        (runs / f"{name}.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
        only = ("--table", runs / "ten.csv", "--only", runs / f"{name}.txt")
        landmarklabel("import", runs / name, "--task", "hand_xray", "--images", source / "images", *only)
    hard = runs / "hard_images"
    if not (hard / "landmarks.csv").exists():
        _turn_hands(data, hard)
    landmarklabel("import", runs / "hard", "--task", "hand_xray", "--images", hard, "--table", hard / "landmarks.csv")
    return everything, runs / "hard"


def _turn_hands(data: Path, out: Path) -> None:
    """The valid radiographs turned by 45 to 180 degrees either way, every other one mirrored before."""
    from scipy import ndimage

    from landmarklabel.geometry import ImageGeometry
    from landmarklabel.io.images import Image, read_image, write_image
    from landmarklabel.io.tables import read_table, table_text
    from landmarklabel.tasks import resolve_task

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    task, rng, rows = resolve_task("hand_xray"), np.random.default_rng(0), []
    sets = read_table(data / "hand_xray" / "landmarks.csv", task)
    for number, image_id in enumerate(hand_split(data, "valid")):
        pixels = np.asarray(read_image(data / "hand_xray" / "images" / f"{image_id}.jpg", 2).pixels, np.float32)
        points, (h, w) = sets[image_id].positions_mm.copy(), pixels.shape
        if number % 2:
            pixels, points[:, 0] = pixels[:, ::-1], w - 1 - points[:, 0]
        angle = np.radians(rng.uniform(45, 180) * rng.choice((-1, 1)))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = np.array([[0, 0], [w - 1, 0], [0, h - 1], [w - 1, h - 1]], float) @ turn.T
        low, size = corners.min(axis=0), np.ceil(np.ptp(corners, axis=0)).astype(int) + 1
        back, offset = turn.T[::-1, ::-1], (turn.T @ low)[::-1]
        turned = ndimage.affine_transform(pixels, back, offset, output_shape=tuple(size[::-1]), order=1)
        geometry = ImageGeometry.identity(tuple(int(s) for s in size), (1.0, 1.0))
        write_image(out / f"{image_id}.png", Image(geometry, np.clip(turned, 0, 255).astype(np.uint8)))
        rows.append([image_id, *(points @ turn.T - low).ravel().tolist()])
    (out / "landmarks.csv").write_text(table_text(rows), encoding="utf-8")


def clicks_3d(data: Path, runs: Path, minutes: float = 1) -> dict:
    """Hardly trained models, whose errors are gross: skulls in 5 folds, and phantoms of bent spines."""
    core = max(os.sched_getaffinity(0))
    study, images = import_mouse(data, runs)
    found = []
    for fold in range(5):
        held = runs / f"fold{fold}.txt"
        held.write_text("\n".join(sorted(images)[fold::5]) + "\n", encoding="utf-8")
        where = ("--seed", fold, "--valid", held)
        model = train_once(study, "mouse_skull", "scn", minutes, runs / f"model{fold}", *where, core=core)
        found.append(simulate_clicks(model, study, "mouse_skull", runs / f"mouse{fold}.html", held, core=core))
    spines, task, held = _spines(runs)
    model = train_once(spines, str(task), "scn", 8 * minutes, runs / "model_spines", "--valid", held, core=core)
    phantoms = simulate_clicks(model, spines, str(task), runs / "spines.html", held, core=core)
    return {"minutes_on_one_core": {"skulls": minutes, "spines": 8 * minutes}, "skulls": found, "spines": phantoms}


def _spines(
    runs: Path, cases: int = 80, tests: int = 20, landmarks: int | None = None, size: int = 48
) -> tuple[Path, Path, Path]:
    from landmarklabel.data.synthetic import draw_phantom, phantom_task
    from landmarklabel.io.files import write_json
    from landmarklabel.io.images import Image, write_image
    from landmarklabel.io.markups import write_markups

    task, place = phantom_task(3, landmarks), runs / "spine_images"
    if not (runs / "spines.json").exists():
        place.mkdir(parents=True, exist_ok=True)
        for seed in range(cases + tests):
            phantom = draw_phantom(task, seed, size=size, absent_fraction=0.0)
            write_image(place / f"spine{seed:03d}.nii.gz", Image(phantom.geometry, phantom.pixels))
            write_markups(place / f"spine{seed:03d}.mrk.json", phantom.landmarks)
        write_json(runs / "spines.json", task.to_json())
    held = runs / "spines.txt"
    held.write_text("\n".join(f"spine{seed:03d}" for seed in range(cases, cases + tests)) + "\n", encoding="utf-8")
    landmarklabel("import", runs / "spines", "--task", runs / "spines.json", "--images", place, "--markups", place)
    return runs / "spines", runs / "spines.json", held


def cold_start(data: Path, runs: Path, draws: int = 20) -> dict:
    """No model: the shape prior of ten labelled radiographs, and the program says which landmark to place next."""
    from landmarklabel.inference.calibration import Calibration
    from landmarklabel.inference.shape_prior import learn_prior
    from landmarklabel.inference.suggestion import suggest

    hands, clicked = hand_cases(data), (0, 1, 2, 3, 5, 8, 10)
    train, valid = hand_split(data, "train"), hand_split(data, "valid")
    rng, rows = np.random.default_rng(0), {}
    tens = [train[:LABELLED], *(sorted(rng.choice(train, LABELLED, replace=False)) for _ in range(draws))]
    for labels in (1, 3, 5, LABELLED):
        errors = np.zeros((len(tens), len(valid), max(clicked) + 1))
        for a, ten in enumerate(tens):
            prior = learn_prior([hands[i] for i in ten[:labels]])
            for b, (geometry, truth) in enumerate(hands[i] for i in valid):
                fixed: dict = {}
                for k in range(max(clicked) + 1):
                    found = suggest(truth.task, geometry, prior, None, Calibration(), fixed=fixed)
                    off = np.linalg.norm(found.landmarks.positions_mm - truth.positions_mm, axis=1) * truth.scaled_to_mm()
                    errors[a, b, k] = off[[n not in fixed for n in truth.task.names]].mean()
                    fixed[found.next] = truth.positions_mm[truth.task.index(found.next)]
        per_set = errors.mean(axis=1)
        rows[str(labels)] = {
            "first_images": {str(k): per_set[0, k] for k in clicked},
            "mean_of_draws": {str(k): per_set[1:, k].mean() for k in clicked},
            "worst_draw": {str(k): per_set[1:, k].max() for k in clicked},
        }
    tested, counts = [hands[i] for i in valid], (8, LABELLED, len(train))
    alone = {str(n): _error_of_each_alone([hands[i] for i in train[:n]], tested) for n in counts}
    return {
        "draws": draws,
        "mean_error_mm_of_points_not_clicked_after_guided_clicks": rows,
        "mean_error_mm_of_a_point_when_all_others_are_known": alone,
    }


def _error_of_each_alone(labelled: list, tested: list) -> float:
    from landmarklabel.inference.calibration import Calibration
    from landmarklabel.inference.shape_prior import learn_prior
    from landmarklabel.inference.suggestion import suggest

    prior, errors = learn_prior(labelled), []
    for geometry, truth in tested:
        places = dict(zip(truth.task.names, truth.positions_mm, strict=True))
        for name, place in places.items():
            others = {n: p for n, p in places.items() if n != name}
            found = suggest(truth.task, geometry, prior, None, Calibration(), fixed=others).landmarks.positions_mm
            errors.append(np.linalg.norm(found[truth.task.index(name)] - place) * truth.scaled_to_mm())
    return float(np.mean(errors))


def hand_cases(data: Path) -> dict:
    from landmarklabel.io.images import read_geometry
    from landmarklabel.io.tables import read_table
    from landmarklabel.tasks import resolve_task

    sets = read_table(data / "hand_xray" / "landmarks.csv", resolve_task("hand_xray"))
    return {i: (read_geometry(data / "hand_xray" / "images" / f"{i}.jpg", 2), s) for i, s in sets.items()}


FINGERS = [[21, 22, 23, 24], [25, 26, 27, 28], [29, 30, 31, 32], [33, 34, 35, 36]]  # of the hand task


def confusions(data: Path, runs: Path) -> dict:
    """Detections of the best model on the valid radiographs, spoiled in groups; images upside down, and mirrored."""
    import accuracy

    from landmarklabel.inference.model_folder import load_model
    from landmarklabel.io.images import Image, read_image

    accuracy.hands_best(data, runs.parent / "hands_best")
    model, hands, rng = load_model(runs.parent / "hands_best" / "model"), hand_cases(data), np.random.default_rng(0)
    kinds: dict[str, list] = {"neighbouring finger": [], "half of the points anywhere": [], "upside down": [], "mirrored": []}
    for image_id in hand_split(data, "valid"):
        geometry, truth = hands[image_id]
        image = read_image(data / "hand_xray" / "images" / f"{image_id}.jpg", 2)
        case = model.case(image_id, image)
        evidence, scale, (h, w) = model.assess(case)[0], truth.scaled_to_mm(), image.pixels.shape
        for kind in ("neighbouring finger", "half of the points anywhere"):
            for _ in range(3):
                spoiled = _spoiled(evidence, truth.positions_mm, kind, rng)
                first = model.suggest(spoiled, geometry)
                again = model.second_pass(case, spoiled, first.shape_fit)
                shown = model.suggest(again, geometry, before=first.shape_fit).landmarks
                wrong = (spoiled.positions_mm != evidence.positions_mm).any(axis=1)
                kinds[kind].append((spoiled.positions_mm, shown.positions_mm, first.flagged, truth.positions_mm, scale, wrong))
        for kind, pixels, points in (
            ("upside down", image.pixels[::-1, ::-1], np.array([w - 1, h - 1]) - truth.positions_mm),
            ("mirrored", image.pixels[:, ::-1], np.array([w - 1, 0]) + truth.positions_mm * [-1, 1]),
        ):
            turned = model.case(image_id, Image(image.geometry, np.ascontiguousarray(pixels)))
            alone = model.detect(turned)
            flagged = model.suggest(alone, geometry).flagged
            shown = model.suggest(model.assess(turned)[0], geometry).landmarks
            everywhere = np.ones(len(points), bool)
            kinds[kind].append((alone.positions_mm, shown.positions_mm, flagged, points, scale, everywhere))
    return {"labels": len(hand_split(data, "train")), "confusions": {kind: _judged(rows) for kind, rows in kinds.items()}}


def _spoiled(evidence, truth: np.ndarray, kind: str, rng: np.random.Generator):
    """Evidence in which some landmarks were found elsewhere, surely and without a second candidate."""
    from dataclasses import replace

    from landmarklabel.inference.evidence import Candidates

    places = evidence.positions_mm.copy()
    if kind == "neighbouring finger":
        a = int(rng.integers(4))
        places[FINGERS[a]] = places[FINGERS[a + 1 if a < 3 else 2]] + rng.normal(size=(4, 2)) * 3
    else:
        some = rng.permutation(len(places))[: len(places) // 2]
        places[some] = rng.uniform(truth.min(axis=0), truth.max(axis=0), (len(some), 2))
    candidates = Candidates(places[:, None], np.ones((len(places), 1)), evidence.covariance_mm2[:, None])
    return replace(evidence, positions_mm=places, candidates=candidates, maps=None)


def _judged(rows: list) -> dict:
    alone = np.stack([np.linalg.norm(a - t, axis=1) * s for a, _, _, t, s, _ in rows])
    shown = np.stack([np.linalg.norm(x - t, axis=1) * s for _, x, _, t, s, _ in rows])
    flagged, spoiled = np.stack([row[2] for row in rows]), np.stack([row[5] for row in rows])
    wrong = alone > 4
    share = lambda which: float(flagged[which].mean()) if which.any() else None  # noqa: E731
    return {
        "points": int(alone.size),
        "beyond_10_mm": {"network": int((alone > 10).sum()), "shown": int((shown > 10).sum())},
        "mre_mm": {"network": float(alone.mean()), "shown": float(np.nanmean(shown))},
        "flagged_of_those_spoiled_by_more_than_4_mm": share(wrong & spoiled),
        "flagged_of_the_networks_own_errors_beyond_4_mm": share(wrong & ~spoiled),
        "flagged_of_the_right_ones": share(~wrong),
    }


def coverage(data: Path, runs: Path, splits: int = 200) -> dict:
    """95 % regions over random halves of the 112 out-of-fold radiographs: calibrated on one, tried on the other."""
    import accuracy

    from landmarklabel.inference.calibration import conformal_quantile
    from landmarklabel.inference.configuration import CalibrationConfig

    accuracy.hands_cv(data, runs.parent / "hands_cv")
    inflations, level = CalibrationConfig().prior_inflations, CalibrationConfig().level
    decided, truth, scale = _out_of_fold(data, runs.parent / "hands_cv" / "scn_default", inflations)
    off = {x: np.stack([e.positions_mm - t for e, t in zip(decided[x], truth, strict=True)]) for x in inflations}
    rng, ours, plain = np.random.default_rng(0), [], []
    for _ in range(splits):
        known, new = np.array_split(rng.permutation(len(truth)), 2)
        prior_inflation = min(inflations, key=lambda x: np.nanmean(np.linalg.norm(off[x][known], axis=2)))
        ours.append(
            _regions_hold(
                [decided[prior_inflation][i] for i in known], [decided[prior_inflation][i] for i in new], truth, scale, known, new
            )
        )
        error = np.nan_to_num(off[prior_inflation]) * scale[:, None, None]
        plain.append(_plain_ellipses(error[known], error[new], lambda scores: conformal_quantile(scores, level)))
    names = ("per_landmark", "whole_case", "mean_area_mm2", "median_area_mm2")
    return {
        "splits": splits,
        "calibration_cases": len(truth) // 2,
        "ours": dict(zip(names, np.mean(ours, axis=0).tolist(), strict=True)),
        "plain_ellipses": dict(zip(names, np.mean(plain, axis=0).tolist(), strict=True)),
    }


def _out_of_fold(data: Path, folder: Path, inflations) -> tuple[dict, list, np.ndarray]:
    """What the models decide on the cases they have not seen, for each inflation of the prior; the truth; mm per pixel."""
    from dataclasses import replace

    from landmarklabel.inference.calibration import Calibration
    from landmarklabel.inference.model_folder import load_model
    from landmarklabel.inference.model_record import read_record
    from landmarklabel.io.images import read_image

    hands, truth, scale = hand_cases(data), [], []
    decided: dict[float, list] = {x: [] for x in inflations}
    for fold in range(5):
        model = load_model(folder / f"model{fold}")
        model.calibrate(Calibration(presence_threshold=model.config.calibration.never_absent_threshold))
        for image_id in read_record(folder / f"model{fold}")["valid_ids"]:
            case = model.case(image_id, read_image(data / "hand_xray" / "images" / f"{image_id}.jpg", 2))
            evidence = model.assess(case)[0]
            for prior_inflation in inflations:
                model.calibrate(replace(model.calibration, prior_inflation=prior_inflation))
                decided[prior_inflation].append(model.suggest(evidence, case.image.geometry).final_evidence)
            truth.append(hands[image_id][1].positions_mm)
            scale.append(hands[image_id][1].scaled_to_mm())
    return decided, truth, np.array(scale)


def _regions_hold(
    known_seen: list, new_seen: list, truth: list, scale: np.ndarray, known, new
) -> tuple[float, float, float, float]:
    """Shares of landmarks and of cases inside their regions, mean and median area in mm^2."""
    from scipy.stats import chi2

    from landmarklabel.inference.calibration import fit_calibration, fit_regions

    known_truth = [truth[i] for i in known]
    states = [np.ones(len(t), int) for t in known_truth]
    calibration = fit_regions(fit_calibration(known_seen, known_truth, states), known_seen, known_truth)
    inside, whole, areas = [], [], []
    for seen, i in zip(new_seen, new, strict=True):
        covariance, _ = calibration.region(seen, calibration.expected_error_mm(seen))
        error = truth[i] - seen.positions_mm
        far = np.sqrt(np.einsum("ni,nij,nj->n", error, np.linalg.inv(covariance), error) / chi2.ppf(calibration.level, 2))
        inside.append((far <= 1)[np.isfinite(far)].mean())
        whole.append(np.nanmax(far) <= calibration.case_factor)
        areas.append(np.pi * chi2.ppf(calibration.level, 2) * np.sqrt(np.linalg.det(covariance)) * scale[i] ** 2)
    return float(np.mean(inside)), float(np.mean(whole)), float(np.mean(areas)), float(np.median(areas))


def _plain_ellipses(known: np.ndarray, new: np.ndarray, quantile) -> tuple[float, float, float, float]:
    """The plain split-conformal ellipse: the shape from one half of the known residuals, its size from the other."""
    half = len(known) // 2
    shape = np.einsum("cni,cnj->nij", known[:half], known[:half]) / half
    far = [np.sqrt(np.einsum("cni,nij,cnj->cn", x, np.linalg.inv(shape), x)) for x in (known[half:], new)]
    size = np.array([quantile(column) for column in far[0].T])
    whole = quantile((far[0] / size).max(axis=1))
    areas = np.pi * size**2 * np.sqrt(np.linalg.det(shape))
    return (far[1] <= size).mean(), ((far[1] / size).max(axis=1) <= whole).mean(), areas.mean(), float(np.median(areas))


def update_latency(data: Path, runs: Path, minutes: float = 3) -> dict:
    """Updates over HTTP, server and client on one core: 37 landmarks in 2D, 100 in 3D; a person fixes one point after another."""
    import accuracy

    core = max(os.sched_getaffinity(0))
    accuracy.hands_best(data, runs.parent / "hands_best")
    model, study = runs.parent / "hands_best" / "model", import_hands(data, runs)
    out = {"2d_37_landmarks": _time_updates(study, "hand_xray", model, hand_split(data, "valid"), core)}
    spines, task, held = _spines(runs, 30, 6, landmarks=100, size=64)
    model = train_once(spines, str(task), "scn", minutes, runs / "model_spines", "--valid", held, core=core)
    return {**out, "3d_100_landmarks": _time_updates(spines, str(task), model, held.read_text(encoding="utf-8").split(), core)}


def _time_updates(folder: Path, task_name: str, model: Path, ids: list[str], core: int, most: int = 12) -> dict:
    """Milliseconds of a request, from the client's side, after one network pass per image."""
    import requests

    from landmarklabel.cli.client import running_server
    from landmarklabel.store.study import Study
    from landmarklabel.tasks import resolve_task
    from landmarklabel.training.publishing import Decision, ModelRegistry

    task = resolve_task(task_name)
    study = Study(folder, task)
    registry, truth = ModelRegistry(study.models_dir / "scn"), {i: study.labelled()[i] for i in ids}
    study.close()
    shutil.rmtree(registry.candidate, ignore_errors=True)
    shutil.copytree(model, registry.candidate)
    registry.finalize_candidate(Decision(True, "to be timed"))
    (folder.parent / f"{task.name}.json").write_text(json.dumps(task.to_json()), encoding="utf-8")
    spent, before = [], os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # the server inherits it
    try:
        with (
            running_server(folder, folder.parent / f"{task.name}.json", folder.parent / "server.log") as url,
            requests.Session() as http,
        ):
            for image_id in ids:
                fixed: dict = {}
                answer = http.post(f"{url}/infer/scn?image={image_id}&output=json", timeout=300).json()
                for _ in range(most):
                    name = answer["next"]
                    fixed[name] = truth[image_id].positions_mm[task.index(name)].tolist()
                    started = time.perf_counter()
                    reply = http.post(f"{url}/landmarks/images/{image_id}/update", json={"fixed": fixed}, timeout=60)
                    spent.append(1000 * (time.perf_counter() - started))
                    answer = reply.json()
    finally:
        os.sched_setaffinity(0, before)
    quantiles = dict(zip(("p50_ms", "p95_ms", "max_ms"), np.percentile(spent, [50, 95, 100]).tolist(), strict=True))
    return {"updates": len(spent), **quantiles}


EXPERIMENTS = (clicks, clicks_3d, cold_start, confusions, coverage, update_latency)
