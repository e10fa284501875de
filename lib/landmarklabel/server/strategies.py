"""The active-learning strategies as MONAI Label tasks."""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.tasks.strategy import Strategy

from landmarklabel.services.case_selection import CaseSelection


class LandmarkStrategy(Strategy):
    """A case selection, as MONAI Label calls it."""

    def __init__(self, selection: CaseSelection):
        super().__init__(selection.description)
        self.selection = selection

    def __call__(self, request: dict[str, Any] | None, datastore: object) -> dict[str, Any] | None:
        return self.selection.next_case(request or {})
