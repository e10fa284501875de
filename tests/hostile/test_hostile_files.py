"""Every file of the hostile corpus is refused in time by one line of text that names its fault, and nothing in it runs."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from tests.hostile.corpus import HostileFile, hostile_files
from tests.io.landmark_corpus import FLAT_TASK, TASK

from landmarklabel.errors import ImageRejected, LandmarkFileError, LandmarkLabelError, ModelError
from landmarklabel.io.checkpoints import load_tensors
from landmarklabel.io.images import read_geometry, read_image
from landmarklabel.io.markups import read_markups

CANARY = "landmarklabel-canary"  # what the pickles of the corpus create in the current folder when they are run
PICKLES = [name for name in hostile_files("checkpoints") if name.startswith("pickle_protocol_")]


def each(kind: str) -> pytest.MarkDecorator:
    files = hostile_files(kind)
    return pytest.mark.parametrize("file", files.values(), ids=files)


@contextmanager
def refused(file: HostileFile, kind: type[LandmarkLabelError]) -> Iterator[None]:
    """Expects the error of the corpus, with its text outside of the file's name, within two seconds."""
    assert file.path.is_file(), "faults.json names a file that is not there"
    assert file.says, "faults.json does not name this file"
    start = time.perf_counter()
    with pytest.raises(kind) as caught:
        yield
    assert time.perf_counter() - start < 2
    text = str(caught.value)
    assert file.says in text.replace(file.path.name, "")
    assert "\n" not in text and len(text) < 1500
    assert kind is not ImageRejected or "0x" not in text  # an address inside of a library


@each("images")
def test_image(file, tmp_path):
    path = file.placed(tmp_path)
    with refused(file, ImageRejected):
        read_image(path)
    with suppress(ImageRejected):  # the header alone may be sound
        read_geometry(path)


@each("landmarks")
def test_landmarks(file):
    with refused(file, LandmarkFileError):
        read_markups(file.path, TASK if file.dims == 3 else FLAT_TASK)


@each("checkpoints")
def test_checkpoint(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refused(file, ModelError):
        load_tensors(file.path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PICKLES)
def test_the_pickles_would_leave_a_canary(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(hostile_files("checkpoints")[name].path.read_bytes()).close()
    assert [path.name for path in tmp_path.iterdir()] == [CANARY]


@pytest.mark.parametrize(("kind", "least"), [("images", 40), ("landmarks", 60), ("checkpoints", 20)])
def test_there_are_many_small_files(kind, least):
    sizes = [file.path.stat().st_size for file in hostile_files(kind).values()]
    assert len(sizes) >= least and max(sizes) < 130_000 and sum(sizes) < 500_000
    assert len(PICKLES) == 6
