"""``shapes`` says how alike people place the points of a specimen: distances, and the share of variance between specimens."""

from __future__ import annotations

import csv

import numpy as np
import pandas
import pytest
import SimpleITK as sitk

from landmarklabel.cli import main
from landmarklabel.io.files import write_json
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.scale_rules import PixelSize, ScaleRule
from landmarklabel.services.repeatability import repeatability, repeatability_table
from landmarklabel.store.study import Study

TASK = LandmarkTask("leaf", tuple("abcde"), 2)
SHAPE = np.array([[0, 0], [40, 0], [40, 20], [0, 20], [16, 36.0]])


@pytest.fixture
def specimens() -> np.ndarray:
    return SHAPE + np.random.default_rng(0).normal(size=(12, 5, 2)) + 20


def test_the_repeatability_is_the_one_way_intraclass_correlation_of_the_textbook():
    # Shrout and Fleiss 1979, table 2: six targets, four judges; ICC(1,1) is 0.17
    readings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    assert repeatability(np.array(readings)[:, :, None]) == pytest.approx(0.17, abs=0.005)
    assert np.isnan(repeatability(np.ones((4, 2, 3))))


def test_second_readings_of_a_study_are_compared_point_by_point(tmp_path, specimens, capsys):
    study = Study(tmp_path / "study", TASK)
    for number, points in enumerate(specimens):
        sitk.WriteImage(sitk.Image(90, 90, sitk.sitkUInt8), str(tmp_path / "study" / f"s{number:02d}.png"))
        study.save(f"s{number:02d}", LandmarkSet.of_positions(TASK, points), author="ann")
    for number, points in enumerate(specimens[:8]):
        again = points + [[0, 0], [3, 4], [0, 0], [0, 0], [0, 0.5 * number]]
        study.save_repeat(f"s{number:02d}", LandmarkSet.of_positions(TASK, again), author="ann")
    study.close()
    assert main(["shapes", str(tmp_path / "study"), "--out", str(tmp_path / "out")]) == 0
    assert "12 specimens laid over one another" in (said := capsys.readouterr().out)
    assert "how alike people read them: repeatability.csv" in said
    rows = pandas.read_csv(tmp_path / "out" / "repeatability.csv").set_index("landmark")
    assert list(rows.index) == [*"abcde", "(whole shape)"] and set(rows["specimens"]) == {8} and set(rows["unit"]) == {"px"}
    assert set(zip(rows["reader"], rows["other_reader"], strict=True)) == {("ann", "ann, second")}
    assert rows["mean_distance"].tolist() == pytest.approx([0, 5, 0, 0, 1.75, 6.75 / 5])
    assert rows["largest_distance"].tolist() == [0, 5, 0, 0, 3.5, 5]
    assert rows["repeatability"].isna().tolist() == [True] * 5 + [False]
    assert rows.loc["(whole shape)", "repeatability"] < 0.3  # 5 px at one point, where specimens differ by 1 px


def test_a_second_reading_that_was_mended_is_one_reading(tmp_path, specimens):
    study = Study(tmp_path / "study", TASK)
    for number, points in enumerate(specimens):
        sitk.WriteImage(sitk.Image(90, 90, sitk.sitkUInt8), str(tmp_path / "study" / f"s{number:02d}.png"))
        study.save(f"s{number:02d}", LandmarkSet.of_positions(TASK, points), author="ann")
        for off in (4, 1):
            study.save_repeat(f"s{number:02d}", LandmarkSet.of_positions(TASK, points + [off, 0]), author="bob")
    study.close()
    assert main(["shapes", str(tmp_path / "study"), "--out", str(tmp_path / "out")]) == 0
    rows = pandas.read_csv(tmp_path / "out" / "repeatability.csv")
    assert set(zip(rows["reader"], rows["other_reader"], strict=True)) == {("ann", "bob")}
    assert rows["mean_distance"].tolist() == pytest.approx([1] * 6)


def test_readers_of_a_table_in_mm_where_the_task_states_the_size_of_a_pixel(tmp_path, specimens, capsys):
    task = LandmarkTask("leaf", tuple("abcde"), 2, scale=PixelSize(0.1))
    write_json(tmp_path / "task.json", task.to_json())
    rows = [["id", "label", "x", "y", "annotator"]]
    for number, points in enumerate(specimens):
        for who, shift in (("ann", 0), ("bob", 2)):
            rows += [[f"s{number}", n, x + shift, y, who] for n, (x, y) in zip("abcde", points, strict=True)]
    rows.remove(next(r for r in rows if r[:2] == ["s0", "e"] and r[4] == "bob"))
    with (tmp_path / "read.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    words = ["shapes", str(tmp_path / "read.csv"), "--task", str(tmp_path / "task.json"), "--out", str(tmp_path / "out")]
    assert main([*words, "--leave-out", "b"]) == 0
    found = pandas.read_csv(tmp_path / "out" / "repeatability.csv").set_index("landmark")
    assert list(found.index) == ["a", "c", "d", "e", "(whole shape)"] and set(found["unit"]) == {"mm"}
    assert found["specimens"].tolist() == [12, 12, 12, 11, 11]
    assert found["mean_distance"].tolist() == pytest.approx([0.2] * 5)
    assert found.loc["(whole shape)", "repeatability"] == 1  # both shapes are the same, at another place
    capsys.readouterr()
    assert main(["measure", *words[1:4], "--readers"]) == 2
    assert "landmarklabel shapes says how alike people place its points" in capsys.readouterr().err


def test_it_does_not_count_who_comes_first_in_the_alphabet(tmp_path, specimens):
    """Two readers' ends of the scale differ: the mean of both scales counts, and that of one where the other lacks an end."""
    task = LandmarkTask("leaf", tuple("abcde"), 2, scale=ScaleRule("a", "b", 10))
    twice = specimens + np.array([[0, 0], [40, 0], [0, 0], [0, 0], [0, 6]])
    sets = [{str(i): LandmarkSet.of_positions(task, p) for i, p in enumerate(points)} for points in (specimens, twice)]
    lacks = sets[1]["0"].positions_mm.copy()
    lacks[1] = np.nan
    sets[1]["0"] = LandmarkSet.of_positions(task, lacks)
    tables = [repeatability_table(task, dict(zip(names, sets, strict=True)), range(5), lambda _: "px") for names in ("xy", "yx")]
    first, second = ([row[:1] + row[3:] for row in table] for table in tables)
    assert first == second
    length = np.linalg.norm(specimens[:, 1] - specimens[:, 0], axis=1)
    again = np.linalg.norm(twice[:, 1] - twice[:, 0], axis=1)
    scales = np.where(np.arange(12) == 0, 10 / length, (10 / length + 10 / again) / 2)
    of_e = next(row for row in first if row[0] == "e")
    assert of_e[1] == 12 and of_e[2] == pytest.approx((6 * scales).mean(), abs=1e-4)


def test_two_units_are_told_apart(specimens):
    sets = {str(i): LandmarkSet.of_positions(TASK, p) for i, p in enumerate(specimens)}
    table = repeatability_table(TASK, {"x": sets, "y": sets}, range(5), lambda i: "mm" if int(i) < 4 else "px")
    assert [(row[3], row[6], row[7]) for row in table if row[0] == "(whole shape)"] == [(4, "mm", 1.0), (8, "px", 1.0)]


def test_two_specimens_read_twice_tell_distances_and_no_repeatability(tmp_path, specimens):
    write_json(tmp_path / "task.json", TASK.to_json())
    rows = [["id", "label", "x", "y", "annotator"]]
    for number in range(3):
        for who in ("ann", "bob")[: 3 - number]:
            rows += [[f"s{number}", n, *p, who] for n, p in zip("abcde", specimens[number], strict=True)]
    with (tmp_path / "read.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    words = ["shapes", str(tmp_path / "read.csv"), "--task", str(tmp_path / "task.json"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    found = pandas.read_csv(tmp_path / "out" / "repeatability.csv")
    assert set(found["specimens"]) == {2} and found["repeatability"].isna().all() and (found["mean_distance"] == 0).all()
    one = [rows[0], *(r for r in rows[1:] if r[4] == "ann")]
    with (tmp_path / "read.csv").open("w", newline="") as file:
        csv.writer(file).writerows(one)
    assert main([*words[:-1], str(tmp_path / "alone")]) == 0
    assert not (tmp_path / "alone" / "repeatability.csv").exists()
