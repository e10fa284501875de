"""Images in Slicer: with ``surfaces``, ``markups``, ``markup_helpers`` and ``scene_nodes`` all that touches MRML."""

from __future__ import annotations

import math
from pathlib import Path

import vtk

from .markups import flipped
from .scene_nodes import of_class, remove
from .surfaces import CaseSurface, is_surface_volume, open_models, write_model

PICTURES = {
    ".png": vtk.vtkPNGReader,
    ".jpg": vtk.vtkJPEGReader,
    ".jpeg": vtk.vtkJPEGReader,
    ".tif": vtk.vtkTIFFReader,
    ".tiff": vtk.vtkTIFFReader,
    ".bmp": vtk.vtkBMPReader,
}
SINGLE_FILE = 4  # a loading option of Slicer's: else files beside it whose names count on become slices of the same volume
HALF_VOXEL = 0.5 + 1e-6  # an image reaches half a voxel beyond the middle of its outer voxels


class CaseVolume:
    """The image of the open case; the one before is taken out of the scene.

    Args:
        scene: where it lives.
    """

    def __init__(self, scene):
        self.scene, self.node, self.surface = scene, None, CaseSurface(scene)
        self.shown: tuple[str, Path, str] | None = None  # name, file and pixels of what was last asked for
        self._loaded_as: tuple[float, ...] = ()  # where the image lay in the scene when it was loaded, and its size

    @property
    def is_gone(self) -> bool:
        """Whether somebody has closed the scene, or taken the image or its surface out of it."""
        return self.node is not None and self.node.GetScene() is None or self.surface.is_gone

    def show(self, path: Path, name: str, pixels: str = "") -> bool:
        """Load a file and show it in all slice views; False when Slicer cannot read it.

        Args:
            path: the file.
            name: of the case.
            pixels: hash of the image's pixels, as far as it is known.
        """
        import slicer

        self.close()
        self.shown = (name, path, pixels)
        if path.suffix.lower() in PICTURES:
            self.node = self._picture(path, name)
        else:  # the module's own logic knows the colours: one that is made here would draw everything black
            self.node = slicer.modules.volumes.logic().AddArchetypeVolume(str(path), name, SINGLE_FILE)
        if self.node is None:
            return False
        self._loaded_as = _geometry(self.node)
        if is_surface_volume(path):
            self.surface.show(self.node, f"{name} surface")
        slicer.util.setSliceViewerLayers(background=self.node, fit=True)
        return True

    def _picture(self, path: Path, name: str):
        """A picture as a grey volume of one slice: a pixel is a millimetre, its first row at the top, as the server has it."""
        reader = PICTURES[path.suffix.lower()]()
        if not reader.CanReadFile(str(path)):
            return None
        reader.SetFileName(str(path))
        reader.Update()
        pixels = reader.GetOutput()
        if not isinstance(reader, vtk.vtkTIFFReader):  # which alone begins at the top
            upright = vtk.vtkImageFlip()
            upright.SetInputData(pixels)
            upright.SetFilteredAxis(1)
            upright.Update()
            pixels = upright.GetOutput()
        if pixels.GetNumberOfScalarComponents() >= 3:
            colours, grey = vtk.vtkImageExtractComponents(), vtk.vtkImageLuminance()
            colours.SetInputData(pixels)
            colours.SetComponents(0, 1, 2)
            grey.SetInputConnection(colours.GetOutputPort())
            grey.Update()
            pixels = grey.GetOutput()
        node = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        pixels.SetOrigin(0, 0, 0)
        pixels.SetSpacing(1, 1, 1)
        node.SetIJKToRASDirections(-1, 0, 0, 0, -1, 0, 0, 0, 1)
        node.SetAndObserveImageData(pixels)
        node.CreateDefaultDisplayNodes()
        return node

    def has(self, position: tuple) -> bool:
        """Whether a place in LPS mm is inside the image; True where there is no image to compare with."""
        if self.node is None or self.is_gone or self.node.GetImageData() is None:
            return True
        if not all(math.isfinite(v) for v in position):
            return False
        to_ijk = vtk.vtkMatrix4x4()
        self.node.GetRASToIJKMatrix(to_ijk)
        ijk = to_ijk.MultiplyPoint((*flipped(position), 1))[:3]
        return all(-HALF_VOXEL <= v <= n - 1 + HALF_VOXEL for v, n in zip(ijk, self.node.GetImageData().GetDimensions()))

    def close(self) -> None:
        """Take it out of the scene, if it is still there."""
        remove(self.scene, self.node)
        self.surface.close()
        self.node, self.shown = None, None

    @property
    def moved_by(self) -> str:
        """Name of the transform that moves the image or its surface away from where the server has it; empty without one."""
        nodes = [node for node in (self.node, self.surface.node) if node is not None and node.GetScene() is not None]
        moving = [transform for node in nodes if (transform := node.GetParentTransformNode()) is not None]
        return moving[0].GetName() if moving else ""

    @property
    def is_changed(self) -> bool:
        """Whether somebody has centred, cropped or hardened the image, so that it lies elsewhere than on the server."""
        return self.shown is not None and self.node is not None and not self.is_gone and _geometry(self.node) != self._loaded_as


def _geometry(node) -> tuple[float, ...]:
    to_ras = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(to_ras)
    size = node.GetImageData().GetDimensions() if node.GetImageData() is not None else ()
    return (*(to_ras.GetElement(i, k) for i in range(3) for k in range(4)), *size)


def open_images(scene) -> list:
    """All scalar volumes of a scene, and the models that a person has opened."""
    return of_class(scene, "vtkMRMLScalarVolumeNode") + open_models(scene)


def suffix_of(node) -> str:
    """Of the file that ``write`` makes of a volume or a model."""
    return ".ply" if node.IsA("vtkMRMLModelNode") else ".nrrd"


def write(node, path: Path) -> bool:
    """Write a volume, without compression: quicker than sending less. Or a model."""
    import slicer

    if node.IsA("vtkMRMLModelNode"):
        return write_model(node, path)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetUseCompression(False)
    return bool(storage.WriteData(node))
