"""What a file is by its first bytes, in words for whoever gave it a wrong name."""

from __future__ import annotations

_BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"II*\x00": "a TIFF picture",
    b"MM\x00*": "a TIFF picture",
    b"BM": "a BMP picture",
    b"GIF8": "a GIF picture",
    b"NRRD": "an NRRD file",
    b"\x1f\x8b": "a file packed by gzip",
    b"PK\x03\x04": "a ZIP archive",
    b"%PDF": "a PDF document",
    b"<": "a web page or XML",
}


def wrong_kind(kind: str, start: bytes, why: str) -> str:
    """The fault of a file that is none of a kind.

    Args:
        kind: with its article, as ``a PNG file``.
        start: its first bytes.
        why: how that is seen, for whoever knows file formats.
    """
    found = next((name for beginning, name in _BEGINNINGS.items() if start.startswith(beginning) and name != kind), None)
    told = "it is empty" if not start else f"its content is that of {found}" if found else "was it renamed, or copied in part?"
    return f"this is not {kind}: {told} ({why})"
