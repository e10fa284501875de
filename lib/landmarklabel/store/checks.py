"""Revisions by which somebody only says that points are right, told from those by which somebody labels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import pairwise

from landmarklabel.landmarks import LandmarkSet
from landmarklabel.store.revision_json import checked_of, is_check, same_landmarks, same_points
from landmarklabel.store.revisions import Revision

KEPT = "kept for a changed image"  # the source of a revision that says that its points hold on the image as it is now
Read = Callable[[Revision], LandmarkSet]


def only_checks(read: Read, revision: Revision, before: Revision | None) -> bool:
    """Whether a revision does nothing but call points right, or take that back, of what ``before``, an earlier one, has.

    A first labelling that does so beside, and one that moves a point, is somebody's labelling.

    Args:
        read: a revision's landmarks under today's names, as ``Study.read``.
        revision, before: of one image.
    """
    if before is None or not is_check(revision.body):
        return False
    pixels = {body["pixels"] for body in (before.body, revision.body) if body.get("pixels")}
    return len(pixels) < 2 and same_landmarks(read(before), read(revision))


def of_this_image(readings: Iterable[Revision], history: Sequence[Revision]) -> Iterator[Revision]:
    """The readings of a case that were made on the image of its newest label, or of which somebody said that they hold there.

    Readings from before the pixels were noted count: nobody knows better.

    Args:
        readings: revisions of the case, or second readings of it.
        history: all revisions of the case, oldest first; without any, no reading counts.
    """
    if history and not history[-1].body.get("pixels"):
        return iter(readings)
    pixels: set[object] = {None, history[-1].body.get("pixels")} if history else set()
    for before, revision in reversed([*pairwise(history)]):
        if revision.source == KEPT and revision.body.get("pixels") in pixels:
            pixels.add(before.body.get("pixels"))
    return (r for r in readings if r.body.get("pixels") in pixels)


def past_checks(
    read: Read,
    history: Sequence[Revision],
    base: int,
    edited: LandmarkSet,
    taken_back: Collection[str],
    renames: Sequence[tuple[str, str]],
) -> int:
    """The newest revision, where all that came after ``base`` only called points right: nobody has to look at those.

    But whoever moves such a point (``edited``), or takes back that it is right (``taken_back``), has to have seen who said so.
    """
    seen = next((r for r in history if r.number == base), None)
    later = [r for r in history if r.number > base]
    if seen is None or not all(only_checks(read, r, seen) for r in later):
        return base
    newest_word: dict[str, bool] = {}
    for revision in later:
        newest_word |= checked_of(revision.body, renames)
    said = {name for name, is_right in newest_word.items() if is_right}
    if not said:
        return history[-1].number
    moved = {name for name, same in same_points(read(seen), edited).items() if not same}
    return base if said & (moved | set(taken_back)) else history[-1].number
