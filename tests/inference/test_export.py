"""Models for other programs: MONAI's own tools run the bundle, ONNX Runtime finds what torch finds.

Needs fire (MONAI's command line), onnx and onnxruntime.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import jsonschema
import numpy as np
import pytest
import torch

from landmarklabel.cli import main
from landmarklabel.data.crops import CropPlan
from landmarklabel.data.grids import GridPlan, grid_points
from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.errors import ModelError, StudyError
from landmarklabel.inference import export, onnx_export
from landmarklabel.inference.export import BundleNetwork, BundleRunner, export_bundle, list_images
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model_folder import load_model, save_model
from landmarklabel.inference.model_record import RECORD, WEIGHTS
from landmarklabel.inference.network_runner import NetworkRunner
from landmarklabel.inference.onnx_export import AGREEMENT, export_onnx
from landmarklabel.io.images import Image, read_image, write_image
from landmarklabel.io.markups import read_markups
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.networks import build
from landmarklabel.networks.heatmaps import decode_heatmaps
from landmarklabel.networks.presets import PRESETS, find_preset
from landmarklabel.scale_rules import PixelSize

N = 5
SIZE = {2: (64, 96), 3: (32, 48, 32)}
PAIRS = [(p.key, d) for p in PRESETS for d in p.dims]


def narrow(network, dims, n, *args, **settings):
    """A network with a quarter of the channels."""
    *head, widths = args
    return network(dims, n, *head, tuple(max(8, w // 32 * 8) for w in widths), **settings)


@pytest.fixture
def small_networks(monkeypatch):
    for name in ("DefaultSCN", "FineNet", "VotingNet"):
        monkeypatch.setattr(build, name, partial(narrow, getattr(build, name)))


def untrained(key, dims, folder, spacing_mm=2.0, presence=False, scale=None):
    """A saved model that nobody trained, with strong enough heads that its maps have clear peaks."""
    torch.manual_seed(0)
    task, preset = replace(phantom_task(dims, N), scale=scale), find_preset(key, dims)
    size = tuple(max(s, 64) for s in SIZE[dims]) if preset.network == "noothout2020" else SIZE[dims]
    networks = NetworkRunner(preset, GridPlan(size, spacing_mm, preset.multiple[dims]), build.build_coarse_net(preset, dims, N))
    model = Localizer(task, networks)
    if preset.refine:
        networks.crops = CropPlan(preset.refine.size[dims], preset.refine.zoom or 2.0, preset.refine.scales, presence=presence)
        networks.fine_net = build.build_fine_net(preset, dims, N, networks.crops.scales, presence)
    for module in (m for network in (networks.coarse_net, networks.fine_net) if network for m in network.modules()):
        weight = getattr(module, "weight", None)
        if weight is not None and weight.dim() > 1 and weight.std() < 0.02:
            torch.nn.init.normal_(weight, std=0.2)
    if preset.match_histogram:
        model.reference = phantom(dims, 9).pixels
    save_model(folder, model, {"metrics": {"mre_mm": 1.5}})
    return folder


def phantom(dims, seed):
    """An image with other spacing than the grids here."""
    drawn = draw_phantom(phantom_task(dims, N), seed, size=(70, 90) if dims == 2 else (30, 40, 26), spacing=2.5)
    return Image(drawn.geometry, drawn.pixels)


# ------------------------------------------------------------------ bundle


KINDS = {
    "scn-2D": ("scn:default", 2, False),
    "scn-2D with absent landmarks": ("scn:default", 2, True),
    "votes-3D": ("global_local:default", 3, False),
}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def bundle(request, tmp_path_factory):
    key, dims, presence = request.param
    folder = tmp_path_factory.mktemp("export")
    untrained(key, dims, folder / "model", presence=presence)
    assert main(["export", str(folder / "model"), "--bundle", str(folder / "bundle"), "--authors", "A. Person"]) == 0
    (folder / "images").mkdir()
    for seed in range(2):
        write_image(folder / "images" / f"case{seed}.nii.gz", phantom(dims, seed))
    return folder, dims


def monai_bundle(verb, *words, cwd):
    """MONAI's own command line, in another process."""
    command = [sys.executable, "-m", "monai.bundle", verb, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, timeout=300, env=environment, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_monai_runs_the_bundle_and_finds_what_the_localizer_finds(bundle):
    folder, dims = bundle
    places = "--dataset_dir", str(folder / "images"), "--output_dir", str(folder / "out")
    config = "--config_file", "configs/inference.json"
    monai_bundle("run", *config, *places, "--device", "cpu", "--precision", "fp32", cwd=folder / "bundle")
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["case0.mrk.json", "case1.mrk.json"]
    model = load_model(folder / "model")
    model.networks.precision = "fp32"
    for seed in range(2):
        wanted = model.predict(read_image(folder / "images" / f"case{seed}.nii.gz", dims))
        found = read_markups(folder / "out" / f"case{seed}.mrk.json", model.task)
        assert found.status == wanted.status and wanted.defined.any()
        np.testing.assert_allclose(found.positions_mm, wanted.positions_mm, rtol=1e-5, atol=0.02)


def test_monai_verifies_the_networks_input_and_output(bundle):
    words = "--net_id", "network_def", "--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json"
    said = monai_bundle("verify_net_in_out", *words, "--device", "cpu", cwd=bundle[0] / "bundle")
    assert "verified with no error" in said


def tensor_schema():
    texts, numbers = {"type": "string"}, {"type": "array", "items": {"type": "number"}}
    shape = {"type": "array", "items": {"type": ["string", "integer"]}}
    fields = {"type": texts, "format": texts, "num_channels": {"type": "integer"}, "dtype": texts, "value_range": numbers}
    return {"type": "object", "properties": {**fields, "spatial_shape": shape}, "required": [*fields, "spatial_shape"]}


def schema():
    """What MONAI's meta_schema_20240725.json asks for, so that nothing is downloaded here."""
    group = {"type": "object", "minProperties": 1, "additionalProperties": tensor_schema()}
    texts = ("schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors",
             "copyright")  # fmt: skip
    data = {"type": "object", "properties": {"inputs": group, "outputs": group, "post_processed_outputs": group}}
    data["required"] = ["inputs", "outputs"]
    objects = {k: {"type": "object"} for k in ("changelog", "required_packages_version", "eval_metrics")}
    properties = {**{k: {"type": "string"} for k in texts}, **objects, "network_data_format": data}
    required = [*texts, "required_packages_version", "network_data_format"]
    return {"type": "object", "properties": properties, "required": required}


def test_monai_verifies_the_metadata(bundle, tmp_path):
    (tmp_path / "schema.json").write_text(json.dumps(schema()), encoding="utf-8")
    words = "--meta_file", "configs/metadata.json", "--filepath", str(tmp_path / "schema.json")
    assert "verified with no error" in monai_bundle("verify_metadata", *words, cwd=bundle[0] / "bundle")
    about = json.loads((bundle[0] / "bundle/configs/metadata.json").read_text(encoding="utf-8"))
    assert about["authors"] == "A. Person" and about["eval_metrics"] == {"mre_mm": 1.5, "unit": "mm"}
    del about["authors"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(about, schema())


def test_monai_knows_every_part_of_the_bundle(bundle, monkeypatch):
    from monai.bundle import ConfigWorkflow, load

    monkeypatch.chdir(bundle[0] / "bundle")
    workflow = ConfigWorkflow("configs/inference.json", workflow_type="inference", dataset_dir=str(bundle[0] / "images"))
    workflow.initialize()
    assert workflow.check_properties() == []
    network = load("bundle", bundle_dir=str(bundle[0]), workflow_type="inference", device="cpu")
    assert isinstance(network, BundleNetwork)
    model = load_model(bundle[0] / "model")
    for part, original in (("locator", model.networks.coarse_net), ("refiner", model.networks.fine_net)):
        for name, tensor in original.state_dict().items():
            assert torch.equal(tensor, getattr(network, part).state_dict()[name])


def test_a_bundle_holds_the_model_folder_unchanged(bundle):
    folder = bundle[0]
    names = ["LICENSE", "configs/inference.json", "configs/metadata.json", "docs/README.md"]
    names += [f"models/{name}" for name in (RECORD, WEIGHTS, "model.pt")]
    files = sorted(str(p.relative_to(folder / "bundle")) for p in (folder / "bundle").rglob("*.*") if p.is_file())
    assert files == sorted(names[1:]) and (folder / "bundle/LICENSE").is_file()
    for name in (RECORD, WEIGHTS):
        assert (folder / "bundle/models" / name).read_bytes() == (folder / "model" / name).read_bytes()
    for text in (p.read_text(encoding="utf-8") for p in (folder / "bundle").rglob("*.json")):
        assert str(folder) not in text


def test_a_bundle_that_does_not_find_the_same_is_refused(bundle, tmp_path, monkeypatch):
    folder, _ = bundle
    monkeypatch.setattr(BundleRunner, "run", lambda self: self.model.broken)
    with pytest.raises(ModelError, match="the bundle does not run"):
        export_bundle(folder / "model", tmp_path / "a")
    monkeypatch.undo()
    write = export.write_markups
    away = lambda path, x, *more: write(path, replace(x, positions_mm=x.positions_mm + 1), *more)  # noqa: E731
    monkeypatch.setattr(export, "write_markups", away)
    with pytest.raises(ModelError, match="the bundle finds other landmarks than the model, up to 1"):
        export_bundle(folder / "model", tmp_path / "b")


def test_a_damaged_bundle_is_refused(bundle, tmp_path):
    """What runs is the checked safetensors file, not the pickle beside it."""
    export_bundle(bundle[0] / "model", tmp_path)
    weights = tmp_path / "models" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\1\1\1")
    with pytest.raises(ModelError, match="its sha256 is not the one model.json names"):
        load_model(tmp_path / "models")


def test_a_name_is_no_program(tmp_path, small_networks, monkeypatch):
    """MONAI evaluates texts in a configuration that start with $, @ or %."""
    from monai.bundle import ConfigWorkflow

    names = ("$open('evaluated', 'w')", "@device", "%gone.json", "plain", "e")
    model = load_model(untrained("scn:single", 2, tmp_path / "model"))
    save_model(tmp_path / "model", replace(model, task=LandmarkTask("hostile", names, 2)), {})
    export_bundle(tmp_path / "model", tmp_path / "bundle", authors="$open('evaluated', 'w')")
    monkeypatch.chdir(tmp_path / "bundle")
    workflow = ConfigWorkflow("configs/inference.json", workflow_type="inference")
    workflow.initialize()
    meta = workflow.parser.get_parsed_content("_meta_")
    named = meta["network_data_format"]["outputs"]["pred"]["channel_def"].values()
    assert list(named) == [f"'{n}'" for n in names[:3]] + ["plain", "e"] and meta["authors"] == f"'{names[0]}'"
    assert not (tmp_path / "bundle/evaluated").exists()


def test_one_unreadable_image_does_not_stop_the_others(tmp_path, small_networks):
    export_bundle(untrained("scn:single", 2, tmp_path / "model"), tmp_path / "bundle")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_text("no image", encoding="utf-8")
    write_image(tmp_path / "images/b.nii.gz", phantom(2, 0))
    network, images = BundleNetwork("scn:single", 2, N), list_images(tmp_path / "images")
    inferer = lambda image, find: find(image)  # noqa: E731
    runner = BundleRunner(network, str(tmp_path / "bundle/models"), images, str(tmp_path / "out"), inferer)
    with pytest.raises(StudyError, match=r"1 of 2 images could not be predicted: .*a\.png"):
        runner.run()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b.mrk.json"]


def test_images_that_would_overwrite_each_other_are_refused(tmp_path):
    with pytest.raises(StudyError, match="no images"):
        list_images(tmp_path)
    with pytest.raises(StudyError, match="no such folder"):
        list_images(tmp_path / "gone")
    for name in ("a.png", "a.nii.gz", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(StudyError, match="would both be image .a."):
        list_images(tmp_path)


# ------------------------------------------------------------------ ONNX


@pytest.mark.parametrize("key, dims", PAIRS, ids=[f"{k}-{d}D" for k, d in PAIRS])
def test_onnx_runtime_finds_what_torch_finds(tmp_path, small_networks, key, dims, capsys):
    model = untrained(key, dims, tmp_path / "model")
    assert main(["export", str(model), "--onnx", str(tmp_path / "onnx")]) == 0
    assert "positions differ from torch's by at most 0.00" in capsys.readouterr().out
    about = json.loads((tmp_path / "onnx/export.json").read_text(encoding="utf-8"))
    assert set(about["networks"]) == ({"locator", "refiner"} if find_preset(key, dims).refine else {"locator"})
    assert 0 <= about["check"]["largest_difference_samples"] <= AGREEMENT
    assert (tmp_path / "onnx/reference.npy").exists() == (key == "scn:hand2024")


@pytest.mark.parametrize("spacing_mm", [None, 1.7], ids=["fitted", "fixed spacing"])
@pytest.mark.parametrize("how", ["--onnx", "--bundle"])
def test_a_model_of_pictures_whose_task_states_the_size_of_a_pixel_is_exported(tmp_path, small_networks, spacing_mm, how):
    model = untrained("scn:default", 2, tmp_path / "model", spacing_mm, scale=PixelSize(0.2))
    assert main(["export", str(model), how, str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("spacing_mm", [None, 1.7], ids=["fitted", "fixed spacing"])
@pytest.mark.parametrize("dims", [2, 3])
def test_it_agrees_on_images_of_other_sizes(tmp_path, small_networks, dims, spacing_mm):
    """The graph as written, in a session of its own; where the spacing is fixed, such an image has a grid of another size."""
    import onnxruntime

    folder, image = untrained("scn:default", dims, tmp_path / "model", spacing_mm), phantom(dims, 3)
    told = export_onnx(folder, tmp_path / "onnx", image)
    about = json.loads((tmp_path / "onnx/export.json").read_text(encoding="utf-8"))
    assert told == about["check"]["largest_difference_samples"]
    model = load_model(folder)
    grid = model.networks.grid.grid(image.geometry)
    assert (tuple(grid.size) == SIZE[dims]) == (spacing_mm is None)
    pixels = model.case("x", image).sample(grid_points(grid), float(grid.spacing[0])).astype(np.float32)[None, None]
    session = onnxruntime.InferenceSession(tmp_path / "onnx/locator.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"image": pixels})[0]
    with torch.no_grad():
        wanted = model.networks.coarse_net(torch.from_numpy(pixels)).logits
    assert np.ptp(logits) > 0.1
    np.testing.assert_allclose(logits, wanted, atol=1e-3)


def test_the_refiner_takes_any_number_of_crops(tmp_path, small_networks):
    import onnxruntime

    folder = untrained("scn:default", 2, tmp_path / "model")
    export_onnx(folder, tmp_path / "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "onnx/refiner.onnx", providers=["CPUExecutionProvider"])
    model = load_model(folder)
    for numbers in ([3], [4, 0, 0, 1, 2, 2, 3]):
        crops = torch.rand(len(numbers), model.networks.crops.scales, *(model.networks.crops.size,) * 2)
        logits = session.run(["logits"], {"crops": crops.numpy(), "landmark": np.array(numbers)})[0]
        with torch.no_grad():
            wanted = model.networks.fine_net(crops, torch.tensor(numbers)).logits
        np.testing.assert_allclose(logits, wanted, atol=1e-4)


def test_export_json_is_enough_to_run_the_graph(tmp_path, small_networks):
    """A program that has the graph, the JSON and this package's geometry and decoder, but no model folder."""
    import onnxruntime

    folder, image = untrained("scn:single", 2, tmp_path / "model"), phantom(2, 4)
    export_onnx(folder, tmp_path / "onnx")
    model = load_model(folder)
    model.networks.precision = "fp32"
    wanted = model.assess(model.case("x", image))[0]

    about = json.loads((tmp_path / "onnx/export.json").read_text(encoding="utf-8"))
    part, grey = about["networks"]["locator"], about["grey_values"]
    low, high = np.percentile(image.pixels, grey["window_percentiles"])
    grid = GridPlan(**about["grid"]).grid(image.geometry)
    samples = model.case("x", Image(image.geometry, (image.pixels - low) / (high - low)))
    samples.window = (0.0, 1.0)
    pixels = np.clip(samples.sample(grid_points(grid), float(grid.spacing[0])), *grey["clip"]).astype(np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / part["file"], providers=["CPUExecutionProvider"])
    logits = torch.from_numpy(session.run(["logits"], {"image": pixels[None, None]})[0])
    assert part["read"]["kind"] == "logits" and [x["name"] for x in about["task"]["landmarks"]] == list(model.task.names)
    maps = torch.softmax(logits.flatten(2), -1).reshape(logits.shape)
    index = decode_heatmaps(maps).index[0].numpy() * part["read"]["stride"] + (part["read"]["stride"] - 1) / 2
    np.testing.assert_allclose(grid.index_to_world(index[:, ::-1]), wanted.positions_mm, atol=0.02)


def test_graphs_that_disagree_are_not_written(tmp_path, small_networks, monkeypatch):
    folder = untrained("scn:single", 2, tmp_path / "model")
    monkeypatch.setattr(onnx_export, "_largest_difference", lambda *_: float("nan"))
    with pytest.raises(ModelError, match="ONNX Runtime and torch differ by nan samples; 0.01 are allowed"):
        export_onnx(folder, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_a_missing_package_is_named(tmp_path, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else found(name))
    assert main(["export", str(tmp_path), "--onnx", str(tmp_path / "onnx")]) == 2
    said = "landmarklabel: exporting to ONNX needs onnx and onnxruntime: pip install onnx onnxruntime\n"
    assert capsys.readouterr().err == said


def test_export_says_what_it_needs(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--bundle", str(tmp_path / "out")]) == 2
    assert "no trained model here" in capsys.readouterr().err
    for words in ([], ["--bundle", "a", "--onnx", "b"]):
        with pytest.raises(SystemExit):
            main(["export", str(tmp_path), *words])
