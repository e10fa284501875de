"""Where the samples of an image lie in the world. Every frame and index conversion of the project lives here.

Frames: *world* is LPS millimetres; *index* is continuous, in SimpleITK's axis order (x, y[, z]), pixel centres at
whole numbers; *array* axes are the reverse of index axes (a pixel array is [z, y, x]).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landmarklabel.errors import FaultsError


@dataclass(frozen=True)
class ImageGeometry:
    """Size, spacing, origin and direction of an image, without its pixels.

    Args:
        size: samples along x, y[, z].
        spacing: mm between samples along each index axis, positive.
        origin: (d,) LPS mm of the first sample's centre.
        direction: (d, d), columns are the world directions of the index axes, orthonormal within 1e-3.

    Raises:
        FaultsError: non-finite, non-positive or singular values.
    """

    size: tuple[int, ...]
    spacing: np.ndarray
    origin: np.ndarray
    direction: np.ndarray

    def __post_init__(self) -> None:
        d = len(self.size)
        spacing, origin = np.array(self.spacing, np.float64).ravel(), np.array(self.origin, np.float64).ravel()
        direction = np.array(self.direction, np.float64).reshape(-1)
        faults = []
        if d not in (2, 3):
            faults.append(f"{d} dimensions; allowed are 2 and 3")
        if any(int(s) < 1 for s in self.size):
            faults.append(f"size {tuple(self.size)} must be positive")
        if (spacing.size, origin.size, direction.size) != (d, d, d * d):
            faults.append(f"spacing, origin and direction do not have {d} dimensions")
        elif not (np.isfinite(spacing).all() and (spacing > 0).all()):
            faults.append(f"spacing {spacing.tolist()} must be finite and positive")
        elif not (np.isfinite(origin).all() and np.isfinite(direction).all()):
            faults.append(f"origin {origin.tolist()} and direction must be finite")
        else:
            direction = direction.reshape(d, d)
            if np.abs(direction.T @ direction - np.eye(d)).max() > 1e-3:
                faults.append(f"direction {direction.round(4).tolist()} is singular or not orthonormal")
        if faults:
            raise FaultsError("image geometry", faults)
        for array in (spacing, origin, direction):
            array.flags.writeable = False
        object.__setattr__(self, "size", tuple(int(s) for s in self.size))
        object.__setattr__(self, "spacing", spacing)
        object.__setattr__(self, "origin", origin)
        object.__setattr__(self, "direction", direction)

    @staticmethod
    def identity(size: tuple[int, ...], spacing: float | tuple = 1.0, origin: tuple | None = None) -> ImageGeometry:
        """Axis-aligned geometry with the first sample at ``origin`` (default 0)."""
        d = len(size)
        first = np.zeros(d) if origin is None else np.asarray(origin, float)
        return ImageGeometry(size, np.broadcast_to(np.asarray(spacing, float), (d,)), first, np.eye(d))

    @property
    def dims(self) -> int:
        return len(self.size)

    @property
    def matrix(self) -> np.ndarray:
        """(d, d) matrix that maps an index step to world mm."""
        made: np.ndarray = self.direction * self.spacing
        return made

    def index_to_world(self, index: np.ndarray) -> np.ndarray:
        """(…, d) continuous index (x, y[, z]) to (…, d) LPS mm."""
        made: np.ndarray = np.asarray(index, np.float64) @ self.matrix.T + self.origin
        return made

    def world_to_index(self, positions_mm: np.ndarray) -> np.ndarray:
        """(…, d) LPS mm to (…, d) continuous index (x, y[, z])."""
        made: np.ndarray = (np.asarray(positions_mm, np.float64) - self.origin) @ np.linalg.inv(self.matrix).T
        return made

    def contains(self, positions_mm: np.ndarray, margin: float = 0.5) -> np.ndarray:
        """(…,) bool: inside the field of view, with ``margin`` samples around the outer sample centres."""
        index = self.world_to_index(positions_mm)
        made: np.ndarray = ((index >= -margin) & (index <= np.array(self.size) - 1 + margin)).all(axis=-1)
        return made

    @property
    def corners_mm(self) -> np.ndarray:
        """(2^d, d) LPS mm: centres of the corner samples."""
        axes = [(0, s - 1) for s in self.size]
        return self.index_to_world(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, self.dims))

    @property
    def bounds_mm(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest LPS mm of the outer sample edges along each world axis."""
        half = np.abs(self.matrix).sum(axis=1) / 2
        corners = self.corners_mm
        return corners.min(axis=0) - half, corners.max(axis=0) + half


@dataclass(frozen=True)
class SlicePlane:
    """Where a single slice lies that a 2D task sees as a 2D image.

    Args:
        flat: the 2D geometry. An axial slice keeps the world's x and y; any other has a frame of its own: mm along its rows and
            columns from its first sample.
        stored: the 3D geometry, one sample along one of its axes.
        is_axial: whether the 2D frame is the world's x and y.
    """

    flat: ImageGeometry
    stored: ImageGeometry
    is_axial: bool

    @staticmethod
    def of(stored: ImageGeometry) -> SlicePlane:
        """The plane of a 3D geometry with exactly one sample along one axis. Raises FaultsError for any other."""
        if stored.dims != 3 or stored.size.count(1) != 1:
            raise FaultsError("image geometry", [f"size {stored.size} is no single slice"])
        kept = [axis for axis in range(3) if stored.size[axis] != 1]
        size, spacing = tuple(stored.size[axis] for axis in kept), stored.spacing[kept]
        across = stored.direction[:2, kept]
        if np.abs(across.T @ across - np.eye(2)).max() <= 1e-3:
            return SlicePlane(ImageGeometry(size, spacing, stored.origin[:2], across), stored, True)
        return SlicePlane(ImageGeometry(size, spacing, np.zeros(2), np.eye(2)), stored, False)

    @property
    def _kept(self) -> list[int]:
        return [axis for axis in range(3) if self.stored.size[axis] != 1]

    @property
    def half_mm(self) -> float:
        """Half of the slice's thickness in mm: how far off the slice its points may lie."""
        (single,) = (axis for axis in range(3) if axis not in self._kept)
        return float(self.stored.spacing[single]) / 2

    def lift(self, positions_mm: np.ndarray) -> np.ndarray:
        """(…, 2) mm of the 2D image to (…, 3) LPS mm on the slice."""
        index = self.flat.world_to_index(positions_mm)
        full = np.zeros((*index.shape[:-1], 3))
        full[..., self._kept] = index
        return self.stored.index_to_world(full)

    def drop(self, positions_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(…, 3) LPS mm to (…, 2) mm of the 2D image, and (…,) how far off the slice they are in mm."""
        full = self.stored.world_to_index(positions_mm)
        (single,) = (axis for axis in range(3) if axis not in self._kept)
        return self.flat.index_to_world(full[..., self._kept]), np.abs(full[..., single]) * self.stored.spacing[single]


def axis_aligned_grid(geometry: ImageGeometry, spacing_mm: float) -> ImageGeometry:
    """The smallest isotropic grid along the world axes that covers an image: the frame networks work in.

    Because it depends only on where the image lies in the world, the same image stored with other axis orders gives the
    same grid.

    Args:
        geometry: the image's.
        spacing_mm: distance of the grid's samples in mm.
    """
    low, high = geometry.bounds_mm
    size = np.maximum(np.ceil((high - low) / spacing_mm - 1e-6).astype(int), 1)
    centre = (low + high) / 2
    return ImageGeometry.identity(tuple(size), spacing_mm, tuple(centre - (size - 1) / 2 * spacing_mm))
