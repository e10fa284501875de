"""Tasks and models by the names people type."""

from __future__ import annotations

import json

import pytest

from landmarklabel.errors import TaskError, UsageError
from landmarklabel.landmarks import LandmarkTask, ScaleRule
from landmarklabel.tasks import SHIPPED, resolve_models, resolve_task

OWN = LandmarkTask("own", ("a", "b"), 2)


@pytest.mark.parametrize(("name", "count", "dims"), [("cephalogram", 19, 2), ("hand_xray", 37, 2), ("mouse_skull", 45, 3)])
def test_shipped_tasks(name, count, dims):
    task = resolve_task(name)
    assert task.name == name and len(task) == count and task.dims == dims
    assert LandmarkTask.from_json(task.to_json()) == task


def test_every_shipped_file_is_a_task_of_its_name():
    assert [resolve_task(p.stem).name for p in sorted(SHIPPED.glob("*.json"))] == ["cephalogram", "hand_xray", "mouse_skull"]


def test_the_wrist_is_50_mm_wide():
    task = resolve_task("hand_xray")
    assert task.scale == ScaleRule(task.names[1], task.names[5], 50.0)


def test_a_task_by_its_file(tmp_path, monkeypatch):
    (tmp_path / "own.json").write_text(json.dumps(OWN.to_json()), encoding="utf-8")
    (tmp_path / "own_task").write_text(json.dumps(OWN.to_json()), encoding="utf-8")
    assert resolve_task(str(tmp_path / "own.json")) == resolve_task(str(tmp_path / "own_task")) == OWN
    monkeypatch.chdir(tmp_path)
    assert resolve_task("own.json") == OWN


def test_a_task_by_its_name_in_other_folders(tmp_path):
    (tmp_path / "own.json").write_text(json.dumps(OWN.to_json()), encoding="utf-8")
    assert resolve_task("own", [tmp_path / "none", tmp_path]) == OWN


@pytest.mark.parametrize("name", ["hand", "", "hand_xrays", "../tasks/hand_xray"])
def test_an_unknown_name_says_what_there_is(name):
    with pytest.raises(UsageError) as caught:
        resolve_task(name)
    assert f"no task called {name!r}" in str(caught.value)
    assert "hand_xray, mouse_skull" in str(caught.value) and "task new" in str(caught.value)


def test_without_shipped_tasks(tmp_path):
    with pytest.raises(UsageError, match="or one of none shipped"):
        resolve_task("hand", [tmp_path])


def test_faulty_files(tmp_path):
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    for name, text in (("bad.json", "not readable as JSON"), ("none.json", "no such task file")):
        with pytest.raises(TaskError, match=text):
            resolve_task(str(tmp_path / name))
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(TaskError, match="not readable"):
        resolve_task(str(tmp_path / "folder.json"))


def test_models_by_the_name_they_are_served_under():
    found = resolve_models(" scn , scn:payer2019,", 2)
    assert {name: p.key for name, p in found.items()} == {"scn": "scn:default", "scn_payer2019": "scn:payer2019"}


@pytest.mark.parametrize(
    ("text", "dims", "message"),
    [
        ("", 2, "no model named; use for example --models scn"),
        (" , ", 3, "no model named"),
        ("scn,snc", 2, "no model called 'snc'; did you mean 'scn:"),
        ("scn:payer2016", 3, "'scn:payer2016' is made for 2D images, the task is 3D"),
    ],
)
def test_models_that_cannot_be(text, dims, message):
    with pytest.raises(UsageError) as caught:
        resolve_models(text, dims)
    assert message in str(caught.value)
