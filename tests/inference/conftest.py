"""A model folder, on one thread and with narrow networks, for the tests of what is read from it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tests.inference.saved_models import TASK, untrained

from landmarklabel.data.synthetic import draw_phantom
from landmarklabel.inference.model_folder import save_model
from landmarklabel.io.images import Image
from landmarklabel.networks import build


def narrow(network, dims, n, *args, **settings):
    *head, widths = args
    return network(dims, n, *head, tuple(max(8, w // 32 * 8) for w in widths), **settings)


@pytest.fixture(scope="module")
def small_networks():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DefaultSCN", "FineNet"):
            patch.setattr(build, name, partial(narrow, getattr(build, name)))
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "m", untrained(), {"seed": 3, "metrics": {}})
    return tmp_path / "m"


@pytest.fixture(scope="module")
def image():
    phantom = draw_phantom(TASK, 0, size=(64, 96))
    return Image(phantom.geometry, phantom.pixels)
