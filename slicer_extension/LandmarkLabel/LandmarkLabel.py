"""3D Slicer module: annotate landmarks together with a LandmarkLabel server."""

import logging
from pathlib import Path

import qt
import slicer
from LandmarkLabelLib import sample, selftest
from LandmarkLabelLib.panel import LandmarkPanel
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)


class LandmarkLabel(ScriptedLoadableModule):
    """What Slicer lists."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("LandmarkLabel")
        parent.categories = ["Active Learning"]
        parent.dependencies = []
        parent.contributors = ["The LandmarkLabel developers"]
        parent.helpText = _(
            "Proposes anatomical landmarks, learns from corrections, and says how sure it is. Needs a running server."
        )
        parent.acknowledgementText = _("SpatialConfiguration-Net: Payer 2016, 2019. Global-to-local localization: Noothout 2020.")
        slicer.app.connect("startupCompleted()", lambda: sample.register(_))


class LandmarkLabelWidget(ScriptedLoadableModuleWidget):
    """The module panel."""

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        window = slicer.util.mainWindow()
        self.panel = LandmarkPanel(self.layout, self.logic_folder(), _, window)

    def logic_folder(self):
        """Where options, unfinished cases and unsent submissions are kept."""
        return Path(qt.QStandardPaths.writableLocation(qt.QStandardPaths.AppDataLocation)) / "LandmarkLabel"

    def enter(self):
        self.panel.set_shortcuts_enabled(True)

    def exit(self):
        self.panel.set_shortcuts_enabled(False)

    def cleanup(self):
        self.panel.close()


class LandmarkLabelLogic(ScriptedLoadableModuleLogic):
    """Slicer looks for this name; the logic is in LandmarkLabelLib.logic."""


class LandmarkLabelTest(ScriptedLoadableModuleTest):
    """For owners of desktop Slicer: the panel's buttons do what they say."""

    def runTest(self):
        self.setUp()
        self.test_buttons()

    def drawn(self):
        """Grey values all over the red slice view."""
        view = slicer.app.layoutManager().sliceWidget("Red").sliceView()
        view.forceRender()
        picture = view.grab().toImage()
        places = [(x, y) for x in range(0, picture.width(), 8) for y in range(0, picture.height(), 8)]
        return [picture.pixelColor(x, y).lightness() for x, y in places]

    def test_buttons(self):
        panel = slicer.modules.landmarklabel.widgetRepresentation().self().panel
        for step in selftest.check(panel, slicer.app.processEvents, self.drawn):
            logging.info(f"LandmarkLabel: {step}")
        self.delayDisplay(_("Test passed"))
