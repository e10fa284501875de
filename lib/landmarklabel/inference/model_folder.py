"""A model as a folder: ``model.safetensors``, ``model.json`` and ``MODEL_CARD.md``. Reading one executes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landmarklabel.errors import ModelError
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model_card import CARD, model_card
from landmarklabel.inference.model_record import RECORD, WEIGHTS, ModelRecord, read_record, record_of
from landmarklabel.inference.network_runner import NetworkRunner
from landmarklabel.io.checkpoints import load_tensors, save_tensors
from landmarklabel.io.files import atomic_write, write_json
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.networks.build import build_coarse_net, build_fine_net

_COARSE, _FINE = "locator", "refiner"  # prefixes of the networks' tensors in the file


def save_model(folder: str | Path, model: Localizer, record: Mapping[str, Any]) -> None:
    """Write a model folder; ``record`` adds what is known of its making (labels' hashes, seed, metrics, …)."""
    folder, networks = Path(folder), model.networks
    tensors = {f"{_COARSE}.{k}": v for k, v in networks.coarse_net.state_dict().items()}
    if networks.fine_net is not None:
        tensors |= {f"{_FINE}.{k}": v for k, v in networks.fine_net.state_dict().items()}
    if model.reference is not None:
        tensors["reference"] = torch.from_numpy(np.ascontiguousarray(model.reference, dtype=np.float32))
    if model.prior is not None:
        tensors["prior.covariance"] = torch.from_numpy(model.prior.covariance)
    sha256 = save_tensors(folder / WEIGHTS, tensors, {"task_hash": model.task.hash, "preset": model.preset.key})
    content = record_of(model, sha256, record)
    atomic_write(folder / CARD, model_card(content).encode())
    write_json(folder / RECORD, content)


def load_model(folder: str | Path, task: LandmarkTask | None = None, device: torch.device | None = None) -> Localizer:
    """Read a model folder.

    Args:
        folder: the model.
        task: refuse a model that was trained for other landmarks.
        device: where it will run; CPU by default.

    Raises:
        ModelError: missing or damaged files, another task's model, or one that a newer version made.
    """
    folder, device = Path(folder), device or torch.device("cpu")
    record = ModelRecord.of(read_record(folder), folder)
    own, crops = record.task, record.crops
    if task is not None and task.hash != own.hash:
        raise ModelError(f"{folder}: trained for task {own.name!r} with other landmarks than task {task.name!r} has")
    tensors, _ = load_tensors(folder / WEIGHTS, record.weights_sha256)
    if ":" not in record.preset.network:  # a plugin's network has its own widths, and need not know of shapes without memory
        with torch.device("meta"):
            for name, network in _build(record, folder).items():
                _check_fit(network, name, tensors, folder)
    built = _build(record, folder)
    for name, network in built.items():
        _fill(network, name, tensors, folder, device)
    return Localizer(
        task or own,
        NetworkRunner(record.preset, record.grid, built[_COARSE], crops, built.get(_FINE), device, config=record.config),
        record.calibration,
        record.alignment_shape,
        record.shape_prior(tensors.get("prior.covariance"), folder),
        tensors["reference"].float().numpy() if "reference" in tensors else None,
        record.never_labelled,
    )


def _build(record: ModelRecord, folder: Path) -> dict[str, nn.Module]:
    """The networks that a record describes, freshly initialised, by the prefix of their tensors. Raises ModelError."""
    preset, dims, n, crops = record.preset, record.task.dims, len(record.task), record.crops
    try:
        networks = {_COARSE: build_coarse_net(preset, dims, n)}
        return networks | ({_FINE: build_fine_net(preset, dims, n, crops.scales, crops.presence)} if crops else {})
    except (KeyError, ValueError, TypeError) as error:
        hint = "; is the plugin installed that it was trained with?" if ":" in preset.network else ""
        raise ModelError(f"{folder}: {RECORD} describes no network that this program can build ({error}){hint}") from None


def _check_fit(network: nn.Module, name: str, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Compare a network without memory with the tensors of the file: a record may describe one far larger than those."""
    wanted = {f"{name}.{k}": v.shape for k, v in network.state_dict().items()}
    found = {k: v.shape for k, v in tensors.items() if k.startswith(f"{name}.")}
    wrong = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
    if wrong:
        raise ModelError(f"{folder}: the weights do not fit the {name}: {len(wrong)} differ, first {wrong[0]!r}")


def _fill(network: nn.Module, name: str, tensors: Mapping[str, Tensor], folder: Path, device: torch.device) -> None:
    prefix = f"{name}."
    try:
        network.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
    except RuntimeError as error:
        raise ModelError(f"{folder}: the weights do not fit the {name}: {str(error).splitlines()[0]}") from None
    network.to(device).eval()
