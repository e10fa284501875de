"""What goes wrong with plugins is named in a warning and stops nobody; what they give is checked."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from landmarklabel import plugins
from landmarklabel.active import strategies
from landmarklabel.active.unlabelled_pool import UnlabelledPool
from landmarklabel.errors import ImageRejected, UsageError
from landmarklabel.io import files
from landmarklabel.io.images import describe_image, read_image
from landmarklabel.networks import presets as preset_list
from landmarklabel.networks.presets import find_preset, presets

CODE = """
import numpy as np, landmarklabel as ll
from dataclasses import replace
from landmarklabel.extending import find_preset
GOOD = replace(find_preset("scn:single"), method="good")
TAKEN = replace(find_preset("scn:single"), about="another of the same name")
FOLDER = replace(find_preset("scn:single"), method="../up")
SERVED = replace(find_preset("scn:single"), method="scn_single", name="default")
NUMBER = 5

def bright(pool, rng):
    "The brightest."
    return max(pool.unlabelled), "bright"

def silent(pool, rng):
    return "a", ""

def falls(pool, rng):
    "Falls."
    raise RuntimeError("no light")

def elsewhere(pool, rng):
    "An image that is not there."
    return "z", "far away"

def spelt(pool, rng):
    "Letters."
    return "ab"

def read(path):
    if "ends" in path.name:
        raise SystemExit(3)
    if "nan" in path.name:
        return ll.Image(ll.ImageGeometry.identity((3, 2)), np.full((2, 3), np.nan))
    if "text" in path.name:
        return path.read_text()
    if "broken" in path.name:
        raise KeyError("no header")
    return ll.Image(ll.ImageGeometry.identity((3, 2, 1), 0.5), np.array([[[0, 1, 2], [3, np.nan, 5]]], np.float32))
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Make a package with entry points visible to this process; everything found before is forgotten."""
    caches = (plugins.installed, presets, files.plugin_readers)

    def forget() -> None:
        for one in caches:
            one.cache_clear()
        strategies.STRATEGIES._more = None

    def make(name: str, points: str, code: str = CODE) -> None:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(points, encoding="utf-8")
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        forget()

    monkeypatch.syspath_prepend(str(tmp_path))
    yield make
    forget()
    for name in [n for n in sys.modules if (tmp_path / f"{n}.py").exists()]:
        del sys.modules[name]


def points(**groups: str) -> str:
    return "".join(f"[landmarklabel.{group}]\n{lines}\n" for group, lines in groups.items())


def test_a_preset_of_a_plugin_is_one_of_the_models(install):
    install("nets_a", points(networks="good = nets_a:GOOD"))
    assert find_preset("good:single", 2).method == "good" and "good:single" in {p.key for p in presets()}
    assert find_preset("scn:single", 2) is next(p for p in preset_list.PRESETS if p.key == "scn:single")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("TAKEN", "there is a model 'scn:single' already"),
        ("SERVED", "there is a model 'scn:single' already"),
        ("FOLDER", "must be small letters"),
        ("NUMBER", "5 is no Preset"),
        ("GONE", "AttributeError"),
    ],
)
def test_a_preset_that_cannot_be_used_is_left_out_with_the_reason(install, caplog, name, why):
    install("nets_b", points(networks=f"one = nets_b:{name}"))
    assert presets() == preset_list.PRESETS
    (said,) = caplog.messages
    assert "plugin 'one' of nets_b 1.0" in said and why in said


@pytest.mark.parametrize(
    "code", ["raise RuntimeError('no licence')", "import sys; sys.exit('no licence')", "import nothing_of_it"]
)
def test_a_plugin_that_cannot_be_loaded_is_named_and_the_rest_goes_on(install, caplog, code):
    install("dead", points(networks="one = dead:X", strategies="two = dead:Y", readers="three = dead:Z"), code)
    assert presets() == preset_list.PRESETS and set(strategies.STRATEGIES) == set(strategies._OWN)
    assert len(caplog.messages) == 2 and all("of dead 1.0" in text for text in caplog.messages)


def test_a_strategy_of_a_plugin_is_found_by_its_name_and_the_programs_own_load_none(install, monkeypatch):
    install("ways_a", points(strategies="bright = ways_a:bright"))
    assert strategies.STRATEGIES["random"] is strategies.random and "ways_a" not in sys.modules
    choice = strategies.STRATEGIES["bright"](UnlabelledPool(["a", "b"], []), np.random.default_rng(0))
    assert choice == ("b", "bright") and strategies.STRATEGIES["bright"].__doc__ == "The brightest."
    assert list(strategies.STRATEGIES) == [*strategies._OWN, "bright"]


@pytest.mark.parametrize(
    ("name", "why"),
    [("falls", "RuntimeError('no light')"), ("elsewhere", "chose 'z'"), ("spelt", "it gave 'ab', which is no Choice")],
)
def test_a_strategy_that_fails_is_named(install, name, why):
    install("ways_b", points(strategies=f"bad = ways_b:{name}"))
    with pytest.raises(UsageError, match="strategy 'bad' of a plugin") as caught:
        strategies.STRATEGIES["bad"](UnlabelledPool(["a"], []), np.random.default_rng(0))
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("line", "why"),
    [("random = ways_c:bright", "its own 'random'"), ("x = ways_c:silent", "docstring"), ("x = ways_c:NUMBER", "function")],
)
def test_what_is_no_strategy_or_has_a_name_that_is_taken_is_left_out(install, caplog, line, why):
    install("ways_c", points(strategies=line))
    assert set(strategies.STRATEGIES) == set(strategies._OWN) and strategies.STRATEGIES["random"] is strategies.random
    assert why in caplog.text


def test_of_two_plugins_of_one_name_the_second_is_left_out(install, caplog):
    install("ways_d", points(strategies="bright = ways_d:bright"))
    install("ways_e", points(strategies="bright = ways_e:falls"))
    assert strategies.STRATEGIES["bright"].__doc__ == "The brightest."
    assert "ways_d 1.0 has one of this name already" in caplog.text


def test_a_reader_gives_images_of_its_suffix_with_finite_pixels(install, tmp_path):
    install("forms_a", points(readers="Toy = forms_a:read"))
    path = tmp_path / "a.toy"
    path.write_text("", encoding="utf-8")
    assert files.image_id_of(path) == "a" and files.image_suffix("x.TOY") == ".toy"
    image = read_image(path, 2)
    assert image.pixels.tolist() == [[0, 1, 2], [3, 0, 5]] and image.geometry.spacing.tolist() == [0.5, 0.5]
    assert describe_image(path, 2).plane is not None and read_image(path).geometry.size == (3, 2, 1)
    with pytest.raises(ImageRejected, match="no such image file"):
        read_image(tmp_path / "b.toy")


@pytest.mark.parametrize(
    ("name", "why"),
    [("nan", "all 6 pixels"), ("text", "gave str"), ("broken", "KeyError: 'no header'"), ("ends", "SystemExit: 3")],
)
def test_what_a_reader_does_wrong_is_its_files_fault(install, tmp_path, name, why):
    install("forms_b", points(readers="toy = forms_b:read"))
    (tmp_path / f"{name}.toy").write_text("", encoding="utf-8")
    with pytest.raises(ImageRejected, match=f"{name}.toy: ") as caught:
        read_image(tmp_path / f"{name}.toy")
    assert why in str(caught.value)


@pytest.mark.parametrize("suffix", ["nii.gz", "PNG", "mrk.json", "a b", "../x"])
def test_a_reader_cannot_take_the_programs_own_suffixes(install, caplog, suffix):
    install("forms_c", points(readers=f"{suffix} = forms_c:read"))
    assert files.plugin_readers() == {} and "is left out" in caplog.text


def test_a_model_file_cannot_name_code_of_its_own(install):
    from landmarklabel.networks.build import build_coarse_net

    with pytest.raises(ValueError, match="no network called"):
        build_coarse_net(replace(find_preset("scn:single"), network="os:getcwd"), 2, 3)


def test_nothing_of_a_plugin_is_loaded_at_import(tmp_path):
    info = tmp_path / "loud-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n", encoding="utf-8")
    groups = points(networks="a = loud:X", strategies="b = loud:X", readers="c = loud:X")
    (info / "entry_points.txt").write_text(groups, encoding="utf-8")
    (tmp_path / "loud.py").write_text("raise RuntimeError('loaded')", encoding="utf-8")
    code = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
import landmarklabel.networks.presets, landmarklabel.active.strategies, landmarklabel.io.images
print("loud" in sys.modules, len(list(landmarklabel.active.strategies.STRATEGIES)))
"""
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "lib"), str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8", timeout=120)
    assert done.stdout.split() == ["False", "5"], done.stderr
    assert done.stderr.count("plugin 'b' of loud 1.0") == 1 and "plugin 'a'" not in done.stderr
