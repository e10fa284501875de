"""Where a file system keeps no locks: what needs one says so, what can do without goes on and says that too."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from landmarklabel.errors import StudyError
from landmarklabel.io.locks import locked
from landmarklabel.io.prediction_folder import NOTES, PredictionFolder


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK])
def without_locks(monkeypatch, request):
    """A file system as a Lustre that was mounted without flock, or an NFS without its lock daemon."""

    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_what_needs_a_lock_names_the_folder_and_leaves_nothing(tmp_path, without_locks):
    for _ in range(2):
        with pytest.raises(StudyError) as refused, locked(tmp_path / "lock"):
            pass
        text = f"{tmp_path}: the study needs a file system that keeps locks (flock), and this has none: move it"
        assert str(refused.value) == text


def test_predictions_keep_their_notes(tmp_path, without_locks):
    for _ in range(2):
        with PredictionFolder(tmp_path, "m") as folder:
            assert not folder.is_locked
            folder.check_tables()
            folder.write_tables({})
        assert len((tmp_path / NOTES).read_text(encoding="utf-8").splitlines()) == 2


def test_where_locks_are_kept_two_do_not_write(tmp_path):
    with PredictionFolder(tmp_path, "m") as folder:
        assert folder.is_locked
        with pytest.raises(StudyError, match="another predict is writing there"):
            PredictionFolder(tmp_path, "m")
