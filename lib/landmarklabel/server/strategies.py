"""The active-learning strategies as MONAI Label tasks."""

from __future__ import annotations

import numpy as np
from monailabel.interfaces.tasks.strategy import Strategy

from landmarklabel.active.strategies import STRATEGIES


class LandmarkStrategy(Strategy):
    """Serves one of ``active.strategies``; the answer carries the reason."""

    def __init__(self, name: str):
        super().__init__(" ".join(STRATEGIES[name].__doc__.split()))
        self.choose = STRATEGIES[name]

    def __call__(self, request, datastore):
        unlabelled = datastore.get_unlabeled_images()
        if not unlabelled:
            return None
        choice = self.choose(unlabelled, np.random.default_rng())
        return {"id": choice.image_id, "reason": choice.reason}
