"""A run can be stopped, killed and resumed anywhere, and ends with the same bits. As a script: a run that dies."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from landmarklabel.errors import Cancelled, ModelError, UsageError
from landmarklabel.io.checkpoints import load_tensors
from landmarklabel.networks.presets import Optimization
from landmarklabel.training.loop import Budget, run_stage

STEPS = 30
CPU = torch.device("cpu")
PLAIN = Optimization(lr=1e-2, precision="fp32", ema=0.9)
KINDS = {
    "adamw": PLAIN,
    "adam": Optimization("adam", lr=1e-2, schedule="constant", precision="fp32"),
    "nesterov": Optimization("nesterov", lr=1e-2, clip=0, precision="fp32"),
}


class Pair(NamedTuple):
    x: Tensor
    y: Tensor


class Toy:
    """Fits sines, with dropout; ``bad_at`` is a step whose loss is NaN."""

    def __init__(self, name="toy", kind="adamw", width=16, bad_at=-1, pause=0.0):
        torch.manual_seed(5)
        self.name, self.optimization, self.bad_at, self.pause = name, KINDS[kind], bad_at, pause
        layers = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Dropout(0.3), nn.Linear(width, 2))
        self.module = nn.ModuleDict({"network": layers})

    def batch(self, step: int) -> Pair:
        time.sleep(self.pause)
        x = torch.randn(32, 3, generator=torch.Generator().manual_seed(step))
        return Pair(x * torch.nan if step == self.bad_at else x, torch.sin(x[:, :2] * 3))

    def counts(self, batch: Pair) -> Tensor:
        return torch.tensor([float(batch.y.numel())])

    def loss(self, batch: Pair, counts: Tensor) -> Tensor:
        return (self.module["network"](batch.x) - batch.y).square().sum() / counts[0]


def train(state: Path, stage=None, steps=STEPS, **changes):
    return run_stage(stage or Toy(), Budget(steps=steps), seed=3, device=CPU, state_file=state, **changes).weights


def stop_after(k):
    """A ``should_stop`` that says so at the k-th question."""
    asked = iter(range(1, 10**6))
    return lambda: next(asked) == k


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return {kind: train(tmp_path_factory.mktemp(kind) / "s", Toy(kind=kind)) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", range(1, STEPS + 1))
def test_stopping_and_resuming_changes_no_bit(tmp_path, straight, kind, k):
    state = tmp_path / "state.safetensors"
    with pytest.raises(Cancelled, match=f"stopped in stage toy after {k} steps"):
        train(state, Toy(kind=kind), should_stop=stop_after(k))
    assert load_tensors(state)[1]["step"] == k
    torch.manual_seed(999)  # a new process knows nothing of the old one's randomness
    assert_same(train(state, Toy(kind=kind), resume=True), straight[kind])


def test_twice_stopped_is_the_same_too(tmp_path, straight):
    state = tmp_path / "state.safetensors"
    for k in (4, 9):
        with pytest.raises(Cancelled):
            train(state, resume=True, should_stop=stop_after(k))
    assert load_tensors(state)[1]["step"] == 13
    assert_same(train(state, resume=True), straight["adamw"])


def test_training_trains_and_depends_on_seed_and_averages(tmp_path, straight):
    fresh = Toy().module.state_dict()
    assert all((straight["adamw"][k] - fresh[k]).abs().max() > 1e-3 for k in fresh if "weight" in k)
    stage = Toy()
    ema = train(tmp_path / "a", stage)
    assert not torch.equal(ema["network.0.weight"], stage.module.state_dict()["network.0.weight"])
    other = run_stage(Toy(), Budget(steps=STEPS), seed=4, device=CPU, state_file=tmp_path / "b").weights
    assert not torch.equal(ema["network.0.weight"], other["network.0.weight"])


def test_without_resume_a_state_is_not_touched_until_it_is_replaced(tmp_path, straight):
    state = tmp_path / "state.safetensors"
    state.write_bytes(b"from something else")
    assert_same(train(state), straight["adamw"])
    assert_same(train(state, resume=True), straight["adamw"])  # finished: nothing is left to do


@pytest.mark.parametrize("how", ["after a save", "in the middle of a save"])
def test_a_killed_process_loses_only_the_steps_since_its_last_state(tmp_path, straight, how):
    state = tmp_path / "state.safetensors"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    dead = subprocess.run([sys.executable, __file__, str(state), how], env=environment, timeout=120)
    assert dead.returncode == 9
    assert load_tensors(state)[1]["step"] == 11
    assert_same(train(state, resume=True), straight["adamw"])


def test_progress_is_told_after_every_step(tmp_path):
    told = []
    train(tmp_path / "s", steps=8, on_progress=told.append)
    assert [p.step for p in told] == list(range(1, 9)) and {p.stage for p in told} == {"toy"}
    assert all(0 <= p.fraction <= 1 and p.loss > 0 for p in told)
    assert [p.fraction for p in told] == sorted(p.fraction for p in told)
    assert [p.seconds for p in told] == sorted(p.seconds for p in told)


def test_a_loss_that_is_no_number_ends_training_by_text_before_it_spoils_the_weights(tmp_path):
    stage = Toy(bad_at=5)
    with pytest.raises(ModelError, match="training diverged in stage toy: the loss is nan; lower the learning rate"):
        train(tmp_path / "s", stage)
    assert all(torch.isfinite(p).all() for p in stage.module.parameters())


def test_a_network_that_normalises_its_batch_as_a_whole_is_not_trained_in_parts(tmp_path):
    stage = Toy()
    stage.module["network"].append(nn.BatchNorm1d(2))
    with pytest.raises(UsageError, match="a batch as a whole, .*: train it without --devices and --accumulate"):
        train(tmp_path / "s", stage, accumulate=2)
    train(tmp_path / "s", stage, steps=2)


def test_a_fault_in_the_batch_is_not_swallowed(tmp_path):
    stage = Toy()
    stage.batch = lambda step: 1 / (3 - step)
    with pytest.raises((ZeroDivisionError, TypeError)):
        train(tmp_path / "s", stage)


def test_a_budget_of_minutes_is_kept_also_over_a_resume(tmp_path):
    state, budget = tmp_path / "s", Budget(minutes=0.6 / 60)
    run = lambda **k: run_stage(Toy(pause=0.01), budget, seed=0, device=CPU, state_file=state, **k)  # noqa: E731
    started = time.monotonic()
    with pytest.raises(Cancelled):
        run(should_stop=lambda: time.monotonic() - started > 0.3)
    used = load_tensors(state)[1]
    assert 0 < used["seconds"] < 0.6
    run(resume=True)
    done = load_tensors(state)[1]
    assert done["step"] > used["step"] and 0.6 <= done["seconds"] < 3
    asked = []
    again = run(resume=True, should_stop=lambda: asked.append(1))
    assert (again.steps, again.seconds) == (done["step"], done["seconds"])
    assert not asked and load_tensors(state)[1]["step"] == done["step"]


def test_whichever_limit_comes_first_ends_a_run():
    assert Budget(steps=10).progress(5, 1e9) == 0.5
    assert Budget(minutes=2).progress(10**9, 60) == 0.5
    assert Budget(minutes=2, steps=10).progress(9, 60) == 0.9 and Budget(minutes=2, steps=10).progress(1, 120) == 1


def test_the_state_of_something_else_is_refused_by_text(tmp_path):
    state = tmp_path / "state.safetensors"
    train(state, steps=2)
    with pytest.raises(ModelError, match="state.safetensors is the state of stage 'toy', not of 'other'"):
        train(state, Toy("other"), resume=True)
    with pytest.raises(ModelError, match="state.safetensors belongs to another network"):
        train(state, Toy(width=20), resume=True)
    state.write_bytes(state.read_bytes()[:-40])
    with pytest.raises(ModelError, match="state.safetensors: damaged"):
        train(state, resume=True)
    state.write_bytes(b"\x80\x04no tensors")
    with pytest.raises(ModelError, match="state.safetensors: not a safetensors file"):
        train(state, resume=True)


def die(state: Path, how: str) -> None:
    """Train with a state at every step and be gone in step 12, without a word."""

    def progress(p):
        if p.step == 12 and how == "after a save":
            os._exit(9)
        if p.step == 12:  # the state is written, but never gets its name
            os.replace = lambda *_: os._exit(9)

    train(state, on_progress=progress, save_every_s=-1.0)


if __name__ == "__main__":
    die(Path(sys.argv[1]), sys.argv[2])
