"""The data model: what a task asks for (LandmarkTask) and what an image got (LandmarkSet)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from landmarklabel.errors import FaultsError, TaskError, UnknownLandmark
from landmarklabel.landmark_arrays import OPTIONAL, equal, forgotten, position_faults, row_of
from landmarklabel.measurement_definitions import Measurement, composed
from landmarklabel.scale_rules import PixelSize, ScaleRule, read_scale_rule
from landmarklabel.task_faults import task_faults
from landmarklabel.task_measurements import read_measurements
from landmarklabel.task_pictures import embedded

if TYPE_CHECKING:
    import pandas

FloatArray = npt.NDArray[np.float64]

FORMAT = "landmarklabel-task"


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
class LandmarkTask:
    """Which landmarks, in which order, in which number of dimensions.

    Args:
        name: letters, digits, ``_ . -``.
        names: landmark names in the task's order; unique, non-empty.
        dims: 2 or 3.
        definitions: name to a sentence saying where the point is.
        mirror_pairs: pairs of names that swap when the image is mirrored.
        scale: optional rule that turns image units into millimetres.
        pictures: name to a small picture of where the point is, as a data URI (see ``task_pictures``).
        measurements: what is measured between the landmarks; ``measurements.measure`` does it.

    Raises:
        TaskError: listing every fault.
    """

    name: str
    names: tuple[str, ...]
    dims: int = 3
    definitions: Mapping[str, str] = field(default_factory=dict)
    mirror_pairs: tuple[tuple[str, str], ...] = ()
    scale: ScaleRule | PixelSize | None = None
    pictures: Mapping[str, str] = field(default_factory=dict, repr=False)
    measurements: tuple[Measurement, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if all(isinstance(name, str) for name in self.names):  # ü is one character or two; for people it is one name
            object.__setattr__(self, "names", tuple(composed(name) for name in self.names))
            object.__setattr__(self, "definitions", {composed(k): v for k, v in self.definitions.items()})
            object.__setattr__(self, "pictures", {composed(k): v for k, v in self.pictures.items()})
            object.__setattr__(self, "mirror_pairs", tuple((composed(a), composed(b)) for a, b in self.mirror_pairs))
            if self.scale:
                object.__setattr__(self, "scale", self.scale.renamed(composed))
        faults = task_faults(self)
        if faults:
            raise TaskError(f"task {str(self.name)[:80]!r}", faults)

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Position of ``name`` in the task's order. Raises UnknownLandmark, which names the nearest ones."""
        try:
            return self.names.index(name)
        except ValueError:
            raise UnknownLandmark(f"task {self.name!r}", name, self.names) from None

    @property
    def hash(self) -> str:
        """Sha256 (first 16 hex digits) of what a model depends on: dims and the names in order."""
        text = json.dumps({"dims": self.dims, "names": self.names}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def check_image(self, image_id: str, unit: str) -> None:
        """Raise ImageRejected for an image of this unit, ``mm`` or ``px``, that the scale rule is not for."""
        if self.scale is not None:
            self.scale.check_image(image_id, unit)

    def mirror_permutation(self) -> npt.NDArray[np.int64]:
        """(n,) int: index of the landmark that takes each place after mirroring."""
        order = np.arange(len(self))
        for a, b in self.mirror_pairs:
            i, j = self.index(a), self.index(b)
            order[i], order[j] = j, i
        return order

    def to_json(self, pictures: bool = True) -> dict[str, Any]:
        """The task as the content of its file; without the pictures where nobody looks at it, as in a model."""
        out: dict[str, Any] = {"format": FORMAT, "version": 1, "name": self.name, "dims": self.dims}
        if self.scale:
            out["scale"] = self.scale.to_json()
        if self.mirror_pairs:
            out["mirror_pairs"] = [list(pair) for pair in self.mirror_pairs]
        known = {"definition": self.definitions, "image": self.pictures if pictures else {}}
        out["landmarks"] = [{"name": n, **{key: of[n] for key, of in known.items() if n in of}} for n in self.names]
        return out | ({"measurements": [m.to_json() for m in self.measurements]} if self.measurements else {})

    @staticmethod
    def from_json(content: object, what: str = "task") -> LandmarkTask:
        """Parse the content of a task file; every fault is listed in one TaskError."""
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise TaskError(what, [f'not a task file (no "format": "{FORMAT}")'])
        known = {"format", "version", "name", "dims", "scale", "mirror_pairs", "landmarks", "measurements"}
        faults = [f"unknown key {key!r}; known: {', '.join(sorted(known))}" for key in content if key not in known]
        if content.get("version") != 1:
            faults.append(f"version {content.get('version')!r} is not supported; this program reads version 1")
        name: Any = content.get("name")  # whatever they are: the task itself says what is wrong with them
        dims: Any = content.get("dims")
        landmarks: Any = content.get("landmarks")
        if not isinstance(landmarks, list) or not all(isinstance(x, dict) and "name" in x for x in landmarks):
            faults.append('"landmarks" must be a list of {"name": …, "definition": …, "image": …}')
        if faults:
            raise TaskError(what, faults)
        try:
            rule = read_scale_rule(content.get("scale"))
            pairs = tuple((str(a), str(b)) for a, b in content.get("mirror_pairs", []))
        except (KeyError, TypeError, ValueError, OverflowError):
            rules = '"scale" must be {"from": name, "to": name, "mm": number} or {"mm_per_pixel": number}'
            raise TaskError(what, [f'{rules}, "mirror_pairs" a list of pairs']) from None
        names = tuple(x["name"] for x in landmarks)
        measurements, faults = read_measurements(content.get("measurements", []), map(composed, names), dims)
        try:
            task = LandmarkTask(
                name=name,
                names=names,
                dims=dims,
                definitions={str(x["name"]): str(x["definition"]) for x in landmarks if x.get("definition")},
                mirror_pairs=pairs,
                scale=rule,
                pictures={str(x["name"]): x["image"] for x in landmarks if "image" in x},
                measurements=measurements,
            )
        except FaultsError as error:
            faults = [*error.faults, *faults]
        if faults:
            raise TaskError(what, faults)
        return task

    @staticmethod
    def load(path: str | Path) -> LandmarkTask:
        """Read a task file and the pictures it names. Raises TaskError for an unreadable or faulty file."""
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise TaskError(str(path), ["no such task file"]) from None
        except (OSError, ValueError, RecursionError) as error:
            raise TaskError(str(path), [f"not readable as JSON ({error})"]) from None
        content, faults = embedded(content, path.parent)
        try:
            task = LandmarkTask.from_json(content, str(path))
        except TaskError as error:
            raise TaskError(str(path), [*error.faults, *faults]) from None
        if faults:
            raise TaskError(str(path), faults)
        return task


@dataclass(frozen=True, eq=False)
class Landmark:
    """One landmark of one image, as ``LandmarkSet[name]`` gives it.

    Args:
        name: of the landmark.
        position_mm: (dims,) float64, LPS mm; NaN where the status is unset or absent.
        status: what is known of it.
        expected_error_mm: how far off the position is likely to be; NaN where unknown.
        covariance_mm2: (dims, dims) float64 or None.
        presence: probability that the landmark is in the image; NaN where unknown.
        radius95_mm: longest half axis of the region that holds the landmark in 95 % of cases; NaN where unknown.
        unit: of all these distances: ``mm``, or ``px`` where the image states no spacing.
    """

    name: str
    position_mm: FloatArray
    status: Status
    expected_error_mm: float = float("nan")
    covariance_mm2: FloatArray | None = None
    presence: float = float("nan")
    radius95_mm: float = float("nan")
    unit: str = "mm"

    def __eq__(self, other: object) -> bool:
        """Whether all fields agree; NaN equals NaN."""
        if not isinstance(other, Landmark):
            return NotImplemented
        return all(equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    def __repr__(self) -> str:
        from landmarklabel.display import landmark_text

        return f"Landmark({self.name!r}: {landmark_text(self)})"


@dataclass(frozen=True, eq=False, repr=False)
class LandmarkSet:
    """The landmarks of one image, in the task's order.

    ``landmarks["tip"]`` is a ``Landmark``; ``len``, iteration (over ``Landmark``), ``"tip" in landmarks`` and ``==`` (NaN equals
    NaN) work as expected. A set cannot be changed; ``with_landmark`` makes a changed copy.

    Args:
        task: the task.
        positions_mm: (n, dims) float64, LPS mm; NaN if and only if the status is unset or absent.
        status: n Status values.
        expected_error_mm: (n,) float64, NaN where unknown.
        covariance_mm2: (n, dims, dims) float64 or None.
        presence: (n,) float64 probability that the landmark is in the image, or None.
        radius95_mm: (n,) float64 longest half axis of each 95 % region, NaN where unknown, or None.
        interval_factors: by measurement, what its interval is multiplied by, as a model has learned it (see ``measurements``).
        unit: of the distances: ``mm``, or ``px`` where the image states no spacing; neither in files nor looked at by ``==``.

    Raises:
        FaultsError: shapes or the NaN rule broken.
    """

    task: LandmarkTask
    positions_mm: FloatArray
    status: tuple[Status, ...]
    expected_error_mm: FloatArray = None  # type: ignore[assignment]  # never None after __post_init__
    covariance_mm2: FloatArray | None = None
    presence: FloatArray | None = None
    radius95_mm: FloatArray | None = None
    interval_factors: Mapping[str, float] = field(default_factory=dict)
    unit: str = field(default="mm", compare=False)

    def __post_init__(self) -> None:
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
            faults += position_faults(self.task, positions, status)
        optional = {key: None if (value := getattr(self, key)) is None else np.array(value, np.float64) for key in OPTIONAL}
        for key, values in optional.items():
            if values is not None and values.shape != (wanted := (n, d, d)[: OPTIONAL[key]]):
                faults.append(f"{key} has shape {values.shape}, the task needs {wanted}")
        if faults:
            raise FaultsError("landmark set", faults)
        object.__setattr__(self, "status", status)
        for key, kept in {"positions_mm": positions, "expected_error_mm": error, **optional}.items():
            if kept is not None:
                kept.flags.writeable = False
            object.__setattr__(self, key, kept)

    @property
    def names(self) -> tuple[str, ...]:
        """Landmark names in the task's order."""
        return self.task.names

    def __len__(self) -> int:
        return len(self.task)

    def __iter__(self) -> Iterator[Landmark]:
        return (self._at(i) for i in range(len(self)))

    def __contains__(self, name: object) -> bool:
        return name in (tuple(self) if isinstance(name, Landmark) else self.names)

    def __getitem__(self, name: str) -> Landmark:
        """The landmark called ``name``. Raises UnknownLandmark (a KeyError), which names the nearest ones."""
        return self._at(self.task.index(name))

    def _at(self, i: int) -> Landmark:
        def value(array: FloatArray | None) -> float:
            return float("nan") if array is None else float(array[i])

        covariance = None if self.covariance_mm2 is None else self.covariance_mm2[i]
        error, presence, radius = map(value, (self.expected_error_mm, self.presence, self.radius95_mm))
        position, status = self.positions_mm[i], self.status[i]
        return Landmark(self.names[i], position, status, error, covariance, presence, radius, self.unit)

    def __eq__(self, other: object) -> bool:
        """Whether task and all values agree; NaN equals NaN."""
        if not isinstance(other, LandmarkSet):
            return NotImplemented
        return all(equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.compare)

    def __repr__(self) -> str:
        from landmarklabel.display import set_text

        return set_text(self)

    def _repr_html_(self) -> str:
        from landmarklabel.display import set_html

        return set_html(self)

    def to_dataframe(self) -> pandas.DataFrame:
        """A pandas DataFrame, one row per landmark: status, position and errors (``attrs`` say unit and frame).

        Raises:
            MissingPackage: pandas is not installed.
        """
        from landmarklabel.display import set_dataframe

        return set_dataframe(self)

    def to_markups(self) -> str:
        """The text of a .mrk.json file that 3D Slicer opens (LPS mm; 2D points at z = 0). Raises LandmarkFileError."""
        from landmarklabel.io.markups import dump_markups

        return dump_markups(self)

    @property
    def defined(self) -> npt.NDArray[np.bool_]:
        """(n,) bool: whether the landmark has a position."""
        return np.array([s.has_position for s in self.status])

    @property
    def by_person(self) -> npt.NDArray[np.bool_]:
        """(n,) bool: placed, accepted or declared absent by a person."""
        return np.array([s.by_person for s in self.status])

    def stated(self) -> LandmarkSet:
        """What a person has stated; the rest unset: a proposal that nobody has confirmed is no label."""
        kept = self.by_person
        status = tuple(s if k else Status.UNSET for s, k in zip(self.status, kept, strict=True))
        return replace(self, status=status, positions_mm=np.where(kept[:, None], self.positions_mm, np.nan))

    @staticmethod
    def empty(task: LandmarkTask) -> LandmarkSet:
        """All landmarks unset."""
        return LandmarkSet(task, np.full((len(task), task.dims), np.nan), (Status.UNSET,) * len(task))

    @staticmethod
    def of_positions(task: LandmarkTask, positions_mm: npt.ArrayLike, status: Status = Status.PLACED) -> LandmarkSet:
        """A set from positions (n, dims) LPS mm; NaN rows become unset."""
        positions_mm = np.array(positions_mm, np.float64)
        known = np.isfinite(positions_mm).all(axis=-1)
        positions_mm[~known] = np.nan
        return LandmarkSet(task, positions_mm, tuple(status if k else Status.UNSET for k in known))

    def with_landmark(self, name: str, position_mm: Sequence[float] | None = None, status: Status = Status.PLACED) -> LandmarkSet:
        """A copy with one landmark changed, without what a model said of the old one.

        Args:
            name: of the landmark.
            position_mm: (dims,) LPS mm, in 2D also with a third coordinate of 0; None for unset or absent.
            status: what it is now.

        Raises:
            UnknownLandmark: no such name. FaultsError: not ``dims`` numbers, or a position that does not fit the status.
        """
        i = self.task.index(name)
        positions = self.positions_mm.copy()
        positions[i] = row_of(position_mm, self.task, name)
        statuses = (*self.status[:i], Status(status), *self.status[i + 1 :])
        more: dict[str, Any] = {key: forgotten(getattr(self, key), i) for key in ("expected_error_mm", *OPTIONAL)}
        return replace(self, positions_mm=positions, status=statuses, **more)

    def scaled_to_mm(self) -> float:
        """Millimetres per unit of this image after the task's scale rule (1 without a rule, NaN if it cannot be told)."""
        rule = self.task.scale
        if rule is None:
            return 1.0
        return rule.mm_per_unit(self.positions_mm[[self.task.index(name) for name in rule.landmarks]])
