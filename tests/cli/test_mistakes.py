"""What the program says of itself, and to mistakes."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess

import pytest
import torch
from program import START_S, Done, command, run

from landmarklabel.data.synthetic import phantom_task

# --- doctor and help -----------------------------------------------------------------------------------------------


def test_doctor():
    done = subprocess.run(command("doctor", "--json"), capture_output=True, timeout=START_S, encoding="utf-8")
    report = json.loads(done.stdout)
    assert report["ok"] == all(c["ok"] for c in report["checks"]) == (done.returncode == 0), report
    assert {"python", "torch", "server", "compute", "disk"} <= {c["what"] for c in report["checks"]}
    assert all(c.keys() == {"what", "ok", "found", "mend"} for c in report["checks"])


HELP = {
    "task new": "NAME --names --from --dims --scale --pictures --out",
    "import": "STUDY --task --images --table --markups --only",
    "train": "STUDY --task --model --out --minutes --steps --device --seed --valid --resume scn:default scn:payer2019",
    "predict": "MODEL_DIR IMAGE_OR_DIR --out --device",
    "evaluate": "PREDICTIONS_DIR TRUTH --task --images --mesh-unit --include-training --json --report",
    "serve": "--studies --task --models --host --port --certificate --key --insecure --retrain --retrain-minutes --repeat "
    "--max-upload-mb --origins --allow-outside --device --store",
    "doctor": "--json",
    "demo": "--out --minutes --keep",
    "measure": "PREDICTIONS --task --images --out --slicer --readers --report",
    "shapes": "LANDMARKS --task --images --out --leave-out",
    "task show": "TASK",
    "": "task import train predict evaluate measure shapes serve doctor demo --version",
}


@pytest.mark.parametrize(("verb", "options"), HELP.items(), ids=[verb or "program" for verb in HELP])
def test_help_names_every_option(verb, options):
    done = run(*verb.split(), "--help")
    assert done.code == 0 and not done.err
    assert [o for o in options.split() if o not in done.out] == []


# --- mistakes ------------------------------------------------------------------------------------------------------

TRAIN = "train {study} --task {task} --model scn --out {tmp}/m"
MISTAKES = {
    "model misspelt": ("train {study} --task {task} --model snc --out {tmp}/m", "no model called 'snc'; did you mean 'scn:"),
    "preset misspelt": (
        "train {study} --task {task} --model scn:payer2018 --out {tmp}/m",
        "no model called 'scn:payer2018'; did you mean 'scn:payer201",
    ),
    "model for 2D": ("train {study} --task {task3d} --model scn:payer2016 --out {tmp}/m", "made for 2D images"),
    "images not named": ("import {tmp}/s --task {task}", "import needs --images DIR, or --monailabel DIR or --cl-detection DIR"),
    "no such device": ("serve --studies {study} --task {task} --device gpu0", "device 'gpu0' is not known; use auto, cpu, cuda,"),
    "no study": ("train {tmp}/none --task {task} --model scn --out {tmp}/m", "none: no such study folder"),
    "study is a file": ("import {task} --task {task} --images {images}", "cannot be a study"),
    "task unknown": (TRAIN.replace("{task}", "nosuch"), "no task called 'nosuch'"),
    "task file missing": (TRAIN.replace("{task}", "{tmp}/none.json"), "none.json: no such task file"),
    "task file of other content": (TRAIN.replace("{task}", "{other}"), "not a task file"),
    "task file is a table": (TRAIN.replace("{task}", "{table}"), "points.csv: not readable as JSON"),
    "no minutes": (TRAIN + " --minutes 0", "--minutes and --steps must be positive"),
    "minutes nan": (TRAIN + " --minutes nan", "--minutes and --steps must be positive"),
    "no steps": (TRAIN + " --steps 0", "--minutes and --steps must be positive"),
    "negative seed": (TRAIN + " --steps 1 --seed -1", "--seed -1 must be from 0"),
    "device unknown": (TRAIN + " --steps 1 --device tpu", "device 'tpu' is not known"),
    "valid unknown": (TRAIN + " --valid {ids}", "the validation cases name 1 images without labels in the study, first 'p77'"),
    "out is a file": (TRAIN.replace("{tmp}/m", "{table}") + " --steps 1", "points.csv"),
    "no images": ("import {tmp}/s --task {task} --images {empty}", "no images in"),
    "no image folder": ("import {tmp}/s --task {task} --images {tmp}/none", "none: no such file or folder"),
    "only unknown": ("import {tmp}/s --task {task} --images {images} --only {ids}", "for example 'p77'"),
    "no table": ("import {tmp}/s --task {task} --images {images} --table {tmp}/no.csv", "no.csv: no such file"),
    "no markups": ("import {tmp}/s --task {task} --images {images} --markups {tmp}/none", "none is not a folder"),
    "no model": ("predict {tmp}/none {images} --out {tmp}/o", "none: no trained model here"),
    "weights damaged": ("predict {damaged} {images} --out {tmp}/o", "model.safetensors"),
    "nothing to predict": ("predict {model} {empty} --out {tmp}/o", "no images in"),
    "image missing": ("predict {model} {tmp}/none.png --out {tmp}/o", "none.png: no such file or folder"),
    "predictions into a file": ("predict {model} {images} --out {table}", "points.csv"),
    "no predictions": ("evaluate {tmp}/none {study} --task {task}", "none is not a folder"),
    "nothing in common": ("evaluate {empty} {study} --task {task}", "no image of"),
    "task name": ("task new a/b --names {names} --out {tmp}/t.json", "name 'a/b' must be"),
    "names missing": ("task new a --names {tmp}/no.txt --out {tmp}/t.json", "no.txt: cannot be read as a list"),
    "name twice": ("task new a --names {twice} --out {tmp}/t.json", "landmark name 'a' appears twice"),
    "example is no markups file": ("task new a --from {other} --out {tmp}/t.json", "must end in .mrk.json"),
    "scale of no number": ("task new a --names {names} --scale a b x --out {tmp}/t.json", "'x' is not a number"),
    "scale of no landmark": ("task new a --names {names} --scale a b 5 --out {tmp}/t.json", "scale names 'a'"),
    "task into a file": ("task new a --names {names} --out {table}/t.json", "points.csv"),
    "port in use": ("serve --studies {study} --task {task} --port {port}", "of 127.0.0.1 is taken, perhaps by a server"),
    "no port": ("serve --studies {study} --task {task} --port 99999", "port 99999 does not exist"),
    "no such host": (
        "serve --studies {study} --task {task} --insecure --host no.such.host.invalid",
        "cannot listen on 'no.such.host.invalid'",
    ),
    "origin no origin": (
        "serve --studies {study} --task {task} --origins viewer.example",
        "--origins 'viewer.example' is no origin",
    ),
    "upload of nothing": (
        "serve --studies {study} --task {task} --max-upload-mb 0",
        "--max-upload-mb '0' must be a whole number from 1",
    ),
    "retrain in words": (
        "serve --studies {study} --task {task} --retrain ten",
        "--retrain 'ten' must be a whole number from 0 on",
    ),
    "retrain for no time": (
        "serve --studies {study} --task {task} --retrain-minutes 0",
        "--retrain-minutes '0' must be a number from 0.01 on",
    ),
    "repeat half": ("serve --studies {study} --task {task} --repeat 2.5", "--repeat '2.5' must be a whole number"),
    "serve an unknown model": ("serve --studies {study} --task {task} --models scn,snc", "did you mean 'scn:"),
    "serve no model": ("serve --studies {study} --task {task} --models ,", "no model named"),
    "serve an unknown task": ("serve --studies {study} --task nosuch", "no task called 'nosuch'"),
    "serve a file": ("serve --studies {table} --task {task}", "points.csv is not a folder"),
    "demo without time": ("demo --out {tmp}/d --minutes 0", "--minutes must be positive"),
    "demo over other files": ("demo --out {images}", "is not empty and is no earlier demo"),
}
if not torch.cuda.is_available():
    MISTAKES["train without cuda"] = (TRAIN + " --steps 1 --device cuda", "no usable CUDA device")
    MISTAKES["predict without cuda"] = ("predict {model} {images} --out {tmp}/o --device cuda", "no usable CUDA device")


@pytest.fixture(scope="module")
def places(material, model, tmp_path_factory):
    """What the words in braces stand for."""
    tmp = tmp_path_factory.mktemp("mistakes")
    (tmp / "empty").mkdir()
    for name, content in {"other.json": '{"a": 1}', "ids.txt": "p77\n", "twice.txt": "a\nb\na\n"}.items():
        (tmp / name).write_text(content, encoding="utf-8")
    (tmp / "3d.json").write_text(json.dumps(phantom_task(3).to_json()), encoding="utf-8")
    shutil.copytree(model, tmp / "damaged")
    os.truncate(tmp / "damaged" / "model.safetensors", 1000)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield {
            **{"tmp": tmp, "study": material.study, "images": material.images, "table": material.table, "model": model},
            **{"task": material.task_file, "task3d": tmp / "3d.json", "names": material.folder / "names.txt"},
            **{"other": tmp / "other.json", "ids": tmp / "ids.txt", "twice": tmp / "twice.txt", "empty": tmp / "empty"},
            **{"damaged": tmp / "damaged", "port": listener.getsockname()[1]},
        }


@pytest.mark.parametrize(("words", "text"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_ends_with_one_line(words, text, places):
    assert text in run(*(word.format(**places) for word in words.split())).error_line


def test_where_a_file_finds_no_room_it_says_which_and_what_to_do(tmp_path):
    (tmp_path / "names.txt").write_text("tip\nbase\n", encoding="utf-8")
    out, (soft, hard) = tmp_path / "task.json", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))  # bytes
    try:
        done = run("task", "new", "points", "--names", tmp_path / "names.txt", "--out", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    remedy = "write where larger files are allowed (file system, ulimit -f), then try again"
    assert done.error_line == f"landmarklabel: {out}: could not be written (File too large); {remedy}\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["names.txt"]


def test_a_mistake_as_a_program(material):
    words = ("import", material.folder / "s", "--task", "nosuch", "--images", material.images)
    done = subprocess.run(command(*words), capture_output=True, timeout=START_S, encoding="utf-8")
    assert "nosuch" in Done(done.returncode, done.stdout, done.stderr).error_line


@pytest.mark.parametrize(
    "words",
    ["", "trian", "train s --task t", "task", "task new a --out b", "doctor --jsno"]
    + ["task new a --names b --from c --out d", "task new a --names b --dims 4 --out c", "serve --studies s --task t --port x"],
)
def test_wrong_usage(words):
    done = run(*words.split())
    assert done.code == 2 and done.err.startswith("usage: landmarklabel") and "Traceback" not in done.err
