"""The page that ``import --preview`` writes: the points on their images, before anything is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from landmarklabel.data.cases import Case
from landmarklabel.errors import LandmarkLabelError, counted
from landmarklabel.io.images import read_image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.report.configuration import CONFIG
from landmarklabel.report.page import Page
from landmarklabel.report.thumbnails import make_thumbnail, sheet, thumbnail_html


def write_contact_sheet(
    path: str | Path,
    task: LandmarkTask,
    images: Iterable[tuple[str, Path]],
    landmarks_of: Callable[[str], tuple[LandmarkSet | None, str]],
    remarks: Sequence[str] = (),
) -> list[str]:
    """Write the page; returns why images would not be imported, a text each.

    Args:
        path: of the HTML file.
        task: whose landmarks are shown.
        images: ids and files.
        landmarks_of: an image's landmarks (None where there are none) and what is wrong with them (empty where nothing is);
            raises LandmarkLabelError for an image or label file that cannot be read.
        remarks: shown above the pictures.
    """
    faulty: list[str] = []
    good: list[str] = []
    faults, left, count = [], 0, 0
    for image_id, file in images:
        count += 1
        landmarks, fault = None, ""
        try:
            landmarks, fault = landmarks_of(image_id)
            if len(faulty) + len(good) < CONFIG.sheet_images or fault:
                picture = make_thumbnail(Case(image_id, read_image(file, task.dims)), CONFIG.sheet_pixels)
                (faulty if fault else good).append(thumbnail_html(picture, landmarks, image_id, marked=bool(fault)))
            else:
                left += 1
        except LandmarkLabelError as error:
            fault = str(error)
        if fault:
            faults.append(fault)
    page = Page(f"{task.name}: what would be imported")
    there = counted(count, "image")
    page.text(f"{there}, {len(task)} landmarks. A point's name shows under the mouse; points outside an image are red.")
    if task.scale:
        page.text(f"Scale: {task.scale.text}.")
    for text in remarks:
        page.text(text)
    if faults:
        page.section(f"{counted(len(faults), 'image')} would not be imported")
        for text in faults:
            page.text(text)
        page.html_block(sheet(faulty, 14))
    page.section("Images")
    page.html_block(sheet(good, 14))
    if left:
        page.text(f"{left} more images are not shown.")
    page.write(path)
    return faults
