"""A cohort has every image that lies below a folder, whatever else lies beside it; what is not taken is named."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.store.studies import write_dicom

from landmarklabel.cohort.manifest import find_cases
from landmarklabel.errors import StudyError


def ids(*places: object) -> list[str]:
    return [case.id for case in find_cases(map(str, places))[0]]


def single(path: Path) -> None:
    """A DICOM file that is an image by itself."""
    folder = write_dicom(path.parent / "for a moment", slices=1)
    (folder / "slice0").rename(path)
    folder.rmdir()


@pytest.fixture
def patients(tmp_path) -> Path:
    """One with a localizer above two series, one with two radiographs, one with a picture below a series, and a CD."""
    top = tmp_path / "top"
    write_dicom(top / "p1" / "ct")
    write_dicom(top / "p1" / "ct thin", slices=5)
    single(top / "p1" / "localizer.dcm")
    (top / "p2").mkdir()
    single(top / "p2" / "front")
    single(top / "p2" / "side")
    write_dicom(top / "p3")
    (top / "p3" / "extra").mkdir()
    (top / "p3" / "extra" / "photo.png").touch()
    write_dicom(top / "cd" / "DICOM" / "S1")
    single(top / "cd" / "DICOMDIR")
    return top


def test_the_same_cases_from_whichever_level_they_are_planned(patients):
    cases = ["p1/ct", "p1/ct thin", "p1/localizer", "p2/front", "p2/side", "p3", "p3/extra/photo"]
    assert ids(patients) == ["cd/DICOM/S1", *cases] == ids(patients / "**")
    assert ids(patients / "p1") == ["ct", "ct thin", "localizer"]
    assert ids(patients / "p2") == ["front", "side"] and ids(patients / "p3") == ["extra/photo", "p3"]
    assert ids(patients / "cd" / "DICOM") == ["S1"]


def test_a_series_keeps_its_name_where_it_is_the_current_folder(patients, monkeypatch):
    monkeypatch.chdir(patients / "p1" / "ct")
    assert ids(".") == ids("*") == ids("../ct") == ["ct"]
    monkeypatch.chdir("..")
    assert ids("ct/*") == ["ct"] and ids("../p1/ct/*") == ["ct"]


def test_folders_that_are_linked_twice_are_named(tmp_path):
    (tmp_path / "zz").mkdir()
    (tmp_path / "zz" / "scan.png").touch()
    for name in ("A", "B"):
        (tmp_path / name).symlink_to(tmp_path / "zz")
    cases, left_out = find_cases([str(tmp_path)])
    assert [case.id for case in cases] == ["zz/scan"]
    assert left_out == {str(tmp_path / name): f"the same folder as {tmp_path / 'zz'}" for name in ("A", "B")}


def test_a_pattern_takes_a_file_once_however_links_lead_to_it(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "scan.png").touch()
    (tmp_path / "x" / "again").symlink_to(tmp_path)
    cases, left_out = find_cases([str(tmp_path / "**" / "*.png")])
    assert [case.id for case in cases] == ["x/scan"]
    assert left_out[str(tmp_path / "x" / "again" / "x" / "scan.png")] == f"the same file as {tmp_path / 'x' / 'scan.png'}"


def test_a_pattern_names_the_folders_that_it_may_not_read(tmp_path, monkeypatch):
    for name in ("ok", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.png").touch()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, *how: "closed" not in str(path) and access(path, *how))
    for pattern in ("*/*.png", "**/*.png"):
        assert find_cases([str(tmp_path / pattern)])[1][str(tmp_path / "closed")] == "cannot be read (Permission denied)"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes on Windows")
def test_a_pipe_is_waited_for_by_nobody(tmp_path):
    for name in ("pipe", "pipe.png"):
        os.mkfifo(tmp_path / name)
    program = "import sys; from landmarklabel.cohort.manifest import find_cases; print(find_cases(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "*")], capture_output=True, text=True, timeout=60)
    assert "CohortCase(id='pipe'," in done.stdout and f"'{tmp_path / 'pipe'}': 'no image format that is read'" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
def test_a_name_that_is_no_text_is_left_out_and_written_as_far_as_it_can_be(tmp_path):
    folder = os.fsencode(tmp_path) + b"/v\xe9"
    os.mkdir(folder)
    for name in (folder + b"/scan.png", os.fsencode(tmp_path) + b"/fine.png"):
        open(name, "wb").close()
    cases, left_out = find_cases([str(tmp_path)])
    assert [case.id for case in cases] == ["fine"]
    assert left_out == {f"{tmp_path}/v\ufffd/scan.png": "its name is no text in UTF-8; rename it"}


@pytest.mark.parametrize(
    "row, said",
    [
        ('p1,a.png,"5 mm\n', "line 4: unexpected end of data; is there a quotation mark that has no second one?"),
        ('p1,a.png,"5" mm\n', r"line 2: ',' expected after '\"'; is there a quotation mark"),
        ("a//b,a.png,\n", "line 2: case id '' is not allowed"),
    ],
)
def test_a_table_that_would_be_misread_is_refused_with_the_line(tmp_path, row, said):
    table = tmp_path / "list.csv"
    table.write_text(f"id,path,note\n{row}p2,b.png,ok\np3,c.png,ok\n", encoding="utf-8")
    with pytest.raises(StudyError, match=said):
        find_cases([str(table)])


@pytest.mark.parametrize("inside", ["*.png", "", "**"])
def test_an_address_in_an_archive_stays_one(tmp_path, inside):
    archive = tmp_path / "scans.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("0.png", b"a picture")
    (case,), _ = find_cases([f"zip://{inside}::{archive}"])
    assert (case.id, case.path) == ("0", f"zip://0.png::{archive}")


def test_a_damaged_archive_and_an_empty_name_are_said(tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"junk")
    with pytest.raises(StudyError, match="File is not a zip file"):
        find_cases([f"zip://*.png::{tmp_path / 'bad.zip'}"])
    with pytest.raises(StudyError, match="an empty name of a folder or file, as of a variable that is not set"):
        find_cases([""])
