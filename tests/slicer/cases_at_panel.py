"""Cases opened at the panel through its list of all cases."""

from __future__ import annotations

from qt_harness import idle, press


def opened(panel, image_id: str) -> None:
    panel.ui.cases.setCurrentIndex(panel.review._names.index(image_id))
    press(panel, "openCaseButton")
    idle(panel)


def predicted(panel, image_id: str) -> None:
    """With all points proposed."""
    opened(panel, image_id)
    press(panel, "predictButton")
    idle(panel)
