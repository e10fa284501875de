"""2D images as a browser gets them: whole or in part, as another program reads them, at full resolution or averaged."""

from __future__ import annotations

import io
import shutil
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
import requests
import SimpleITK as sitk
from PIL import Image as Picture
from serving import Material, serving

from landmarklabel.data.synthetic import phantom_task
from landmarklabel.io.files import write_json
from landmarklabel.io.images import read_image
from landmarklabel.services import screen_copies, screen_pictures
from landmarklabel.services.limits import LIMITS, ServerLimits
from landmarklabel.services.screen_pictures import ScreenPicture, ScreenPictures

SHAPE = (301, 407)  # y, x
LARGE = (4200, 4099)  # 17.2 MPixel, and neither side divides by the step
KINDS = {
    "uint8": (SHAPE, lambda rng: rng.integers(0, 256, SHAPE).astype(np.uint8), "png"),
    "uint16": (SHAPE, lambda rng: rng.integers(0, 60001, SHAPE).astype(np.uint16), "png"),
    "int16": (SHAPE, lambda rng: rng.integers(-1024, 3071, SHAPE).astype(np.int16), "nrrd"),
    "float": (SHAPE, lambda rng: rng.random(SHAPE, np.float32), "nrrd"),
    "large": (LARGE, lambda rng: rng.integers(0, 60001, LARGE).astype(np.uint16), "nrrd"),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A server, and the images as another program reads them."""
    folder, rng, task, truth = tmp_path_factory.mktemp("study"), np.random.default_rng(0), phantom_task(2), {}
    (folder / "study").mkdir()
    write_json(folder / "task.json", task.to_json())
    for name, (_, pixels, suffix) in KINDS.items():
        truth[name] = pixels(rng)
        sitk.WriteImage(sitk.GetImageFromArray(truth[name]), str(folder / "study" / f"{name}.{suffix}"))
    with serving(Material(folder / "study", folder / "task.json", task, {})) as server:
        yield server, truth, folder / "study"


def asked(server, image_id: str, **of: object) -> requests.Response:
    return requests.get(f"{server.url}/landmarks/images/{image_id}/picture", params=of, timeout=60)


def shown(server, image_id: str, **of: object) -> tuple[np.ndarray, int]:
    answer = asked(server, image_id, **of)
    assert answer.status_code == 200, answer.text
    return np.asarray(Picture.open(io.BytesIO(answer.content))).astype(float), int(answer.headers["landmarklabel-step"])


def means(samples: np.ndarray, step: int) -> np.ndarray:
    """Of every step x step samples; at the end, of as many as there are."""
    ys, xs = (range(0, n, step) for n in samples.shape)
    return np.array([[samples[y : y + step, x : x + step].mean(dtype=float) for x in xs] for y in ys])


def greys(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return 255 * np.clip((values - low) / (high - low), 0, 1)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float"])
@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_a_part_is_a_part_and_a_step_is_a_mean(study, kind, step):
    server, truth, _ = study
    low, high = server.get(f"/landmarks/images/{kind}/frame")["range"]
    window = (low + 0.2 * (high - low), low + 0.7 * (high - low))
    found, made = shown(server, kind, low=window[0], high=window[1], first="30,40", size="250,1000", step=step)
    wanted = greys(means(truth[kind][40:, 30:280], step), *window)
    assert made == step and found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 0.5 + 1e-3  # rounded to whole greys, and no further off


def test_without_a_step_all_is_sent_as_long_as_it_can_be(study):
    server, truth, _ = study
    found, step = shown(server, "uint8")
    assert step == 1 and np.array_equal(found, truth["uint8"])
    found, step = shown(server, "large", low=0, high=60000)
    assert step == 2 and found.shape == (2100, 2050) and found.size <= LIMITS.picture_samples
    padded = np.pad(truth["large"].astype(float), ((0, 0), (0, 1)), mode="edge")
    wanted = greys(padded.reshape(2100, 2, 2050, 2).mean(axis=(1, 3)), 0, 60000)
    assert np.abs(found - wanted).max() <= 0.5 + 1e-3
    tile, step = shown(server, "large", low=0, high=60000, first="4090,4000", size="512,512")
    assert step == 1 and np.abs(tile - greys(truth["large"][4000:, 4090:], 0, 60000)).max() <= 0.5


def test_a_narrow_window_holds_256_greys(study):
    server, truth, _ = study
    found, _ = shown(server, "uint16", low=30000, high=30255)
    inside = (truth["uint16"] >= 30000) & (truth["uint16"] <= 30255)
    assert inside.sum() > 200 and np.array_equal(found[inside], truth["uint16"][inside] - 30000.0)


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ({"first": "407,0"}, "from 407, 0 to 407, 301: the image is 407, 301 samples"),
        ({"first": "0,301", "step": 2}, "from 0, 301 to 407, 301 by 2: the image is 407, 301 samples"),
        ({"step": 0}, "from 0, 0 to 407, 301 by 0: the image is 407, 301 samples"),
        ({"size": "0,5"}, "from 0, 0 to 0, 5: the image is 407, 301 samples"),
        ({"first": "1"}, "first '1' must be two whole numbers, as in 0,0"),
        ({"first": "-1,0"}, "first '-1,0' must be two whole numbers, as in 0,0"),
        ({"size": "1,2,3"}, "size '1,2,3' must be two whole numbers, as in 0,0"),
        ({"step": "2,2"}, "step '2,2' must be a whole number"),
        ({"step": "1.5"}, "step '1.5' must be a whole number"),
        ({"step": 10_000_000}, "step '10000000' must be a whole number"),
        ({"low": 9, "high": 3}, "low 9 must be below high 3, and both numbers"),
        ({"low": "nan", "step": 2}, "low nan must be below high 255, and both numbers"),
    ],
)
def test_what_cannot_be_sent_is_said_in_a_line(study, of, said):
    server, _, _ = study
    answer = asked(server, "uint8", **of)
    assert answer.status_code == 400 and answer.json()["detail"] == said, answer.text


def test_no_more_than_the_limit_is_sent_at_once(study):
    server, _, _ = study
    answer = asked(server, "large", step=1)
    limit = "at most 16777216 are sent: ask for fewer, or a larger step"
    assert (answer.status_code, answer.json()["detail"]) == (400, f"{LARGE[0] * LARGE[1]} samples at once; {limit}")


def test_an_image_that_is_exchanged_is_sent_as_it_is_now(study):
    server, truth, folder = study
    shutil.copy(folder / "large.nrrd", folder / "exchanged.nrrd")
    before, _ = shown(server, "exchanged", low=0, high=255, first="7,9", size="100,90")
    sitk.WriteImage(sitk.GetImageFromArray(truth["large"][::-1]), str(folder / "exchanged.nrrd"))
    after, _ = shown(server, "exchanged", low=0, high=255, first="7,9", size="100,90")
    assert np.array_equal(before, greys(truth["large"][9:99, 7:107], 0, 255))
    assert np.array_equal(after, greys(truth["large"][::-1][9:99, 7:107], 0, 255))


def test_the_least_step_that_can_be_sent():
    for size, step in [((4096, 4096), 1), ((4097, 4096), 2), ((8192, 8192), 2), ((8193, 8192), 3), ((2**20, 17), 2)]:
        assert screen_pictures.least_step(size) == step, size


def test_a_file_is_read_once_for_all_parts_and_parts_take_little_memory(tmp_path, monkeypatch):
    path, reads = tmp_path / "a.nrrd", []
    pixels = np.random.default_rng(0).integers(0, 60001, (3000, 2800)).astype(np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(pixels), str(path))
    monkeypatch.setattr(screen_pictures, "LIMITS", ServerLimits(picture_samples=10**6))
    pictures = ScreenPictures(tmp_path / "copies")

    def look(first: Sequence[int] = (0, 0), size: Sequence[int] | None = None) -> np.ndarray:
        def read():
            reads.append(path)
            return read_image(path, 2)

        return pictures.of(path, read).part((0, 60000), first, size)[0]

    assert look().shape == (1000, 934)  # step 3
    tracemalloc.start()
    for x in range(0, 2800, 400):
        assert np.abs(look((x, x), (400, 400)) - greys(pixels[x : x + 400, x : x + 400], 0, 60000)).max() <= 0.5
    look()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(reads) == 1
    assert peak < 12 * 10**6  # of 16.8 MB of samples


def test_one_mean_of_all_is_exact_and_takes_no_more_memory_than_rows():
    samples = np.full((5000, 4000), 65535, np.uint16)  # whose sum is beyond 32 bits
    samples[:2500] = 1
    tracemalloc.start()
    found, step = ScreenPicture(samples, (0.0, 1.0), (0.0, 1.0)).part((32767, 32769), step=999_999)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.tolist(), step) == ([[128]], 999_999)  # the mean, 32768, lies in the middle of the window
    assert peak < 4 * 10**6  # of 40 MB of samples


def test_large_images_copies_have_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(screen_pictures, "LIMITS", ServerLimits(picture_samples=1000))
    monkeypatch.setattr(screen_copies, "LIMITS", ServerLimits(screen_copies_bytes=2 * (100 * 100 + 200)))
    pictures = ScreenPictures(tmp_path / "copies")
    for n in range(4):
        path = tmp_path / f"{n}.png"
        sitk.WriteImage(sitk.GetImageFromArray(np.full((100, 100), n, np.uint8)), str(path))
        found = pictures.of(path, lambda path=path: read_image(path, 2)).part((0.0, 255.0))
        assert found[1] == 4 and (found[0] == n).all()
    assert len(list((tmp_path / "copies").glob("*.npy"))) == 2
