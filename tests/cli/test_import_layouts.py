"""``import`` of the seeds' data as it comes: ISBI text files, voxel lists and masks, each from end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from landmarklabel.cli import main
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.files import write_json
from landmarklabel.io.images import Image, write_image
from landmarklabel.landmarks import LandmarkTask, Status
from landmarklabel.store.study import Study

FLAT = LandmarkTask("ceph", ("sella", "nasion"), 2)
SOLID = LandmarkTask("ear", ("left", "right"), 3)
TURNED = ImageGeometry((9, 7, 5), (0.5, 1, 2), (10, -20, 30), [[0, -1, 0], [0, 0, 1], [-1, 0, 0]])


def files(folder: Path, **contents: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name.lstrip("_").replace("__", ".")).write_text(content, encoding="utf-8")
    return folder


def material(folder: Path, task: LandmarkTask, geometry: ImageGeometry, suffix: str) -> list[str]:
    """Two empty images and a task file; returns the words every import starts with."""
    write_json(folder / "task.json", task.to_json())
    for image_id in ("001", "002"):
        write_image(folder / "images" / (image_id + suffix), Image(geometry, np.zeros(geometry.size[::-1], np.uint8)))
    return ["import", *(str(folder / w) for w in ("study",)), "--task", f"{folder}/task.json", "--images", f"{folder}/images"]


@pytest.fixture
def flat(tmp_path) -> list[str]:
    files(tmp_path / "400_senior", _001__txt="10,20\n30,40\n1\n2\n", _002__txt="11,21\n31,41\n1\n2\n")
    files(tmp_path / "400_junior", _001__txt="12,20\n30,46\n1\n3\n", _002__txt="11,21\n31,41\n1\n2\n")
    return material(tmp_path, FLAT, ImageGeometry.identity((60, 50)), ".png")


@pytest.fixture
def solid(tmp_path) -> list[str]:
    return material(tmp_path, SOLID, TURNED, ".nii.gz")


def opened(folder: Path, task: LandmarkTask) -> dict[str, list[tuple[str, list]]]:
    """Author and positions of every revision."""
    study = Study(folder / "study", task)
    out = {
        image_id: [(r.author, [entry["position"] for entry in r.body["landmarks"]]) for r in study.history(image_id)]
        for image_id in study.images()
    }
    study.close()
    return out


def refused(words: list[str], capsys) -> str:
    assert main(words) == 2
    return capsys.readouterr().err


# --- ISBI ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), [[11, 20], [30, 43]]),
        (("--annotators", "mean"), [[11, 20], [30, 43]]),
        (("--annotators", "first"), [[10, 20], [30, 40]]),
        (("--annotators", "second"), [[12, 20], [30, 46]]),
    ],
)
def test_isbi(flat, tmp_path, words, expected):
    assert main([*flat, "--isbi", f"{tmp_path}/400_senior", f"{tmp_path}/400_junior", *words]) == 0
    assert opened(tmp_path, FLAT) == {"001": [("import", expected)], "002": [("import", [[11, 21], [31, 41]])]}


def test_isbi_readers_are_looked_at_before_their_mean_is_taken(flat, tmp_path, capsys):
    (tmp_path / "400_junior" / "001.txt").write_text("-1,-1\n30,46\n1\n3\n", encoding="utf-8")
    words = [*flat, "--isbi", f"{tmp_path}/400_senior", f"{tmp_path}/400_junior"]
    said = refused(words, capsys)
    assert "400_junior/001.txt: landmark 'sella'" in said and "is outside of the image, which has 60 50 samples" in said
    assert opened(tmp_path, FLAT) == {"002": [("import", [[11, 21], [31, 41]])]}


def test_isbi_of_one_annotator(flat, tmp_path):
    assert main([*flat, "--isbi", f"{tmp_path}/400_junior"]) == 0
    assert opened(tmp_path, FLAT)["001"] == [("import", [[12, 20], [30, 46]])]


def test_isbi_annotators_kept_apart(flat, tmp_path, capsys):
    words = [*flat, "--isbi", f"{tmp_path}/400_senior", f"{tmp_path}/400_junior/", "--annotators", "both"]
    for _ in range(2):  # again changes nothing
        assert main(words) == 0
        revisions = opened(tmp_path, FLAT)
        assert revisions["001"] == [
            ("400_senior", [[10, 20], [30, 40]]),
            ("400_junior", [[12, 20], [30, 46]]),
            ("import", [[11, 20], [30, 43]]),
        ]
        assert [author for author, _ in revisions["002"]] == ["400_senior", "400_junior", "import"]  # equal, yet kept
    assert "(2 new or changed)" in (out := capsys.readouterr().out) and "(0 new or changed)" in out


def test_isbi_annotators_added_to_a_mean(flat, tmp_path):
    words = [*flat, "--isbi", f"{tmp_path}/400_senior", f"{tmp_path}/400_junior"]
    assert main(words) == 0 and main([*words, "--annotators", "both"]) == 0
    authors = [author for author, _ in opened(tmp_path, FLAT)["001"]]
    assert authors == ["import", "400_senior", "400_junior", "import"]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--isbi", "400_senior", "--annotators", "both"), "--isbi got 1 folders; --annotators both takes two"),
        (("--isbi", "400_senior", "--annotators", "second"), "--isbi got 1 folders; --annotators second takes two"),
        (("--isbi", *["400_senior"] * 3), "--isbi got 3 folders; --annotators mean takes one or two"),
        (("--isbi", *["400_senior"] * 2, "--annotators", "both"), "both --isbi folders are called '400_senior'"),
        (("--annotators", "both"), "--annotators goes with --isbi or a long --table only"),
        (("--rule", "centroid"), "--rule goes with --masks only"),
        (("--masks", "images"), "--masks needs --rule centroid or --rule extremes"),
        (("--isbi", "nowhere"), "nowhere: not a folder that can be read"),
        (("--isbi", "400_senior", "bad"), "bad: 001.txt: 1 rows of coordinates, the task 'ceph' has 2 landmarks"),
        (("--isbi", "400_senior", "half"), "image '002': only 400_senior/002.txt has its points"),
    ],
)
def test_mistakes_end_in_one_line(flat, tmp_path, capsys, monkeypatch, words, fault):
    files(tmp_path / "bad", _001__txt="1,2\n")
    files(tmp_path / "half", _001__txt="1,2\n3,4\n")
    monkeypatch.chdir(tmp_path)
    error = refused([*flat, *words], capsys)
    assert fault in error and error.count("\n") == 1 and not (tmp_path / "study").exists()


# --- voxel lists ---------------------------------------------------------------------------------------------------


def test_voxels_beside_the_images(solid, tmp_path, capsys):
    files(tmp_path / "images", _001__nii__txt="4 6 8\n0 1 2\n", readme__txt="Scanned in 2019.\n")
    assert main([*solid, "--voxels", f"{tmp_path}/images"]) == 0
    assert "1 labels have no image, for example readme" in capsys.readouterr().err
    revisions = opened(tmp_path, SOLID)
    assert revisions["002"] == []
    ((author, positions),) = revisions["001"]
    assert author == "import"
    np.testing.assert_allclose(positions, [[10 - 6, -20 + 8, 30 - 4], [10 - 1, -20 + 0, 30 - 1]], atol=1e-6)


def test_a_voxel_outside_refuses_that_image_only(solid, tmp_path, capsys):
    files(tmp_path / "lists", _001__txt="8 6 4\n0 0 0\n", _002__nii__gz__txt="1,1,1\n2,2,2\n")
    error = refused([*solid, "--voxels", f"{tmp_path}/lists"], capsys)
    assert "001.txt: landmark 'left': z y x = 8 6 4 is outside of the image, which has 5 7 9 samples" in error
    assert "1 of 2 images were not imported" in error and list(opened(tmp_path, SOLID)) == ["002"]


def test_voxels_of_cephalograms(flat, tmp_path):
    files(tmp_path / "lists", _001__txt="55 20\n30.5 40\n")
    assert main([*flat, "--voxels", f"{tmp_path}/lists"]) == 0
    assert opened(tmp_path, FLAT)["001"] == [("import", [[55, 20], [30.5, 40]])]


# --- masks ---------------------------------------------------------------------------------------------------------


def test_centroids_of_masks(solid, tmp_path):
    for image_id, labels in (("001", (1, 2)), ("002", (2,))):
        pixels = np.zeros((5, 7, 9), np.uint8)
        for label in labels:
            pixels[label, 2:5, 3] = label
        write_image(tmp_path / "masks" / f"{image_id}.nrrd", Image(TURNED, pixels))
    assert main([*solid, "--masks", f"{tmp_path}/masks", "--rule", "centroid"]) == 0
    expected = TURNED.index_to_world([[3, 3, 1], [3, 3, 2]])
    study = Study(tmp_path / "study", SOLID)
    labels = study.labelled()
    study.close()
    np.testing.assert_allclose(labels["001"].positions_mm, expected, atol=1e-6)
    np.testing.assert_allclose(labels["002"].positions_mm[1], expected[1], atol=1e-6)
    assert labels["002"].status == (Status.ABSENT, Status.PLACED)


def test_extremes_of_masks(tmp_path):
    task = LandmarkTask("box", ("L", "R", "A", "P"), 2)
    words = material(tmp_path, task, ImageGeometry.identity((60, 50)), ".png")
    pixels = np.zeros((50, 60), np.uint8)
    pixels[10:21, 30:51] = 255
    write_image(tmp_path / "masks" / "001.png", Image(ImageGeometry.identity((60, 50)), pixels))
    assert main([*words, "--masks", f"{tmp_path}/masks", "--rule", "extremes"]) == 0
    assert opened(tmp_path, task)["001"] == [("import", [[30, 15], [50, 15], [40, 10], [40, 20]])]


def test_a_mask_elsewhere_refuses_that_image(solid, tmp_path, capsys):
    write_image(tmp_path / "masks" / "001.nrrd", Image(ImageGeometry.identity((2, 1, 1)), np.array([[[1, 2]]], np.uint8)))
    error = refused([*solid, "--masks", f"{tmp_path}/masks", "--rule", "centroid"], capsys)
    assert "001.nrrd: the mask does not overlap the image" in error and list(opened(tmp_path, SOLID)) == ["002"]


# --- help ----------------------------------------------------------------------------------------------------------


def test_help_shows_every_layout_in_at_most_two_lines(capsys):
    with pytest.raises(SystemExit) as end:
        main(["import", "--help"])
    assert end.value.code == 0
    lines = capsys.readouterr().out.partition("layouts, at most one of:\n")[2].splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("  --")]
    assert [lines[i].split()[0] for i in starts] == ["--table", "--markups", "--isbi", "--voxels", "--masks"]
    assert all(b - a <= 2 for a, b in zip(starts, [*starts[1:], len(lines)], strict=True)) and max(map(len, lines)) <= 120


def test_layouts_exclude_each_other(flat, capsys):
    with pytest.raises(SystemExit) as end:
        main([*flat, "--isbi", "a", "--voxels", "b"])
    assert end.value.code == 2 and "not allowed with argument" in capsys.readouterr().err


def test_a_correction_made_after_an_import_stays_newest_when_importing_again(flat, tmp_path):
    words = [*flat, "--isbi", f"{tmp_path}/400_senior"]
    assert main(words) == 0
    study = Study(tmp_path / "study", FLAT)
    corrected = study.labels("001").with_landmark(FLAT.names[0], [1.5, 2.5])
    study.save("001", corrected, author="ann")
    assert main(words) == 0
    assert study.history("001")[-1].author == "ann"
