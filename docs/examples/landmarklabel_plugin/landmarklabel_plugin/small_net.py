"""A network of our own. It is loaded when a model is trained or used."""

import torch
from torch import Tensor, nn

from landmarklabel.extending import MapsOutput


class SmallNet(nn.Module):
    """Five convolutions, one map per landmark at a quarter of the resolution.

    Args:
        dims: of the images; this network is made for 2.
        landmarks: n.

    Shapes:
        (b, 1, y, x) grey values from 0 to 1, to MapsOutput: ``logits`` and ``local`` (b, n, y / 4, x / 4), ``absent`` (b, n).
    """

    def __init__(self, dims: int, landmarks: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 32, 9, padding=4, groups=4),
            nn.SiLU(),
        )
        self.local = nn.Conv2d(32, landmarks, 1)
        self.spatial = nn.Conv2d(landmarks, landmarks, 9, padding=4)
        self.absent = nn.Linear(landmarks, landmarks)

    def forward(self, images: Tensor) -> MapsOutput:
        local = self.local(self.body(images))
        logits = local + self.spatial(torch.tanh(local))
        return MapsOutput(logits, local, self.absent(logits.flatten(2).amax(-1)))
