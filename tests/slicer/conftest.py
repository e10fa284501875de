"""The extension's library on the path, and a scene of real MRML."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

EXTENSION = Path(__file__).resolve().parents[2] / "slicer_extension"
sys.path.insert(0, str(EXTENSION / "LandmarkLabel"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "server"))  # serving.py: the real server


@pytest.fixture()
def scene():
    """A scene with the singletons that Slicer's application makes."""
    import slicer

    scene = slicer.vtkMRMLScene()
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    yield scene
    scene.Clear(True)
