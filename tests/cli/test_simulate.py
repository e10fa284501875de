"""``simulate clicks`` plays an annotator, and says how much work the assistant saves."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from program import ok, run

from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.io.files import write_json
from landmarklabel.io.images import Image, write_image
from landmarklabel.io.markups import read_markups, write_markups

TASK = phantom_task(2, 8)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """``study`` with ten labelled phantoms and two without labels, and ``model``, which has learned a little."""
    place = tmp_path_factory.mktemp("simulate")
    (place / "images").mkdir()
    for seed in range(12):
        phantom = draw_phantom(TASK, seed, size=(96, 128), absent_fraction=0.0, noise=0.5)
        write_image(place / "images" / f"p{seed:02d}.png", Image(phantom.geometry, phantom.pixels))
        if seed < 10:
            write_markups(place / "images" / f"p{seed:02d}.mrk.json", phantom.landmarks)
    write_json(place / "task.json", TASK.to_json())
    (place / "valid.txt").write_text("p08\np09\n", encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()):
        ok("import", place / "study", "--task", place / "task.json", "--images", place / "images", "--markups", place / "images")
        words = ("--model", "scn", "--steps", 80, "--valid", place / "valid.txt", "--out", place / "model", "--device", "cpu")
        ok("train", place / "study", "--task", place / "task.json", *words)
    return place


def test_the_figures_follow_the_contract_and_clicks_help(made):
    words = ("--task", made / "task.json", "--clicks", 8, "--only", made / "valid.txt", "--json")
    done = ok("simulate", "clicks", made / "model", made / "study", *words)
    assert "trained on" not in done.err
    result = json.loads(done.out)
    assert {"mre_mm", "alone_mre_mm", "noc"} <= set(result) and set(result["noc"]) == {"2", "4"}
    assert len(result["mre_mm"]) == len(result["alone_mre_mm"]) == 9
    assisted, alone = np.array(result["mre_mm"]), np.array(result["alone_mre_mm"])
    assert assisted[-1] == alone[-1] == 0.0 and (np.diff(alone) <= 1e-9).all()
    assert alone[0] > 0.0 and (assisted <= alone + 1e-9).all()
    assert assisted[3] < 0.75 * alone[3]  # a poor model: the others follow the clicks
    for needed in result["noc"].values():
        assert 0 < needed["assisted"] <= needed["alone"] <= len(TASK)
    assert any(needed["assisted"] < needed["alone"] for needed in result["noc"].values())
    assert result["n_images"] == 2


def test_people_get_a_table_and_a_report(made):
    report = made / "clicks.html"
    done = ok(
        "simulate", "clicks", made / "model", made / "study", "--task", made / "task.json", "--clicks", 2, "--report", report
    )
    assert "assisted" in done.out and "alone" in done.out and "clicks until every point is within 2 px" in done.out
    assert "images were trained on, so the figures are too good: choose others with --only" in done.err
    page = report.read_text(encoding="utf-8")
    assert "error against clicks" in page and page.count("<img") == 1 and "p08" in page


def test_predictions_show_what_the_first_row_of_the_simulation_says(made):
    """Before any click the simulated annotator sees what ``predict`` writes."""
    images = [made / "study" / f"{i}.png" for i in ("p08", "p09")]
    ok("predict", made / "model", *images, "--out", made / "predictions")
    errors = []
    for image_id in ("p08", "p09"):
        truth = read_markups(made / "images" / f"{image_id}.mrk.json", TASK)
        found = read_markups(made / "predictions" / f"{image_id}.mrk.json", TASK)
        errors.append(np.nanmean(np.linalg.norm(found.positions_mm - truth.positions_mm, axis=1)))
    words = ("--task", made / "task.json", "--clicks", 1, "--only", made / "valid.txt", "--json")
    result = json.loads(ok("simulate", "clicks", made / "model", made / "study", *words).out)
    assert result["mre_mm"][0] == pytest.approx(np.mean(errors), rel=1e-3)


@pytest.mark.parametrize(
    "words, text",
    [
        (("--clicks", "0"), "--clicks 0 must be at least 1"),
        (("--only", "{place}/unknown.txt"), "--only names 1 images without labels in the study, first 'p10'"),
    ],
)
def test_mistakes_end_with_one_clear_line(made, words, text):
    (made / "unknown.txt").write_text("p08\np10\n", encoding="utf-8")
    words = [w.format(place=made) for w in words]
    done = run("simulate", "clicks", made / "model", made / "study", "--task", made / "task.json", *words)
    assert text in done.error_line


def test_a_folder_that_is_no_study_is_named(made):
    done = run("simulate", "clicks", made / "model", made / "nowhere", "--task", made / "task.json")
    assert "nowhere: no such study folder" in done.error_line
