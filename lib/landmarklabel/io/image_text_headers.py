"""Headers of NRRD and MetaImage files: lines of text before the data, parsed strictly.

Both formats can name another file that holds the data. In a .nrrd or .mha that is refused: it reads what nobody submitted;
a .nhdr or .mhd must name a plain file beside it.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from landmarklabel.io.file_kinds import wrong_kind
from landmarklabel.io.image_headers import Header, direction_faults, listed, spacing_faults, vector_faults
from landmarklabel.io.limits import LIMITS

_NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t"), 4),
    "float": 4,
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), 8),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t", "double"), 8),
}
_META_BYTES = {
    **{"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_LONG": 4},
    **{"MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8},
}
_MILLIMETRES = {"mm", "millimeter", "millimeters", "millimetre", "millimetres", "none", "???"}
_SPACES = {  # of which ITK and 3D Slicer make the same
    *("left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las"),
    *("left-posterior-superior-time", "lpst", "right-anterior-superior-time", "rast"),
}
_SCALAR_KINDS = {"domain", "space", "none", "???"}


def parse_nrrd(path: Path) -> tuple[Header | None, list[str]]:
    """The header of a .nrrd file with its data in the same file, or of a .nhdr file with its data in a file beside it."""
    head, detached = _head(path), path.name.lower().endswith(".nhdr")
    if not re.match(rb"NRRD000[1-5]\r?\n", head):
        why = f"wrong magic {head[:8]!r}; a NRRD file starts with NRRD0001 to NRRD0005"
        return None, [wrong_kind("an NRRD file", head[:8], why)]
    end = re.search(rb"\n\r?\n" + (rb"|\r?\n?\Z" if detached else rb""), head)
    if not end:
        return None, ["truncated: the NRRD header does not end with an empty line"]
    fields, faults = _nrrd_fields(head[: end.start()])
    data_file = _beside(path, fields.get("datafile"), "data file", faults) if detached else None
    if "datafile" in fields and not detached:
        faults.append(f"data file {fields['datafile'][:80]!r}: data in another file is not allowed, only in the .nrrd")
    faults += [
        f"{key} {fields[key.replace(' ', '')]!r}: allowed is mm; other programs would read them as mm"
        for key in ("space units", "units")
        if not set(re.findall(r'[^\s"]+', fields.get(key.replace(" ", ""), "").lower())) <= _MILLIMETRES
    ]
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        faults.append(f"encoding {encoding!r} is not supported; allowed are raw and gzip")
    for key in ("byteskip", "lineskip"):
        if fields.get(key, "0") != "0":
            faults.append(f"{key} {fields[key]!r} is not supported; allowed is 0")
    sample_bytes = _NRRD_BYTES.get(fields.get("type", "").lower())
    if sample_bytes is None:
        faults.append(f"type {fields.get('type')!r} is not supported; allowed are 8 to 64 bit integers, float, double")
    size, size_faults = _text_size(fields.get("sizes"), fields.get("dimension"), "sizes", "dimension")
    kinds = [kind for kind in fields.get("kinds", "").split() if kind.lower() not in _SCALAR_KINDS]
    if kinds:
        faults.append(f"kinds {' '.join(kinds)!r} make a vector image; allowed are scalar images (domain, space)")
    faults += size_faults + (_nrrd_geometry_faults(fields, len(size)) if size else [])
    if size is None or sample_bytes is None or (detached and data_file is None):
        return None, faults
    start, dims3 = 0 if data_file else end.end(), len(size) == 3
    unit = "mm" if {"spacedirections", "spacings"} & set(fields) else "px"
    unsaid = dims3 and "spacedirections" in fields and "space" not in fields
    remarks = (
        ("it does not say in which space its axes are: read as LPS, as ITK does; other programs may turn it",) if unsaid else ()
    )
    stream = "raw" if encoding == "raw" else "deflate"
    return Header(size, sample_bytes, start, stream, unit=unit, data_file=data_file, remarks=remarks), faults


def _nrrd_fields(head: bytes) -> tuple[dict[str, str], list[str]]:
    fields, faults = {}, _text_faults(head)
    for line in _lines(head)[1:]:
        name, colon, value = line.partition(":")
        if line.startswith("#") or value.startswith("="):  # a comment, or somebody's own "key:=value"
            continue
        faults += [] if line.startswith("content: ") else _length_faults(line)
        key = name.lower().replace(" ", "")
        if not colon or key in fields:
            faults.append(f"header line {line[:60]!r} is " + ("given twice" if colon else "no 'field: value'"))
        fields[key] = value.strip()
    return fields, faults


def _nrrd_geometry_faults(fields: dict[str, str], dims: int) -> list[str]:
    faults, space = [], fields.get("space", "").lower()
    if "spacedirections" in fields and space and space not in _SPACES:
        faults.append(f"space {fields['space'][:40]!r} does not say where left, back and up are; write LPS or RAS")
    if "spacedirections" in fields:
        text = fields["spacedirections"]
        columns = [_numbers(v) or [] for v in re.findall(r"\(([^)]*)\)|none", text)]
        if [len(c) for c in columns] != [dims] * dims or not np.isfinite(columns).all():
            faults.append(f"space directions {text[:200]!r} must be {dims} vectors of {dims} finite numbers")
        else:
            faults += direction_faults("space directions", np.transpose(columns))
    elif "spacings" in fields:
        values = _numbers(fields["spacings"])
        faults += spacing_faults(values if values and len(values) == dims else [math.nan])
    if "spaceorigin" in fields:
        faults += vector_faults("space origin", _numbers(fields["spaceorigin"].strip("()")), dims)
    return faults


def parse_meta(path: Path) -> tuple[Header | None, list[str]]:
    """The header of a .mha file, or of a .mhd file with its data in a file beside it."""
    head, detached = _head(path), path.name.lower().endswith(".mhd")
    ending = rb"(?:\r?\n|\Z)" if detached else rb"\r?\n"
    end = re.search(rb"^ElementDataFile[ \t]*=([^\r\n]*)" + ending, head, re.MULTILINE)
    if not end:
        if re.match(rb"\s*[A-Za-z]\w*\s*=", head):
            return None, ["truncated: the header has no line 'ElementDataFile = LOCAL'"]
        why = f"wrong magic {head[:8]!r}: a .mha file starts with lines 'name = value'"
        return None, [wrong_kind("a .mha file", head[:8], why)]
    fields, faults = {}, _text_faults(head[: end.start()])
    for line in _lines(head[: end.start()]):
        faults += _length_faults(line)
        match = re.fullmatch(r"\s*([^=:]*[^=:\s])\s*=\s*(.*?)\s*", line)
        if match is None or match[1] in fields:
            faults.append(f"header line {line[:60]!r} is " + ("given twice" if match else "no 'name = value'"))
        else:
            fields[match[1]] = match[2]
    if b"elementdatafile" in head[: end.start()].lower():  # MetaIO would end the header there, and read that file
        faults.append("ElementDataFile is given twice: data in another file is not allowed, only LOCAL")
    data_file = end[1].decode("utf-8", "replace").strip()
    if detached:
        data_path = _beside(path, data_file, "ElementDataFile", faults)
    elif data_file not in ("LOCAL", "Local", "local"):
        faults.append(f"ElementDataFile {data_file[:80]!r}: data in another file is not allowed, only LOCAL")
    for key, default, allowed in (
        ("ObjectType", "Image", "Image"),
        ("BinaryData", "False", "True"),
        ("ElementNumberOfChannels", "1", "1"),
        ("HeaderSize", "0", "0"),
        ("DistanceUnits", "mm", "mm"),
    ):
        if fields.get(key, default).lower() != allowed.lower():
            faults.append(f"{key} {fields.get(key, default)[:40]!r} is not supported; allowed is {allowed}")
    sample_bytes = _META_BYTES.get(fields.get("ElementType", ""))
    if sample_bytes is None:
        faults.append(f"ElementType {fields.get('ElementType')!r} is not supported; allowed are {listed(_META_BYTES)}")
    size, size_faults = _text_size(fields.get("DimSize"), fields.get("NDims"), "DimSize", "NDims")
    faults += size_faults + (_meta_geometry_faults(fields, len(size)) if size else [])
    compressed = fields.get("CompressedData", "False").lower() == "true"
    stored = _packed_bytes(fields, faults) if compressed else None
    if size is None or sample_bytes is None or (detached and data_path is None):
        return None, faults
    start, data = (0, data_path) if detached else (end.end(), None)
    unit = "mm" if {"ElementSpacing", "ElementSize"} & set(fields) else "px"
    return Header(size, sample_bytes, start, "deflate" if compressed else "raw", stored, unit=unit, data_file=data), faults


def _packed_bytes(fields: dict[str, str], faults: list[str]) -> int | None:
    stored = _integers(fields.get("CompressedDataSize", ""))
    if not stored:
        faults.append("CompressedDataSize is missing or no number: readers then take whatever is in memory")
        return None
    return stored[0]


def _beside(path: Path, name: str | None, field: str, faults: list[str]) -> Path | None:
    """The file with the data, which lies beside its header."""
    if not name or re.search(r"[\\/:%\s]|\A\.|\A(LIST|LOCAL)\b", name, re.IGNORECASE):
        faults.append(f"{field} {str(name)[:80]!r} must be the plain name of one file beside {path.name}")
        return None
    data = path.with_name(name)
    if not data.is_file() or data.is_symlink():
        faults.append(f"{field} {name[:80]!r}: there is no such file beside {path.name}")
        return None
    return data


def _meta_geometry_faults(fields: dict[str, str], dims: int) -> list[str]:
    faults = []
    for key in ("ElementSpacing", "ElementSize"):
        if key in fields:
            values = _numbers(fields[key])
            faults += spacing_faults(values if values and len(values) == dims else [math.nan])
    for key in ("TransformMatrix", "Rotation", "Orientation"):
        if key in fields:
            values = _numbers(fields[key])
            key_faults = vector_faults(key, values, dims * dims)
            faults += key_faults or direction_faults(key, np.reshape(values or [], (dims, dims)).T)
    for key in ("Offset", "Position", "Origin"):
        if key in fields:
            faults += vector_faults(key, _numbers(fields[key]), dims)
    return faults


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LIMITS.text_header_bytes)


def _lines(head: bytes) -> list[str]:
    """The lines that other readers see: not those that only Unicode knows."""
    return [line.decode("utf-8", "replace").removesuffix("\r") for line in head.removesuffix(b"\n").split(b"\n")]


def _text_faults(head: bytes) -> list[str]:
    bad = re.search(rb"[\0-\x08\x0b\x0c\x0e-\x1f]|\r(?!\n|\Z)", head)
    return [f"control character {bad[0]!r} at position {bad.start()} of the header"] if bad else []


def _length_faults(line: str) -> list[str]:
    length = len(line.encode())
    return (
        [f"header line {line[:60]!r} has {length} bytes; allowed are {LIMITS.meta_line_bytes}"]
        if length > LIMITS.meta_line_bytes
        else []
    )


def _text_size(
    sizes: str | None, dimension: str | None, sizes_name: str, dims_name: str
) -> tuple[tuple[int, ...] | None, list[str]]:
    values, dims = _integers(sizes or ""), _integers(dimension or "")
    if not dims or len(dims) != 1 or dims[0] not in (2, 3):
        return None, [f"{dims_name} {dimension!r}; allowed are 2 and 3 dimensions"]
    if not values or len(values) != dims[0] or min(values) < 1:
        return None, [f"{sizes_name} {str(sizes)[:80]!r} must be {dims[0]} positive whole numbers"]
    return tuple(values), []


def _integers(text: str) -> list[int] | None:
    parts = text.split()
    return [int(p) for p in parts] if parts and all(re.fullmatch(r"[+-]?[0-9]{1,18}", p) for p in parts) else None


def _numbers(text: str) -> list[float] | None:
    try:
        return [float(p) for p in text.replace(",", " ").split()] or None
    except ValueError:
        return None
