"""Which cases a cohort has, what they are called, and how they are divided."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from landmarklabel.cohort.manifest import CohortCase, Shard, find_cases, read_manifest, write_manifest
from landmarklabel.errors import StudyError, UsageError

FILES = ("a/one.nii.gz", "a/b/two.png", "a/b/three.mha", "four.png", "a/readme.md", ".hidden/five.png")


@pytest.fixture
def tree(tmp_path) -> Path:
    for name in FILES:
        path = tmp_path / "top" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "top"


def ids(*places: object) -> list[str]:
    return [case.id for case in find_cases(map(str, places))[0]]


def test_a_folder_gives_all_below_it_by_the_path_without_its_ending(tree):
    cases, left_out = find_cases([str(tree)])
    assert [(c.id, c.path) for c in cases] == [
        ("a/b/three", str(tree / "a/b/three.mha")),
        ("a/b/two", str(tree / "a/b/two.png")),
        ("a/one", str(tree / "a/one.nii.gz")),
        ("four", str(tree / "four.png")),
    ]
    assert list(left_out) == [str(tree / "a/readme.md")]


def test_a_pattern_gives_what_it_matches_below_its_plain_part(tree):
    assert ids(tree / "a" / "**" / "*.png") == ["b/two"]
    assert ids(tree / "*.png", tree / "a" / "one.nii.gz") == ["four", "one"]


def test_a_table_gives_ids_of_its_own(tree):
    table = tree.parent / "list.csv"
    table.write_text("\ufeffpath,id,sex\ntop/four.png,Ann 1,f\ntop/a/b/two.png,,m\n", encoding="utf-8")
    assert [(c.id, Path(c.path)) for c in find_cases([str(table)])[0]] == [
        ("Ann 1", tree / "four.png"), ("two", tree / "a/b/two.png")
    ]  # fmt: skip


def test_addresses_are_read_by_fsspec(tree):
    cases, _ = find_cases([f"file://{tree}/a"])
    assert [c.id for c in cases] == ["b/three", "b/two", "one"]
    assert cases[1].path == f"file://{tree}/a/b/two.png"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("gone", "gone: no such file or folder"),
        ("top/*.nii", "no images in"),
        ("names.csv", "a table of images needs a column 'path', and may have a column 'id'; it has file"),
        ("empty.csv", "line 3 has no path"),
        ("bad.csv", "case id '..' is not allowed"),
        ("nofs://bucket/x", "Protocol not known: nofs"),
    ],
)
def test_what_is_no_cohort_is_said(tree, monkeypatch, place, said):
    monkeypatch.chdir(tree.parent)
    Path("names.csv").write_text("file\ntop/four.png\n", encoding="utf-8")
    Path("empty.csv").write_text("path,id\ntop/four.png,a\n,b\n", encoding="utf-8")
    Path("bad.csv").write_text("path,id\ntop/four.png,../x\n", encoding="utf-8")
    with pytest.raises((StudyError, UsageError)) as error:
        find_cases([place])
    assert said in str(error.value)


def test_links_are_followed_and_those_that_lead_back_are_not(tree, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "six.png").touch()
    (tree / "a" / "link").symlink_to(tmp_path / "elsewhere")
    (tree / "a" / "b" / "back").symlink_to(tree)
    assert ids(tree) == ["a/b/three", "a/b/two", "a/link/six", "a/one", "four"]


def test_what_cannot_be_a_case_is_left_out_by_its_path_and_the_others_are_not(tree):
    for name in ("#12.png", "b/two.jpg", "skull.ply"):
        (tree / "a" / name).touch()
    cases, left_out = find_cases([str(tree)])
    assert [c.id for c in cases] == ["a/b/three", "a/one", "four"]
    said = {str(Path(path).relative_to(tree)): why for path, why in left_out.items()}
    assert sorted(said) == ["a/#12.png", "a/b/two.jpg", "a/b/two.png", "a/readme.md", "a/skull.ply"]
    assert said["a/#12.png"].endswith("or give it an id in a table") and "predict takes them" in said["a/skull.ply"]
    assert said["a/b/two.png"] == "two.jpg, two.png would be one case; give them ids in a table"


def test_a_folder_that_cannot_be_read_is_named(tree, monkeypatch):
    (tree / "closed").mkdir()
    scandir = os.scandir

    def refused(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)  # root, who runs tests in containers, may read everything
    _, left_out = find_cases([str(tree)])
    assert left_out[str(tree / "closed")] == "cannot be read (Permission denied)"


def test_a_table_of_a_spreadsheet_in_another_language_is_read(tree):
    (tree.parent / "list.csv").write_text("Sex;ID;Path\nf;Ann;top/four.png\n\n", encoding="utf-8")
    assert [(c.id, Path(c.path)) for c in find_cases([str(tree.parent / "list.csv")])[0]] == [("Ann", tree / "four.png")]


def test_two_images_of_one_id_are_refused_and_named(tree):
    (tree / "a" / "four.png").touch()
    with pytest.raises(
        StudyError, match=r"four\.png and .*four\.png would both be case 'four'; every case needs an id of its own in a table"
    ):
        find_cases([str(tree / "four.png"), str(tree / "a" / "four.png")])


@pytest.mark.parametrize("count", [1, 4, 7])
def test_parts_are_disjoint_whole_and_about_as_large(count):
    cases = [CohortCase(f"case{number}", "") for number in range(700)]
    parts = [[c for c in cases if Shard(number, count).holds(c)] for number in range(1, count + 1)]
    assert sorted(c.id for part in parts for c in part) == sorted(c.id for c in cases)
    assert all(abs(len(part) - 700 / count) < 40 for part in parts)


def test_a_part_is_the_same_on_every_computer_and_in_every_version():
    chosen = [number for number in range(20) if Shard(2, 3).holds(CohortCase(f"case{number}", ""))]
    assert chosen == [2, 5, 8, 9, 12, 13, 14, 18, 19]  # as first recorded: parts that were run by another version fit


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/5", "1/" + "9" * 5000])
def test_a_part_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="--shard"):
        Shard.of(text)


def test_a_manifest_comes_back_as_it_was_written(tmp_path):
    cases = [CohortCase("a,b/ü", '/x/"quoted",\n \udce9;=y.png'), CohortCase("c", "s3://b/c.nii.gz")]
    sha256 = write_manifest(tmp_path / "m.csv", cases)
    assert read_manifest(tmp_path / "m.csv", sha256) == cases
    with (tmp_path / "m.csv").open("a", encoding="utf-8") as file:
        file.write('{"id": "d", "path": "/x"}\n')
    with pytest.raises(StudyError, match="changed or damaged since the cohort was planned"):
        read_manifest(tmp_path / "m.csv", sha256)
