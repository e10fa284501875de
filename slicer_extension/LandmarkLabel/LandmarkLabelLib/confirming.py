"""What a person has to press twice."""

from __future__ import annotations


class Confirming:
    """The part of ``LandmarkPanel`` for a submission that looks wrong, and for a certificate that is another one than before."""

    def submit(self) -> None:
        """Submit, unless something looks wrong that nobody has confirmed by submitting again."""
        if self._waits_for_click():
            return
        warnings = "" if self.logic.session.is_submitted else "; ".join(self.logic.warnings())
        if not self._asks(warnings, self._("Submit again if it is right.")) and self.logic.submit(self._strategy()):
            self._asked = ""

    def submit_mine(self) -> None:
        """As ``submit``, on top of the version that somebody else has saved."""
        if self._waits_for_click():
            return
        warnings = "; ".join(self.logic.warnings())
        if not self._asks(warnings, self._("Press Submit mine again if it is right.")):
            self.logic.submit_mine(self._strategy())

    def _asks(self, warnings: str, how: str) -> bool:
        """Whether there are warnings that nobody has confirmed: then they are shown."""
        if not warnings or self.logic.blocked() or warnings == self._asked:
            return False
        self._ask(warnings, f"{warnings}. {how}")
        return True

    def _believe(self) -> None:
        """Believe the certificate that is shown; one instead of another that was confirmed before, after a second press."""
        untrusted = self.logic.untrusted
        if untrusted.before and self._asked != untrusted.fingerprint:
            text = self._("only if the operator names this fingerprint: press again to believe it from now on")
            self._ask(untrusted.fingerprint, text)
            return
        self.logic.confirm_certificate()
        self.connect_server()

    def _take_over(self) -> None:
        """Work that others have left here is this person's, after a second press."""
        who = ", ".join(dict.fromkeys(self.logic.left.values()))
        if self._asked != who:
            text = self._("what {who} left here will be sent as yours: press Take over again only if it is")
            self._ask(who, text.format(who=who))
            return
        self._asked = ""
        self.logic.take_over()

    def _ask(self, what: str, text: str) -> None:
        """A second press confirms ``what``; until then the text is shown."""
        self._asked, self.logic.message = what, text
        self._mark_due()
