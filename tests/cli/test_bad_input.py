"""Malformed images and landmark files: each gives its one clear error and leaves the study as it was."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.hostile.corpus import HostileFile, hostile_files
from tests.io import image_corpus, landmark_corpus

from landmarklabel.cli import main
from landmarklabel.io.images import read_geometry

IMAGES = hostile_files("images") | {case.id: case for case in image_corpus.CASES}
LANDMARKS = hostile_files("landmarks")
IN_3D = [
    "header_only.nii", "empty.nii", "nan_spacing.nii", "negative_spacing.nii", "singular_sform.nii", "all_nan.nii", "4d.nii",
    "no_checksum.nii.gz", "damaged.nii.gz", "data_file.nrrd", "sheared.nrrd", "gzip_that_is_none.nrrd", "nan_offset.mha",
    "compressed_cut.mha", "one_byte_short.dcm", "fifo", "symlink to nowhere", "symlink loop", "dicom two series",
    "dicom missing slice", "dicom junk slice",
]  # fmt: skip
IN_2D = ["png_named_jpg.jpg", "without_end.png", "damaged_data.png", "grey_with_alpha.png", "half.jpg"]
MARKUPS = [
    "empty.mrk.json", "utf16.mrk.json", "cut.mrk.json", "schema_version_2.mrk.json", "a_curve.mrk.json", "frame_xyz.mrk.json",
    "micrometres.mrk.json", "nan_literal.mrk.json", "1e308.mrk.json", "position_short.mrk.json", "status_unknown.mrk.json",
    "label_twice.mrk.json", "label_misspelt.mrk.json", "other_task.mrk.json", "deep_list.mrk.json",
]  # fmt: skip
FCSV = ["no_frame.fcsv", "short_row.fcsv", "inf.fcsv", "label_unknown.fcsv"]
TABLES = {
    "too few cells": ("id,x0,y0,z0,x1,y1,z1,x2,y2,z2\nnew,1,2,3\n", "row 2: 4 cells, expected are 10"),
    "a column missing": ("id,x0,y0,z0,x1,y1,z1,x2,y2\nnew,1,2,3,4,5,6,7,8\n", "column 'z2' is missing"),
    "half a landmark": ("new,1,2,3,4,,6,7,8,9\n", "landmark 'bregma': ['4', '', '6'] is only partly given"),
    "text for a number": ("new,1,2,3,4,5,six,7,8,9\n", "landmark 'bregma': position [4.0, 5.0, 'six'] is not made of"),
    "infinite": ("new,1,2,3,4,5,6,7,8,inf\n", "landmark 'lambda': position [7.0, 8.0, inf] is not finite"),
    "id twice": ("new,1,2,3,4,5,6,7,8,9\nnew,1,2,3,4,5,6,7,8,9\n", "row 2: image id 'new' was already given"),
    "id that leaves the folder": ("..,1,2,3,4,5,6,7,8,9\n", "row 1: image id '..' is not allowed"),
    "nothing": ("", "no rows with landmarks"),
}


class GoodStudy:
    """A study with one labelled image, and what must stay as it is."""

    def __init__(self, folder: Path, task, image: str, content: bytes):
        self.folder, self.task_file = folder / "study", folder / "task.json"
        self.incoming = folder / "images"
        self.incoming.mkdir()
        self.task_file.write_text(json.dumps(task.to_json()), encoding="utf-8")
        (folder / "good").mkdir()
        (folder / "good" / image).write_bytes(content)
        numbers = ",".join(map(str, read_geometry(folder / "good" / image).origin.tolist() * len(task)))
        (folder / "points.csv").write_text(f"{Path(image).stem},{numbers}\n", encoding="utf-8")
        words = ["--images", str(folder / "good"), "--table", str(folder / "points.csv")]
        assert main(["import", str(self.folder), "--task", str(self.task_file), *words]) == 0
        self.state = self.look()

    def look(self) -> dict[str, object]:
        """Every path and its bytes, and the rows of the database; without caches and SQLite's own files."""
        out: dict[str, object] = {}
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            if "cache/" not in name and "revisions.sqlite" not in name:
                out[name] = path.read_bytes() if path.is_file() else None
        with closing(sqlite3.connect(self.folder / ".landmarklabel" / "revisions.sqlite")) as database:
            out["revisions"] = [*database.execute("select * from revisions order by id")]
        assert len(out["revisions"]) == 1 and sum(name.startswith("labels/final/") for name in out) == 1
        return out

    def refuses(self, capsys, *words: object) -> str:
        """Import, expect exit code 2 and an unchanged study; returns what was said."""
        capsys.readouterr()
        where = ["import", self.folder, "--task", self.task_file, *words]
        assert main([str(w) for w in where]) == 2
        assert self.look() == self.state
        said = capsys.readouterr().err
        assert said and all(line.startswith("landmarklabel: ") and len(line) < 4000 for line in said.splitlines())
        return said


@pytest.fixture
def study(tmp_path):
    return GoodStudy(tmp_path, landmark_corpus.TASK, "good.nii", image_corpus.nifti())


@pytest.fixture
def flat_study(tmp_path):
    return GoodStudy(tmp_path, landmark_corpus.FLAT_TASK, "good.png", image_corpus.raster("PNG"))


def refuse_image(study: GoodStudy, name: str, capsys) -> None:
    case = IMAGES[name]
    if isinstance(case, HostileFile):
        case.placed(study.incoming, stem="a")
        match = re.escape(case.says)
    else:
        case.build(study.incoming)
        match = case.match
    fault, total = study.refuses(capsys, "--images", study.incoming).splitlines()
    assert re.search(match, fault) and total == "landmarklabel: 1 of 1 images were not imported, see above"


@pytest.mark.parametrize("name", IN_3D)
def test_image(name, study, capsys):
    refuse_image(study, name, capsys)


@pytest.mark.parametrize("name", IN_2D)
def test_flat_image(name, flat_study, capsys):
    refuse_image(flat_study, name, capsys)


def test_image_of_other_dimensions(study, capsys):
    (study.incoming / "new.png").write_bytes(image_corpus.raster("PNG"))
    assert "this task needs a 3D one" in study.refuses(capsys, "--images", study.incoming)


def test_volume_for_a_flat_task(flat_study, capsys):
    (flat_study.incoming / "new.nii").write_bytes(image_corpus.nifti())
    assert "this task needs a 2D image" in flat_study.refuses(capsys, "--images", flat_study.incoming)


def test_other_content_under_a_known_id(study, capsys):
    other = image_corpus.mha()
    (study.incoming / "good.mha").write_bytes(other[:-1] + bytes([other[-1] ^ 1]))  # one grey value
    assert "good.nii exists with other content" in study.refuses(capsys, "--images", study.incoming)


def test_one_id_twice(study, capsys):
    (study.incoming / "new.mha").write_bytes(image_corpus.mha())
    (study.incoming / "new.nii").write_bytes(image_corpus.nifti())
    assert "would both be image 'new'" in study.refuses(capsys, "--images", study.incoming)


def test_only_the_damaged_image_is_refused(study, capsys):
    (study.incoming / "fine.nii").write_bytes(image_corpus.nifti())
    (study.incoming / "short.nii").write_bytes(image_corpus.nifti()[:-1])
    assert main(["import", str(study.folder), "--task", str(study.task_file), "--images", str(study.incoming)]) == 2
    said = capsys.readouterr()
    fault, total = said.err.splitlines()
    assert "short.nii: truncated" in fault and "1 of 2 images" in total and "1 image, 1 labelled" in said.out
    now = study.look()
    assert now.pop("fine.nii") == image_corpus.nifti() and now == study.state


def refuse_labels(study: GoodStudy, file: str, content: bytes, capsys) -> str:
    """Landmarks for a new, good image that are not: nothing of it may arrive."""
    (study.incoming / "new.nii").write_bytes(image_corpus.nifti())
    markups = study.incoming.parent / "markups"
    markups.mkdir()
    (markups / file).write_bytes(content)
    said = study.refuses(capsys, "--images", study.incoming, "--markups", markups)
    assert file in said and said.count("\n") == 1
    return said


@pytest.mark.parametrize("name", MARKUPS + FCSV)
def test_markups(name, study, capsys):
    content, file = LANDMARKS[name].path.read_bytes(), "new" + name[name.index(".") :]
    assert LANDMARKS[name].says in refuse_labels(study, file, content, capsys)


def test_every_faulty_markups_file_is_named(study, capsys):
    (study.incoming / "new.nii").write_bytes(image_corpus.nifti())
    markups = study.incoming.parent / "markups"
    markups.mkdir()
    (markups / "new.mrk.json").write_bytes(b"{")
    (markups / "old.fcsv").write_bytes(b"")
    said = study.refuses(capsys, "--images", study.incoming, "--markups", markups)
    assert "new.mrk.json" in said and "old.fcsv" in said and said.count("\n") == 1


@pytest.mark.parametrize("name", TABLES)
def test_table(name, study, capsys):
    content, text = TABLES[name]
    (study.incoming / "new.nii").write_bytes(image_corpus.nifti())
    table = study.incoming.parent / "new.csv"
    table.write_text(content, encoding="utf-8")
    said = study.refuses(capsys, "--images", study.incoming, "--table", table)
    assert text in said and "new.csv" in said and said.count("\n") == 1
