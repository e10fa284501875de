"""The list of what the server does not have."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from .outbox import Entry
from .session import Session


class UnsentList:
    """The part of ``LandmarkPanel`` that shows this list, and does what its buttons say."""

    def _show_unsent(self, unsent: list) -> None:
        self.ui.unsentFrame.setVisible(bool(unsent))
        if [_mark(x) for x in unsent] == [_mark(x) for x in self._rows]:
            return
        chosen = self._chosen()
        self._rows = list(unsent)
        self.ui.unsentList.clear()
        for what in unsent:
            why = self._("changed, not submitted") if isinstance(what, Session) else what.why or self._("waits for the server")
            why = why[len(what.image_id) + 2 :] if why.startswith(f"{what.image_id}: ") else why
            name = self._("{case} (second reading)").format(case=what.image_id) if what.repeat else what.image_id
            self.ui.unsentList.addItem(f"{name}: {why}")
            self.ui.unsentList.item(self.ui.unsentList.property("count") - 1).setToolTip(f"<p>{escape(why)}</p>")
        if unsent:
            cases = [(x.image_id, x.repeat) for x in unsent]
            case = (chosen.image_id, chosen.repeat) if chosen is not None else None
            self.ui.unsentList.setCurrentRow(cases.index(case) if case in cases else 0)

    def _discard(self) -> None:
        """Discard what is selected in the list, after a second press."""
        what = self._chosen()
        if what is None:
            return
        mark = f"discard {getattr(what, 'key', '')} {what.image_id}"
        if self._asked != mark:
            self._asked = mark
            text = self._("your points of {case} will be gone: press Discard again if that is right")
            if self.logic.is_open(what):
                text = self._(
                    "the submission of {case} will be gone, its points stay open here: press Discard again if that is right"
                )
            self.logic.message = text.format(case=what.image_id)
            self._mark_due()
            return
        self._asked = ""
        self.logic.discard(what)

    def _with_unsent(self, act: Callable) -> None:
        what = self._chosen()
        if what is not None:
            act(what)

    def _chosen(self) -> Entry | Session | None:
        row = self.ui.unsentList.property("currentRow")
        return self._rows[row] if 0 <= row < len(self._rows) else None


def _mark(what: Entry | Session) -> tuple:
    return (what.image_id, what.repeat, getattr(what, "key", ""), getattr(what, "why", ""))
