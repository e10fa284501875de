"""Labels worth a second look: every point by how far it lies from where the other points of its case expect it."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from landmarklabel.data.shape_outliers import ShapeScores, score_shapes, swapped_with, worst_first
from landmarklabel.errors import ImageRejected, UsageError
from landmarklabel.io.files import MARKUPS_SUFFIX
from landmarklabel.io.markups import dump_markups
from landmarklabel.io.tables import table_text
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.services.descriptions import image_unit, shown_length
from landmarklabel.services.limits import LIMITS
from landmarklabel.store.revision_json import same_landmarks
from landmarklabel.store.revisions import Revision
from landmarklabel.store.study import Study

CHECK = "quality check"  # the source of a revision by which somebody says that points are right
LEFT_OUT = "left_out.txt"


@dataclass(frozen=True)
class _Looked:
    """What was found at one state of the study: ``row`` is the newest of its revisions then."""

    row: int
    labelled: dict[str, LandmarkSet]
    scores: ShapeScores | None
    checked: dict[str, dict[str, Revision]]
    numbers: dict[str, int]


class StudyQuality:
    """Looks at a study's labels again whenever one was saved; safe for threads, one of them looks."""

    def __init__(self, study: Study):
        self.study = study
        self._turn = threading.Lock()
        self._found: _Looked | None = None

    def points(self, page: int, also_checked: bool) -> dict:
        """A page of the points, the least expected first, each with where the others expect it; all cases in shape space.

        ``too_few`` names the landmarks that too few cases have for their points to be looked at.

        Args:
            page: from 1; each has ``page_cases`` points.
            also_checked: those too that somebody has looked at and said are right.
        """
        found, (size, unit) = self._look(), self._length()
        if found.scores is None:
            empty = {"points": 0, "page": 1, "pages": 1, "unit": unit, "rows": [], "too_few": [], "shape": None}
            return {"cases": len(found.labelled), **empty}
        scores = found.scores
        order = [
            (i, k)
            for i, k in worst_first(scores.score)
            if also_checked or scores.names[k] not in found.checked.get(scores.image_ids[i], {})
        ]
        pages = max(1, -(-len(order) // LIMITS.page_cases))
        page = min(max(page, 1), pages)
        shown = order[(page - 1) * LIMITS.page_cases : page * LIMITS.page_cases]
        return {
            "cases": len(scores.image_ids),
            "points": len(order),
            "page": page,
            "pages": pages,
            "unit": unit,
            "rows": [self._row(found, scores, i, k, size) for i, k in shown],
            "too_few": [n for n, seen in zip(scores.names, np.isfinite(scores.score).any(0), strict=True) if not seen],
            "shape": _shape(scores, sorted({i for i, _ in shown})),
        }

    def table(self) -> str:
        """All points as CSV, the least expected first."""
        found = self._look()
        rows: list[list[object]] = [["id", "landmark", "times_median", "off", "unit", "swapped_with", "checked_by", "checked"]]
        size, unit = self._length()
        if (scores := found.scores) is not None:
            for i, k in worst_first(scores.score):
                check = found.checked.get(scores.image_ids[i], {}).get(scores.names[k])
                said = [check.author, check.created] if check else ["", ""]
                numbers = [round(float(scores.score[i, k]), 3), round(size * float(scores.off_mm[i, k]), 3)]
                other = swapped_with(scores, i, k)
                swap = "" if other is None else scores.names[other]
                rows.append([scores.image_ids[i], scores.names[k], *numbers, unit, swap, *said])
        return table_text(rows)

    def write_specimens(self, file: BinaryIO, leave_out: Collection[str] = ()) -> None:
        """A zip for SlicerMorph's GPA: a Markups file for each case, all with the same landmarks in the task's order.

        GPA takes no specimen that lacks a landmark: ``left_out.txt`` names those, and what they lack.

        Raises:
            UsageError: a landmark to leave out that the task has not, or none left.
        """
        task = self.study.task
        if unknown := sorted(set(leave_out) - set(task.names)):
            raise UsageError(f"the task has no landmark {unknown[0][:80]!r} to leave out")
        kept = [k for k, name in enumerate(task.names) if name not in leave_out]
        if not kept:
            raise UsageError("all landmarks are left out: nothing to compare is left")
        own = LandmarkTask(task.name, tuple(task.names[k] for k in kept), dims=task.dims)
        missing = []
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for image_id, landmarks in self.study.labelled().items():
                status = tuple(landmarks.status[k] for k in kept)
                lacking = [name for name, s in zip(own.names, status, strict=True) if s not in (Status.PLACED, Status.ACCEPTED)]
                if lacking:
                    missing.append(f"{image_id}: {', '.join(lacking)}\n")
                    continue
                case = LandmarkSet(own, landmarks.positions_mm[kept], status)
                text = dump_markups(case, plane=self.study.plane_of(image_id))
                archive.writestr(f"{image_id}{MARKUPS_SUFFIX}", text)
            if missing:
                archive.writestr(LEFT_OUT, "".join(missing))

    def _look(self) -> _Looked:
        with self._turn:
            row, numbers = self.study.revisions.latest_row(), self.study.revisions.numbers()  # first: what is saved now is missed
            labelled, before = self.study.labelled(), self._found
            if before is not None and before.row == row and before.labelled.keys() == labelled.keys():
                return before
            scores = before.scores if before is not None and _same(before.labelled, labelled) else score_shapes(labelled)
            checks = {c.subject for c in self.study.revisions.changes(what=CHECK)} & labelled.keys()
            checked = {i: self.study.checked(i) for i in checks}
            self._found = _Looked(row, labelled, scores, checked, numbers)
            return self._found

    def _row(self, found: _Looked, scores: ShapeScores, i: int, k: int, size: float) -> dict:
        image_id, name = scores.image_ids[i], scores.names[k]
        check = found.checked.get(image_id, {}).get(name)
        return {
            "image": image_id,
            "landmark": name,
            "revision": found.numbers.get(image_id, 0),  # one that is labelled just now: its Right is refused
            "times_median": round(float(scores.score[i, k]), 2),
            "off": round(size * float(scores.off_mm[i, k]), 3),
            "expected": self._lifted(image_id, scores.expected_mm[i, k]),
            "swapped_with": None if (other := swapped_with(scores, i, k)) is None else scores.names[other],
            "checked": {"author": check.author, "created": check.created} if check else None,
        }

    def _length(self) -> tuple[float, str]:
        """As ``shown_length``, by the study's first image: all of them come from the same kind of device."""
        first = next(iter(self.study.images().values()), None)
        return shown_length(self.study.task, "mm" if first is None else image_unit(first))

    def _lifted(self, image_id: str, position_mm: np.ndarray) -> list[float]:
        """On the slice, where a 2D image is one of a volume."""
        try:
            plane = self.study.plane_of(image_id)
        except ImageRejected:
            plane = None
        return np.round(position_mm if plane is None else plane.lift(position_mm), 3).tolist()


def _same(before: dict[str, LandmarkSet], labelled: dict[str, LandmarkSet]) -> bool:
    """Whether no point was moved, added or removed."""
    return before.keys() == labelled.keys() and all(x is before[i] or same_landmarks(x, before[i]) for i, x in labelled.items())


def _shape(scores: ShapeScores, shown: list[int]) -> dict:
    """Typical places, some of all cases, and those that are listed, over one another; null for what a case lacks."""
    step = -(-len(scores.image_ids) // LIMITS.cases_drawn)
    return {
        "names": list(scores.names),
        "typical": _wire(scores.typical),
        "cases": [_wire(x) for x in scores.aligned[::step]],
        "listed": {
            scores.image_ids[i]: {"points": _wire(scores.aligned[i]), "expected": _wire(scores.expected[i])} for i in shown
        },
    }


def _wire(points: np.ndarray) -> list[list[float] | None]:
    return [p.tolist() if np.isfinite(p).all() else None for p in np.round(points, 3)]
