"""``demo``: the whole loop on synthetic cases, in 2D and 3D, through real servers, with a report at the end."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from landmarklabel.cli.client import Client, free_port, running_server
from landmarklabel.cli.configuration import CONFIG
from landmarklabel.cli.signals import stopped_like_ctrl_c
from landmarklabel.data.synthetic import Phantom, draw_phantom, phantom_task
from landmarklabel.errors import StudyError
from landmarklabel.inference.calibration import Calibration
from landmarklabel.inference.shape_prior import learn_prior
from landmarklabel.inference.suggestion import suggest
from landmarklabel.io.files import write_json
from landmarklabel.io.image_array import Image
from landmarklabel.io.images import write_image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.metrics import mean_or_none, point_errors_mm

STRATEGY = "adaptive"  # the server's default


@dataclass(frozen=True)
class Plan:
    """One study of the demo.

    Args:
        dims: 2 or 3.
        model: that is trained.
        template: another model, which is not: the server answers for it from the labelled shapes alone.
        labels: cases annotated with the template's help, before the training.
        arrivals: cases that come into the study after it, annotated with the model's help.
        tests: further images, outside the study.
        until: share of the demo's time that is over when the training ends.
        least: share of it that the training takes all the same on a busy machine, where the demo then takes longer.
        tolerance_mm: from the truth, within which the annotator accepts a point.
        suffix: of the image files.
        size, spacing_mm, pose: of the phantoms; those in 3D are coarse and lie nearly alike, for minutes on a CPU.
    """

    dims: int
    model: str
    template: str
    labels: int
    arrivals: int
    tests: int
    until: float
    least: float
    tolerance_mm: float
    suffix: str
    size: int | None = None
    spacing_mm: float | None = None
    pose: float = 1.0

    @property
    def unit(self) -> str:
        """Of distances: pictures have no spacing."""
        return "px" if self.suffix == ".png" else "mm"

    @property
    def served(self) -> str:
        """The model's name in the server's addresses."""
        return self.model.replace(":", "_")


# No image lies unlabelled in a study while it trains: what a model finds there would teach it too, but looking for it takes
# minutes with a model that has had so few.
PLANS = (
    Plan(2, "scn", "global_local", labels=8, arrivals=4, tests=8, until=0.2, least=0.1, tolerance_mm=1.5, suffix=".png"),
    Plan(
        3, "scn", "global_local", labels=12, arrivals=3, tests=8, until=0.86, least=0.4, tolerance_mm=3.0, suffix=".nii.gz",
        size=32, spacing_mm=3.0, pose=0.25,
    ),
)  # fmt: skip


@dataclass
class Played:
    """What happened in one study; errors in the plan's unit, NaN where nothing was proposed."""

    plan: Plan
    task: LandmarkTask
    rows: list[dict] = field(default_factory=list)  # one per annotated case
    training: dict = field(default_factory=dict)
    template: list[dict] = field(default_factory=list)  # one per test case: what the template said before the training
    tests: list[dict] = field(default_factory=list)  # the same cases: what the server said after it
    order: dict = field(default_factory=dict)  # what the order of annotation gave

    @property
    def model(self) -> str:
        """What was trained."""
        return self.plan.model

    @property
    def unit(self) -> str:
        """Of errors."""
        return self.plan.unit


@dataclass(frozen=True)
class Clock:
    """The demo's time."""

    minutes: float
    started: float

    @property
    def used(self) -> float:
        """Minutes since the start."""
        return (time.monotonic() - self.started) / 60

    def left(self, until: float) -> float:
        """Minutes until this share of the time is over."""
        return until * self.minutes - self.used


def demo(args: argparse.Namespace) -> int:
    """Play the annotator in a 2D and a 3D study, then write the report; 1 where a study could not be played to its end."""
    if not args.minutes > 0:
        raise StudyError("--minutes must be positive")
    out = _empty_folder(Path(args.out).absolute())
    played: list[Played] = []
    failed: dict[str, str] = {}
    clock, stopped = Clock(args.minutes, time.monotonic()), False
    with stopped_like_ctrl_c():
        try:
            for plan in PLANS:
                _play_or_say_why_not(plan, out, clock, played, failed)
        except KeyboardInterrupt:
            stopped = True
            print("\nstopped: no server and no training is left running")
        _conclude(out, played, failed, clock)
        if args.keep and played and not stopped:
            _keep(out, played[-1].plan)
    return 130 if stopped else int(bool(failed))


def _empty_folder(out: Path) -> Path:
    if out.exists() and any(out.iterdir()) and not (out / "demo.json").exists():
        raise StudyError(f"{out} is not empty and is no earlier demo; choose another --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_json(out / "demo.json", {"demo": "landmarklabel"})
    return out


def _play_or_say_why_not(plan: Plan, out: Path, clock: Clock, played: list[Played], failed: dict[str, str]) -> None:
    """One half; whatever goes wrong in it, the other half and the report are still to come."""
    log = out / f"server{plan.dims}d.log"
    try:
        played.append(_play(plan, out, log, clock))
    except Exception as error:
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        failed[f"{plan.dims}D"] = reason
        print(f"{plan.dims}D failed: {reason}; the server's log is {log}")


def _conclude(out: Path, played: list[Played], failed: dict[str, str], clock: Clock) -> None:
    """Report and figures of what was finished, and how to go on."""
    from landmarklabel.report.demo import demo_figures, write_demo

    figures = {"demo": "landmarklabel", "minutes": round(clock.used, 2), "load": [round(v, 1) for v in os.getloadavg()]}
    figures |= {"failed": failed, "studies": {f"{p.plan.dims}d": demo_figures(p) for p in played}}
    write_json(out / "demo.json", figures)
    if not played:
        print("nothing was finished, so there is no report")
        return
    report = write_demo(out / "report.html", played, out, failed)
    print(f"\ndone in {clock.used:.1f} minutes; report: {report}; its figures: {out / 'demo.json'}")
    print("\nTo go on with a study:")
    for p in played:
        print(f"  {p.plan.dims}D: {_serve_command(out, p.plan)}")
    print(
        "then annotate in the browser at http://127.0.0.1:8000/annotate/, or in 3D Slicer with the module\n"
        "LandmarkLabel (or MONAI Label) and the server http://127.0.0.1:8000; http://127.0.0.1:8000/landmarks/ shows the state"
    )


def _serve_command(out: Path, plan: Plan) -> str:
    study, task = out / f"study{plan.dims}d", out / f"phantom{plan.dims}d.json"
    return shlex.join(["landmarklabel", "serve", "--studies", str(study), "--task", str(task), "--models", plan.model])


def _play(plan: Plan, out: Path, log: Path, clock: Clock) -> Played:
    task, folder = phantom_task(plan.dims), out / f"study{plan.dims}d"
    task_file, tests = out / f"{task.name}.json", out / f"tests{plan.dims}d"
    write_json(task_file, task.to_json())
    truth = _draw(plan, task, folder, "case", 0, plan.labels)
    test_truth = _draw(plan, task, tests, "test", plan.labels, plan.tests)
    played = Played(plan, task)
    print(
        f"\n{plan.dims}D, {plan.model}: {len(truth)} synthetic images and {len(test_truth)} others to test on, {len(task)} "
        "landmarks, some absent; starting the server"
    )
    with running_server(folder, task_file, log, f"{plan.model},{plan.template}") as url:
        client = Client(url, task)
        for _ in range(plan.labels):
            _annotate_one(client, truth, played)
        _learn(client, played, tests, test_truth, max(plan.least * clock.minutes, clock.left(plan.until)))
        print(f"  {plan.arrivals} new images arrive")
        truth |= _draw(plan, task, folder, "later", plan.labels + plan.tests, plan.arrivals)
        for _ in range(plan.arrivals):
            _annotate_one(client, truth, played)
    played.order = _order_told(played, truth, test_truth)
    _tell(played)
    return played


def _draw(plan: Plan, task: LandmarkTask, folder: Path, kind: str, first: int, count: int) -> dict[str, Phantom]:
    """Images with exactly known landmarks; ``first``: of the random seeds."""
    folder.mkdir(exist_ok=True)
    drawn = {}
    for i in range(count):
        look: dict[str, Any] = {"size": plan.size, "spacing": plan.spacing_mm, "pose": plan.pose}
        drawn[f"{kind}{i:02d}"] = phantom = draw_phantom(task, first + i, oblique=plan.dims == 3, **look)
        write_image(folder / f"{kind}{i:02d}{plan.suffix}", Image(phantom.geometry, phantom.pixels))
    return drawn


def _annotate_one(client: Client, truth: dict[str, Phantom], played: Played) -> None:
    """Next case, look at the proposal, correct what is wrong, submit."""
    sample = client.next_sample(STRATEGY)
    image_id, plan = sample["id"], played.plan
    right = truth[image_id].landmarks
    proposal, answer = client.infer(plan.served, image_id)
    row = compared(image_id, proposal, right, answer, plan.tolerance_mm)
    final, clicks = correct(client, plan, image_id, proposal, answer, right)
    client.submit(image_id, final)
    played.rows.append(row | {"number": len(played.rows) + 1, "clicks": clicks, "reason": sample["reason"]})
    by = f"version {answer['model_version']}" if answer["origin"] == "model" else answer["origin"]
    off = mean_or_none(row["errors_mm"])
    said = "nothing proposed" if off is None else f"proposed by {by}, {off:.1f} {plan.unit} off"
    print(f"  {image_id}: {said}; {clicks} of {len(proposal.task)} corrected ({row['wrong'].sum()} were wrong)")


def correct(
    client: Client, plan: Plan, image_id: str, shown: LandmarkSet, answer: dict, truth: LandmarkSet
) -> tuple[LandmarkSet, int]:
    """What a careful annotator submits, and the corrections it took.

    Of the wrong points the flagged ones come first, then the one furthest off; each correction moves the points not yet
    corrected. What is near enough at the end is accepted.
    """
    fixed: dict[str, list[float]] = {}
    absent: list[str] = []
    while True:
        done = np.isin(shown.task.names, [*fixed, *absent])
        wrong = np.flatnonzero(wrong_points(shown, truth, plan.tolerance_mm) & ~done)
        if not len(wrong):
            break
        far = np.nan_to_num(point_errors_mm(shown, truth), nan=np.inf)
        worst = max(wrong, key=lambda i: (bool(answer["landmarks"][i].get("flagged")), far[i]))
        name = shown.task.names[worst]
        if truth.defined[worst]:
            fixed[name] = truth.positions_mm[worst].tolist()
        else:
            absent.append(name)
        shown, answer = client.update(image_id, plan.served, fixed, absent)
    for i, name in enumerate(shown.task.names):
        if not truth.defined[i]:
            shown = shown.with_landmark(name, None, Status.ABSENT)
        else:
            shown = shown.with_landmark(
                name, fixed.get(name, shown.positions_mm[i]), Status.PLACED if name in fixed else Status.ACCEPTED
            )
    return shown, len(fixed) + len(absent)


def wrong_points(shown: LandmarkSet, truth: LandmarkSet, tolerance_mm: float) -> np.ndarray:
    """(n,) bool: further off than the tolerance, not shown though there, or not called absent though absent."""
    called_absent = np.array([s is Status.ABSENT for s in shown.status])
    near = np.nan_to_num(point_errors_mm(shown, truth), nan=np.inf) <= tolerance_mm
    return np.where(truth.defined, ~near, ~called_absent)


def compared(image_id: str, proposal: LandmarkSet, truth: LandmarkSet, answer: dict, tolerance_mm: float) -> dict:
    """A proposal beside the truth, as the report wants it."""
    flagged = np.array([bool(row.get("flagged")) for row in answer["landmarks"]])
    errors, wrong = point_errors_mm(proposal, truth), wrong_points(proposal, truth, tolerance_mm)
    about = {"errors_mm": errors, "wrong": wrong, "flagged": flagged, "origin": answer["origin"]}
    return {"id": image_id, "proposal": proposal, "truth": truth, **about}


def _learn(client: Client, played: Played, tests: Path, truth: dict[str, Phantom], minutes: float) -> None:
    """Train, and compare the template and what the server says afterwards on the test cases."""
    plan, labels = played.plan, len(played.rows)
    played.template = _ask(client, plan, plan.template, tests, truth)
    print(f"  training on {labels} cases for {minutes:.1f} minutes …")
    started = time.monotonic()
    stats = client.train(plan.served, minutes)
    took = (time.monotonic() - started) / 60
    played.tests = _ask(client, plan, plan.served, tests, truth)
    published = bool(stats.get("published"))
    played.training = {**stats, "labels": labels, "minutes": took, "published": published, **_both(played)}
    said = "published" if published else "not published, so the answers stay the template's"
    print(f"  training {stats.get('state')} after {took:.1f} minutes, model {said}: {stats.get('reason')}")


def _both(played: Played) -> dict:
    """Errors of the template and of the server's answers on the same points of the test cases."""
    before, after = (np.stack([t["errors_mm"] for t in tests]) for tests in (played.template, played.tests))
    found = np.isfinite(before) & np.isfinite(after)
    there = np.stack([t["truth"].defined for t in played.tests])
    means = {"template_mm": mean_or_none(before[found]), "model_mm": mean_or_none(after[found])}
    return means | {"missed": int((there & ~np.isfinite(after)).sum()), "points": int(there.sum())}


def _ask(client: Client, plan: Plan, model: str, folder: Path, truth: dict[str, Phantom]) -> list[dict]:
    answers = []
    for image_id, phantom in truth.items():
        proposal, answer = client.infer_file(model, folder / f"{image_id}{plan.suffix}")
        answers.append(compared(image_id, proposal, phantom.landmarks, answer, plan.tolerance_mm))
    return answers


def _order_told(played: Played, truth: dict[str, Phantom], tests: dict[str, Phantom]) -> dict:
    """Error on the test cases of the shapes of the first few cases: those annotated first, and the first ones by name."""
    orders = {STRATEGY: [r["id"] for r in played.rows], "by name": sorted(r["id"] for r in played.rows)}
    told = {}
    for name, ids in orders.items():
        prior = learn_prior([(truth[i].geometry, truth[i].landmarks) for i in ids[: CONFIG.demo_labels]])
        answers = [suggest(played.task, p.geometry, prior, None, Calibration()).landmarks for p in tests.values()]
        errors = [point_errors_mm(s, p.landmarks) for s, p in zip(answers, tests.values(), strict=True)]
        told[name] = mean_or_none(np.stack(errors))
    return {"labels": CONFIG.demo_labels, "template_mm": told}


def _tell(played: Played) -> None:
    last, dims = played.training, played.plan.dims
    mm = {
        key: "nothing proposed" if last[key] is None else f"{last[key]:.2f} {played.unit}" for key in ("template_mm", "model_mm")
    }
    print(
        f"{dims}D: on {len(played.tests)} test images never annotated, mean error {mm['model_mm']}; the template of the same "
        f"{last['labels']} labels: {mm['template_mm']}"
    )
    clicks, alone = (sum(int(np.sum(r[key])) for r in played.rows) for key in ("clicks", "wrong"))
    print(f"{dims}D: {clicks} corrections with the assistant moving the rest, {alone} without")


def _keep(out: Path, plan: Plan) -> None:
    port = free_port()
    study, task = out / f"study{plan.dims}d", out / f"phantom{plan.dims}d.json"
    with running_server(study, task, out / f"server{plan.dims}d.log", plan.model, port=port) as url:
        print(
            f"\nThe server runs at {url}; its page is {url}/landmarks/\nIn 3D Slicer: install the extension MONAILabel or "
            f"LandmarkLabel, open its module,\nenter {url} as the server and press the refresh button. Ctrl-C here stops it."
        )
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print("stopped")
