"""Pictures of landmarks in a task: from files that a person names, as data URIs everywhere else, and nothing hostile."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import zlib

import pytest
from PIL import Image as Picture

from landmarklabel.cli import main
from landmarklabel.errors import TaskError
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.store.study_task import StudyRecord, renamed, without
from landmarklabel.task_limits import LIMITS, TaskLimits


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Picture.new("RGB", size, (200, 30, 30)).save(buffer, kind)
    return buffer.getvalue()


def uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def task_file(folder, image: object):
    content = {"format": "landmarklabel-task", "version": 1, "name": "head", "dims": 2}
    content["landmarks"] = [{"name": "tip", "definition": "its end", "image": image}, {"name": "base"}]
    made = json.loads(json.dumps(LandmarkTask("head", ("tip", "base"), 2).to_json()))
    made["landmarks"] = content["landmarks"]
    (folder / "task.json").write_text(json.dumps(made), encoding="utf-8")
    return folder / "task.json"


@pytest.mark.parametrize(("kind", "name"), [("PNG", "pictures/tip.png"), ("JPEG", "tip é.jpg")])
def test_a_picture_beside_the_task_file_is_read_and_travels_as_a_data_uri(tmp_path, kind, name):
    (tmp_path / "pictures").mkdir()
    (tmp_path / name).write_bytes(picture(kind))
    task = LandmarkTask.load(task_file(tmp_path, name))
    assert task.pictures == {"tip": uri(picture(kind), f"image/{kind.lower()}")}
    again = LandmarkTask.from_json(json.loads(json.dumps(task.to_json())))
    assert again == task and again.hash == LandmarkTask("head", ("tip", "base"), 2).hash
    assert "image" not in json.dumps(task.to_json(pictures=False))


def bomb(side: int = 60000) -> bytes:
    """A PNG of a few bytes that says it has so many pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))


BESIDE = "must be a PNG or JPEG file beside the task file, or such a picture as a data URI"
HOSTILE = {
    "name over the network": ("tip.png", BESIDE),
    "path": ("/etc/passwd", BESIDE),
    "address": ("http://evil.example/x.png", BESIDE),
    "number": (5, BESIDE),
    "nothing": ("", BESIDE),
    "false": (False, BESIDE),
    "no width": (uri(bomb(0)), "has 0 x 0 pixels"),
    "svg": (uri(b"<svg onload='alert(1)'/>", "image/svg+xml"), BESIDE),
    "page": (uri(b"<html>", "text/html"), BESIDE),
    "no base64": ("data:image/png;base64,***", "is no valid base64"),
    "another thing": (uri(b"GIF89a" + bytes(50)), "is no PNG or JPEG"),
    "other type": (uri(picture("JPEG")), "is no PNG or JPEG"),
    "cut off": (uri(picture()[:14]), "is damaged: its size cannot be read"),
    "cut off jpeg": (uri(picture("JPEG")[:12], "image/jpeg"), "is damaged: its size cannot be read"),
    "bomb": (uri(bomb()), "has 60000 x 60000 pixels; allowed are 1 to 2048 each way"),
    "too wide": (uri(picture("JPEG", (4000, 2)), "image/jpeg"), "has 4000 x 2 pixels"),
    "too large": (uri(picture() + bytes(LIMITS.picture_bytes)), "is larger than 128 KiB: make it smaller"),
}


@pytest.mark.parametrize(("image", "said"), HOSTILE.values(), ids=list(HOSTILE))
def test_what_is_no_small_picture_is_refused_by_text(tmp_path, image, said):
    (tmp_path / "tip.png").write_bytes(picture())
    content = LandmarkTask("head", ("tip", "base"), 2).to_json()
    content["landmarks"][0]["image"] = image
    with pytest.raises(TaskError) as caught:
        LandmarkTask.from_json(content)
    assert f"image of landmark 'tip' {said}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../secret.png", "lies outside of the task file's folder: put it there"),
        ("link.png", "lies outside of the task file's folder: put it there"),
        ("gone.png", "cannot be read (No such file or directory)"),
        ("text.png", "is no PNG or JPEG"),
        ("large.png", "is larger than 128 KiB: make it smaller"),
        ("folder.png", "is no file"),
        ("pipe.png", "is no file"),
        ("round.png", ""),  # said differently by versions of Python
    ],
)
def test_a_file_that_cannot_be_taken_is_named_with_all_other_faults(tmp_path, name, said):
    inside = tmp_path / "tasks"
    inside.mkdir()
    (tmp_path / "secret.png").write_bytes(picture())
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    (inside / "round.png").symlink_to("round.png")
    (inside / "folder.png").mkdir()
    os.mkfifo(inside / "pipe.png")
    (inside / "text.png").write_text("no picture", encoding="utf-8")
    (inside / "large.png").write_bytes(picture() + bytes(5 * LIMITS.picture_bytes))
    path = task_file(inside, name)
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "dims": 7}), encoding="utf-8")
    with pytest.raises(TaskError) as caught:
        LandmarkTask.load(path)
    assert f"image {name!r} of landmark 'tip' {said}" in str(caught.value) and "dims 7 must be 2 or 3" in str(caught.value)


def test_a_picture_of_no_landmark_is_a_fault():
    with pytest.raises(TaskError, match="image of 'nose', which is no landmark"):
        LandmarkTask("head", ("tip", "base"), 2, pictures={"nose": uri(picture())})


def test_it_follows_its_landmark_when_that_is_renamed_and_goes_with_it():
    task = LandmarkTask("head", ("tip", "base"), 2, pictures={"tip": uri(picture())})
    record = StudyRecord(task)
    assert renamed(record, "tip", "apex").task.pictures == {"apex": uri(picture())}
    assert without(record, "tip").task.pictures == {} and without(record, "base").task.pictures == task.pictures


def test_pictures_are_taken_from_a_folder_by_the_names_of_the_landmarks(tmp_path, capsys):
    (tmp_path / "names.txt").write_text("tip\tits end\nbase\n", encoding="utf-8")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "tip.png").write_bytes(picture())
    words = ["task", "new", "head", "--names", str(tmp_path / "names.txt"), "--dims", "2", "--out", str(tmp_path / "t.json")]
    assert main([*words, "--pictures", str(tmp_path / "pictures")]) == 0
    assert capsys.readouterr().out.endswith("task 'head' with 2 landmarks in 2D, 1 with a picture\n")
    task = LandmarkTask.load(tmp_path / "t.json")
    assert task.pictures == {"tip": uri(picture())} and task.definitions == {"tip": "its end"}
    (tmp_path / "pictures" / "nose.jpg").write_bytes(picture("JPEG"))
    assert main([*words, "--pictures", str(tmp_path / "pictures")]) == 2
    assert "nose.jpg is called as no landmark is" in capsys.readouterr().err


def test_all_pictures_of_a_task_together_have_a_limit(monkeypatch):
    monkeypatch.setattr("landmarklabel.task_pictures.LIMITS", TaskLimits(pictures_bytes=2 * len(uri(picture())) - 1))
    LandmarkTask("head", ("tip", "base"), 2, pictures={"tip": uri(picture())})
    with pytest.raises(TaskError, match="in all: make them smaller"):
        LandmarkTask("head", ("tip", "base"), 2, pictures=dict.fromkeys(("tip", "base"), uri(picture())))
    assert "base64" not in repr(LandmarkTask("head", ("tip", "base"), 2, pictures={"tip": uri(picture())}))
