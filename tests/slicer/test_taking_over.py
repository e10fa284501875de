"""Work that was left here under another name: the panel says so, and whose it is only a person can say."""

from __future__ import annotations

import qt_harness
from annotators import token_of
from qt_harness import idle, open_case, press, type_keys
from serving import phantoms, serving

qt = qt_harness.install()

import slicer  # noqa: E402

CASE, OTHER = "phantom00", "phantom01"
PLACE = (21.0, 31.0, 0.0)


def connect(panel, url: str, token: str) -> None:
    panel.ui.url.setText(url)
    panel.ui.token.setText(token)
    press(panel, "connectButton")
    idle(panel)


def test_what_another_has_left_is_saved_under_this_name_after_two_presses(tmp_path):
    material = phantoms(tmp_path / "study", 2)
    ann, bob = token_of(material, "ann"), token_of(material, "bob")
    slicer.mrmlScene.Clear(False)
    panel, window = qt_harness.open_panel(tmp_path / "panel")
    ui = panel.ui
    with serving(material) as server:
        connect(panel, server.url, ann)
        open_case(panel, CASE)
        panel.logic.correct(panel.logic.task.names[0], PLACE)
        idle(panel)
        connect(panel, server.url, bob)
        says = "1 cases of ann wait here to be sent: press Take over only if they are yours"
        assert ui.trouble.text().replace("\u200b", "") == says and not ui.takeOverButton.isHidden()
        open_case(panel, OTHER)
        assert ui.trouble.text().replace("\u200b", "") == says  # until it is mended
        asks = "what ann left here will be sent as yours: press Take over again only if it is"
        for _ in range(2):
            press(panel, "takeOverButton")
            assert ui.message.text() == asks and ui.unsentFrame.isHidden()
            press(panel, "nextDoubtfulButton")  # something else: the question is withdrawn
        press(panel, "takeOverButton")
        press(panel, "takeOverButton")
        idle(panel)
        assert ui.troubleFrame.isHidden() and ui.takeOverButton.isHidden()
        assert ui.unsentList.item(0).text() == f"{CASE}: changed, not submitted"
        press(panel, "openUnsentButton")
        idle(panel)
        press(panel, "submitButton")
        idle(panel)
        saved = server.get(f"/landmarks/images/{CASE}", headers={"Authorization": f"Bearer {ann}"})
        assert (saved["author"], saved["landmarks"][0]["position"]) == ("bob", list(PLACE[:2]))
    panel.close()
    window.close()


def test_no_key_submits_while_somebody_types(tmp_path):
    material = phantoms(tmp_path / "study", 2)
    slicer.mrmlScene.Clear(False)
    panel, window = qt_harness.open_panel(tmp_path / "panel")
    with serving(material) as server:
        connect(panel, server.url, "")
        open_case(panel, CASE)
        panel.logic.correct(panel.logic.task.names[0], PLACE)
        idle(panel)
        type_keys(panel, "Ctrl+Return", panel.ui.token)
        idle(panel)
        assert panel.logic.session.unsent and server.get(f"/landmarks/images/{CASE}")["revision"] == 0
        type_keys(panel, "Ctrl+Return", panel.ui.strategy)
        idle(panel)
        assert server.get(f"/landmarks/images/{CASE}")["revision"] == 1
    panel.close()
    window.close()
