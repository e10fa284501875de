"""From a preset's network key to a module."""

from __future__ import annotations

from torch import Tensor, nn

from landmarklabel.networks.default import DefaultSCN, MapsOutput
from landmarklabel.networks.refiner import LocalRefiner
from landmarklabel.networks.scn import ConceptSCN, HandSCN, payer2019

_WIDTHS = {2: (32, 64, 96, 128, 160), 3: (24, 48, 96, 128)}
_REFINER_WIDTHS = {2: (32, 64, 96, 128), 3: (24, 48, 64)}


def build_locator(network: str, dims: int, landmarks: int) -> nn.Module:
    """The whole-image network of a preset, freshly initialised."""
    if network == "default":
        return DefaultSCN(dims, landmarks, _WIDTHS[dims], spatial_level=len(_WIDTHS[dims]) - 2 if dims == 2 else 2)
    if network == "payer2016":
        return ConceptSCN(landmarks)
    if network == "payer2019":
        return payer2019(landmarks, spatial_dims=dims)
    return HandSCN(landmarks)


def build_refiner(dims: int, landmarks: int, scales: int) -> LocalRefiner:
    """The local second stage, freshly initialised."""
    return LocalRefiner(dims, landmarks, scales, _REFINER_WIDTHS[dims])


def split_output(output: object) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(final maps, local maps, absent logits) of any network here; the last two are None for published ones."""
    if isinstance(output, MapsOutput):
        return output.logits, output.local, output.absent
    return output.heatmaps, None, None
