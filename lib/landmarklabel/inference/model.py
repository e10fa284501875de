"""A model as a folder: ``model.safetensors`` and ``model.json``. Reading one executes nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from landmarklabel.data.batches import CropPlan, GridPlan
from landmarklabel.data.pose import LEAST_SPREAD, ShapePose
from landmarklabel.errors import FaultsError, LandmarkLabelError, ModelError
from landmarklabel.inference.calibration import Calibration
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.prior import ShapePrior, UsualPose
from landmarklabel.io.checkpoints import load_tensors, save_tensors
from landmarklabel.io.files import write_json
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.networks.build import build_locator, build_refiner
from landmarklabel.networks.registry import find_preset

WEIGHTS, RECORD = "model.safetensors", "model.json"
FORMAT = "landmarklabel-model"
MOST_SCALES = 8
MOST_ROUNDS = 4
_MAX_RECORD = 20 * 2**20


def save_model(folder: str | Path, model: Localizer, record: dict) -> None:
    """Write a model folder; ``record`` adds what is known of its making (labels' hashes, seed, metrics, …)."""
    folder = Path(folder)
    tensors = {f"locator.{k}": v for k, v in model.locator.state_dict().items()}
    if model.refiner is not None:
        tensors |= {f"refiner.{k}": v for k, v in model.refiner.state_dict().items()}
    if model.reference is not None:
        tensors["reference"] = torch.from_numpy(np.ascontiguousarray(model.reference, dtype=np.float32))
    if model.prior is not None:
        tensors["prior.covariance"] = torch.from_numpy(model.prior.covariance)
    sha256 = save_tensors(folder / WEIGHTS, tensors, {"task_hash": model.task.hash, "preset": model.preset.key})
    content = {
        "format": FORMAT,
        "version": 1,
        "preset": model.preset.key,
        "task": model.task.to_json(),
        "task_hash": model.task.hash,
        "weights_sha256": sha256,
        "grid": asdict(model.grid),
        "crops": asdict(model.crops) if model.crops else None,
        "calibration": asdict(model.calibration),
        "pose": _pose_to_json(model.pose),
        "prior": _prior_to_json(model.prior),
        "untaught": list(model.untaught),
        **record,
    }
    write_json(folder / RECORD, content)


def read_record(folder: str | Path) -> dict:
    """The content of ``model.json``; ModelError when it is missing or not one."""
    path = Path(folder) / RECORD
    try:
        if path.stat().st_size > _MAX_RECORD:
            raise ModelError(f"{path}: larger than {_MAX_RECORD} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ModelError(f"{folder}: no trained model here ({RECORD} is missing)") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{path}: not readable as JSON") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("version") != 1:
        raise ModelError(f"{path}: not a model record of this program (format {FORMAT!r}, version 1)")
    return content


def load_model(folder: str | Path, task: LandmarkTask | None = None, device: torch.device | None = None) -> Localizer:
    """Read a model folder.

    Args:
        folder: the model.
        task: refuse a model that was trained for other landmarks.
        device: where it will run; CPU by default.

    Raises:
        ModelError: missing or damaged files, or another task's model.
    """
    record, device = read_record(folder), device or torch.device("cpu")
    try:
        own = LandmarkTask.from_json(record["task"], "the model's task")
        preset = find_preset(record["preset"], own.dims)
        grid = GridPlan(**_tuples(record["grid"], "size"))
        grid = replace(grid, field=tuple(grid.field)) if grid.field is not None else grid
        crops = CropPlan(**record["crops"]) if record["crops"] else None
        if crops and not 1 <= crops.scales <= MOST_SCALES:
            raise ValueError(f"{crops.scales} scales of crops")  # a network is built for them before the weights are read
        if crops and not 1 <= crops.rounds <= MOST_ROUNDS:
            raise ValueError(f"{crops.rounds} rounds of crops")
        calibration = _calibration(record["calibration"])
        sha256 = str(record["weights_sha256"])
        pose = _pose_from_json(record.get("pose"), own)
        untaught = tuple(own.names[own.index(name)] for name in record.get("untaught", ()))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, FaultsError) as error:
        raise ModelError(f"{folder}: {RECORD} is damaged ({error!r})") from None
    except LandmarkLabelError as error:
        raise ModelError(f"{folder}: {error}") from None
    if task is not None and task.hash != own.hash:
        raise ModelError(f"{folder}: trained for task {own.name!r} with other landmarks than task {task.name!r} has")
    tensors, _ = load_tensors(Path(folder) / WEIGHTS, sha256)
    model = Localizer(task or own, preset, grid, build_locator(preset.network, own.dims, len(own)), crops)
    model.calibration, model.device, model.pose, model.untaught = calibration, device, pose, untaught
    refine = preset.refine.network if preset.refine else "shared"
    model.prior = _prior_from_tensors(record.get("prior"), tensors, own, folder)
    model.refiner = build_refiner(refine, own.dims, len(own), crops.scales, crops.presence) if crops else None
    model.reference = tensors["reference"].float().numpy() if "reference" in tensors else None
    for name in ("locator", "refiner"):
        _fill(getattr(model, name), name, tensors, folder, device)
    return model


def _fill(module, name: str, tensors: dict, folder, device) -> None:
    if module is None:
        return
    prefix = f"{name}."
    try:
        module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
    except RuntimeError as error:
        raise ModelError(f"{folder}: the weights do not fit the {name}: {str(error).splitlines()[0]}") from None
    module.to(device).eval()


def _pose_to_json(pose: ShapePose | None) -> dict | None:
    if pose is None:
        return None
    rows = [row.tolist() if np.isfinite(row).all() else None for row in pose.mean]
    return {"mean": rows, "wild": pose.wild, "spread": pose.spread}


def _pose_from_json(content: dict | None, task: LandmarkTask) -> ShapePose | None:
    if content is None:
        return None
    unknown = [float("nan")] * task.dims
    mean = np.array([row or unknown for row in content["mean"]], np.float64)
    if mean.shape != (len(task), task.dims):
        raise ValueError(f"the mean shape has shape {mean.shape}")
    return ShapePose(mean, bool(content["wild"]), float(content.get("spread", LEAST_SPREAD)))


def _prior_to_json(prior: ShapePrior | None) -> dict | None:
    if prior is None:
        return None
    usual = {**asdict(prior.usual), "centre": prior.usual.centre.tolist()}
    return {"pose": _pose_to_json(prior.pose), "usual": usual, "cases": prior.cases, "symmetric": prior.symmetric}


def _prior_from_tensors(content: dict | None, tensors: dict, task: LandmarkTask, folder) -> ShapePrior | None:
    if content is None:
        return None
    try:
        usual = UsualPose(**{**_tuples(content["usual"], "spread"), "centre": np.array(content["usual"]["centre"], float)})
        covariance = tensors["prior.covariance"].double().numpy()
        if covariance.shape != (len(task) * task.dims,) * 2 or usual.centre.shape != (task.dims,):
            raise ValueError(f"the shape prior has a covariance of shape {covariance.shape}")
        pose = _pose_from_json(content["pose"], task)
        return ShapePrior(pose, covariance, usual, int(content["cases"]), bool(content["symmetric"]))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ModelError(f"{folder}: {RECORD} is damaged ({error!r})") from None


def _calibration(content: dict) -> Calibration:
    lists = {key: tuple(content[key]) for key in ("offsets", "quantiles", "span") if key in content}
    return Calibration(**{**content, **lists})


def _tuples(content: dict, key: str) -> dict:
    return {**content, key: tuple(content[key])}
