"""A trained model as a MONAI bundle: a folder that MONAI's own tools load and run with this package's classes.

Other programs that want the bare networks: ``onnx_export``.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landmarklabel import __version__
from landmarklabel.errors import LandmarkLabelError, ModelError, StudyError
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model_folder import load_model
from landmarklabel.inference.model_record import RECORD, WEIGHTS, read_record
from landmarklabel.inference.probe_image import AGREEMENT, probe_image
from landmarklabel.io.files import MARKUPS_SUFFIX, atomic_write, image_id_of, safe_join, write_json
from landmarklabel.io.folders import find_images
from landmarklabel.io.image_array import Image
from landmarklabel.io.images import read_image
from landmarklabel.io.markups import read_markups, write_markups
from landmarklabel.io.stored_form import write_as_stated
from landmarklabel.networks.build import build_coarse_net, build_fine_net
from landmarklabel.networks.presets import find_preset

_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


class BundleNetwork(nn.Module):
    """Both networks of a preset as the one module a bundle has; weights are loaded afterwards.

    Args:
        preset: METHOD:PRESET.
        dims: 2 or 3.
        landmarks: n.
        scales: of the fine network's crops; 0 without one.
        presence: whether the fine network also says if a landmark is there.

    Shapes:
        (b, 1, *shape) to the coarse network's maps (b, n, *cells).
    """

    def __init__(self, preset: str, dims: int, landmarks: int, scales: int = 0, presence: bool = False):
        super().__init__()
        known = find_preset(preset, dims)
        self.locator = build_coarse_net(known, dims, landmarks)  # the names are those of the bundle's weights
        self.refiner = build_fine_net(known, dims, landmarks, scales, presence) if scales else None

    def forward(self, image: Tensor) -> Tensor:
        made: Tensor = self.locator(image)[0].float()
        return made


class BundleRunner:
    """What a bundle's ``run`` does: landmarks of every image of a dataset, one .mrk.json per image.

    Args:
        network: its parts become the networks of ``model_dir`` (safetensors: nothing is unpickled).
        model_dir: a model folder.
        dataset: items with the path ``image``.
        output_dir: where the files go.
        inferer: a MONAI inferer; it is called with an image and the function that finds its landmarks.
        device, precision: where and in which arithmetic; as trained by default.
    """

    def __init__(
        self,
        network: BundleNetwork,
        model_dir: str,
        dataset: Sequence[dict],
        output_dir: str,
        inferer: Callable,
        device: torch.device | str = "cpu",
        precision: str | None = None,
    ):
        model = load_model(model_dir, device=torch.device(device))
        network.locator, network.refiner = model.networks.coarse_net, model.networks.fine_net
        model.networks.precision = precision
        self.model = model
        self.dataset, self.output_dir, self.inferer = dataset, Path(output_dir), inferer

    def run(self) -> list[Path]:
        """Write all files; StudyError at the end names the images that could not be read."""
        written, failed = [], []
        for item in self.dataset:
            try:
                target = safe_join(self.output_dir, image_id_of(item["image"]), MARKUPS_SUFFIX)
                image = read_image(item["image"], self.model.task.dims)
                write_markups(target, self.inferer(image, self.model.predict), self.model.preset.key)
                written.append(target)
            except LandmarkLabelError as error:
                failed.append(str(error))
        if failed:
            raise StudyError(f"{len(failed)} of {len(self.dataset)} images could not be predicted: {'; '.join(failed)}")
        return written


def list_images(folder: str | Path) -> list[dict]:
    """``[{"image": path}]`` of the image files and DICOM folders in a folder. Raises StudyError."""
    if not Path(folder).is_dir():
        raise StudyError(f"{folder}: no such folder; name the folder of images with --dataset_dir")
    found = find_images([folder]).paths
    if not found:
        raise StudyError(f"{folder}: no images")
    return [{"image": str(p)} for p in found.values()]


def export_bundle(model_dir: str | Path, folder: str | Path, authors: str = "not stated", image: Image | None = None) -> float:
    """Write a bundle folder that MONAI's tools load and run, and run it on an image.

    Args:
        model_dir: the model.
        folder: of the bundle.
        authors: whom its metadata names.
        image: that it is tried on; a made-up one by default.

    Returns:
        The largest difference in mm (or pixels) between a landmark that the bundle writes and one the model finds.

    Raises:
        ModelError: no usable model, or the bundle does not run, or does not find the same.
    """
    record, model, folder = read_record(model_dir), load_model(model_dir), Path(folder)
    for name in (WEIGHTS, RECORD):
        atomic_write(folder / "models" / name, (Path(model_dir) / name).read_bytes())
    about: dict[str, Any] = {
        "preset": model.preset.key,
        "dims": model.task.dims,
        "landmarks": len(model.task),
        "scales": model.networks.crops.scales if model.networks.crops else 0,
        "presence": bool(model.networks.crops and model.networks.crops.presence),
    }
    # MONAI's own loader wants models/model.pt (plain tensors, read with weights_only); this package never reads it.
    network, buffer = BundleNetwork(**about), io.BytesIO()
    network.locator, network.refiner = model.networks.coarse_net, model.networks.fine_net
    torch.save(network.state_dict(), buffer)
    atomic_write(folder / "models" / "model.pt", buffer.getvalue())
    write_json(folder / "configs" / "metadata.json", _literal(_metadata(model, record, authors)))
    write_json(folder / "configs" / "inference.json", _inference(about))
    atomic_write(folder / "docs" / "README.md", _README.format(title=_title(model), names="\n".join(model.task.names)))
    atomic_write(folder / "LICENSE", _LICENSE)
    return _try_bundle(folder, model, image or probe_image(model.networks.grid, model.task.scale))


def _try_bundle(folder: Path, model: Localizer, image: Image) -> float:
    from monai.bundle import ConfigParser

    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "images" / "check.nrrd"
        write_as_stated(file, image)
        config = ConfigParser(ConfigParser.load_config_file(str(folder / "configs" / "inference.json")))
        settings = {
            "bundle_root": str(folder),
            "dataset_dir": str(file.parent),
            "output_dir": place,
            "device": str(model.networks.device),
        }
        config.update({**settings, "precision": "fp32"})
        try:
            config.get_parsed_content("imports")
            (written,) = config.get_parsed_content("run")[0]
            found = read_markups(written, model.task)
        except Exception as error:  # whatever MONAI raises: the bundle is not one then
            raise ModelError(f"{folder}: the bundle does not run ({type(error).__name__}: {str(error)[:300]})") from error
    wanted = replace(model, networks=replace(model.networks, precision="fp32")).predict(image)
    same = found.status == wanted.status
    difference = float(np.nan_to_num(np.linalg.norm(found.positions_mm - wanted.positions_mm, axis=1)).max(initial=0.0))
    if not same or difference > AGREEMENT * float(image.geometry.spacing.min()):
        raise ModelError(f"{folder}: the bundle finds other landmarks than the model, up to {difference:.4f} apart")
    return difference


def _literal(content: Any) -> Any:
    """Metadata with texts in quotes that MONAI would evaluate ($), look up (@) or read from a file (%), like a name."""
    if isinstance(content, dict):
        return {k: _literal(v) for k, v in content.items()}
    return f"'{content}'" if isinstance(content, str) and content[:1] in ("$", "@", "%") else content


def _title(model: Localizer) -> str:
    return f"{len(model.task)} landmarks of {model.task.name} in {model.task.dims}D images"


def _inference(about: dict) -> dict:
    here = "landmarklabel.inference.export"
    return {
        "imports": [f"$from {here} import list_images"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/predictions'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "precision": None,
        "network_def": {"_target_": f"{here}.BundleNetwork", **about},
        "dataset": {"_target_": "monai.data.Dataset", "data": "$list_images(@dataset_dir)"},
        "inferer": {"_target_": "monai.inferers.SimpleInferer"},
        "evaluator": {
            "_target_": f"{here}.BundleRunner",
            "network": "@network_def",
            "model_dir": "$@bundle_root + '/models'",
            "dataset": "@dataset",
            "output_dir": "@output_dir",
            "inferer": "@inferer",
            "device": "@device",
            "precision": "@precision",
        },
        "run": ["$@evaluator.run()"],
    }


def _metadata(model: Localizer, record: dict, authors: str) -> dict:
    task, preset, size = model.task, model.preset, list(model.networks.grid.size[::-1])
    net = model.networks.coarse_net
    cell: int = getattr(net, "cell", 0) or getattr(net, "stride", 1)
    tensor = {"num_channels": 1, "spatial_shape": size, "dtype": "float32", "is_patch_data": False}
    image = {
        "type": "image",
        "format": "magnitude",
        **tensor,
        "value_range": [-2, 2] if preset.scale_to_minus1_1 else [-0.5, 1.5],
    }
    kind = {"scn": "heatmap"}.get(preset.method, "votes")
    maps = {**tensor, "num_channels": len(task), "spatial_shape": [s // cell for s in size], "value_range": []}
    points = {**maps, "num_channels": task.dims, "spatial_shape": [len(task)], "dtype": "float64"}
    axes = dict(enumerate(("L", "P", "S")[: task.dims]))
    mre = (record.get("metrics") or {}).get("mre_mm")
    return {
        "schema": _SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by landmarklabel {__version__}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"landmarklabel": __version__, "fire": "0.7.1"},
        "name": task.name,
        "task": f"Landmark localization: {_title(model)}",
        "description": f"{preset.key} ({preset.about}). Finds, as LPS millimetres: {', '.join(task.names)}. The network's "
        f"input may have other sizes than stated, multiples of {model.networks.grid.multiple}.",
        "authors": authors,
        "copyright": f"Copyright (c) {authors}",
        "data_type": "nibabel",
        "image_classes": "single channel, grey-value percentiles mapped to " + ("-1..1" if preset.scale_to_minus1_1 else "0..1"),
        "pred_classes": f"a map per landmark, then points: {', '.join(task.names)}",
        "eval_metrics": {} if mre is None else {"mre_mm": mre, "unit": (record["metrics"]).get("unit", "mm")},
        "intended_use": "To assist people who place landmarks; not a medical device.",
        "network_data_format": {
            "inputs": {"image": {**image, "channel_def": {"0": "image"}}},
            "outputs": {"pred": {"type": kind, "format": kind, **maps, "channel_def": dict(enumerate(task.names))}},
            "post_processed_outputs": {"landmarks": {"type": "points", "format": "LPS mm", **points, "channel_def": axes}},
        },
    }


_README = """\
# {title}

A MONAI bundle made by LandmarkLabel. It needs LandmarkLabel's package with its extra `export`, for example
`pip install "WHEEL[export]"` with the file of its wheel. From this folder:

    python -m monai.bundle run --config_file configs/inference.json --dataset_dir IMAGES --output_dir PREDICTIONS

writes one `<id>.mrk.json` an image, which 3D Slicer opens. `--device cpu` and `--precision fp32` do what they say.
`models/model.safetensors` and `models/model.json` are what runs. `models/model.pt` holds the same weights for MONAI's own
`monai.bundle.load`; nothing here reads it. As with any bundle, a config file is a program: run only those you trust.

Landmarks:

{names}
"""

_LICENSE = """\
The files in configs/ and docs/ were generated by LandmarkLabel and are under the Apache License, Version 2.0:
https://www.apache.org/licenses/LICENSE-2.0

The weights in models/ belong to those who trained them. Exporting grants no licence to them: state yours here.
"""
