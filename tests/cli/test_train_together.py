"""``train --devices 2`` on a processor: one model, one line for what ends it, and ``--resume`` after a kill or Ctrl-C."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from program import END_S, IDS, command, ok, run, write_table

from landmarklabel.data.split import split_ids
from landmarklabel.errors import StudyError
from landmarklabel.inference.model_record import read_record
from landmarklabel.io.checkpoints import load_tensors
from landmarklabel.io.locks import locked
from landmarklabel.services import train_and_publish, trainings
from landmarklabel.store.study import Study
from landmarklabel.training.fit import label_hash
from landmarklabel.training.group import ProcessLost

TORCHRUN = "start the processes with torchrun, or unset WORLD_SIZE to train alone"
WORDS = ("--model", "scn:single", "--device", "cpu", "--no-publish")


def trained(*words: object, program: tuple = ()) -> tuple[str, str]:
    """What a training that went well has said."""
    line = [*program, *command(*words)[1:]] if program else command(*words)
    done = subprocess.run(line, capture_output=True, text=True, timeout=END_S, check=False)
    assert done.returncode == 0, done
    return done.stdout, done.stderr


def steps_kept(out: Path) -> int:
    return int(load_tensors(out / "state" / "locate.safetensors")[1]["step"])


class Together:
    """A training by two processes that goes on until it is ended, seen from outside."""

    def __init__(self, study: Path, out: Path):
        line = command("train", study, *WORDS, "--devices", 2, "--minutes", 20, "--steps", 2000, "--out", out)
        self.process = psutil.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        said = ""
        while "0 %: locate step" not in said:  # it has begun
            said = self.process.stdout.readline()
            assert said, self.process.stderr.read()
        self.ranks = {int(child.environ()["RANK"]): child for child in self.process.children()}

    def end(self) -> tuple[int, str]:
        """The status, and what was said of it; nobody is left."""
        _, said = self.process.communicate(timeout=END_S)
        assert psutil.wait_procs(self.ranks.values(), END_S)[1] == []
        return self.process.returncode, said


@pytest.mark.parametrize(
    "program", [(), (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")]
)
def test_two_processes_make_one_model_that_says_so(material, tmp_path, program):
    devices = () if program else ("--devices", 2)
    out, err = trained("train", material.study, *WORDS, *devices, "--steps", 3, "--out", tmp_path / "model", program=program)
    assert re.search(r"training scn:single on \d images, \d for validation on 2 devices", out)
    assert read_record(tmp_path / "model")["devices"] == 2 and err.count("hardly trained") == 1
    assert run("predict", tmp_path / "model", material.images, "--out", tmp_path / "found").code == 0


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_with_one_line_and_the_training_goes_on(material, tmp_path, rank):
    running = Together(material.study, tmp_path / "model")
    running.ranks[rank].kill()
    status, said = running.end()
    assert status == 1 and said.splitlines()[-1] == (
        f"landmarklabel: process {rank} of 2 was ended by SIGKILL, as the system does when memory runs out; "
        "the same command with --resume goes on from the last state"
    )
    assert "Traceback" not in said and said.count("SIGKILL") == 1
    kept = steps_kept(tmp_path / "model") if rank == 1 else 0  # the leading process saves its last step
    again = ("train", material.study, *WORDS, "--devices", 2, "--steps", kept + 3, "--out", tmp_path / "model", "--resume")
    trained(*again)
    assert read_record(tmp_path / "model")["steps"]["locate"] == kept + 3


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("to", [os.kill, os.killpg])  # whoever started them alone, and all of them, as a terminal does
def test_stopped_in_order_all_is_kept(material, tmp_path, how, to):
    running = Together(material.study, tmp_path / "model")
    assert {os.getpgid(process.pid) for process in running.ranks.values()} == {running.process.pid}
    to(running.process.pid, how)
    status, said = running.end()
    assert status == 130 and said.splitlines()[-1] == "landmarklabel: stopped; the same command with --resume goes on from here"
    assert "Traceback" not in said and steps_kept(tmp_path / "model") >= 1


def test_where_who_started_them_is_killed_they_stop_and_keep_all(material, tmp_path):
    running = Together(material.study, tmp_path / "model")
    running.process.kill()
    running.end()
    assert steps_kept(tmp_path / "model") >= 1


def test_they_share_images_without_labels_and_trainings_that_leave_a_case_out(material, tmp_path):
    study = tmp_path / "study"
    write_table(tmp_path / "two.csv", {name: material.truth[name] for name in split_ids(IDS)[0][:2]})
    ok("import", study, *material.source, "--table", tmp_path / "two.csv")
    out, err = trained(
        "train", study, "--model", "scn", "--device", "cpu", "--devices", 2, "--steps", 600, "--out", tmp_path / "model"
    )
    assert "training scn:default on 2 images, 0 for validation on 2 devices" in out
    assert re.search("^(published in study|not published).* left out", out, re.MULTILINE), out
    assert read_record(tmp_path / "model")["devices"] == 2 and "Traceback" not in err


def test_what_cannot_be_is_one_line(material):
    words = ("train", material.study, *WORDS[:-1], "--steps", 3)
    assert run(*words, "--devices", 0).error_line == "landmarklabel: --devices and --accumulate must be at least 1\n"
    assert "but this machine has no such device" in run(*words, "--device", "mps", "--devices", 2).error_line


def test_among_processes_that_something_else_has_started_it_says_so(material, monkeypatch):
    def nobody(_):
        raise ProcessLost("the other training processes were not found: a minute is over")

    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr("landmarklabel.training.group.join", nobody)
    words = ("train", material.study, *WORDS[:-1], "--steps", 3)
    done = run(*words)
    assert done.code == 2 and done.err == (
        "landmarklabel: trains as one of 3 processes, as WORLD_SIZE says, and waits for the others; unset it to train alone\n"
        "landmarklabel: the other training processes were not found: a minute is over\n"
    )
    assert run(*words, "--devices", 2).error_line == (
        "landmarklabel: --devices 2 starts processes itself, but WORLD_SIZE=3 says that torchrun or a scheduler has started "
        "them: leave out --devices, or unset WORLD_SIZE\n"
    )


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "abc"}, "the environment says WORLD_SIZE=abc, which must be a whole number from 1 on"),
        (
            {"WORLD_SIZE": "2"},
            "the environment says WORLD_SIZE=2 and no RANK: " + TORCHRUN,
        ),
        (
            {"WORLD_SIZE": "2", "RANK": "5"},
            "the environment says WORLD_SIZE=2 and RANK=5: " + TORCHRUN,
        ),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused_at_once(material, monkeypatch, environment, said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run("train", material.study, *WORDS[:-1], "--steps", 3).err.splitlines()[-1] == f"landmarklabel: {said}"


def test_a_damaged_record_of_a_stopped_training_is_one_line(material, tmp_path):
    (tmp_path / "model" / "state").mkdir(parents=True)
    record = tmp_path / "model" / "state" / "run.json"
    record.write_text("{", encoding="utf-8")
    done = run("train", material.study, *WORDS, "--steps", 3, "--out", tmp_path / "model", "--resume")
    assert done.error_line == f"landmarklabel: cannot resume: {record} is damaged; without --resume a training starts over\n"


def test_where_the_study_is_gone_at_the_end_none_is_made_anew(material, tmp_path, monkeypatch):
    study = tmp_path / "study"
    shutil.copytree(material.study, study)
    fitted = train_and_publish.fit_and_decide

    def and_meanwhile(*args, **more):
        done = fitted(*args, **more)
        study.rename(tmp_path / "elsewhere")
        return done

    monkeypatch.setattr(train_and_publish, "fit_and_decide", and_meanwhile)
    done = run("train", study, *WORDS[:-1], "--steps", 2, "--out", tmp_path / "model")
    said = f"the study folder is gone or has moved: the model is in {tmp_path / 'model'}; publish offers it to the study"
    assert said in done.error_line and not study.exists() and (tmp_path / "model" / "model.json").exists()


def test_two_trainings_do_not_write_to_one_folder(material, tmp_path):
    out = tmp_path / "model"
    out.mkdir()
    with locked(out / ".training"):
        done = run("train", material.study, *WORDS, "--steps", 2, "--out", out)
    assert done.error_line == f"landmarklabel: another training writes to {out}: wait for its end, or give another folder\n"
    trained("train", material.study, *WORDS, "--steps", 2, "--out", out)
    assert not (out / ".training").exists()


def test_a_model_that_is_being_published_is_not_set_aside(material, tmp_path, monkeypatch):
    study, out = tmp_path / "study", tmp_path / "out" / "model"
    shutil.copytree(material.study, study)
    said, publish = [], train_and_publish.publish_if_accepted

    def and_meanwhile(*args):
        said.append(run("train", material.study, *WORDS, "--steps", 1, "--out", out).error_line)
        return publish(*args)

    monkeypatch.setattr(train_and_publish, "publish_if_accepted", and_meanwhile)
    ok("train", study, *WORDS[:-1], "--steps", 2, "--out", out)
    assert said == [f"landmarklabel: another training writes to {out}: wait for its end, or give another folder\n"]
    assert [path.name for path in out.parent.iterdir()] == ["model"] and not list(tmp_path.rglob(".training"))


def test_labels_that_were_saved_again_meanwhile_are_trained_on_as_they_were(material, tmp_path):
    shutil.copytree(material.study, tmp_path / "study")
    with Study(tmp_path / "study", material.task) as study:
        before = study.labelled()[IDS[0]]
        hashes = {IDS[0]: label_hash(before), IDS[1]: label_hash(study.labelled()[IDS[1]])}
        for x in (3.0, 4.0):
            study.save(IDS[0], before.with_landmark(material.task.names[0], [x, 5.0]), author="ann")
        found = trainings._labels(study, hashes)
        assert {i: label_hash(label) for i, label in found.items()} == hashes
        with pytest.raises(StudyError, match=rf"labels of {IDS[2]} are no longer in the study: start the training again"):
            trainings._labels(study, {IDS[2]: "0"})


def test_more_parts_than_images_in_a_batch_are_no_fault(material, tmp_path):
    trained("train", material.study, *WORDS, "--steps", 2, "--accumulate", 1000, "--out", tmp_path / "model")
    assert read_record(tmp_path / "model")["accumulate"] == 1000
