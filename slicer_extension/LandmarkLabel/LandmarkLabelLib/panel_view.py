"""What the panel shows of the state; what its buttons do is in ``panel``."""

from __future__ import annotations

from collections.abc import Callable

from .connecting import AWAY, CONNECTED, CONNECTING, IDLE, NOT_LET_IN, OTHER_TASK, UNTRUSTED
from .logic import LandmarkLogic
from .table import is_doubtful
from .volumes import CaseVolume
from .widgets import style_pixmap
from .wire import Point


class PanelView:
    """The part of ``LandmarkPanel`` that brings its widgets to the state of the logic."""

    def _said_of_server(self) -> dict[str, tuple[str, str]]:
        """State to icon and words."""
        return {
            IDLE: ("SP_MessageBoxInformation", self._("not connected")),
            CONNECTING: ("SP_BrowserReload", self._("connecting")),
            CONNECTED: ("SP_DialogApplyButton", self._("connected")),
            AWAY: ("SP_MessageBoxWarning", self._("does not answer")),
            NOT_LET_IN: ("SP_MessageBoxCritical", self._("not let in: type the token and connect again")),
            OTHER_TASK: ("SP_MessageBoxWarning", self._("another task or study is served: connect again")),
            UNTRUSTED: ("SP_MessageBoxWarning", self._("nobody vouches for this server")),
        }

    def _show_server(self) -> None:
        ui, logic = self.ui, self.logic
        icon, text = self._texts[logic.state if logic is not None else IDLE]
        if logic is not None and logic.online and logic.who["name"]:
            text += " " + self._("as {who}").format(who=logic.who["name"])
        if text != ui.serverStatus.property("text"):
            ui.serverStatus.setText(text)
            ui.serverIcon.setPixmap(style_pixmap(self.widget, icon))
        ui.trustButton.setVisible(logic is not None and logic.state == UNTRUSTED and logic.untrusted is not None)
        ready = logic is not None and logic.task is not None
        ui.nextButton.setEnabled(bool(ready))
        ui.strategy.setEnabled(bool(ready))
        ui.models.setEnabled(bool(ready))
        if ready:
            model = logic.model
            self._list(ui.models, "models", list(logic.models))
            if model in logic.models:  # a list that is filled anew chooses its first
                self._choose(ui.models, self._listed["models"].index(model))
            self._list(ui.strategy, "strategies", logic.strategies)

    def _list(self, combo, key: str, names: list[str]) -> None:
        if self._listed[key] != names:
            self._listed[key] = names
            combo.clear()
            combo.addItems(names)

    def _choose(self, combo, index: int) -> None:
        if combo.property("currentIndex") != index:
            combo.setCurrentIndex(index)

    def _show_case(self) -> None:
        ui, logic = self.ui, self.logic
        session = logic.session if logic is not None else None
        for widget in self._of_case:
            widget.setEnabled(session is not None)
        ui.conflictFrame.setVisible(bool(session is not None and logic.conflict is not None))
        self._show_unsent(logic.unsent if logic is not None else [])
        if session is None:
            ui.caseLabel.setText(self._("no case is open"))
            ui.progressLabel.setText("")
            return
        ui.caseLabel.setText(session.image_id + (f" ({session.reason})" if session.reason else ""))
        done, doubtful = sum(p.by_person for p in session.points), sum(map(is_doubtful, session.points))
        text = self._("{n} of {of} done, {k} doubtful").format(n=done, of=len(session.points), k=doubtful)
        ui.progressLabel.setText(text + (self._(", not sent yet") if session.unsent else ""))
        if logic.conflict is not None:
            who = logic.conflict.author or self._("somebody")
            text = self._("{who} saved revision {n} meanwhile: {k} points differ, drawn in violet")
            if logic.conflict.revision <= session.base_revision:
                text = self._(
                    "the study was restored from an older copy: revision {n} is {who}'s now, {k} points differ, in violet"
                )
            if logic.conflict.revision == 0:
                text = self._(
                    "the study was restored from an older copy and has no revision of this case any more: Submit mine saves yours"
                )
            for button in (ui.takePointButton, ui.takeAllButton):
                button.setEnabled(logic.conflict.revision > 0)
            ui.conflictLabel.setText(text.format(who=who, n=logic.conflict.revision, k=len(logic.differences())))

    def _show_image(self) -> None:
        session, image = self.logic.session, self.logic.image
        wanted = (session.image_id, image, session.pixels) if image is not None else None
        if wanted is None:
            if self.volume.shown is not None:
                self.volume.close()  # of the case before, or of this one, whose image may be another by now
        elif (wanted != self.volume.shown or self.volume.is_gone) and not self.volume.show(
            image, session.image_id, session.pixels
        ):
            self.logic.message = self._("{file} cannot be read").format(file=image.name)

    def _show_points(self) -> None:
        logic = self.logic
        points, differing = logic.session.points, logic.differences()
        current = self.current
        hide = self._hides and current is not None
        self.node.show(points, [n for n in logic.task.names if n != current] if hide else ())
        self.theirs.show(list(differing.values()), logic.conflict.author if logic.conflict is not None else "")
        self.table.show(logic.task, points, logic.review.authors, differing)
        self.ring.show(self.node.position(current) if current is not None else None)

    def _show_no_case(self) -> None:
        """Of a case that was open nothing stays in the views, which nobody could work on."""
        self.table.clear()
        self.volume.close()
        self.theirs.show((), "")
        self.ring.show(None)
        if self.node is not None and self.node.is_in_scene:
            self.node.mend()
            self.node.show([Point(name) for name in self.node.task.names])

    def _show_words(self) -> None:
        ui, logic = self.ui, self.logic
        ui.message.setText(logic.message if logic is not None else "")
        trouble = self._fault if logic is None else "; ".join(filter(None, (logic.trouble, *logic.notices)))
        trouble = trouble.replace(":", ":\u200b")  # a fingerprint may be broken at its colons
        ui.troubleFrame.setVisible(bool(trouble))
        ui.takeOverButton.setVisible(logic is not None and bool(logic.left))
        if trouble != ui.trouble.property("text"):
            ui.trouble.setText(trouble)
            ui.troubleIcon.setPixmap(style_pixmap(self.widget, "SP_MessageBoxWarning"))
        self._show_busy()

    def _show_busy(self) -> None:
        doing = self.logic.worker.doing if self.logic is not None else []
        if bool(doing) != self._busy:
            self._busy = bool(doing)
            self.ui.busyFrame.setVisible(self._busy)
        if doing:
            self.ui.busyLabel.setText(doing[0])


def why_blocked(translate: Callable[[str], str], logic: LandmarkLogic, volume: CaseVolume) -> str:
    """Why nothing can be predicted, corrected or submitted: the case's image is not shown, or not where the server has it."""
    if logic.session is not None and not logic.is_shown_by_hand:
        if logic.image is None:
            return translate("the image of {case} is not shown: wait for it, or open the case again").format(
                case=logic.session.image_id
            )
        if volume.shown is not None and volume.node is None:
            return translate("{file} cannot be read").format(file=logic.image.name)
    if transform := volume.moved_by:
        text = translate("the image is moved by {transform}, so points would be elsewhere on the server: remove the transform")
        return text.format(transform=transform)
    if volume.is_changed:
        return translate(
            "the image was moved, cropped or resampled, so points would be elsewhere on the server: "
            "delete it from the scene, and it is loaded again"
        )
    return ""
