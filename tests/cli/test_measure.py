"""``measure`` and ``shapes``: tables that other programs read, readers compared, errors in words."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pandas
import pytest
import SimpleITK as sitk
from measured_task import LEARNED, NAMES, a_task
from program import run

from landmarklabel.agreement import agreements, intraclass_correlation
from landmarklabel.cli import main
from landmarklabel.io.files import write_json
from landmarklabel.io.markups import read_markups, write_markups
from landmarklabel.io.prediction_folder import PredictionFolder
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.measurement_definitions import Measurement
from landmarklabel.measurements import measure
from landmarklabel.services.label_folders import read_readers
from landmarklabel.services.measuring import measurement_errors
from landmarklabel.store.study import Study


@pytest.fixture()
def place(tmp_path):
    """A task file, and six predictions with covariances, of the last of which c is absent."""
    task, rng = a_task(), np.random.default_rng(0)
    (tmp_path / "task.json").write_text(json.dumps(task.to_json()))
    (tmp_path / "predictions").mkdir()
    for number in range(6):
        points, status = rng.normal(size=(3, 3)) * 3 + [[0, 0, 0], [40, 0, 0], [40, 30, 0]], [Status.PREDICTED] * 3
        covariance = np.stack([np.diag([1.0, 2, 3])] * 3)
        if number == 5:
            points[2], status[2], covariance[2] = np.nan, Status.ABSENT, np.nan
        made = LandmarkSet(task, points, tuple(status), np.ones(3), covariance_mm2=covariance, interval_factors=LEARNED)
        write_markups(tmp_path / "predictions" / f"case{number}.mrk.json", made)
    return tmp_path


def test_a_table_has_every_measurement_of_every_case_with_its_interval(place, capsys):
    out = place / "measurements.csv"
    assert main(["measure", str(place / "predictions"), "--task", str(place / "task.json"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "6 cases, 2 measurements each" in said and "usual 40" in said and "mm (6 cases" in said and "° (5 cases" in said
    rows = pandas.read_csv(out)
    assert (
        list(rows.columns) == ["id", "measurement", "value", "unit", "low", "high", "norm_mean", "norm_sd", "note"]
        and len(rows) == 12
    )
    first = rows.iloc[0]
    assert (first["id"], first["measurement"], first["unit"], first["norm_mean"], first["norm_sd"]) == (
        "case0",
        "length",
        "mm",
        40,
        2,
    )
    assert first["low"] < first["value"] < first["high"] and first["high"] - first["low"] == pytest.approx(
        2 * 1.96 * 2**0.5, rel=0.1
    )
    last = rows.iloc[-1]
    assert np.isnan(last["value"]) and last["note"] == "c is absent"


def test_a_task_that_measures_nothing_says_how(place, capsys):
    content = a_task().to_json()
    del content["measurements"]
    (place / "bare.json").write_text(json.dumps(content))
    assert main(["measure", str(place / "predictions"), "--task", str(place / "bare.json")]) == 2
    assert 'name distances, angles and indices under "measurements" in its file' in capsys.readouterr().err
    assert main(["measure", str(place / "predictions"), "--task", str(place / "task.json"), "--readers"]) == 2
    assert "names no readers: give a study, or a table of one row a point with a column annotator" in capsys.readouterr().err
    table = place / "long.csv"
    table.write_text("id,label,x,y,z\n" + "".join(f"case,{n},1,2,{k}\n" for k, n in enumerate(NAMES)), encoding="utf-8")
    assert main(["measure", str(table), "--task", str(place / "task.json"), "--readers"]) == 2
    said = "was read by two people: its points are by import; in a table, a column annotator says who placed a point"
    assert said in capsys.readouterr().err


def test_readers_of_a_table_and_of_a_study_are_compared(tmp_path, capsys):
    task, rng = a_task(2), np.random.default_rng(0)
    (tmp_path / "task.json").write_text(json.dumps(task.to_json()))
    true = rng.normal(size=(20, 3, 2)) * 3 + [[10, 10], [50, 10], [50, 40]]
    read = {"ann": true, "bob": true + [[0, 0], [1, 0], [0, 0]]}  # bob's b lies 1 to the right
    rows = [["id", "label", "x", "y", "annotator"]]
    study = Study(tmp_path / "study", task)
    for number in range(20):
        sitk.WriteImage(sitk.Image(80, 60, sitk.sitkUInt8), str(tmp_path / "study" / f"i{number:02d}.png"))
    for who, points in read.items():
        for number in range(20):
            rows += [[f"i{number:02d}", n, *p, who] for n, p in zip(NAMES, points[number], strict=True)]
            study.save(f"i{number:02d}", LandmarkSet.of_positions(task, points[number]), author=who, source="import")
    for number in range(20):  # the mean of both, as import --annotators both adds it, is no reader
        mean = LandmarkSet.of_positions(task, np.mean([points[number] for points in read.values()], axis=0))
        study.save(f"i{number:02d}", mean, author="import", source="import")
    for number in range(20):  # whoever calls a point right, or mends one, has not read the case alone
        label = study.labels(f"i{number:02d}")
        study.save(f"i{number:02d}", label, author="carl", source="quality check", checked={"a": True})
        moved = LandmarkSet.of_positions(task, label.positions_mm + [[0, 0], [0, 0], [2, 0]])
        study.save(f"i{number:02d}", moved, author="dora")
    study.close()
    with (tmp_path / "readers.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    for place in ("readers.csv", "study"):
        out, report = tmp_path / "agreement.csv", tmp_path / f"{place}.html"
        words = ["measure", tmp_path / place, "--task", tmp_path / "task.json", "--readers", "--out", out, "--report", report]
        assert main([str(w) for w in words]) == 0
        found = pandas.read_csv(out)
        length = np.linalg.norm(read["ann"][:, 0] - read["ann"][:, 1], axis=1) - np.linalg.norm(
            read["bob"][:, 0] - read["bob"][:, 1], axis=1
        )
        row = found.iloc[0]
        assert len(found) == 2  # one pair of readers, two measurements
        assert (row["measurement"], row["reader"], row["other_reader"], row["cases"]) == ("length", "ann", "bob", 20)
        assert row["bias"] == pytest.approx(length.mean(), abs=1e-3) and 0.7 < row["icc"] < 1
        assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * length.std(ddof=1), abs=1e-3)
        page = report.read_text(encoding="utf-8")
        assert page.count("<img") == 2 and "length: ann less bob, 20 cases" in page
    assert "some limits of agreement" not in capsys.readouterr().err
    with (tmp_path / "few.csv").open("w", newline="") as file:
        csv.writer(file).writerows([r for r in rows if r[0] in ("id", "i00", "i01", "i02")])
    assert main(["measure", str(tmp_path / "few.csv"), "--task", str(tmp_path / "task.json"), "--readers"]) == 0
    assert "some limits of agreement and ICCs rest on 3 cases: of others they tell little" in capsys.readouterr().err
    assert main(["measure", str(tmp_path / "readers.csv"), "--task", str(tmp_path / "task.json")]) == 0
    said = capsys.readouterr()
    assert "readers.csv has 2 readers (ann, bob): of each case their mean is taken" in said.err and said.out.count("\n") == 41


def test_a_proposal_that_nobody_confirmed_is_nobodys_reading(tmp_path, capsys):
    task, study = a_task(2), Study(tmp_path / "study", a_task(2))
    sitk.WriteImage(sitk.Image(80, 60, sitk.sitkUInt8), str(tmp_path / "study" / "i.png"))
    status = (Status.PLACED, Status.PREDICTED, Status.ACCEPTED)
    study.save("i", LandmarkSet(task, np.ones((3, 2)), status), author="ann")
    study.save_repeat("i", LandmarkSet(task, np.full((3, 2), 2), status), author="bob")
    study.close()
    read = read_readers(tmp_path / "study", task, {})
    for who in ("ann", "bob"):
        assert read[who]["i"].status == (Status.PLACED, Status.UNSET, Status.ACCEPTED)
    assert main(["measure", str(tmp_path / "study")]) == 0
    assert "predicted points that nobody has confirmed are in 1 case: i" in capsys.readouterr().err


def test_the_intraclass_correlation_is_that_of_the_textbook():
    # Shrout and Fleiss 1979, table 2: six targets, four judges; ICC(2,1) is 0.29
    readings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    assert intraclass_correlation(readings) == pytest.approx(0.29, abs=0.005)
    assert np.isnan(intraclass_correlation([[1, 1], [2, 2]]))


def test_a_reader_who_is_always_off_does_not_agree_however_alike_the_order():
    task, rng = a_task(2), np.random.default_rng(0)
    points = rng.normal(size=(30, 3, 2)) + [[0, 0], [40, 0], [40, 30]]
    longer = points + [[0, 0], [20, 0], [20, 0]]
    by_reader = {
        who: {str(i): LandmarkSet.of_positions(task, p) for i, p in enumerate(of)} for who, of in (("x", points), ("y", longer))
    }
    length = agreements(task, by_reader)[0]
    assert length.bias == pytest.approx(-20, abs=0.1) and length.icc < 0.1


def test_coverage_counts_the_intervals_that_hold_the_truth():
    task, rng = a_task(3), np.random.default_rng(0)
    true = np.array([[0, 0, 0], [40, 0, 0], [40, 30, 0.0]])
    pairs = {}
    for number in range(2000):
        noise = rng.normal(size=(3, 3)) * [1.0, 0.5, 2]
        covariance = np.stack([np.diag([1.0, 0.25, 4])] * 3)
        predicted = LandmarkSet(task, true + noise, (Status.PREDICTED,) * 3, covariance_mm2=covariance, interval_factors=LEARNED)
        pairs[str(number)] = predicted, LandmarkSet.of_positions(task, true)
    found = measurement_errors(pairs, lambda _: "mm")
    for name in ("length", "opening"):
        assert found[name]["coverage_95"] == pytest.approx(95, abs=1.5) and found[name]["n_with_interval"] == 2000
    assert found["length"]["mean_absolute_error"] == pytest.approx(2**0.5 * (2 / np.pi) ** 0.5, rel=0.05)
    assert measure(pairs["0"][1])[0].value == 40


def test_shapes_are_tables_that_say_what_was_predicted_and_what_is_left_out(place, capsys):
    out = place / "shapes"
    words = ["shapes", str(place / "predictions"), "--task", str(place / "task.json"), "--out", str(out)]
    assert main(words) == 2  # three landmarks of a volume without one make no shape
    assert "3 landmarks are left, which make no shape" in capsys.readouterr().err


def test_shapes_of_a_study(tmp_path, capsys):
    task, rng = LandmarkTask("t", tuple("abcde"), 2), np.random.default_rng(0)
    (tmp_path / "task.json").write_text(json.dumps(task.to_json()))
    shape, labels = np.array([[0, 0], [10, 0], [10, 5], [0, 5], [4, 9.0]]), tmp_path / "labels"
    labels.mkdir()
    for number in range(5):
        points, status = shape * (number + 1) + rng.normal(size=(5, 2)) * 0.1, [Status.PLACED] * 4 + [Status.ACCEPTED]
        if number == 4:
            points[4], status[4] = np.nan, Status.ABSENT
        if number == 2:
            status[0] = Status.PREDICTED
        write_markups(labels / f"s{number}.mrk.json", LandmarkSet(task, points, tuple(status)))
    words = ["shapes", str(labels), "--task", str(tmp_path / "task.json"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "4 specimens laid over one another" in said.out and "left out, see left_out.csv: 1" in said.out
    assert (
        "predicted points that nobody has confirmed are in 1 specimen: s2; see the column predicted of centroid_sizes.csv"
        in said.err
    )
    sizes = pandas.read_csv(tmp_path / "out" / "centroid_sizes.csv")
    assert np.allclose(sizes["centroid_size"] / sizes["centroid_size"][0], [1, 2, 3, 4], rtol=0.05)
    assert list(sizes.loc[0, ["predicted", "placed", "accepted"]]) == [0, 4, 1]
    aligned = pandas.read_csv(tmp_path / "out" / "aligned.csv")
    assert aligned.shape == (4, 11) and np.allclose((aligned.iloc[:, 1:] ** 2).sum(axis=1), 1)
    assert np.ptp(aligned.iloc[:, 1:].to_numpy(), axis=0).max() < 0.05
    assert pandas.read_csv(tmp_path / "out" / "left_out.csv").to_numpy().tolist() == [["s4", "e"]]
    tps = (tmp_path / "out" / "specimens.tps").read_text().splitlines()
    assert tps[0] == "LM=5" and tps[6] == "ID=s0" and len(tps) == 28
    assert len(pandas.read_csv(tmp_path / "out" / "coordinates.csv")) == 25
    assert main(words) == 2
    assert "is there already, and not empty" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "more"), "--leave-out", "nobody"]) == 2
    assert "task 't' has no landmark 'nobody' to leave out" in capsys.readouterr().err


def test_only_a_table_of_its_own_is_written_over(tmp_path):
    task = LandmarkTask("pair", ("a", "b"), 2, measurements=(Measurement("ab", "distance", (("a",), ("b",))),))
    write_json(tmp_path / "task.json", task.to_json())
    points = tmp_path / "points.csv"
    points.write_text("id,a_x,a_y,b_x,b_y\none,0,0,3,4\n", encoding="utf-8")
    before = points.read_bytes()
    words = ("measure", points, "--task", tmp_path / "task.json", "--out")
    done = run(*words, points)
    assert done.code == 2 and "is there already, and no table that measure wrote: give another name" in done.err
    assert points.read_bytes() == before
    assert "is a folder: give the name of a file" in run(*words, tmp_path).err
    for _ in range(2):
        assert run(*words, tmp_path / "out.csv").code == 0


def test_what_may_be_pixels_says_so(tmp_path, capsys):
    """Of label files nobody knows whether their pictures state a spacing; the pictures tell."""
    task = LandmarkTask("pair", ("a", "b", "c"), 2, measurements=(Measurement("ab", "distance", (("a",), ("b",))),))
    write_json(tmp_path / "task.json", task.to_json())
    (tmp_path / "labels").mkdir()
    (tmp_path / "pictures").mkdir()
    for name, corner in (("first", 0.0), ("second", 1.0)):
        at = np.array([[corner, 0], [30, 0], [30, 40]])
        write_markups(tmp_path / "labels" / f"{name}.mrk.json", LandmarkSet.of_positions(task, at))
    picture = sitk.Image(50, 50, sitk.sitkUInt8)
    sitk.WriteImage(picture, str(tmp_path / "pictures" / "first.png"))
    picture.SetSpacing((0.5, 0.5))
    sitk.WriteImage(picture, str(tmp_path / "pictures" / "second.nrrd"))
    words = ["measure", str(tmp_path / "labels"), "--task", str(tmp_path / "task.json")]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "the unit of 2 cases is not known (first, second)" in said.err and "name the images with --images" in said.err
    assert said.out.count("unit not sure: the image, which may state a spacing or none, was not given") == 2
    assert main([*words, "--images", str(tmp_path / "pictures")]) == 0
    said = capsys.readouterr()
    assert (
        "first,ab,30.0,px" in said.out
        and "second,ab,29.0,mm" in said.out
        and "cases is not known" not in said.err
        and "no spacing" not in said.out
    )
    words[0] = "shapes"
    assert (
        main([*words, "--out", str(tmp_path / "tables")]) == 0 and "the unit of 2 cases is not known" in capsys.readouterr().err
    )
    assert main([*words, "--out", str(tmp_path / "known"), "--images", str(tmp_path / "pictures")]) == 0
    assert "some images state their spacing and some do not: see the column unit" in capsys.readouterr().err
    assert list(pandas.read_csv(tmp_path / "known" / "centroid_sizes.csv")["unit"]) == ["px", "mm"]


def test_a_specimen_whose_landmarks_lie_at_one_place_is_left_out(tmp_path, capsys):
    task = LandmarkTask("t", tuple("abc"), 2)
    write_json(tmp_path / "task.json", task.to_json())
    (tmp_path / "labels").mkdir()
    shape = np.array([[0, 0], [10, 0], [10, 5.0]])
    for name, at in (("one", shape), ("other", shape + 1), ("none", np.full((3, 2), 7.1))):
        write_markups(tmp_path / "labels" / f"{name}.mrk.json", LandmarkSet.of_positions(task, at))
    words = ["shapes", str(tmp_path / "labels"), "--task", str(tmp_path / "task.json"), "--out", str(tmp_path / "out")]
    assert main(words) == 0 and "2 specimens" in (said := capsys.readouterr().out) and "left out, see left_out.csv: 1" in said
    left = pandas.read_csv(tmp_path / "out" / "left_out.csv").to_numpy().tolist()
    assert left == [["none", "size: all its landmarks lie at one place"]]


def test_an_interval_that_no_model_has_learned_is_not_shown(place, capsys):
    not_learned = "the model has not learned how wide its interval has to be, which takes 19 validation cases"
    for path in (place / "predictions").glob("*.mrk.json"):
        write_markups(path, replace(read_markups(path, a_task()), interval_factors={}))
    assert main(["measure", str(place / "predictions"), "--task", str(place / "task.json")]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert all(row["low"] == row["high"] == "" for row in rows)
    assert {row["note"] for row in rows if row["value"]} >= {not_learned}
    learned = replace(read_markups(place / "predictions" / "case0.mrk.json", a_task()), interval_factors={"length": 1.5})
    write_markups(place / "predictions" / "case0.mrk.json", learned)
    assert main(["measure", str(place / "predictions"), "--task", str(place / "task.json")]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["note"] for row in rows][:2] == ["", not_learned]
    assert [bool(row["low"]) for row in rows][:2] == [True, False]


def test_a_prediction_that_a_person_moved_has_no_interval_of_the_models(place, capsys):
    files = {path: read_markups(path, a_task()) for path in sorted((place / "predictions").glob("case[01].mrk.json"))}
    with PredictionFolder(place / "noted", "a model") as folder:
        for path, landmarks in files.items():
            folder.write(path.name.partition(".")[0], "pixels", landmarks, "a model")
    moved = place / "noted" / "case1.mrk.json"
    landmarks = read_markups(moved, a_task())
    write_markups(moved, replace(landmarks, positions_mm=landmarks.positions_mm + 0.5), "a model")
    assert main(["measure", str(place / "noted"), "--task", str(place / "task.json")]) == 0
    said = capsys.readouterr()
    rows = list(csv.DictReader(said.out.splitlines()))
    assert [bool(row["low"]) for row in rows] == [True, True, False, False]
    assert rows[2]["note"] == "it is not known how far off a, b may be"
    assert "without intervals, since changed after they were predicted: 1 file (case1)" in said.err
