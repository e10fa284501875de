"""A device without enough memory: fewer crops at a time, then the CPU, and the same landmarks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from landmarklabel.data.cases import Case
from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.errors import ModelError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.network_runner import NetworkRunner
from landmarklabel.io.images import Image
from landmarklabel.networks.presets import find_preset
from landmarklabel.training.fit import FitConfig, fit
from landmarklabel.training.loop import Budget

TASK = phantom_task(2, 6)


def phantom(seed: int) -> Case:
    drawn = draw_phantom(TASK, seed, size=(96, 128), absent_fraction=0.0, noise=0.5)
    geometry = ImageGeometry.identity(drawn.pixels.shape[::-1], 1.0)
    return Case(f"p{seed}", Image(geometry, drawn.pixels), drawn.landmarks)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Localizer:
    config = FitConfig(find_preset("scn", 2), Budget(steps=4))
    made, _ = fit(TASK, [phantom(0), phantom(1)], [], config, tmp_path_factory.mktemp("memory") / "model")
    made.networks.precision = "fp32"
    return made


@pytest.fixture
def scarce(monkeypatch):
    """Makes a network fail as a full device does: at batches above a size, or a number of times."""

    def make(network: torch.nn.Module, most: int = 10**6, times: int = 0) -> list[int]:
        run, seen = network.forward, []

        def forward(images, *rest):
            seen.append(len(images))
            if len(images) > most or len(seen) <= times:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return run(images, *rest)

        monkeypatch.setattr(network, "forward", forward)
        return seen

    return make


def test_with_little_memory_crops_come_in_smaller_batches_and_give_the_same(model, scarce, monkeypatch):
    case = model.case("a", phantom(5).image)
    wanted = model.predict(case).positions_mm
    monkeypatch.setattr(model.networks, "few_crops", 4)
    seen = scarce(model.networks.fine_net, most=4)
    np.testing.assert_allclose(model.predict(case).positions_mm, wanted, atol=1e-3)
    assert max(seen) > 4 and seen.count(4) > 1 and model.networks.crops_at_once is None


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("stage", ["coarse_net", "fine_net"])
def test_what_fails_once_or_twice_gives_the_same(model, scarce, stage, times):
    case = model.case("a", phantom(6).image)
    wanted = model.predict(case).positions_mm
    scarce(getattr(model.networks, stage), times=times)
    np.testing.assert_allclose(model.predict(case).positions_mm, wanted, atol=1e-3)


def test_at_last_the_cpu_is_tried_and_the_model_goes_back_to_its_device(model, scarce, monkeypatch):
    case, moved = model.case("a", phantom(7).image), []
    monkeypatch.setattr(NetworkRunner, "move", lambda self, device: moved.append(str(device)))
    scarce(model.networks.coarse_net, times=2)
    model.networks.coarse_pass(case)
    assert moved == ["cpu", str(model.networks.device)]


def test_a_machine_without_memory_says_so(model, scarce):
    scarce(model.networks.coarse_net, most=0)
    with pytest.raises(ModelError, match="memory of this machine does not suffice for this image"):
        model.predict(model.case("a", phantom(8).image))
