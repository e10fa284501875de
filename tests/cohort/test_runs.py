"""A cohort from plan to table: every case once, the same table whoever predicts which part, and whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas
import psutil
import pytest
from cohort_command import COUNT, command
from filelock import FileLock
from tests.cli.program import unprivileged
from tests.thoroughness import times

from landmarklabel.cohort.manifest import Shard
from landmarklabel.cohort.prediction import Predictor, PredictorSettings
from landmarklabel.cohort.run_folder import CohortRun, Results
from landmarklabel.errors import StudyError

FAILED = "patient0/broken"
TABLES = ("table.csv", "table.parquet")


@pytest.fixture(scope="module")
def done(tmp_path_factory, cohort, model, scans) -> Path:
    """The cohort, predicted by one worker in one part."""
    folder = tmp_path_factory.mktemp("done") / "run"
    said = cohort("plan", scans, "--model", model, "--out", folder)
    assert f"{COUNT + 1} cases" in said and "1 files or folders left out, see left_out.csv" in said
    assert "notes.txt" in (folder / "left_out.csv").read_text(encoding="utf-8")
    said = cohort("run", folder, "--workers", 1)
    assert f"part 1/1 is done, {COUNT} predicted now, 1 failed" in said
    cohort("merge", folder)
    return folder


def test_the_table_is_read_by_another_program_and_has_a_row_for_every_case(done):
    table = pandas.read_parquet(done / "table.parquet").set_index("id")
    assert len(table) == table.index.nunique() == COUNT + 1 and list(table.index) == sorted(table.index)
    assert table.state.value_counts().to_dict() == {"ok": COUNT, "failed": 1}
    assert "a PNG file starts with" in table.reason[FAILED] and np.isnan(table.wrist_left_x[FAILED])
    text = pandas.read_csv(done / "table.csv", index_col="id")
    assert list(text.columns) == list(table.columns)
    for name in ("wrist_left_x", "wrist_left_y", "wrist_left_expected_error"):
        np.testing.assert_array_equal(text[name], table[name])


def test_the_points_are_those_that_predict_finds(done, model, scans, tmp_path):
    words = ["predict", str(model), str(scans / "patient2"), "--out", str(tmp_path / "out")]
    subprocess.run([sys.executable, "-m", "landmarklabel", *words], check=True, capture_output=True, timeout=300)
    found = pandas.read_csv(tmp_path / "out" / "predictions.csv", index_col="id")
    table = pandas.read_parquet(done / "table.parquet").set_index("id")
    assert len(found) == 10
    for name in ("wrist_left", "wrist_right"):
        for axis in "xy":
            ours = table.loc[[f"patient2/{i}" for i in found.index], f"{name}_{axis}"]
            np.testing.assert_allclose(ours, found[f"{name}_{axis}"], atol=1e-3)


@pytest.mark.parametrize(("parts", "workers"), [(1, 2), (4, 1), (7, 2)][: times(1, 3)])
def test_parts_and_workers_change_no_byte_of_the_table(done, cohort, model, scans, tmp_path, parts, workers):
    cohort("plan", scans, "--model", model, "--out", tmp_path / "run")
    words = [("run", tmp_path / "run", "--shard", f"{n}/{parts}", "--workers", workers) for n in range(1, parts + 1)]
    running = [subprocess.Popen(command(*one), stderr=subprocess.DEVNULL) for one in words]
    assert [process.wait(300) for process in running] == [0] * parts
    cohort("merge", tmp_path / "run")
    for name in TABLES:
        assert (tmp_path / "run" / name).read_bytes() == (done / name).read_bytes()


def lines(folder: Path) -> list[dict]:
    rows = []
    for file in (folder / "results").glob("*.jsonl"):
        rows += [json.loads(line) for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return rows


@pytest.mark.parametrize("seed", range(times(1, 10)))
def test_killed_workers_and_runs_lose_no_case_and_double_none(done, cohort, model, scans, tmp_path, seed):
    folder, dice = tmp_path / "run", random.Random(seed)
    cohort("plan", scans, "--model", model, "--out", folder)
    kills, deadline = 0, time.monotonic() + 240
    while len({row["id"] for row in lines(folder)}) <= COUNT:
        assert time.monotonic() < deadline
        process = subprocess.Popen(command("run", folder, "--workers", 2), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before, wanted = len(lines(folder)), dice.randrange(1, 12)
        while process.poll() is None and len(lines(folder)) < before + wanted:
            time.sleep(0.01)
        if process.poll() is not None:
            assert process.returncode == 0
            break
        workers = psutil.Process(process.pid).children(recursive=True)
        victim = dice.choice([process.pid, *(w.pid for w in workers if "multiprocessing.spawn" in " ".join(w.cmdline()))])
        kills += 1
        os.kill(victim, signal.SIGKILL)
        if victim == process.pid:
            process.wait(30)
            _, alive = psutil.wait_procs(workers, 30)
            assert not alive, "workers outlive the run"
        else:
            assert process.wait(240) == 0
    assert kills and sorted(row["id"] for row in lines(folder)) == sorted({row["id"] for row in lines(folder)})
    cohort("merge", folder)
    assert (folder / "table.csv").read_bytes() == (done / "table.csv").read_bytes()


def test_half_a_line_does_not_count(done, cohort, model, scans, tmp_path):
    folder = tmp_path / "run"
    cohort("plan", scans, "--model", model, "--out", folder)
    (whole,) = (done / "results").glob("*.jsonl")
    content = whole.read_bytes()
    (folder / "results" / "1-of-1-1-killed.jsonl").write_bytes(content[: len(content) // 2])
    before = len(lines(folder))
    assert f"{COUNT + 1 - before} of {COUNT + 1} cases to predict" in cohort("run", folder, "--workers", 1)
    cohort("merge", folder)
    assert (folder / "table.csv").read_bytes() == (done / "table.csv").read_bytes()


def test_status_says_how_far_it_is_and_a_table_of_a_part_says_what_is_missing(cohort, model, scans, tmp_path):
    folder = tmp_path / "run"
    cohort("plan", scans, "--model", model, "--out", folder)
    assert f"0 of {COUNT + 1} cases done, 0 failed, {COUNT + 1} left" in cohort("status", folder)
    cohort("run", folder, "--shard", "1/3", "--workers", 1)
    told = json.loads(cohort("status", folder, "--json"))
    assert told["cases"] == COUNT + 1 and told["done"] + told["failed"] + told["left"] == COUNT + 1
    assert 5 < told["done"] < 25 and told["per_second"] > 0
    said = cohort("merge", folder)
    assert f"{told['left']} missing" in said and f"{told['left']} cases have no result yet; go on with" in said
    assert pandas.read_parquet(folder / "table.parquet").state.eq("missing").sum() == told["left"]


def test_what_has_failed_is_tried_again_on_request_only(cohort, model, scans, tmp_path):
    (tmp_path / "scans").mkdir()
    mended = tmp_path / "scans" / "scan.png"
    mended.write_bytes(b"no picture")
    folder = tmp_path / "run"
    cohort("plan", tmp_path / "scans", "--model", model, "--out", folder)
    said = cohort("run", folder, code=2)
    assert "0 predicted now, 1 failed" in said and "no case of part 1/1 could be predicted; the first: scan: " in said
    mended.write_bytes((scans / "patient1" / "scan10.png").read_bytes())
    assert "0 of 1 cases to predict" in cohort("run", folder)
    assert "1 predicted now, 0 failed" in cohort("run", folder, "--again")
    assert "1 of 1 cases done, 0 failed, 0 left" in cohort("status", folder)


READERS = """
import os, signal, time
def kill(path):
    os.kill(os.getpid(), signal.SIGKILL)
def wait(path):
    time.sleep(600)
"""


def test_a_case_that_ends_its_worker_or_never_ends_fails_and_the_others_do_not(cohort, model, scans, tmp_path):
    info = tmp_path / "site" / "readers-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: readers\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[landmarklabel.readers]\nkill = bad:kill\nwait = bad:wait\n", encoding="utf-8")
    (tmp_path / "site" / "bad.py").write_text(READERS, encoding="utf-8")
    place = tmp_path / "scans"
    place.mkdir()
    for number in range(6):
        (place / f"scan{number}.png").write_bytes((scans / "patient1" / f"scan1{number}.png").read_bytes())
    (place / "scan2x.kill").touch()
    (place / "scan4x.wait").touch()
    more = {"env": {**os.environ, "PYTHONPATH": str(tmp_path / "site")}}
    folder = tmp_path / "run"
    cohort("plan", place, "--model", model, "--out", folder, **more)
    said = cohort("run", folder, "--workers", 1, "--case-seconds", 5, **more)
    assert "6 predicted now, 2 failed" in said
    cohort("merge", folder)
    table = pandas.read_parquet(folder / "table.parquet").set_index("id")
    assert table.reason["scan2x"] == "its process ended 3 times (signal 9), as for want of memory or by a damaged file"
    assert table.reason["scan4x"] == "it took longer than 5 s"
    assert sum(table.state == "ok") == 6


def test_one_part_is_predicted_by_one_process(cohort, model, scans, tmp_path):
    folder = tmp_path / "run"
    cohort("plan", scans, "--model", model, "--out", folder)
    with Results(CohortRun(folder), Shard(2, 3)):
        assert "another process predicts part 2/3 of it; wait for its end" in cohort("run", folder, "--shard", "2/3", code=2)
        said = cohort("run", folder, code=2)
        assert "another process predicts part 2/3, which has cases of part 1/1 too" in said
        assert "part 1/3 is done" in cohort("run", folder, "--shard", "1/3")


def test_ctrl_c_ends_all_workers_and_leaves_what_is_done(cohort, model, scans, tmp_path):
    folder, many = tmp_path / "run", 400
    scan = scans / "patient1" / "scan10.png"
    (tmp_path / "list.csv").write_text("id,path\n" + "".join(f"{n},{scan}\n" for n in range(many)), encoding="utf-8")
    cohort("plan", tmp_path / "list.csv", "--model", model, "--out", folder)
    process = subprocess.Popen(command("run", folder, "--workers", 2), stderr=subprocess.PIPE, encoding="utf-8")
    while len(lines(folder)) < 3:
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert f"of {many} cases are kept; the same command goes on" in said and "landmarklabel: stopped" in said
    assert "Traceback" not in said and process.returncode == 130
    assert not psutil.wait_procs(workers, 10)[1]
    rows = len(lines(folder))
    assert 3 <= rows < many and f"{rows} of {many} cases done, 0 failed, {many - rows} left" in cohort("status", folder)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "{empty}"), "no cohort is planned there; begin with cohort plan"),
        (("run", "{run}", "--shard", "5/4"), "parts are counted from 1 to 4"),
        (("run", "{run}", "--workers", "0"), "--workers 0 must be from 1 to 10000"),
        (("run", "{run}", "--case-seconds", "nan"), "--case-seconds nan must be a number from 1"),
        (("submit", "{run}", "--slurm", "2", "--threads", "-1"), "--threads -1 must be from 1 to 10000"),
        (("run", "{run}", "--device", "tpu"), "device 'tpu' is not known"),
        (("run", "{run}", "--ray", ""), "--ray needs an address: auto, local, ray://HOST:PORT or HOST:PORT"),
        (("submit", "{run}", "--slurm", "4", "--sbatch=--array=1-2"), "the array has as many tasks as --slurm says"),
        (("plan", "{scans}", "--model", "{empty}", "--out", "{empty}/x"), "no trained model here"),
        (("plan", "{scans}", "--model", "{damaged}", "--out", "{empty}/x"), "model.safetensors: its sha256 is not the one"),
        (("plan", "{scans}", "--model", "{model}", "--out", "{run}"), "is there already, and not empty: give another --out"),
    ],
)
def test_what_cannot_be_done_is_one_line(done, cohort, model, scans, tmp_path, words, said):
    damaged = shutil.copytree(model, tmp_path / "damaged")
    os.truncate(damaged / "model.safetensors", 1000)
    places = {"empty": tmp_path, "run": done, "scans": scans, "model": model, "damaged": damaged}
    told = cohort(*(word.format(**places) for word in words), code=2)
    assert said in told and len(told.strip().splitlines()) <= 2, told


def test_a_model_that_was_damaged_since_is_said_once(cohort, model, scans, tmp_path):
    folder = tmp_path / "run"
    cohort("plan", scans, "--model", model, "--out", folder)
    os.truncate(folder / "model" / "model.safetensors", 1000)
    assert "model.safetensors: its sha256 is not the one" in cohort("run", folder, code=2)
    assert not lines(folder)


def test_a_worker_that_begins_later_does_not_load_another_model(model):
    with pytest.raises(StudyError, match="not the model that the cohort was planned with"):
        Predictor(PredictorSettings(str(model), "0" * 64))


def test_a_few_failures_that_stay_are_no_failure_of_the_part(done, cohort, tmp_path):
    folder = Path(shutil.copytree(done, tmp_path / "run"))
    assert "0 predicted now, 1 failed" in cohort("run", folder, "--again")


def test_results_that_somebody_removes_meanwhile_are_missed(cohort, model, scans, tmp_path):
    folder = tmp_path / "run"
    cohort("plan", scans, "--model", model, "--out", folder)
    process = subprocess.Popen(command("run", folder, "--workers", 1), stderr=subprocess.PIPE, encoding="utf-8")
    while not lines(folder):
        time.sleep(0.01)
    shutil.rmtree(folder / "results")
    assert re.search(r"results: \d+ of 41 results are gone; who removed them\?", process.communicate(timeout=120)[1])
    assert process.returncode == 2


def test_people_who_share_a_cohort_are_told_how(done, cohort, tmp_path):
    folder = Path(shutil.copytree(done, tmp_path / "run"))
    for name in ("results", ""):
        (folder / name).chmod(0o555)
    try:
        other = [*unprivileged(), *command("run", folder, "--shard", "2/3")]
        said = subprocess.run(other, capture_output=True, encoding="utf-8", timeout=60, check=False).stderr
    finally:
        for name in ("", "results"):
            (folder / name).chmod(0o755)
    assert (
        f"Permission denied; people who share a cohort need to write in all of it: umask 002, and once chmod -R g+rwX {folder}"
        in said
    )


def test_another_model_or_list_in_the_folder_is_refused(done, cohort, tmp_path):
    folder = Path(shutil.copytree(done, tmp_path / "run"))
    record = json.loads((folder / "model" / "model.json").read_text(encoding="utf-8"))
    (folder / "model" / "model.json").write_text(json.dumps(record), encoding="utf-8")
    assert "not the model that the cohort was planned with" in cohort("run", folder, code=2)
    folder = Path(shutil.copytree(done, tmp_path / "other"))
    os.truncate(folder / "manifest.jsonl", 300)
    assert "manifest.jsonl: changed or damaged since the cohort was planned" in cohort("merge", folder, code=2)


@pytest.mark.parametrize(
    "change",
    [
        {"id": ["scan"]},
        {"state": "fine"},
        {"positions": None},
        {"positions": [[1.0, 2.0]]},
        {"positions": [[1.0, 2.0, 3.0]] * 3},
        {"positions": [["a", "b"]] * 3},
        {"status": ["seen"] * 3},
        {"status": [["placed"]] * 3},
        {"flagged": "abc"},
        {"flagged": [7]},
        {"time": 10**400},
        {"read_s": "long"},
        {"state": "failed", "reason": 5},
        {"unit": None},
    ],
    ids=str,
)
def test_a_line_that_is_no_result_does_not_count(done, change):
    run = CohortRun(done)
    row = next(row for case, row in run.rows() if row is not None and row["state"] == "ok")
    odd = done / "results" / "odd.jsonl"
    try:
        odd.write_text(json.dumps({**row, "time": row["time"] + 1}) + "\n", encoding="utf-8")
        assert run.places()[row["id"]].file == odd
        odd.write_text(json.dumps({**row, "time": row["time"] + 1, **change}) + "\n" + "[" * 100_000 + "\n", encoding="utf-8")
        assert run.places()[row["id"]].file != odd
    finally:
        odd.unlink()


def test_two_merges_at_once_do_not_meet_in_one_file(done, cohort):
    with FileLock(done / ".merge.lock"):
        assert "another process merges it; wait for its end" in cohort("merge", done, code=2)
    before = (done / "table.csv").read_bytes()
    cohort("merge", done)
    assert (done / "table.csv").read_bytes() == before and not list(done.glob(".table*"))


def test_a_table_that_cannot_be_replaced_leaves_the_other_as_it_was(done, cohort, tmp_path):
    folder = Path(shutil.copytree(done, tmp_path / "run"))
    (folder / "table.csv").write_text("of before", encoding="utf-8")
    (folder / "table.parquet").unlink()
    (folder / "table.parquet").mkdir()
    assert "table.parquet is a folder; move it away, the table is written there" in cohort("merge", folder, code=2)
    assert (folder / "table.csv").read_text(encoding="utf-8") == "of before"


def test_a_plan_goes_into_the_current_folder_and_one_that_cannot_be_written_leaves_nothing(cohort, model, scans, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    assert f"{COUNT + 1} cases" in cohort("plan", scans, "--model", model, "--out", ".", cwd=here)
    assert sorted(p.name for p in here.iterdir()) == ["left_out.csv", "manifest.jsonl", "model", "results", "run.json"]
    shutil.rmtree(here)
    (tmp_path / "file").touch()
    said = cohort("plan", scans, "--model", model, "--out", tmp_path / "file" / "run", code=2)
    assert "the cohort could not be written" in said and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_report_says_of_which_model_it_is_what_is_doubtful_and_why_others_failed(done, cohort, tmp_path):
    folder = Path(shutil.copytree(done, tmp_path / "run"))
    (results,) = (folder / "results").glob("*.jsonl")
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if row["id"] in ("patient1/scan11", "patient1/scan12"):
            row["flagged"] = [0, 2] if row["id"].endswith("1") else [2]
            row["pixels"] = row["pixels"] if row["id"].endswith("1") else "another"
    results.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    cohort("merge", folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    names = CohortRun(folder).task.names
    assert f"patient1/scan11: {names[0]}, {names[2]}</figcaption>" in page and page.count("data:image/jpeg") == 1
    assert "1 more are not shown: their images are at an address, changed since, or cannot be read." in page
    assert "Model: scn:default, weights " in page and "Careful: " in page and "a PNG file starts with" in page
    assert "2 done cases have flagged landmarks" in cohort("status", folder)
