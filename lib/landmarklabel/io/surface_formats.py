"""Surfaces of other programs: PLY, STL, OBJ, VTP and VTK files, read by VTK (the extra ``mesh``)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from landmarklabel.errors import ImageRejected, MissingPackage, UsageError
from landmarklabel.io.files import SURFACE_FRAMES, SURFACE_UNITS, is_surface
from landmarklabel.io.surfaces import CONFIG, STATED, Surface, checked_surface, is_own_surface, read_surface, write_surface
from landmarklabel.portability import limit_process

STL_HEADER = 80  # bytes of text before the triangles
_OVER_HTTP = " (over HTTP: mesh_unit, in params or in the address of a session)"
# A line or comment that says nothing else, as ``comment UNIT=mm``: "length unit: m, exported by x" is somebody's prose.
_UNIT = re.compile(
    rb"(?im)^[ \t]*(?:comment[ \t]+|#+[ \t]*|<!--[ \t]*)?UNITS?[ \t]*[=:][ \t]*([^\s\0]{1,20})[ \t\0]*(?:-->)?[ \t]*\r?$"
)
_TO_LPS = {"LPS": np.ones(3), "RAS": np.array([-1.0, -1.0, 1.0])}
_CONVERTING = threading.BoundedSemaphore(1)  # each may take half of the memory
_REFUSED, _NO_VTK = 3, 4  # exit codes of the process that reads a file
_WHY = "\nrefused: "  # before what this program says itself, after what VTK may have said
_CUT_OFF = b"Error reading"  # VTK's word for a file whose rest is missing, of which it shows what there is
_READERS = {
    ".ply": "vtkPLYReader",
    ".stl": "vtkSTLReader",
    ".obj": "vtkOBJReader",
    ".vtp": "vtkXMLPolyDataReader",
    ".vtk": "vtkDataSetReader",
}


@dataclass(frozen=True)
class Converted:
    """A surface with its unit and frame, and what a person should know of how its file was read, one sentence each."""

    surface: Surface
    remarks: tuple[str, ...] = ()


def with_stated_units(
    images: Mapping[str, Path], unit: str | None, frame: str | None, place: Path
) -> tuple[dict[str, Path], dict[str, str], dict[str, list[str]]]:
    """The images, with every surface that states no unit written anew to ``place`` as one that does.

    Args:
        images: id to file.
        unit: of surfaces that state none; None where nobody has said it.
        frame: LPS or RAS of surfaces that state none; as Slicer does it, LPS, when None.
        place: an empty folder.

    Returns:
        the images that can be read; of the others, why not; of all surfaces that can be read, what a person should know.

    Raises:
        UsageError: surfaces that state no unit, and no unit.
    """
    check_unit(images, unit)
    out, failed, remarks = dict(images), {}, {}
    for image_id, path in images.items():
        if not is_surface(path):
            continue
        if is_own_surface(path):  # as this program writes them: both
            remarks[image_id] = _overruled("mm", unit, "unit") + _overruled("LPS", frame, "frame")
            continue
        try:
            found = _convert_apart(path, unit or stated_unit(path) or "", frame, place / f"{image_id}{STATED}")
        except ImageRejected as error:
            failed[image_id] = str(error)
            del out[image_id]
            continue
        out[image_id] = place / f"{image_id}{STATED}"
        remarks[image_id] = found
    return out, failed, remarks


def with_stated_unit(path: Path, unit: str | None, frame: str | None, place: Path) -> tuple[Path, list[str]]:
    """As ``with_stated_units``, of one file: where it is read from, and what a person should know.

    Raises:
        ImageRejected: it cannot be read. UsageError: no unit, or one that is not known.
    """
    for said, allowed in ((unit, SURFACE_UNITS), (frame, SURFACE_FRAMES)):
        if said is not None and said not in allowed:
            raise UsageError(f"{said[:40]!r} is not known of a surface; there are {', '.join(allowed)}")
    found, failed, remarks = with_stated_units({path.stem: path}, unit, frame, place)
    if failed:
        raise ImageRejected(path.name, [failed[path.stem].removeprefix(f"{path.name}: ")])
    return found[path.stem], remarks.get(path.stem, [])


def check_unit(images: Mapping[str, Path], unit: str | None) -> None:
    """Raise UsageError where surfaces state no unit that is known here, and none was said."""
    bare = [p for p in images.values() if is_surface(p) and stated_unit(p) is None] if unit is None else []
    if bare:
        said, units = _said_unit(bare[0]), ", ".join(SURFACE_UNITS)
        states = f"states the unit {said}, which is not known here" if said else "states no unit"
        raise UsageError(f"{bare[0].name} is a surface, and its file {states}: say it with --mesh-unit {units}{_OVER_HTTP}")


def stated_unit(path: Path) -> str | None:
    """The unit that a surface's file states in its first lines, as ``UNIT=mm``; None without one of ``SURFACE_UNITS``."""
    said = _said_unit(path)
    return said if said in SURFACE_UNITS else None


def _said_unit(path: Path) -> str | None:
    """What stands there; of a file that says several, all of them."""
    with path.open("rb") as file:
        head = file.read(STL_HEADER if path.suffix.lower() == ".stl" else CONFIG.head_bytes)  # of a binary file
        found = _UNIT.findall(head)
    return " and ".join(dict.fromkeys(unit.decode("utf-8", "replace").lower() for unit in found)) or None


def _overruled(stated: str | None, said: str | None, what: str) -> list[str]:
    if not stated or not said or stated == said:
        return []
    return [f"its file states the {what} {stated}, which counts, and not {said}"]


def _convert_apart(path: Path, unit: str, frame: str | None, target: Path) -> list[str]:
    """Convert a surface in a process of its own: VTK ends a process on some damaged files, and takes all memory on others.

    Returns:
        what a person should know. Raises as ``convert``.
    """
    words = [sys.executable, "-m", "landmarklabel.io.surface_formats", *map(str, (path, unit, frame or "", target))]
    try:
        with _CONVERTING:
            done = subprocess.run(words, capture_output=True, check=False, timeout=CONFIG.convert_s)
    except subprocess.TimeoutExpired:
        target.unlink(missing_ok=True)
        raise ImageRejected(path.name, [f"VTK has not read it within {CONFIG.convert_s:g} s"]) from None
    if _CUT_OFF in done.stderr:
        target.unlink(missing_ok=True)
        raise ImageRejected(path.name, ["damaged: it ends too early"])
    if done.returncode == 0:
        remarks: list[str] = json.loads(_remarks_of(target).read_text(encoding="utf-8"))
        _remarks_of(target).unlink()
        return remarks
    if done.returncode == _NO_VTK:
        _vtk()
    said = done.stderr.decode("utf-8", "replace").rpartition(_WHY)[2].strip() if done.returncode == _REFUSED else ""
    broke_off = (
        f"damaged: VTK broke off while it read the file (or it needs more than {_most_memory() / 2**30:.0f} GiB of memory)"
    )
    raise ImageRejected(path.name, [said.removeprefix(f"{path.name}: ") or broke_off])


def _remarks_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _most_memory() -> int:
    """Bytes that reading a file may take: the rest of the machine is others'."""
    return min(CONFIG.convert_bytes, int(psutil.virtual_memory().total) // 2)


def _convert_here(path: str, unit: str, frame: str, target: str) -> int:
    """What the process of ``_convert_apart`` does."""
    limit_process(_most_memory(), CONFIG.convert_s)
    try:
        made = convert(path, unit, frame or None)
        write_surface(target, made.surface)
    except MissingPackage:
        return _NO_VTK
    except (ImageRejected, MemoryError) as error:
        sys.stderr.write(_WHY + (str(error) or f"it needs more than {_most_memory() / 2**30:.0f} GiB of memory"))
        return _REFUSED
    _remarks_of(Path(target)).write_text(json.dumps(made.remarks), encoding="utf-8")
    return 0


def convert(path: str | Path, unit: str, frame: str | None = None) -> Converted:
    """Read a surface of another program.

    Its triangles are turned to face outwards where that can be told; polygons are cut into triangles, lines and points left out.

    Args:
        path: PLY, STL, OBJ, VTP or VTK.
        unit: of its coordinates where the file states none, of ``files.SURFACE_UNITS``.
        frame: LPS or RAS where the file states none; LPS when None.

    Raises:
        ImageRejected: no surface, damaged, too large or without extent.
        MissingPackage: VTK is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageRejected(path.name, ["no such file"])
    if not 0 < path.stat().st_size <= CONFIG.most_bytes:
        raise ImageRejected(path.name, [f"{path.stat().st_size} bytes; allowed are 1 to {CONFIG.most_bytes}"])
    if is_own_surface(path):
        return Converted(read_surface(path))
    data, remarks = _read(path)
    stated = _stated_frame(path, data)
    vertices, faces = _oriented(data, path.name)
    said_unit, known_unit = _said_unit(path), stated_unit(path)
    if said_unit and not known_unit:
        remarks.append(f"its file states the unit {said_unit}, which is not known here; read as {unit}, as was said")
    remarks += _overruled(known_unit, unit, "unit") + _overruled(stated, frame, "frame")
    # two mirrored axes turn no triangle inside out
    unit_mm = SURFACE_UNITS[known_unit or unit]
    surface = Surface(vertices * (unit_mm * _TO_LPS[stated or frame or "LPS"]), faces)
    return Converted(checked_surface(surface, path.name, unit_mm), tuple(remarks))


def _read(path: Path) -> tuple[Any, list[str]]:
    vtk = _vtk()
    _check_counts(path)
    reader = getattr(vtk, _READERS[path.suffix.lower()])()
    said = vtk.vtkStringOutputWindow()
    before = vtk.vtkOutputWindow.GetInstance()
    vtk.vtkOutputWindow.SetInstance(said)
    try:
        reader.SetFileName(str(path))
        reader.Update()
        data = reader.GetOutput()
    finally:
        vtk.vtkOutputWindow.SetInstance(before)
    if data is None or not data.IsA("vtkPolyData") or not data.GetNumberOfPolys() + data.GetNumberOfStrips():
        text = said.GetOutput()
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text  # of a binary file
        why = re.sub(r"\s+", " ", re.sub(r"\(?0x[0-9a-f]+\)?", "", text.rpartition("): ")[2])).strip()[:150]
        raise ImageRejected(path.name, [f"no surface in it{f' ({why})' if why else ''}"])
    remarks = []
    drawn = data.GetPointData(), data.GetCellData()
    if any(of.GetScalars() or of.GetTCoords() for of in drawn) or _names_texture(path):
        remarks.append("colours and textures are not looked at")
    if data.GetNumberOfLines():
        remarks.append("lines in it are left out")
    return data, remarks


def _check_counts(path: Path) -> None:
    """Raise ImageRejected for a PLY file that has not what its header declares: VTK fills up what is missing."""
    if path.suffix.lower() != ".ply":
        return
    with path.open("rb") as file:
        head, end, rest = file.read(CONFIG.head_bytes).partition(b"end_header")
        counts = {name: int(n) for name, n in re.findall(rb"(?m)^element[ \t]+(vertex|face)[ \t]+([0-9]{1,19})[ \t]*\r?$", head)}
        points, faces = counts.get(b"vertex", 0), counts.get(b"face", 0)
        if points + faces > path.stat().st_size:  # each takes more than a byte
            raise ImageRejected(path.name, [f"damaged: its header declares {points} points and {faces} faces, which it has not"])
        if end and re.search(rb"(?m)^format[ \t]+ascii", head):
            file.seek(len(head) + len(end) + len(rest.partition(b"\n")[0]) + 1)
            if sum(bool(line.strip()) for line in file) < points + faces:
                raise ImageRejected(path.name, ["damaged: it ends too early"])


def _oriented(data: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) and triangles (m, 3), points at one place joined, facing outwards where that can be told."""
    from vtk.util.numpy_support import vtk_to_numpy

    vtk = _vtk()
    triangles, joined, turned = vtk.vtkTriangleFilter(), vtk.vtkCleanPolyData(), vtk.vtkPolyDataNormals()
    triangles.PassLinesOff()
    triangles.PassVertsOff()
    joined.SetTolerance(0)
    turned.ConsistencyOn()
    turned.AutoOrientNormalsOn()
    turned.SplittingOff()
    for step in (triangles, joined, turned):
        step.SetInputData(data)
        step.Update()
        data = step.GetOutput()
    count = data.GetNumberOfPolys()
    if not 0 < count <= CONFIG.most_triangles:
        raise ImageRejected(name, [f"{count} triangles; allowed are 1 to {CONFIG.most_triangles}"])
    faces = vtk_to_numpy(data.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int64)
    vertices = vtk_to_numpy(data.GetPoints().GetData()).astype(np.float64)
    if not np.isfinite(vertices[faces]).all():
        raise ImageRejected(name, ["a point is not a number"])
    return vertices, faces


def _stated_frame(path: Path, data: Any) -> str | None:
    """LPS or RAS, as Slicer writes it into a field of VTP and VTK files and into the beginning of PLY, OBJ and STL files."""
    field = data.GetFieldData().GetAbstractArray("SPACE")
    if field is not None and field.GetNumberOfValues() and str(field.GetVariantValue(0).ToString()) in _TO_LPS:
        return str(field.GetVariantValue(0).ToString())
    with path.open("rb") as file:
        found = re.search(rb"SPACE=(LPS|RAS)", file.read(CONFIG.head_bytes))
    return found[1].decode() if found else None


def _names_texture(path: Path) -> bool:
    with path.open("rb") as file:
        return bool(re.search(rb"(^|\n)(mtllib|comment TextureFile)\b", file.read(CONFIG.head_bytes)))


def _vtk() -> Any:
    try:
        import vtk
    except ImportError:
        raise MissingPackage("reading surfaces of other programs needs VTK, which is not installed: pip install vtk") from None
    return vtk


if __name__ == "__main__":
    sys.exit(_convert_here(*sys.argv[1:]))
