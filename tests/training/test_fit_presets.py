"""Every preset trains, predicts and is read back, in 2D and in 3D, and a volume may lie, be stored or be cut as it likes."""

from __future__ import annotations

import numpy as np
import pytest
from tests.training.small_fits import config, phantoms, small_networks  # noqa: F401, a fixture of every test here

from landmarklabel.data.cases import Case
from landmarklabel.data.grids import GridPlan, grid_points
from landmarklabel.data.synthetic import phantom_task
from landmarklabel.errors import UsageError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.model_folder import load_model
from landmarklabel.io.images import Image
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.networks.presets import PRESETS, find_preset
from landmarklabel.training.configuration import CropConfig
from landmarklabel.training.fit import fit
from landmarklabel.training.planning import plan_crops


def test_3d_positions_are_in_the_images_place_in_the_world(tmp_path):
    task = phantom_task(3, 4)
    cases = phantoms(task, range(5), size=(30, 26, 22), spacing=(3.0, 3.5, 4.5), oblique=True, absent_fraction=0.0)
    model, _ = fit(task, cases[:4], cases[4:], config(steps=60, dims=3), tmp_path)
    for case in cases:
        low, high = case.image.geometry.bounds_mm
        positions = model.assess(case)[0].positions_mm
        assert (positions >= low - 5).all() and (positions <= high + 5).all()
    again = load_model(tmp_path, task)
    np.testing.assert_array_equal(again.assess(cases[4])[0].positions_mm, model.assess(cases[4])[0].positions_mm)


def stored_otherwise(image):
    """The same volume with its axes in another order, two of them backwards."""
    g = image.geometry
    order, flips = [2, 0, 1], np.array([True, False, True])
    first = g.index_to_world(np.where(flips, np.array(g.size) - 1, 0))
    direction = (g.direction * np.where(flips, -1, 1))[:, order]
    geometry = ImageGeometry(tuple(np.array(g.size)[order]), g.spacing[order], first, direction)
    pixels = np.flip(image.pixels, [2 - a for a in range(3) if flips[a]])
    return Image(geometry, np.ascontiguousarray(pixels.transpose([2 - a for a in reversed(order)])))


def test_a_volume_stored_with_other_axes_looks_the_same_to_the_network(tmp_path):
    task = phantom_task(3, 4)
    cases = phantoms(task, range(2), size=(30, 26, 22), spacing=(3.0, 3.5, 4.5), oblique=True, absent_fraction=0.0)
    model, _ = fit(task, cases, [], config(steps=1, dims=3), tmp_path)
    seen = []
    for image in (cases[0].image, stored_otherwise(cases[0].image)):
        grid = model.networks.grid.grid(image.geometry)
        seen.append(model.case("x", image).sample(grid_points(grid), float(grid.spacing[0])))
    assert np.ptp(seen[0]) > 0.5
    np.testing.assert_allclose(*seen, atol=2e-3)


PAIRS = [(p.key, d) for p in PRESETS for d in p.dims]


@pytest.mark.parametrize("key, dims", PAIRS, ids=[f"{k}-{d}D" for k, d in PAIRS])
def test_every_preset_trains_predicts_and_is_read_back(tmp_path, key, dims):
    task = phantom_task(dims, 3)
    size = (64, 80) if dims == 2 else (24, 20, 16)
    cases = phantoms(task, range(3), size=size, spacing=1.0 if dims == 2 else 4.0, absent_fraction=0.0)
    model, metrics = fit(task, cases[:2], cases[2:], config(key, 2, dims), tmp_path)
    assert metrics["n_images"] == 1
    again = load_model(tmp_path, task)
    for case in cases:
        found = model.assess(model.case("x", case.image))[0]
        assert np.isfinite(found.positions_mm).all() and ((found.presence >= 0) & (found.presence <= 1)).all()
        np.testing.assert_array_equal(found.positions_mm, again.assess(again.case("x", case.image))[0].positions_mm)


@pytest.mark.parametrize("key", [p.key for p in PRESETS if 3 in p.dims])
def test_a_thin_volume_is_no_problem_for_a_preset(tmp_path, key):
    task = phantom_task(3, 3)
    cases = phantoms(task, range(2), size=(40, 40, 40), spacing=2.0, absent_fraction=0.0)
    model, _ = fit(task, cases, [], config(key, 1, 3), tmp_path)
    whole = cases[0].image
    geometry = ImageGeometry((40, 40, 6), whole.geometry.spacing, whole.geometry.origin, whole.geometry.direction)
    found = model.predict(Image(geometry, whole.pixels[:6]))
    assert len(found.status) == 3


@pytest.mark.parametrize(("side", "wanted"), [(16, 16), (32, 16), (40, 24), (200, 24)])
def test_crops_show_at_most_half_of_a_small_volume(side, wanted):
    preset, task = find_preset("scn", 3), phantom_task(3, 6)
    image = Image(ImageGeometry.identity((side, 64, 64), 3.0), np.zeros((64, 64, side), np.uint8))
    cases = [Case("a", image, LandmarkSet.empty(task))]
    plan = plan_crops(preset, GridPlan((48, 48, 48), 3.0, 16), cases, CropConfig())
    assert plan.size == wanted and plan.outlier_jitter == pytest.approx(0.35 * wanted)
    assert plan.rounds == (2 if wanted < 24 else 1)


def test_every_preset_is_found_by_its_key_and_dimensions():

    assert len(set(PAIRS)) == len(PAIRS)
    assert all(find_preset(p.key, d) is p for p in PRESETS for d in p.dims)
    assert find_preset("scn").name == "default"
    with pytest.raises(UsageError, match="no model called 'scn:payer2018'; did you mean 'scn:payer201"):
        find_preset("scn:payer2018")
