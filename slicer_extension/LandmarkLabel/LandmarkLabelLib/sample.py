"""A small synthetic spine among Slicer's sample data, for trying the module without data of one's own. It needs no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

RESOURCES = Path(__file__).resolve().parents[1] / "Resources"
PHANTOM = RESOURCES / "SampleData" / "phantom.nrrd"


def register(translate: Callable[[str], str] = str) -> None:
    """Add it to the Sample Data module, if this Slicer has one."""
    try:
        from SampleData import SampleDataLogic
    except ImportError:
        return
    SampleDataLogic.registerCustomSampleDataSource(
        category="LandmarkLabel",
        sampleName="LandmarkLabelPhantom",
        sampleDescription=translate("Synthetic spine with 14 landmarks"),
        thumbnailFileName=str(RESOURCES / "Icons" / "LandmarkLabel.png"),
        customDownloader=load,
    )


def load(source=None):
    """The phantom as a volume in the scene."""
    import slicer

    return slicer.util.loadVolume(str(PHANTOM), {"name": "LandmarkLabelPhantom"})
