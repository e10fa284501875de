"""Tasks say every fault at once; a LandmarkSet never holds a position that its status denies."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmarklabel.errors import FaultsError, TaskError
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, ScaleRule, Status
from landmarklabel.scale_rules import PixelSize

NAN = float("nan")


def content(**changes):
    base = {
        "format": "landmarklabel-task",
        "version": 1,
        "name": "hand",
        "dims": 2,
        "landmarks": [{"name": "a", "definition": "The tip."}, {"name": "b"}, {"name": "c"}],
        "mirror_pairs": [["a", "b"]],
        "scale": {"from": "a", "to": "c", "mm": 50},
    }
    return {key: value for key, value in {**base, **changes}.items() if value is not ...}


@pytest.fixture
def task():
    return LandmarkTask.from_json(content())


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"format": "other"}, "not a task file"),
        ({"version": 2}, "version 2 is not supported"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"dims": 4}, "dims 4 must be 2 or 3"),
        ({"dims": True}, "dims True must be 2 or 3"),
        ({"dims": "3"}, "dims '3' must be 2 or 3"),
        ({"dims": 2.0}, "dims 2.0 must be 2 or 3"),
        ({"dims": ...}, "dims None must be 2 or 3"),
        ({"dims": []}, "dims [] must be 2 or 3"),
        ({"name": "a hand"}, "name 'a hand' must be"),
        ({"name": "../up"}, "name '../up' must be"),
        ({"name": None}, "name 'None' must be"),
        ({"name": "x" * 101}, "must be 1 to 100 letters"),
        ({"landmarks": []}, "0 landmarks; allowed are 1 to"),
        ({"landmarks": "abc"}, '"landmarks" must be a list'),
        ({"landmarks": [{"title": "a"}]}, '"landmarks" must be a list'),
        ({"landmarks": [{"name": n} for n in "abca"]}, "'a' appears twice"),
        ({"landmarks": [{"name": n} for n in ("a", "b", "c", " ")]}, "landmark name ' ' must be printable"),
        ({"landmarks": [{"name": n} for n in ("a", "b", "c", "d\n")]}, "landmark name 'd\\n' must be printable"),
        ({"landmarks": [{"name": n} for n in ("a", "b", "c", 5)]}, "landmark name 5 must be printable"),
        ({"landmarks": [{"name": n} for n in ("a", "b", "c", ["d"])]}, "landmark name ['d'] must be printable"),
        ({"landmarks": [{"name": {}, "definition": "It."}]}, "landmark name {} must be printable"),
        ({"mirror_pairs": [["a", "z"]]}, "mirror pair names 'z', which is no landmark"),
        ({"mirror_pairs": [["a", "a"]]}, "not with itself"),
        ({"mirror_pairs": [["a", "b"], ["b", "c"]]}, "one pair only"),
        ({"mirror_pairs": [["a"]]}, "a list of pairs"),
        ({"mirror_pairs": None}, "a list of pairs"),
        ({"scale": {"from": "a", "to": "z", "mm": 50}}, "scale names 'z', which is no landmark"),
        ({"scale": {"from": "a", "to": "a", "mm": 50}}, "two different landmarks"),
        ({"scale": {"from": "a", "to": "b", "mm": 0}}, "must be a positive number"),
        ({"scale": {"from": "a", "to": "b", "mm": NAN}}, "must be a positive number"),
        ({"scale": {"from": "a", "to": "b"}}, '"scale" must be'),
        ({"scale": 50}, '"scale" must be'),
        ({"scale": {"mm_per_pixel": 0}}, "scale of 0.0 mm must be a positive number"),
        ({"scale": {"mm_per_pixel": "wide"}}, '"scale" must be'),
        ({"scale": {"mm_per_pixel": True}}, '"scale" must be'),
        ({"scale": {"mm_per_pixel": 200}}, "scale of 200 mm a pixel is no size of a pixel: allowed are 0.000001 to 10"),
        ({"scale": {"mm_per_pixel": 1e-300}}, "scale of 1e-300 mm a pixel is no size of a pixel"),
        ({"scale": {"mm_per_pixel": 0.1, "from": "a", "to": "b", "mm": 50}}, 'or {"mm_per_pixel": number}'),
        ({"scale": {"mm_per_pixel": 0.1}, "dims": 3}, "scale by mm_per_pixel is for pictures, dims 2"),
    ],
)
def test_a_faulty_task_is_refused_by_a_text_that_names_the_value(changes, text):
    with pytest.raises(TaskError) as caught:
        LandmarkTask.from_json(content(**changes), "hand.json")
    assert text in str(caught.value) and str(caught.value).startswith("hand.json: ")


def test_all_faults_are_listed_at_once():
    with pytest.raises(TaskError) as caught:
        LandmarkTask("bad name", ("a", "a"), dims=5, mirror_pairs=(("a", "q"),))
    assert len(caught.value.faults) == 4


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000, "\x00", "[]", "3"])
def test_a_file_that_is_no_task_is_refused(tmp_path, text):
    path = tmp_path / "task.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TaskError, match=r"task\.json: (not readable as JSON|not a task file)"):
        LandmarkTask.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TaskError, match="nowhere.json: no such task file"):
        LandmarkTask.load(tmp_path / "nowhere.json")


def test_a_task_survives_its_file(tmp_path, task):
    path = tmp_path / "task.json"
    path.write_text(json.dumps(task.to_json()), encoding="utf-8")
    assert LandmarkTask.load(path) == task
    assert task.scale == ScaleRule("a", "c", 50.0) and task.definitions == {"a": "The tip."}


def test_a_pixel_size_survives_its_file(tmp_path, task):
    path = tmp_path / "task.json"
    path.write_text(json.dumps(replace(task, scale=PixelSize(0.1)).to_json()), encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8"))["scale"] == {"mm_per_pixel": 0.1}
    assert LandmarkTask.load(path).scale == PixelSize(0.1)


def test_the_hash_is_about_dims_and_names_in_order_only(task):
    same = LandmarkTask("other", task.names, 2, {"b": "Elsewhere."})
    assert same.hash == task.hash
    assert len({task.hash, LandmarkTask("t", ("b", "a", "c"), 2).hash, LandmarkTask("t", ("a", "b", "c"), 3).hash}) == 3


def test_index_names_what_is_not_there(task):
    assert [task.index(n) for n in task.names] == [0, 1, 2]
    with pytest.raises(TaskError, match="no landmark called 'thumb'"):
        task.index("thumb")


def test_mirroring_swaps_pairs_and_nothing_else():
    task = LandmarkTask("t", ("l1", "mid", "r1", "l2", "r2"), 2, mirror_pairs=(("l1", "r1"), ("r2", "l2")))
    order = task.mirror_permutation()
    assert [task.names[i] for i in order] == ["r1", "mid", "l1", "r2", "l2"]
    assert np.array_equal(order[order], np.arange(5))
    assert np.array_equal(LandmarkTask("t", ("a", "b"), 2).mirror_permutation(), [0, 1])


COORDINATE = st.one_of(st.just(NAN), st.just(float("inf")), st.floats(-1e6, 1e6))


@given(st.sampled_from(Status), COORDINATE, COORDINATE)
def test_a_position_is_nan_if_and_only_if_unset_or_absent(status, x, y):
    task = LandmarkTask("t", ("a",), 2)
    finite, missing = np.isfinite([x, y]).all(), np.isnan([x, y]).all()
    if finite if status.has_position else missing:
        assert LandmarkSet(task, [[x, y]], (status,)).defined.tolist() == [bool(finite)]
    else:
        with pytest.raises(FaultsError, match=f"'a' is {status.value}"):
            LandmarkSet(task, [[x, y]], (status,))


@pytest.mark.parametrize(
    "positions, status, error, text",
    [
        (np.zeros((3, 3)), (Status.PLACED,) * 3, None, "positions have shape (3, 3), the task needs (3, 2)"),
        (np.zeros((2, 2)), (Status.PLACED,) * 2, None, "positions have shape (2, 2)"),
        (np.zeros((3, 2)), (Status.PLACED,) * 2, None, "2 statuses"),
        (np.zeros((3, 2)), (Status.PLACED,) * 3, np.zeros(4), "(4,) expected errors for 3 landmarks"),
    ],
)
def test_shapes_are_checked(task, positions, status, error, text):
    with pytest.raises(FaultsError) as caught:
        LandmarkSet(task, positions, status, error)
    assert text in str(caught.value)


def test_a_set_does_not_share_memory_and_cannot_be_written(task):
    positions = np.ones((3, 2))
    made = LandmarkSet(task, positions, ("placed",) * 3)
    positions[0] = 7
    assert made.positions_mm[0, 0] == 1 and made.status == (Status.PLACED,) * 3
    with pytest.raises(ValueError, match="read-only"):
        made.positions_mm[0] = 7


def test_what_a_status_means(task):
    statuses = (Status.PREDICTED, Status.ACCEPTED, Status.ABSENT)
    made = LandmarkSet(task, [[0, 0], [1, 1], [NAN, NAN]], statuses)
    assert made.defined.tolist() == [True, True, False] and made.by_person.tolist() == [False, True, True]
    empty = LandmarkSet.empty(task)
    assert not empty.defined.any() and not empty.by_person.any()


def test_of_positions_leaves_unknown_rows_unset(task):
    made = LandmarkSet.of_positions(task, [[1, 2], [NAN, 3], [NAN, NAN]])
    assert made.status == (Status.PLACED, Status.UNSET, Status.UNSET)
    assert np.isnan(made.positions_mm[1:]).all()


def test_with_landmark_changes_one_and_forgets_its_expected_error(task):
    before = LandmarkSet(task, np.ones((3, 2)), (Status.PREDICTED,) * 3, np.array([1.0, 2.0, 3.0]))
    placed = before.with_landmark("b", [5, 6, 0])
    assert placed.positions_mm.tolist() == [[1, 1], [5, 6], [1, 1]]
    assert placed.status == (Status.PREDICTED, Status.PLACED, Status.PREDICTED)
    assert np.array_equal(placed.expected_error_mm, [1, NAN, 3], equal_nan=True)
    absent = placed.with_landmark("b", None, Status.ABSENT)
    assert absent.status[1] is Status.ABSENT and np.isnan(absent.positions_mm[1]).all()
    assert before.positions_mm.tolist() == [[1, 1]] * 3
    for wrong in ([9], [9, 8, 77], 9, [[1, 2]], []):
        with pytest.raises(FaultsError, match="'b' needs 2 numbers, given are"):
            before.with_landmark("b", wrong)
    with pytest.raises(FaultsError, match="'b' is placed but its position is"):
        before.with_landmark("b", None)


def test_with_landmark_forgets_all_that_a_model_said_of_the_old_place(task):
    more = {"covariance_mm2": np.ones((3, 2, 2)), "presence": np.ones(3), "radius95_mm": np.ones(3)}
    before = LandmarkSet(task, np.ones((3, 2)), (Status.PREDICTED,) * 3, np.ones(3), **more)
    for changed in (before.with_landmark("b", [5, 6]), before.with_landmark("b", None, Status.ABSENT)):
        for name in ("expected_error_mm", *more):
            values = getattr(changed, name)
            assert np.isnan(values[1]).all() and (values[[0, 2]] == 1).all() and (getattr(before, name) == 1).all()


def test_what_a_set_holds_is_its_own_and_has_the_tasks_shape(task):
    presence, covariance = np.ones(3), np.ones((3, 2, 2))
    made = LandmarkSet(task, np.ones((3, 2)), (Status.PREDICTED,) * 3, presence=presence, covariance_mm2=covariance)
    presence[0] = covariance[0] = 99
    assert (made.presence == 1).all() and (made.covariance_mm2 == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        made.presence[0] = 99
    more = {"presence": [1, 1, 1], "covariance_mm2": np.ones((3, 2, 2))}
    assert made == LandmarkSet(task, np.ones((3, 2)), (Status.PREDICTED,) * 3, **more)
    for wrong in ({"presence": np.ones(7)}, {"covariance_mm2": np.ones(1)}, {"radius95_mm": np.ones((3, 2))}):
        (name,) = wrong
        with pytest.raises(FaultsError, match=f"{name} has shape .*, the task needs"):
            LandmarkSet(task, np.ones((3, 2)), (Status.PREDICTED,) * 3, **wrong)


def test_the_scale_rule_gives_millimetres_per_unit(task):
    made = LandmarkSet.of_positions(task, [[0, 0], [9, 9], [30, 40]])
    assert made.scaled_to_mm() == pytest.approx(1.0)
    assert LandmarkSet.of_positions(task, [[0, 0], [9, 9], [6, 8]]).scaled_to_mm() == pytest.approx(5.0)
    assert np.isnan(made.with_landmark("c", None, Status.ABSENT).scaled_to_mm())
    assert np.isnan(made.with_landmark("c", [0, 0]).scaled_to_mm())
    assert LandmarkSet.empty(LandmarkTask("t", ("a",), 2)).scaled_to_mm() == 1.0
