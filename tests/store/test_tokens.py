"""Tokens: a study that has ever had one is never open again, whatever becomes of the file and its folder."""

from __future__ import annotations

import json
import os
import shutil
import threading
from datetime import datetime, timedelta

import pytest

from landmarklabel.cli import main
from landmarklabel.errors import NotFound, UsageError
from landmarklabel.store.revisions import RevisionStore
from landmarklabel.store.tokens import NEEDED, SUBJECT, Closed, Tokens, tokens_of

MAKE = "make a new one with: landmarklabel token new STUDY --name NAME --role annotator|reviewer|admin"


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "study"
    (place / ".landmarklabel").mkdir(parents=True)
    return place


@pytest.fixture
def trail(tmp_path):
    store = RevisionStore(f"sqlite:///{tmp_path / 'elsewhere.sqlite'}")
    yield store
    store.close()


def misspell(path) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace("annotator", "anotator"), encoding="utf-8")


LOST = {
    "gone": (lambda t: t.path.unlink(), f"tokens.json is gone; {MAKE}"),
    "emptied": (
        lambda t: t.path.write_text("", encoding="utf-8"),
        f"tokens.json cannot be read (JSONDecodeError); remove it and {MAKE}",
    ),
    "the last removed": (lambda t: t.remove("ann"), f"all tokens have been removed; {MAKE}"),
    "misspelt": (lambda t: misspell(t.path), f"in tokens.json the role 'anotator' is none of annotator, reviewer, admin; {MAKE}"),
    "an object": (lambda t: t.path.write_text("{}", encoding="utf-8"), "tokens.json cannot be read (ValueError)"),
    "a number": (lambda t: t.path.write_text("[7]", encoding="utf-8"), "tokens.json cannot be read (TypeError)"),
    "no hash": (
        lambda t: t.path.write_text('[{"name":"a","role":"admin","sha256":"é"}]', encoding="utf-8"),
        "tokens.json cannot be read",
    ),
    "a number for a role": (
        lambda t: t.path.write_text('[{"name":"a","role":1,"sha256":""}]', encoding="utf-8"),
        "tokens.json cannot be read",
    ),
    "deep": (lambda t: t.path.write_text("[" * 100_000, encoding="utf-8"), "tokens.json cannot be read (RecursionError)"),
    "a folder": (lambda t: (t.path.unlink(), t.path.mkdir()), "tokens.json cannot be read"),
    "a pipe": (lambda t: (t.path.unlink(), os.mkfifo(t.path)), "tokens.json cannot be read"),
    "a link to nothing": (lambda t: (t.path.unlink(), t.path.symlink_to("nowhere")), "tokens.json is gone"),
}


@pytest.mark.parametrize(("lose", "says"), LOST.values(), ids=LOST)
@pytest.mark.parametrize("knows", [True, False], ids=["running", "started anew"])
def test_a_study_that_had_tokens_stays_closed(folder, knows, lose, says):
    tokens = Tokens(folder)
    tokens.new("ann", "annotator")
    lose(tokens)
    door = (tokens if knows else Tokens(folder)).look()
    assert door.needed and says in door.fault and door.fault.startswith("nobody is let in: this study asks for tokens, and ")
    assert "\n" not in door.fault


@pytest.mark.parametrize("lose", [shutil.rmtree, lambda place: place.rename(place.with_name("moved"))], ids=["deleted", "moved"])
@pytest.mark.parametrize("which", ["study", "its own folder"])
def test_a_running_server_stays_closed_when_the_folder_goes(folder, lose, which):
    tokens = Tokens(folder)
    tokens.new("ann", "annotator")
    assert tokens.look().holders
    lose(folder if which == "study" else folder / ".landmarklabel")
    door = tokens.look()
    assert door.needed and not door.holders
    assert "the study folder is gone; put it back, or start the server where it is now" in door.fault


def test_a_folder_that_may_not_be_entered_is_closed_for_so_long(folder, monkeypatch):
    """As for a user who is not root; this test may be."""
    tokens, real = Tokens(folder), os.stat
    assert not tokens.look().needed

    def denied(path, *args, **options):
        if str(path) == str(tokens.path):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "stat", denied)
    assert tokens.look().needed and "the study folder cannot be read (Permission denied)" in tokens.look().fault
    monkeypatch.undo()
    assert not tokens.look().needed, "it has never had a token"


def test_the_marker_is_there_before_the_first_token(folder, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("landmarklabel.store.tokens.write_json", full)
    with pytest.raises(OSError, match="No space"):
        Tokens(folder).new("ann", "annotator")
    assert Tokens(folder).look().needed


def test_a_server_that_starts_with_tokens_writes_so_in_the_audit_trail_and_without_both_files_stays_closed(folder, trail):
    Tokens(folder).new("ann", "annotator")
    for _ in range(3):
        assert tokens_of(folder, trail).look().holders
    assert [c.what for c in trail.changes(SUBJECT)] == [NEEDED], "once"
    assert trail.verify() == []
    shutil.rmtree(folder / ".landmarklabel")
    assert not Tokens(folder).look().needed
    assert tokens_of(folder, trail).look().fault
    (folder / ".landmarklabel").mkdir()
    assert "tokens.json is gone" in tokens_of(folder, trail).look().fault


def test_tokens_made_while_a_server_runs_are_written_there_too(folder, trail):
    served = tokens_of(folder, trail)
    assert not served.look().needed and not trail.changes(SUBJECT)
    Tokens(folder).new("ann", "annotator")
    written, remember = [], served.remember
    served.remember = lambda: written.append(remember())
    assert served.look().needed and served.look().needed and len(written) == 1
    for thread in threading.enumerate():
        if thread.name == "tokens":
            thread.join(30)
    assert [c.what for c in trail.changes(SUBJECT)] == [NEEDED]


def test_tokens_of_an_earlier_program_get_their_marker_when_they_are_served(folder, trail):
    Tokens(folder).new("ann", "annotator")
    Tokens(folder).marker.unlink()
    tokens_of(folder, trail)
    Tokens(folder).path.unlink()
    assert Tokens(folder).look().needed


def test_what_was_lost_is_mended_as_the_message_says(folder):
    tokens = Tokens(folder)
    old = tokens.new("ann", "annotator")
    tokens.path.unlink()
    new = tokens.new("ann", "annotator")
    assert tokens.holder(old) is None and tokens.holder(new).name == "ann" and not tokens.look().fault
    tokens.path.write_text("{", encoding="utf-8")
    with pytest.raises(Closed, match="remove it and make a new one"):
        tokens.new("bea", "admin")
    assert tokens.path.read_text(encoding="utf-8") == "{", "what a person may want to mend is not written over"
    tokens.path.unlink()
    assert tokens.holder(tokens.new("bea", "admin")).role == "admin"


def test_a_right_that_is_given_back_is_noticed(folder):
    tokens = Tokens(folder)
    token = tokens.new("ann", "annotator")
    tokens.look()
    tokens._known = (tokens._known[0], tokens.look().__class__(True, (), "as read before"))
    os.chmod(tokens.path, 0o640)
    assert tokens.holder(token).name == "ann"


def test_one_misspelt_role_is_kept_and_said_and_the_others_are_let_in(folder, capsys):
    tokens = Tokens(folder)
    tokens.new("ann", "annotator")
    misspell(tokens.path)
    token = tokens.new("bea", "admin")
    assert [(h.name, h.role, bool(h.fault)) for h in tokens.holders()] == [("ann", "anotator", True), ("bea", "admin", False)]
    assert not tokens.look().fault and tokens.holder(token).name == "bea"
    assert main(["token", "list", str(folder)]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "ann\tanotator\tgood for nothing: role 'anotator' is none of annotator, reviewer, admin", "bea\tadmin"
    ]  # fmt: skip
    assert shown.err == ""


def test_removing_the_last_token_says_that_the_study_is_closed_now(folder, capsys):
    Tokens(folder).new("ann", "annotator")
    assert main(["token", "remove", str(folder), "--name", "ann"]) == 0
    said = capsys.readouterr().err
    assert f"all tokens have been removed; {MAKE.replace('STUDY', str(folder))}" in said
    assert json.loads(Tokens(folder).path.read_text(encoding="utf-8")) == []
    with pytest.raises(NotFound):
        Tokens(folder).remove("ann")
    assert main(["token", "list", str(folder)]) == 0
    assert "all tokens have been removed" in capsys.readouterr().err


def test_a_token_expires_on_its_day_and_says_so(folder, monkeypatch):
    tokens = Tokens(folder)
    token = tokens.new("ann", "annotator", days=2)
    assert tokens.holder(token).fault == "" and tokens.holder(token).expires > "2026"

    class Later(datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime.now(zone) + timedelta(days=2, seconds=5)

    monkeypatch.setattr("landmarklabel.store.tokens.datetime", Later)
    door = Tokens(folder).look()
    assert door.needed and f"token expired on {Tokens(folder).holder(token).expires[:10]}" in door.fault
    other = tokens.new("bob", "admin")
    assert tokens.holder(token).fault.startswith("token expired on") and tokens.holder(other).fault == ""


@pytest.mark.parametrize("days", [0, -1, 1e9, float("nan")])
def test_a_time_that_makes_no_sense_is_refused(folder, days):
    with pytest.raises(UsageError, match="must be more than 0 and at most 3660"):
        Tokens(folder).new("ann", "annotator", days)
    assert not Tokens(folder).look().needed


def test_an_expiry_that_cannot_be_read_lets_nobody_in(folder):
    tokens = Tokens(folder)
    token = tokens.new("ann", "annotator", days=1)
    text = tokens.path.read_text(encoding="utf-8")
    tokens.path.write_text(text.replace(tokens.holder(token).expires, "next week"), encoding="utf-8")
    assert Tokens(folder).holder(token).fault == "time of expiry 'next week' cannot be read"
