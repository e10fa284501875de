"""Pictures of the pages' states, on phantoms, into ``runs/pages``: ``python scripts/page_pictures.py``. Needs Chromium.

Those that README and documents show go to ``docs/pictures`` as well.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import requests

ROOT = Path(__file__).resolve().parents[1]
OUT, SHOWN = ROOT / "runs" / "pages", ROOT / "docs" / "pictures"
IN_DOCUMENTS = ("annotate", "volume", "quality")
SIZE = {"width": 1280, "height": 800}
SMALL = {"width": 1024, "height": 700}
LABELLED = 14


def main() -> int:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        sys.exit("no Chromium: install chromium")
    for folder in (OUT, SHOWN):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        hands, spines = Path(folder) / "hands", Path(folder) / "spines"
        truth = _study(hands, 2, (384, 512), 12)
        with _served(hands) as url:
            for dark in (False, True):
                _hand_pages(browser, url, dark, truth)
            _narrow(browser, url)
        _study(spines, 3, (96, 96, 160), 10)
        with _served(spines) as url:
            page = _open(browser, url, SIZE, False)
            _propose(page)
            _keep(page, "volume")
        browser.close()
    return 0


def _study(place: Path, dims: int, size: tuple[int, ...], landmarks: int) -> dict[str, dict[str, np.ndarray]]:
    """Phantoms, most of them labelled; in one of these two names are swapped. Where the points are, in samples."""
    from landmarklabel.data.synthetic import draw_phantom, phantom_task
    from landmarklabel.io.files import write_json
    from landmarklabel.io.image_array import Image
    from landmarklabel.io.images import write_image
    from landmarklabel.landmarks import LandmarkSet, Status
    from landmarklabel.store.study import Study

    task = phantom_task(dims, landmarks)
    place.mkdir(parents=True)
    write_json(place / "task.json", task.to_json())
    study, truth = Study(place / "study", task), {}
    for seed in range(LABELLED + 2):
        phantom = draw_phantom(task, seed, size=size, absent_fraction=0.0)
        name = f"case{seed + 1:02d}"
        write_image(place / "study" / f"{name}.nrrd", Image(phantom.geometry, phantom.pixels))
        points = phantom.landmarks.positions_mm.copy()
        truth[name] = dict(zip(task.names, phantom.geometry.world_to_index(points), strict=True))
        if seed == 5:
            points[[2, 5]] = points[[5, 2]]
        if seed < LABELLED:
            study.save(name, LandmarkSet.of_positions(task, points, Status.PLACED), author="Ann")
    study.close()
    return truth


@contextmanager
def _served(place: Path):
    from landmarklabel.cli.client import running_server

    with running_server(place / "study", place / "task.json", place / "server.log") as url:
        yield url


def _open(browser, url: str, size: dict, dark: bool, path: str = "annotate/"):
    page = browser.new_page(viewport=size, color_scheme="dark" if dark else "light")
    page.goto(f"{url}/{path}")
    return page


def _press(page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def _propose(page) -> None:
    """The next case with all its points proposed, one selected."""
    _press(page, "Next case")
    page.wait_for_function("() => document.querySelector('.view').dataset.shown")
    _press(page, "Predict")
    page.wait_for_function("() => document.querySelectorAll('.mark.predicted').length > 5")
    _press(page, "Next doubtful")
    _press(page, "Accept")


def _drag(page, truth: dict[str, np.ndarray], names: tuple[str, ...]) -> None:
    """Put points where they belong; the others follow."""
    image = page.locator(".view img")
    wide, high = image.evaluate("i => [i.naturalWidth, i.naturalHeight]")
    for name in names:
        page.locator(".landmarks .row", has=page.get_by_text(name, exact=True)).click()
        box, mark = image.bounding_box(), page.locator(f'.mark[data-name="{name}"] > circle').last.bounding_box()
        x, y = truth[name]
        page.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + (x + 0.5) * box["width"] / wide, box["y"] + (y + 0.5) * box["height"] / high, steps=4)
        page.mouse.up()
        page.wait_for_timeout(500)


def _hand_pages(browser, url: str, dark: bool, truth: dict[str, dict[str, np.ndarray]]) -> None:
    suffix = "_dark" if dark else ""
    page = _open(browser, url, SIZE, dark)
    page.get_by_role("button", name="Next case", exact=True).wait_for()
    _keep(page, f"no_case{suffix}")
    _propose(page)
    case = page.locator(".app").get_attribute("data-case")
    _press(page, "Undo")  # what was accepted before it was looked at
    _drag(page, truth[case], ("wrist_left", "thumb_tip", "middle_tip", "little_tip"))
    _press(page, "Next doubtful")
    _keep(page, f"annotate{suffix}")
    _press(page, "Keys")
    _keep(page, f"keys{suffix}")
    page.keyboard.press("Escape")
    _conflict(page, url)
    _keep(page, f"conflict{suffix}")
    page.close()
    page = _open(browser, url, SIZE, dark, "annotate/quality.html")
    page.locator(".outlier").wait_for()
    _keep(page, f"quality{suffix}")
    page.close()
    if not dark:
        page = _open(browser, url, SIZE, dark, "landmarks/")
        _keep(page, "status")
        page.close()


def _conflict(page, url: str) -> None:
    """Somebody else saves the case that is open, then its person submits it."""
    case = page.locator(".app").get_attribute("data-case")
    rows = requests.get(f"{url}/landmarks/images/{case}", timeout=30).json()
    shapes = requests.post(f"{url}/landmarks/images/{case}/update", json={}, timeout=30).json()["landmarks"]
    moved = [{"name": r["name"], "status": "placed", "position": (np.array(r["position"]) + 6).tolist()} for r in shapes]
    body = {"landmarks": moved, "base_revision": rows["revision"], "author": "Bob"}
    requests.put(f"{url}/landmarks/images/{case}", json=body, timeout=30).raise_for_status()
    _press(page, "Submit and next")
    page.get_by_text("saved revision").first.wait_for()


def _narrow(browser, url: str) -> None:
    page = _open(browser, url, SMALL, False, "annotate/quality.html")
    page.locator(".outlier").wait_for()
    _keep(page, "quality_1024")
    page.close()


def _keep(page, name: str) -> None:
    page.wait_for_timeout(300)  # for what is drawn with the next frame
    page.screenshot(path=str(OUT / f"{name}.png"))
    if name in IN_DOCUMENTS:
        shutil.copy(OUT / f"{name}.png", SHOWN)


if __name__ == "__main__":
    sys.exit(main())
