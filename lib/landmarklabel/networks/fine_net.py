"""The fine network: one network for all landmarks, on small crops at native resolution around a first estimate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from landmarklabel.networks.default import MapsOutput, UNet
from landmarklabel.networks.ops import CONV


class FineNet(nn.Module):
    """A small residual U-Net shared by all landmarks; a landmark is told apart by its embedding and its own output map.

    Args:
        dims: 2 or 3.
        landmarks: n.
        scales: image channels a crop: the same centre at this many magnifications, finest first.
        widths, stem, blocks, dropout: of the U-Net.
        embedding: channels that carry the landmark's identity.
        presence: also say whether the landmark is there; otherwise every landmark is.

    Shapes:
        crops (k, scales, *shape) and landmark numbers (k,) to MapsOutput with one map per crop, (k, 1, *shape / stem).
    """

    def __init__(
        self,
        dims: int,
        landmarks: int,
        scales: int = 2,
        widths: tuple[int, ...] = (32, 64, 96, 128),
        stem: int = 2,
        blocks: int = 1,
        dropout: float = 0.1,
        presence: bool = False,
    ):
        super().__init__()
        self.dims = dims
        self.unet = UNet(dims, scales, widths, stem, blocks, dropout)
        tables = [nn.Embedding(landmarks, w) for w in widths]
        self.identity = nn.ModuleList(tables)
        self.head = nn.Embedding(landmarks, widths[0])
        self.norm = nn.GroupNorm(8, widths[0])
        self.mix = CONV[dims](widths[0], widths[0], 1)
        self.absent = nn.Linear(2 * widths[-1], 1) if presence else None
        self.usually = nn.Embedding(landmarks, 1) if presence else None
        if self.absent is not None and self.usually is not None:
            nn.init.normal_(self.absent.weight, std=1e-3)
            nn.init.zeros_(self.absent.bias)
            nn.init.zeros_(self.usually.weight)
        for table in tables:
            nn.init.normal_(table.weight, std=0.3)
        nn.init.normal_(self.head.weight, std=1e-2)

    @property
    def multiple(self) -> int:
        return self.unet.multiple

    @property
    def stride(self) -> int:
        return self.unet.stem_step

    def forward(self, crops: Tensor, landmark: Tensor) -> MapsOutput:
        features = self.unet(crops, [table(landmark) for table in self.identity])
        x = features[0]
        x = nn.functional.silu(self.norm(self.mix(x)))
        weight = self.head(landmark).to(x.dtype)
        logits = torch.einsum("kc...,kc->k...", x, weight)[:, None]
        if self.absent is None or self.usually is None:
            return MapsOutput(logits, logits, torch.full((x.shape[0], 1), -30.0, device=x.device))
        deep = features[-1].flatten(2)
        absent = self.absent(torch.cat([deep.mean(-1), deep.amax(-1)], dim=1)) + self.usually(landmark)
        return MapsOutput(logits, logits, absent)
