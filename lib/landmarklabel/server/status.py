"""The server's own page: cases, who did what, how good the proposals are, what comes next and why."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from urllib.parse import quote, urlencode

import numpy as np

from landmarklabel.active.advice import Advice, advise
from landmarklabel.active.observers import ObserverError, observer_errors
from landmarklabel.active.strategies import adaptive
from landmarklabel.data.split import is_validation
from landmarklabel.errors import counted
from landmarklabel.report.page import Cell, Page
from landmarklabel.report.thumbnails import sheet, thumbnail_html
from landmarklabel.services.case_selection import to_do
from landmarklabel.services.descriptions import study_unit
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.pool_monitor import PoolMonitor
from landmarklabel.services.quality import CHECK
from landmarklabel.store.checks import of_this_image, only_checks
from landmarklabel.store.leases import Leases
from landmarklabel.store.revisions import Revision
from landmarklabel.store.study import Study

_ORDER = ("look", "held", "to do", "labelled")  # what asks for work comes first
_FILTERS = {"": "all", "look": "to look at", "held": "in hands", "to do": "to do", "labelled": "labelled"}

_NAMELESS = re.compile(r"\d{15}-[0-9a-f]{32}")  # of a browser whose user has given no name


class StatusPage:
    """Made at most every few seconds, however many look at it.

    Args:
        study, monitor, leases: what it shows.
        training: the newest training's statistics by model.
        answers: what answers under each model's name, in words.
    """

    def __init__(
        self,
        study: Study,
        monitor: PoolMonitor,
        leases: Leases,
        training: Callable[[], dict[str, dict]],
        answers: Callable[[], dict[str, str]],
    ):
        self.study, self.monitor, self.leases, self.training, self.answers = study, monitor, leases, training, answers
        self._made: tuple[float, dict] = (0.0, {})
        self._placed: dict[tuple[str, int], Revision] = {}

    def html(self, number: int = 1, show: str = "") -> str:
        """The page, of what was looked up last or is looked up anew.

        Args:
            number: which ``page_cases`` of its cases.
            show: only cases of this kind; all when empty.
        """
        made, content = self._made
        if time.monotonic() - made > LIMITS.status_s or not content:
            content = self.content()
            self._made = time.monotonic(), content
        return self._page(content, number, show)

    def content(self) -> dict:
        """What the page shows, as plain data."""
        self.study.verify(seconds=0.5)
        heads, labelled, held = self.study.heads(), self.study.labelled(), self.leases.held()
        changed = self.study.changed()
        images = self.study.images()
        kinds = {i: _kind(heads.get(i), i in labelled, i in held, i in changed) for i in images}
        order = sorted((self._placed_in(heads[i]).created, i) for i in labelled if i in heads)
        number = {i: n for n, (_, i) in enumerate(order)}
        observed = self.monitor.observed()
        measured = {i: off for i, (_, off) in observed.items() if i in number and np.isfinite(off).any()}
        in_order = sorted((number[i], float(np.nanmean(off)), i) for i, off in measured.items())
        curve = [(n, error) for n, error, _ in in_order]
        off = np.stack([off for _, off in observed.values()]) if observed else np.full((0, len(self.study.task)), np.nan)
        known = np.isfinite(off)
        return {
            "made": time.strftime("%H:%M:%S UTC", time.gmtime()),
            "unit": study_unit(self.study),
            "task": self.study.task.name,
            "cases": [(i, kind) for kind in _ORDER for i, of in kinds.items() if of == kind],  # sorted by id within a kind
            "heads": heads,
            "held": held,
            "changed": changed,
            "annotators": [[a or "nobody named", n, k, _minute(last)] for a, n, k, last in self.study.revisions.authors()],
            "curve": curve,
            "per_landmark": _per_landmark(self.study.task.names, off),
            "no_click_needed": float((off[known] <= LIMITS.near_mm).mean()) if known.any() else None,
            "observers": self._observers(labelled),
            "advice": self._advice(in_order),
            "next": self._next([i for i in images if i not in labelled and i not in held]),
            "training": self.training(),
            "answers": self.answers(),
        }

    def _case(self, c: dict, image_id: str, kind: str) -> dict:
        head, lease = c["heads"].get(image_id), c["held"].get(image_id)
        state = "in somebody's hands" if kind == "held" else kind
        if kind == "look":
            together = f"revisions {head.body.get('unseen')} and {head.number} were made at the same time"
            state = "changed since it was labelled" if image_id in c["changed"] else together
        if kind == "labelled" and head is not None and (left := to_do(self.study.read(head))):
            state = f"labelled, {counted(left, 'point')} left"
        seen = self.monitor.assessments.get(image_id)
        return {
            "image": image_id,
            "state": state,
            "kind": kind,
            "by": head.author if head else _NAMELESS.sub("somebody without a name", (lease or {}).get("client", "")),
            "when": _minute(head.created) if head else "",
            "revisions": head.number if head else 0,
            "expected": None if seen is None else seen[1].expected_error,
        }

    def _placed_in(self, head: Revision) -> Revision:
        """The revision whose author placed the points: one by which somebody only called points right is not."""
        if head.source != CHECK:
            return head
        if (head.image_id, head.number) not in self._placed:
            history = [None, *(r for r in self.study.history(head.image_id) if r.number <= head.number)]
            placed = [r for b, r in pairwise(history) if r is not None and not only_checks(self.study.read, r, b)]
            self._placed[head.image_id, head.number] = placed[-1] if placed else head
        return self._placed[head.image_id, head.number]

    def _advice(self, observed: list[tuple[int, float, str]]) -> Advice:
        counts, errors, ids = zip(*observed, strict=True) if observed else ((), (), ())
        return advise(counts, errors, [is_validation(i) for i in ids], study_unit(self.study))

    def _observers(self, labelled: dict) -> tuple[ObserverError, ObserverError]:
        readings = []
        for image_id, further in self.study.repeats().items():
            head = self.study.heads().get(image_id)
            if image_id in labelled and head is not None:
                head = self._placed_in(head)
                kept = of_this_image(further, self.study.history(image_id))
                newest = {r.author: r for r in kept}  # of one that was mended, the newest counts
                for author, reading in newest.items():
                    readings.append((head.author, labelled[image_id], author, self.study.read(reading).stated()))
        return observer_errors(readings, len(self.study.task))

    def _next(self, free: list[str]) -> tuple[str, str] | None:
        if not free:
            return None
        choice = adaptive(self.monitor.pool(free), np.random.default_rng(len(free)))
        return choice.image_id, choice.reason

    def _page(self, c: dict, number: int, show: str) -> str:
        page = Page(f"LandmarkLabel: {c['task']}")
        done = sum(kind == "labelled" for _, kind in c["cases"])
        share, unit = c["no_click_needed"], c["unit"]
        numbers = [
            ("cases labelled", f"{done} of {len(c['cases'])}", ""),
            ("annotators", str(len(c["annotators"])), ""),
            (f"proposals within {LIMITS.near_mm:g} {unit}", "–" if share is None else f"{share:.0%}", "before a person looked"),
        ]
        page.numbers(numbers)
        advice: Advice = c["advice"]
        places = {
            "Annotate": "../annotate/",
            "Quality of the labels": "../annotate/quality.html",
            "Load again": _query(show, number),
        }
        page.links(places, before=f"As of {c['made']}.")
        page.text(advice.text[0].upper() + advice.text[1:] + ".")
        if c["next"]:
            page.text(f"Next new case: {c['next'][0]}, {c['next'][1]}.")
        for model, stats in c["training"].items():
            page.text(f"Model {model}: {c['answers'].get(model, 'template answers')}; {_training(stats)}.")
        self._cases(page, c, number, show)
        if c["curve"]:
            from landmarklabel.report import pictures  # matplotlib is loaded where somebody looks

            page.section("How far off the proposals were, before a person looked")
            points = [(n, None, error) for n, error in c["curve"]]
            axes = ("cases labelled before", f"mean error of the proposals ({unit})")
            page.picture(
                pictures.learning_curve(points, ("", "proposals"), axes=axes),
                "One point per case. What was accepted as proposed counts as 0.",
            )
            page.section("By landmark")
            page.table(["landmark", f"mean error ({unit})", "cases"], c["per_landmark"])
        intra, inter = c["observers"]
        if intra.cases or inter.cases:
            page.section("How far people differ")
            page.text(f"Read twice by the same person: {intra.cases} cases; by two: {inter.cases}.")
            pairs = zip(self.study.task.names, intra.mm, inter.mm, strict=True)
            rows: list[list[Cell]] = [[name, float(one), float(two)] for name, one, two in pairs]
            page.table(["landmark", f"same person ({unit})", f"two people ({unit})"], rows)
        page.section("Who did what")
        page.table(["annotator", "cases", "revisions", "last"], c["annotators"])
        return page.html()

    def _cases(self, page: Page, c: dict, number: int, show: str) -> None:
        """One page of the cases: those that ask for work first, with their pictures and points."""
        cases = [(i, kind) for i, kind in c["cases"] if show in ("", kind)]
        pages = max(1, -(-len(cases) // LIMITS.page_cases))
        number = min(max(number, 1), pages)
        part = cases[(number - 1) * LIMITS.page_cases : number * LIMITS.page_cases]
        shown = [self._case(c, image_id, kind) for image_id, kind in part]
        page.section("Cases" if pages == 1 else f"Cases, page {number} of {pages}")
        page.text(
            "First those that ask for a look, then those in hands, to do, and labelled. Revisions: how often a case was saved. "
            "Expected error: what the newest model expected of its proposal before a person looked, mean of the landmarks, in % "
            "of the size of what they outline. A case's name opens it for annotating."
        )
        counts = Counter(kind for _, kind in c["cases"])
        names = {kind: f"{_FILTERS[kind]} ({counts[kind] if kind else len(c['cases'])})" for kind in _FILTERS}
        page.links({names[kind]: _query(kind, 1) for kind in _FILTERS}, names[show], "Show:")
        if pages > 1:
            page.links({str(n): _query(show, n) for n in range(1, pages + 1)}, str(number))
        stamps = []
        for case in shown:
            if (picture := self.monitor.pictures.get(case["image"])) is not None:
                head = self.study.revisions.head(case["image"])
                points = self.study.read(head) if head is not None else None
                text = f"{case['image']}: {case['state']}"
                stamps.append(thumbnail_html(picture, points, text, _address(case["image"]), case["kind"] == "look"))
        if stamps:
            page.html_block(sheet(stamps))
        if len(stamps) < len(shown):
            page.text(f"{len(shown) - len(stamps)} pictures are still being made; the page loads itself again.")
        rows = [[x["image"], x["state"], x["by"], x["when"], x["revisions"], x["expected"]] for x in shown]
        header = ["image", "state", "by", "when", "revisions", "expected error (% of size)"]
        marked = {n for n, x in enumerate(shown) if x["kind"] == "look"}
        page.table(header, rows, marked, {x["image"]: _address(x["image"]) for x in shown})


def _kind(head: Revision | None, labelled: bool, held: bool, changed: bool) -> str:
    if changed or (labelled and head is not None and head.body.get("unseen")):
        return "look"
    return "labelled" if labelled else "held" if held else "to do"


def _address(image_id: str) -> str:
    return f"../annotate/#case={quote(image_id, safe='')}"


def _query(show: str, number: int) -> str:
    return f"?{urlencode({'show': show, 'page': number} if show else {'page': number})}"


def _minute(created: str) -> str:
    return created[:16].replace("T", " ")


def _per_landmark(names: tuple[str, ...], off: np.ndarray) -> list[list]:
    known = np.isfinite(off)
    rows = [
        [name, float(off[known[:, k], k].mean()), int(known[:, k].sum())] for k, name in enumerate(names) if known[:, k].any()
    ]
    return sorted(rows, key=lambda row: -row[1])


def _training(stats: dict) -> str:
    if not stats:
        return "not trained by this server yet"
    if stats.get("state") == "running":
        return f"being trained, {stats.get('epoch', 0)} %"
    return f"training {stats.get('state')}: {str(stats.get('reason', ''))[:200]}"
