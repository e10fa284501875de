"""What people said of each image, and whether its pixels are still those that they said it of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Set
from types import MappingProxyType
from typing import NamedTuple

from landmarklabel.errors import Busy, ImageRejected
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.store.configuration import CONFIG
from landmarklabel.store.image_files import REPEAT, ImageFolder
from landmarklabel.store.pixels import PIXELS_NOTED, UNREADABLE, PixelHashes, stamp
from landmarklabel.store.revisions import Revision, RevisionStore


class _Read(NamedTuple):
    """What was read of the revisions up to a row: ``labels`` is all of each image, ``stated`` what people said of it, without
    proposals that nobody has confirmed, and ``expected`` the hash of the pixels that they said it of."""

    row: int = -1
    heads: Mapping[str, Revision] = MappingProxyType({})
    labels: Mapping[str, LandmarkSet] = MappingProxyType({})
    stated: Mapping[str, LandmarkSet] = MappingProxyType({})
    expected: Mapping[str, str] = MappingProxyType({})


class NewestLabels:
    """The newest labels of a study and the pixels they were made on; only what is new is read again. Safe for threads.

    Args:
        revisions: of the study.
        read: the landmarks of a revision.
        images: of the study.
        pixels: the hashes of their pixels.
        verify_s: seconds that a question may spend on looking at images that may have changed; 0 for none.
    """

    def __init__(
        self,
        revisions: RevisionStore,
        read: Callable[[Revision], LandmarkSet],
        images: ImageFolder,
        pixels: PixelHashes,
        verify_s: float,
    ):
        self.revisions, self.read, self.images, self.pixels, self.verify_s = revisions, read, images, pixels, verify_s
        self._last_read = _Read()  # replaced as a whole, so that a thread that holds one has what belongs together
        self._changed: frozenset[str] = frozenset()
        self._next_look = 0.0
        self._publishing = threading.Lock()  # held while one of these three is changed

    def labelled(self) -> dict[str, LandmarkSet]:
        """What people said of every image that is there, not changed, and of which they said anything."""
        stated, images, changed = self._stated(), self.images.listed().images, self._seen_to_be_changed()
        return {i: landmarks for i, landmarks in stated.items() if i in images and i not in changed}

    def newest(self) -> dict[str, LandmarkSet]:
        """As ``labelled``, with the proposals that nobody has confirmed."""
        labelled, labels = self.labelled(), self._last_read.labels
        return {i: labels[i] for i in labelled if i in labels}

    def stated_ids(self) -> Set[str]:
        """Ids of all images that people said something of, whether they are there or not."""
        return self._stated().keys()

    def heads(self) -> Mapping[str, Revision]:
        """The newest revision of every image, further readings too; those that are damaged are left out."""
        self._stated()
        return self._last_read.heads

    def changed(self) -> frozenset[str]:
        """Images whose pixels are no longer those that their newest label was made on."""
        self._stated()
        return self._seen_to_be_changed()

    def verify(self, image_ids: list[str] | None, seconds: float) -> frozenset[str]:
        """Look at all labelled images that may have changed, or at these, for so long; returns as ``changed``."""
        self._stated()
        self._look_at_pixels(seconds, image_ids)
        return self._changed

    def note_pixels(self, image_id: str, value: str) -> None:
        """The hash of an image's pixels belongs to its label where that is from before hashes were kept."""
        known = image_id not in self._stated() or image_id in self._last_read.expected
        if not known and not self.revisions.changes(image_id, what=PIXELS_NOTED):
            self.revisions.log_change(PIXELS_NOTED, image_id, after=value)
            with self._publishing:
                self._last_read = self._last_read._replace(expected={**self._last_read.expected, image_id: value})

    def not_changed(self, image_id: str) -> None:
        """A label was made on what lies there now."""
        with self._publishing:
            self._changed -= {image_id}

    def _stated(self) -> Mapping[str, LandmarkSet]:
        """What people said of each image, whether it is there or not."""
        latest, last = self.revisions.latest_row(), self._last_read
        if last.row == latest:  # asked at every poll of a server's clients
            return last.stated
        heads = self.revisions.newer_heads(last.heads, last.row)
        of_images = {i: head for i, head in heads.items() if not i.endswith(REPEAT)}
        labels = {i: last.labels[i] if last.heads.get(i) is head else self.read(head) for i, head in of_images.items()}
        old = any("pixels" not in heads[i].body for i in labels)
        notes = self.revisions.changes(what=PIXELS_NOTED) if old else []
        noted = {c.subject: c.after for c in reversed(notes)}  # the first one counts
        said = {i: last.stated.get(i) if last.labels.get(i) is x else _what_people_said(x) for i, x in labels.items()}
        stated = {i: x for i, x in said.items() if x is not None}
        made_on = {i: heads[i].body.get("pixels", noted.get(i)) for i in stated}
        read = _Read(latest, heads, labels, stated, {i: value for i, value in made_on.items() if value})
        with self._publishing:
            if self._last_read is last or self._last_read.row < latest:  # no other thread has read more meanwhile
                self._last_read, self._next_look = read, 0.0
        return stated

    def _seen_to_be_changed(self) -> frozenset[str]:
        if self.verify_s and time.monotonic() >= self._next_look:
            self._look_at_pixels(self.verify_s)
        return self._changed

    def _look_at_pixels(self, seconds: float, image_ids: list[str] | None = None) -> None:
        started, images, last, verdicts = time.monotonic(), self.images.listed().images, self._last_read, {}
        looked = last.expected
        for image_id in list(looked) if image_ids is None else image_ids:
            path, expected = images.get(image_id), looked.get(image_id)
            if path is None or expected is None:
                continue
            now = self.pixels.unchanged(path)
            if now is None and time.monotonic() - started < seconds:
                try:
                    now = self.pixels.of(path)
                except Busy:  # it is looked at again
                    continue
                except ImageRejected:
                    now = UNREADABLE  # damaged since: not the pixels that were labelled
                    self.pixels.note(path, now, stamp(path))
            if now is not None:
                verdicts[image_id] = now != expected
        ended = time.monotonic()
        rest = CONFIG.rest_factor * (ended - started) if ended - started > CONFIG.quick_scan_s else 0.0
        with self._publishing:  # what somebody submitted meanwhile is theirs
            by_now = self._last_read.expected
            told = {i: is_other for i, is_other in verdicts.items() if by_now.get(i) == looked[i]}
            right = {i for i, is_other in told.items() if not is_other}
            self._changed = (self._changed & by_now.keys()) - right | told.keys() - right
            if self._last_read is last:
                self._next_look = ended + rest if rest else 0.0


def _what_people_said(landmarks: LandmarkSet) -> LandmarkSet | None:
    return landmarks.stated() if landmarks.by_person.any() else None
