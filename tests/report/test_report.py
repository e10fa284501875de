"""Reports: the numbers are there, the pictures show something, nothing is loaded or run, odd input does not break."""

from __future__ import annotations

import base64
import re
import warnings
from html import unescape
from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image as Picture

from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.io.images import Image, write_image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, ScaleRule, Status
from landmarklabel.metrics import point_errors_mm, summarize
from landmarklabel.report import pictures
from landmarklabel.report.evaluation import reliability_bins, write_evaluation
from landmarklabel.report.page import Page

EVIL = "<script>alert('$x$')</script>"
_PICTURE = re.compile(r'src="data:image/(?:png|jpeg);base64,([^"]+)"')


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def predict(truth: LandmarkSet, seed: int = 0, sd_mm: float = 1.5, known_error: bool = True) -> LandmarkSet:
    """Noisy predictions of what the truth has; absent where the truth is."""
    positions = truth.positions_mm + np.random.default_rng(seed).normal(0, sd_mm, truth.positions_mm.shape)
    status = tuple(Status.PREDICTED if d else Status.ABSENT for d in truth.defined)
    expected = np.where(truth.defined, 1.6 * sd_mm, np.nan) if known_error else None
    return LandmarkSet(truth.task, positions, status, expected)


def renamed(landmarks: LandmarkSet, task: LandmarkTask) -> LandmarkSet:
    return LandmarkSet(task, landmarks.positions_mm, landmarks.status)


def decode(html: str) -> list[np.ndarray]:
    pictures = [Picture.open(BytesIO(base64.b64decode(data, validate=True))) for data in _PICTURE.findall(html)]
    return [np.asarray(picture.convert("RGB")) / 255 for picture in pictures]


def render(figure: Figure, photograph: bool = False) -> np.ndarray:
    page = Page("one picture")
    page.picture(figure, "caption", photograph)
    return decode(page.html())[0]


def without_pictures(html: str) -> str:
    return _PICTURE.sub('src="data:"', html)


def assert_shows_something(picture: np.ndarray) -> None:
    height, width = picture.shape[:2]
    assert 150 < height < 4000 and 400 < width < 2000
    assert picture[..., :3].std() > 0.03


def colour_share(picture: np.ndarray, colour: str) -> float:
    """Share of pixels close to a colour."""
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return float((np.abs(picture[..., :3] - wanted).max(axis=-1) < 0.15).mean())


def make_study(folder, dims=2, n=4, **kwargs):
    """(pairs, image files) of phantoms, the images written to disk."""
    task, pairs, files = phantom_task(dims), {}, {}
    for seed in range(n):
        phantom = draw_phantom(task, seed, **kwargs)
        image_id = f"case{seed}"
        files[image_id] = folder / f"{image_id}.nrrd"
        write_image(files[image_id], Image(phantom.geometry, phantom.pixels))
        pairs[image_id] = (predict(phantom.landmarks, seed), phantom.landmarks)
    return pairs, files


def report(folder, pairs, files) -> str:
    task = next(iter(pairs.values()))[1].task
    write_evaluation(folder / "report.html", task, pairs, summarize(list(pairs.values()), bootstrap=50), files)
    return (folder / "report.html").read_text(encoding="utf-8")


# --- page ----------------------------------------------------------------------------------------------------------


def test_page_escapes_every_text():
    page = Page(EVIL)
    page.section(EVIL)
    page.text(EVIL)
    page.numbers([(EVIL, EVIL, EVIL)])
    page.table([EVIL, "n"], [[EVIL, 1]])
    page.picture(Figure(figsize=(2, 2)), EVIL + '" onload="alert(1)')
    html = page.html()
    assert "<script" not in html
    assert '" onload="' not in html
    assert html.count("&lt;script&gt;") == 11  # in the title, the first heading, alt text and caption too


def test_table_formats_numbers():
    page = Page("t")
    page.table(["name", "x"], [["a", 1.23456], ["b", None], ["c", float("nan")], ["d", 7], ["e", np.float32(0.5)]])
    cells = re.findall(r'<td class="number">([^<]*)</td>', page.html())
    assert cells == ["1.23", "–", "–", "7", "0.50"]


def test_page_is_written_whole_and_the_same_each_time(tmp_path):
    for name in ("a.html", "b.html"):
        page = Page("same")
        page.picture(pictures.error_curve([1.0, 2.0, 3.0]), "errors")
        page.write(tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "b.html"]


# --- pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dims", "kwargs"),
    [(2, {}), (3, {}), (3, {"oblique": True, "size": (40, 30, 20), "spacing": (1.0, 2.0, 4.0)})],
    ids=["2d", "3d", "3d-oblique"],
)
def test_overlay_shows_image_truth_and_prediction(dims, kwargs):
    phantom = draw_phantom(phantom_task(dims), 3, **kwargs)
    image, truth = Image(phantom.geometry, phantom.pixels), phantom.landmarks
    both = render(pictures.overlay(image, predict(truth), truth, "a title"), photograph=True)
    assert_shows_something(both)
    assert colour_share(both, "#35d07f") > 1e-4 < colour_share(both, "#ffb31a")
    only_truth = render(pictures.overlay(image, None, truth), photograph=True)
    assert colour_share(only_truth, "#35d07f") > 1e-4 > colour_share(only_truth, "#ffb31a")
    for figure in (
        pictures.overlay(image, predict(truth, known_error=False), None),
        pictures.overlay(image, None, None),
    ):
        assert len(panels(figure)) == (1 if dims == 2 else 3)


def panels(figure: Figure) -> list:
    return [ax for ax in figure.get_axes() if ax.images]


def drawn(ax, marker: str) -> np.ndarray:
    """(n, 2) positions of the markers in a panel."""
    line = next(line for line in ax.lines if line.get_marker() == marker)
    xy = np.array(line.get_xydata())
    return xy[np.isfinite(xy).all(axis=1)]


def test_points_lie_on_their_anatomy_in_every_orientation():
    """A bright voxel in an oblique, anisotropic image appears under its mark in all three views."""
    phantom = draw_phantom(phantom_task(3), 0, oblique=True, size=(40, 30, 20), spacing=(1.0, 2.0, 3.0))
    pixels = np.zeros_like(phantom.pixels)
    pixels[11, 13, 24] = 1000
    at = phantom.geometry.index_to_world([24, 13, 11])
    task = LandmarkTask("one", ("bright",), 3)
    truth = LandmarkSet.of_positions(task, at[None])
    views = panels(pictures.overlay(Image(phantom.geometry, pixels), None, truth))
    assert len(views) == 3
    for ax, plane in zip(views, ((0, 1), (0, 2), (1, 2)), strict=True):
        picture = np.asarray(ax.images[0].get_array())
        left, right, bottom, top = ax.images[0].get_extent()
        row, column = np.unravel_index(picture.argmax(), picture.shape)
        share = (row + 0.5) / picture.shape[0]
        x = left + (column + 0.5) / picture.shape[1] * (right - left)
        y = top + share * (bottom - top) if ax.images[0].origin == "upper" else bottom + share * (top - bottom)
        assert np.hypot(x - at[plane[0]], y - at[plane[1]]) < 1.5
        assert drawn(ax, "+") == pytest.approx(at[[*plane]][None])


def test_expected_error_is_a_ring_and_names_show_errors_after_the_scale_rule():
    plain = phantom_task(2)
    task = LandmarkTask("scaled", plain.names, 2, scale=ScaleRule("wrist_left", "wrist_right", 50.0))
    phantom = draw_phantom(plain, 5, absent_fraction=0)
    truth = renamed(phantom.landmarks, task)
    predicted = predict(truth)
    figure = pictures.overlay(Image(phantom.geometry, phantom.pixels), predicted, truth)
    whole = panels(figure)[0]
    assert {round(p.radius, 6) for p in whole.patches if hasattr(p, "radius")} == {2.4}  # in units of the image
    worst = point_errors_mm(predicted, truth).max()
    assert worst > 1.5 * np.linalg.norm(predicted.positions_mm - truth.positions_mm, axis=1).max()
    assert any(f"{worst:.1f} mm" in t.get_text() for t in whole.texts)


def test_corner_text_names_what_is_absent_or_missed():
    phantom = draw_phantom(phantom_task(2), 5, absent_fraction=0)
    names, image = phantom.landmarks.task.names, Image(phantom.geometry, phantom.pixels)
    truth = phantom.landmarks.with_landmark(names[0], None, Status.ABSENT)
    predicted = predict(phantom.landmarks).with_landmark(names[1], None, Status.ABSENT)
    text = pictures.overlay(image, predicted, truth).get_suptitle()
    assert f"missed: {names[1]}" in text
    assert f"found, but absent in the truth: {names[0]}" in text
    assert f"absent: {names[1]}" in pictures.overlay(image, predicted, None).get_suptitle()


def test_charts_show_something():
    rng = np.random.default_rng(0)
    errors = rng.gamma(2, 1, 200)
    errors[::20] = np.nan
    charts = [
        pictures.error_curve(errors, missed=3),
        pictures.before_after(2 * errors, errors),
        pictures.learning_curve([(5, 9.0, 4.0), (10, None, 2.5), (20, 2.4, float("nan"))], target_mm=2.0),
        pictures.reliability([(1.0, 1.1, 10), (2.0, 2.5, 10)]),
    ]
    for figure in charts:
        assert_shows_something(render(figure))


def test_charts_of_nothing_do_not_break():
    for figure in (
        pictures.error_curve([]),
        pictures.error_curve([np.nan], missed=1),
        pictures.before_after([], [1.0]),
        pictures.learning_curve([]),
        pictures.reliability([]),
        pictures.per_landmark({"per_landmark": {}}),
    ):
        assert render(figure).size


def test_per_landmark_is_sorted_and_takes_any_name():
    names = ["small", "large $\\frac{", "none"]
    values = {n: {"mre_mm": v, "median_mm": v} for n, v in zip(names, (1.0, 3.0, None), strict=True)}
    figure = pictures.per_landmark({"per_landmark": values})
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels == ["large $\\frac{", "small"]
    assert_shows_something(render(figure))


# --- the evaluation report -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [2, 3])
def test_report_has_the_numbers_and_the_pictures(tmp_path, dims):
    pairs, files = make_study(tmp_path, dims, n=2)
    html = report(tmp_path, pairs, files)
    metrics = summarize(list(pairs.values()), bootstrap=50)
    low, high = metrics["confidence_95"]["mre_mm"]
    for text in (
        f"{metrics['mre_mm']:.2f} mm",
        f"{low:.2f} to {high:.2f} mm",
        f"{metrics['sdr']['2']:.1f} %",
        f"{metrics['max_mm']:.2f}",
        *metrics["per_landmark"],
        *pairs,
    ):
        assert text in html, text
    shown = decode(html)
    assert len(shown) == 3 + 2  # error curve, landmarks, reliability, and every image
    for picture in shown:
        assert_shows_something(picture)


def test_the_worst_come_first_and_are_marked_and_an_image_takes_50_kb(tmp_path):
    pairs, files = make_study(tmp_path, 3, n=9)
    worst, truth = pairs["case7"]
    far = int(np.flatnonzero(truth.defined)[2])
    pairs["case7"] = (worst.with_landmark(truth.task.names[far], truth.positions_mm[far] + 20, Status.PREDICTED), truth)
    html = report(tmp_path, pairs, files)
    marked = re.findall(r'<tr class="marked"><td>([^<]*)</td><td[^>]*>([^<]*)</td>', html)
    assert marked[0] == ("case7", truth.task.names[far]) and marked[1][0] == "case7" and len(marked) == 2
    assert "beyond 10 mm" in html and html.index("largest errors") < html.index("Images, the worst first") < html.index(
        "Landmarks"
    )
    images = [len(data) for data in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)]
    assert len(images) == 8 and max(images) < 50_000
    assert len(html) < 50_000 * len(pairs)


def test_pixels_are_called_pixels(tmp_path):
    pairs, files = make_study(tmp_path, n=2)
    task = next(iter(pairs.values()))[1].task
    write_evaluation(tmp_path / "report.html", task, pairs, summarize(list(pairs.values()), unit="px"), files)
    html = without_pictures((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert " mm" not in html and "(mm)" not in html and "Within 2 px" in html
    assert "Distances are in pixels: the images state no pixel spacing and the task no scale rule." in html


def test_report_loads_nothing_and_runs_nothing(tmp_path):
    html = report(tmp_path, *make_study(tmp_path, n=2))
    assert not re.search(rb"https?:", b"".join(base64.b64decode(d) for d in _PICTURE.findall(html)))
    text = without_pictures(html).lower()
    assert not re.search(r"https?:|//|<script|<link|<iframe|@import|url\(|javascript:", text)
    assert "default-src 'none'" in text


def test_names_cannot_break_out_of_the_page(tmp_path):
    pairs, files = make_study(tmp_path, n=2)
    names = (EVIL, *phantom_task(2).names[1:])
    task = LandmarkTask("evil", names, 2, scale=ScaleRule(EVIL, names[1], 50.0))
    truth = renamed(draw_phantom(phantom_task(2), 0, absent_fraction=0).landmarks, task)
    html = report(tmp_path, {"case0": (predict(truth), truth), EVIL: (predict(truth), truth)}, {**files, EVIL: files["case1"]})
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert len(decode(html)) == 3 + 2


def test_distances_follow_the_scale_rule(tmp_path):
    plain = phantom_task(2)
    task = LandmarkTask("scaled", plain.names, 2, scale=ScaleRule("wrist_left", "wrist_right", 50.0))
    truth = renamed(draw_phantom(plain, 0, absent_fraction=0).landmarks, task)
    predicted = predict(truth)
    html = report(tmp_path, {"a": (predicted, truth)}, {})
    rows = re.findall(r'<tr[^>]*><td>a</td><td>[^<]*</td><td class="number">([^<]*)</td><td class="number">([^<]*)</td>', html)
    assert rows[0][0] == f"{point_errors_mm(predicted, truth).max():.2f}"
    assert rows[0][1] == f"{2.4 * truth.scaled_to_mm():.2f}"
    assert "Millimetres by the task's scale rule: 'wrist_left' to 'wrist_right' is 50 mm." in unescape(html)


def test_absent_landmarks_unknown_errors_and_unreadable_images(tmp_path):
    pairs, files = make_study(tmp_path, n=3, absent_fraction=0.4)
    names = phantom_task(2).names
    truth = pairs["case0"][1]
    pairs["case0"] = (predict(truth, known_error=False), truth)
    pairs["nothing"] = (LandmarkSet.empty(truth.task), truth)
    files["case1"].write_bytes(b"not an image")
    files["nothing"] = tmp_path / "gone.png"
    html = report(tmp_path, pairs, files)
    assert "Presence" in html and any(f"<td>{n}</td>" in html for n in names)
    assert "Image case1 cannot be shown" in html and "Image nothing cannot be shown" in html
    assert str(tmp_path) not in html.replace(str(files["nothing"]), "")
    assert len(decode(html)) == 3 + 2


def test_report_when_nothing_was_found(tmp_path):
    truth = draw_phantom(phantom_task(2), 0).landmarks
    html = report(tmp_path, {"a": (LandmarkSet.empty(truth.task), truth)}, {})
    assert "no confidence interval" in html
    assert len(decode(html)) == 1
    assert "expected error be trusted" not in html


def test_reliability_bins_are_means_of_equal_groups():
    expected = np.array([[1.0, 2.0, 3.0, 4.0, np.nan, 9.0]])
    errors = np.array([[1.0, 3.0, 2.0, 6.0, 1.0, np.nan]])
    assert reliability_bins(expected, errors, 2) == [(1.5, 2.0, 2), (3.5, 4.0, 2)]
    assert reliability_bins(expected * np.nan, errors) == []
