"""Pictures of the extension for its tutorial and the README: ``python tests/slicer/pictures.py FOLDER``.

The panel is drawn by ``qt_harness``, the slice view by ``views``; both show one case of a synthetic hand halfway through.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import qt_harness

qt = qt_harness.install()

import slicer  # noqa: E402
from LandmarkLabelLib.logic import LandmarkLogic  # noqa: E402
from LandmarkLabelLib.session import Session  # noqa: E402
from LandmarkLabelLib.wire import ABSENT, ACCEPTED, PLACED, PREDICTED, Point, Task  # noqa: E402
from views import SliceView  # noqa: E402

from landmarklabel.data.synthetic import draw_phantom, phantom_task  # noqa: E402
from landmarklabel.io.images import Image, write_image  # noqa: E402

HALFWAY = (
    ACCEPTED,
    ACCEPTED,
    PLACED,
    PREDICTED,
    PREDICTED,
    ABSENT,
    PREDICTED,
    PREDICTED,
    ACCEPTED,
    PREDICTED,
    PREDICTED,
    PREDICTED,
)


def main(folder: Path) -> None:
    """Write panel.png, panel_dark.png and views.png."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        for name, dark in (("panel.png", False), ("panel_dark.png", True)):
            slicer.mrmlScene.Clear(False)
            panel, window = halfway(Path(place) / name, dark)
            qt.application.processEvents()
            assert window.grab().save(str(folder / name))
        view = SliceView(slicer.applicationLogic, panel.volume.node, size=(560, 720))
        panel.node.node.GetDisplayNode().SetTextScale(2.4)
        view.save(folder / "views.png")
        view.close()
        panel.close()


def halfway(place: Path, dark: bool):
    """A panel with a synthetic hand, some points accepted, one absent, the others proposed."""
    task = phantom_task(2, 12)
    phantom = draw_phantom(task, 5, size=(240, 320), absent_fraction=0.0, noise=0.6)
    panel, window = qt_harness.open_panel(place, 380, dark=dark)
    panel.options.author = "ann"
    logic = LandmarkLogic(panel.options, place, panel._mark_due)
    panel.use(logic)
    pairs = tuple(task.mirror_pairs)
    logic.task = Task(task.name, task.names, 2, {}, pairs)
    logic.models, logic.strategies, logic.state = {"scn": {}, "global_local": {}}, ["adaptive", "random"], "connected"
    rng, points = np.random.default_rng(0), []
    for i, (name, state, at) in enumerate(zip(task.names, HALFWAY, phantom.landmarks.positions_mm, strict=True)):
        x, y = at + rng.normal(0, 1.5, 2) * (state == PREDICTED)
        error = 0.8 + 0.3 * i if state == PREDICTED else None
        points.append(Point(name, state, None if state == ABSENT else (float(x), float(y), 0.0), error, i == 7))
    logic.session = Session(logic.task, "hand_12", points, 0, "the shape of this hand is the least usual")
    logic.image = place / "hand.png"
    place.mkdir(parents=True, exist_ok=True)
    write_image(logic.image, Image(phantom.geometry, phantom.pixels))
    logic.message = "4 points moved; Ctrl+Z puts them back"
    panel.refresh()
    panel.select(task.names[7])
    panel.refresh()
    return panel, window


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
