"""What counts as truth where predictions are evaluated."""

from __future__ import annotations

import json
from dataclasses import replace

from program import NAMES, ok, run, write_table

from landmarklabel.io.markups import write_markups
from landmarklabel.landmarks import Status


def test_what_nobody_has_confirmed_is_no_truth(material, predictions, tmp_path):
    for image_id, landmarks in material.truth.items():
        half = tuple(Status.PREDICTED if k > 3 and s.has_position else s for k, s in enumerate(landmarks.status))
        write_markups(tmp_path / "half" / f"{image_id}.mrk.json", replace(landmarks, status=half))
        nothing = tuple(Status.PREDICTED if s.has_position else Status.UNSET for s in landmarks.status)
        write_markups(tmp_path / "nothing" / f"{image_id}.mrk.json", replace(landmarks, status=nothing))
    words = ("--task", material.task_file, "--json")
    whole, done = (
        json.loads(ok("evaluate", predictions, material.study, *words).out),
        ok("evaluate", predictions, tmp_path / "half", *words),
    )
    metrics = json.loads(done.out)
    assert metrics["n_points"] < whole["n_points"] and metrics["per_landmark"][NAMES[2]] == whole["per_landmark"][NAMES[2]]
    assert metrics["per_landmark"][NAMES[5]]["mre_mm"] is None
    count = whole["n_points"] - metrics["n_points"]
    assert f"{count} points of the truth are predictions that nobody has confirmed, and do not count: p0" in done.err
    done = run("evaluate", predictions, tmp_path / "nothing", *words)
    assert done.code == 2 and f"that a person has placed or accepted: {whole['n_points']} are predictions" in done.err


def test_images_without_the_landmarks_of_the_scale_are_left_out_in_words(material, predictions, tmp_path):
    for number, (image_id, landmarks) in enumerate(material.truth.items()):
        truth = landmarks.with_landmark(NAMES[0], None, Status.UNSET) if number < 2 else landmarks
        write_markups(tmp_path / "truth" / f"{image_id}.mrk.json", truth)
    words = ("evaluate", predictions, tmp_path / "truth", "--task", material.task_file, "--json")
    done = ok(*words)
    assert json.loads(done.out)["n_images"] == 4
    why = f"2 images are left out, because the task's scale needs {NAMES[0]} and {NAMES[1]}: p0, p1"
    assert why in done.err and "have no truth" not in done.err
    for number in range(2, 6):
        (tmp_path / "truth" / f"p{number}.mrk.json").unlink()
    done = run(*words)
    assert (
        done.code == 2
        and f"the task's scale needs {NAMES[0]} and {NAMES[1]}, which " in done.err
        and "in no predicted image" in done.err
    )


def test_evaluate_says_that_the_truth_is_of_another_size_and_which_ids_there_are(material, predictions, tmp_path):
    halves = {i: replace(x, positions_mm=x.positions_mm / 2) for i, x in material.truth.items()}
    write_table(tmp_path / "half.csv", halves)
    done = ok("evaluate", predictions, tmp_path / "half.csv", "--task", material.task_file)
    says = "the predicted shapes are 2 times as large as the true ones: are both of the same images, in the same unit?"
    assert says in done.err and says not in ok("evaluate", predictions, material.study, "--task", material.task_file).err
    write_table(tmp_path / "ids.csv", {f"x{i}": x for i, x in material.truth.items()})
    line = run("evaluate", predictions, tmp_path / "ids.csv", "--task", material.task_file).error_line
    assert ": their ids are p0, p1, " in line and "and xp0, xp1, " in line
