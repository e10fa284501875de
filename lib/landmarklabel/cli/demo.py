"""``demo``: the whole loop on synthetic cases, through a real server, with a report at the end."""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from landmarklabel.cli.client import Client, free_port, running_server
from landmarklabel.data.synthetic import Phantom, draw_phantom, phantom_task
from landmarklabel.errors import StudyError
from landmarklabel.io.files import write_json
from landmarklabel.io.images import Image, write_image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.metrics import point_errors_mm


@dataclass(frozen=True)
class Plan:
    """One study of the demo: which model, after how many annotated cases it is trained, how many test cases, and its images;
    those in 3D are coarse and lie nearly alike, so that minutes on a CPU teach something."""

    dims: int
    model: str
    train_after: tuple[int, ...]
    tests: int
    tolerance_mm: float
    suffix: str
    size: int | None = None
    spacing_mm: float | None = None
    pose: float = 1.0


PLANS = (
    Plan(2, "scn", train_after=(4, 10, 20), tests=8, tolerance_mm=1.5, suffix=".png"),
    Plan(3, "global_local", train_after=(4, 12), tests=4, tolerance_mm=3.0, suffix=".nii.gz", size=32, spacing_mm=3.0, pose=0.25),
)


@dataclass
class Played:
    """What happened in one study; errors in mm, NaN where nothing was proposed."""

    plan: Plan
    task: LandmarkTask
    rows: list[dict] = field(default_factory=list)  # one an annotated case
    trainings: list[dict] = field(default_factory=list)
    tests: list[dict] = field(default_factory=list)  # one a test case

    @property
    def model(self) -> str:
        """What was trained."""
        return self.plan.model


def demo(a: argparse.Namespace) -> int:
    """Play the annotator in a 2D and a 3D study, then write the report."""
    from landmarklabel.report.demo import write_demo

    if not a.minutes > 0:
        raise StudyError("--minutes must be positive")
    out = Path(a.out).absolute()
    if out.exists() and any(out.iterdir()) and not (out / "demo.json").exists():
        raise StudyError(f"{out} is not empty and is no earlier demo; choose another --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_json(out / "demo.json", {"demo": "landmarklabel"})
    started = time.monotonic()
    played = [_play(plan, out, a.minutes * share) for plan, share in zip(PLANS, (0.55, 0.45), strict=True)]
    report = write_demo(out / "report.html", played, out)
    print(f"\ndone in {(time.monotonic() - started) / 60:.1f} minutes; report: {report}")
    if a.keep:
        _keep(out)
    return 0


def _play(plan: Plan, out: Path, minutes: float) -> Played:
    task, folder = phantom_task(plan.dims), out / f"study{plan.dims}d"
    task_file = out / f"{task.name}.json"
    write_json(task_file, task.to_json())
    truth = _make_study(plan, task, folder)
    played = Played(plan, task)
    print(f"\n{plan.dims}D, {plan.model}: {len(truth)} synthetic images, {len(task)} landmarks, some absent; starting the server")
    with running_server(folder, task_file, out / "server.log", plan.model) as url:
        client = Client(url, task)
        for number in range(1, max(plan.train_after) + 1):
            _annotate_one(client, truth, played, number)
            if number in plan.train_after:
                weight = plan.train_after.index(number) + 1
                _train(client, played, minutes * weight / sum(range(1, len(plan.train_after) + 1)), number)
        for image_id in sorted(i for i in truth if i.startswith("test")):
            proposal, _ = client.infer(plan.model, image_id)
            played.tests.append(_compared(image_id, proposal, truth[image_id]))
    found = np.concatenate([t["errors_mm"] for t in played.tests])
    print(f"{plan.dims}D: on {plan.tests} test images median error {np.nanmedian(found):.2f} mm after {number} labels")
    return played


def _make_study(plan: Plan, task: LandmarkTask, folder: Path) -> dict[str, LandmarkSet]:
    folder.mkdir()
    truth = {}
    names = [f"case{i:02d}" for i in range(max(plan.train_after))] + [f"test{i:02d}" for i in range(plan.tests)]
    for seed, name in enumerate(names):
        look = {"size": plan.size, "spacing": plan.spacing_mm, "pose": plan.pose}
        phantom: Phantom = draw_phantom(task, seed, oblique=plan.dims == 3, **look)
        write_image(folder / f"{name}{plan.suffix}", Image(phantom.geometry, phantom.pixels))
        truth[name] = phantom.landmarks
    return truth


def _annotate_one(client: Client, truth: dict[str, LandmarkSet], played: Played, number: int) -> None:
    """Next case, look at the proposal, correct what is wrong, submit."""
    sample = client.next_sample("first")
    image_id = sample["id"]
    proposal, answer = client.infer(played.model, image_id)
    row = _compared(image_id, proposal, truth[image_id])
    final, clicks = correct(proposal, truth[image_id], played.plan.tolerance_mm)
    client.submit(image_id, final)
    row |= {"number": number, "clicks": clicks, "origin": answer["origin"], "reason": sample["reason"]}
    played.rows.append(row)
    error = np.nanmean(row["errors_mm"]) if np.isfinite(row["errors_mm"]).any() else float("nan")
    origin = f"version {answer['model_version']}" if answer["origin"] == "model" else answer["origin"]
    print(f"  {image_id}: proposed by {origin:<10} error {error:6.2f} mm, {clicks:2d} of {len(proposal.task)} corrected")


def correct(proposal: LandmarkSet, truth: LandmarkSet, tolerance_mm: float) -> tuple[LandmarkSet, int]:
    """What a careful annotator submits: wrong points moved to the truth, good ones accepted; and how many were moved."""
    final, clicks = proposal, 0
    distance = np.linalg.norm(proposal.positions_mm - truth.positions_mm, axis=1)
    for i, name in enumerate(proposal.task.names):
        if not truth.defined[i]:
            clicks += int(proposal.status[i] is not Status.ABSENT)
            final = final.with_landmark(name, None, Status.ABSENT)
        elif proposal.defined[i] and distance[i] <= tolerance_mm:
            final = final.with_landmark(name, proposal.positions_mm[i], Status.ACCEPTED)
        else:
            clicks += 1
            final = final.with_landmark(name, truth.positions_mm[i], Status.PLACED)
    return final, clicks


def _train(client: Client, played: Played, minutes: float, number: int) -> None:
    print(f"  training on {number} cases for {minutes:.1f} minutes …")
    stats = client.train(played.model, minutes)
    played.trainings.append({"labels": number, "minutes": minutes, **stats})
    print(f"  training {stats.get('state')}: {stats.get('reason')}")


def _compared(image_id: str, proposal: LandmarkSet, truth: LandmarkSet) -> dict:
    return {"id": image_id, "proposal": proposal, "truth": truth, "errors_mm": point_errors_mm(proposal, truth)}


def _keep(out: Path) -> None:
    port = free_port()
    plan = PLANS[-1]
    study, task = out / f"study{plan.dims}d", out / f"phantom{plan.dims}d.json"
    with running_server(study, task, out / "server.log", plan.model, port=port) as url:
        print(
            f"\nThe server runs at {url}\nIn 3D Slicer: install the extension MONAILabel or LandmarkLabel, open its module,"
            f"\nenter {url} as the server and press the refresh button. Ctrl-C here stops the server."
        )
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print("stopped")
