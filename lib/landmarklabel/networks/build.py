"""From a preset's network key to a module."""

from __future__ import annotations

from importlib.metadata import EntryPoint

from torch import nn

from landmarklabel.networks.default import DefaultSCN
from landmarklabel.networks.global_local import NoothoutGlobal, NoothoutLocal, VotingNet
from landmarklabel.networks.refiner import LocalRefiner
from landmarklabel.networks.registry import presets
from landmarklabel.networks.scn import ConceptSCN, HandSCN, payer2019

_FINE = {2: (32, 64, 96, 128, 160), 3: (24, 48, 96, 128)}  # half-resolution maps, for a network that stands alone
_COARSE = {2: (48, 96, 128, 160), 3: (48, 96, 128)}  # quarter-resolution maps, for one that a refiner follows
_REFINER = {2: (32, 64, 96, 128), 3: (24, 48, 64)}


def build_locator(network: str, dims: int, landmarks: int) -> nn.Module:
    """The whole-image network of a preset, freshly initialised."""
    if network == "fine":
        return DefaultSCN(dims, landmarks, _FINE[dims], stem=2, spatial_level=len(_FINE[dims]) - 2)
    if network == "coarse":
        return DefaultSCN(dims, landmarks, _COARSE[dims], stem=4, spatial_level=len(_COARSE[dims]) - 2)
    if network == "payer2016":
        return ConceptSCN(landmarks)
    if network == "payer2019":
        return payer2019(landmarks, spatial_dims=dims)
    if network == "hand2024":
        return HandSCN(landmarks)
    if network == "votes":
        return VotingNet(dims, landmarks, _COARSE[dims])
    if network == "noothout2020":
        return NoothoutGlobal(dims, landmarks)
    if ":" in network and network in {preset.network for preset in presets()}:  # a plugin's, never one that only a file names
        return EntryPoint(network, network, "").load()(dims, landmarks)
    raise ValueError(f"no network called {network!r}")


def build_refiner(network: str, dims: int, landmarks: int, scales: int, presence: bool = False) -> nn.Module:
    """The local second stage, freshly initialised: ``shared`` (ours, with or without presence) or ``noothout2020``."""
    if network == "noothout2020":
        return NoothoutLocal(dims, landmarks)
    return LocalRefiner(dims, landmarks, scales, _REFINER[dims], presence=presence)
