"""The measurements of the ``gpu`` experiment: trainings, one gradient, predictions; and how they are compared."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from gpu_data import read_set

from landmarklabel.data.cases import Case
from landmarklabel.errors import Cancelled
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model_folder import load_model
from landmarklabel.networks.precision import autocast, bf16_pays
from landmarklabel.networks.presets import Preset, find_preset
from landmarklabel.training.fit import FitConfig, fit
from landmarklabel.training.loop import Budget, Progress, on_device
from landmarklabel.training.publishing import capped_error_mm
from landmarklabel.training.stages import CoarseStage, FineStage

MODES = ("fp32", "product")
REPEATS = 5


@dataclass(frozen=True)
class Job:
    """One model of one set: what to measure, and with what."""

    arrays: Path
    work: Path
    method: str
    device: str
    steps: int
    images: int
    tiny: bool = False
    seconds: float = 0.0  # a training stops after them

    @property
    def reference(self) -> Path:
        """The model trained on the CPU, which every prediction is made with."""
        return self.work / "reference"

    def preset(self, dims: int) -> Preset:
        """The method's own, or what takes a second."""
        preset = find_preset(f"{self.method}:default", dims)
        if not self.tiny:
            return preset
        sides = {2: 64**2, 3: 16**3}
        small = {"grid_size": sides, "grid_size_any_orientation": sides, "batch": {2: 1, 3: 1}}
        return replace(preset, **small, refine=replace(preset.refine, crops={2: 2, 3: 2}))


@dataclass(frozen=True)
class Tolerances:
    """How far the device may be from the CPU in fp32.

    Args:
        voxels_fp32, voxels_product: that 95 % of the predicted points lie within, in samples of the image.
        presence: share of the points that may be absent on one side alone.
        gradient_fp32, gradient_product: length of the difference of the gradients, by the length of the CPU's.
        training: difference of the validation errors, by the CPU's; dropout draws other numbers on a GPU, so this is as
            far apart as two seeds may be.
    """

    voxels_fp32: float = 0.1
    voxels_product: float = 0.5
    presence: float = 0.01
    gradient_fp32: float = 0.01
    gradient_product: float = 0.1
    training: float = 0.25


TOLERANCES = Tolerances()


def side(job: Job, reference: bool) -> torch.device:
    """Where a side runs. The reference has every core; without a GPU, the other side has another number of threads."""
    cores = 1 if job.tiny else len(os.sched_getaffinity(0))
    other = 1 if job.tiny or cores > 1 else 2
    torch.set_num_threads(cores if reference or job.device != "cpu" else other)
    return torch.device("cpu" if reference else job.device)


# --- parts ---------------------------------------------------------------------------------------------------------


def train_reference(job: Job) -> dict | None:
    """A short training on the CPU; None when its time was up."""
    return _train(job, job.reference, side(job, reference=True))


def train_device(job: Job) -> dict | None:
    """The same on the device."""
    return _train(job, job.work / "device", side(job, reference=False))


def _train(job: Job, folder: Path, device: torch.device) -> dict | None:
    task, train, valid = read_set(job.arrays)
    preset = job.preset(task.dims)
    (folder / "model.json").unlink(missing_ok=True)  # of a call that was killed just before it could say so
    watch, deadline = _Watch(), time.monotonic() + job.seconds
    config = FitConfig(preset, Budget(steps=job.steps), device=device, resume=True)
    try:
        model, metrics = fit(task, train, valid, config, folder, watch, lambda: time.monotonic() > deadline)
    except Cancelled:
        return None
    a_step = watch.seconds_a_step()
    return {
        "device": _named(device),
        "arithmetic": _arithmetic(device, preset.optimization.precision),
        "validation_error_mm": capped_error_mm(model, [model.case(c.image_id, c.image, c.landmarks) for c in valid]),
        "median_mm": metrics["median_mm"],
        "images_a_second": preset.batch[task.dims] / a_step["locate"] if "locate" in a_step else None,
        "crops_a_second": preset.refine.crops[task.dims] / a_step["refine"] if "refine" in a_step else None,
        "peak_gib": _peak_gib(device),
    }


class _Watch:
    """How long steps take, from what a training reports."""

    def __init__(self):
        self.seconds: dict[str, list[float]] = {}
        self.before = 0.0

    def __call__(self, p: Progress) -> None:
        self.seconds.setdefault(p.stage, []).append(time.perf_counter())

    def seconds_a_step(self) -> dict[str, float]:
        """Median of each stage seen in this call, without its first few steps, which warm up."""
        steps = {stage: np.diff(times)[min(3, len(times) - 2) :] for stage, times in self.seconds.items() if len(times) > 1}
        return {stage: float(np.median(x)) for stage, x in steps.items()}


def step(job: Job) -> dict:
    """Loss and gradient of the same batch and weights on both sides, and how many a second the networks alone do.

    Without dropout, whose random numbers are the device's own.
    """
    _trained(job)
    task, train, _ = read_set(job.arrays)
    out: dict = {}
    for which in ("locate", "refine"):
        reference = None
        for place, name in ((True, "reference"), (False, "device")):
            device = side(job, reference=place)
            for mode in MODES:
                model = load_model(job.reference)
                model.networks.preset = job.preset(task.dims)
                stage = _stage(model, train, which)
                loss, gradient, seconds = _gradient(stage, device, mode)
                reference = gradient if reference is None else reference
                out[f"{which}_{name}_{mode}"] = {
                    "arithmetic": _arithmetic(device, _precision(stage, mode)),
                    "loss": loss,
                    "gradient_difference": float((gradient - reference).norm() / reference.norm()),
                    "items_a_second": len(stage.batch(0).images) / seconds,
                }
    return out


def _stage(model: Localizer, cases: list[Case], which: str) -> CoarseStage | FineStage:
    cases, networks, preset = [model.case(c.image_id, c.image, c.landmarks) for c in cases], model.networks, model.preset
    if which == "locate":
        turned = model.alignment_shape is not None
        return CoarseStage(networks.coarse_net, preset, networks.grid, cases, 0, any_orientation=turned)
    return FineStage(networks.fine_net, preset, preset.refine, networks.grid, networks.crops, cases, 0)


def _gradient(stage: CoarseStage | FineStage, device: torch.device, mode: str) -> tuple[float, torch.Tensor, float]:
    """Loss, gradient (all parameters, float64, on the CPU) and median seconds."""
    module, batch = stage.module.to(device).eval(), stage.batch(0)
    batch, times = on_device(device, batch), []
    for _ in range(REPEATS):
        module.zero_grad(set_to_none=True)
        _wait_for(device)
        started = time.perf_counter()
        with autocast(device, _precision(stage, mode)):
            loss = stage.loss(batch, stage.counts(batch))
        loss.backward()
        _wait_for(device)
        times.append(time.perf_counter() - started)
    parts = [p.grad.detach().double().cpu().reshape(-1) for p in module.parameters() if p.grad is not None]
    return float(loss.detach()), torch.cat(parts), statistics.median(times)


def predict_reference(job: Job) -> dict:
    """Predictions on the CPU of the model trained there."""
    return _predict(job, side(job, reference=True))


def predict_device(job: Job) -> dict:
    """Predictions on the device of the same model."""
    return _predict(job, side(job, reference=False))


def _predict(job: Job, device: torch.device) -> dict:
    _trained(job)
    model, (_, _, valid) = load_model(job.reference, device=device), read_set(job.arrays)
    valid, out = valid[: job.images], {}
    for mode in MODES:
        model.networks.precision = "fp32" if mode == "fp32" else None
        model.predict(valid[0].image)  # warms up
        found, times = [], []
        for case in valid:
            started = time.perf_counter()
            found.append(model.predict(case.image).positions_mm)
            times.append(time.perf_counter() - started)
        out[mode] = {
            "arithmetic": _arithmetic(device, model.networks.precision or model.preset.optimization.precision),
            "predictions_a_second": 1 / statistics.median(times),
            "positions_mm": [[x.tolist() if np.isfinite(x).all() else None for x in each.round(4)] for each in found],
        }
    voxels = [float(np.mean(c.image.geometry.spacing)) for c in valid]
    return {"device": _named(device), "voxel_mm": voxels, "peak_gib": _peak_gib(device), **out}


def _trained(job: Job) -> None:
    """The reference, trained once more where only the figures were carried here; on one CPU that gives the same bits."""
    if not (job.reference / "model.json").exists():
        threads = torch.get_num_threads()
        task, train, valid = read_set(job.arrays)
        preset, device = job.preset(task.dims), side(job, reference=True)
        config = FitConfig(preset, Budget(steps=job.steps), device=device, resume=True)
        fit(task, train, valid, config, job.reference)
        torch.set_num_threads(threads)


def _precision(stage: CoarseStage | FineStage, mode: str) -> str:
    return "fp32" if mode == "fp32" else stage.optimization.precision


def _arithmetic(device: torch.device, precision: str) -> str:
    return "bf16" if precision == "bf16" and bf16_pays(device) else "fp32"


def _named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_gib(device: torch.device) -> dict:
    """Of this process so far: resident memory (getrusage would still show the parent's peak), and the device's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = {"host": next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) / 2**20}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device) / 2**30
        peak["device_reserved"] = torch.cuda.max_memory_reserved(device) / 2**30
    return peak


# --- comparison ----------------------------------------------------------------------------------------------------


def compare(parts: dict) -> dict:
    """One model's parts side by side, and whether the device agrees within TOLERANCES."""
    t, sides = TOLERANCES, ("reference", "device")
    training = {s: parts[f"train_{s}"] for s in sides}
    errors = [training[s]["validation_error_mm"] for s in sides]
    predictions = {s: {k: v for k, v in parts[f"predict_{s}"].items() if k not in MODES} for s in sides}
    for s in sides:
        for mode in MODES:
            predictions[s][mode] = {k: v for k, v in parts[f"predict_{s}"][mode].items() if k != "positions_mm"}
            if (s, mode) != ("reference", "fp32"):
                predictions[s][mode] |= _distance(parts["predict_reference"], parts[f"predict_{s}"][mode])
    checks = {"training": abs(errors[1] - errors[0]) <= t.training * errors[0]}
    for mode in MODES:
        p, most = predictions["device"][mode], getattr(t, f"voxels_{mode}")
        near = p["p95_voxels"] is not None and p["p95_voxels"] <= most
        checks[f"positions_{mode}"] = near and p["presence_differs"] <= t.presence * p["points"]
        steps = [parts["step"][f"{which}_device_{mode}"]["gradient_difference"] for which in ("locate", "refine")]
        checks[f"gradient_{mode}"] = max(steps) <= getattr(t, f"gradient_{mode}")
    return {
        "agrees": all(checks.values()),
        "checks": checks,
        "training": training,
        "step": parts["step"],
        "predictions": predictions,
    }


def _distance(reference: dict, other: dict) -> dict:
    """From the reference's points in fp32 to another side's, over all images."""
    a, b = (_points(x["positions_mm"]) for x in (reference["fp32"], other))
    mm = np.linalg.norm(a - b, axis=2)
    both = np.isfinite(mm)
    voxels = (mm / np.array(reference["voxel_mm"])[:, None])[both]
    if not voxels.size:  # all absent on both sides: nothing was compared
        return {"points": int(both.size), "presence_differs": int(both.size), "p95_voxels": None}
    return {
        "points": int(both.size),
        "presence_differs": int((np.isfinite(a).all(2) != np.isfinite(b).all(2)).sum()),
        "median_voxels": float(np.median(voxels)),
        "p95_voxels": float(np.percentile(voxels, 95)),
        "max_voxels": float(voxels.max()),
        "p95_mm": float(np.percentile(mm[both], 95)),
    }


def _points(positions: list) -> np.ndarray:
    """(images, n, d); NaN where there is none."""
    dims = next((len(p) for image in positions for p in image if p is not None), 1)
    return np.array([[p or [np.nan] * dims for p in image] for image in positions], float)
