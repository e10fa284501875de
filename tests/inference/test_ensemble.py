"""Several models' answers become one: nearer where they agree, less sure where they do not."""

from __future__ import annotations

import numpy as np
import pytest
from tests.inference.saved_models import untrained

from landmarklabel.data.synthetic import phantom_task
from landmarklabel.errors import TaskMismatch
from landmarklabel.inference.ensemble import Ensemble, merged
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

TASK = LandmarkTask("three", ("a", "b", "c"), 2)
P, A, U = Status.PREDICTED, Status.ABSENT, Status.UNSET


def answer(positions, errors, presence=(1.0, 1.0, 1.0), status=(P, P, P)) -> LandmarkSet:
    there = np.array([s is P for s in status])
    positions = np.where(there[:, None], np.array(positions, float), np.nan)
    return LandmarkSet(TASK, positions, status, np.where(there, errors, np.nan), presence=np.array(presence, float))


def test_positions_are_weighted_by_how_sure_each_model_is():
    one = answer([(0, 0), (0, 0), (0, 0)], (1.0, 1.0, 1.0))
    two = answer([(1, 0), (1, 0), (1, 0)], (1.0, 2.0, np.sqrt(0.5)))
    found = merged([one, two])
    assert found.positions_mm[:, 0] == pytest.approx([0.5, 0.2, 2 / 3]) and set(found.status) == {P}
    assert found.expected_error_mm[0] == pytest.approx(np.sqrt(1 + 0.25))  # each is 0.5 off what they say together


def test_an_answer_far_off_does_not_count_but_is_told():
    near = [answer([(x, 0)] * 3, (1.0,) * 3) for x in (0.0, 0.5)]
    far = answer([(90, 0)] * 3, (1.2,) * 3)
    found = merged([*near, far])
    assert found.positions_mm[:, 0] == pytest.approx([0.25] * 3) and (found.expected_error_mm > 40).all()


def test_most_models_say_whether_a_landmark_is_there_whatever_their_thresholds():
    low = [answer([(0, 0)] * 3, (1,) * 3, (0.3, 0.3, 0.3)) for _ in range(2)]  # of models whose threshold is 0.2
    assert set(merged(low).status) == {P}
    gone = answer([(0, 0)] * 3, (1,) * 3, (0.1, 0.1, 0.1), (A, A, A))
    assert set(merged([*low, gone]).status) == {P} and set(merged([low[0], gone, gone]).status) == {A}


def test_where_two_disagree_the_mean_of_their_presence_decides():
    one = answer([(0, 0)] * 3, (1,) * 3, (0.9, 0.1, 0.9), (P, A, P))
    two = answer([(2, 0)] * 3, (1,) * 3, (0.3, 0.7, 0.0), (A, P, A))
    found = merged([one, two])
    assert found.status == (P, A, A) and found.positions_mm[0].tolist() == [0.0, 0.0]
    assert np.isnan(found.positions_mm[1:]).all() and np.isnan(found.expected_error_mm[1:]).all()


def test_a_model_that_never_saw_a_landmark_has_no_say():
    one = answer([(0, 0), (4, 0), (0, 0)], (1,) * 3, (0.9, 0.9, 0.0), (P, P, U))
    two = answer([(2, 0), (0, 0), (0, 0)], (1,) * 3, (0.9, 0.0, 0.0), (P, U, U))
    assert merged([one, two]).status == (P, P, U) and merged([two, one]).positions_mm[1].tolist() == [4.0, 0.0]


def test_without_expected_errors_all_weigh_alike_and_none_is_invented():
    sets = [LandmarkSet(TASK, np.full((3, 2), x), (P, P, P)) for x in (0.0, 1.0)]
    found = merged(sets)
    assert found.positions_mm.tolist() == [[0.5, 0.5]] * 3 and np.isnan(found.expected_error_mm).all()


def test_one_answer_stays_as_it_is():
    one = answer([(0, 0)] * 3, (1,) * 3)
    assert merged([one]) is one


def test_models_of_other_landmarks_are_refused():
    one, other = untrained(), untrained()
    other.task = phantom_task(2, 5)
    with pytest.raises(TaskMismatch, match="cannot answer together with one of 'phantom2d'"):
        Ensemble([one, other])
