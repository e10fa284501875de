"""The whole recipe on small phantoms: it learns, repeats, resumes, and its folder gives back the same model."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from tests.training.small_fits import config, phantoms, small, small_networks  # noqa: F401, a fixture of every test here

from landmarklabel.data.cases import Case
from landmarklabel.data.synthetic import phantom_task
from landmarklabel.errors import Cancelled, ModelError, StudyError, UsageError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.model_folder import load_model
from landmarklabel.inference.model_record import read_record
from landmarklabel.inference.template import template_landmarks
from landmarklabel.io.images import Image, write_image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.metrics import summarize
from landmarklabel.networks.presets import find_preset
from landmarklabel.training.fit import FitConfig, fit, label_hash
from landmarklabel.training.loop import Budget
from landmarklabel.training.stages import CoarseStage, draw_cases

TASK = phantom_task(2, 6)
STEPS = 160


def hands(seeds, absent_fraction=0.15):
    return phantoms(TASK, seeds, size=(64, 96), absent_fraction=absent_fraction, pose=0.6, noise=0.5)


TRAIN, VALID = hands(range(14)), hands(range(100, 110))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    told = []
    model, metrics = fit(TASK, TRAIN, VALID, config(steps=STEPS, seed=1), folder, told.append)
    return folder, model, metrics, told


def test_it_learns_far_more_than_the_template_knows(trained):
    _, _, metrics, _ = trained
    labelled = [(c.image.geometry, c.landmarks) for c in TRAIN]
    template = summarize([(template_landmarks(TASK, c.image.geometry, labelled), c.landmarks) for c in VALID])
    assert metrics["mre_mm"] < 0.5 * template["mre_mm"]
    assert metrics["median_mm"] < 2.0


BLOBS = LandmarkTask("blobs", ("small", "large"), 2)


def blobs(seed):
    """Noise with a small and a large bright blob, each missing from nearly every second image."""
    rng, (y, x) = np.random.default_rng(seed), np.mgrid[:64, :64]
    pixels, positions = rng.normal(40, 6, (64, 64)), np.full((2, 2), np.nan)
    for k, sigma in enumerate((3.0, 6.0)):
        if rng.random() < 0.55:
            positions[k] = rng.uniform(10, 54, 2)
            pixels += 120 * np.exp(-0.5 * ((x - positions[k, 0]) ** 2 + (y - positions[k, 1]) ** 2) / sigma**2)
    status = tuple(Status.PLACED if there else Status.ABSENT for there in np.isfinite(positions[:, 0]))
    image = Image(ImageGeometry.identity((64, 64)), pixels.astype(np.float32))
    return Case(f"blobs{seed}", image, LandmarkSet(BLOBS, positions, status))


def test_it_learns_what_is_absent(tmp_path):
    """Learning fast on a small grid: absence is a class of the map, so nothing but labels is needed."""
    preset = small("scn:single")
    still = replace(preset.augment, rotation=0.2, scale=0.0, shear=0.0, shift=0.02, elastic=0.0)
    plain = replace(still, gamma=0.0, contrast=0.0, brightness=0.0, noise=0.0)
    optimization = replace(preset.optimization, lr=1e-2, ema=0.9)
    preset = replace(preset, grid_size={2: (32, 32)}, batch={2: 8}, augment=plain, optimization=optimization)
    valid = [blobs(i) for i in range(100, 130)]
    run = FitConfig(preset, Budget(steps=240))
    model, metrics = fit(BLOBS, [blobs(i) for i in range(40)], valid, run, tmp_path)
    there = np.concatenate([c.landmarks.defined for c in valid])
    always = 2 * there.sum() / (there.sum() + len(there))
    assert metrics["presence"]["f1"] > max(0.8, always + 0.05)
    presence = np.concatenate([model.assess(c)[0].presence for c in valid])
    assert presence[there].mean() - presence[~there].mean() > 0.4
    said = np.concatenate([[s is Status.ABSENT for s in model.predict(c).status] for c in valid])
    assert (said & ~there).sum() > 0.5 * (~there).sum() and (said & there).sum() < 0.2 * there.sum()


def test_predictions_are_complete(trained):
    _, model, metrics, _ = trained
    for case in VALID:
        found = model.predict(case)
        assert set(found.status) <= {Status.PREDICTED, Status.ABSENT}
        assert found.covariance_mm2.shape == (6, 2, 2) and ((found.presence >= 0) & (found.presence <= 1)).all()
        assert (np.linalg.eigvalsh(found.covariance_mm2) > 0).all()
        assert (found.expected_error_mm[found.defined] > 0).all()
    assert metrics["n_images"] == 10


def test_progress_covers_both_stages_without_going_back(trained):
    _, _, _, told = trained
    fractions = [p.fraction for p in told]
    assert fractions == sorted(fractions) and 0 <= fractions[0] < 0.01 and 0.99 < fractions[-1] <= 1
    assert list(dict.fromkeys(p.stage for p in told)) == ["locate", "refine"] and len(told) == STEPS
    assert [p.seconds for p in told] == sorted(p.seconds for p in told)


def test_the_folder_gives_back_the_same_model_to_the_bit(trained):
    folder, model, metrics, _ = trained
    assert sorted(p.name for p in folder.iterdir()) == ["MODEL_CARD.md", "model.json", "model.safetensors"]
    again = load_model(folder, TASK)
    assert again.calibration == model.calibration and again.networks.grid == model.networks.grid
    assert again.networks.crops == model.networks.crops
    for case in VALID[:4]:
        one, two = model.predict(case), again.predict(case.image)
        for part in ("positions_mm", "expected_error_mm", "covariance_mm2", "presence"):
            np.testing.assert_array_equal(getattr(one, part), getattr(two, part))
        assert one.status == two.status


def test_the_record_tells_what_the_model_was_made_of(trained):
    record, metrics = read_record(trained[0]), trained[2]
    assert record["task_hash"] == TASK.hash and record["preset"] == "scn:default" and record["seed"] == 1
    assert record["train_labels"] == {c.image_id: label_hash(c.landmarks) for c in TRAIN}
    assert record["valid_ids"] == sorted(c.image_id for c in VALID) and record["minutes"] > 0
    assert record["metrics"] == json.loads(json.dumps(metrics))


def test_a_label_hash_changes_with_the_label():
    marks = TRAIN[0].landmarks
    moved = marks.with_landmark(TASK.names[0], [1.0, 2.0])
    gone = marks.with_landmark(TASK.names[0], None, Status.ABSENT)
    assert len({label_hash(x) for x in (marks, moved, gone)}) == 3


def test_warm_start_goes_on_from_the_old_weights(trained, tmp_path):
    """After a single step the model is still about as good as the one it started from."""
    _, old, metrics, _ = trained
    cases, few = TRAIN[:3], VALID[:4]
    model, warm = fit(TASK, cases, few, config(steps=2, start_from=old), tmp_path / "warm")
    _, cold = fit(TASK, cases, few, config(steps=2), tmp_path / "cold")
    assert (
        model.networks.grid == old.networks.grid
        and warm["median_mm"] < 3 * metrics["median_mm"] < cold["image_point_error_mm"]["mean"]
    )


# ------------------------------------------------------------------ stopping and resuming


def weights(folder):
    return read_record(folder)["weights_sha256"]


def stop_after(k):
    asked = iter(range(1, 10**6))
    return lambda: next(asked) == k


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder, told = tmp_path_factory.mktemp("straight"), []
    fit(TASK, TRAIN[:4], [], config(steps=11), folder, told.append)
    return folder, [p.stage for p in told].index("refine")


@pytest.mark.parametrize("where", ["locate", "between", "refine"])
def test_a_stopped_fit_resumes_to_the_same_bits(tmp_path, straight, where):
    whole, locate_steps = straight
    k = {"locate": 2, "between": locate_steps, "refine": locate_steps + 3}[where]
    with pytest.raises(Cancelled):
        fit(TASK, TRAIN[:4], [], config(steps=11), tmp_path, should_stop=stop_after(k))
    assert not (tmp_path / "model.json").exists()
    with pytest.raises(ModelError, match="no trained model here"):
        load_model(tmp_path)
    torch.manual_seed(31415)
    told = []
    fit(TASK, TRAIN[:4], [], config(steps=11, resume=True), tmp_path, told.append)
    assert weights(tmp_path) == weights(whole) and len(told) == len(set((p.stage, p.step) for p in told)) == 11 - k
    assert not (tmp_path / "state").exists()
    assert read_record(tmp_path)["steps"] == read_record(whole)["steps"] and read_record(tmp_path)["minutes"] > 0


def test_in_3d_too_a_stopped_fit_resumes_and_is_read_back_to_the_same_bits(tmp_path):
    """The layout of the weights in memory, which is another one in training, changes nothing."""
    task = phantom_task(3, 6)
    cases = phantoms(task, range(2), size=24, spacing=4.0)
    model, _ = fit(task, cases, [], config(steps=6, dims=3), tmp_path / "straight")
    with pytest.raises(Cancelled):
        fit(task, cases, [], config(steps=6, dims=3), tmp_path / "stopped", should_stop=stop_after(5))
    fit(task, cases, [], config(steps=6, dims=3, resume=True), tmp_path / "stopped")
    assert weights(tmp_path / "stopped") == weights(tmp_path / "straight")
    again = load_model(tmp_path / "straight")
    assert np.array_equal(again.predict(cases[0].image).positions_mm, model.predict(cases[0].image).positions_mm, equal_nan=True)


def test_another_seed_gives_another_model(tmp_path, straight):
    fit(TASK, TRAIN[:4], [], config(steps=11, seed=2), tmp_path)
    assert weights(tmp_path) != weights(straight[0])


def test_a_run_about_something_else_is_not_resumed(tmp_path):
    run = partial(fit, TASK, folder=tmp_path)
    with pytest.raises(Cancelled):
        run(TRAIN[:4], [], config(steps=11), should_stop=stop_after(1))
    ids, gone = [case.image_id for case in TRAIN], "training images that are none now, without a label or kept for validation"
    with_another_label = replace(TRAIN[3], landmarks=TRAIN[3].labels.with_landmark(TASK.names[0], [1.0, 2.0]))
    with_other_pixels = replace(TRAIN[3], image=replace(TRAIN[3].image, pixels=TRAIN[3].image.pixels + 1))
    for train, other, difference in (
        (TRAIN[:4], {"seed": 7}, "seed 0, not 7"),
        (TRAIN[:4], {"oversampled_ids": frozenset(ids[:1])}, "other training images counted twice"),
        (TRAIN[:4], {"key": "scn:single"}, "model scn:default, not scn:single"),
        (TRAIN[:3], {}, f"{gone}: {ids[3]}"),
        ([*TRAIN[:3], with_another_label], {}, f"other labels of {ids[3]}"),
        ([*TRAIN[:3], with_other_pixels], {}, f"other pixels of {ids[3]}"),
        (TRAIN[1:5], {"seed": 1}, f"seed 0, not 1 and {gone}: {ids[0]} and not these training images: {ids[4]}"),
    ):
        with pytest.raises(UsageError) as refused:
            run(train, [], config(**{"steps": 11, "resume": True} | other))
        said = f"cannot resume: the stopped run had {difference}; without --resume a training starts over"
        assert str(refused.value) == said
    told = []
    run(TRAIN[:4], [], config(steps=2, seed=7), on_progress=told.append)  # without resume it starts over
    assert told[0].step == 1


# ------------------------------------------------------------------ odd inputs


def test_nothing_to_train_on_is_said(tmp_path):
    image = TRAIN[0].image
    absent = LandmarkSet(TASK, np.full((6, 2), np.nan), (Status.ABSENT,) * 6)
    guessed = LandmarkSet.of_positions(TASK, np.ones((6, 2)), Status.PREDICTED)
    for cases in ([], [Case("a", image, absent)], [Case("a", image, guessed), Case("b", image, LandmarkSet.empty(TASK))]):
        with pytest.raises(StudyError, match="no labelled image to train on: place and submit"):
            fit(TASK, cases, [], config(), tmp_path)


def test_a_preset_of_other_dimensions_is_refused(tmp_path):
    task = phantom_task(3, 2)
    cases = phantoms(task, [0], size=16, spacing=4.0)
    with pytest.raises(UsageError, match="'scn:payer2016' is made for 2D images, the task is 3D"):
        fit(task, cases, [], FitConfig(find_preset("scn:payer2016"), Budget(steps=1)), tmp_path)


def test_one_case_with_one_landmark_is_enough(tmp_path):
    positions = np.full((6, 2), np.nan)
    positions[2] = 30.0, 40.0
    only = Case("a", TRAIN[0].image, LandmarkSet.of_positions(TASK, positions))
    model, metrics = fit(TASK, [only], [], config(), tmp_path)
    assert metrics == {} and model.predict(only).positions_mm.shape == (6, 2)
    assert np.isnan(model.predict(only).expected_error_mm).all()  # uncalibrated: it does not pretend


def test_a_model_that_finds_nothing_is_still_saved(tmp_path):
    """Its metrics have no mean, and no number that JSON lacks."""
    gone = [Status.PLACED] + [Status.ABSENT] * 5
    cases = []
    for i in range(6):
        positions = np.full((6, 2), np.nan)
        positions[0] = 20.0 + i, 30.0
        cases.append(Case(f"c{i}", TRAIN[i].image, LandmarkSet(TASK, positions, tuple(gone))))
    wrong = [Case(c.image_id, c.image, LandmarkSet.of_positions(TASK, np.full((6, 2), 40.0))) for c in VALID[:3]]
    _, metrics = fit(TASK, cases, wrong, config("scn:single", steps=40), tmp_path)
    assert read_record(tmp_path)["metrics"] == json.loads(json.dumps(metrics, allow_nan=False))


# ------------------------------------------------------------------ a model and what it is given


def test_the_task_of_a_model_is_checked(trained):
    other = LandmarkTask("other", TASK.names[::-1], 2)
    with pytest.raises(ModelError, match="trained for task 'phantom2d' with other landmarks than task 'other' has"):
        load_model(trained[0], other)


@pytest.mark.parametrize("bf16", [False, True])
def test_unlabelled_images_teach_a_second_round_on_any_processor(tmp_path, monkeypatch, bf16):
    monkeypatch.setattr("landmarklabel.networks.precision.bf16_pays", lambda device: bf16)
    unlabelled = []
    for case in hands(range(200, 203)):
        unlabelled.append(tmp_path / f"{case.image_id}.png")
        write_image(unlabelled[-1], case.image)
    stages = []
    told = lambda p: stages.append((p.stage, p.step))  # noqa: E731
    fit(TASK, TRAIN[:6], [], config(steps=80, unlabelled=unlabelled), tmp_path / "model", told)
    assert [s for s, step in stages if step == 1] == ["locate", "refine"] * 2
    assert load_model(tmp_path / "model", TASK).task == TASK


def test_new_and_hard_cases_are_shown_twice_as_often(tmp_path, monkeypatch):
    shown = Counter()
    batch = CoarseStage.batch

    def counted(stage, step):
        shown.update(c.image_id for c in draw_cases(stage.cases, stage.batch_size, step, stage.seed))
        return batch(stage, step)

    monkeypatch.setattr(CoarseStage, "batch", counted)
    fit(TASK, TRAIN[:6], [], config(steps=40, oversampled_ids=frozenset({"case2", "case5"})), tmp_path / "model")
    assert shown["case2"] == shown["case5"] == 2 * shown["case0"] > 0
    assert sorted(read_record(tmp_path / "model")["train_labels"]) == [f"case{i}" for i in range(6)]
