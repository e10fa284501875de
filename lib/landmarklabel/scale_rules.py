"""How images that state no pixel size get millimetres: by two landmarks a known distance apart, or by the size of a pixel."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from landmarklabel.errors import ImageRejected


@dataclass(frozen=True)
class ScaleRule:
    """The distance between landmarks ``a`` and ``b`` is ``mm`` in every image: how uncalibrated images get millimetres."""

    a: str
    b: str
    mm: float

    @property
    def landmarks(self) -> tuple[str, ...]:
        """The landmarks that it needs."""
        return (self.a, self.b)

    @property
    def text(self) -> str:
        """The rule in words."""
        return f"{self.a!r} to {self.b!r} is {self.mm:.12g} mm"

    def mm_per_unit(self, ends: npt.NDArray[np.float64]) -> float:
        """Millimetres per unit of an image, from the positions (2, dims) of its landmarks; NaN if it cannot be told."""
        distance = float(np.linalg.norm(ends[0] - ends[1]))
        return self.mm / distance if distance > 0 else float("nan")

    def renamed(self, name: Callable[[str], str]) -> ScaleRule:
        """The same rule between landmarks with other names."""
        return ScaleRule(name(self.a), name(self.b), self.mm)

    def faults(self, names: Collection[object], dims: int) -> list[str]:
        """What is wrong with it in a task of these landmarks."""
        faults = [f"scale names {n!r}, which is no landmark" for n in self.landmarks if n not in names]
        if self.a == self.b:
            faults.append(f"scale from {self.a!r} to itself; it needs two different landmarks")
        return faults + _length_faults(self.mm)

    def check_image(self, image_id: str, unit: str) -> None:
        """It scales images of any unit."""

    def to_json(self) -> dict[str, Any]:
        """As a task file has it."""
        return {"from": self.a, "to": self.b, "mm": self.mm}


@dataclass(frozen=True)
class PixelSize:
    """A pixel is ``mm`` wide and high in every image, none of which says so itself: a 2D task's pictures of one device."""

    mm: float

    @property
    def landmarks(self) -> tuple[str, ...]:
        """The landmarks that it needs: none."""
        return ()

    @property
    def text(self) -> str:
        """The rule in words."""
        return f"a pixel is {self.mm:.12g} mm"

    def mm_per_unit(self, ends: npt.NDArray[np.float64]) -> float:
        """Millimetres per unit of an image: always the same."""
        return self.mm

    def renamed(self, name: Callable[[str], str]) -> PixelSize:
        """The same rule: it names no landmark."""
        return self

    def faults(self, names: Collection[object], dims: int) -> list[str]:
        """What is wrong with it in a task of these dimensions."""
        faults = _length_faults(self.mm)
        if not faults and not 1e-6 <= self.mm <= 10:  # from an electron microscope's to a drone's picture
            faults.append(f"scale of {self.mm:g} mm a pixel is no size of a pixel: allowed are 0.000001 to 10")
        return faults + ([] if dims == 2 else ["scale by mm_per_pixel is for pictures, dims 2: volumes state theirs"])

    def check_image(self, image_id: str, unit: str) -> None:
        """Raise ImageRejected for an image that states a spacing of its own: its distances are in mm already."""
        if unit == "mm":
            why = f"it states its own pixel spacing, and the task's scale rule is for pictures without ({self.text})"
            raise ImageRejected(image_id, [f"{why}: use a task without that rule for it"])

    def to_json(self) -> dict[str, Any]:
        """As a task file has it."""
        return {"mm_per_pixel": self.mm}


def read_scale_rule(content: object) -> ScaleRule | PixelSize | None:
    """The rule in the content of a task file. Raises KeyError, TypeError, ValueError or OverflowError for what is none."""
    if content is None:
        return None
    if not isinstance(content, dict) or ("mm_per_pixel" in content and len(content) > 1):
        raise ValueError(f"{content!r} is no scale rule")
    if "mm_per_pixel" in content:
        return PixelSize(_number(content["mm_per_pixel"]))
    return ScaleRule(str(content["from"]), str(content["to"]), _number(content["mm"]))


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def in_words(rule: ScaleRule | PixelSize | None) -> str:
    """The rule of a task, or ``none``."""
    return "none" if rule is None else rule.text


def _length_faults(mm: float) -> list[str]:
    return [] if math.isfinite(mm) and mm > 0 else [f"scale of {mm!r} mm must be a positive number"]
