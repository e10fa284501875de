"""``import`` of what people have: every file is accounted for, points lie inside, names and readers are as the files say."""

from __future__ import annotations

import json
import shutil
import unicodedata
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from import_folder import POINTS, TASK, Folder
from PIL import Image as Picture
from program import ok, run

from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.files import write_json
from landmarklabel.io.images import Image, describe_image, write_image
from landmarklabel.landmarks import LandmarkTask, Status
from landmarklabel.store.study import Study


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


def test_what_looks_like_a_mark_of_something_missing_is_imported_and_said(folder):
    folder.label("a.mrk.json", np.array([[0.0, 0.0], [20.0, 10.0]]))
    folder.label("b.mrk.json", np.array([[5.0, 0.0], [20.0, 10.0]]))
    done = folder.run("--markups", folder.labels)
    assert done.code == 0 and folder.saved()["a"][0][1] == [[0, 0], [20, 10]]
    assert "a: points at exactly (0, 0), as some programs mark what is missing: leave such cells empty, or check them" in done.err
    assert "b: points" not in done.err


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
    (of_mark,) = [line for line in done.err.splitlines() if "usual mark" in line]
    assert "they would be inside" not in of_mark  # a mark is no point that somebody has placed elsewhere
    assert list(folder.saved()) == ["b"]
    done = folder.run(*table, "--allow-outside", 3)  # a mark of a missing point is none to be kept
    assert done.code == 2 and list(folder.saved()) == ["a", "b"]
    assert folder.saved()["a"] == [("import", [[5, 6], [42, 10]])]


@pytest.mark.parametrize("wrong", ["-1,-1", "55,6"])
def test_each_reader_is_looked_at_before_the_mean_is_taken(tmp_path, wrong):
    """The mean of a right point and of a mark of a missing one lies inside of the image, halfway to its corner."""
    write_json(tmp_path / "task.json", LandmarkTask("t", ("N", "S"), 2).to_json())
    for name in "ab":
        sitk.WriteImage(sitk.Image(40, 40, sitk.sitkUInt8), str(tmp_path / f"{name}.png"))
    rows = [f"{i},{n},{x},6,{who}" for i in "ab" for n, x in (("N", 12), ("S", 30)) for who in ("ann", "bob")]
    rows = [row.replace("12,6", wrong) if row.startswith("a,N") and row.endswith("bob") else row for row in rows]
    (tmp_path / "points.csv").write_text("\n".join(["id,label,x,y,annotator", *rows, ""]), encoding="utf-8")
    words = "import", tmp_path / "study", "--task", tmp_path / "task.json"
    done = run(*words, "--images", tmp_path, "--table", tmp_path / "points.csv")
    assert done.code == 2 and "landmarks of a by bob: landmark 'N'" in done.err and "1 labelled" in done.out
    study = Study(tmp_path / "study", LandmarkTask("t", ("N", "S"), 2))
    assert [r.author for r in study.history("b")] == ["import"] and list(study.labelled()) == ["b"]
    study.close()


def test_a_mark_of_a_missing_point_makes_no_guess_at_the_others(tmp_path):
    write_json(tmp_path / "task.json", LandmarkTask("t", ("N", "S", "A"), 2).to_json())
    sitk.WriteImage(sitk.Image(20, 20, sitk.sitkUInt8), str(tmp_path / "a.png"))
    (tmp_path / "points.csv").write_text("id,N_x,N_y,S_x,S_y,A_x,A_y\na,-1,-1,12,10,5,6\n", encoding="utf-8")
    words = "import", tmp_path / "study", "--task", tmp_path / "task.json"
    done = run(*words, "--images", tmp_path / "a.png", "--table", tmp_path / "points.csv")
    assert done.code == 2 and "a usual mark of a missing point" in done.err and "would be inside" not in done.err


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
    assert "two readers' points lie 2.83 apart on average (unit of the table), farthest at N with 2.83\n" in done.err
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
        ("id,label,x,y\n", "it has no rows below its header"),
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
