"""Configurations refuse by name what nobody would choose, and come back from JSON as they were written."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import pkgutil
from dataclasses import dataclass, field, fields, replace
from importlib import resources

import pytest

import landmarklabel
from landmarklabel.configuration import Configuration, from_json, number, numbers, to_json
from landmarklabel.errors import ConfigurationError
from landmarklabel.inference.configuration import InferenceConfig, OrientationSearchConfig, SuggestionConfig
from landmarklabel.networks.presets import PRESETS, Preset
from landmarklabel.training.configuration import TrainingConfig

HOLDERS = ("configuration", "limits", "procrustes", "mean_shape")  # modules of configurations, in whichever package
for module in pkgutil.walk_packages(landmarklabel.__path__, "landmarklabel."):
    if module.name.split(".")[-1] in HOLDERS:
        importlib.import_module(module.name)

CHECKED = sorted(
    (kind for kind in Configuration.__subclasses__() if kind.__module__.startswith("landmarklabel.")), key=lambda k: k.__name__
)
NUMBERS = [(kind, f.name) for kind in CHECKED for f in fields(kind) if "range" in f.metadata]
WHOLE = [*CHECKED, InferenceConfig, TrainingConfig]


def by_name(one):
    return one.__name__ if isinstance(one, type) else one


def value_like(default, value):
    """``value`` in the place of a default, which may be a tuple."""
    return (*default[:-1], value) if isinstance(default, tuple) else value


def test_every_package_with_numbers_is_looked_at():
    packages = {kind.__module__.split(".")[1] for kind in CHECKED}
    assert packages >= {"inference", "training", "active", "services", "store", "io", "data", "report"}
    assert len(CHECKED) >= 20 and len(NUMBERS) >= 150


@pytest.mark.parametrize("kind", CHECKED, ids=by_name)
def test_every_number_has_a_range_that_its_default_lies_in(kind):
    config = kind()
    for f in fields(kind):
        low, high = f.metadata["range"]
        value = getattr(config, f.name)
        assert low < high and all(low <= one <= high for one in (value if isinstance(value, tuple) else (value,)))


@pytest.mark.parametrize(("kind", "name"), NUMBERS, ids=by_name)
def test_a_number_out_of_range_is_refused_by_name(kind, name):
    low, high = next(f.metadata["range"] for f in fields(kind) if f.name == name)
    config = kind()
    default = getattr(config, name)
    beyond = [low - 1, float("nan"), -math.inf, math.inf] + ([high + 1] if math.isfinite(high) else [])
    for value in beyond:
        with pytest.raises(ConfigurationError) as caught:
            replace(config, **{name: value_like(default, value)})
        assert str(caught.value) == f"{kind.__name__}.{name} is {value!r}, it must be a number from {low:g} to {high:g}"
    assert getattr(replace(config, **{name: value_like(default, low)}), name) == value_like(default, low)  # the ends are included


@pytest.mark.parametrize(("kind", "name"), NUMBERS, ids=by_name)
@pytest.mark.parametrize("value", ["3", None, True, [], {}], ids=repr)
def test_a_value_that_is_no_number_is_refused_by_name(kind, name, value):
    config = kind()
    default = getattr(config, name)
    with pytest.raises(ConfigurationError, match=f"{kind.__name__}.{name} is "):
        replace(config, **{name: value_like(default, value)})
    content = to_json(config)
    if not (isinstance(default, tuple) and value == []):  # a tuple of any length may be empty
        with pytest.raises(ConfigurationError, match=rf"{kind.__name__}\.{name}"):
            from_json(kind, content | {name: value})


@pytest.mark.parametrize("kind", WHOLE, ids=by_name)
def test_every_configuration_comes_back_from_json_as_it_was_written(kind):
    config = kind()
    content = json.loads(json.dumps(to_json(config), allow_nan=False))
    again = from_json(kind, content)
    assert again == config and to_json(again) == content
    assert list(content) == [f.name for f in fields(kind)]
    for f in fields(kind):  # the same kinds of numbers too: a count stays whole
        assert type(getattr(again, f.name)) is type(getattr(config, f.name))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: f"{p.key} {p.dims}")
def test_every_preset_comes_back_from_json_as_it_was_written(preset):
    content = json.loads(json.dumps(to_json(preset), allow_nan=False))
    again = from_json(Preset, content)
    assert again == preset and to_json(again) == content and again.key == preset.key
    assert all(isinstance(d, int) for d in again.grid_size) and isinstance(again.widths, dict)


def test_changed_numbers_come_back_too():
    config = InferenceConfig(orientation_search=OrientationSearchConfig(orientations=3, max_rotation=0.1))
    assert from_json(InferenceConfig, json.loads(json.dumps(to_json(config)))) == config != InferenceConfig()


def test_what_is_missing_takes_its_default():
    config = from_json(InferenceConfig, {"suggestion": {"temperature_2d": 2}})
    assert config == InferenceConfig(suggestion=SuggestionConfig(temperature_2d=2.0))
    assert type(config.suggestion.temperature_2d) is float


@pytest.mark.parametrize("kind", [*WHOLE, Preset], ids=by_name)
def test_unknown_fields_are_refused_by_name(kind):
    content = to_json(PRESETS[0] if kind is Preset else kind())
    with pytest.raises(ConfigurationError, match=f"{kind.__name__} has no field 'of_another_version'"):
        from_json(kind, content | {"of_another_version": 1})


def test_an_unknown_field_further_in_is_named_with_the_way_to_it():
    content = to_json(InferenceConfig())
    content["shape"]["sprues"] = 1
    with pytest.raises(ConfigurationError, match="InferenceConfig.shape has no field 'sprues'"):
        from_json(InferenceConfig, content)


@pytest.mark.parametrize("content", [None, 3, "x", [], True])
def test_what_is_no_object_is_refused(content):
    for kind in (InferenceConfig, SuggestionConfig, Preset):
        with pytest.raises(ConfigurationError, match=f"{kind.__name__} is .*, which is not an object"):
            from_json(kind, content)


def test_a_preset_without_a_name_lacks_a_field():
    with pytest.raises(ConfigurationError, match="Preset lacks a field"):
        from_json(Preset, {"method": "scn"})


@dataclass(frozen=True)
class Inner(Configuration):
    count: int = number(3, 1, 9)
    pair: tuple[float, float] = numbers((0.5, 1.0), 0, 1)


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    name: str = "x"
    on: bool = False
    sizes: dict[int, int | tuple[int, ...]] = field(default_factory=dict)
    maybe: Inner | None = None
    hidden: int = field(default=0, init=False)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"inner": {"count": 2.5}}, "Outer.inner.count is '2.5', which is not a int"),
        ({"inner": {"pair": [0.1]}}, "Outer.inner.pair is '[0.1]'"),
        ({"inner": {"pair": [0.1, 0.2, 0.3]}}, "Outer.inner.pair is '[0.1, 0.2, 0.3]'"),
        ({"inner": {"pair": [0.1, 7]}}, "Inner.pair is 7.0, it must be a number from 0 to 1"),
        ({"name": 3}, "Outer.name is '3', which is not a str"),
        ({"name": None}, "Outer.name is 'None', which is not a str"),
        ({"on": 1}, "Outer.on is '1', which is not a bool"),
        ({"sizes": [1]}, "Outer.sizes is '[1]'"),
        ({"sizes": {"2": "x"}}, "Outer.sizes.2 is 'x'"),
        ({"maybe": {"count": 0}}, "Inner.count is 0, it must be a number from 1 to 9"),
        ({"hidden": 1}, "Outer has no field 'hidden'"),
        ({"name": "a" * 9000, "on": "b" * 9000}, "Outer.on is '" + "b" * 40 + "', which is not a bool"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(content, said):
    with pytest.raises(ConfigurationError) as caught:
        from_json(Outer, content)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_keys_of_a_mapping_and_one_of_several_kinds_come_back():
    outer = Outer(sizes={2: 100, 3: (4, 5, 6)}, maybe=Inner(4), name="y", on=True)
    content = json.loads(json.dumps(to_json(outer)))
    assert "hidden" not in content and content["sizes"] == {"2": 100, "3": [4, 5, 6]}
    assert from_json(Outer, content) == outer


def test_a_key_that_is_no_number_is_refused():
    with pytest.raises(ConfigurationError, match=r"Outer\.sizes has the key 'two', which is not a int"):
        from_json(Outer, {"sizes": {"two": 1}})


def test_what_version_1_stood_for_can_still_be_read():
    """``version_1.json`` is never written again; what it holds is what models of that version answer with."""
    kept = json.loads(resources.files("landmarklabel.inference").joinpath("version_1.json").read_text(encoding="utf-8"))
    assert to_json(from_json(InferenceConfig, kept["inference"])) == kept["inference"]
    for name, content in kept["presets"].items():
        key, dims = name.removesuffix("D").rsplit(" ", 1)
        preset = from_json(Preset, content)
        assert preset.key == key and int(dims) in preset.dims and to_json(preset) == content


def test_configurations_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SuggestionConfig().temperature_2d = 2.0
