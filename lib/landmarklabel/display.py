"""Landmarks as a person or a notebook sees them: a short table as text, the same with a drawing as HTML, and as a DataFrame."""

from __future__ import annotations

import html
import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from landmarklabel.configuration import Configuration, number
from landmarklabel.errors import MissingPackage
from landmarklabel.landmarks import Landmark, LandmarkSet, Status

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class DisplayConfig(Configuration):
    """How much of a set is shown, and how large."""

    rows: int = number(8, 1)  # of a printed set
    html_rows: int = number(200, 1)
    named_points: int = number(40, 0)  # a drawing of more has its names in tooltips only
    side_px: float = number(240.0, 1)  # of a drawing
    margin_px: float = number(24.0, 0)


CONFIG = DisplayConfig()
_COLOURS = {Status.PREDICTED: "#d97706", Status.PLACED: "#15803d", Status.ACCEPTED: "#1d4ed8"}
# Axes of the drawings and which way the second one goes: images show LPS y downwards, superior is up.
_VIEWS = {2: (("x, y", 0, 1, 1),), 3: (("axial", 0, 1, 1), ("coronal", 0, 2, -1), ("sagittal", 1, 2, -1))}


def landmark_text(landmark: Landmark) -> str:
    """``predicted at (12.3, 45.6) mm, expected error 0.8 mm``."""
    if not landmark.status.has_position:
        return landmark.status.value
    text = f"{landmark.status.value} at {_position(landmark)} {landmark.unit}"
    error = landmark.expected_error_mm
    return text if np.isnan(error) else f"{text}, expected error {error:.2f} {landmark.unit}"


def set_text(landmarks: LandmarkSet) -> str:
    """A headline with counts by status, and the first landmarks."""
    width = max(len(name) for name in landmarks.names[: CONFIG.rows])
    rows = [f"  {one.name:<{width}}  {landmark_text(one)}" for one, _ in zip(landmarks, range(CONFIG.rows), strict=False)]
    more = [f"  … and {len(landmarks) - CONFIG.rows} more"] if len(landmarks) > CONFIG.rows else []
    return "\n".join([f"LandmarkSet {_headline(landmarks)}", *rows, *more])


def set_html(landmarks: LandmarkSet) -> str:
    """The points drawn as inline SVG above a table; needs nothing from elsewhere, and every name is escaped."""
    head = ("landmark", "status", f"position ({landmarks.unit})", f"expected error ({landmarks.unit})")
    rows = [_html_row(one) for one, _ in zip(landmarks, range(CONFIG.html_rows), strict=False)]
    more = len(landmarks) - CONFIG.html_rows
    rows += [f'<tr><td colspan="{len(head)}">… and {more} more</td></tr>'] if more > 0 else []
    views = "".join(_drawing(landmarks, *view) for view in _VIEWS[landmarks.task.dims]) if landmarks.defined.any() else ""
    header = "".join(f"<th>{html.escape(text)}</th>" for text in head)
    return (
        f"<div><p><b>LandmarkSet</b> {html.escape(_headline(landmarks))}</p><div>{views}</div>"
        f"<details><summary>{len(landmarks)} landmarks</summary><table><tr>{header}</tr>{''.join(rows)}</table></details></div>"
    )


def set_dataframe(landmarks: LandmarkSet) -> pandas.DataFrame:
    """One row per landmark, indexed by name. Raises MissingPackage without pandas."""
    columns: dict[str, Sequence[object] | npt.NDArray[np.float64]] = {"status": [s.value for s in landmarks.status]}
    columns |= {f"{axis}_mm": landmarks.positions_mm[:, i] for i, axis in enumerate("xyz"[: landmarks.task.dims])}
    unknown = np.full(len(landmarks), np.nan)
    columns["expected_error_mm"] = landmarks.expected_error_mm
    columns["radius95_mm"] = unknown if landmarks.radius95_mm is None else landmarks.radius95_mm
    columns["presence"] = unknown if landmarks.presence is None else landmarks.presence
    frame = dataframe(columns, index=landmarks.names, index_name="landmark")
    frame.attrs.update({"task": landmarks.task.name, "frame": "LPS", "unit": landmarks.unit})
    return frame


def dataframe(
    columns: Mapping[str, Sequence[object] | npt.NDArray[np.float64]], index: Sequence[str], index_name: str
) -> pandas.DataFrame:
    """A pandas DataFrame. Raises MissingPackage, which says how to get pandas."""
    try:
        pd = importlib.import_module("pandas")
    except ImportError:
        raise MissingPackage("to_dataframe() needs pandas, which is not installed: pip install pandas") from None
    frame: pandas.DataFrame = pd.DataFrame(columns, index=pd.Index(list(index), name=index_name))
    return frame


def _headline(landmarks: LandmarkSet) -> str:
    counts = Counter(landmarks.status)
    said = ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])
    task = landmarks.task
    return f"of task {task.name!r} ({len(task)} landmarks, {task.dims}D, {_frame(landmarks)}): {said}"


def _frame(landmarks: LandmarkSet) -> str:
    return "pixels" if landmarks.unit == "px" else f"LPS {landmarks.unit}"


def _position(landmark: Landmark) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in landmark.position_mm) + ")"


def _html_row(one: Landmark) -> str:
    position = _position(one) if one.status.has_position else "–"
    error = "–" if np.isnan(one.expected_error_mm) else f"{one.expected_error_mm:.2f}"
    return "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in (one.name, one.status.value, position, error)) + "</tr>"


def _drawing(landmarks: LandmarkSet, title: str, across: int, down: int, sign: int) -> str:
    """One view: points by the colour of their status, a ring of the expected error around each."""
    defined = landmarks.defined
    places = landmarks.positions_mm[:, [across, down]] * [1, sign]
    low, high = places[defined].min(axis=0), places[defined].max(axis=0)
    scale = (CONFIG.side_px - 2 * CONFIG.margin_px) / max(float((high - low).max()), 1e-6)
    named = int(defined.sum()) <= CONFIG.named_points
    marks = []
    for one, place in zip(landmarks, places, strict=True):
        if not one.status.has_position:
            continue
        x, y = (place - low) * scale + CONFIG.margin_px
        colour, text = _COLOURS[one.status], html.escape(one.name)
        ring = 0.0 if np.isnan(one.expected_error_mm) else min(one.expected_error_mm * scale, CONFIG.side_px / 4)
        halo = (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{ring:.1f}" fill="none" stroke="{colour}" opacity="0.5"/>' if ring > 3 else ""
        )
        tip = f"<title>{text}: {html.escape(landmark_text(one))}</title>"
        marks.append(f'{halo}<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}">{tip}</circle>')
        marks += [f'<text x="{x + 5:.1f}" y="{y - 3:.1f}" font-size="9" fill="currentColor">{text}</text>'] if named else []
    size = f'width="{CONFIG.side_px:.0f}" height="{CONFIG.side_px:.0f}" viewBox="0 0 {CONFIG.side_px:.0f} {CONFIG.side_px:.0f}"'
    label = f'<text x="4" y="{CONFIG.side_px - 5:.0f}" font-size="10" fill="currentColor">{title}</text>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{"".join(marks)}{label}</svg>'
