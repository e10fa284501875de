"""Landmarks from labelled segmentations: a label's centroid, or its outermost samples along the world axes.

0 is background, every other whole number a label. A label that a case's mask lacks makes its landmarks absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from landmarklabel.errors import ImageRejected, LandmarkFileError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.files import image_suffix
from landmarklabel.io.image_array import Image
from landmarklabel.io.images import read_image
from landmarklabel.io.limits import LIMITS
from landmarklabel.io.raster_header import has_deep_colours, raster_pixels, stored_numbers
from landmarklabel.io.tables import raise_capped, shown
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

RULES = ("centroid", "extremes")
_PICTURES = (".png", ".bmp", ".tif", ".tiff")  # of which there are masks, and which say no spacing
_LABEL = re.compile(r"\blabel\s+(\d+)\b", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class MaskLandmarks:
    """The landmarks of one mask.

    Args:
        landmarks: placed and absent ones.
        geometry: the mask's.
        path: the mask's file.
    """

    landmarks: LandmarkSet
    geometry: ImageGeometry
    path: Path

    def on(self, image: ImageGeometry) -> LandmarkSet:
        """The landmarks, after checking that the mask can be this image's. Raises LandmarkFileError."""
        low, high = self.geometry.bounds_mm
        image_low, image_high = image.bounds_mm
        positions_mm = self.landmarks.positions_mm[self.landmarks.defined]
        fault = None
        if (kind := image_suffix(self.path)) in _PICTURES and not _same_grid(self.geometry, image):
            fault = (
                f"a {kind[1:]} mask of size {self.geometry.size} says no spacing: its image must be a picture of that size,"
                f" and has size {image.size}, spacing {image.spacing.round(4).tolist()}"
            )
        elif (low >= image_high).any() or (image_low >= high).any():
            fault = (
                f"the mask does not overlap the image: it lies between {_point(low)} and {_point(high)}, "
                f"the image between {_point(image_low)} and {_point(image_high)} (LPS mm)"
            )
        elif len(positions_mm) and not image.contains(positions_mm).any():
            fault = f"none of the mask's landmarks is inside the image, the first at {_point(positions_mm[0])} LPS mm"
        if fault:
            raise LandmarkFileError(str(self.path), [fault])
        return self.landmarks


def _same_grid(a: ImageGeometry, b: ImageGeometry) -> bool:
    return a.size == b.size and np.allclose(a.corners_mm, b.corners_mm)


def _point(position_mm: np.ndarray) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in position_mm) + ")"


def read_masks(what: str, masks: Iterable[tuple[str, Path]], task: LandmarkTask, rule: str) -> dict[str, MaskLandmarks]:
    """Image id to the landmarks of its mask.

    ``centroid``: one landmark per label. If the task's definitions say ``label N``, a landmark is that label's and other
    labels are ignored; otherwise the task's names are the label values of all masks in ascending order.
    ``extremes``: 2 d landmarks per label, labels ascending: the mean of its outermost samples towards -x, +x, -y, +y[, -z,
    +z] of LPS.

    Args:
        what: the folder, for messages.
        masks: image id and file of every mask.
        task: its landmarks in the order above.
        rule: one of RULES.

    Raises:
        LandmarkFileError: listing the faults of all masks (the first 20), or that labels and task do not fit.
    """
    axes = np.eye(task.dims)
    towards = np.zeros((1, task.dims)) if rule == "centroid" else np.stack([-axes, axes], 1).reshape(-1, task.dims)
    found: dict[str, tuple[Path, ImageGeometry, dict[int, np.ndarray]]] = {}
    faults: list[str] = []
    for image_id, path in masks:
        try:
            mask = _read(path, task.dims)
            found[image_id] = path, mask.geometry, _furthest(mask, towards)
        except ImageRejected as error:
            faults += [f"{path.name}: {fault}" for fault in error.faults]
    if not found and not faults:
        faults.append("no masks")
    raise_capped(what, faults)
    labels = _labels_of(what, task, rule, len(towards), sorted({v for _, _, points in found.values() for v in points}))
    strange = [
        f"{path.name}: none of its values {shown(sorted(points))} is the label of a landmark"
        for path, _, points in found.values()
        if points and not points.keys() & set(labels)
    ]
    raise_capped(what, strange)
    return {
        image_id: MaskLandmarks(_landmarks(task, labels, points, len(towards)), geometry, path)
        for image_id, (path, geometry, points) in found.items()
    }


def _read(path: Path, dims: int) -> Image:
    """A mask with whole numbers >= 0. Raises ImageRejected."""
    if image_suffix(path) in (".jpg", ".jpeg"):
        raise ImageRejected(path.name, ["a jpg does not keep label values; give the mask as png, nrrd or nii.gz"])
    mask = _with_numbers(path, read_image(path, dims))
    pixels, faults = mask.pixels, []
    if pixels.dtype.kind == "f" and (odd := pixels != np.rint(pixels)).any():
        faults.append(f"value {pixels[odd][0]:g} is not a whole number; a mask holds label values")
    if pixels.min() < 0:
        faults.append(f"value {pixels.min():g} is negative; 0 is the background, labels are above")
    if faults:
        raise ImageRejected(path.name, faults)
    return mask


def _with_numbers(path: Path, mask: Image) -> Image:
    """A picture's numbers as they are stored, rather than how bright they are shown. Raises ImageRejected."""
    if image_suffix(path) not in _PICTURES:
        return mask
    if (numbers := stored_numbers(path)) is not None:
        return replace(mask, pixels=numbers)
    stored = raster_pixels(path)
    if has_deep_colours(path) or (stored.ndim == 3 and stored.shape[2] >= 3 and (stored[..., :3] != stored[..., :1]).any()):
        raise ImageRejected(path.name, ["a picture in colours; a mask holds a number for each label, as greys or with a palette"])
    return mask


def _labels_of(what: str, task: LandmarkTask, rule: str, each: int, values: list[int]) -> list[int]:
    """The label value of every ``each`` landmarks of the task. Raises LandmarkFileError if they do not fit."""
    if rule == "centroid" and (stated := _stated_labels(what, task)):
        return stated
    if len(values) * each != len(task):
        hint = "; or give every landmark a definition with its value, like 'label 3'" if rule == "centroid" else ""
        raise LandmarkFileError(
            what,
            [
                f"the masks have {len(values)} label values {shown(values)}, so rule {rule} needs a task with "
                f"{len(values) * each} landmarks; {task.name!r} has {len(task)}{hint}"
            ],
        )
    return values


def _stated_labels(what: str, task: LandmarkTask) -> list[int]:
    """The ``label N`` of every landmark's definition; empty if none states one."""
    stated = [_LABEL.search(task.definitions.get(name, "")) for name in task.names]
    if not any(stated):
        return []
    labels = [int(match[1]) if match else None for match in stated]
    pairs = list(zip(task.names, labels, strict=True))
    faults = [f"landmark {name!r}: its definition says no 'label N', others do" for name, label in pairs if label is None]
    faults += [f"landmark {name!r}: label 0 is the background" for name, label in pairs if label == 0]
    again = [(n, v) for i, (n, v) in enumerate(pairs) if v is not None and v in labels[:i]]
    faults += [f"landmark {name!r}: label {label} is already {task.names[labels.index(label)]!r}" for name, label in again]
    raise_capped(f"{what}, task {task.name!r}", faults)
    return [label for label in labels if label is not None]


def _landmarks(task: LandmarkTask, labels: Sequence[int], points: dict[int, np.ndarray], each: int) -> LandmarkSet:
    nowhere = np.full((each, task.dims), np.nan)
    positions_mm = np.concatenate([points.get(label, nowhere) for label in labels])
    status = [Status.PLACED if label in points else Status.ABSENT for label in labels for _ in range(each)]
    return LandmarkSet(task, positions_mm, tuple(status))


@dataclass
class _Furthest:
    """Mean of the samples that reach furthest in one direction; with no direction all of them tie: the centroid."""

    reach_mm: float = -np.inf
    total_mm: np.ndarray | float = 0.0
    count: int = 0

    def add(self, reach_mm: np.ndarray, positions_mm: np.ndarray, tie_mm: float) -> None:
        if reach_mm.max() > self.reach_mm + tie_mm:
            self.reach_mm, self.total_mm, self.count = reach_mm.max(), 0.0, 0
        tied = reach_mm >= self.reach_mm - tie_mm
        self.total_mm = self.total_mm + positions_mm[tied].sum(axis=0)
        self.count += int(tied.sum())


def _furthest(mask: Image, towards: np.ndarray) -> dict[int, np.ndarray]:
    """Label value to (k, d) LPS mm: per direction ``towards`` (k, d) the mean of its outermost samples."""
    found: dict[int, list[_Furthest]] = {}
    tie_mm = LIMITS.extreme_tie * mask.geometry.spacing.min()
    for label, index in _foreground(mask.pixels):
        points = found.setdefault(label, [_Furthest() for _ in towards])
        if len(found) > LIMITS.mask_labels:
            raise ImageRejected("mask", [f"more than {LIMITS.mask_labels} values; a scan instead of a segmentation?"])
        positions_mm = mask.geometry.index_to_world(index)
        for point, reach_mm in zip(points, towards @ positions_mm.T, strict=True):
            point.add(reach_mm, positions_mm, tie_mm)
    return {label: np.stack([p.total_mm / p.count for p in points]) for label, points in found.items()}


def _foreground(pixels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Label value and (m, d) index (x, y[, z]) of its samples, plane by plane along the first array axis."""
    for k, plane in enumerate(pixels):
        where = np.nonzero(plane)
        if not where[0].size:
            continue
        index = np.stack([*where[::-1], np.full(where[0].size, k)], axis=-1)
        order = np.argsort(plane[where], kind="stable")
        labels, starts = np.unique(plane[where][order], return_index=True)
        yield from zip(map(int, labels), np.split(index[order], starts[1:]), strict=True)
