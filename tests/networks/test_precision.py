"""Which device a name means, and what is said of one that is not there."""

from __future__ import annotations

import pytest
import torch

from landmarklabel.errors import UsageError
from landmarklabel.networks.devices import check_device, choose_device
from landmarklabel.services import training_run
from landmarklabel.services.training_run import TrainingRun


@pytest.fixture
def gpus(monkeypatch):
    """A machine with so many CUDA devices."""

    def have(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return have


@pytest.mark.parametrize(
    ("count", "name", "meant"),
    [(0, "auto", "cpu"), (2, "auto", "cuda"), (2, "cuda", "cuda"), (2, "cuda:1", "cuda:1"), (2, "cpu", "cpu")],
)
def test_a_name_means_a_device(gpus, count, name, meant):
    gpus(count)
    assert str(choose_device(name)) == meant


@pytest.mark.parametrize(
    ("count", "name", "said"),
    [
        (2, "tpu", "device 'tpu' is not known; use auto, cpu, cuda, cuda:N or mps"),
        (2, "cudaX", "is not known"),
        (2, "cuda:-1", "is not known"),
        (2, "cuda:2", "device 'cuda:2' was asked for, but this machine has only 2, counted from cuda:0"),
        (0, "cuda:1", "this machine has no usable CUDA device; use --device cpu"),
        (2, "mps", "device 'mps' was asked for, but this machine has no such device; use --device cpu"),
    ],
)
def test_one_that_is_not_there_is_said(gpus, count, name, said):
    gpus(count)
    for refuse in (choose_device, check_device):
        with pytest.raises(UsageError) as error:
            refuse(name)
        assert said in str(error.value)


@pytest.mark.parametrize(
    ("servers", "wanted", "chosen"),
    [("cuda:1", "auto", "cuda:1"), ("cuda:1", "cuda", "cuda:1"), ("cuda:1", "cpu", "cpu"), ("cpu", "cuda", "cuda")],
)
def test_a_training_runs_where_the_server_does_unless_another_kind_is_wanted(monkeypatch, servers, wanted, chosen):
    monkeypatch.setattr(training_run, "choose_device", lambda name: name)
    assert TrainingRun(None, None, None, servers)._device({"device": wanted}) == chosen
