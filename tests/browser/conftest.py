"""The front end in a real browser: Debian's Chromium, steered by Playwright, against a real server."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "server"))  # serving.py: the real server
from eight_phantoms import material, server  # noqa: F401


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """A browser that downloads nothing and asks nobody.

    Decision: one for a file, not for the session. Playwright's loop runs in the thread of the tests until it is closed, and no
    other file's ``asyncio.run`` would work beside it.
    """
    from playwright.sync_api import sync_playwright

    from landmarklabel.server.annotate import BUILT

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium: install chromium")
    if not (BUILT / "index.html").is_file():
        pytest.skip("the front end is not built: python scripts/web.py says why")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Person:
    """Somebody at a browser of their own: what they see, and what their browser has asked for.

    Args:
        context: of Playwright; closing it ends the browser without a word, as a crash does.
        url: of the server.
    """

    def __init__(self, context, url: str):
        self.context, self.url = context, url
        self.asked: list[str] = []
        self.errors: list[str] = []
        context.on("request", lambda request: self.asked.append(request.url))
        self.page = self.open()

    def open(self):
        """A new tab at the front end."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(f"{self.url}/annotate/")
        return page

    def log_in(self, token: str) -> None:
        self.page.get_by_label("Token").fill(token)
        self.press("Log in")

    def log_in_in_another_tab(self, token: str) -> None:
        """The browser's cookie is this token's from now on; the page that is open is as it was."""
        headers = {"landmarklabel-contract": "1"}
        assert self.context.request.post(f"{self.url}/annotate/login", data={"token": token}, headers=headers).ok

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def sees(self, text: str) -> None:
        """Wait until a text is on the page; where it does not come, the error says what is there."""
        try:
            self.page.get_by_text(text).first.wait_for(timeout=20_000)
        except Exception as error:
            raise AssertionError(f"{text!r} is not on the page: {self.page.locator('body').inner_text()[:1500]}") from error

    def submit(self, button: str = "Submit and next") -> None:
        """Submit, also what contradicts the rest."""
        self.press(button)
        self.page.evaluate("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        self.page.wait_for_function("() => !document.querySelector('.app.busy')", timeout=20_000)
        if self.page.get_by_text("Press again to submit").count():
            self.press(button)

    def wait_for_image(self, case: str = "") -> str:
        """Wait until a case (this one, or any) and its image are shown; its id."""
        condition = """name => {
            const app = document.querySelector(".app"), view = document.querySelector(".view"), open = app?.dataset.case;
            return open && (!name || open === name) && view.dataset.shown === open;
        }"""
        self.page.wait_for_function(condition, arg=case, timeout=30_000)
        return self.page.locator(".app").get_attribute("data-case")

    def open_case(self, case: str) -> None:
        """Choose a case from the list of all, and wait for its image."""
        self.page.locator("details.more").evaluate("d => d.open = true")
        self.page.get_by_label("Open a case").select_option(case)
        self.wait_for_image(case)
        self.page.locator("details.more").evaluate("d => d.open = false")

    def select(self, name: str) -> None:
        self.page.locator(".landmarks .row", has=self.page.get_by_text(name, exact=True)).click()

    def places(self, name: str, at: tuple[float, float]) -> None:
        """Place a landmark by its button and a click, and see it there."""
        self.select(name)
        self.press("Place")
        self.page.mouse.click(*at)
        self.page.locator(f'.mark.placed[data-name="{name}"]').wait_for(state="attached", timeout=20_000)

    def mark(self, name: str) -> tuple[float, float]:
        """Where a point is drawn, in pixels of the screen."""
        where = """name => {
            const mark = document.querySelector(`.mark:not(.other)[data-name="${name}"] > circle:last-of-type`);
            const box = mark.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }"""
        return tuple(self.page.evaluate(where, name))  # at one moment: marks are drawn anew all the time

    def on_screen(self, x: float, y: float) -> tuple[float, float]:
        """Where a place of a 2D image without spacing is on the screen: x, y in its pixels, whose middles are whole numbers."""
        box = self.page.locator(".view img").bounding_box()
        size = "(i => [i.naturalWidth, i.naturalHeight])(document.querySelector('.view img'))"
        wide, high = self.page.evaluate(size)
        return box["x"] + (x + 0.5) * box["width"] / wide, box["y"] + (y + 0.5) * box["height"] / high

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        mouse.move(*end)
        mouse.up()

    def close(self) -> None:
        self.context.close()


@pytest.fixture()
def person(chromium, request) -> Iterator:
    """Makes people at browsers of their own; nobody's page may have failed, or asked another server for anything."""
    made: list[Person] = []

    def make(url: str, width: int = 1280, height: int = 800, **more) -> Person:
        made.append(Person(chromium.new_context(viewport={"width": width, "height": height}, **more), url))
        return made[-1]

    yield make
    for one in made:
        assert one.errors == []
        own = (one.url, f"blob:{one.url}", "data:")
        assert [url for url in one.asked if not url.startswith(own)] == []
        one.close()
