"""The data model: what a task asks for (LandmarkTask) and what an image got (LandmarkSet)."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import numpy as np

from landmarklabel.errors import FaultsError, TaskError

FORMAT = "landmarklabel-task"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}")
_MAX_LANDMARKS = 5000


class Status(str, Enum):
    """What is known of one landmark of one image."""

    UNSET = "unset"  # nobody has said anything yet
    PREDICTED = "predicted"  # proposed by a model
    PLACED = "placed"  # put there by a person
    ACCEPTED = "accepted"  # a proposal confirmed by a person
    ABSENT = "absent"  # not visible in this image; trained as a negative

    @property
    def has_position(self) -> bool:
        return self not in (Status.UNSET, Status.ABSENT)

    @property
    def by_person(self) -> bool:
        return self in (Status.PLACED, Status.ACCEPTED, Status.ABSENT)


@dataclass(frozen=True)
class ScaleRule:
    """The distance between landmarks ``a`` and ``b`` is ``mm`` in every image: how uncalibrated images get millimetres."""

    a: str
    b: str
    mm: float


def _composed(name: object) -> object:
    return unicodedata.normalize("NFC", name) if isinstance(name, str) else name


@dataclass(frozen=True)
class LandmarkTask:
    """Which landmarks, in which order, in which number of dimensions.

    Args:
        name: letters, digits, ``_ . -``.
        names: landmark names in the task's order; unique, non-empty.
        dims: 2 or 3.
        definitions: name to a sentence saying where the point is.
        mirror_pairs: pairs of names that swap when the image is mirrored.
        scale: optional rule that turns image units into millimetres.

    Raises:
        TaskError: listing every fault.
    """

    name: str
    names: tuple[str, ...]
    dims: int = 3
    definitions: Mapping[str, str] = field(default_factory=dict)
    mirror_pairs: tuple[tuple[str, str], ...] = ()
    scale: ScaleRule | None = None

    def __post_init__(self):
        if all(isinstance(name, str) for name in self.names):  # ü is one character or two; for people it is one name
            object.__setattr__(self, "names", tuple(_composed(name) for name in self.names))
            object.__setattr__(self, "definitions", {_composed(k): v for k, v in self.definitions.items()})
            object.__setattr__(self, "mirror_pairs", tuple((_composed(a), _composed(b)) for a, b in self.mirror_pairs))
            if self.scale:
                object.__setattr__(self, "scale", replace(self.scale, a=_composed(self.scale.a), b=_composed(self.scale.b)))
        faults = _task_faults(self)
        if faults:
            raise TaskError(f"task {str(self.name)[:80]!r}", faults)

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Position of ``name`` in the task's order."""
        try:
            return self.names.index(name)
        except ValueError:
            raise TaskError(f"task {self.name!r}", [f"no landmark called {name!r}"]) from None

    @property
    def hash(self) -> str:
        """Sha256 (first 16 hex digits) of what a model depends on: dims and the names in order."""
        text = json.dumps({"dims": self.dims, "names": self.names}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def mirror_permutation(self) -> np.ndarray:
        """(n,) int: index of the landmark that takes each place after mirroring."""
        order = np.arange(len(self))
        for a, b in self.mirror_pairs:
            i, j = self.index(a), self.index(b)
            order[i], order[j] = j, i
        return order

    def to_json(self) -> dict:
        """The task as the content of its file."""
        out: dict = {"format": FORMAT, "version": 1, "name": self.name, "dims": self.dims}
        if self.scale:
            out["scale"] = {"from": self.scale.a, "to": self.scale.b, "mm": self.scale.mm}
        if self.mirror_pairs:
            out["mirror_pairs"] = [list(pair) for pair in self.mirror_pairs]
        out["landmarks"] = [
            {"name": n, **({"definition": self.definitions[n]} if n in self.definitions else {})} for n in self.names
        ]
        return out

    @staticmethod
    def from_json(content: object, what: str = "task") -> LandmarkTask:
        """Parse the content of a task file; every fault is listed in one TaskError."""
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise TaskError(what, [f'not a task file (no "format": "{FORMAT}")'])
        known = {"format", "version", "name", "dims", "scale", "mirror_pairs", "landmarks"}
        faults = [f"unknown key {key!r}; known: {', '.join(sorted(known))}" for key in content if key not in known]
        if content.get("version") != 1:
            faults.append(f"version {content.get('version')!r} is not supported; this program reads version 1")
        landmarks = content.get("landmarks")
        if not isinstance(landmarks, list) or not all(isinstance(x, dict) and "name" in x for x in landmarks):
            faults.append('"landmarks" must be a list of {"name": …, "definition": …}')
        if faults:
            raise TaskError(what, faults)
        try:
            scale = content.get("scale")
            rule = ScaleRule(str(scale["from"]), str(scale["to"]), float(scale["mm"])) if scale else None
            pairs = tuple((str(a), str(b)) for a, b in content.get("mirror_pairs", []))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise TaskError(
                what, ['"scale" must be {"from": name, "to": name, "mm": number}, "mirror_pairs" a list of pairs']
            ) from None
        try:
            return LandmarkTask(
                name=content.get("name"),
                names=tuple(x["name"] for x in landmarks),
                dims=content.get("dims"),
                definitions={str(x["name"]): str(x["definition"]) for x in landmarks if x.get("definition")},
                mirror_pairs=pairs,
                scale=rule,
            )
        except FaultsError as error:
            raise TaskError(what, error.faults) from None

    @staticmethod
    def load(path: str | Path) -> LandmarkTask:
        """Read a task file. Raises TaskError for an unreadable or faulty file."""
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise TaskError(str(path), ["no such task file"]) from None
        except (OSError, ValueError, RecursionError) as error:
            raise TaskError(str(path), [f"not readable as JSON ({error})"]) from None
        return LandmarkTask.from_json(content, str(path))


def _task_faults(task: LandmarkTask) -> list[str]:
    faults = []
    if not isinstance(task.name, str) or not _NAME.fullmatch(task.name):
        faults.append(f"name {str(task.name)[:80]!r} must be 1 to 100 letters, digits, '_', '.' or '-'")
    if task.dims not in (2, 3) or not isinstance(task.dims, int):
        faults.append(f"dims {task.dims!r} must be 2 or 3")
    if not 1 <= len(task.names) <= _MAX_LANDMARKS:
        faults.append(f"{len(task.names)} landmarks; allowed are 1 to {_MAX_LANDMARKS}")
    bad = [n for n in task.names if not isinstance(n, str) or not n.strip() or len(n) > 200 or not n.isprintable()]
    faults += [f"landmark name {n!r} must be printable text of 1 to 200 characters" for n in bad[:5]]
    seen: set = set()
    for n in filter(lambda n: isinstance(n, str), task.names):
        if n in seen:
            faults.append(f"landmark name {n!r} appears twice")
        seen.add(n)
    paired: set = set()
    for a, b in task.mirror_pairs:
        faults += [f"mirror pair names {n!r}, which is no landmark" for n in (a, b) if n not in seen]
        if a == b or a in paired or b in paired:
            faults.append(f"mirror pair ({a!r}, {b!r}): a landmark can be in one pair only, and not with itself")
        paired |= {a, b}
    if task.scale:
        faults += [f"scale names {n!r}, which is no landmark" for n in (task.scale.a, task.scale.b) if n not in seen]
        if task.scale.a == task.scale.b:
            faults.append(f"scale from {task.scale.a!r} to itself; it needs two different landmarks")
        if not (np.isfinite(task.scale.mm) and task.scale.mm > 0):
            faults.append(f"scale of {task.scale.mm!r} mm must be a positive number")
    return faults


@dataclass(frozen=True)
class LandmarkSet:
    """The landmarks of one image, in the task's order.

    Args:
        task: the task.
        positions_mm: (n, dims) float64, LPS mm; NaN if and only if the status is unset or absent.
        status: n Status values.
        expected_error_mm: (n,) float64, NaN where unknown.
        covariance_mm2: (n, dims, dims) float64 or None.
        presence: (n,) float64 probability that the landmark is in the image, or None.
        radius95_mm: (n,) float64 longest half axis of the region that holds the landmark in 95 % of cases, NaN where
            unknown, or None.

    Raises:
        FaultsError: shapes or the NaN rule broken.
    """

    task: LandmarkTask
    positions_mm: np.ndarray
    status: tuple[Status, ...]
    expected_error_mm: np.ndarray | None = None
    covariance_mm2: np.ndarray | None = None
    presence: np.ndarray | None = None
    radius95_mm: np.ndarray | None = None

    def __post_init__(self):
        n, d = len(self.task), self.task.dims
        positions = np.array(self.positions_mm, dtype=np.float64)
        error = np.full(n, np.nan) if self.expected_error_mm is None else np.array(self.expected_error_mm, np.float64)
        status = tuple(Status(s) for s in self.status)
        faults = []
        if positions.shape != (n, d):
            faults.append(f"positions have shape {positions.shape}, the task needs {(n, d)}")
        elif len(status) != n or error.shape != (n,):
            faults.append(f"{len(status)} statuses and {error.shape} expected errors for {n} landmarks")
        else:
            faults += _position_faults(self.task, positions, status)
        if faults:
            raise FaultsError("landmark set", faults)
        positions.flags.writeable = error.flags.writeable = False
        object.__setattr__(self, "positions_mm", positions)
        object.__setattr__(self, "status", status)
        object.__setattr__(self, "expected_error_mm", error)

    @property
    def defined(self) -> np.ndarray:
        """(n,) bool: has a position."""
        return np.array([s.has_position for s in self.status])

    @property
    def by_person(self) -> np.ndarray:
        """(n,) bool: placed, accepted or declared absent by a person."""
        return np.array([s.by_person for s in self.status])

    @staticmethod
    def empty(task: LandmarkTask) -> LandmarkSet:
        """All landmarks unset."""
        return LandmarkSet(task, np.full((len(task), task.dims), np.nan), (Status.UNSET,) * len(task))

    @staticmethod
    def of_positions(task: LandmarkTask, positions_mm: np.ndarray, status: Status = Status.PLACED) -> LandmarkSet:
        """A set from positions (n, dims) LPS mm; NaN rows become unset."""
        positions_mm = np.array(positions_mm, np.float64)
        known = np.isfinite(positions_mm).all(axis=-1)
        positions_mm[~known] = np.nan
        return LandmarkSet(task, positions_mm, tuple(status if k else Status.UNSET for k in known))

    def with_landmark(self, name: str, position_mm: Sequence[float] | None = None, status: Status = Status.PLACED) -> LandmarkSet:
        """A copy with one landmark changed; ``position_mm`` None for unset or absent."""
        i = self.task.index(name)
        positions, error = self.positions_mm.copy(), self.expected_error_mm.copy()
        positions[i] = np.nan if position_mm is None else np.asarray(position_mm, np.float64)[: self.task.dims]
        error[i] = np.nan
        statuses = [*self.status]
        statuses[i] = Status(status)
        return replace(self, positions_mm=positions, status=tuple(statuses), expected_error_mm=error)

    def scaled_to_mm(self) -> float:
        """Millimetres per unit of this image after the task's scale rule (1 without a rule, NaN if it cannot be told)."""
        rule = self.task.scale
        if rule is None:
            return 1.0
        a, b = self.positions_mm[[self.task.index(rule.a), self.task.index(rule.b)]]
        distance = float(np.linalg.norm(a - b))
        return rule.mm / distance if distance > 0 else float("nan")


def _position_faults(task: LandmarkTask, positions: np.ndarray, status: Iterable[Status]) -> list[str]:
    faults = []
    for name, p, s in zip(task.names, positions, status, strict=True):
        if s.has_position and not np.isfinite(p).all():
            faults.append(f"{name!r} is {s.value} but its position is {p.tolist()}")
        if not s.has_position and not np.isnan(p).all():
            faults.append(f"{name!r} is {s.value} and must have no position, got {p.tolist()}")
    return faults
