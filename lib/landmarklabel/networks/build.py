"""From a preset to its networks."""

from __future__ import annotations

from importlib.metadata import EntryPoint

from torch import nn

from landmarklabel.networks.default import DefaultSCN
from landmarklabel.networks.fine_net import FineNet
from landmarklabel.networks.global_local import NoothoutGlobal, NoothoutLocal, VotingNet
from landmarklabel.networks.presets import Preset, presets
from landmarklabel.networks.scn import ConceptSCN, HandSCN, payer2019


def build_coarse_net(preset: Preset, dims: int, landmarks: int) -> nn.Module:
    """The coarse network of a preset, freshly initialised. Raises ValueError for a kind of network that is not known."""
    network = preset.network
    if network == "fine":
        return DefaultSCN(dims, landmarks, preset.widths[dims], stem=2, spatial_level=len(preset.widths[dims]) - 2)
    if network == "coarse":
        return DefaultSCN(dims, landmarks, preset.widths[dims], stem=4, spatial_level=len(preset.widths[dims]) - 2)
    if network == "payer2016":
        return ConceptSCN(landmarks)
    if network == "payer2019":
        return payer2019(landmarks, spatial_dims=dims)
    if network == "hand2024":
        return HandSCN(landmarks)
    if network == "votes":
        return VotingNet(dims, landmarks, preset.widths[dims])
    if network == "noothout2020":
        return NoothoutGlobal(dims, landmarks)
    if ":" in network and network in {preset.network for preset in presets()}:  # a plugin's, never one that only a file names
        made: nn.Module = EntryPoint(network, network, "").load()(dims, landmarks)
        return made
    raise ValueError(f"no network called {network!r}")


def build_fine_net(preset: Preset, dims: int, landmarks: int, scales: int, presence: bool = False) -> nn.Module:
    """The fine network of a preset, freshly initialised: ``shared`` (ours, with or without presence) or ``noothout2020``."""
    if preset.refine is None:
        raise ValueError(f"{preset.key} has no fine network")
    if preset.refine.network == "noothout2020":
        return NoothoutLocal(dims, landmarks)
    return FineNet(dims, landmarks, scales, preset.refine.widths[dims], presence=presence)
