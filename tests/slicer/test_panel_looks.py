"""What the panel shows: translated texts, colours light and dark; its options, self-test and sample data."""

from __future__ import annotations

import re
import sys
import types
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import qt_harness
from PIL import Image as Picture
from qt_harness import cut, press

qt = qt_harness.install()

import slicer  # noqa: E402
from LandmarkLabelLib.client import Conflict  # noqa: E402
from LandmarkLabelLib.logic import LandmarkLogic  # noqa: E402
from LandmarkLabelLib.widgets import RESOURCES  # noqa: E402
from LandmarkLabelLib.wire import STATES  # noqa: E402
from views import SliceView  # noqa: E402


def test_every_text_people_see_passes_translation(tmp_path):
    slicer.mrmlScene.Clear(False)  # volumes of other tests have names of their own
    panel, window = qt_harness.example(tmp_path, translate=lambda text: f"«{text}»")
    panel.logic.conflict = Conflict("newer", 2, "bob", panel.logic.session.points)
    data = {
        "scn",
        "global_local",
        "adaptive",
        "random",
        panel.ui.url.text(),
        panel.ui.author.text(),
        "",
        *panel.logic.task.names,
        "1",
        "2",
        "3",
        "4",
    }
    for act in ("acceptButton", "absentButton", "unlockButton", "undoButton", "redoButton", "acceptAllButton", "replaceButton"):
        press(panel, act)
        assert panel.ui.message.text().startswith("«"), act
    seen = []
    for widget in window.findChildren(qt.QWidget):
        for name in ("text", "toolTip", "placeholderText", "suffix"):
            value = getattr(widget, name, "")
            value = value() if callable(value) else value
            seen.append(value.strip() if isinstance(value, str) else "")
        if isinstance(widget, qt.QComboBox):
            seen += [widget.itemText(i) for i in range(widget.count())]
        if isinstance(widget, qt.QTabWidget):
            seen += [widget.tabText(i) for i in range(widget.count())]
    seen += [panel.ui.table.horizontalHeaderItem(c).text() for c in range(4)]
    seen += [panel.ui.table.item(r, 1).text() for r in range(panel.ui.table.rowCount())]
    by_qt = set(re.findall(r"<string>(.*?)</string>", (RESOURCES / "UI" / "LandmarkLabel.ui").read_text(encoding="utf-8")))
    untranslated = {text for text in seen if not text.startswith(("«", "<p><b>"))} - data - {unescape(text) for text in by_qt}
    data_like = ("case_12 (", "10.00 min", "min", "0%", "porion_left: «")
    untranslated = {t for t in untranslated if not t.startswith(data_like)}
    assert untranslated == set() and len(seen) > 50
    panel.close()
    window.close()


def luminance(colour) -> float:
    """Relative luminance. Source: WCAG 2.1."""
    parts = [c / 255 for c in colour[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("background", [(255, 255, 255), (43, 43, 43)], ids=["light", "dark"])
def test_icons_of_states_can_be_seen_on_light_and_dark_and_told_apart_without_colour(background):
    shapes = []
    for state in STATES:
        with Picture.open(RESOURCES / "Icons" / f"state_{state}.png") as picture:
            pixels = np.asarray(picture.convert("RGBA")).reshape(-1, 4)
        shapes.append(pixels[:, 3] > 128)
        colour = np.median(pixels[shapes[-1]], axis=0)
        light, dark = sorted((luminance(colour), luminance(background)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 2.4, state
    unset, proposed, placed, accepted, absent = shapes
    different = [(unset, proposed), (placed, accepted), (proposed, absent), (unset, absent), (accepted, absent)]
    assert all((a != b).mean() > 0.08 for a, b in different)  # proposed and placed differ by colour, and by the word beside


def test_a_dark_panel_is_drawn_dark_and_nothing_is_cut(tmp_path):
    panel, window = qt_harness.example(tmp_path, width=360, dark=True)
    qt.application.processEvents()
    picture = window.grab().toImage()
    corner = picture.pixelColor(2, 2)
    assert corner.lightness() < 80
    assert cut(window) == []
    panel.close()
    window.close()


def test_options_are_kept_but_the_token_is_not(tmp_path):
    panel, window = qt_harness.open_panel(tmp_path)
    panel.ui.author.setText("Dr. Ann")
    panel.ui.predictAtOnce.setChecked(True)
    panel.ui.token.setText("secret")
    panel.ui.minutes.setValue(3.0)
    panel.close()
    again, other = qt_harness.open_panel(tmp_path)
    assert again.options.author == "Dr. Ann" and again.options.predict_at_once and again.options.minutes == 3.0
    assert again.ui.predictAtOnce.isChecked() and again.ui.token.text() == ""
    written = [p.read_text(encoding="utf-8") for p in tmp_path.rglob("*.json")]
    assert any("Dr. Ann" in text for text in written) and not any("secret" in text for text in written)
    again.close()
    window.close()
    other.close()


def test_the_selftest_for_owners_of_slicer_passes_here_and_can_fail(tmp_path, monkeypatch):
    import LandmarkLabel

    slicer.mrmlScene.Clear(False)
    panel, window = qt_harness.open_panel(tmp_path)
    widget = types.SimpleNamespace(panel=panel)
    representation = types.SimpleNamespace(self=lambda: widget)
    module = types.SimpleNamespace(widgetRepresentation=lambda: representation)
    monkeypatch.setattr(slicer.modules, "landmarklabel", module, raising=False)
    test, shown, view = LandmarkLabel.LandmarkLabelTest(), [], SliceView(slicer.applicationLogic)
    test.setUp, test.delayDisplay, test.drawn = lambda: None, shown.append, lambda: view.render()[..., 0].ravel().tolist()
    test.runTest()
    assert shown == ["Test passed"]
    monkeypatch.setattr(LandmarkLogic, "mark_absent", lambda self, name: None)
    with pytest.raises(AssertionError, match="absent is not missing"):
        test.runTest()
    test.drawn = lambda: [0] * 1000
    with pytest.raises(AssertionError, match="the sample volume is not drawn"):
        test.runTest()
    view.close()
    panel.close()
    window.close()


def test_the_phantom_is_among_the_sample_data(monkeypatch):
    import LandmarkLabel

    asked, started = {}, []
    monkeypatch.setattr(slicer.app, "connect", lambda signal, call: started.append((signal, call)))
    logic = types.SimpleNamespace(registerCustomSampleDataSource=lambda **what: asked.update(what))
    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=logic))
    LandmarkLabel.LandmarkLabel(types.SimpleNamespace())
    assert [signal for signal, _ in started] == ["startupCompleted()"]
    started[0][1]()
    assert asked["category"] == "LandmarkLabel" and Path(asked["thumbnailFileName"]).is_file()
    node = asked["customDownloader"](None)
    assert node.GetImageData().GetDimensions() == (48, 48, 48) and node.GetSpacing() == (2.0, 2.0, 2.0)
    slicer.mrmlScene.RemoveNode(node)
