"""``import`` of whole collections as other programs keep them (MONAI Label, CL-Detection), and a look before it."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from import_folder import POINTS, TASK, Folder
from program import Done, run

from landmarklabel.io.files import write_json
from landmarklabel.landmarks import Status
from landmarklabel.store.study import Study


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path, "a", "b", "c")


# --- MONAI Label's datastore -----------------------------------------------------------------------------------------------


@pytest.fixture
def datastore(tmp_path) -> Path:
    """Made by MONAI Label's own local datastore, with the notes that its clients send."""
    from monailabel.datastore.local import LocalDatastore

    folder = tmp_path / "datastore"
    made = Folder(tmp_path, "a", "b", "c")
    shutil.copytree(made.images, folder)
    store = LocalDatastore(str(folder), extensions=("*.png", "*.mrk.json"))
    for image_id, tag, points, info in (
        ("a", "original", POINTS + 9, {"ts": 1700000000}),
        ("a", "second", POINTS + 1, {"client_id": "bob"}),
        ("a", "final", POINTS, {"annotator": "ann", "client_id": "her-laptop"}),
        ("b", "original", POINTS, {}),
    ):
        label = made.label(f"{image_id}-{tag}.mrk.json", points)
        store.save_label(image_id, str(label), tag, info)
    return folder


def test_a_monailabel_datastore_opens_with_its_annotators_and_times(datastore, tmp_path):
    done = run("import", tmp_path / "study", "--task", tmp_path / "task.json", "--monailabel", datastore)
    assert done.code == 0 and "3 images, 1 labelled" in done.out, done
    with closing(Study(tmp_path / "study", TASK)) as study:
        history = study.history("a")
        assert [r.author for r in history] == ["original", "bob", "ann"]
        points = [study.read(r) for r in history]
        np.testing.assert_array_equal(points[-1].positions_mm, POINTS)
        assert set(points[0].status) == {Status.PREDICTED} and set(points[-1].status) == {Status.PLACED}
        record = json.loads((datastore / "datastore_v2.json").read_text(encoding="utf-8"))
        stamp = record["objects"]["a"]["labels"]["final"]["info"]["ts"]
        assert re.match(r"20\d\d-\d\d-\d\dT", history[-1].body["made"]) and stamp > 1.7e9
        assert "b" not in study.labelled()  # nobody has looked at what the model answered
    again = run("import", tmp_path / "study", "--task", tmp_path / "task.json", "--monailabel", datastore)
    assert "(0 new or changed)" in again.out


def test_a_datastore_that_leads_elsewhere_or_is_damaged_is_refused(datastore, tmp_path):
    words = ("import", tmp_path / "study", "--task", tmp_path / "task.json", "--monailabel", datastore)
    record = json.loads((datastore / "datastore_v2.json").read_text(encoding="utf-8"))
    write_json(datastore / "datastore_v2.json", record | {"images_dir": "../.."})
    assert "names the folder '../..', which is outside of the datastore" in run(*words).error_line
    moved = json.loads(json.dumps(record))
    moved["objects"]["../a"] = moved["objects"].pop("a")
    write_json(datastore / "datastore_v2.json", moved)
    done = run(*words)
    assert done.code == 0 and "../a.png (datastore_v2.json names it, but it is not there)" in done.err
    shutil.copyfile(datastore / "a.png", datastore.parent / "a.png")  # what a name may not reach
    label = datastore / "labels" / "final" / "a.mrk.json"
    shutil.copyfile(label, datastore.parent / "a.mrk.json")
    moved["objects"]["a"] = {"image": {"ext": ".png"}, "labels": {"..": {"ext": ".mrk.json", "info": {}}}}
    write_json(datastore / "datastore_v2.json", moved | {"labels_dir": "."})
    done = run(*words[:1], tmp_path / "other", *words[2:])
    assert "datastore/../a.mrk.json (datastore_v2.json names it, but it is not there)" in done.err
    assert "3 images, 0 labelled" in done.out, done
    (datastore / "datastore_v2.json").write_text('{"objects": 1}', encoding="utf-8")
    assert "not a record of a MONAI Label datastore" in run(*words).error_line
    (datastore / "datastore_v2.json").unlink()
    assert "no MONAI Label datastore" in run(*words).error_line


def test_the_way_back_monailabel_finds_the_labels_of_a_study(folder):
    """As README says: MONAI Label's own datastore over a study, told that label files end in .mrk.json."""
    from monailabel.datastore.local import LocalDatastore

    for name in ("a.mrk.json", "c.mrk.json"):
        folder.label(name)
    assert folder.run("--markups", folder.labels).code == 0
    copy = Path(shutil.copytree(folder.folder / "study", folder.folder / "theirs"))
    store = LocalDatastore(str(copy), extensions=("*.png", "*.mrk.json"))
    assert sorted(store.list_images()) == ["a", "b", "c"]
    assert sorted(Path(row["label"]).name for row in store.datalist()) == ["a.mrk.json", "c.mrk.json"]


# --- CL-Detection -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["packed", "plain"])
def challenge(request, tmp_path) -> tuple[Folder, list[dict]]:
    """Three slices of different sizes, padded to one, in colours that are all grey; two marked pixels each."""
    folder, rng = Folder(tmp_path), np.random.default_rng(0)
    stack, points = np.zeros((3, 32, 44, 3), np.uint8), []
    for number, (rows, columns) in enumerate([(30, 40), (28, 36), (25, 44)], 1):
        stack[number - 1, :rows, :columns] = rng.integers(1, 200, (rows, columns, 1))
        for k, name in enumerate(TASK.names):
            x, y = int(rng.integers(columns)), int(rng.integers(rows))
            stack[number - 1, y, x] = 250 + k
            points.append({"name": name, "point": [x, y, number], "scale": "0.125" if number == 1 else "0.1"})
    sitk.WriteImage(sitk.GetImageFromArray(stack, isVector=True), str(folder.images / "train_stack.mha"), request.param)
    write_json(folder.images / "train-gt.json", {"name": "x", "type": "Multiple points", "points": points})
    return folder, points


def importing(folder: Folder) -> Done:
    words = ("--task", folder.folder / "task.json", "--cl-detection", folder.images)
    return run("import", folder.folder / "study", *words)


def test_a_stack_of_all_images_with_its_points(challenge):
    folder, _ = challenge
    done = importing(folder)
    assert done.code == 0 and "3 images, 3 labelled" in done.out, done
    sizes = {}
    with closing(Study(folder.folder / "study", TASK)) as study:
        for image_id, landmarks in study.labelled().items():
            image = sitk.ReadImage(str(study.image_path(image_id)))
            sizes[image_id] = image.GetSize(), round(image.GetSpacing()[0], 6)
            at = [image.TransformPhysicalPointToIndex(p.tolist()) for p in landmarks.positions_mm]
            assert [image[i] for i in at] == [250, 251]
    assert sizes == {"1": ((40, 30), 0.125), "2": ((36, 28), 0.1), "3": ((44, 25), 0.1)}


def test_colours_of_a_stack_become_the_luminance_that_other_readers_see(challenge):
    folder, _ = challenge
    stack = sitk.GetArrayFromImage(sitk.ReadImage(str(folder.images / "train_stack.mha")))
    stack[:, 0, 0] = (10, 200, 60)
    sitk.WriteImage(sitk.GetImageFromArray(stack, isVector=True), str(folder.images / "train_stack.mha"))
    assert importing(folder).code == 0
    with closing(Study(folder.folder / "study", TASK)) as study:
        grey = sitk.GetArrayFromImage(sitk.ReadImage(str(study.image_path("1"))))
    assert grey[0, 0] == round(0.2125 * 10 + 0.7154 * 200 + 0.0721 * 60)


def test_an_image_without_points_has_no_known_size_and_is_left_out(challenge):
    folder, points = challenge
    write_json(folder.images / "train-gt.json", {"points": [p for p in points if p["point"][2] != 2]})
    done = importing(folder)
    assert done.code == 0 and "2 images, 2 labelled" in done.out
    assert "image 2 (train-gt.json has no point of it, and so not the size of its pixels)" in done.err


def test_faults_of_a_stack(challenge):
    folder, points = challenge
    stack, truth = folder.images / "train_stack.mha", folder.images / "train-gt.json"
    for change, fault in (
        ({"name": "Z"}, "landmarks ['Z'] are not in the task"),
        ({"scale": "x"}, "point 1: scale 'x' is no size of a pixel in mm"),
        ({"scale": "0.2"}, "image 1 has pixels of 0.2 and of 0.125 mm"),
        ({"point": [1, 2]}, "is not a name with [x, y, number of the image from 1]"),
        ({"name": "S"}, "landmark 'S' of image 1 was already given"),
    ):
        write_json(truth, {"points": [points[0] | change, *points[1:]]})
        assert fault in importing(folder).error_line, fault
    write_json(truth, {"points": points})
    stack.write_bytes(stack.read_bytes()[:-200])
    assert re.search("truncated|damaged compressed data", importing(folder).error_line)
    stack.unlink()
    assert "needs one .mha file with all images and one .json file; there are 0 .mha, 1 .json" in importing(folder).error_line


# --- the preview ------------------------------------------------------------------------------------------------------------


def test_a_preview_shows_the_points_and_imports_nothing(folder):
    folder.label("a.mrk.json")
    folder.label("b.mrk.json", POINTS + 30)
    folder.label("z.mrk.json")
    page = folder.folder / "sheet.html"
    done = folder.run("--markups", folder.labels, "--preview", page)
    assert done.code == 2 and "1 of 3 images would not be imported" in done.err and "1 labels have no image: z" in done.err
    assert done.out == f"{page}: 3 images, 2 with points; nothing was imported\n"
    assert not (folder.folder / "study").exists()
    html = page.read_text(encoding="utf-8")
    stamps = re.findall(r'<figure class="stamp[^"]*">.*?</figure>', html, re.DOTALL)
    assert len(stamps) == 3 and "marked" in stamps[0] and ">b</figcaption>" in stamps[0]
    a = next(s for s in stamps if ">a</figcaption>" in s)
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)".*?fill="#35d07f"><title>(\w)</title>', a)
    (width,) = re.findall(r'viewBox="0 0 (\d+) ', a)
    scale = int(width) / 40
    for (x, y, name), right, wanted in zip(circles, POINTS, TASK.names, strict=True):
        assert name == wanted and abs(float(x) - (right[0] + 0.5) * scale) < 0.1 * scale
        assert abs(float(y) - (right[1] + 0.5) * scale) < 0.1 * scale
    assert stamps[0].count('fill="#ff4d4d"') == 2
    assert "<script" not in html and not re.search(r"https?:", re.sub(r"base64,[^\"]*", "", html))
