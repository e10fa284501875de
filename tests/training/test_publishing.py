"""Only a better model goes live, atomically; one process trains at a time; every version can come back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from landmarklabel.data.cases import Case
from landmarklabel.errors import StudyError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.images import Image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, ScaleRule, Status
from landmarklabel.training.publishing import Decision, ModelRegistry, capped_error_mm, decide

TASK = LandmarkTask("t", ("a", "b"), 2)
IMAGE = Image(ImageGeometry.identity((60, 80)), np.zeros((80, 60), np.uint8))  # a diagonal of 100 mm: the cap is 5
BETTER, WORSE = Decision(True, "better"), Decision(False, "worse")


def case(a=(10.0, 10.0), b=(50.0, 60.0), task=TASK):
    positions = [p or (np.nan, np.nan) for p in (a, b)]
    status = tuple(Status.PLACED if p else Status.ABSENT for p in (a, b))
    return Case("c", IMAGE, LandmarkSet(task, positions, status))


def model(off_a, off_b):
    """A localizer that is off by so many mm along x, or misses the landmark for None."""

    def predict(case):
        truth = case.landmarks
        positions = np.nan_to_num(truth.positions_mm, nan=1.0)
        rows = [p + (off, 0) if off is not None else (np.nan, np.nan) for p, off in zip(positions, (off_a, off_b), strict=True)]
        status = tuple(Status.ABSENT if off is None else Status.PREDICTED for off in (off_a, off_b))
        return LandmarkSet(truth.task, rows, status)

    return SimpleNamespace(predict=predict)


@pytest.mark.parametrize(
    "localizer, wanted",
    [(model(1, 3), 2), (model(1, 30), 3), (model(1, None), 3), (model(None, None), 5), (model(0, 0), 0)],
)
def test_the_score_caps_what_is_missed_or_far_off_at_a_twentieth_of_the_image(localizer, wanted):
    assert capped_error_mm(localizer, [case()]) == pytest.approx(wanted)


def test_what_the_truth_lacks_is_not_scored():
    assert capped_error_mm(model(1, 40), [case(b=None)]) == pytest.approx(1)
    assert capped_error_mm(model(1, 1), [case(a=None, b=None)]) is None and capped_error_mm(model(1, 1), []) is None
    assert capped_error_mm(model(2, 4), [case(), case(b=None)]) == pytest.approx((2 + 4 + 2) / 3)


def test_a_case_whose_scale_cannot_be_told_does_not_spoil_the_score():
    task = LandmarkTask("t", ("a", "b"), 2, scale=ScaleRule("a", "b", 64.03124237432849))  # 1 mm a unit in case()
    cases = [case(task=task), case(b=None, task=task)]
    assert capped_error_mm(model(1, 3), cases) == pytest.approx(2)
    assert decide(model(1, 1), model(2, 2), cases).publish


def test_decisions_follow_known_errors_and_say_why():
    better = decide(model(1, 1), model(2, 2), [case(), case()])
    assert better.publish and (better.candidate_score, better.live_score) == (1, 2)
    assert better.reason == "better on the same 2 validation cases: 1.000 against 2.000 mm"
    for live in (model(1, 1), model(0.5, 0.5)):
        decision = decide(model(1, 1), live, [case()])
        assert not decision.publish and decision.reason.startswith("not better on the same 1 validation case:")
    # One wild point must not outweigh many good ones beyond the cap, and missing everything is never better.
    assert decide(model(1, 99), model(4, 4), [case()]).publish
    assert not decide(model(None, None), model(4, 4), [case()]).publish


def test_a_first_model_and_an_unmeasurable_one_go_live():
    first = decide(model(9, 9), None, [case()])
    assert first.publish and first.candidate_score == 5 and "first model" in first.reason
    assert decide(model(9, 9), None, []).publish
    unmeasured = decide(model(9, 9), model(1, 1), [])
    assert unmeasured.publish and unmeasured.reason.startswith("unvalidated: no validation case can be measured")


# ------------------------------------------------------------------ the registry


@pytest.fixture
def registry(tmp_path):
    return ModelRegistry(tmp_path / "models" / "scn")


def finish(registry, content):
    registry.candidate.mkdir(parents=True)
    (registry.candidate / "model.json").write_text(content, encoding="utf-8")


def test_an_empty_registry(registry):
    assert registry.live() is None and registry.versions() == [] and registry.record() == {"version": 0, "history": []}
    assert not registry.is_training()


def test_publish_keep_and_go_back(registry):
    finish(registry, "one")
    assert registry.finalize_candidate(BETTER) == 1 and (registry.live() / "model.json").read_text(encoding="utf-8") == "one"
    finish(registry, "two")
    assert registry.finalize_candidate(WORSE) == 1 and not registry.candidate.exists() and registry.versions() == [1]
    finish(registry, "three")
    assert registry.finalize_candidate(BETTER) == 2 and (registry.live() / "model.json").read_text(encoding="utf-8") == "three"
    assert registry.publish_copy(registry.folder / "versions" / "0001", BETTER) == 3  # an earlier one, as a new version
    assert (registry.live() / "model.json").read_text(encoding="utf-8") == "one" and registry.versions() == [1, 2, 3]
    history = registry.record()["history"]
    assert [(h["version"], h["what"]) for h in history] == [
        (1, "published"), (1, "kept"), (2, "published"), (3, "published")
    ]  # fmt: skip
    assert history[1]["reason"] == "worse"


def test_a_new_version_never_takes_the_number_of_an_old_one(registry):
    for content in ("one", "two"):
        finish(registry, content)
        registry.finalize_candidate(BETTER)
    registry.pointer.unlink()
    finish(registry, "three")
    assert registry.finalize_candidate(BETTER) == 3 and registry.versions() == [1, 2, 3]
    assert (registry.folder / "versions" / "0002" / "model.json").read_text(encoding="utf-8") == "two"


def test_the_pointer_is_replaced_in_one_step(registry, monkeypatch):
    """A crash at the moment of publishing leaves the old model live, whole."""
    finish(registry, "one")
    registry.finalize_candidate(BETTER)
    finish(registry, "two")

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        registry.finalize_candidate(BETTER)
    monkeypatch.undo()
    assert registry.record()["version"] == 1 and (registry.live() / "model.json").read_text(encoding="utf-8") == "one"
    finish(registry, "three")
    assert registry.finalize_candidate(BETTER) == 3 and (registry.live() / "model.json").read_text(encoding="utf-8") == "three"
    assert [p.name for p in registry.folder.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("text", ["", "{", '{"version": 1', "[]", "3", '"x"', '{"version": 1}', '{"history": []}',
                                  '{"version": "../../x", "history": []}', "\x00\xff", "[" * 100_000,
                                  '{"version": 1e999, "history": []}'])  # fmt: skip
def test_a_damaged_pointer_is_refused_by_text(registry, text):
    finish(registry, "one")
    registry.finalize_candidate(BETTER)
    registry.pointer.write_bytes(text.encode("latin-1"))
    for read in (registry.live, registry.record):
        with pytest.raises(StudyError, match=r"live\.json: damaged; delete it to start over, the versions stay"):
            read()


def test_history_does_not_grow_for_ever(registry):
    registry.folder.mkdir(parents=True)
    registry.pointer.write_text(json.dumps({"version": 0, "history": [{}] * 700}), encoding="utf-8")
    registry.finalize_candidate(WORSE)
    assert len(registry.record()["history"]) == 500 and registry.record()["history"][-1]["what"] == "kept"


# ------------------------------------------------------------------ one training at a time


def test_a_second_training_in_this_process_is_refused(registry):
    with registry.training_lock():
        assert registry.is_training()
        with (
            pytest.raises(StudyError, match="model 'scn' is already being trained; wait or stop that run"),
            registry.training_lock(),
        ):
            pass
    assert not registry.is_training()
    with registry.training_lock():
        pass


def test_an_error_lets_go_of_the_lock(registry):
    with pytest.raises(ZeroDivisionError), registry.training_lock():
        raise ZeroDivisionError
    assert not registry.is_training()


HOLD = """
import sys, time
from landmarklabel.training.publishing import ModelRegistry
with ModelRegistry(sys.argv[1]).training_lock():
    print("held", flush=True)
    time.sleep(600)
"""


def test_another_process_keeps_us_out_until_it_is_killed(registry):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(registry.folder)], stdout=subprocess.PIPE, env=environment, encoding="utf-8"
    )
    try:
        assert holder.stdout.readline().strip() == "held"
        assert registry.is_training()
        with pytest.raises(StudyError, match="already being trained"), registry.training_lock():
            pass
    finally:
        holder.kill()
        holder.wait(30)
    assert not registry.is_training()
    with registry.training_lock():
        pass
