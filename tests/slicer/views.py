"""Slicer's slice views without desktop Slicer: real MRML, displayable managers and interaction, drawn offscreen.

What is stood in for: the Qt widget around the view and CTK's light box renderer, which a plain image actor replaces. Pixels are
VTK's: (0, 0) is the lower left one. Pictures are arrays as files have them: row 0 is the top.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import numpy as np
import slicer
import vtk
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy

if sys.platform.startswith("linux"):
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")  # no search for an X server, and no warning about it

NUMBERS = itertools.count()  # a name that was used before would find a node that is in no scene any more
MANAGERS = ("vtkMRMLModelSliceDisplayableManager", "vtkMRMLMarkupsDisplayableManager", "vtkMRMLCrosshairDisplayableManager")
NO_OPENGL = (
    "no offscreen OpenGL: VTK made a {} and it found no driver. "
    "On Debian and Ubuntu: apt-get install libegl1 libgl1-mesa-dri (or libosmesa6)"
)


def application_logic(scene):
    """The scene's application logic, with what Slicer's own start adds for markups and volumes to be drawn.

    Raises:
        AssertionError: markups are not known to the application; they would never be drawn.
    """
    vtk.vtkMapper.SetResolveCoincidentTopologyToPolygonOffset()  # as qMRMLWidget does: otherwise markups warn
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    application.SetSliceLogics(vtk.vtkCollection())
    scene.AddNode(slicer.vtkMRMLCrosshairNode())
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    colours = slicer.vtkSlicerColorLogic()
    colours.SetMRMLApplicationLogic(application)
    colours.SetMRMLScene(scene)
    colours.AddDefaultColorNodes()
    application.SetColorLogic(colours)
    application.SetModuleLogic("Colors", colours)
    markups = slicer.vtkSlicerMarkupsLogic()  # registers the widgets by which points are drawn and dragged
    markups.SetMRMLApplicationLogic(application)
    markups.SetMRMLScene(scene)
    application.SetModuleLogic("Markups", markups)
    application.kept = colours, markups  # it does not own them
    assert application.GetModuleLogic("Markups").IsMarkupsNodeRegistered("vtkMRMLMarkupsFiducialNode")
    return application


def volumes_logic(application, scene):
    """What ``slicer.modules.volumes.logic()`` is: it knows the application's colours."""
    if getattr(application, "volumes", None) is None:
        application.volumes = slicer.vtkSlicerVolumesLogic()
        application.volumes.SetMRMLApplicationLogic(application)
        application.volumes.SetMRMLScene(scene)
    return application.volumes


def add_volume(scene, voxels: np.ndarray, ijk_to_ras: np.ndarray, window: float = 255.0):
    """A scalar volume; ``voxels`` are indexed k, j, i, and grey values from 0 to ``window`` go from black to white."""
    image, matrix = vtk.vtkImageData(), vtk.vtkMatrix4x4()
    image.SetDimensions(voxels.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(voxels).ravel(), deep=True))
    matrix.DeepCopy(np.asarray(ijk_to_ras, float).ravel())
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "volume")
    volume.SetAndObserveImageData(image)
    volume.SetIJKToRASMatrix(matrix)
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().SetAutoWindowLevel(False)
    volume.GetDisplayNode().SetWindowLevel(window, window / 2)
    return volume


def offscreen_window(width: int, height: int):
    """A window that is never shown.

    Raises:
        RuntimeError: there is no OpenGL for it; drawing all the same would end the process.
    """
    window = vtk.vtkRenderWindow()
    window.SetShowWindow(False)
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(0)
    window.SetSize(width, height)
    window.Initialize()
    if not window.GetInitialized():
        raise RuntimeError(NO_OPENGL.format(window.GetClassName()))
    return window


class SliceView:
    """One slice view.

    Args:
        application: from ``application_logic``.
        volume: shown in the background and fitted into the view; None for an empty view.
        orientation: Axial, Coronal or Sagittal.
        size: width and height in pixels.
    """

    def __init__(self, application, volume=None, orientation: str = "Axial", size: tuple[int, int] = (320, 240)):
        self.application, self.size = application, size
        self.window, self.renderer = offscreen_window(*size), vtk.vtkRenderer()
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkGenericRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())  # VTK's own would move the camera
        self.interactor.Initialize()
        self._make_logic(volume, orientation)
        self._make_image()
        self._make_managers()

    def _make_logic(self, volume, orientation: str) -> None:
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(self.application)
        self.logic.SetMRMLScene(self.application.GetMRMLScene())
        self.node = self.logic.AddSliceNode(f"{orientation} {next(NUMBERS)}")
        self.node.SetOrientation(orientation)
        self.application.GetSliceLogics().AddItem(self.logic)
        self.logic.ResizeSliceNode(*self.size)
        if volume is not None:
            self.logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
            self.logic.FitSliceToAll()

    def _make_image(self) -> None:
        self._mapper, self._image = vtk.vtkImageMapper(), vtk.vtkActor2D()
        self._mapper.SetColorWindow(255)  # the logic's image has grey values for the screen already
        self._mapper.SetColorLevel(127.5)
        self._image.SetMapper(self._mapper)
        self._image.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(self._image)

    def _make_managers(self) -> None:
        self._managers = slicer.vtkMRMLDisplayableManagerGroup()
        self._managers.SetRenderer(self.renderer)
        for name in MANAGERS:
            manager = getattr(slicer, name)()
            manager.SetMRMLApplicationLogic(self.application)
            self._managers.AddDisplayableManager(manager)
        self._managers.SetMRMLDisplayableNode(self.node)
        self.logic.SetDisplayableManagerGroup(self._managers)
        self._style = slicer.vtkMRMLSliceViewInteractorStyle()
        self._style.SetSliceLogic(self.logic)
        self._style.SetDisplayableManagers(self._managers)
        self._style.SetInteractor(self.interactor)

    def close(self) -> None:
        """Give the window back and leave the scene."""
        self._style.SetInteractor(None)
        self._managers.SetMRMLDisplayableNode(None)
        self.application.GetSliceLogics().RemoveItem(self.logic)
        self.logic.SetMRMLScene(None)
        self.window.Finalize()

    def render(self) -> np.ndarray:
        """The view as it is now: height x width x 3."""
        connection = self.logic.GetImageDataConnection()
        self._image.SetVisibility(connection is not None)
        self._mapper.SetInputConnection(connection)
        self.window.Render()
        pixels, (width, height) = vtk.vtkUnsignedCharArray(), self.size
        self.window.GetPixelData(0, 0, width - 1, height - 1, 0, pixels, 0)
        return vtk_to_numpy(pixels).reshape(height, width, 3)[::-1].copy()

    def colour_at(self, x: float, y: float) -> np.ndarray:
        """Red, green and blue of a pixel as it is now."""
        return self.render()[self.size[1] - 1 - round(y), round(x)].astype(int)

    def save(self, path: Path) -> None:
        """Write the view as a PNG file."""
        write_png(path, self.render())

    def ras_at(self, x: float, y: float) -> np.ndarray:
        """Where in space a pixel is."""
        return np.array(self.node.GetXYToRAS().MultiplyPoint((x, y, 0, 1))[:3])

    def xy_of(self, ras) -> np.ndarray:
        """At which pixel, with fractions, a point in space is, or would be if the slice went through it."""
        inverse = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.node.GetXYToRAS(), inverse)
        return np.array(inverse.MultiplyPoint((*ras, 1))[:2])

    def move(self, x: float, y: float) -> None:
        """The mouse comes to a pixel."""
        self._event("MouseMoveEvent", x, y)

    def click(self, x: float, y: float) -> None:
        """The mouse comes to a pixel, and its left button is pressed and released."""
        self.drag((x, y), (x, y), 0)

    def drag(self, start, end, steps: int = 5, button: str = "Left") -> None:
        """A button is pressed at one pixel, the mouse moved in so many steps to another and the button released."""
        self._event("EnterEvent", *start)
        self._event("MouseMoveEvent", *start)
        self._event(f"{button}ButtonPressEvent", *start)
        for step in range(1, steps + 1):
            self._event("MouseMoveEvent", *(a + (b - a) * step / steps for a, b in zip(start, end, strict=True)))
        self._event(f"{button}ButtonReleaseEvent", *end)

    def press(self, key: str, x: float, y: float) -> None:
        """A key is pressed while the mouse is at a pixel."""
        self._event("MouseMoveEvent", x, y)
        self.interactor.SetKeySym(key)
        self._event("KeyPressEvent", x, y)
        self._event("KeyReleaseEvent", x, y)

    def _event(self, name: str, x: float, y: float) -> None:
        self.interactor.SetEventInformation(round(x), round(y), 0, 0)
        self.interactor.InvokeEvent(name)


def write_png(path: Path, picture: np.ndarray) -> None:
    """A picture into a PNG file."""
    image, writer = vtk.vtkImageData(), vtk.vtkPNGWriter()
    image.SetDimensions(picture.shape[1], picture.shape[0], 1)
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(picture[::-1]).reshape(-1, 3), deep=True))
    writer.SetFileName(str(path))
    writer.SetInputData(image)
    writer.Write()


def read_png(path: Path) -> np.ndarray:
    """A picture from a PNG file."""
    reader = vtk.vtkPNGReader()
    reader.SetFileName(str(path))
    reader.Update()
    width, height, _ = reader.GetOutput().GetDimensions()
    return vtk_to_numpy(reader.GetOutput().GetPointData().GetScalars()).reshape(height, width, 3)[::-1]
