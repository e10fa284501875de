"""Volumes as a browser gets them: the samples of the file as another program reads it, at full resolution or averaged."""

from __future__ import annotations

import gzip
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests
import SimpleITK as sitk
from serving import Material, serving

from landmarklabel.data.synthetic import phantom_task
from landmarklabel.io.files import write_json
from landmarklabel.io.images import read_image
from landmarklabel.services import screen_copies
from landmarklabel.services.limits import ServerLimits
from landmarklabel.services.screen_volumes import ScreenVolume, ScreenVolumes

SHAPE = (13, 20, 31)  # z, y, x
KINDS = {
    "int16": lambda rng: rng.integers(-1024, 3071, SHAPE).astype(np.int16),
    "uint16": lambda rng: rng.integers(0, 65536, SHAPE).astype(np.uint16),
    "int32": lambda rng: rng.integers(-(10**6), 10**6, SHAPE).astype(np.int32),
    "float": lambda rng: rng.normal(0, 1e-3, SHAPE).astype(np.float32),
    "even": lambda rng: np.full(SHAPE, 7.25, np.float32),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("study"), np.random.default_rng(0)
    task = phantom_task(3)
    (folder / "study").mkdir()
    write_json(folder / "task.json", task.to_json())
    for name, pixels in KINDS.items():
        sitk.WriteImage(sitk.GetImageFromArray(pixels(rng)), str(folder / "study" / f"{name}.nrrd"))
    with serving(Material(folder / "study", folder / "task.json", task, {})) as server:
        yield server, folder / "study"


def voxels(server, image_id: str, **asked: str) -> np.ndarray:
    answer = requests.get(f"{server.url}/landmarks/images/{image_id}/voxels", params=asked, timeout=60)
    assert answer.status_code == 200, answer.text
    size = [int(n) for n in answer.headers["landmarklabel-size"].split(",")]
    return np.frombuffer(answer.content, "<i2").reshape(size[::-1])


@pytest.mark.parametrize("kind", KINDS)
def test_values_come_back_as_another_program_reads_them(server, kind):
    server, study = server
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(study / f"{kind}.nrrd"))).astype(float)
    slope, intercept = (frame := server.get(f"/landmarks/images/{kind}/frame"))["voxels"]
    found = slope * voxels(server, kind).astype(float) + intercept
    exact = kind in ("int16", "uint16", "even")
    assert np.abs(found - truth).max() <= (0 if exact else (truth.max() - truth.min()) / 65535 * 0.51)
    assert frame["size"] == list(SHAPE[::-1]) and frame["range"] == [truth.min(), truth.max()]


def test_a_piece_is_a_piece_and_a_step_is_a_mean(server):
    server, study = server
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(study / "int16.nrrd")))
    assert np.array_equal(voxels(server, "int16", first="2,3,4", size="5,6,7"), truth[4:11, 3:9, 2:7])
    assert np.array_equal(voxels(server, "int16", first="29,18,12", size="96,96,96"), truth[12:, 18:, 29:])
    means = voxels(server, "int16", step="4,2,3")
    assert means.shape == (5, 10, 8)
    assert means[1, 2, 3] == round(truth[3:6, 4:6, 12:16].mean())
    assert means[-1, 0, -1] == round(np.pad(truth, ((0, 2), (0, 0), (0, 1)), mode="edge")[12:, :2, 28:].mean())


def test_one_mean_of_all_is_exact_and_no_matter_of_every_sample():
    """Any user may ask for any step: eight million sums, one by one, would take minutes."""
    samples = np.full((200, 200, 200), -(2**15), np.int16)  # whose sum is beyond 32 bits
    samples[:100] = 100
    volume = ScreenVolume(samples, 1.0, 0.0, (0.0, 1.0), (0.0, 1.0))
    began = time.process_time()
    assert volume.piece((0, 0, 0), (200, 200, 200), (999_999,) * 3).tolist() == [[[-16334]]]
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"first": "31,0,0"}, "from 31, 0, 0 to 31, 20, 13 by 1, 1, 1: the volume is 31, 20, 13 samples"),
        ({"step": "0,1,1"}, "by 0, 1, 1: the volume is 31, 20, 13 samples"),
        ({"size": "1,2"}, "size '1,2' must be three whole numbers, as in 0,0,0"),
        ({"first": "-1,0,0"}, "first '-1,0,0' must be three whole numbers, as in 0,0,0"),
        ({"size": "0,5,5"}, "from 0, 0, 0 to 0, 5, 5 by 1, 1, 1: the volume is 31, 20, 13 samples"),
    ],
)
def test_what_is_not_there_is_said(server, asked, said):
    server, _ = server
    answer = requests.get(f"{server.url}/landmarks/images/int16/voxels", params=asked, timeout=60)
    assert (answer.status_code, said in answer.json()["detail"]) == (400, True), answer.text


def test_an_image_that_is_exchanged_is_sent_as_it_is_now(server):
    server, study = server
    shutil.copy(study / "int16.nrrd", study / "exchanged.nrrd")
    before = voxels(server, "exchanged")
    sitk.WriteImage(sitk.GetImageFromArray((before + 5).astype(np.int16)), str(study / "exchanged.nrrd"))
    assert np.array_equal(voxels(server, "exchanged"), before + 5)


def copies(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()}


def test_a_copy_is_made_once_and_the_oldest_go_when_there_are_too_many(tmp_path, monkeypatch):
    made, paths = [], []
    for n in range(3):
        paths.append(tmp_path / f"{n}.nrrd")
        sitk.WriteImage(sitk.GetImageFromArray(np.full(SHAPE, n, np.int16)), str(paths[-1]))
    volumes = ScreenVolumes(tmp_path / "copies")

    def read(path: Path):
        made.append(path.name)
        return read_image(path, 3)

    def look(n: int) -> int:
        return int(volumes.of(paths[n], lambda: read(paths[n])).samples[0, 0, 0])

    room = 2 * (2 * int(np.prod(SHAPE)) + 200)  # for two copies and their heads
    monkeypatch.setattr(screen_copies, "LIMITS", ServerLimits(screen_copies_bytes=room))
    assert [look(0), look(0), look(1), look(0)] == [0, 0, 1, 0] and made == ["0.nrrd", "1.nrrd"]
    assert look(2) == 2
    assert len(list((tmp_path / "copies").glob("*.npy"))) == 2
    assert look(0) == 0 and made == ["0.nrrd", "1.nrrd", "2.nrrd", "0.nrrd"]


def test_a_copy_that_was_cut_off_is_made_again(tmp_path):
    path = tmp_path / "a.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)), str(path))
    volumes = ScreenVolumes(tmp_path / "copies")
    first = np.array(volumes.of(path, lambda: read_image(path, 3)).samples)
    (copy,) = (tmp_path / "copies").glob("*.npy")
    copy.write_bytes(copy.read_bytes()[:200])
    assert np.array_equal(volumes.of(path, lambda: read_image(path, 3)).samples, first)
    (tmp_path / "copies" / copy.with_suffix(".json").name).write_bytes(gzip.compress(b"other"))
    assert np.array_equal(volumes.of(path, lambda: read_image(path, 3)).samples, first)
    assert copies(tmp_path / "copies") == {".npy", ".json"}


def test_a_copy_that_is_there_waits_for_no_other_that_is_made(tmp_path):
    files = [tmp_path / "there.nrrd", tmp_path / "slow.nrrd"]
    for path in files:
        sitk.WriteImage(sitk.GetImageFromArray(KINDS["int16"](np.random.default_rng(0))), str(path))
    copies, begun, go_on = ScreenVolumes(tmp_path / "copies"), threading.Event(), threading.Event()
    copies.of(files[0], lambda: read_image(files[0], 3))

    def slow():
        begun.set()
        go_on.wait(60)
        return read_image(files[1], 3)

    other = threading.Thread(target=copies.of, args=(files[1], slow))
    other.start()
    assert begun.wait(30)
    found: list[object] = []
    asker = threading.Thread(target=lambda: found.append(copies.of(files[0], lambda: pytest.fail("it is there"))))
    asker.start()
    asker.join(20)
    go_on.set()
    other.join(60)
    assert len(found) == 1
