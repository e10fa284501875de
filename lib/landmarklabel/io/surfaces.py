"""Triangle surfaces: the form that states its unit and frame, how far a place is from one, and its volume of distances.

A surface is read as an image: grey values fall from bright inside to dark outside within a few samples of the surface, so that
everything made for volumes works on it. See ``surface_formats`` for the files of other programs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from landmarklabel.configuration import Configuration, number
from landmarklabel.errors import ImageRejected
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.files import atomic_write
from landmarklabel.io.image_array import Image

FloatArray = npt.NDArray[np.float64]
STATED = ".ply"  # of a surface that states unit and frame


@dataclass(frozen=True)
class SurfaceConfig(Configuration):
    """How fine a surface's volume is."""

    samples: int = number(160, 16)  # along the longest side: as many as the scans of skulls have that surfaces are made from
    margin: int = number(6, 1)  # samples around the surface, so that a landmark on its rim has a neighbourhood
    band: float = number(4.0, 1)  # samples from the surface within which grey values tell the distance
    grey_on_it: int = number(128, 1)  # the middle of what a byte holds
    grey_per_band: int = number(127, 1)  # the rest of a byte, to either side
    most_triangles: int = number(20_000_000, 1)  # a scan at full resolution has five million
    most_outlying: float = number(20.0, 1)  # times the extent of 99 % of the points: beyond, the rest is a slip of a scanner
    most_bytes: int = number(4 * 2**30, 1)  # of a file
    convert_s: float = number(300.0, 1)  # that reading another program's file may take: longer than anybody waits for an answer
    convert_bytes: int = number(12 * 2**30, 2**30)  # of memory that it may take at most, and half of the machine's
    farthest_mm: float = number(1e6, 1)  # from the origin: landmarks have no place beyond
    head_bytes: int = number(4096, 1)  # within which programs state unit and frame
    samples_at_once: int = number(2_000_000, 1)  # of triangles, before those at one place become one: 100 MB
    most_points: int = number(6_000_000, 1)  # sampled on a surface: what a kd-tree of a gigabyte holds
    refinements: int = number(6, 1)  # of a place on the surface in a volume; the best one counts
    off_surface: float = number(0.05, 0)  # samples: less than two steps of grey
    steepest: float = number(2.0, 1)  # samples of depth from one sample to the next along an axis; more is no surface, but an end
    most_crossings: float = number(0.1, 0)  # a sample: a skull has 0.03; noise, which is no volume of distances, 0.18


CONFIG = SurfaceConfig()
_HEADER = (
    "ply\nformat binary_little_endian 1.0\ncomment SPACE=LPS\ncomment UNIT=mm\n"
    "element vertex {n}\nproperty float x\nproperty float y\nproperty float z\n"
    "element face {m}\nproperty list uchar int vertex_indices\nend_header\n"
)
_READ = re.compile(re.escape(_HEADER).replace(r"\{n\}", r"(\d{1,9})").replace(r"\{m\}", r"(\d{1,9})").encode())
_FACE = np.dtype([("n", "u1"), ("v", "<i4", 3)])


@dataclass(frozen=True)
class Surface:
    """Triangles.

    Args:
        vertices: (n, 3) float64, LPS mm.
        faces: (m, 3) int64 numbers of vertices, counterclockwise seen from outside.
    """

    vertices: FloatArray
    faces: npt.NDArray[np.int64]

    def nearest(self, places: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """The points of the surface nearest to places (k, 3) LPS mm, exactly, and how far away (k,) mm they are."""
        wanted = np.asarray(places, np.float64)
        corners = self.vertices[self.faces]
        middle = corners.mean(1)
        reach = np.linalg.norm(corners - middle[:, None], axis=2).max(1)
        out = np.empty_like(wanted)
        for i, place in enumerate(wanted):
            to_middle = np.linalg.norm(middle - place, axis=1)
            close = corners[to_middle - reach <= (to_middle + reach).min()]  # no other triangle can be nearer
            found = _on_triangles(place, close)
            out[i] = found[np.argmin(np.linalg.norm(found - place, axis=1))]
        return out, np.linalg.norm(out - wanted, axis=1)


def _on_triangles(place: FloatArray, corners: FloatArray) -> FloatArray:
    """(m, 3) the point of each triangle nearest to a place: on its plane where that falls inside, else on one of its sides."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    normal = np.cross(b - a, c - a)
    square = (normal * normal).sum(1)
    flat = square > 0
    height = np.divide(((place - a) * normal).sum(1), square, out=np.zeros(len(a)), where=flat)
    foot = place - height[:, None] * normal
    sides = [(a, b), (b, c), (c, a)]
    inside = flat & np.all([(np.cross(q - p, foot - p) * normal).sum(1) >= 0 for p, q in sides], axis=0)
    on_sides = np.stack([_on_segments(place, p, q) for p, q in sides])
    best = np.linalg.norm(on_sides - place, axis=2).argmin(0)
    return np.where(inside[:, None], foot, on_sides[best, np.arange(len(a))])


def _on_segments(place: FloatArray, p: FloatArray, q: FloatArray) -> FloatArray:
    along = q - p
    square = (along * along).sum(1)
    share = np.divide(((place - p) * along).sum(1), square, out=np.zeros(len(p)), where=square > 0)
    return np.asarray(p + np.clip(share, 0, 1)[:, None] * along)


# --- files ---------------------------------------------------------------------------------------------------------------


def write_surface(path: str | Path, surface: Surface) -> None:
    """Write a surface in the form that states its unit and frame, as other programs read it too; whole or not at all."""
    faces = np.empty(len(surface.faces), _FACE)
    faces["n"], faces["v"] = 3, surface.faces
    header = _HEADER.format(n=len(surface.vertices), m=len(surface.faces)).encode()
    atomic_write(path, header + surface.vertices.astype("<f4").tobytes() + faces.tobytes())


def is_own_surface(path: str | Path) -> bool:
    """Whether a file is a surface in the form that ``write_surface`` writes."""
    return _head(Path(path)) is not None


def read_surface(path: str | Path) -> Surface:
    """Read what ``write_surface`` wrote.

    Raises:
        ImageRejected: another file, which states no unit, or damaged.
    """
    path = Path(path)
    found = _head(path)
    if found is None:
        how = "say it with --mesh-unit mm, cm, m or um (over HTTP: mesh_unit, in params or in the address of a session)"
        raise ImageRejected(path.name, [f"a surface whose file states no unit: {how}"])
    n, m = int(found[1]), int(found[2])
    if not (n and m) or m > CONFIG.most_triangles:
        raise ImageRejected(path.name, [f"{n} points and {m} triangles; allowed are 1 to {CONFIG.most_triangles} triangles"])
    size = found.end() + 12 * n + _FACE.itemsize * m
    if path.stat().st_size != size:
        raise ImageRejected(path.name, [f"{path.stat().st_size} bytes; {n} points and {m} triangles have {size}"])
    content = path.read_bytes()
    vertices = np.frombuffer(content, "<f4", 3 * n, found.end()).reshape(n, 3).astype(np.float64)
    faces = np.frombuffer(content, _FACE, m, found.end() + 12 * n)
    numbers = faces["v"].astype(np.int64)
    if not (faces["n"] == 3).all() or numbers.min() < 0 or numbers.max() >= n:
        raise ImageRejected(path.name, ["damaged: a triangle names points that are not there"])
    if not np.isfinite(vertices).all():
        raise ImageRejected(path.name, ["damaged: a point is not a number"])
    return checked_surface(Surface(vertices, numbers), path.name)


def checked_surface(surface: Surface, name: str, unit_mm: float = 1.0) -> Surface:
    """A surface in mm, without points that no triangle has. Raises ImageRejected for what cannot be one.

    ``unit_mm`` is that of its file's coordinates, for the message.
    """
    used, numbers = np.unique(surface.faces, return_inverse=True)
    vertices = surface.vertices[used]
    extent = np.ptp(vertices, axis=0).max()
    if not extent > 0:
        raise ImageRejected(name, ["all its points lie at one place"])
    most_of_it = np.ptp(np.percentile(vertices, (0.5, 99.5), axis=0), axis=0).max()
    if extent > CONFIG.most_outlying * most_of_it:
        fault = (
            f"99 % of its points lie in a box of side {most_of_it / unit_mm:.3g}, single ones {extent / unit_mm:.3g} apart "
            "(in the file's unit): remove what is not of the surface"
        )
        raise ImageRejected(name, [fault])
    if (farthest := float(np.abs(vertices).max())) > CONFIG.farthest_mm:
        fault = f"it lies up to {farthest:.3g} mm from the origin; allowed are {CONFIG.farthest_mm:g} mm: is its unit right?"
        raise ImageRejected(name, [fault])
    return Surface(vertices, numbers.reshape(-1, 3))


def _head(path: Path) -> re.Match[bytes] | None:
    try:
        with path.open("rb") as file:
            return _READ.match(file.read(len(_HEADER) + 32))
    except OSError:
        return None


# --- as a volume -----------------------------------------------------------------------------------------------------------


def volume_geometry(surface: Surface, config: SurfaceConfig = CONFIG) -> ImageGeometry:
    """Where the samples of a surface's volume lie. Raises ImageRejected for a surface without extent."""
    low, high = surface.vertices.min(0), surface.vertices.max(0)
    spacing = float((high - low).max()) / config.samples
    if not spacing > 0:
        raise ImageRejected("surface", ["all its points lie at one place"])
    size = np.ceil((high - low) / spacing).astype(int) + 2 * config.margin + 1
    return ImageGeometry(tuple(size.tolist()), np.full(3, spacing), low - config.margin * spacing, np.eye(3))


def distance_volume(surface: Surface, config: SurfaceConfig = CONFIG) -> Image:
    """A surface as a volume: 128 on it, brighter inside, darker outside, told apart within ``band`` samples.

    What lies inside is told by the directions of the triangles near the surface; farther away, only what is closed all around
    counts as inside, so a surface with holes is dark behind its band.

    Returns:
        uint8 samples, isotropic, axes along LPS.

    Raises:
        ImageRejected: a surface without extent.
    """
    geometry = volume_geometry(surface, config)
    spacing, origin, size = float(geometry.spacing[0]), geometry.origin, np.array(geometry.size)
    points, normals = _sampled(surface, spacing, config.most_points)
    there = np.zeros(size, bool)
    there[tuple(np.clip(np.rint((points - origin) / spacing).astype(int), 0, size - 1).T)] = True
    near = ndimage.distance_transform_edt(~there) <= config.band + 1
    index = np.argwhere(near)
    tree = cKDTree(points, balanced_tree=False, compact_nodes=False)  # quicker to make, and as quick to ask
    off, at = tree.query(origin + spacing * index, workers=-1)
    height = ((origin + spacing * index - points[at]) * normals[at]).sum(1)
    beside = np.sqrt(np.maximum(off**2 - height**2, 0))
    above = np.where(beside < spacing, height, np.copysign(off, height))  # beside a sample, the plane through it tells more
    depth = np.zeros(size)
    depth[near] = -above / spacing
    around = ndimage.uniform_filter(np.sign(depth), 3)  # at a sharp edge, a triangle seen from behind tells the wrong side
    depth = np.where((np.abs(depth) > 1) & (around * depth < 0), -depth, depth)
    regions, count = ndimage.label(~near)
    inside = _sum_beside(np.sign(depth), regions, count) > 0
    for axis in range(3):
        for end in (0, -1):
            inside[np.take(regions, end, axis)] = False
    depth[~near] = np.where(inside[regions[~near]], config.band, -config.band)
    grey = np.rint(config.grey_on_it + config.grey_per_band * np.clip(depth / config.band, -1, 1)).astype(np.uint8)
    return Image(geometry, np.ascontiguousarray(grey.transpose(2, 1, 0)))


def _sum_beside(values: FloatArray, regions: npt.NDArray[np.int32], count: int) -> FloatArray:
    """(count + 1,) for each region, the sum of the values right beside it along the axes."""
    total = np.zeros(count + 1)
    for axis in range(3):
        first, then = np.arange(values.shape[axis] - 1), np.arange(1, values.shape[axis])
        for here, there in ((first, then), (then, first)):
            labels = np.take(regions, here, axis)
            total += np.bincount(labels[labels > 0], np.take(values, there, axis)[labels > 0], count + 1)
    return total


def _sampled(surface: Surface, step: float, most: int) -> tuple[FloatArray, FloatArray]:
    """Points on all triangles, about ``step`` mm apart, and the triangles' unit normals there."""
    corners = surface.vertices[surface.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1)
    corners, normal = corners[length > 0], normal[length > 0] / length[length > 0, None]
    if not len(corners):
        raise ImageRejected("surface", ["no triangle has an area"])
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(1)
    parts = np.maximum(1, np.ceil(longest / step)).astype(int)
    low, total = corners.min((0, 1)), 0
    points, normals = [], []
    for n in np.unique(parts):
        i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
        share = np.stack([i, j, n - i - j], -1)[i + j <= n] / n if n > 1 else np.full((1, 3), 1 / 3)
        which = np.flatnonzero(parts == n)
        for some in np.array_split(which, -(-len(which) * len(share) // CONFIG.samples_at_once)):
            made = np.einsum("sk,mkd->msd", share, corners[some]).reshape(-1, 3)
            kept = _one_a_cell(made, low, step / 2)
            points.append(made[kept])
            normals.append(normal[some][kept // len(share)])
            total += len(kept)
            if total > 2 * most:  # of long triangles beside one another: before they take all memory
                raise ImageRejected("surface", [f"its triangles are too many and too long to be sampled at {most} places"])
    all_points, all_normals = np.concatenate(points), np.concatenate(normals)
    kept = _one_a_cell(all_points, low, step / 2)
    if len(kept) > most:
        raise ImageRejected("surface", [f"too fine to be sampled: {len(kept)} places; allowed are {most}"])
    return all_points[kept], all_normals[kept]


def _one_a_cell(points: FloatArray, low: FloatArray, side: float) -> npt.NDArray[np.int64]:
    """Numbers of the points (n, 3), in order, of which each is the first in its cube of a grid."""
    cell = np.floor((points - low) / side).astype(np.int64)
    _, kept = np.unique(cell @ np.array([1, 2**20, 2**40]), return_index=True)
    return np.sort(kept)
