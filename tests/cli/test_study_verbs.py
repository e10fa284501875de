"""A study and its task, publishing, corrections and imports, as somebody types them."""

from __future__ import annotations

import io
import json
import shutil
import sys
from dataclasses import replace

import pytest
from tests.cli.program import IDS, NAMES, ok, run, write_table

from landmarklabel.io.files import write_json
from landmarklabel.io.markups import read_markups, write_markups
from landmarklabel.landmarks import LandmarkTask, Status
from landmarklabel.services import trainings
from landmarklabel.store.study import Study
from landmarklabel.tasks import resolve_task
from landmarklabel.training.publishing import ModelRegistry, decide


@pytest.fixture
def study(material, tmp_path):
    """A study of six labelled cases."""
    ok("import", tmp_path / "S", *material.source, "--table", material.table)
    return tmp_path / "S"


def task_file(tmp_path, names, name="hand"):
    path = tmp_path / f"{name}{len(names)}{names[0]}.json"
    write_json(path, LandmarkTask(name, tuple(names), dims=2).to_json())
    return path


def files_of(study):
    files = sorted((study / "labels" / "final").iterdir())
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def test_every_entrance_refuses_another_task_and_says_both(material, study, model, tmp_path):
    other = task_file(tmp_path, ["Thumb", *NAMES[1:]])
    before = files_of(study)
    entrances = (
        ("import", study, "--task", other, "--images", material.images),
        ("train", study, "--task", other, "--model", "scn", "--steps", 2),
        ("serve", "--studies", study, "--task", other, "--port", 8),
        ("evaluate", study / "labels" / "final", study, "--task", other),
        ("simulate", "clicks", model, study, "--task", other),
        ("simulate", "labels", study, "--task", other, "--out", tmp_path / "L"),
    )
    for words in entrances:
        line = run(*words).error_line
        assert f"study 'S' belongs to task {material.task.name!r} (8 landmarks, 2D), not to task 'hand' (8 landmarks, 2D)" in line
        assert f"landmarklabel study rename-landmark S {NAMES[0]!r} 'Thumb'" in line
    assert files_of(study) == before


def test_a_model_of_other_landmarks_is_not_used_on_a_study(material, study, model, tmp_path):
    ok("study", "rename-landmark", study, NAMES[0], "other", "--yes")
    assert "belongs to task" in run("predict", model, study, "--out", tmp_path / "P").error_line
    assert not (tmp_path / "P" / "predictions.csv").exists()
    assert "with other landmarks than task" in run("publish", model, study).error_line


def test_the_task_need_not_be_said_where_the_study_knows_it(material, study, tmp_path):
    assert "6 labelled (0 new or changed)" in ok("import", study, "--images", material.images, "--table", material.table).out
    assert "MRE 0.000 mm" in ok("evaluate", study / "labels" / "final", study).out
    assert "give --task NAME_OR_FILE.json" in run("train", tmp_path, "--model", "scn").error_line


def test_renaming_asks_says_what_it_does_and_keeps_every_point(study, monkeypatch):
    before, name = files_of(study), NAMES[2]
    asked = run("study", "rename-landmark", study, name, "new name")
    assert asked.code == 2 and asked.err.endswith("landmarklabel: nothing was changed: say --yes to do this\n")
    assert f"landmark {name!r} renamed to 'new name', in the task and in the labels of 6 cases (a new revision each)" in asked.err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer in ("n", ""):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert run("study", "rename-landmark", study, name, "new name").code == 2
    assert files_of(study) == before
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert "6 labels have a new revision" in ok("study", "rename-landmark", study, name, "new name").out
    old, new = json.loads(before[f"{IDS[0]}.mrk.json"][0]), read_markups(study / "labels" / "final" / f"{IDS[0]}.mrk.json")
    points = {p["label"]: p["position"] for p in old["markups"][0]["controlPoints"] if p["position"]}
    found = dict(zip(new.task.names, new.positions_mm, strict=True))
    assert points and all(tuple(found["new name" if k == name else k]) == pytest.approx(tuple(v)) for k, v in points.items())
    assert f"there is a landmark {NAMES[3]!r} already" in run("study", "rename-landmark", study, NAMES[4], NAMES[3]).error_line
    assert "no landmark called 'nobody'" in run("study", "drop-landmark", study, "nobody", "--yes").error_line


def test_the_task_of_a_study_is_written_to_be_changed_and_stands_for_a_task(material, study, tmp_path):
    ok("study", "rename-landmark", study, NAMES[0], "other name", "--yes")
    ok("task", "new", "again", "--from", study, "--out", tmp_path / "task.json")
    written = LandmarkTask.load(tmp_path / "task.json")
    assert written.names == ("other name", *NAMES[1:]) and replace(resolve_task(str(study)), name="again") == written
    assert "belongs to task" in run("import", study, *material.source, "--task", material.study).err


def test_dropping_keeps_the_history(study):
    ok("study", "drop-landmark", study, NAMES[2], "--yes")
    status = json.loads(ok("study", "status", study, "--json").out)
    assert (status["landmarks"], status["labelled"], status["problems"]) == (7, 6, [])
    assert NAMES[2] not in (study / "labels" / "final" / f"{IDS[0]}.mrk.json").read_text(encoding="utf-8")
    opened = Study(
        study, LandmarkTask.from_json(json.loads((study / ".landmarklabel" / "study.json").read_text(encoding="utf-8"))["task"])
    )
    assert NAMES[2] in {row["name"] for row in opened.history(IDS[0])[0].body["landmarks"]}


def test_status_names_changed_images_and_keep_labels_decides(material, study):
    first, second = (next(study.glob(f"{i}.*")) for i in IDS[:2])
    shutil.copyfile(second, first)
    status = ok("study", "status", study).out
    assert "5 of 6 images labelled, 1 changed since they were labelled" in status
    assert f"needs a look: {IDS[0]}: the image was changed since it was labelled" in status
    again = run("import", study, *material.source, "--table", material.table)
    assert again.code == 2 and f"{IDS[0]}" in again.err and "exists with other content" in again.err
    assert "holds on the image as it is now" in ok("study", "keep-labels", study, IDS[0], "--yes").out
    assert "6 of 6 images labelled, 0 changed" in ok("study", "status", study).out


def test_status_says_which_points_are_only_proposed(material, study):
    with Study(study, material.task) as opened:
        mine = opened.labels(IDS[1]).with_landmark(NAMES[0], (5.0, 6.0), Status.PREDICTED)
        opened.save(IDS[1], mine.with_landmark(NAMES[1], (7.0, 6.0), Status.PREDICTED), author="ann")
    said = ok("study", "status", study).out
    says = f"2 points are proposals that nobody has confirmed, and count as no labels: {IDS[1]}"
    assert f"needs a look: {says}\n" in said and json.loads(ok("study", "status", study, "--json").out)["problems"] == [says]
    shutil.rmtree(study)
    ok("import", study, *material.source, "--table", material.table)
    assert "proposals" not in ok("study", "status", study).out


def test_an_import_never_goes_above_a_correction_unasked(material, study, tmp_path):
    opened = Study(study, material.task)
    corrected = opened.labels(IDS[0]).with_landmark(NAMES[0], (5.0, 6.0), Status.PLACED)
    opened.save(IDS[0], corrected, author="ann", source="landmarks api", base_revision=1)
    assert "6 labelled (0 new" in ok("import", study, *material.source, "--table", material.table).out  # the same table again
    truth = {i: x.with_landmark(NAMES[0], (7.0, 8.0), Status.PLACED) for i, x in material.truth.items()}
    write_table(tmp_path / "new.csv", truth)
    words = ("import", study, *material.source, "--table", tmp_path / "new.csv")
    done = run(*words)
    assert done.code == 2 and "5 new or changed" in done.out
    assert f"corrected by people since: 1 case, for example {IDS[0]!r}: their landmarks stay as they are" in done.err
    assert tuple(opened.labels(IDS[0]).positions_mm[0]) == (5, 6) and tuple(opened.labels(IDS[1]).positions_mm[0]) == (7, 8)
    ok(*words, "--replace")
    assert tuple(opened.labels(IDS[0]).positions_mm[0]) == (7, 8)
    assert [r.author for r in opened.history(IDS[0])] == ["import", "ann", "import"]


def test_an_import_takes_a_hand_edit_that_nobody_has_noticed_for_the_correction_it_is(material, study, tmp_path):
    path = study / "labels" / "final" / f"{IDS[0]}.mrk.json"
    write_markups(path, read_markups(path, material.task).with_landmark(NAMES[0], (5.0, 6.0), Status.PLACED))
    truth = {i: x.with_landmark(NAMES[0], (7.0, 8.0), Status.PLACED) for i, x in material.truth.items()}
    write_table(tmp_path / "new.csv", truth)
    assert run("import", study, *material.source, "--table", tmp_path / "new.csv").code == 2
    assert tuple(read_markups(path, material.task).positions_mm[0]) == (5, 6)
    ok("import", study, *material.source, "--table", material.table, "--replace")
    assert tuple(read_markups(path, material.task).positions_mm[0]) == tuple(material.truth[IDS[0]].positions_mm[0])


def test_publish_makes_a_model_answer_and_says_what_the_gate_would_say(material, study, model):
    done = ok("publish", model, study)
    assert done.out.startswith("published in S as scn version 1, by hand; ")
    registry = ModelRegistry(study / ".landmarklabel" / "models" / "scn")
    assert registry.record()["version"] == 1 and (registry.live() / "model.safetensors").is_file()
    assert "scn version 1 answers: published by hand" in ok("study", "status", study).out
    assert "model version 1 published" in {c.what for c in Study(study, material.task).revisions.changes("scn")}


def test_an_earlier_version_is_published_again(material, study, model):
    for _ in range(2):
        ok("publish", model, study)
    earlier = study / ".landmarklabel" / "models" / "scn" / "versions" / "0001"
    assert ok("publish", earlier, study).out.startswith("published in S as scn version 3, by hand; ")
    assert ModelRegistry(study / ".landmarklabel" / "models" / "scn").versions() == [1, 2, 3]


@pytest.mark.parametrize("publish", [True, False])
def test_training_offers_its_model_and_leaves_the_study_alone_where_asked(study, tmp_path, monkeypatch, publish):
    monkeypatch.setattr(trainings, "decide", lambda *given: replace(decide(*given), publish=publish))
    words = ("train", study, "--model", "scn:single", "--steps", 2)
    assert "--no-publish without --out would keep nothing" in run(*words, "--no-publish").error_line
    quiet = ok(*words, "--no-publish", "--out", tmp_path / "M")
    assert "published" not in quiet.out and not (study / ".landmarklabel" / "models" / "scn_single").exists()
    done = ok(*words, "--out", tmp_path / "N")
    says = {True: "published in S as scn_single version 1: ", False: "not published, the template stays live: "}
    assert says[publish] in done.out and says[not publish] not in done.out
    assert (tmp_path / "N" / "model.json").is_file()
    registry = ModelRegistry(study / ".landmarklabel" / "models" / "scn_single")
    assert registry.versions() == ([1] if publish else []) and registry.record()["version"] == int(publish)
    (entry,) = registry.record()["history"]
    assert entry["what"] == ("published" if publish else "kept") and "template on 1 validation case:" in entry["reason"]


def test_a_hand_edit_made_before_a_rename_is_taken_along(study):
    path = study / "labels" / "final" / f"{IDS[0]}.mrk.json"
    edited = read_markups(path, None)
    edited = edited.with_landmark(NAMES[0], (3.0, 4.0, 0.0), Status.PLACED)
    write_markups(path, edited)
    ok("study", "rename-landmark", study, NAMES[0], "first", "--yes")
    found = read_markups(path)
    assert tuple(found.positions_mm[found.task.index("first")]) == (3, 4, 0)


def test_a_pipe_is_no_terminal_to_ask(study, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert run("study", "drop-landmark", study, NAMES[3]).code == 2
