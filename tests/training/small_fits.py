"""What the tests of whole trainings share: small networks on small grids, so that a fit takes seconds, and phantoms."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from landmarklabel.data.cases import Case
from landmarklabel.data.synthetic import draw_phantom
from landmarklabel.io.images import Image
from landmarklabel.networks import build
from landmarklabel.networks.presets import find_preset
from landmarklabel.training.fit import FitConfig
from landmarklabel.training.loop import Budget


def narrow(network, dims, n, *args, **settings):
    """A network with a quarter of the channels, so that these tests take seconds."""
    *head, widths = args
    return network(dims, n, *head, tuple(max(8, w // 32 * 8) for w in widths), **settings)


@pytest.fixture(autouse=True, scope="module")
def small_networks():
    """Small networks on one thread: the second would wait for a core longer than it works."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DefaultSCN", "FineNet", "VotingNet"):
            patch.setattr(build, name, partial(narrow, getattr(build, name)))
        yield
    torch.set_num_threads(threads)


def small(key, dims=2):
    """A preset on a small grid, with small batches and crops."""
    preset, refine = find_preset(key, dims), None
    edges = {2: (64, 64), 3: (32, 32, 32)}
    grid_size = {d: edges[d] if isinstance(preset.grid_size[d], tuple) else (64 * 96, 32**3)[d - 2] for d in preset.dims}
    if preset.refine is not None:
        size = {2: 32, 3: 16} if preset.refine.network == "shared" else preset.refine.size
        refine = replace(preset.refine, size=size, crops={2: 24, 3: 6})
    return replace(preset, grid_size=grid_size, batch={2: 4, 3: 1}, refine=refine)


def phantoms(task, seeds, **settings):
    made = [(s, draw_phantom(task, s, **settings)) for s in seeds]
    return [Case(f"case{s}", Image(p.geometry, p.pixels), p.landmarks) for s, p in made]


def config(key="scn:default", steps=4, dims=2, **changes):
    return FitConfig(small(key, dims), Budget(steps=steps), **changes)
