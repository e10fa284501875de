"""Finished cases: which there are, their revisions, and who placed what."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .client import Client
from .wire import UNSET, Point, RevisionNumber, Task

Revision = tuple[RevisionNumber, str, list[Point]]  # number, author, points


class Review:
    """The study's cases and the revisions of the one that is open.

    Args:
        client: of the server.
        run: ``LandmarkLogic``'s way into the background.
        opened: opens a case: (image id, revision, reason); False where it could not.
        changed: shows a message.
        translate: for texts that people see.
    """

    def __init__(self, client: Client, run: Callable, opened: Callable, changed: Callable, translate: Callable[[str], str]):
        self.client, self.run, self.opened, self.changed, self._ = client, run, opened, changed, translate
        self.cases: list[dict] = []
        self.forget()

    def forget(self) -> None:
        """Another case is open, whose revisions nobody has asked for."""
        self.image_id, self.revisions, self.authors = "", [], {}

    def list_cases(self) -> None:
        """Which cases there are and how far they are."""

        def done(rows: list[dict]) -> None:
            self.cases = rows

        self.run(self.client.cases, done, "")

    def open(self, image_id: str, task: Task) -> None:
        """A case with all its revisions."""

        def done(rows: list[Revision]) -> None:
            newest = rows[-1] if rows else (RevisionNumber(0), "", [Point(n) for n in task.names])
            if self.opened(image_id, newest, self._("{n} revisions").format(n=len(rows)) if rows else ""):
                self.image_id, self.revisions, self.authors = image_id, rows, who_placed(rows)

        self.run(lambda: self.client.history(image_id, task), done, self._("opening {case}").format(case=image_id))

    def revision(self, number: int) -> Revision:
        """One of the open case."""
        return next(row for row in self.revisions if row[0] == number)


def who_placed(revisions: Sequence[Revision]) -> dict[str, str]:
    """Landmark to who brought it to where the newest revision has it: the author of the revision that last changed it."""
    authors: dict[str, str] = {}
    before: dict[str, Point] = {}
    for _, author, points in revisions:
        for p in points:
            old = before.get(p.name)
            if p.state != UNSET and (old is None or (old.state, old.position) != (p.state, p.position)):
                authors[p.name] = author
            before[p.name] = p
    return {name: author for name, author in authors.items() if before[name].state != UNSET}
