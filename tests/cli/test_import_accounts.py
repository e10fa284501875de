"""``import`` of what people have: every file is accounted for, points lie inside, names and readers are as the files say."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image as Picture
from program import Done, ok, run

from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.files import write_json
from landmarklabel.io.images import Image, describe_image, write_image
from landmarklabel.io.markups import write_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.store.study import Study

TASK = LandmarkTask("two", ("N", "S"), 2)
POINTS = np.array([[5.0, 6.0], [20.0, 10.0]])


class Folder:
    """Pictures of 40 x 30 pixels and a task, and what is imported of them."""

    def __init__(self, folder: Path, *ids: str):
        self.folder, self.images, self.labels = folder, folder / "images", folder / "labels"
        for place in (self.images, self.labels):
            place.mkdir()
        write_json(folder / "task.json", TASK.to_json())
        for image_id in ids:
            Picture.fromarray(np.random.default_rng(sum(image_id.encode())).integers(0, 255, (30, 40)).astype(np.uint8)).save(
                self.images / f"{image_id}.png"
            )

    def run(self, *words: object) -> Done:
        return run("import", self.folder / "study", "--task", self.folder / "task.json", "--images", self.images, *words)

    def table(self, text: str) -> tuple[str, Path]:
        (self.folder / "t.csv").write_text(text, encoding="utf-8")
        return "--table", self.folder / "t.csv"

    def label(self, name: str, points: np.ndarray = POINTS, task: LandmarkTask = TASK) -> Path:
        write_markups(self.labels / "x.mrk.json", LandmarkSet.of_positions(task, points))
        return (self.labels / "x.mrk.json").rename(self.labels / name)

    def saved(self) -> dict[str, list[tuple[str, list]]]:
        """(author, positions) of every revision of every image."""
        with closing(Study(self.folder / "study", TASK)) as study:
            return {
                i: [(r.author, study.read(r).positions_mm.tolist()) for r in study.history(i)]
                for i in study.images()
                if study.history(i)
            }


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path, "a", "b", "c")


# --- every file is accounted for -------------------------------------------------------------------------------------


def test_what_is_left_out_is_named_with_its_reason(folder):
    (folder.images / "notes.txt").write_text("", encoding="utf-8")
    (folder.images / "sub").mkdir()
    (folder.images / "lost.raw").write_bytes(b"0")
    for name in ("a.mrk.json", "b.json", "c.MRK.JSON"):
        folder.label(name)
    done = folder.run("--markups", folder.labels)
    assert done.code == 0 and "3 images, 1 labelled (1 new or changed), 2 without landmarks" in done.out
    for text in (
        "notes.txt (no image format that is read",
        "sub (a folder without DICOM files",
        "lost.raw (data without a header that names it)",
        "b.json (label files are called <image>.mrk.json)",
        "c.MRK.JSON (its ending must be written .mrk.json or .fcsv)",
    ):
        assert text in done.err, text


def test_label_files_beside_their_images_are_not_left_out(folder):
    folder.label("a.mrk.json").rename(folder.images / "a.mrk.json")
    done = folder.run("--markups", folder.images)
    assert done.code == 0 and "left out" not in done.err


def test_complete_imports_nothing_unless_all_match(folder):
    folder.label("a.mrk.json")
    folder.label("z.mrk.json")
    done = folder.run("--markups", folder.labels, "--complete")
    assert done.error_line == (
        "landmarklabel: --complete: 1 labels have no image: z and 2 images have no landmarks: b, c; nothing was imported\n"
    )
    assert not (folder.folder / "study").exists()
    for name in ("b.mrk.json", "c.mrk.json"):
        folder.label(name)
    (folder.labels / "z.mrk.json").unlink()
    assert folder.run("--markups", folder.labels, "--complete").code == 0 and len(folder.saved()) == 3


def test_two_label_files_of_one_image_are_refused(folder):
    folder.label("a.mrk.json")
    folder.label("a.png.mrk.json")
    done = folder.run("--markups", folder.labels)
    assert "a.mrk.json and a.png.mrk.json are both labels of image 'a'" in done.error_line


def test_pictures_in_other_formats_count(folder):
    picture = Picture.open(folder.images / "a.png")
    for name in ("d.bmp", "e.tif", "f.jpg"):
        picture.save(folder.images / name)
    done = folder.run()
    assert done.code == 0 and "6 images" in done.out


# --- points -----------------------------------------------------------------------------------------------------------


def test_points_outside_are_refused_unless_meant(folder):
    table = folder.table("id,N_x,N_y,S_x,S_y\na,5,6,42,10\nb,5,6,20,10\nc,-1,-1,20,10\n")
    done = folder.run(*table)
    assert done.code == 2 and "1 labelled" in done.out and "2 of 3 images were not imported" in done.err
    assert "landmark 'S' at (42, 10) is 2.5 outside of the image" in done.err
    assert "landmark 'N' at (-1, -1)" in done.err and "a usual mark of a missing point" in done.err
    assert list(folder.saved()) == ["b"]
    done = folder.run(*table, "--allow-outside", 3)  # a mark of a missing point is none to be kept
    assert done.code == 2 and list(folder.saved()) == ["a", "b"]
    assert folder.saved()["a"] == [("import", [[5, 6], [42, 10]])]


@pytest.mark.parametrize(
    ("factor", "hint"),
    [
        (2, "halved they would be inside"),
        (10, "a tenth of them would be inside"),
        (-1, "read as RAS they would be inside"),
    ],
)
def test_the_usual_mistakes_are_guessed(tmp_path, factor, hint):
    folder = Folder(tmp_path)
    image = Image(ImageGeometry((20, 20, 20), (1.0,) * 3, (30.0, 30.0, 20.0), np.eye(3)), np.zeros((20, 20, 20), np.uint8))
    write_image(folder.images / "v.nii.gz", image)
    task = LandmarkTask("solid", TASK.names, 3)
    write_json(tmp_path / "task.json", task.to_json())
    points = np.array([[33.0, 48, 25], [47, 33, 38]]) * ([-1, -1, 1] if factor == -1 else factor)
    folder.label("v.mrk.json", points, task)
    assert hint in folder.run("--markups", folder.labels).err


def test_how_far_outside_is_a_distance_in_mm(tmp_path):
    folder = Folder(tmp_path)
    geometry = ImageGeometry((20, 20, 20), (2.0, 3.0, 1.0), (0.0, 0.0, 0.0), np.eye(3))
    write_image(folder.images / "v.nii.gz", Image(geometry, np.arange(8000, dtype=np.int16).reshape(20, 20, 20)))
    task = LandmarkTask("solid", TASK.names, 3)
    write_json(tmp_path / "task.json", task.to_json())
    folder.label("v.mrk.json", np.array([[10.0, 10, 10], [39 + 3.0, 58.5 + 4.0, 10]]), task)
    assert "is 5 outside of the image" in folder.run("--markups", folder.labels).err
    assert folder.run("--markups", folder.labels, "--allow-outside", 4.9).code == 2
    assert folder.run("--markups", folder.labels, "--allow-outside", 5.1).code == 0


def test_ids_that_a_spreadsheet_has_shortened_find_their_images(tmp_path):
    folder = Folder(tmp_path, "001", "002", "010", "10")
    done = folder.run(*folder.table("id,N_x,N_y,S_x,S_y\n1,1,2,3,4\n2,5,6,7,8\n10,9,9,8,8\n"))
    assert done.code == 0 and "2 ids have lost leading zeros, as a spreadsheet does: 1 was taken for image 001" in done.err
    assert {i: r[0][1][0] for i, r in folder.saved().items()} == {"001": [1, 2], "002": [5, 6], "10": [9, 9]}


def test_composed_and_decomposed_names_are_the_same(tmp_path):
    folder = Folder(tmp_path, unicodedata.normalize("NFD", "Müller"))
    done = folder.run(*folder.table(unicodedata.normalize("NFC", "id,N_x,N_y,S_x,S_y\nMüller,1,2,3,4\n")))
    assert done.code == 0 and "1 labelled" in done.out and "no image" not in done.err


def test_two_ids_that_would_be_one_image_are_refused(tmp_path):
    folder = Folder(tmp_path, "001")
    done = folder.run(*folder.table("id,N_x,N_y,S_x,S_y\n1,1,2,3,4\n01,5,6,7,8\n"))
    assert "01, 1 would all be image 001: keep one of them" in done.error_line
    done = folder.run(*folder.table("id,N_x,N_y,S_x,S_y\n1.0,1,2,3,4\n"))
    assert done.code == 0 and folder.saved()["001"][0][1][0] == [1, 2]


def test_a_distance_that_is_none_is_refused(folder):
    for word in ("nan", "-1", "inf"):
        assert "must be a distance, 0 or more" in folder.run(f"--allow-outside={word}").error_line


def test_a_models_points_become_nobodys_by_a_table(folder):
    wide = "id,N_x,N_y,N_status,S_x,S_y,S_status\na,5,6,Predicted,20,10,placed\nb,5,6,absent,20,10,\n"
    assert folder.run(*folder.table(wide)).code == 0
    with closing(Study(folder.folder / "study", TASK)) as study:
        a, b = (study.read(study.history(i)[-1]).status for i in "ab")
    assert a == (Status.PREDICTED, Status.PLACED) and b == (Status.ABSENT, Status.PLACED)
    shutil.rmtree(folder.folder / "study")
    rows = "id,label,x,y,annotator,status\na,N,5,6,ann,placed\na,N,9,9,model,predicted\na,S,7,8,model,predicted\n"
    assert folder.run(*folder.table(rows)).code == 0
    with closing(Study(folder.folder / "study", TASK)) as study:
        found = study.read(study.history("a")[-1])
    assert found.status == (Status.PLACED, Status.PREDICTED) and found.positions_mm.tolist() == [[5, 6], [7, 8]]


def test_two_kinds_of_decimal_marks_are_refused(folder):
    done = folder.run(*folder.table("id\tN_x\tN_y\tS_x\tS_y\na\t1,234\t2\t12.5\t3\n"))
    assert "row 2: '1,234' beside '12.5': which is a decimal mark?" in done.error_line


def test_the_column_of_ids_may_be_called_image(folder):
    assert folder.run(*folder.table("number,image,N_x,N_y,S_x,S_y\nc,a,1,2,3,4\n")).code == 0
    assert list(folder.saved()) == ["a"]


def test_a_page_never_replaces_what_is_no_page(folder):
    words = folder.table("id,N_x,N_y,S_x,S_y\na,1,2,3,4\n")
    done = folder.run(*words, "--preview", words[1])
    assert "a page's name must end in .html" in done.err and words[1].read_text(encoding="utf-8").startswith("id,")


def test_a_header_without_spacing_stays_one_in_pixels(folder):
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 255, (30, 40)).astype(np.uint8))
    sitk.WriteImage(image, str(folder.images / "d.mhd"))
    header = (folder.images / "d.mhd").read_text(encoding="utf-8")
    lines = [line for line in header.splitlines(keepends=True) if not line.startswith("ElementSpacing")]
    (folder.images / "d.mhd").write_text("".join(lines), encoding="utf-8")
    assert folder.run().code == 0
    with closing(Study(folder.folder / "study", TASK)) as study:
        path = study.image_path("d")
    assert path.suffix == ".mha" and describe_image(path).unit == "px"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), sitk.GetArrayFromImage(image))


# --- long tables --------------------------------------------------------------------------------------------------------

LONG = (
    "annotator,y,x,label,id,extra\nann1,6,5,N,a,1\nann1,10,20,S,a,1\nann2,8,7,N,a,1\nann2,absent,absent,S,a,1\nann1,1,1,Z,b,1\n"
)


def test_a_long_table_is_the_mean_of_its_readers(folder):
    done = folder.run(*folder.table(LONG))
    assert done.code == 0 and "has points by ann1, ann2: their mean is taken" in done.err
    assert "rows of labels that the task does not have are left out: ['Z']" in done.err
    assert folder.saved()["a"] == [("import", [[6, 7], [20, 10]])]


def test_readers_of_a_long_table_can_be_kept_or_chosen(folder):
    assert folder.run(*folder.table(LONG), "--annotators", "both").code == 0
    assert [who for who, _ in folder.saved()["a"]] == ["ann1", "ann2", "import"]
    shutil.rmtree(folder.folder / "study")
    assert folder.run(*folder.table(LONG), "--annotators", "ann2").code == 0
    (who, positions), *more = folder.saved()["a"]
    assert who == "ann2" and positions[0] == [7, 8] and np.isnan(positions[1]).all() and not more
    done = folder.run(*folder.table(LONG), "--annotators", "bob")
    assert "has nothing by 'bob'; it has points by ann1, ann2" in done.error_line


def test_decimal_commas_between_semicolons(folder):
    assert folder.run(*folder.table("id;label;x;y\na;N;5,25;6,5\na;S;20;10\n")).code == 0
    assert folder.saved()["a"] == [("import", [[5.25, 6.5], [20, 10]])]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("id,label,x,y\na,N,1,2\na,N,3,4\n", "row 3: landmark 'N' of image 'a' was already given"),
        ("id,label,x,y\na,N,1\n", "row 2: 3 cells, expected are 4"),
        ("id,label,x,y\na,Z,1,2\n", "no row with a landmark of task 'two' (['N', 'S']); it has ['Z']"),
        ("id,label,x,y,z\na,N,1,2,3\n", "row 2: z is '3', but task 'two' is 2D"),
        ("who,label,x,y\na,N,1,2\n", "no column with the image id; it is called id"),
        ("id,label,x,y\na,N,1,\n", "is only partly given"),
    ],
)
def test_faults_of_long_tables(folder, text, fault):
    assert fault in folder.run(*folder.table(text)).error_line


def test_a_task_is_made_of_a_long_table(folder):
    _, table = folder.table(LONG)
    ok("task", "new", "made", "--from", table, "--dims", 2, "--out", folder.folder / "made.json")
    made = json.loads((folder.folder / "made.json").read_text(encoding="utf-8"))
    assert [landmark["name"] for landmark in made["landmarks"]] == ["N", "S", "Z"]


# --- other names ----------------------------------------------------------------------------------------------------------


def names(folder: Folder, **names: str | None) -> tuple[str, Path]:
    write_json(folder.folder / "names.json", names)
    return "--names", folder.folder / "names.json"


def test_names_that_differ(folder):
    theirs = LandmarkTask("theirs", ("nasion", "other", "S"), 2)
    folder.label("a.mrk.json", np.array([[1.0, 2], [3, 4], [5, 6]]), theirs)
    assert "other" in folder.run("--markups", folder.labels).error_line
    done = folder.run("--markups", folder.labels, *names(folder, nasion="N", other=None))
    assert done.code == 0 and folder.saved()["a"] == [("import", [[1, 2], [5, 6]])]
    shutil.rmtree(folder.folder / "study")
    done = folder.run(*folder.table("id,nasion_x,nasion_y,S_x,S_y\na,1,2,5,6\n"), *names(folder, nasion="N"))
    assert done.code == 0 and folder.saved()["a"] == [("import", [[1, 2], [5, 6]])]
    shutil.rmtree(folder.folder / "study")
    done = folder.run(*folder.table("id,label,x,y\na,nasion,1,2\na,S,5,6\n"), *names(folder, nasion="N"))
    assert done.code == 0 and folder.saved()["a"] == [("import", [[1, 2], [5, 6]])]


def test_names_that_are_to_be_left_out_of_a_wide_table(folder):
    table = folder.table("id,N_x,N_y,S_x,S_y,Q_x,Q_y\na,1,2,5,6,7,8\n")
    assert folder.run(*table, *names(folder, Q="N", N=None)).code == 0
    assert folder.saved()["a"] == [("import", [[7, 8], [5, 6]])]
    said = folder.run(*table, *names(folder, Q="N")).error_line
    assert "landmark 'N' is there twice, under two of the names" in said
    (folder.folder / "names.json").write_text(json.dumps({unicodedata.normalize("NFD", "ü"): "N"}), encoding="utf-8")
    shutil.rmtree(folder.folder / "study")
    table = folder.table("id,ü_x,ü_y,S_x,S_y\na,1,2,5,6\n")
    assert folder.run(*table, "--names", folder.folder / "names.json").code == 0 and len(folder.saved()) == 1


def test_mistakes_of_names(folder):
    folder.label("a.mrk.json", POINTS, LandmarkTask("theirs", ("nasion", "N"), 2))
    said = folder.run("--markups", folder.labels, *names(folder, nasion="N")).error_line
    assert "landmark 'N' is there twice, under two of the names that --names gives it" in said
    said = folder.run("--markups", folder.labels, *names(folder, nasion="X")).error_line
    assert "task 'two' has no landmark 'X'" in said
    said = folder.run(*folder.table("a,1,2,3,4\n"), *names(folder, nasion="N")).error_line
    assert "--names goes with" in said
    (folder.folder / "names.json").write_text("[]", encoding="utf-8")
    said = folder.run("--markups", folder.labels, "--names", folder.folder / "names.json").error_line
    assert 'must be JSON of the form {"name in the files": "landmark of the task" or null}' in said


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
