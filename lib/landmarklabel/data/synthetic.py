"""Synthetic images whose landmark positions are exactly known: a hand (2D) and a row of vertebrae (3D).

Drawn as data first (a ``PhantomScene``: rounded parts in world mm) and rendered second, from distance functions, so one
scene can be sampled on any grid. Every landmark is the far apex of one part, where its edge profile passes one half.
The parts repeat: a joint looks like its neighbours, and only the configuration tells which one it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from landmarklabel.errors import TaskError, UsageError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status

# finger: start (x, y), angle from upright in degrees (clockwise), length; y points down, the wrist is the origin
_FINGERS = {
    "thumb": ((-0.13, -0.09), -50.0, 0.88),
    "index": ((-0.10, -0.17), -15.0, 0.95),
    "middle": ((-0.03, -0.18), -4.0, 1.0),
    "ring": ((0.05, -0.17), 7.0, 0.95),
    "little": ((0.12, -0.15), 19.0, 0.82),
}
_CARPALS = np.array([(x, y) for y in (-0.045, -0.115) for x in (-0.09, 0.0, 0.09)])
_SPINE_FRAME = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])  # columns: along the row (up), left, back, in LPS
# Per process: its own axes among its vertebra's, and their signs.
_PROCESSES = {"left": ((1, 2, 0), (1, 1, 1)), "right": ((1, 2, 0), (-1, 1, -1)), "back": ((2, 0, 1), (1, 1, 1))}
# Independent random streams, so that asking for fewer absent landmarks or less noise changes nothing else.
_ANATOMY, _POSE, _ABSENCE, _LOOK, _NOISE, _GEOMETRY = range(6)


@dataclass(frozen=True)
class Part:
    """A rounded solid: an ellipsoid pulled apart along its first axis; bony ones have a bright rim and bright ends."""

    centre: np.ndarray  # (d,)
    frame: np.ndarray  # (d, d) rotation; column 0 is the long axis
    half: float  # half the length of the pulled-apart stretch
    radii: np.ndarray  # (d,) semi-axes of the ellipsoid
    level: float = 1.0  # brightness relative to its layer
    bony: bool = True  # in the bone layer; otherwise soft tissue
    name: str = ""  # the landmark at the far apex, if any

    @property
    def apex(self) -> np.ndarray:
        """(d,): the surface point at the far end of the long axis."""
        made: np.ndarray = self.centre + self.frame[:, 0] * (self.half + self.radii[0])
        return made


@dataclass(frozen=True)
class Phantom:
    """An image with exactly known landmarks: placed, or absent where not drawn or outside the field of view."""

    geometry: ImageGeometry
    pixels: np.ndarray  # uint8 or int16, array order [z, ]y, x
    landmarks: LandmarkSet  # LPS mm


@dataclass(frozen=True)
class PhantomScene:
    """A phantom before sampling: what is where in the world (LPS mm), and how bright (in 0..255)."""

    task: LandmarkTask
    parts: tuple[Part, ...]
    seed: int  # of the noise
    levels: tuple[float, float, float]  # background, soft tissue and bone, each on top of the one before
    waves: np.ndarray  # (m, d + 2) smooth bias field: wave vector (rad/mm), phase, amplitude
    blur_mm: float  # half the width of every edge
    noise: float  # standard deviation

    def render(self, geometry: ImageGeometry, dtype: type = np.uint8, slab_samples: int = 1 << 21) -> Phantom:
        """The scene on a grid, built slab-wise; dtype is np.uint8 (0..255) or np.int16 (about -400..1100, as in CT)."""
        rng = np.random.default_rng([self.seed, _NOISE])
        pixels: np.ndarray = np.empty(geometry.size[::-1], dtype)
        rows = max(1, slab_samples // int(np.prod(geometry.size[:-1])))
        for start in range(0, geometry.size[-1], rows):
            stop = min(start + rows, geometry.size[-1])
            slab = self._slab(geometry, start, stop)
            if self.noise:
                slab += np.float32(self.noise) * rng.standard_normal(slab.shape, np.float32)
            if np.dtype(dtype) == np.int16:
                slab = 6 * slab - 400
            pixels[start:stop] = np.clip(np.rint(slab, out=slab), np.iinfo(dtype).min, np.iinfo(dtype).max, out=slab)
        apex = {part.name: part.apex for part in self.parts if part.name}
        positions = np.array([apex.get(name, np.full(geometry.dims, np.nan)) for name in self.task.names])
        positions[~geometry.contains(positions, margin=0.0)] = np.nan
        status = tuple(Status.PLACED if np.isfinite(p).all() else Status.ABSENT for p in positions)
        return Phantom(geometry, pixels, LandmarkSet(self.task, positions, status))

    def _slab(self, geometry: ImageGeometry, start: int, stop: int) -> np.ndarray:
        """(stop - start, …) float32 intensities, without noise."""
        shape = (stop - start, *geometry.size[-2::-1])
        soft, bone = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        edge_mm = max(self.blur_mm, 0.5 * float(np.prod(geometry.spacing)) ** (1 / geometry.dims))
        for part in self.parts:
            _draw_part(bone if part.bony else soft, part, geometry, start, edge_mm)
        soft = self.levels[0] + self.levels[1] * soft + self.levels[2] * bone
        low, high = np.array([0] * (geometry.dims - 1) + [start]), np.array([*geometry.size[:-1], stop])
        for *wave, phase, amplitude in self.waves:
            ramp = _ramp(np.array(wave) @ geometry.matrix, phase + np.dot(wave, geometry.origin), low, high)
            soft *= 1 + np.float32(amplitude) * np.cos(ramp)
        return soft


def _ramp(slope: np.ndarray, offset: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Float32 ``slope @ index + offset`` on the box of indices low..high - 1, in array order."""
    out: np.ndarray | np.float32 = np.float32(offset)
    for k, (a, lo, hi) in enumerate(zip(slope, low, high, strict=True)):
        out = out + (a * np.arange(lo, hi)).astype(np.float32).reshape((-1,) + (1,) * k)
    return np.asarray(out)


def _draw_part(layer: np.ndarray, part: Part, geometry: ImageGeometry, start: int, edge_mm: float) -> None:
    """Raise ``layer`` (a slab from index ``start`` on) to the part's profile, inside the part's bounding box."""
    reach = part.radii + edge_mm + part.half * np.eye(geometry.dims)[0]
    centre = geometry.world_to_index(part.centre)
    extent = np.abs(np.linalg.solve(geometry.matrix, part.frame)) @ reach
    first = np.array([0] * (geometry.dims - 1) + [start])
    low = np.maximum(np.floor(centre - extent).astype(int), first)
    high = np.minimum(np.ceil(centre + extent).astype(int) + 1, first + layer.shape[::-1])
    if (low >= high).any():
        return
    to_local, offset = part.frame.T @ geometry.matrix, part.frame.T @ (geometry.origin - part.centre)
    local = [_ramp(a, b, low, high) for a, b in zip(to_local, offset, strict=True)]
    box = layer[tuple(slice(lo, hi) for lo, hi in zip((low - first)[::-1], (high - first)[::-1], strict=True))]
    np.maximum(box, _profile(part, local, edge_mm), out=box)


def _profile(part: Part, local: list[np.ndarray], edge_mm: float) -> np.ndarray:
    """Brightness at local coordinates (mm): half of the inside's at the surface, smooth over ``edge_mm`` each way."""
    along = np.abs(local[0]) - np.float32(part.half)
    scaled = [q / np.float32(r) for q, r in zip((np.maximum(along, 0), *local[1:]), part.radii, strict=True)]
    thin = float(part.radii.min())
    # Distance to the ellipsoid: exact for equal radii, first order otherwise; zero exactly on the surface.
    radius = np.sqrt(sum(q**2 for q in scaled) + np.float32(1e-8))
    slope = np.sqrt(sum((q / np.float32(r)) ** 2 for q, r in zip(scaled, part.radii, strict=True)) + 1e-8 / thin**2)
    distance = radius * (radius - 1) / slope
    inside = np.clip(0.5 - distance / np.float32(2 * edge_mm), 0, 1)
    inside = inside * inside * (3 - 2 * inside)
    if not part.bony:
        soft: np.ndarray = inside * np.float32(part.level)
        return soft
    rim = np.exp(-(((distance + np.float32(0.3 * thin)) / np.float32(0.35 * thin)) ** 2))
    ends = np.exp(-((along / np.float32(part.radii[0])) ** 2))
    bony: np.ndarray = inside * (0.5 + 0.25 * rim + 0.3 * ends) * np.float32(part.level)
    return bony


def _rotation(degrees: Sequence[float] | np.ndarray) -> np.ndarray:
    """(d, d) rotation: by one angle in 2D, by three about x, y, z in 3D."""
    planes, out = ([(0, 1)], np.eye(2)) if len(degrees) == 1 else ([(1, 2), (2, 0), (0, 1)], np.eye(3))
    for (i, j), angle in zip(planes, np.radians(degrees), strict=True):
        turn = np.eye(len(out))
        turn[[i, j], [i, j]], turn[j, i], turn[i, j] = np.cos(angle), np.sin(angle), -np.sin(angle)
        out = turn @ out
    return out


def _bone(start: np.ndarray, frame: np.ndarray, length: float, radius: float, level: float = 1.0, name: str = "") -> Part:
    """A capsule from apex ``start`` along the frame's first axis; its radius is less than half its length."""
    radii = np.full(len(start), radius)
    return Part(start + frame[:, 0] * length / 2, frame, length / 2 - radius, radii, level, True, name)


def _hand(n: int, seed: int, pose: float) -> tuple[list[list[list[Part]]], list[Part]]:
    """Limbs (lists of segments, lists of parts) that can be lost, and fixed parts; ``n`` landmarks at least."""
    rng = np.random.default_rng([seed, _ANATOMY])
    limbs, n_bones = [], max(3, -(-(n - 1) // 5))
    for side, x in (("left", -0.075), ("right", 0.075)):
        frame = _rotation([-90 + 4 * np.sign(x) + pose * rng.normal(0, 2)])
        apex = np.array([x, 0.02 + 0.01 * rng.uniform(-1, 1)])
        bone = _bone(apex - 0.9 * frame[:, 0], frame, 0.9, 0.055, rng.uniform(0.9, 1.05), f"wrist_{side}")
        limbs.append([[bone, replace(bone, radii=bone.radii + 0.055, level=0.85, bony=False, name="")]])
    hand_length, bend = rng.normal(1, 0.05), pose * rng.normal(0, 5)
    for finger, (base, angle, length) in _FINGERS.items():
        limb, start, angle = [], np.array(base), angle * rng.uniform(0.9, 1.15)
        names = ["knuckle", *(f"joint{j}" for j in range(1, n_bones - 1 - (finger == "thumb"))), "tip"]
        phalanx = 0.60 / (n_bones - 1) * 0.92 ** np.arange(n_bones)
        for j, joint in enumerate(names):
            long = length * hand_length * (0.33 if j == 0 else phalanx[j]) * rng.normal(1, 0.06)
            radius = min(0.042 * 0.95**j, 0.3 * long) * rng.normal(1, 0.05)
            angle += pose * (rng.normal(0, 4) + (bend if j else 0))
            bone = _bone(start, _rotation([angle - 90]), long, radius, rng.uniform(0.9, 1.05), f"{finger}_{joint}")
            limb.append([bone, replace(bone, radii=bone.radii + 0.035, level=0.85, bony=False, name="")])
            start = bone.apex + bone.frame[:, 0] * 0.02
        limbs.append(limb)
    spots, oval = _CARPALS + rng.normal(0, 0.006, (6, 2)), np.array([0.045, 0.036])
    carpals = [Part(spot, _rotation([rng.uniform(0, 180)]), 0.0, oval, 0.9) for spot in spots]
    return limbs, [Part(np.array([0.0, -0.26]), np.eye(2), 0.0, np.array([0.23, 0.3]), 1.0, False), *carpals]


def _spine(n: int, seed: int, pose: float) -> tuple[list[list[list[Part]]], list[Part]]:
    """Limbs (lists of segments, lists of parts) that can be lost, and fixed parts; ``n`` landmarks at least."""
    rng = np.random.default_rng([seed, _ANATOMY])
    n_vertebrae = max(4, -(-(n - 2) // 3))
    pitch = 0.72 / n_vertebrae * rng.normal(1, 0.03)
    wide, long, thin = min(0.12, 0.8 * pitch), min(0.22, 5 * pitch), 0.2 * pitch
    curl = pose * rng.normal(0, 7, 3) * (1, 1, 0.5) * 4 / n_vertebrae  # degrees per step
    frame, point = _SPINE_FRAME, 0.1 * _SPINE_FRAME[:, 0]
    fixed = [Part(np.zeros(3), frame, 0.0, np.array([0.1, 0.2, 0.12]), 0.9)]
    processes: list[list[list[Part]]] = []
    tail = frame @ _rotation([0, 0, 180]) @ _rotation(pose * rng.normal(0, 8, 3))
    coccyx = [[_bone(0.06 * tail[:, 0], tail, 0.16, min(thin, 0.03), 1.0, "coccyx_tip")]]
    for v in range(n_vertebrae, 0, -1):
        frame = frame @ _rotation(curl + pose * rng.normal(0, 2, 3))
        centre, level = point + frame[:, 0] * pitch / 2, rng.uniform(0.9, 1.05)
        fixed.append(Part(centre, frame, 0.0, np.array([0.42 * pitch, wide, 0.8 * wide]), 0.85 * level))
        vessel = centre + frame @ (0.0, 0.8 * wide, -1.7 * wide)
        fixed.append(Part(vessel, frame, 0.5 * pitch, np.full(3, 0.35 * wide), 1.9, False))
        for side, (axes, signs) in reversed(_PROCESSES.items()):
            own = frame[:, axes] * signs @ _rotation(rng.normal(0, 4, 3) + pose * rng.normal(0, 4, 3))
            root = centre + own[:, 0] * 0.6 * wide + frame[:, 2] * 0.4 * wide
            length, radius = long * rng.normal(1, 0.07), thin * rng.normal(1, 0.05)
            processes.insert(0, [[_bone(root, own, length, radius, level, f"v{v}_{side}")]])
        point = point + frame[:, 0] * pitch
    dens = [[_bone(point - 0.03 * frame[:, 0], frame, 0.14, min(1.3 * thin, 0.045), 1.0, "dens_tip")]]
    torso = Part(point / 2, _SPINE_FRAME, 0.0, np.array([0.9, 0.5, 0.4]), 0.9, False)
    return [dens, coccyx, *processes], [torso, *fixed]


def _definition(name: str) -> str:
    part, _, joint = name.partition("_")
    if part in ("wrist", "dens", "coccyx"):
        bone = f"forearm bone on the {joint} of the image" if part == "wrist" else f"{part}, the peg that ends the row"
        return f"Far end of the {bone}"
    if part[1:].isdigit():
        return f"Tip of the {joint} process of vertebra {part[1:]}, counted from the top"
    bone = {"knuckle": "first bone", "tip": "last bone"}.get(joint) or f"bone {int(joint[5:]) + 1}"
    return f"Far end of the axis of the {part}'s {bone}, counted from the wrist"


def phantom_task(dims: int, n_landmarks: int | None = None) -> LandmarkTask:
    """The task ``phantom2d`` (default 16 landmarks) or ``phantom3d`` (14); TaskError for other dims or no landmarks."""
    if dims not in (2, 3) or (n_landmarks is not None and n_landmarks < 1):
        raise TaskError("phantom", [f"dims {dims!r} must be 2 or 3 and n_landmarks {n_landmarks!r} at least 1"])
    n = n_landmarks or (16 if dims == 2 else 14)
    limbs = [[segment[0].name for segment in limb] for limb in (_hand if dims == 2 else _spine)(n, 0, 0.0)[0]]
    tips_first = sorted((rank, i, name) for i, limb in enumerate(limbs) for rank, name in enumerate(reversed(limb)))
    kept = {name for *_, name in tips_first[:n]}
    names = tuple(name for limb in limbs for name in limb if name in kept)
    pairs = tuple((n, n[:-4] + "right") for n in names if n.endswith("left") and n[:-4] + "right" in kept)
    return LandmarkTask(f"phantom{dims}d", names, dims, {n: _definition(n) for n in names}, pairs)


def _lose(limbs: list[list[list[Part]]], names: Sequence[str], fraction: float, seed: int) -> list[Part]:
    """What is left when each limb loses its last k landmarks, k binomial: a landmark's mean risk is ``fraction``."""
    left: list[Part] = []
    rng = np.random.default_rng([seed, _ABSENCE])
    for limb in limbs:
        at = [i for i, segment in enumerate(limb) if segment[0].name in names]
        removed = rng.binomial(len(at), fraction)
        left += chain.from_iterable(limb[: at[-removed]] if removed else limb)
    return left


def _grid(dims: int, size: Any, spacing: Any, oblique: bool, seed: int) -> ImageGeometry:
    rng = np.random.default_rng([abs(seed), _GEOMETRY])  # a negative one is refused later
    size = tuple(np.broadcast_to(((128, 160) if dims == 2 else 48) if size is None else size, (dims,)).tolist())
    spacing = np.broadcast_to(np.asarray((1.0 if dims == 2 else 2.0) if spacing is None else spacing, float), (dims,))
    if dims == 2:
        return ImageGeometry.identity(size, spacing)
    direction, centre = np.eye(3), np.zeros(3)
    if oblique:
        direction = np.eye(3)[:, rng.permutation(3)] * rng.choice((-1, 1), 3)
        direction = _rotation(rng.uniform(-15, 15, 3)) @ direction * np.sign(np.linalg.det(direction))
        centre = rng.uniform(-60, 60, 3)
    return ImageGeometry(size, spacing, centre - direction @ ((np.array(size) - 1) / 2 * spacing), direction)


def _distractors(rng: np.random.Generator, avoid: np.ndarray, geometry: ImageGeometry, unit_mm: float) -> list[Part]:
    """Blobs, some soft and some bony, each at the emptiest of a few random places."""
    blobs, d = [], geometry.dims
    for bony in (False,) * rng.integers(1, 5) + (True,) * rng.integers(0, 3):
        places = geometry.index_to_world(rng.uniform(0, np.array(geometry.size) - 1, (5, d)))
        emptiest = places[np.linalg.norm(places[:, None] - avoid, axis=-1).min(axis=1).argmax()]
        radii = unit_mm * (rng.uniform(0.03, 0.05, d) if bony else rng.uniform(0.04, 0.15, d))
        half, level = bony * unit_mm * rng.uniform(0, 0.08), rng.uniform(0.5, 1.0 if bony else 1.4)
        blobs.append(Part(emptiest, _rotation(rng.uniform(-180, 180, 2 * d - 3)), half, radii, level, bony))
    return blobs


def draw_scene(
    task: LandmarkTask, seed: int, geometry: ImageGeometry, *, absent_fraction: float = 0.1, pose: float = 1.0, noise: float = 1.0
) -> PhantomScene:
    """A random scene for the field of view of ``geometry``; arguments and errors as in ``draw_phantom``."""
    if not 0 <= absent_fraction <= 1 or min(pose, noise, seed) < 0:
        raise UsageError(f"absent_fraction {absent_fraction} not in 0..1, or {pose=}, {noise=} or {seed=} negative")
    limbs, fixed = (_hand if task.dims == 2 else _spine)(len(task), seed, pose)
    apex = {segment[0].name: segment[0].apex for limb in limbs for segment in limb}
    if unknown := [n for n in task.names if n not in apex]:
        raise TaskError(f"task {task.name!r}", [f"no phantom landmark is called {unknown[0]!r}; use phantom_task()"])
    points = np.array([*apex.values()])
    # The landmarks' bounding box fits the field of view at any scale and shift that pose <= 1 can draw.
    rng = np.random.default_rng([seed, _POSE])
    turn = _rotation(pose * rng.uniform(-1, 1, 1 if task.dims == 2 else 3) * (20 if task.dims == 2 else 15))
    view = geometry.direction.T @ turn @ points.T
    field_mm = np.array(geometry.size) * geometry.spacing
    room = 0.9 * field_mm
    scale = float((room / np.ptp(view, axis=1)).min()) * np.exp(-0.3 * pose * rng.uniform())
    grow = scale * turn
    slack = np.maximum(room - np.ptp(view, axis=1) * scale, 0) * min(pose, 1) + field_mm * max(pose - 1, 0) / 2
    shift = rng.uniform(-0.5, 0.5, task.dims) * slack - scale * (view.max(axis=1) + view.min(axis=1)) / 2
    shift_mm = geometry.index_to_world((np.array(geometry.size) - 1) / 2) + geometry.direction @ shift
    rng = np.random.default_rng([seed, _LOOK])
    levels = tuple(rng.uniform((15, 25, 70), (45, 55, 130)).tolist())
    vectors, phases = rng.normal(0, 2.5, (2, task.dims)) / field_mm, rng.uniform(0, 2 * np.pi, 2)
    waves = np.column_stack([vectors, phases, rng.uniform(0.02, 0.12, 2)])
    blur_mm, noise_level = scale * rng.uniform(0.008, 0.02), noise * rng.uniform(3, 9)
    blobs = _distractors(rng, points @ grow.T + shift_mm, geometry, scale)
    placed = [
        Part(grow @ p.centre + shift_mm, turn @ p.frame, scale * p.half, scale * p.radii, p.level, p.bony, p.name)
        for p in fixed + _lose(limbs, task.names, absent_fraction, seed)
    ]
    return PhantomScene(task, (*placed, *blobs), seed, levels, waves, blur_mm, noise_level)


def draw_phantom(
    task: LandmarkTask,
    seed: int,
    *,
    size: int | Sequence[int] | None = None,
    spacing: float | Sequence[float] | None = None,
    absent_fraction: float = 0.1,
    pose: float = 1.0,
    noise: float = 1.0,
    oblique: bool = False,
) -> Phantom:
    """A random hand (2D, uint8) or row of vertebrae (3D, int16).

    Args:
        task: from ``phantom_task``.
        seed: not negative; the same seed gives the same phantom.
        size: samples along x, y[, z]; default (128, 160) or 48.
        spacing: mm along x, y[, z]; default 1 in 2D, 2 in 3D.
        absent_fraction: mean share of landmarks whose structure is not drawn.
        pose: scales rotation, shift, size change and joint angles; up to 1 no landmark leaves the field of view.
        noise: scales the noise; 0 for none.
        oblique: 3D only: axes permuted, flipped and tilted, and the image's centre away from 0.
    TaskError for a landmark that phantoms do not have, UsageError for a number out of range.
    """
    geometry = _grid(task.dims, size, spacing, oblique, seed)
    scene = draw_scene(task, seed, geometry, absent_fraction=absent_fraction, pose=pose, noise=noise)
    return scene.render(geometry, np.uint8 if task.dims == 2 else np.int16)


def big_phantom(size: int, n_landmarks: int, seed: int) -> Phantom:
    """A 3D uint8 phantom of ``size`` cubed samples at 1 mm; 512 with 100 landmarks takes seconds and little memory."""
    geometry = _grid(3, size, 1.0, False, seed)
    return draw_scene(phantom_task(3, n_landmarks), seed, geometry).render(geometry)
