"""How much memory reading an image takes, from its header, and how much of the free memory it may take."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

from landmarklabel.errors import ImageRejected
from landmarklabel.io.image_headers import Header
from landmarklabel.io.limits import LIMITS

# Peak memory while an image is read, in multiples of the bytes that its header declares; measured per format on images of 17 to
# 134 MB (tests/io/test_image_memory.py), and rounded up. Most of it is inside of SimpleITK and cannot be had for less.
PEAK = {
    ".png": 2.2,  # grey 1.0; colours 2.0: ITK converts them to its own order in a second buffer
    ".jpg": 4.5,  # usual 1.0, colours 2.0; progressive 3.0 to 4.0: libjpeg keeps 16 bit coefficients of the whole picture
    ".jpeg": 4.5,
    ".nii": 2.4,  # 2.0 to 2.2: the NIfTI library's buffer beside the image's; and a mask where samples are not finite
    ".nii.gz": 2.4,
    ".nrrd": 1.4,  # 1.0 raw, 1.2 compressed
    ".nhdr": 1.4,
    ".mha": 1.4,
    ".mhd": 1.4,
    ".bmp": 4.5,  # Pillow, and a copy for numpy
    ".tif": 4.5,
    ".tiff": 4.5,
    "series": 1.2,  # 1.0; and what one slice takes while it is decoded:
}
SLICE_PEAK = {"series": 2.0, "coded series": 9.0}  # of one slice; raw 1, JPEG 2000 3.5 to 6.5 (32 bits per sample), RLE 5 to 8


def reading_bytes(header: Header, kind: str) -> int:
    """Bytes of memory that reading an image takes at most.

    Args:
        header: the image's; rescaled samples (``loaded_bytes``) count as large as they become.
        kind: the file's suffix, or ``series`` for a folder of DICOM files.
    """
    loaded = header.voxels * max(header.loaded_bytes or 0, header.sample_bytes)
    scaled = header.data_bytes if loaded > header.data_bytes else 0
    need = LIMITS.decoder_bytes + PEAK[kind] * loaded + scaled
    if kind == "series":
        need += SLICE_PEAK[header.stream] * loaded / header.size[-1]
    return int(need)


NO_ROOM = "too large for the memory that is free"
OUT_OF_MEMORY = "not enough memory for this image"


def is_for_want_of_memory(error: BaseException) -> bool:
    """Whether something was refused that may succeed while other programs, or other parts of this one, take less memory."""
    said = error.faults if isinstance(error, ImageRejected) else []
    return isinstance(error, MemoryError) or any(NO_ROOM in text or OUT_OF_MEMORY in text for text in said)


def total_bytes() -> int:
    """Memory of the machine, or of its container where that has less."""
    total: int = psutil.virtual_memory().total
    with suppress(OSError, ValueError):  # no control group, or "max"
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    return total


def free_bytes() -> int:
    """Memory that this process can still get: of the machine, or of its container where that has less."""
    free = psutil.virtual_memory().available
    with suppress(OSError, ValueError):  # no control group, or "max"
        group = Path("/sys/fs/cgroup")
        usage = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
        used = int((group / "memory.current").read_text(encoding="utf-8")) - int(usage.get("inactive_file", 0))
        free = min(free, int((group / "memory.max").read_text(encoding="utf-8")) - used)
    made: int = max(free, 0)
    return made


def memory_faults(header: Header, kind: str, max_share: float) -> list[str]:
    """A fault where reading an image would take more than ``max_share`` of the free memory."""
    need, free = reading_bytes(header, kind), free_bytes()
    if need <= max_share * free:
        return []
    return [
        f"{NO_ROOM}: size {header.size} declares {header.data_bytes} bytes and takes about "
        f"{need / 1e9:.2g} GB to read; allowed are {max_share * free / 1e9:.2g} GB ({max_share:.2g} of {free / 1e9:.2g} free). "
        "Close other programs, crop or resample the image, or use a computer with more memory"
    ]
