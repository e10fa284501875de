"""Several processes train what one would, each on its share of every batch; one that ends ends all, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from tests.thoroughness import times

from landmarklabel.errors import UsageError
from landmarklabel.io.checkpoints import load_tensors
from landmarklabel.training.configuration import ProcessConfig
from landmarklabel.training.group import ProcessLost, _Processes, device_of
from landmarklabel.training.processes import LOST, run_together

PROGRAM = Path(__file__).with_name("stage_program.py")


def ran(folder: Path, kind: str, steps: int, *options: str, count: int = 1) -> tuple[dict, list[float]]:
    """Averaged weights, and the smoothed losses."""
    assert started(folder, kind, steps, *options, count=count) == (0, "")
    return load_file(folder / "averaged.safetensors"), json.loads((folder / "losses.json").read_text(encoding="utf-8"))


def started(folder: Path, kind: str, steps: int, *options: str, count: int) -> tuple[int, str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(PROGRAM), str(folder), kind, str(steps), *options]
    return run_together(command, count) if count > 1 else (subprocess.run(command, timeout=300).returncode, "")


def apart(one: dict, other: dict) -> float:
    assert one.keys() == other.keys()
    return max(float((one[k] - other[k]).abs().max()) for k in one)


def moments(folder: Path) -> dict:
    """A tenth of the first step's gradients."""
    return {k: v for k, v in load_tensors(folder / "state.safetensors")[0].items() if k.endswith("exp_avg")}


@pytest.mark.parametrize("kind", ["scn/coarse/2", "scn/fine/2", "global_local/coarse/2", "scn/coarse/3", "scn/fine/3"])
def test_two_processes_train_what_one_does(tmp_path, kind):
    steps = times(10, 50)
    alone, losses = ran(tmp_path / "one", kind, steps)
    together, others = ran(tmp_path / "two", kind, steps, count=2)
    assert apart(alone, together) < 1e-9 and len(losses) == steps and losses == pytest.approx(others, abs=1e-9)
    assert apart(alone, ran(tmp_path / "fewer", kind, steps - 1)[0]) > 1e-4  # which a step more or less would not


def test_in_single_precision_the_first_step_is_the_same(tmp_path):
    _, losses = ran(tmp_path / "one", "scn/coarse/2", 1, "dtype=float32")
    _, others = ran(tmp_path / "two", "scn/coarse/2", 1, "dtype=float32", count=2)
    one, two = (moments(tmp_path / name) for name in ("one", "two"))  # Adam makes as much of a gradient of 1e-8 as of any other
    assert losses == pytest.approx(others, abs=1e-6) and apart(one, two) < 1e-7
    assert max(float(v.abs().max()) for v in one.values()) > 1e-2


def test_a_batch_in_parts_gives_the_same_as_at_once(tmp_path):
    alone, _ = ran(tmp_path / "one", "scn/fine/2", 4)
    parts, _ = ran(tmp_path / "parts", "scn/fine/2", 4, "accumulate=3")
    both, _ = ran(tmp_path / "both", "scn/fine/2", 4, "accumulate=2", count=2)
    assert apart(alone, parts) < 1e-9 and apart(alone, both) < 1e-9


def test_a_killed_process_ends_all_and_they_go_on_to_the_same_bits(tmp_path):
    straight, _ = ran(tmp_path / "straight", "scn/coarse/2", 9, "dtype=float32", count=2)
    status, said = started(tmp_path / "killed", "scn/coarse/2", 9, "dtype=float32", "kill=5", count=2)
    assert status == 1 and said == "process 1 of 2 was ended by SIGKILL, as the system does when memory runs out"
    assert load_tensors(tmp_path / "killed" / "state.safetensors")[1]["step"] == 5  # all steps that both had finished
    again, _ = ran(tmp_path / "killed", "scn/coarse/2", 9, "dtype=float32", "resume=1", count=2)
    assert all(torch.equal(straight[k], again[k]) for k in straight)
    other = load_file(tmp_path / "killed" / "averaged1.safetensors")  # of the process that does not lead
    assert all(torch.equal(again[k], other[k]) for k in again)


def test_the_process_that_failed_is_named_and_not_those_it_took_along(tmp_path):
    program = "import os, sys, time; n = os.environ['RANK']; print('landmarklabel: a disk is full', file=sys.stderr)\n"
    ends = f"sys.exit(2) if n == '1' else (time.sleep(0.2), sys.exit({LOST}))"
    assert run_together([sys.executable, "-c", program + ends], 3) == (2, "process 1 of 3 failed: a disk is full")


def test_where_none_is_to_blame_the_reason_that_was_written_is_told():
    program = "import os, sys, pathlib; place = pathlib.Path(os.environ['LANDMARKLABEL_RENDEZVOUS']).parent\n"
    program += "(place / f\"{os.environ['RANK']}.txt\").write_text('it could not go on with the others: a timeout')\n"
    said = "process 0 of 2 failed: it could not go on with the others: a timeout"
    assert run_together([sys.executable, "-c", program + f"sys.exit({LOST})"], 2) == (LOST, said)


def test_an_error_of_the_process_itself_is_no_loss_of_another():
    group = object.__new__(_Processes)
    with pytest.raises(ProcessLost, match="could not go on with the others: .gloo. closed by peer"), group.noticing_losses():
        raise RuntimeError("[gloo] closed by peer")
    with pytest.raises(RuntimeError, match="not enough memory"), group.noticing_losses():
        raise RuntimeError("DefaultCPUAllocator: not enough memory")


def test_one_that_waits_for_a_dead_one_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("landmarklabel.training.processes.PROCESSES", ProcessConfig(grace_s=0.5))
    file = tmp_path / "pid"
    program = "import os, sys, time\nif os.environ['RANK'] == '1': sys.exit(3)\n"
    program += f"open({str(file)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    assert run_together([sys.executable, "-c", program], 2) == (3, "process 1 of 2 ended with status 3")
    assert not file.exists() or not psutil.pid_exists(int(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("device", ["mps", "cuda:1"])
def test_one_device_cannot_be_named_for_several_processes(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(UsageError, match=f"--device {device} is one device and there are 2 processes; use --device cuda or cpu"):
        device_of(device, 0, 2)
    with pytest.raises(UsageError, match="3 devices were asked for, but this machine has 2 GPUs: ask for 2"):
        device_of("cuda", 0, 3)
    assert device_of("cuda", 1, 2) == torch.device("cuda", 1) and device_of("cpu", 7, 8) == torch.device("cpu")


@pytest.mark.parametrize(("there", "kept", "chosen"), [(2, 0, [0, 1]), (3, 0, [1, 2]), (3, 1, [0, 2]), (4, None, [0, 1])])
def test_the_gpu_that_answers_is_kept_where_there_are_more(there, kept, chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    assert [device_of("cuda", number, 2, kept).index for number in range(2)] == chosen
