"""Where the frames of an enhanced (multi-frame) DICOM image lie.

Source: DICOM PS3.3, C.7.6.16 (Multi-frame Functional Groups Module).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Frames:
    """Frames in the order of the file.

    Args:
        positions: (n, 3) LPS mm of each frame's first pixel.
        axes: (2, 3) directions along a row and along a column, the same for all.
        spacing: (x, y) mm.
        decimals: of the positions as text.
    """

    positions: np.ndarray
    axes: np.ndarray
    spacing: np.ndarray
    decimals: int


def read_frames(header: Any, count: int) -> Frames:
    """The frames of a pydicom data set. Raises ValueError where they are no volume."""
    each, shared = header.get("PerFrameFunctionalGroupsSequence") or [], header.get("SharedFunctionalGroupsSequence") or [{}]
    if len(each) != count:
        raise ValueError(f"{count} frames in one file that does not say where they are: a film or several pictures, no volume")

    def values(group: str, name: str) -> list[list]:
        found = []
        for frame in each:
            holder = frame.get(group) or shared[0].get(group)
            value = holder[0].get(name) if holder else None
            if value is None:
                raise ValueError(f"{count} frames without {name}: a film or several pictures, no volume")
            found.append(list(value))
        return found

    texts = values("PlanePositionSequence", "ImagePositionPatient")
    positions = np.array(texts, float)
    axes = np.array(values("PlaneOrientationSequence", "ImageOrientationPatient"), float)
    spacing = np.array(values("PixelMeasuresSequence", "PixelSpacing"), float)
    if not all(np.isfinite(v).all() for v in (positions, axes, spacing)) or (spacing <= 0).any():
        raise ValueError("positions, orientations and spacings of the frames must be finite, spacings positive")
    if np.ptp(axes, axis=0).max() > 1e-3 or np.ptp(spacing, axis=0).max() > 1e-3:
        raise ValueError("frames differ in orientation or spacing; allowed is one for all")
    rescales = {_rescale(frame, shared[0]) for frame in each}
    if len(rescales) > 1:
        raise ValueError("frames differ in rescale slope or intercept; allowed is one for all")
    decimals = max(len(str(v).partition(".")[2]) for text in texts for v in text)
    return Frames(positions, axes[0].reshape(2, 3), spacing[0][::-1], decimals)


def _rescale(frame: Any, shared: Any) -> tuple[str, str]:
    holder = frame.get("PixelValueTransformationSequence") or shared.get("PixelValueTransformationSequence")
    return (str(holder[0].get("RescaleSlope", "")), str(holder[0].get("RescaleIntercept", ""))) if holder else ("", "")
