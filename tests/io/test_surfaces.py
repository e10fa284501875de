"""Surfaces of other programs: where they lie, their volume, the nearest place on them, and what is refused in words."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from landmarklabel.errors import ImageRejected, StudyError, UsageError
from landmarklabel.io.images import describe_image, read_image
from landmarklabel.io.surface_formats import convert, stated_unit, with_stated_units
from landmarklabel.io.surfaces import CONFIG, Surface, distance_volume, is_own_surface, read_surface, write_surface
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.store.study import Study

vtk = pytest.importorskip("vtk", reason="surfaces of other programs need VTK: pip install vtk")
COARSE = replace(CONFIG, samples=40)
WRITERS = {
    ".ply": "vtkPLYWriter",
    ".stl": "vtkSTLWriter",
    ".obj": "vtkOBJWriter",
    ".vtp": "vtkXMLPolyDataWriter",
    ".vtk": "vtkPolyDataWriter",
}


def sphere(radius: float = 10, centre: tuple[float, float, float] = (5, -7, 30), resolution: int = 40):
    source = vtk.vtkSphereSource()
    source.SetRadius(radius)
    source.SetCenter(*centre)
    source.SetThetaResolution(resolution)
    source.SetPhiResolution(resolution)
    source.Update()
    return source.GetOutput()


def written(data, path: Path, header: str = "") -> Path:
    writer = getattr(vtk, WRITERS[path.suffix])()
    writer.SetFileName(str(path))
    writer.SetInputData(data)
    if header and path.suffix == ".ply":
        writer.AddComment(header)
    elif header:
        writer.SetHeader(header)
    writer.Write()
    return path


def with_triangles(points: np.ndarray, triangles: list[tuple[int, int, int]]):
    data, places, cells = vtk.vtkPolyData(), vtk.vtkPoints(), vtk.vtkCellArray()
    places.SetDataTypeToDouble()
    for point in points:
        places.InsertNextPoint(*point)
    for triangle in triangles:
        cells.InsertNextCell(3, triangle)
    data.SetPoints(places)
    data.SetPolys(cells)
    return data


def centre_and_radius(surface: Surface) -> tuple[np.ndarray, float]:
    middle = (surface.vertices.min(0) + surface.vertices.max(0)) / 2
    return middle, float(np.linalg.norm(surface.vertices - middle, axis=1).max())


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(("unit", "mm"), [("mm", 1), ("cm", 10), ("m", 1000), ("um", 0.001)])
def test_every_format_gives_the_same_surface_in_mm(tmp_path, suffix, unit, mm):
    path = written(sphere(), tmp_path / f"ball{suffix}")
    middle, radius = centre_and_radius(convert(path, unit).surface)
    assert np.allclose(middle, np.array([5, -7, 30]) * mm, rtol=1e-5) and radius == pytest.approx(10 * mm, rel=1e-4)


@pytest.mark.parametrize("binary", ["ascii", "binary", "appended"])
def test_a_frame_in_a_field_of_a_vtp_file_counts_as_slicer_writes_it(tmp_path, binary):
    data, frame = sphere(), vtk.vtkStringArray()
    frame.SetName("SPACE")
    frame.InsertNextValue("RAS")
    data.GetFieldData().AddArray(frame)
    writer = vtk.vtkXMLPolyDataWriter()
    writer.SetFileName(str(tmp_path / "ball.vtp"))
    writer.SetInputData(data)
    {"ascii": writer.SetDataModeToAscii, "binary": writer.SetDataModeToBinary, "appended": writer.SetDataModeToAppended}[binary]()
    writer.Write()
    made = convert(tmp_path / "ball.vtp", "mm")
    assert np.allclose(centre_and_radius(made.surface)[0], [-5, 7, 30], atol=1e-4)


@pytest.mark.parametrize(("suffix", "header"), [(".ply", "SPACE=RAS"), (".stl", "SPACE=RAS"), (".vtk", "SPACE=RAS")])
def test_a_frame_that_the_file_states_as_slicer_does_counts(tmp_path, suffix, header):
    path = written(sphere(), tmp_path / f"ball{suffix}", header)
    made = convert(path, "mm", "LPS")
    assert np.allclose(centre_and_radius(made.surface)[0], [-5, 7, 30], atol=1e-4)
    assert made.remarks == ("its file states the frame RAS, which counts, and not LPS",)
    bare = written(sphere(), tmp_path / f"bare{suffix}")
    assert np.allclose(centre_and_radius(convert(bare, "mm", "RAS").surface)[0], [-5, 7, 30], atol=1e-4)
    assert np.allclose(centre_and_radius(convert(bare, "mm").surface)[0], [5, -7, 30], atol=1e-4)


def test_colours_and_lines_are_left_out_in_words(tmp_path):
    data, colours, line = sphere(), vtk.vtkUnsignedCharArray(), vtk.vtkCellArray()
    colours.SetNumberOfTuples(data.GetNumberOfPoints())
    colours.Fill(7)
    data.GetPointData().SetScalars(colours)
    line.InsertNextCell(2, (0, 1))
    data.SetLines(line)
    made = convert(written(data, tmp_path / "ball.vtp"), "mm")
    assert made.remarks == ("colours and textures are not looked at", "lines in it are left out")
    assert len(made.surface.faces) == sphere().GetNumberOfPolys()


def test_grey_values_tell_the_distance_and_the_side_however_the_triangles_are_turned(tmp_path):
    inside_out = vtk.vtkReverseSense()
    inside_out.SetInputData(sphere(resolution=120))
    inside_out.Update()
    surface = convert(written(inside_out.GetOutput(), tmp_path / "ball.ply"), "mm").surface
    image = distance_volume(surface, COARSE)
    spacing = image.geometry.spacing[0]
    assert spacing == pytest.approx(0.5, rel=1e-3)
    index = np.argwhere(np.ones(image.pixels.shape, bool))[:, ::-1]
    inward = 10 - np.linalg.norm(image.geometry.index_to_world(index) - [5, -7, 30], axis=1)
    wanted = 128 + 127 * np.clip(inward / spacing / COARSE.band, -1, 1)
    assert np.abs(image.pixels.ravel() - wanted).max() < 127 * 0.1 / COARSE.band + 1  # a tenth of a sample


def test_a_surface_with_a_hole_is_bright_at_the_surface_and_dark_far_from_it(tmp_path):
    cut, plane = vtk.vtkClipPolyData(), vtk.vtkPlane()
    plane.SetOrigin(5, -7, 33)
    plane.SetNormal(0, 0, -1)
    cut.SetInputData(sphere())
    cut.SetClipFunction(plane)
    cut.Update()
    image = distance_volume(convert(written(cut.GetOutput(), tmp_path / "open.vtp"), "mm").surface, COARSE)

    def at(*place: float) -> int:
        x, y, z = np.rint(image.geometry.world_to_index(np.array(place))).astype(int)
        return int(image.pixels[z, y, x])

    assert at(5, -7, 20) in range(100, 160) and at(5, -7, 30) == 1 == at(*image.geometry.origin)


def test_nearest_places_are_those_of_a_search_over_every_triangle():
    rng = np.random.default_rng(0)
    vertices = rng.normal(size=(60, 3)) * [10, 5, 1]
    faces = rng.integers(0, 60, (200, 3))
    surface, places = Surface(vertices, faces), rng.normal(size=(50, 3)) * 12
    found, off = surface.nearest(places)
    share = rng.dirichlet(np.ones(3), 20_000)
    for place, at, far in zip(places, found, off, strict=True):
        assert far == pytest.approx(np.linalg.norm(at - place), abs=1e-9)
        sampled = np.einsum("sk,mkd->msd", share[:500], vertices[faces]).reshape(-1, 3)
        nearest = np.linalg.norm(sampled - place, axis=1).min()
        assert nearest - 0.7 < far <= nearest + 1e-9  # no sample is nearer, and some are about as near


def test_what_is_written_is_read_as_it_was_and_by_vtk(tmp_path):
    surface = convert(written(sphere(), tmp_path / "ball.stl"), "mm").surface
    write_surface(tmp_path / "own.ply", surface)
    again = read_surface(tmp_path / "own.ply")
    assert is_own_surface(tmp_path / "own.ply") and np.array_equal(again.faces, surface.faces)
    assert np.allclose(again.vertices, surface.vertices, atol=1e-5)
    reader = vtk.vtkPLYReader()
    reader.SetFileName(str(tmp_path / "own.ply"))
    reader.Update()
    assert reader.GetOutput().GetNumberOfPolys() == len(surface.faces)


@pytest.mark.parametrize("size", [1e-4, 1e5])
def test_tiny_and_large_ones_have_as_many_samples(tmp_path, size):
    path = written(sphere(size, (0, 0, 0)), tmp_path / "ball.vtp")
    write_surface(tmp_path / "own.ply", convert(path, "mm").surface)
    about = describe_image(tmp_path / "own.ply", 3)
    assert max(about.geometry.size) == CONFIG.samples + 2 * CONFIG.margin + 1 and about.unit == "mm"


def test_long_thin_triangles_take_no_memory_that_is_not_there():
    angle = np.linspace(0, np.pi, 5001)
    rim = np.stack([np.cos(angle), np.sin(angle), 0.3 * np.sin(7 * angle)], 1) * 100
    fan = Surface(np.vstack([[[0, 0, 0]], rim]), np.array([[0, k + 1, k + 2] for k in range(5000)]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert distance_volume(fan).pixels.max() == 255
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10 < 1200  # MiB; all samples at once take 2000
    with pytest.raises(ImageRejected, match="too many and too long to be sampled at 5000 places"):
        distance_volume(fan, replace(CONFIG, most_points=5000))


SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(with_triangles(SQUARE, [(0, 1, 2), (0, 2, 3)]), id="flat"),
        pytest.param(with_triangles(SQUARE, [(0, 1, 2), (0, 2, 1), (0, 2, 3), (0, 3, 2)]), id="doubled"),
        pytest.param(
            with_triangles(np.vstack([SQUARE, [[0.5, 0.5, 1], [0.5, 0.5, -1]]]), [(0, 2, 1), (0, 2, 4), (0, 2, 5)]),
            id="three at an edge",
        ),
        pytest.param(with_triangles(np.vstack([SQUARE, [[0.5, 0, 0]]]), [(0, 1, 2), (0, 1, 4)]), id="one without area"),
    ],
)
def test_surfaces_that_close_nothing_work(tmp_path, data):
    image = distance_volume(convert(written(data, tmp_path / "odd.vtp"), "mm").surface, COARSE)
    on_it = image.geometry.world_to_index(np.array([0.6, 0.3, 0]))
    x, y, z = np.rint(on_it).astype(int)
    assert abs(int(image.pixels[z, y, x]) - 128) <= 32


def no_surface(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: no_surface(p / "a.ply", b""), "0 bytes"),
        (lambda p: no_surface(p / "a.stl", b"no triangles"), "no surface in it"),
        (
            lambda p: no_surface(p / "a.vtk", b"# vtk DataFile Version 3.0\nx\nASCII\nDATASET STRUCTURED_POINTS\n"),
            "no surface in it",
        ),
        (lambda p: no_surface(p / "a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\n"), "no surface in it"),
        (lambda p: written(with_triangles(np.zeros((3, 3)), [(0, 1, 2)]), p / "a.vtp"), "triangles; allowed are 1 to"),
        (lambda p: written(with_triangles(SQUARE * np.nan, [(0, 1, 2)]), p / "a.vtp"), "a point is not a number"),
        (lambda p: p / "a.ply", "no such file"),
    ],
)
def test_what_is_no_surface_is_refused_in_words(tmp_path, make, said):
    with pytest.raises(ImageRejected, match=said):
        convert(make(tmp_path), "mm")


def test_a_stray_triangle_far_away_is_no_part_of_a_surface(tmp_path):
    """It would make the samples so large that nothing of the surface is left; one beside it does no harm."""
    for far, refused in ((1000.0, True), (60.0, False)):
        joined, stray = vtk.vtkAppendPolyData(), with_triangles(SQUARE[:3] + far, [(0, 1, 2)])
        joined.AddInputData(sphere())
        joined.AddInputData(stray)
        joined.Update()
        path = written(joined.GetOutput(), tmp_path / f"{far:g}.vtp")
        if not refused:
            assert np.ptp(convert(path, "mm").surface.vertices) > 60
            continue
        with pytest.raises(ImageRejected, match="99 % of its points lie in a box of side 19.9, single ones .* apart"):
            convert(path, "mm")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda b: b[:-1], "bytes; .* have"),
        (lambda b: b[:-4] + b"\xff\xff\xff\x7f", "names points that are not there"),
        (lambda b: b.replace(b"UNIT=mm", b"UNIT=in"), "states no unit: say it with --mesh-unit"),
    ],
)
def test_a_damaged_file_of_our_own_is_refused_in_words(tmp_path, damage, said):
    path = tmp_path / "own.ply"
    write_surface(path, convert(written(sphere(), tmp_path / "ball.stl"), "mm").surface)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ImageRejected, match=said):
        read_image(path, 3)


def test_without_a_unit_nothing_is_read_and_what_is_damaged_is_named(tmp_path):
    files = {"ball": written(sphere(), tmp_path / "ball.stl"), "bad": no_surface(tmp_path / "bad.ply", b"ply\n")}
    with pytest.raises(
        UsageError, match="ball.stl is a surface, and its file states no unit: say it with --mesh-unit mm, cm, m, um"
    ):
        with_stated_units(files, None, None, tmp_path)
    (place := tmp_path / "made").mkdir()
    images, failed, _ = with_stated_units(files, "mm", None, place)
    assert images == {"ball": place / "ball.ply"} and "no surface in it" in failed["bad"]


def test_a_study_keeps_a_surface_as_a_volume_that_simpleitk_reads(tmp_path):
    write_surface(tmp_path / "ball.ply", convert(written(sphere(), tmp_path / "ball.stl"), "mm").surface)
    study = Study(tmp_path / "study", LandmarkTask("one", ("tip",), 3))
    study.add_image("ball", tmp_path / "ball.ply")
    image = sitk.ReadImage(str(tmp_path / "study" / "ball.nrrd"))
    assert image.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    assert image[image.TransformPhysicalPointToIndex((5, -7, 30))] == 255
    assert abs(image[image.TransformPhysicalPointToIndex((15, -7, 30))] - 128) <= 32
    flat = Study(tmp_path / "flat", LandmarkTask("one", ("tip",), 2))
    with pytest.raises((ImageRejected, StudyError), match="this task needs a 2D image"):
        flat.add_image("ball", tmp_path / "ball.ply")
    study.close()
    flat.close()


@pytest.mark.parametrize(
    ("header", "said"),
    [("unit=cm", None), ("UNITS: CM", None), ("UNIT=mm\ncomment UNIT=cm", "mm and cm"), ("UNIT=in", "in"), ("Unit: mµ", "mµ")],
)
def test_a_unit_is_read_in_any_case_and_two_are_none(tmp_path, header, said):
    path = written(sphere(), tmp_path / "ball.ply", header)
    assert stated_unit(path) == (None if said else "cm")
    if said:
        with pytest.raises(UsageError, match=f"its file states the unit {said}, which is not known here: say it with"):
            with_stated_units({"ball": path}, None, None, tmp_path)


@pytest.mark.parametrize("header", ["length unit: m, exported by x", "Units = um (scanner), export in mm", "UNIT: not stated"])
def test_prose_states_no_unit(tmp_path, header):
    path = written(sphere(), tmp_path / "ball.ply", header)
    assert stated_unit(path) is None
    with pytest.raises(UsageError, match="its file states no unit: say it with"):
        with_stated_units({"ball": path}, None, None, tmp_path)


ASCII = "ply\nformat ascii 1.0\nelement vertex {n}\nproperty float x\nproperty float y\nproperty float z\nelement face {m}\n"
ASCII += "property list uchar int vertex_indices\nend_header\n"


def test_a_ply_that_ends_too_early_or_lies_is_refused(tmp_path):
    points, faces = "0 0 0\n9 0 0\n0 9 0\n0 0 9\n", "3 0 2 1\n3 0 1 3\n3 1 2 3\n3 2 0 3\n"
    for n, m, said in (
        (4, 4, ""),
        (4, 9, "ends too early"),
        (9, 4, "ends too early"),
        (2 * 10**9, 4, "declares 2000000000 points"),
    ):
        path = tmp_path / f"{n}_{m}.ply"
        path.write_text(ASCII.format(n=n, m=m) + points + faces, encoding="ascii")
        found, failed, _ = with_stated_units({"x": path}, "mm", None, tmp_path)
        assert said in failed.get("x", "") if said else "x" in found and not failed, failed
        assert "\n" not in failed.get("x", "")


def test_what_lies_too_far_away_is_asked_about_its_unit(tmp_path):
    path = written(sphere(centre=(2e6, 0, 0)), tmp_path / "far.stl")
    _, failed, _ = with_stated_units({"far": path}, "mm", None, tmp_path)
    assert failed["far"] == "far.stl: it lies up to 2e+06 mm from the origin; allowed are 1e+06 mm: is its unit right?"
    write_surface(tmp_path / "own.ply", Surface(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1e7, 0, 0]]), np.array([[0, 1, 2]])))
    assert len(read_surface(tmp_path / "own.ply").vertices) == 3  # a point of no triangle is nothing of the surface


@pytest.mark.parametrize("padding", [b"\0", b" "])
def test_a_unit_in_the_header_of_a_binary_stl_counts(tmp_path, padding):
    path, writer = tmp_path / "ball.stl", vtk.vtkSTLWriter()
    writer.SetFileName(str(path))
    writer.SetFileTypeToBinary()
    writer.SetInputData(sphere())
    writer.Write()
    content = path.read_bytes()
    assert len(content) == 84 + 50 * int.from_bytes(content[80:84], "little")
    path.write_bytes(b"UNIT=cm".ljust(80, padding) + content[80:])
    assert stated_unit(path) == "cm" and np.allclose(centre_and_radius(convert(path, "mm").surface)[1], 100, atol=0.5)
