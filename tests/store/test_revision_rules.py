"""What a store of revisions holds after each kind of call, and what it refuses: the rules that no label hangs on alone."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError
from tests.store.studies import execute

from landmarklabel.errors import KeyReused, NotFound, UsageError
from landmarklabel.store import audit
from landmarklabel.store.database import StoreFault
from landmarklabel.store.revisions import RevisionStore, open_revisions


def test_the_newest_body_is_that_of_the_last_save_whatever_its_image(store, url):
    assert store.newest_body() is None
    for image_id, value in (("b", 1), ("a", 2), ("b", 3), ("a", 4)):
        store.save(image_id, {"v": value})
        assert store.newest_body() == {"v": value}
    execute(url, "UPDATE revisions SET body = '{}' WHERE id = 4")
    with pytest.raises(StoreFault, match=r"revision 2 of a is damaged \(not what was saved\); restore a backup"):
        store.newest_body()


# --- where it is -----------------------------------------------------------------------------------------------------


def test_a_study_has_its_revisions_in_its_own_folder(tmp_path):
    (tmp_path / "study" / ".landmarklabel").mkdir(parents=True)
    store = open_revisions(tmp_path / "study")
    store.save("a", {"v": 1})
    store.close()
    assert (tmp_path / "study" / ".landmarklabel" / "revisions.sqlite").is_file()
    again = open_revisions(str(tmp_path / "study"))
    assert again.head("a").body == {"v": 1}
    again.close()


def test_a_database_that_was_named_is_used_and_the_folder_stays_without(tmp_path, url):
    store = open_revisions(tmp_path / "study", url)
    store.save("a", {"v": 1})
    store.close()
    assert not (tmp_path / "study").exists()
    other = RevisionStore(url)
    assert other.head("a").body == {"v": 1}
    other.close()


@pytest.mark.parametrize("column", ["image_id", "number", "author", "source", "created", "body", "sha256", "chain"])
def test_no_program_can_leave_out_a_part_of_a_row(store, url, column):
    store.save("a", {"v": 1})
    with pytest.raises(IntegrityError):
        execute(url, f"UPDATE revisions SET {column} = NULL")
    assert store.verify() == []


@pytest.mark.parametrize("changed", ["id = 3, number = 1", "id = 3, number = 2, key = 'k'", "id = 1, number = 3"])
def test_no_program_can_use_a_row_a_number_or_a_key_twice(store, url, changed):
    first = store.save("a", {"v": 1}, key="k")
    store.save("a", {"v": 2})
    with pytest.raises(IntegrityError):
        execute(url, f"UPDATE revisions SET {changed} WHERE id = 2")
    assert store.head("a").number == 2 and store.get("a", 1) == first and store.verify() == []


# --- saves that are repeated -----------------------------------------------------------------------------------------


def test_a_repeated_save_may_differ_in_how_it_came_about_and_in_nothing_else(store):
    first = store.save("a", {"points": [1, 2], "pixels": "ab", "unseen": True}, key="k")
    for body in ({"points": [1, 2]}, {"points": [1, 2], "pixels": "cd", "unseen": False}):
        assert store.save("a", body, key="k") == first
    for body in ({"points": [1, 3], "pixels": "ab", "unseen": True}, {"points": [1, 2], "more": 1}, {}):
        with pytest.raises(KeyReused, match="'k' was used for other landmarks of 'a'; use a new one for these"):
            store.save("a", body, key="k")
    assert store.history("a") == [first] and len(store.changes()) == 1


def test_saves_without_a_key_are_never_taken_for_repeats(store):
    for _ in range(2):
        store.save("a", {"v": 1})
    assert [r.number for r in store.history("a")] == [1, 2]


def test_what_is_saved_together_is_saved_in_its_order_and_tells_its_author(store):
    store.save("b", {"v": 0})
    store.save_all({"b": {"v": 1}, "a": {"v": 2}}, author="ann", source="renamed")
    heads = store.heads()
    assert {i: (r.number, r.body["v"], r.author, r.source) for i, r in heads.items()} == {
        "a": (1, 2, "ann", "renamed"),
        "b": (2, 1, "ann", "renamed"),
    }
    assert [(c.subject, c.who, c.revision) for c in store.changes()] == [("b", "", 1), ("b", "ann", 2), ("a", "ann", 3)]
    assert store.newest_body() == {"v": 2} and store.verify() == []


@pytest.mark.parametrize(
    ("bodies", "author"), [({"a": {}, "../b": {}}, ""), ({"a": {}, "b": [1]}, ""), ({"a": {}, "b": {"v": float("nan")}}, ""),
                           ({"a": {}}, "x" * 201)],
)  # fmt: skip
def test_of_what_is_saved_together_all_or_nothing_is_saved(store, bodies, author):
    with pytest.raises(UsageError):
        store.save_all(bodies, author=author, source="renamed")
    assert (store.numbers(), store.changes(), store.latest_row()) == ({}, [], 0)


# --- what has changed ------------------------------------------------------------------------------------------------


def test_newer_heads_are_read_anew_and_the_others_are_the_very_same(store):
    for image_id in "cab":
        store.save(image_id, {"v": 1})
    known, row = store.newer_heads({}, 0), store.latest_row()
    assert known == store.heads() and list(known) == ["a", "b", "c"]
    store.save("b", {"v": 2})
    store.save("d", {"v": 1})
    newer = store.newer_heads(known, row)
    assert newer == store.heads() and list(newer) == ["a", "b", "c", "d"]
    assert [newer[i] is known[i] for i in "abc"] == [True, False, True] and newer["b"].body == {"v": 2}


def test_heads_of_a_database_that_was_put_back_are_those_it_has(store, url):
    for image_id in "ab":
        store.save(image_id, {"v": 1})
    store.save("a", {"v": 2})
    known, row = store.heads(), store.latest_row()
    execute(url, "DELETE FROM revisions WHERE image_id = 'a' AND number = 2")
    assert store.newer_heads(known, row)["a"].number == 1


def test_a_newer_head_that_is_damaged_is_named_and_hides_no_other(store, url):
    store.save("a", {"v": 1})
    store.save("b", {"v": 1})
    known, row = store.heads(), store.latest_row()
    for image_id in "ab":
        store.save(image_id, {"v": 2})
    execute(url, "UPDATE revisions SET body = '{}' WHERE image_id = 'a' AND number = 2")
    assert list(store.newer_heads(known, row)) == ["b"]
    assert store.damaged == {"a": "revision 2 of a is damaged (not what was saved); restore a backup"}
    store.save("a", {"v": 3})
    assert list(store.newer_heads({"b": known["b"]}, store.latest_row())) == ["a", "b"] and store.damaged == {}  # looked at again
    assert list(store.heads()) == ["a", "b"] and store.damaged == {}


def test_heads_of_rows_that_hold_no_text_are_damaged_and_no_error(store, url):
    store.save("a", {"v": 1})
    store.save("b", {"v": 1})
    execute(url, "UPDATE revisions SET sha256 = 'x' WHERE image_id = 'a'")
    assert list(store.heads()) == ["b"] and list(store.damaged) == ["a"]
    with pytest.raises(NotFound, match="b has no revision 2; look at its history"):
        store.get("b", 2)


# --- the audit trail -------------------------------------------------------------------------------------------------


def test_changes_are_asked_for_by_subject_and_by_kind(store):
    store.log_change("image added", "a", who="ann", before="x", after="y")
    store.log_change("image added", "b")
    store.log_change("image removed", "a")
    told = lambda **asked: [(c.what, c.subject) for c in store.changes(**asked)]  # noqa: E731
    assert told() == [("image added", "a"), ("image added", "b"), ("image removed", "a")]
    assert told(subject="a") == [("image added", "a"), ("image removed", "a")]
    assert told(what="image added") == [("image added", "a"), ("image added", "b")]
    assert told(subject="b", what="image removed") == []
    first = store.changes()[0]
    assert (first.who, first.before, first.after, first.revision) == ("ann", "x", "y", None) and store.verify() == []


@pytest.mark.parametrize(
    "bad", [{"who": "a\0b"}, {"subject": "a\nb"}, {"what": "x" * 201}, {"before": None}, {"after": "\ud800"}]
)
def test_a_change_that_cannot_be_told_is_not_made(store, bad):
    made = []
    words = {"what": "image added", "subject": "a", "who": "ann", "before": "", "after": ""} | bad
    with pytest.raises(UsageError, match=f"{next(iter(bad))} .* must be printable text"), store.recording(**words):
        made.append(1)
    assert made == [] and store.changes() == []


def test_a_change_that_fails_is_not_told_and_others_can_follow(store):
    with pytest.raises(ZeroDivisionError), store.recording("image added", "a"):
        raise ZeroDivisionError
    assert store.changes() == []
    with store.recording("image added", "b"):
        assert store.head("b") is None  # readers go on meanwhile
    assert [c.subject for c in store.changes()] == ["b"]


# --- two programs on one database ------------------------------------------------------------------------------------


def test_a_save_waits_for_the_change_that_another_program_is_making(store, url):
    other, begun, done = RevisionStore(url), threading.Event(), []
    other.save("a", {"v": 1})

    def save() -> None:
        begun.set()
        done.append(other.save("a", {"v": 2}))

    thread = threading.Thread(target=save)
    with store.recording("image added", "b"):
        thread.start()
        begun.wait()
        thread.join(0.3)
        assert done == []
    thread.join()
    assert [r.number for r in done] == [2] and [c.subject for c in store.changes()] == ["a", "b", "a"]
    assert store.verify() == []
    other.close()


# --- verification ----------------------------------------------------------------------------------------------------


def test_verify_names_the_row_and_what_is_wrong_with_it(store, url):
    for value in (1, 2, 3):
        store.save("a", {"v": value})
    execute(url, "UPDATE revisions SET body = '{\"v\": 7}' WHERE id = 2")
    assert store.verify() == ["revision 2 of a (row 2): the body does not have the hash it was saved with"]
    execute(url, "UPDATE revisions SET body = '{\"v\": 2}', author = 'eve' WHERE id = 2")
    wrong = [fault for fault in store.verify() if fault.startswith("revision")]
    assert wrong == ["revision 2 of a (row 2): its fields, or the row before it, are not as they were saved"]


def test_a_database_without_a_column_is_damaged_and_one_that_goes_away_is_not(store, url, monkeypatch):
    store.save("a", {"v": 1})

    def gone(*_):
        raise OperationalError("SELECT", {}, Exception("server closed the connection"), connection_invalidated=True)

    with monkeypatch.context() as patch:
        patch.setattr(audit, "faults", gone)
        with pytest.raises(StoreFault):
            store.verify()
    execute(url, "ALTER TABLE revisions DROP COLUMN chain")
    (fault,) = store.verify()
    assert fault.startswith("the database is damaged (") and fault.endswith("restore it from a backup")
