"""What the panel shows: translated texts, colours light and dark; its options, self-test and sample data."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import qt_harness
from qt_harness import press

qt = qt_harness.install()

import slicer  # noqa: E402
from LandmarkLabelLib.logic import LandmarkLogic  # noqa: E402


def test_every_text_people_see_passes_translation(tmp_path):
    slicer.mrmlScene.Clear(False)  # volumes of other tests have names of their own
    panel, window = qt_harness.example(tmp_path, translate=lambda text: f"«{text}»")
    panel.logic.conflict = ("case_12", None)
    data = {
        "scn",
        "global_local",
        "adaptive",
        "random",
        panel.url.text(),
        panel.choices.author.text(),
        "",
        *panel.logic.task.names,
        "1",
        "2",
        "3",
        "4",
    }
    for act in ("accept", "absent", "unlock", "undo", "accept_all", "replace"):
        press(panel, act)
        assert panel.message.text().startswith("«"), act
    seen = []
    for widget in window.findChildren(qt.QWidget):
        for name in ("text", "toolTip", "placeholderText", "suffix"):
            value = getattr(widget, name, lambda: "")()
            seen.append(value.strip() if isinstance(value, str) else "")
        if isinstance(widget, qt.QComboBox):
            seen += [widget.itemText(i) for i in range(widget.count())]
        if isinstance(widget, qt.QTabWidget):
            seen += [widget.tabText(i) for i in range(widget.count())]
    seen += [panel.table.horizontalHeaderItem(c).text() for c in range(4)]
    seen += [panel.table.item(r, 1).text() for r in range(panel.table.rowCount())]
    untranslated = {text for text in seen if not text.startswith("«")} - data
    untranslated = {t for t in untranslated if not t.startswith(("case_12: «", "10.00 «", "0%"))}
    assert untranslated == set() and len(seen) > 50
    panel.close()
    window.close()


def luminance(colour: str) -> float:
    """Relative luminance. Source: WCAG 2.1."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("background", ["#ffffff", "#2b2b2b"], ids=["light", "dark"])
def test_states_can_be_read_on_light_and_dark(background):
    from LandmarkLabelLib.panel import BAD, COLOURS, GOOD

    for colour in (*COLOURS.values(), GOOD, BAD):
        light, dark = sorted((luminance(colour), luminance(background)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 2.9, colour


def test_a_dark_panel_is_drawn_dark_and_nothing_is_cut(tmp_path):
    panel, window = qt_harness.example(tmp_path, width=360, dark=True)
    qt.application.processEvents()
    picture = window.grab().toImage()
    corner = picture.pixelColor(2, 2)
    assert corner.lightness() < 80
    for button in panel._buttons.values():
        assert not button.isVisible() or button.width() >= button.fontMetrics().horizontalAdvance(button.text()), button.text()
    panel.close()
    window.close()


def test_options_are_kept_but_the_token_is_not(tmp_path):
    panel, window = qt_harness.open_panel(tmp_path)
    panel.choices.author.setText("Dr. Ann")
    panel.choices.at_once.setChecked(True)
    panel.choices.token.setText("secret")
    panel.training.minutes.setValue(3.0)
    panel.close()
    again, other = qt_harness.open_panel(tmp_path)
    assert again.options.author == "Dr. Ann" and again.options.predict_at_once and again.options.minutes == 3.0
    assert again.choices.at_once.isChecked() and again.choices.token.text() == ""
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
    monkeypatch.setattr(slicer, "modules", types.SimpleNamespace(landmarklabel=module), raising=False)
    test, shown = LandmarkLabel.LandmarkLabelTest(), []
    test.setUp, test.delayDisplay = lambda: None, shown.append
    test.runTest()
    assert shown == ["Test passed"]
    monkeypatch.setattr(LandmarkLogic, "mark_absent", lambda self, name: None)
    with pytest.raises(AssertionError, match="absent is not missing"):
        test.runTest()
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
