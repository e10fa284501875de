"""The extension's library on the path, and a scene of real MRML."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from traceback import format_exception

import pytest

# The package takes every folder called ``slicer`` on the path for a part of its own, and would import all files of this one.
others = [path for path in sys.path if not (Path(path) / "slicer" / "conftest.py").exists()]
sys.path, kept = others, sys.path
import slicer  # noqa: E402

sys.path = kept
EXTENSION = Path(__file__).resolve().parents[2] / "slicer_extension"
sys.path.insert(0, str(EXTENSION / "LandmarkLabel"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "server"))  # serving.py: the real server
import eight_phantoms  # noqa: E402

material, server = eight_phantoms.material, eight_phantoms.server


@pytest.fixture(autouse=True)
def errors_in_slots(monkeypatch):
    """What Qt calls has no caller that an error could reach: Slicer would show a traceback, a test would pass."""
    import qt_harness

    errors = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: errors.append("".join(format_exception(error))))
    yield errors
    qt_harness.end_observers()
    assert not errors, errors[0]


@pytest.fixture()
def scene():
    """A scene with the singletons that Slicer's application makes."""

    scene = slicer.vtkMRMLScene()
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    yield scene
    scene.Clear(True)


@pytest.fixture()
def example(tmp_path):
    """The panel with a head whose points are proposed, and no server."""
    import qt_harness

    qt_harness.install()
    slicer.mrmlScene.Clear(False)
    panel, window = qt_harness.example(tmp_path)
    yield panel
    panel.close()
    window.close()


@pytest.fixture()
def panel_at_server(server, tmp_path):
    """The panel, connected to the running server."""
    import qt_harness

    qt_harness.install()
    slicer.mrmlScene.Clear(False)
    panel, window = qt_harness.open_panel(tmp_path / "panel")
    panel.ui.url.setText(server.url)
    qt_harness.press(panel, "connectButton")
    qt_harness.idle(panel)
    yield panel
    panel.close()
    window.close()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A study whose task measures something."""
    from measured_study import study_of

    return study_of(tmp_path_factory.mktemp("measured"), 5)


@pytest.fixture(scope="module")
def measuring_server(measured, tmp_path_factory):
    """A running server of it; three of the five cases are labelled."""
    from serving import serving_labelled

    with serving_labelled(measured, 3, tmp_path_factory.mktemp("labels")) as server:
        yield server


@pytest.fixture()
def measuring_panel(measured, measuring_server, tmp_path):
    """The panel with a case of it nobody has labelled."""
    from measured_study import opened

    panel, window = opened(measuring_server, tmp_path / "panel", sorted(measured.truth)[3])
    yield panel
    panel.close()
    window.close()


@pytest.fixture()
def logic(server, tmp_path):
    """An annotator at the running server."""
    from annotators import connected

    logic = connected(server, tmp_path)
    yield logic
    logic.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder whose name is as difficult as people's are."""
    return tmp_path_factory.mktemp("Müllers Ordner [1] #2 %20;")


@pytest.fixture(scope="module")
def wheel(place) -> Path:
    """The program's, with nothing in it but a path to this checkout and to the packages of the tests."""
    from program_wheel import program_wheel

    return program_wheel(place)


@pytest.fixture(scope="module")
def environment(place) -> dict[str, str]:
    """Of a user whose only Python is that of the tests."""
    return {**os.environ, "HOME": str(place), "USERPROFILE": str(place), "PATH": str(Path(sys.executable).parent)}
