"""What double precision leaves of a length and of a difference, for the values of measurements and their derivatives."""

from __future__ import annotations

from dataclasses import dataclass

from landmarklabel.configuration import Configuration, number


@dataclass(frozen=True)
class PrecisionConfig(Configuration):
    """What double precision leaves of a length and of a difference."""

    # A length below this share of the largest coordinate is taken for zero: doubles keep 16 digits of a coordinate, so of such a
    # length no more than 7 are left, and of the direction it gives as many.
    relative_tolerance: float = number(1e-9, 0, 1)
    # Of central differences, in units of the shortest length that a value depends on: their errors, of the formula and by
    # rounding, are both near 1e-10 of the derivative.
    step: float = number(1e-5, 0, 1)


PRECISION = PrecisionConfig()
