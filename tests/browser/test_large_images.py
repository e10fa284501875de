"""Large and deep 2D images in the browser: what is seen, clicked and magnified is the image, not its reduced preview."""

from __future__ import annotations

import io
from contextlib import suppress

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image as Picture
from planes import Plane, middle_of
from serving import Material, serving

from landmarklabel.data.synthetic import phantom_task
from landmarklabel.io.files import write_json
from landmarklabel.services.limits import LIMITS

LARGE = (5000, 6000)  # y, x
BACK = 30
SPOTS = [(1001, 803), (4790, 3333), (511, 2048), (2999, 2500), (5555, 4444)]  # single bright samples; one beside a tile's edge
NOISE = (slice(1948, 2148), slice(2460, 2660))  # y, x: around a corner that four tiles share
MIDDLE, APART = 30_000, 20  # grey values


def study_of(folder, **images: np.ndarray) -> Material:
    task = phantom_task(2, 8)
    (folder / "study").mkdir()
    write_json(folder / "task.json", task.to_json())
    for name, pixels in images.items():
        sitk.WriteImage(sitk.GetImageFromArray(pixels), str(folder / "study" / f"{name}.png"))
    return Material(folder / "study", folder / "task.json", task, {})


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    pixels = np.full(LARGE, BACK, np.uint8)
    for x, y in SPOTS:
        pixels[y, x] = 255
    pixels[NOISE] = np.random.default_rng(0).integers(0, 25, pixels[NOISE].shape) * 10
    with serving(study_of(tmp_path_factory.mktemp("large"), large=pixels)) as server:
        yield server, pixels


def shot(who) -> np.ndarray:
    """The image on the screen, without what is drawn on it."""
    hide = "(plane, value) => plane.querySelectorAll(':scope > :not(.picture, .tiles)').forEach(e => e.style.visibility = value)"
    view = who.page.locator(".view")
    view.evaluate(hide, "hidden")
    seen = np.asarray(Picture.open(io.BytesIO(view.screenshot())).convert("L")).astype(float)
    view.evaluate(hide, "")
    return seen


def look(who, x: float, y: float, turns: int) -> Plane:
    """Zoom in at a place of the image until it is sharp."""
    plane = Plane(who, "")
    who.press("Fit")
    who.page.evaluate("() => new Promise(requestAnimationFrame)")
    plane.zoom(tuple(plane.corner() + plane.scale() * (x + 0.5, y + 0.5)), turns)
    plane.wait_until_sharp()
    who.page.evaluate("() => new Promise(requestAnimationFrame)")
    return plane


def bright(seen: np.ndarray) -> np.ndarray:
    """x, y of what is brighter than the rest, in pixels of the screenshot."""
    weight = np.where(seen > BACK + 10, seen - BACK, 0)
    rows, columns = np.indices(seen.shape) + 0.5
    assert weight.sum() > 0, "nothing bright is seen"
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


def test_a_bright_pixel_of_a_large_image_is_stored_where_it_is(large, person):
    server, _ = large
    ann, came = person(server.url), []
    ann.page.on("response", lambda r: came.append(r) if "/picture" in r.url else None)
    ann.open_case("large")
    (first,) = came
    assert first.headers["landmarklabel-step"] == "2"
    sent = first.request.sizes()["responseBodySize"]
    assert 0 < sent < LIMITS.picture_samples // 8  # an even image; of noise, a byte for each of its samples
    ann.page.locator(".tools").evaluate("t => t.hidden = false")
    names, truth, errors, zooms = phantom_task(2, 8).names, {}, [], {}
    for number, (name, spot) in enumerate(zip(names, SPOTS, strict=False)):
        plane = look(ann, *spot, 5 + 2 * number)
        box = plane.box
        ann.page.keyboard.press("Escape")  # the next landmark may be waiting for its click
        ann.page.mouse.move(box["x"] + 5, box["y"] + 5)
        ann.places(name, tuple(np.add((box["x"], box["y"]), bright(shot(ann)))))
        truth[name], zooms[name] = spot, float(plane.scale()[0])
    ann.submit()
    ann.sees("large is saved as revision 1")
    stored = {r["name"]: r["position"] for r in server.get("/landmarks/images/large")["landmarks"]}
    errors = [np.abs(np.subtract(stored[n], truth[n])).max() * zooms[n] for n in truth]
    assert max(zooms.values()) > 4 * min(zooms.values()) and min(zooms.values()) > 0.5  # all with tiles
    assert max(errors) <= 0.5, (errors, zooms)


@pytest.mark.parametrize("turns", [5, 6, 9, 13])
def test_tiles_show_the_image_without_a_seam_or_a_shift(large, person, turns):
    """Against interpolation by numpy, around a corner of four tiles; and the preview lies exactly below."""
    server, pixels = large
    ann = person(server.url)
    ann.open_case("large")
    plane = look(ann, 2560, 2048, turns)
    seen, zoom, corner = shot(ann), float(plane.scale()[0]), plane.corner() - (plane.box["x"], plane.box["y"])
    x, y = ((np.arange(n) + 0.5 - c) / zoom - 0.5 for n, c in zip(seen.shape[::-1], corner, strict=True))
    reach = min(95, 0.4 * min(seen.shape) / zoom)
    columns, rows = (np.flatnonzero(np.abs(v - m) < reach) for v, m in ((x, 2560), (y, 2048)))
    x, y = x[columns], y[rows]
    if zoom < 3:
        (i, u), (j, v) = ((np.floor(a).astype(int), a - np.floor(a)) for a in (x, y))
        at = lambda dy, dx: pixels[np.ix_(j + dy, i + dx)].astype(float)  # noqa: E731
        u, v = u[None, :], v[:, None]
        wanted = (1 - v) * ((1 - u) * at(0, 0) + u * at(0, 1)) + v * ((1 - u) * at(1, 0) + u * at(1, 1))
    else:
        wanted = pixels[np.ix_(np.round(y).astype(int), np.round(x).astype(int))].astype(float)
    off = np.abs(seen[np.ix_(rows, columns)] - wanted)
    near = np.abs(x - 2559.5) < 2  # the columns where two tiles meet
    mean, there = off.mean(), off[:, near].mean()
    assert near.any() and mean < 3 and there < 1.3 * mean + 0.1, (zoom, mean, there)  # half a sample off would be some 60


def test_the_preview_lies_where_the_tiles_do(tmp_path, person):
    pixels = np.full((4200, 4101), BACK, np.uint8)
    pixels[2000:2004, 1998:2002] = 255  # whole samples of the preview
    with serving(study_of(tmp_path, block=pixels)) as server:
        ann = person(server.url)
        ann.open_case("block")
        look(ann, 2000, 2002, 11)
        sharp = bright(shot(ann))
        ann.page.locator(".tiles").evaluate("c => c.style.opacity = 0")
        assert np.abs(bright(shot(ann)) - sharp).max() < 0.1


def test_the_loupe_shows_samples_that_the_view_does_not(large, person):
    """No tile is needed for what is on the screen, and the loupe shows the single bright sample."""
    server, _ = large
    ann = person(server.url)
    ann.open_case("large")
    name, spot = phantom_task(2, 8).names[6], SPOTS[3]
    plane = look(ann, *spot, 3)
    at = plane.corner() + plane.scale() * np.add(spot, 0.5)
    ann.places(name, tuple(at + (60, 40)))
    ann.page.keyboard.press("Escape")
    assert plane.scale()[0] < 0.5  # a reduced sample is smaller than a pixel of the screen
    start = np.array(middle_of(ann.page.locator(".view"), f'.mark[data-name="{name}"] circle'))
    ann.page.mouse.move(*start)
    ann.page.mouse.down()
    ann.page.mouse.move(*(start + 5))
    ann.page.mouse.move(*at)
    ann.page.evaluate("() => new Promise(requestAnimationFrame)")
    plane.wait_until_sharp()
    ann.page.evaluate("() => new Promise(requestAnimationFrame)")
    read = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 === 0)"
    loupe = np.array(ann.page.locator(".loupe").evaluate(read), float).reshape(180, 180)
    ann.page.mouse.up()
    assert loupe[[60, 120], [60, 120]] == pytest.approx(BACK, abs=1)
    core = loupe[80:100, 80:100].copy()  # between the lines of its cross
    core[[*range(0, 4), *range(16, 20)]] = BACK
    core[:, [*range(0, 4), *range(16, 20)]] = BACK
    assert core.max() > 130  # the preview's sample is 86
    assert np.abs(bright(core) - 10).max() <= 4 * 0.5  # half a screen pixel, four times as large


def deep_of(shape: tuple[int, int]) -> np.ndarray:
    """0 to 60000, and in the middle two patches whose values differ by 20."""
    pixels = np.linspace(0, 2 * MIDDLE, shape[0] * shape[1]).reshape(shape).round().astype(np.uint16)
    y, x = shape[0] // 2, shape[1] // 2
    pixels[y - 60 : y + 60, x - 60 : x] = MIDDLE - APART // 2
    pixels[y - 60 : y + 60, x : x + 60] = MIDDLE + APART // 2
    return pixels


def drag_window(who, dx: float, dy: float = 0) -> None:
    """With the right button, from the right part of the view."""
    box = who.page.locator(".view").bounding_box()
    start = box["x"] + box["width"] - 40, box["y"] + box["height"] / 2
    who.page.mouse.move(*start)
    who.page.mouse.down(button="right")
    for share in (0.3, 0.7, 1.0):
        who.page.mouse.move(start[0] + share * dx, start[1] + share * dy)
    who.page.evaluate("() => new Promise(requestAnimationFrame)")


def patches(who) -> float:
    """How many greys of the screen the two patches differ by."""
    seen, plane = shot(who), Plane(who, "")
    size = who.page.locator(".picture").evaluate("p => [p.clientWidth, p.clientHeight]")
    x, y = (plane.corner() - (plane.box["x"], plane.box["y"]) + plane.scale() * np.array(size) / 2).round().astype(int)
    reach = max(6, int(20 * plane.scale()[0]))
    rows = slice(y - reach // 2, y + reach // 2)
    return float(np.median(seen[rows, x + 3 : x + reach]) - np.median(seen[rows, x - reach : x - 3]))


WATCH = """() => {
    window.gaps = 0;
    const look = () => {
        const images = [...document.querySelectorAll(".view .picture img")];
        if (images.length !== 1 || !images[0].complete || !images[0].naturalWidth) window.gaps++;
        requestAnimationFrame(look);
    };
    look();
}"""


@pytest.mark.parametrize("shape", [(900, 1201), (4100, 4200)], ids=["whole", "tiles"])
def test_a_narrow_window_shows_what_8_bits_did_not(tmp_path, person, shape):
    with serving(study_of(tmp_path, deep=deep_of(shape))) as server:
        ann, asked = person(server.url), []
        ann.page.on("request", lambda r: asked.append(r.url) if "/picture" in r.url else None)
        ann.open_case("deep")
        plane = look(ann, shape[1] / 2, shape[0] / 2, 8 if shape[1] > 2000 else 1)
        ann.page.evaluate(WATCH)
        first, before = shot(ann), len(asked)
        assert abs(patches(ann)) <= 1
        drag_window(ann, -560)
        assert len(asked) == before, "nothing is fetched while the hand drags"
        ann.page.mouse.up(button="right")
        plane.wait_until_sharp()
        new = [url for url in asked[before:] if "first=" not in url]
        assert len(new) == 1, new
        difference = patches(ann)
        assert 17 <= difference <= 23
        ann.page.keyboard.press("i")
        assert -23 <= patches(ann) <= -17
        ann.page.keyboard.press("i")
        after = len([url for url in asked if "first=" not in url])
        ann.page.keyboard.press("c")
        plane.wait_until_sharp()
        assert np.abs(shot(ann) - first).max() <= 1
        assert len([url for url in asked if "first=" not in url]) == after, "the first picture is still there"
        assert ann.page.evaluate("window.gaps") == 0


def test_of_two_windows_the_later_one_is_shown_however_late_the_earlier_one_comes(tmp_path, person):
    with serving(study_of(tmp_path, deep=deep_of((900, 1201)))) as server:
        ann, held = person(server.url), []
        ann.open_case("deep")
        plane = look(ann, 600, 450, 1)
        ann.page.route("**/picture?*", lambda route: held.append(route))
        for dx in (-560, 90):
            drag_window(ann, dx)
            ann.page.mouse.up(button="right")
            ann.page.wait_for_timeout(100)
        assert len(held) == 2
        held[1].continue_()
        plane.wait_until_sharp()
        shown, difference = shot(ann), patches(ann)
        with suppress(Exception):  # it was broken off
            held[0].continue_()
        ann.page.wait_for_timeout(500)
        assert 6 <= difference <= 10  # e to the 0.9 times as wide: 8 greys of 20 values
        assert np.array_equal(shot(ann), shown)  # the earlier, narrower one would clip what lies around the patches
