"""``model.json``: all that a model's answer depends on beside its weights, read back by this and by later versions.

The keys of the file are fixed; the tables below map them to the field names.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landmarklabel import __version__
from landmarklabel.configuration import from_json, to_json
from landmarklabel.data.crops import CropPlan
from landmarklabel.data.grids import GridPlan
from landmarklabel.data.mean_shape import MeanShape
from landmarklabel.errors import ConfigurationError, FaultsError, LandmarkLabelError, ModelError, UnknownSetting
from landmarklabel.inference.calibration import Calibration
from landmarklabel.inference.configuration import InferenceConfig
from landmarklabel.inference.shape_prior import PoseDistribution, ShapePrior
from landmarklabel.io.limits import LIMITS
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.networks.presets import Preset

if TYPE_CHECKING:
    from torch import Tensor

    from landmarklabel.inference.localizer import Localizer

RECORD, WEIGHTS = "model.json", "model.safetensors"
FORMAT, VERSION = "landmarklabel-model", 3
HASH = "record_sha256"  # of all the rest of the record
_NAME = re.compile(r"[a-z0-9_]{1,64}")

# Names in the program, and in the file.
_CALIBRATION_KEYS = {"prior_inflation": "loose", "log_spread_range": "span", "fine_presence_weight": "local_share"}
_CROP_KEYS = {"outlier_jitter": "wide_jitter", "outlier_share": "wide_share"}
_POSE_KEYS = {"sd": "spread"}
_NOT_IN_FILE = ("level",)  # of the regions: part of the configuration


def read_record(folder: str | Path) -> dict[str, Any]:
    """The content of ``model.json``, brought to this version; ModelError when it is missing, damaged or of a newer one."""
    path = Path(folder) / RECORD
    try:
        if path.stat().st_size > LIMITS.model_record_bytes:
            raise ModelError(f"{path}: larger than {LIMITS.model_record_bytes} bytes")
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except PermissionError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    except OSError:
        raise ModelError(f"{folder}: no trained model here ({RECORD} is missing)") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{path}: not readable as JSON") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ModelError(f"{path}: not a model record of this program (format {FORMAT!r})")
    version = content.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ModelError(f"{path}: not a model record of this program (version {str(version)[:40]!r})")
    if version > VERSION:
        made_by = str(content.get("program", "of another version"))[:40]
        raise ModelError(f"{folder}: made by a newer version of this program ({made_by}; this is {__version__}); update it")
    if version >= _FIRST_WITH_HASH and content.get(HASH) != record_hash(content):
        raise ModelError(f"{path}: changed or damaged since the model was saved; copy the model anew, or train again")
    while content["version"] < VERSION:
        content = MIGRATIONS[content["version"]](content)
    return content


def record_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 of a record without its own hash, in a form that does not depend on spaces and the order of keys."""
    plain = {key: value for key, value in json.loads(json.dumps(content)).items() if key != HASH}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _from_1(content: dict[str, Any]) -> dict[str, Any]:
    """Version 1 named its preset only; what that stood for is kept in ``version_1.json``."""
    kept = json.loads(resources.files("landmarklabel.inference").joinpath("version_1.json").read_text(encoding="utf-8"))
    task = content.get("task")
    key = f"{content.get('preset')} {task.get('dims') if isinstance(task, dict) else ''}D"
    if key not in kept["presets"]:
        raise ModelError(f"{RECORD}: there was no model {key[:60]!r} in version 1")
    configuration = {"preset": kept["presets"][key], "inference": kept["inference"]}
    return {**content, "version": kept["version"], "program": "0.1.0 or earlier", "configuration": configuration}


def _from_2(content: dict[str, Any]) -> dict[str, Any]:
    """Version 2 had no hash of its record, and other names for a few numbers of inference."""
    try:
        configuration = {**content["configuration"]}
        inference = {**configuration["inference"]}
        search, calibration = {**inference.pop("pose_search", {})}, {**inference.get("calibration", {})}
        if "local_weights" in calibration:
            calibration["fine_presence_weights"] = calibration.pop("local_weights")
        inference |= {"calibration": calibration, "candidates": {}}
        for old, new in _CANDIDATES_2.items():
            if old in search:
                inference["candidates"][new] = search.pop(old)
        inference["orientation_search"] = search
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{RECORD} is damaged ({error!r})") from None
    return {**content, "version": 3, "configuration": {**configuration, "inference": inference}}


_FIRST_WITH_HASH = 3
_CANDIDATES_2 = {
    "candidates": "per_landmark",
    "max_candidates": "max_per_landmark",
    "min_peak_mass": "min_peak_mass",
    "refound_mass": "refound_mass",
}
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 2: _from_2}


def record_of(model: Localizer, weights_sha256: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``model.json``; ``more`` is what is known of the model's making."""
    networks = model.networks
    content = {
        "format": FORMAT,
        "version": VERSION,
        "program": __version__,
        "preset": model.preset.key,
        "task": model.task.to_json(pictures=False),
        "task_hash": model.task.hash,
        "weights_sha256": weights_sha256,
        "grid": to_json(networks.grid),
        "crops": _renamed(to_json(networks.crops), _CROP_KEYS) if networks.crops else None,
        "calibration": _calibration_to_json(model.calibration),
        "pose": _mean_shape_to_json(model.alignment_shape),
        "prior": _prior_to_json(model.prior),
        "untaught": list(model.never_labelled),
        "configuration": {"preset": to_json(model.preset), "inference": to_json(model.config)},
        **more,
    }
    return {**content, HASH: record_hash(content)}


@dataclass(frozen=True)
class ModelRecord:
    """What a record says, checked: everything but the weights and the shape prior's covariance."""

    task: LandmarkTask
    preset: Preset
    config: InferenceConfig
    grid: GridPlan
    crops: CropPlan | None
    calibration: Calibration
    alignment_shape: MeanShape | None
    never_labelled: tuple[str, ...]
    weights_sha256: str
    prior: Mapping[str, Any] | None

    @classmethod
    def of(cls, content: Mapping[str, Any], folder: str | Path) -> ModelRecord:
        """Check the content of a record; ModelError names the folder and what is wrong."""
        try:
            return cls._checked(content)
        except UnknownSetting as error:
            made_by = f"{str(content.get('program', 'of another version'))[:40]}; this is {__version__}"
            text = f"it holds a setting that this version of the program does not know ({error}), so another one made it"
            raise ModelError(f"{folder}: {text} ({made_by}); use that one, or train again") from None
        except ConfigurationError as error:
            raise ModelError(f"{folder}: {RECORD} is damaged ({error})") from None
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, FaultsError) as error:
            raise ModelError(f"{folder}: {RECORD} is damaged ({error!r})") from None
        except LandmarkLabelError as error:
            raise ModelError(f"{folder}: {error}") from None

    @classmethod
    def _checked(cls, content: Mapping[str, Any]) -> ModelRecord:
        task = LandmarkTask.from_json(content["task"], "the model's task")
        if content.get("task_hash", task.hash) != task.hash:
            raise ValueError("its landmarks are not those that its weights were trained for")
        configuration = content["configuration"]
        preset, config = from_json(Preset, configuration["preset"]), from_json(InferenceConfig, configuration["inference"])
        _check_preset(preset, content["preset"], task.dims)
        crops = content["crops"]
        plan = from_json(CropPlan, _renamed_back(crops, _CROP_KEYS)) if crops else None
        if plan is not None and not (1 <= plan.scales <= 8 and 1 <= plan.rounds <= 4):  # a network is built for them
            raise ValueError(f"{plan.scales} scales and {plan.rounds} rounds of crops")
        calibration = {**_renamed_back(content["calibration"], _CALIBRATION_KEYS), "level": config.calibration.level}
        if not all(0 < factor < math.inf for factor in calibration.get("interval_factors", {}).values()):
            raise ValueError("a factor of an interval that is not positive")
        return cls(
            task=task,
            preset=preset,
            config=config,
            grid=from_json(GridPlan, content["grid"]),
            crops=plan,
            calibration=from_json(Calibration, calibration),
            alignment_shape=_mean_shape_from_json(content.get("pose"), task),
            never_labelled=tuple(task.names[task.index(name)] for name in content.get("untaught", ())),
            weights_sha256=str(content["weights_sha256"]),
            prior=content.get("prior"),
        )

    def shape_prior(self, covariance: Tensor | None, folder: str | Path) -> ShapePrior | None:
        """The prior with its covariance, (n * d, n * d) mm^2; None where the model has none. Raises ModelError."""
        if self.prior is None:
            return None
        try:
            usual = self.prior["usual"]
            where = {**_renamed_back(usual, _POSE_KEYS), "centre": np.array(usual["centre"], float)}
            distribution = PoseDistribution(**{**where, "sd": tuple(float(v) for v in where["sd"])})
            values = np.empty((0, 0)) if covariance is None else covariance.double().numpy()
            if values.shape != (len(self.task) * self.task.dims,) * 2 or distribution.centre.shape != (self.task.dims,):
                raise ValueError(f"the shape prior has a covariance of shape {values.shape}")
            shape = _mean_shape_from_json(self.prior["pose"], self.task)
            if shape is None:
                raise ValueError("the shape prior has no mean shape")
            cases, symmetric = int(self.prior["cases"]), bool(self.prior["symmetric"])
            return ShapePrior(shape, values, distribution, cases, symmetric, self.config.shape)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ModelError(f"{folder}: {RECORD} is damaged ({error!r})") from None


def _check_preset(preset: Preset, key: object, dims: int) -> None:
    """A record is somebody else's file: its names become folders, and networks are built as wide as it says."""
    if not (_NAME.fullmatch(preset.method) and _NAME.fullmatch(preset.name)) or preset.key != key or dims not in preset.dims:
        raise ValueError(f"the preset {preset.key[:80]!r} is not the {str(key)[:80]!r} that the record names, or not for {dims}D")
    tables = [preset.widths, preset.refine.widths if preset.refine else {}]
    for widths in (w for table in tables for w in table.values()):
        if len(widths) > LIMITS.network_levels or not all(1 <= w <= LIMITS.network_width for w in widths):
            raise ValueError(f"a network of widths {widths}")


def _calibration_to_json(calibration: Calibration) -> dict[str, Any]:
    """Without factors where the task measures nothing, as of earlier versions."""
    content = _renamed(to_json(calibration), _CALIBRATION_KEYS)
    return content if calibration.interval_factors else {k: v for k, v in content.items() if k != "interval_factors"}


def _renamed(content: dict[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    return {keys.get(name, name): value for name, value in content.items() if name not in _NOT_IN_FILE}


def _renamed_back(content: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    names = {old: new for new, old in keys.items()}
    return {names.get(key, key): value for key, value in content.items()}


def _mean_shape_to_json(shape: MeanShape | None) -> dict[str, Any] | None:
    if shape is None:
        return None
    rows = [row.tolist() if np.isfinite(row).all() else None for row in shape.points]
    return {"mean": rows, "wild": shape.arbitrary_orientation, "spread": shape.spread}


def _mean_shape_from_json(content: Mapping[str, Any] | None, task: LandmarkTask) -> MeanShape | None:
    if content is None:
        return None
    unknown = [float("nan")] * task.dims
    points = np.array([row or unknown for row in content["mean"]], np.float64)
    if points.shape != (len(task), task.dims):
        raise ValueError(f"the mean shape has shape {points.shape}")
    known = {} if "spread" not in content else {"spread": float(content["spread"])}
    return MeanShape(points, bool(content["wild"]), **known)


def _prior_to_json(prior: ShapePrior | None) -> dict[str, Any] | None:
    if prior is None:
        return None
    distribution = prior.pose_distribution
    usual = {
        "centre": distribution.centre.tolist(),
        "log_scale": distribution.log_scale,
        "by_field": distribution.by_field,
        "spread": list(distribution.sd),
    }
    return {"pose": _mean_shape_to_json(prior.mean_shape), "usual": usual, "cases": prior.cases, "symmetric": prior.symmetric}
