"""Planes of a volume on the screen, for tests that look at pixels."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as Picture


def middle_of(view, selector: str) -> tuple[float, float]:
    """The middle of something drawn in a view, in pixels of the screen; at one moment, as marks are drawn anew all the time."""
    view.locator(selector).last.wait_for(state="attached", timeout=20_000)
    where = """(view, selector) => {
        const box = [...view.querySelectorAll(selector)].at(-1).getBoundingClientRect();
        return [box.x + box.width / 2, box.y + box.height / 2];
    }"""
    return tuple(view.evaluate(where, selector))


class Plane:
    """A plane of a volume on somebody's screen, or, without a name, a 2D image."""

    def __init__(self, who, name: str):
        self.who, self.name = who, name
        named = who.page.locator(".plane", has=who.page.locator(".plane-name", has_text=name))
        self.at = (named if name else who.page.locator(".plane")).first

    @property
    def box(self) -> dict:
        return self.at.bounding_box()

    def scroll_to(self, axis_slice: int) -> None:
        """With the wheel, until the plane says that it shows this slice."""
        box = self.box
        self.who.page.mouse.move(box["x"] + 20, box["y"] + 40)
        for _ in range(400):
            off = axis_slice - int(self.at.get_attribute("data-slice"))
            if off == 0:
                return
            self.who.page.mouse.wheel(0, 100 if off > 0 else -100)
            self.who.page.evaluate("() => new Promise(requestAnimationFrame)")
        raise AssertionError(f"{self.name} never came to slice {axis_slice}")

    def bright_spot(self) -> tuple[float, float]:
        """Where the bright sample is on the screen: the middle of all that is brighter than the rest."""
        page = self.who.page
        hide = "(plane, value) => plane.querySelectorAll(':scope > :not(.picture)').forEach(e => e.style.visibility = value)"
        self.at.evaluate(hide, "hidden")
        page.evaluate("() => new Promise(requestAnimationFrame)")
        shot = np.asarray(Picture.open(io.BytesIO(page.screenshot())).convert("L")).astype(float)
        self.at.evaluate(hide, "")
        box = self.box
        left, top = int(np.ceil(box["x"])) + 1, int(np.ceil(box["y"])) + 1  # without the pixels that this plane shares
        inside = shot[top : int(box["y"] + box["height"]) - 1, left : int(box["x"] + box["width"]) - 1]
        weight = np.where(inside > 25, inside, 0)
        assert weight.sum() > 0, f"{self.name} shows nothing bright"
        rows, columns = np.indices(weight.shape) + 0.5
        return left + (columns * weight).sum() / weight.sum(), top + (rows * weight).sum() / weight.sum()

    def wait_until_sharp(self) -> None:
        self.who.page.wait_for_function("p => p.dataset.resolution === 'full'", arg=self.at.element_handle(), timeout=20_000)

    def bring_to_the_middle(self, at: tuple[float, float]) -> None:
        """By dragging the picture, so that no edge cuts the spot off when it is larger."""
        box = self.box
        self.who.drag(at, (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2))
        self.who.page.evaluate("() => new Promise(requestAnimationFrame)")

    def zoom(self, at: tuple[float, float], turns: int) -> None:
        page = self.who.page
        page.mouse.move(*at)
        page.keyboard.down("Control")
        for _ in range(turns):
            page.mouse.wheel(0, -120)
        page.keyboard.up("Control")
        page.evaluate("() => new Promise(requestAnimationFrame)")

    def _transform(self) -> np.ndarray:
        how = "p => (m => [m.a, m.d, m.e, m.f])(new DOMMatrix(getComputedStyle(p).transform))"
        return np.array(self.at.locator(".picture").evaluate(how))

    def scale(self) -> np.ndarray:
        """Screen pixels of one sample across and down."""
        return self._transform()[:2]

    def corner(self) -> np.ndarray:
        """Where the picture's upper left corner is on the screen."""
        return np.array([self.box["x"], self.box["y"]]) + self._transform()[2:]

    @property
    def slice(self) -> int:
        return int(self.at.get_attribute("data-slice"))


def axes_of(direction: np.ndarray) -> list[int]:
    """The volume's axis that lies nearest to each of the world's (these volumes are not so oblique that it is in doubt)."""
    return [int(np.abs(direction[world]).argmax()) for world in range(3)]
