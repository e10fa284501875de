"""Small pictures: their points lie on what they mark, in pictures and in volumes that lie obliquely."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image as Picture

from landmarklabel.data.cases import Case
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.image_array import Image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.report.thumbnails import make_thumbnail, thumbnail_html

TURNED = np.array([[0, -1, 0], [0, 0, 1], [-1, 0, 0.0]])


@pytest.mark.parametrize(
    "geometry",
    [
        ImageGeometry.identity((40, 60)),
        ImageGeometry((40, 60), (2.0, 0.5), (-30.0, 80.0), np.eye(2)),
        ImageGeometry((30, 40, 50), (1.0, 1.0, 1.0), (10.0, -20, 30), np.eye(3)),
        ImageGeometry((30, 40, 50), (2.0, 1.0, 0.5), (10.0, -20, 30), TURNED),
    ],
    ids=["picture", "stretched picture", "volume", "turned volume"],
)
def test_a_point_lies_on_what_it_marks(geometry):
    index = np.array([7, 45, 11][: geometry.dims]) if geometry.dims == 2 else np.array([7, 30, 11])
    pixels = np.zeros(geometry.size[::-1], np.uint8)
    around = tuple(slice(i - 1, i + 2) for i in index[::-1])
    pixels[around] = 255
    position = geometry.index_to_world(index)
    thumbnail = make_thumbnail(Case("x", Image(geometry, pixels)), 120)
    shown = np.asarray(Picture.open(BytesIO(thumbnail.jpeg)).convert("L"), float)
    assert shown.shape[::-1] == thumbnail.size and max(thumbnail.size) in (120, 121)
    ((x, y),) = thumbnail.places(position[None])
    bright = np.argwhere(shown > 0.6 * shown.max()).mean(axis=0)[::-1] + 0.5
    np.testing.assert_allclose((x, y), bright, atol=1.5)


def test_a_point_outside_lies_on_the_edge_in_red_and_names_are_text():
    task = LandmarkTask("two", ("in", "<out>"), 2)
    geometry = ImageGeometry.identity((20, 20))
    thumbnail = make_thumbnail(Case("x", Image(geometry, np.eye(20, dtype=np.uint8))), 40)
    html = thumbnail_html(thumbnail, LandmarkSet.of_positions(task, np.array([[5.0, 5], [50, 10]])), "<b>", "a&b")
    assert 'cx="40.0" cy="21.0"' in html and html.count('fill="#ff4d4d"') == html.count('fill="#35d07f"') == 1
    assert "<title>&lt;out&gt;</title>" in html and '<a href="a&amp;b">&lt;b&gt;</a>' in html
