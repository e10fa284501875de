"""What lies in folders that people hand in: images and label files, and everything else with the reason it is left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from landmarklabel.errors import LandmarkFileError, StudyError
from landmarklabel.io.dicom_series import single_images
from landmarklabel.io.files import (
    DICOM_SUFFIXES,
    FCSV_SUFFIX,
    IMAGE_SUFFIXES,
    MARKUPS_SUFFIX,
    SURFACE_SUFFIXES,
    image_id_of,
    image_suffix,
    is_dicom_folder,
    looks_like_dicom,
    plugin_readers,
)

_HEADERS = (".mhd", ".nhdr")
_DATA = (".raw", ".zraw", ".raw.gz", ".img")
NOT_WORTH_A_WORD = ("dicomdir", "thumbs.db", "desktop.ini", "labels")


@dataclass
class Found:
    """What was found.

    Args:
        paths: id to file or DICOM folder, sorted by id.
        left_out: name of a file or folder to why it was not taken.
    """

    paths: dict[str, Path] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def _take(self, image_id: str, path: Path) -> None:
        known = self.paths.setdefault(image_id, path)
        if known != path:
            raise StudyError(f"{known} and {path} would both be image {image_id!r}; rename one")


def find_images(places: Iterable[str | Path], files_only: bool = False) -> Found:
    """The images among files and folders.

    A folder is a folder of images; where it holds nothing but the slices of one DICOM series, it is that image. So are the
    folders in it, unless ``files_only``.

    Raises:
        StudyError: a place that is not there, or two images of one id.
    """
    found = Found()
    for place in map(Path, places):
        if place.is_dir():
            _look_into(place, found, files_only)
        elif place.exists():
            found._take(image_id_of(place), place)
        else:
            raise StudyError(f"{place}: no such file or folder")
    found.paths = dict(sorted(found.paths.items()))
    return found


def _look_into(folder: Path, found: Found, files_only: bool) -> None:
    inside = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".") and p.name.lower() not in NOT_WORTH_A_WORD]
    inside = [p for p in inside if not (files_only and p.is_dir())]
    named = [p for p in inside if image_suffix(p) in (*IMAGE_SUFFIXES, *_HEADERS, *SURFACE_SUFFIXES, *plugin_readers())]
    images = [p for p in named if p.is_file() or not p.exists() or p.is_fifo()]  # what is no file is refused when it is read
    folders = [p for p in inside if p.is_dir() and is_dicom_folder(p)]
    dicom = [p for p in inside if p.is_file() and p not in images and looks_like_dicom(p)]
    single_files = single_images(folder)
    if dicom and not single_files and (images or folders or len(dicom) == 1):
        if len(dicom) > 1:
            raise StudyError(
                f"{folder}: {len(dicom)} DICOM files of one series ({dicom[0].name}, …) lie beside other images; "
                "put them into a folder of their own"
            )
        single_files = dicom
    if dicom and not single_files:  # the slices of one series, or what the reader will refuse in words
        found._take(image_id_of(folder), folder)
        single_files = dicom
    else:
        for path in single_files:
            found._take(image_id_of(path) if image_suffix(path) else path.name, path)
    for path in (*images, *folders):
        found._take(image_id_of(path), path)
    taken = {*images, *folders, *single_files}
    data = {_beside(header) for header in images if header.suffix.lower() in _HEADERS}
    for path in inside:
        if path not in taken and path not in data:
            found.left_out[path.name] = _why_no_image(path)
    for place in folders:
        for path in sorted(place.iterdir()):
            if path.is_dir() or (image_suffix(path) and image_suffix(path) not in DICOM_SUFFIXES):
                found.left_out[f"{place.name}/{path.name}"] = "it lies in the folder of a DICOM series"
    if not files_only and (labels := folder / "labels").is_dir() and is_dicom_folder(labels):
        found.left_out["labels"] = "a study has its labels there; give the series another name"


def _beside(header: Path) -> Path | None:
    from landmarklabel.io.image_text_headers import parse_meta, parse_nrrd

    parsed, _ = (parse_meta if header.suffix.lower() == ".mhd" else parse_nrrd)(header)
    return parsed.data_file if parsed else None


def _why_no_image(path: Path) -> str:
    if path.is_dir():
        return "a folder without DICOM files: images in folders of their own are not looked for"
    if not path.is_file():
        return "not a regular file"
    name = path.name.lower()
    if name.endswith(_DATA):
        return "data without a header that names it"
    return f"no image format that is read ({' '.join((*IMAGE_SUFFIXES, *_HEADERS, *SURFACE_SUFFIXES, *plugin_readers()))}, DICOM)"


def find_label_files(folder: str | Path) -> Found:
    """The .mrk.json and .fcsv files of a folder, by the image they belong to (``c4.png.mrk.json`` belongs to ``c4``).

    Raises:
        StudyError: not a folder.
        LandmarkFileError: two files for one image, naming both.
    """
    folder, found, faults = Path(folder), Found(), []
    if not folder.is_dir():
        raise StudyError(f"{folder} is not a folder")
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower() in NOT_WORTH_A_WORD:
            continue
        suffix = next((s for s in (MARKUPS_SUFFIX, FCSV_SUFFIX) if path.name.endswith(s)), None)
        if suffix is None or not path.is_file():
            found.left_out[path.name] = _why_no_labels(path)
            continue
        image_id = image_id_of(path.name[: -len(suffix)])
        known = found.paths.setdefault(image_id, path)
        if known != path:
            faults.append(f"{known.name} and {path.name} are both labels of image {image_id!r}; keep one of them in the folder")
    if faults:
        raise LandmarkFileError(str(folder), faults)
    return found


def _why_no_labels(path: Path) -> str:
    name = path.name.lower()
    if path.is_dir():
        return "a folder"
    if name.endswith((MARKUPS_SUFFIX, FCSV_SUFFIX)):
        return f"its ending must be written {MARKUPS_SUFFIX} or {FCSV_SUFFIX}"
    if name.endswith(".json"):
        return f"label files are called <image>{MARKUPS_SUFFIX}"
    return f"no label file: those end in {MARKUPS_SUFFIX} or {FCSV_SUFFIX}"
