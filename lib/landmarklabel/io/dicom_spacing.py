"""The distance of pixels in a DICOM image, of the several that a file may state.

PixelSpacing comes first: it is the one of cross sections, and in projections it is there where somebody calibrated it at the
patient. ImagerPixelSpacing is measured at the detector, where everything is larger than in the patient by the magnification.
Source: DICOM PS3.3, 10.7 (Basic Pixel Spacing Calibration Macro) and C.8.11 (DX).
"""

from __future__ import annotations

from typing import Any

import numpy as np

_DETECTOR = "ImagerPixelSpacing"
_PROJECTIONS = ("CR", "DX", "MG", "XA", "RF", "IO", "PX")  # in which the spacing at the detector is what SimpleITK looks for
_OF_FILMS = "NominalScannedPixelSpacing"


def plane_spacing(header: Any) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Spacing (x, y) in mm, None where none is stated, and remarks on where it comes from.

    Args:
        header: a pydicom data set.

    Raises:
        ValueError: a spacing that is not made of two numbers.
    """
    for name in ("PixelSpacing", _DETECTOR, _OF_FILMS):
        value = header.get(name)
        if value is None or value == "":
            continue
        numbers = [float(v) for v in value] if hasattr(value, "__iter__") else []
        if len(numbers) != 2:
            raise ValueError(f"{name} {str(value)[:40]!r} must be two numbers")
        values = np.array(numbers)[::-1]
        return values, _remarks(header, name, values)
    if header.get("ImagePositionPatient") is not None or "SharedFunctionalGroupsSequence" in header:
        return None, ()
    where = " (its ultrasound regions have their own, which are not used)" if "SequenceOfUltrasoundRegions" in header else ""
    return None, (f"the file states no spacing of its pixels{where}: distances are in pixels",)


def _remarks(header: Any, name: str, values: np.ndarray) -> tuple[str, ...]:
    if name == _DETECTOR:
        factor = header.get("EstimatedRadiographicMagnificationFactor")
        magnified = f" by about {float(factor):.4g}" if factor else ""
        return (f"spacing {_shown(values)} mm is that at the detector ({name}): the patient is smaller{magnified}",)
    if name == _OF_FILMS:
        return (f"spacing {_shown(values)} mm is that of a scanned film ({name})",)
    others = header.get(_DETECTOR)
    if others is None or others == "":
        if header.get("Modality") in _PROJECTIONS and header.get("ImagePositionPatient") is None:
            return (f"spacing {_shown(values)} mm is PixelSpacing, where SimpleITK takes 1: its points lie elsewhere",)
        return ()
    detector = np.array([float(v) for v in others])[::-1]
    if np.allclose(detector, values, rtol=1e-4):
        return ()
    how = str(header.get("PixelSpacingCalibrationType", "") or "calibrated")
    return (
        f"spacing {_shown(values)} mm is PixelSpacing ({how.lower()}), not the {_shown(detector)} mm at the detector, "
        "which SimpleITK takes: points that were placed with it lie elsewhere",
    )


def _shown(spacing: np.ndarray) -> str:
    return " x ".join(f"{v:.4g}" for v in dict.fromkeys(spacing.tolist()))
