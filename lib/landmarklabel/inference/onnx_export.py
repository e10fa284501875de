"""A trained model as ONNX graphs, written only if ONNX Runtime finds the same positions with them as torch does.

The graphs are the bare networks. Preparing the image and reading positions off the maps stay outside, with all their
numbers in ``export.json``. The exporter that traces is used: it needs no onnxscript and seconds instead of minutes.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from landmarklabel import __version__
from landmarklabel.errors import ModelError, UsageError
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model_folder import load_model
from landmarklabel.inference.model_record import read_record
from landmarklabel.inference.network_runner import NetworkRunner
from landmarklabel.inference.probe_image import AGREEMENT, probe_image
from landmarklabel.io.files import atomic_write, write_json
from landmarklabel.io.image_array import Image
from landmarklabel.networks.decoding import NetworkOutput, stride_of, voting
from landmarklabel.networks.default import MapsOutput
from landmarklabel.networks.global_local import VotesOutput, decode_log
from landmarklabel.networks.presets import Preset
from landmarklabel.networks.scn import SCNOutput

_OPSET = 18
_READ: dict[type[NetworkOutput], tuple[str, ...]] = {
    MapsOutput: ("logits", "absent"),
    VotesOutput: ("logits", "displacement", "absent"),
    SCNOutput: ("heatmaps",),
}
_KINDS: dict[type[NetworkOutput], str] = {MapsOutput: "logits", VotesOutput: "votes", SCNOutput: "heatmaps"}


def export_onnx(model_dir: str | Path, folder: str | Path, image: Image | None = None) -> float:
    """Write locator.onnx, refiner.onnx (where there is a fine network) and export.json, if ONNX Runtime agrees with torch.

    Args:
        model_dir: the model.
        folder: where the files go.
        image: what both look at; a made-up one by default.

    Returns:
        The largest difference of a position, in samples (coarse grid for the first stage, finest crop for the second).

    Raises:
        UsageError: a package is missing. ModelError: no usable model, or more than ``AGREEMENT`` apart.
    """
    onnx, runtime = _packages("onnx", "onnxruntime")
    record, model, folder = read_record(model_dir), load_model(model_dir), Path(folder)
    networks = model.networks
    networks.precision = "fp32"
    rng, n, d = torch.Generator().manual_seed(0), len(model.task), model.task.dims
    axes = ("z", "y", "x")[-d:]
    open_axes = dict(enumerate(axes, 2)) if networks.grid.spacing_mm is not None else {}
    example: tuple[Tensor, ...] = (torch.rand(1, 1, *networks.grid.size[::-1], generator=rng),)
    graphs = {"locator": _graph(networks.coarse_net, example, {"image": open_axes}, onnx)}
    if networks.fine_net is not None and networks.crops is not None:
        example = torch.rand(n, networks.crops.scales, *(networks.crops.size,) * d, generator=rng), torch.arange(n)
        graphs["refiner"] = _graph(networks.fine_net, example, {"crops": {0: "k"}, "landmark": {0: "k"}}, onnx)
    in_runtime = {
        name: cast(nn.Module, _OnnxNetwork(_network_called(networks, name), graph, runtime)) for name, graph in graphs.items()
    }
    runner = replace(networks, coarse_net=in_runtime["locator"], fine_net=in_runtime.get("refiner"))
    other = replace(model, networks=runner)
    difference = _largest_difference(model, other, image or probe_image(networks.grid, model.task.scale))
    if not difference <= AGREEMENT:
        raise ModelError(f"{model_dir}: ONNX Runtime and torch differ by {difference:.4f} samples; {AGREEMENT} are allowed")
    for name, graph in graphs.items():
        atomic_write(folder / f"{name}.onnx", graph.data)
    if model.reference is not None:
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(model.reference, np.float32), allow_pickle=False)
        atomic_write(folder / "reference.npy", buffer.getvalue())
    check = {"largest_difference_samples": difference, "allowed": AGREEMENT, "onnxruntime": runtime.__version__}
    write_json(folder / "export.json", _description(model, record, graphs, check))
    return difference


def _packages(*names: str) -> list:
    missing = [n for n in names if importlib.util.find_spec(n) is None]
    if missing:
        raise UsageError(f"exporting to ONNX needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    return [importlib.import_module(n) for n in names]


class _Plain(nn.Module):
    """A network whose output is a plain tuple of what reading it takes."""

    def __init__(self, network: nn.Module, fields: tuple[str, ...]):
        super().__init__()
        self.network, self.fields = network, fields

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        output = self.network(*inputs)
        return tuple(getattr(output, f) for f in self.fields)


class _Graph(NamedTuple):
    """A network as an ONNX graph: its bytes, the type of the network's output, and which of its fields it puts out."""

    data: bytes
    kind: type[NetworkOutput]
    fields: tuple[str, ...]


@torch.no_grad()
def _graph(network: nn.Module, inputs: tuple[Tensor, ...], open_axes: dict[str, dict[int, str]], onnx: Any) -> _Graph:
    """The graph of a network that takes ``inputs``."""
    output = network(*inputs)
    fields = tuple(f for f in _READ[type(output)] if getattr(output, f) is not None)
    buffer, names = io.BytesIO(), list(open_axes)
    batch = {f: {0: "k"} for f in fields} if len(names) > 1 else {}
    settings: dict[str, Any] = {"input_names": names, "output_names": list(fields), "dynamic_axes": open_axes | batch}
    with warnings.catch_warnings():  # about shapes that are constant by design, and the exporter without onnxscript
        warnings.simplefilter("ignore")
        try:
            settings |= {"f": buffer, "opset_version": _OPSET, "dynamo": False}
            torch.onnx.export(_Plain(network, fields).eval(), inputs, **settings)
        except torch.onnx.errors.OnnxExporterError as error:
            raise ModelError(f"{type(network).__name__} cannot be exported: {str(error).splitlines()[0]}") from None
    onnx.checker.check_model(buffer.getvalue(), full_check=True)
    return _Graph(buffer.getvalue(), type(output), fields)


class _OnnxNetwork:
    """A graph in ONNX Runtime in place of the network it was made of, whose settings it answers for."""

    def __init__(self, network: nn.Module, graph: _Graph, runtime: Any):
        self.network, self.kind, self.fields = network, graph.kind, graph.fields
        self.session = runtime.InferenceSession(graph.data, providers=["CPUExecutionProvider"])

    def __call__(self, *inputs: Tensor) -> NetworkOutput:
        names = [i.name for i in self.session.get_inputs()]
        made = self.session.run(list(self.fields), {n: x.numpy() for n, x in zip(names, inputs, strict=True)})
        given = {f: torch.from_numpy(x) for f, x in zip(self.fields, made, strict=True)}
        return self.kind._make(given.get(f) for f in self.kind._fields)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)


def _largest_difference(one: Localizer, other: Localizer, image: Image) -> float:
    """Largest difference of a position in samples, over both stages.

    A crop round a point outside of the image is empty: all its cells are alike and rounding alone chooses one.
    """
    a, b = (m.assess(m.case("check", image))[0] for m in (one, other))
    spacing = one.networks.grid.spacing_for(image.geometry)
    differences = [np.abs(a.coarse_mm - b.coarse_mm).max() / spacing]
    inside = image.geometry.contains(a.coarse_mm)
    if one.networks.crops is not None and inside.any():
        differences.append(np.abs(a.positions_mm - b.positions_mm)[inside].max() / (spacing / one.networks.crops.zoom))
    return float(max(differences))


def _description(model: Localizer, record: dict, graphs: dict, check: dict) -> dict:
    preset = model.preset
    reference = None if model.reference is None else "reference.npy"
    return {
        "format": "landmarklabel-onnx",
        "version": 1,
        "made_by": f"landmarklabel {__version__}",
        **{k: record.get(k) for k in ("preset", "task", "weights_sha256", "grid", "crops", "pose", "calibration")},
        "grey_values": {
            "window_percentiles": preset.window,
            "clip": [-0.5, 1.5],
            "signed": preset.scale_to_minus1_1,
            "match": reference,
        },
        "networks": {
            name: _network(_network_called(model.networks, name), name, preset, graph) for name, graph in graphs.items()
        },
        "check": check,
    }


def _network_called(networks: NetworkRunner, name: str) -> nn.Module:
    """The network of a graph."""
    network = networks.coarse_net if name == "locator" else networks.fine_net
    if network is None:
        raise ValueError(f"no network is called {name}")
    return network


def _network(network: nn.Module, name: str, preset: Preset, graph: _Graph) -> dict[str, Any]:
    read: dict[str, Any] = {"kind": _KINDS[graph.kind]}
    if graph.kind is VotesOutput:
        read |= {"cell": voting(network).cell, "displacement": "log10" if voting(network).decode is decode_log else "cells"}
    else:
        read |= {"stride": preset.stride if name == "locator" else stride_of(network)}
    if graph.kind is SCNOutput and preset.target is not None:
        read |= {"target": asdict(preset.target)}
    digest = hashlib.sha256(graph.data).hexdigest()
    return {"file": f"{name}.onnx", "sha256": digest, "outputs": graph.fields, "read": read}
