"""Surfaces among the images that a verb is given, and their unit."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from landmarklabel.io.folders import Found
from landmarklabel.io.surface_check import check_on_surface
from landmarklabel.io.surface_formats import stated_unit, with_stated_units
from landmarklabel.io.surfaces import Surface, read_surface
from landmarklabel.landmarks import LandmarkSet


@dataclass
class SurfacesRead:
    """How the surfaces among the images were read.

    Args:
        remarks: what a person should know, and of which images.
        unreadable: image id to why its surface could not be read; it is an image no more.
        units: of surfaces, image id to the unit as which it was read.
        stated: ids of those whose files state their unit.
    """

    remarks: dict[str, list[str]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    stated: set[str] = field(default_factory=set)
    _last: tuple[Path, Surface] | None = None  # that was looked at

    def check(self, image_id: str, path: Path, landmarks: LandmarkSet, what: str) -> None:
        """Raise LandmarkFileError where landmarks lie off their surface as it was read; of other images, nothing is asked."""
        if image_id not in self.units:
            return
        if self._last is None or self._last[0] != path:  # of several readers' landmarks, read once
            self._last = path, read_surface(path)
        check_on_surface(landmarks, self._last[1], what, self.units[image_id], is_stated=image_id in self.stated)


def stated_surfaces(found: Found, args: argparse.Namespace, place: Path) -> SurfacesRead:
    """Write the surfaces that were found to ``place``, with the unit that was given, and name them in ``found`` instead."""
    files = found.paths
    found.paths, failed, remarks = with_stated_units(files, args.mesh_unit, args.mesh_frame, place)
    stated = {i: unit for i in remarks if (unit := stated_unit(files[i]))}
    read = SurfacesRead(unreadable=failed, units=dict.fromkeys(remarks, args.mesh_unit) | stated, stated=set(stated))
    for image_id, texts in remarks.items():
        for text in texts:
            read.remarks.setdefault(text, []).append(image_id)
    return read
