"""A day in the browser: cases annotated with the mouse and the page's buttons, mishaps at random, a record of every click.

The record is kept apart from the program: what the person meant, by case and landmark. At the end the server must hold just that.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import requests
from planes import Plane, axes_of, middle_of
from serving import Material, Server, serving

from landmarklabel.store.tokens import Tokens

MISHAPS = (
    "tab closed",
    "server killed",
    "login expired",
    "somebody saves it too",
    "page loaded again",
    "second tab",
    "undone and done again",
)
OFF_SCREEN_PX = 0.75  # a click is stored within half a pixel; a mark is read within a quarter


class Day:
    """One person at one browser, and a server that comes and goes.

    Args:
        material: the study; its truth says which cases there are.
        person: makes people at browsers (the fixture).
        seed: of what happens.
    """

    def __init__(self, material: Material, person: Callable, seed: int):
        self.material, self.rng = material, np.random.default_rng(seed)
        self.names, self.is_3d = material.task.names, material.task.dims == 3
        self.tokens = Tokens(material.study)
        self.token, self.other = self.tokens.new("ann", "annotator"), self.tokens.new("bob", "annotator")
        self.meant: dict[str, dict[str, tuple[str, np.ndarray | None, float]]] = {}  # status, LPS mm, mm of a screen pixel
        self.by_others: set[str] = set()
        self.log: list[str] = []
        self.running = ExitStack()
        self.server = self._started(0)
        self.who = person(self.server.url)
        self._log_in()

    def _started(self, port: int) -> Server:
        return self.running.enter_context(serving(self.material, port=port))

    def close(self) -> None:
        self.running.close()

    def _log_in(self) -> None:
        self.who.page.get_by_label("Token").fill(self.token)
        self.who.press("Log in")
        self.who.sees("connected as ann")

    # --- what a person does ------------------------------------------------------------------------------------------

    @property
    def case(self) -> str:
        return self.who.page.locator(".app").get_attribute("data-case")

    def annotate(self) -> None:
        """Something with one landmark, at random."""
        name = str(self.rng.choice(self.names))
        known = self.meant.setdefault(self.case, {})
        if known.get(name, ("", None, 0))[0] in ("accepted", "absent"):
            self.who.select(name)
            self.who.press("Unlock")
            self.sees_state(name, "placed" if known[name][0] == "accepted" else "unset")
            was = known.pop(name)
            if was[0] == "accepted":
                known[name] = ("placed", *was[1:])
        doing = str(self.rng.choice(["place", "place", "place", "drag", "accept", "absent", "nudge"]))
        has_place = known.get(name, ("",))[0] == "placed"
        if doing in ("drag", "accept", "nudge") and not has_place:
            doing = "place"
        self.log.append(f"{self.case} {doing} {name}")
        getattr(self, doing)(name)

    def place(self, name: str) -> None:
        self.who.select(name)
        at, position, mm = self._somewhere()
        self.who.page.keyboard.press("l")
        self.who.page.mouse.click(*at)
        self.sees_state(name, "placed")
        self.who.page.keyboard.press("Escape")
        self.meant[self.case][name] = ("placed", position, mm)

    def drag(self, name: str) -> None:
        self.who.select(name)
        self.settle()
        self.who.page.keyboard.down("h")
        self.settle()
        start = self._mark(name)
        at, position, mm = self._somewhere(like=self.meant[self.case][name][1])
        self.who.drag(start, at)
        self.who.page.keyboard.up("h")
        self.meant[self.case][name] = ("placed", position, mm)

    def accept(self, name: str) -> None:
        self.who.select(name)
        self.who.page.keyboard.press("a")
        self.sees_state(name, "accepted")
        _, position, mm = self.meant[self.case][name]
        self.meant[self.case][name] = ("accepted", position, mm)

    def absent(self, name: str) -> None:
        self.who.select(name)
        self.who.page.keyboard.press("x")
        self.sees_state(name, "absent")
        self.meant[self.case][name] = ("absent", None, 0.0)

    def nudge(self, name: str) -> None:
        """There and back again by the keys: it has moved meanwhile, and is where it was."""
        self.who.select(name)
        before = self._mark(name)
        for key in ("ArrowRight", "ArrowUp"):
            self.who.page.keyboard.press(key)
        self.settle()
        assert self._mark(name) != before
        for key in ("ArrowLeft", "ArrowDown"):
            self.who.page.keyboard.press(key)

    def submit(self) -> None:
        """And wait until the next case is there, or none is left."""
        case = self.case
        self.who.submit()
        if case in self.by_others:
            self.who.sees("saved revision 1 meanwhile")
            self.who.submit("Submit mine")
        self.who.sees(f"{case} is saved as revision")

    # --- where things are --------------------------------------------------------------------------------------------

    @property
    def plane(self) -> Plane:
        return Plane(self.who, "axial") if self.is_3d else Plane(self.who, "")

    def _somewhere(self, like: np.ndarray | None = None) -> tuple[tuple[float, float], np.ndarray, float]:
        """A place on the screen inside of the image, where that is in LPS mm, and mm of a screen pixel.

        ``like``: a position whose slice is kept, in a volume.
        """
        self.settle()
        plane, geometry = self.plane, self.material.geometry(self.case)
        (left, top), scale, box = plane.corner(), plane.scale(), plane.box
        direction = geometry.direction
        axes = axes_of(direction) if self.is_3d else [0, 1]
        size = np.array([geometry.size[axes[0]], geometry.size[axes[1]]])
        low = np.maximum([box["x"] + 5, box["y"] + 5], np.array([left, top]) + 0.05 * size * scale)
        high = np.minimum(
            [box["x"] + box["width"] - 40, box["y"] + box["height"] - 40], np.array([left, top]) + 0.95 * size * scale
        )
        at = np.round(self.rng.uniform(low, high))
        sample = (at - [left, top]) / scale - 0.5
        index = np.zeros(geometry.dims)
        for axis, value, n in zip(axes, sample, size, strict=False):
            backwards = self.is_3d and direction[axes.index(axis), axis] < 0
            index[axis] = n - 1 - value if backwards else value
        if self.is_3d:
            index[axes[2]] = plane.slice if like is None else geometry.world_to_index(like)[axes[2]]
        return tuple(at), geometry.index_to_world(index), float(max(geometry.spacing[list(axes[:2])] / scale))

    def _mark(self, name: str) -> tuple[float, float]:
        return middle_of(self.plane.at, f'.mark:not(.other)[data-name="{name}"] > circle')

    def settle(self) -> None:
        """Until what was asked for is drawn."""
        self.who.page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done))))"
        )

    def sees_state(self, name: str, state: str) -> None:
        row = self.who.page.locator(f".landmarks .row.{state}", has=self.who.page.get_by_text(name, exact=True))
        row.first.wait_for(state="attached", timeout=20_000)

    # --- what goes wrong ---------------------------------------------------------------------------------------------

    def mishap(self, what: str) -> None:
        self.log.append(f"{self.case}: {what}")
        getattr(self, "_" + what.replace(" ", "_"))()

    def _tab_closed(self) -> None:
        case = self.case
        self.who.page.close(run_before_unload=False)
        self.who.page = self.who.open()
        self.who.wait_for_image(case)

    def _page_loaded_again(self) -> None:
        case = self.case
        self.who.page.reload()
        self.who.wait_for_image(case)

    def _second_tab(self) -> None:
        case, second = self.case, self.who.open()
        self.who.sees("This study is open in another tab of this browser.")
        second.wait_for_selector(".view")
        self.who.press("Work in this tab")
        self.who.wait_for_image(case)
        second.close()

    def _server_killed(self) -> None:
        """It comes back after something was done without it."""
        port = int(self.server.url.rpartition(":")[2])
        self.server.process.kill()
        self.server.process.wait()
        self.annotate()
        self.running.close()
        self.server = self._started(port)
        self.who.page.wait_for_function("() => document.querySelector('.status').classList.contains('connected')", timeout=60_000)

    def _login_expired(self) -> None:
        self.token = self.tokens.new("ann", "annotator")  # which ends the one before
        self.who.page.keyboard.press("p")
        self.who.sees("Your login has ended")
        self._log_in()

    def _somebody_saves_it_too(self) -> None:
        bearer = {"Authorization": f"Bearer {self.other}"}
        truth = self.material.truth[self.case]
        rows = [
            {"name": n, "status": "placed", "position": p.tolist()}
            for n, p in zip(truth.task.names, truth.positions_mm, strict=True)
        ]
        at, body = f"{self.server.url}/landmarks/images/{self.case}", {"landmarks": rows, "base_revision": 0, "author": "bob"}
        if self.case not in self.by_others:
            assert requests.put(at, json=body, headers=bearer, timeout=60).status_code == 200
            self.by_others.add(self.case)

    def _undone_and_done_again(self) -> None:
        self.place(
            str(
                self.rng.choice(
                    [n for n in self.names if self.meant.get(self.case, {}).get(n, ("",))[0] not in ("accepted", "absent")]
                )
            )
        )
        self.who.press("Undo")
        self.who.sees("undone: place")
        self.who.press("Redo")
        self.who.sees("done again: place")

    # --- at the end --------------------------------------------------------------------------------------------------

    def check_server(self) -> None:
        """Of every case, what was meant and nothing else was stated by ann, once."""
        bearer = {"Authorization": f"Bearer {self.token}"}
        for case, meant in self.meant.items():
            at = f"{self.server.url}/landmarks/images/{case}"
            history = requests.get(f"{at}/history", headers=bearer, timeout=60).json()["revisions"]
            expected = ["bob", "ann"] if case in self.by_others else ["ann"]
            assert [r["author"] for r in history] == expected, (case, self.log)
            stored = {r["name"]: r for r in history[-1]["landmarks"] if r["status"] not in ("unset", "predicted")}
            assert {n: r["status"] for n, r in stored.items()} == {n: m[0] for n, m in meant.items()}, (case, self.log)
            for name, (_, position, mm) in meant.items():
                if position is not None:
                    off = np.abs(np.array(stored[name]["position"]) - position).max() / mm
                    assert off <= OFF_SCREEN_PX, (case, name, off, self.log)
