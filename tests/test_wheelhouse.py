"""The folder for machines without internet: a place that cannot be filled, or a stop, is said in one line."""

from __future__ import annotations

import pytest
from scripts import wheelhouse


def test_a_folder_that_cannot_be_made_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(wheelhouse, "_run", lambda *words: pytest.fail(f"was run: {words}"))
    (tmp_path / "file").touch()
    assert wheelhouse.make(tmp_path / "file" / "below") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{tmp_path / 'file' / 'below'} cannot be filled (") and said.endswith("): name another folder\n")
    assert wheelhouse.make(tmp_path / "file") == 2
    assert capsys.readouterr().err == f"{tmp_path / 'file'} is there already: name a new or an empty folder\n"


def test_a_stop_is_no_traceback(tmp_path, capsys, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(wheelhouse, "_run", stop)
    assert wheelhouse.make(tmp_path / "house") == 130
    said = capsys.readouterr().err
    assert said == f"\n{tmp_path / 'house'} is not whole: stopped; remove it before you try again\n"
