"""Pictures of the extension: ``python tests/slicer/pictures.py FOLDER [states]``.

The panel is drawn by ``qt_harness``, the slice view by ``views``; both show one case of a synthetic hand halfway through. With
``states`` the panel is drawn in every state it can be in, light and dark, at 380 x 900 and with a font of 12 points.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import qt_harness

qt = qt_harness.install()

import slicer  # noqa: E402
from LandmarkLabelLib.client import Conflict, Untrusted  # noqa: E402
from LandmarkLabelLib.connecting import AWAY, CONNECTED, CONNECTING, NOT_LET_IN, UNTRUSTED  # noqa: E402
from LandmarkLabelLib.logic import LandmarkLogic  # noqa: E402
from LandmarkLabelLib.outbox import REFUSED, WAITS, Entry  # noqa: E402
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
SECTIONS = ("localSection", "trainingSection", "reviewSection", "batchSection", "optionsSection")


def main(folder: Path) -> None:
    """Write panel.png, panel_dark.png and views.png."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        for name, dark in (("panel.png", False), ("panel_dark.png", True)):
            slicer.mrmlScene.Clear(False)
            panel, window = halfway(Path(place) / name, dark)
            qt.application.processEvents()
            assert window.grab().save(str(folder / name))
            if not dark:
                panel.close()
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
    pairs, definitions = tuple(task.mirror_pairs), {task.names[7]: "Tip of the last bone, on its middle line."}
    logic.task = Task(task.name, task.names, 2, definitions, pairs)
    logic.models, logic.strategies, logic.state = {"scn": {}, "global_local": {}}, ["adaptive", "random"], CONNECTED
    logic._asked_alive_at, logic.who = float("inf"), {"name": "ann", "roles": ["annotator", "reviewer", "admin"]}
    rng, points = np.random.default_rng(0), []
    for i, (name, state, at) in enumerate(zip(task.names, HALFWAY, phantom.landmarks.positions_mm, strict=True)):
        x, y = at + rng.normal(0, 1.5, 2) * (state == PREDICTED)
        error = 0.8 + 0.3 * i if state == PREDICTED else None
        points.append(Point(name, state, None if state == ABSENT else (float(x), float(y), 0.0), error, i == 7, "px"))
    logic.session = Session(logic.task, "hand_12", points, 0, "the shape of this hand is the least usual")
    logic.image = place / "hand.png"
    place.mkdir(parents=True, exist_ok=True)
    write_image(logic.image, Image(phantom.geometry, phantom.pixels))
    logic.message = "4 points moved; Ctrl+Z puts them back"
    panel.refresh()
    panel.select(task.names[7])
    panel.refresh()
    return panel, window


# --- every state ---------------------------------------------------------------------------------------------------------


def states() -> dict[str, Callable]:
    """Name of a state to what brings a panel that is halfway through a case into it."""

    def server(state: str, trouble: str = "", fingerprint: str = "") -> Callable:
        def change(panel) -> None:
            panel.logic.state, panel.logic.trouble = state, trouble
            panel.logic.untrusted = Untrusted(trouble, fingerprint) if fingerprint else None

        return change

    def conflict(panel) -> None:
        moved = lambda p: Point(p.name, PLACED, (p.position[0] + 9, p.position[1], 0.0)) if p.position else p  # noqa: E731
        points = [moved(p) for p in panel.logic.session.points]
        panel.logic._meet(Conflict("a newer revision exists", 4, "Dr. Bernadette Oberhuber", points))

    def unsent(panel) -> None:
        points = panel.logic.session.points
        why = "hand_11: landmark 'tip of the thumb' lies 41.3 px outside of the image; move it inside, or call it absent"
        panel.logic.unsent = [
            Entry("1", "hand_11", REFUSED, why, points, 0, False, 1),
            Entry("2", "hand_10", WAITS, "", points, 0, False, 1),
            Session(panel.logic.task, "hand_09", points, 0, edits=2),
        ]
        panel.logic.trouble = f"hand_11: the server did not take it: {why}. It is kept: see Unsent"

    def left(panel) -> None:
        who = "anna.smith, somebody without a name"
        text = f"2 cases of {who} wait here to be sent: press Take over only if they are yours"
        panel.logic.left, panel.logic.notices = {"place": who}, [text]

    def busy(panel) -> None:
        panel.logic.worker.submit(lambda: stopped.wait(60), lambda _: None, lambda _: None, "case", "asking for the next case")

    def training(panel) -> None:
        panel.logic.training.is_running, panel.logic.training.percent, panel.logic.training.model = True, 37, "scn"
        panel.logic.training._began -= 600

    def sections(panel) -> None:
        for name in SECTIONS:
            getattr(panel.ui, name).setCollapsed(False)

    from threading import Event

    stopped = Event()
    fingerprint = ":".join(["AB"] * 32)
    who = f"nobody vouches for the certificate of https://server.hospital.example:8443, fingerprint {fingerprint}"
    return {
        "halfway": lambda panel: None,
        "connecting": server(CONNECTING),
        "away": server(AWAY),
        "not let in": server(NOT_LET_IN, "not let in: the token is not valid, or has expired"),
        "untrusted": server(UNTRUSTED, who, "ab" * 32),
        "conflict": conflict,
        "unsent": unsent,
        "left by others": left,
        "busy": busy,
        "training": lambda panel: (training(panel), sections(panel)),
        "all sections": sections,
        "no case": lambda panel: setattr(panel.logic, "session", None),
    }


def draw_states(folder: Path) -> list[tuple[str, list[str]]]:
    """A picture of every state, light and dark, in two sizes of letters; what is cut in each."""
    folder.mkdir(parents=True, exist_ok=True)
    found, plain = [], qt.application.font()
    with tempfile.TemporaryDirectory() as place:
        for points in (None, 12):
            font = qt.QFont(plain)
            if points is not None:
                font.setPointSize(points)
            qt.application.setFont(font)
            for dark in (False, True):
                for name, change in states().items():
                    slicer.mrmlScene.Clear(False)
                    label = f"{name}{' dark' if dark else ''}{' 12 points' if points else ''}".replace(" ", "_")
                    panel, window = halfway(Path(place) / label, dark)
                    change(panel)
                    panel.refresh()
                    qt.application.processEvents()  # what has unfolded finds its place
                    found.append((label, qt_harness.cut(window)))
                    window.grab().save(str(folder / f"{label}.png"))
                    panel.close()
                    window.close()
    qt.application.setFont(plain)
    return found


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["states"]):
        sys.exit(__doc__)
    if sys.argv[2:]:
        bad = [f"{label}: {texts}" for label, texts in draw_states(Path(sys.argv[1])) if texts]
        sys.exit("cut:\n" + "\n".join(bad) if bad else 0)
    main(Path(sys.argv[1]))
