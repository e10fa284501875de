"""Every model that can be trained, by method and preset. Torch-free, so the command line and the server can list it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import ClassVar

from landmarklabel import plugins
from landmarklabel.data.augment import AugmentRange
from landmarklabel.errors import UsageError


@dataclass(frozen=True)
class Optimization:
    """How a stage is optimized. ``schedule``: ``cosine`` (warm-up, then down to 2 %) or ``constant``."""

    optimizer: str = "adamw"  # adamw | adam | nesterov
    lr: float = 2e-3
    weight_decay: float = 1e-2
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    schedule: str = "cosine"
    warmup: float = 0.04
    ema: float = 0.998
    precision: str = "bf16"


@dataclass(frozen=True)
class GaussianTarget:
    """L2 targets of the published networks; see ``training.losses.GaussianTargets``."""

    sigma: float
    learned: bool = False
    scale: float = 1.0
    norm: str = "peak"
    penalty: float = 0.0
    background: float = 0.0


@dataclass(frozen=True)
class Refinement:
    """The fine network, in samples of its finest crop; see ``data.batches.CropPlan``.

    ``zoom`` None: as fine as the images are; ``crops``: crops per training step.
    """

    network: str = "shared"
    scales: int = 3
    zoom: float | None = None
    size: Mapping[int, int] = field(default_factory=lambda: {2: 48, 3: 24})
    crops: Mapping[int, int] = field(default_factory=lambda: {2: 64, 3: 32})
    share: float = 0.55  # of the training budget
    sigma: float = 1.2  # of the target, in cells of the fine network's map
    small_sigma_factor: float = 0.5  # where crops are smaller than ``size``: in 8 cells the usual target is hardly a peak
    widths: Mapping[int, tuple[int, ...]] = field(default_factory=lambda: {2: (32, 64, 96, 128), 3: (24, 48, 64)})  # ``shared``
    optimization: Optimization = Optimization(lr=2e-3)
    augment: AugmentRange = AugmentRange(rotation=0.35, scale=0.14, shear=0.06)


@dataclass(frozen=True)
class Preset:
    """One trainable model.

    Args:
        method: ``scn`` or a later one.
        name: of the preset.
        about: one line for help texts.
        network: the coarse one, key of ``networks.build`` (``fine``, which stands in model files, is one with a
            finer map); of a plugin also ``module:function``, which is given dims and landmarks.
        dims: image dimensions it is made for.
        grid_size: of the working grid: a number of samples, or the sizes themselves, by dims.
        grid_size_any_orientation: the same where cases come in any orientation, or in 2D lie anywhere, and the first stage need
            only tell how: steps count then, not samples.
        multiple: sides of the grid are multiples of it; stride: grid samples per map cell, of networks that make maps.
        target: None for probability cells (ours).
        window: grey-value percentiles mapped to 0..1 (ours) or -1..1 (``scale_to_minus1_1``).
        match_histogram: bring every image to the grey values of a reference training image.
        tiling_threshold: images whose grid is larger than this many training grids are looked at in windows.
        refine: the fine network, or None.
        widths: channels of the coarse network, level by level, by dims; none for the published networks.
    """

    # 2D cases lie anywhere if landmarks are so far from their mean places in the image, in units of the shape's size.
    # Ultrasound of fetal heads has 0.54; radiographs, wings and shells have 0.14 to 0.24.
    PLACE_SPREAD: ClassVar[float] = 0.45

    method: str
    name: str
    about: str
    network: str
    dims: tuple[int, ...] = (2, 3)
    grid_size: Mapping[int, int | tuple[int, ...]] = field(default_factory=lambda: {2: 384 * 272, 3: 96**3})
    grid_size_any_orientation: Mapping[int, int] = field(default_factory=lambda: {2: 192 * 136, 3: 48**3})
    multiple: Mapping[int, int] = field(default_factory=lambda: {2: 32, 3: 16})
    stride: int = 1
    batch: Mapping[int, int] = field(default_factory=lambda: {2: 4, 3: 2})
    sigma: float = 1.2
    target: GaussianTarget | None = None
    optimization: Optimization = Optimization()
    augment: AugmentRange = AugmentRange()
    window: tuple[float, float] = (2.0, 98.0)
    scale_to_minus1_1: bool = False
    match_histogram: bool = False
    tiling_threshold: float = 2.5
    refine: Refinement | None = None
    widths: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def supports_self_training(self) -> bool:
        """Whether a second round on unlabelled images is used; published networks are trained as their papers say."""
        return self.name in ("default", "single")

    @property
    def key(self) -> str:
        return f"{self.method}:{self.name}"

    @property
    def served_as(self) -> str:
        """The name in addresses and folders: ``scn``, ``scn_payer2019``."""
        return self.method if self.name == "default" else f"{self.method}_{self.name}"


_FINE = {2: (32, 64, 96, 128, 160), 3: (24, 48, 96, 128)}  # half-resolution maps, for a network that stands alone
_COARSE = {2: (48, 96, 128, 160), 3: (48, 96, 128)}  # quarter-resolution maps, for one that a fine network follows
_NONE = AugmentRange(rotation=0, scale=0, shear=0, shift=0, elastic=0, gamma=0, contrast=0, brightness=0, noise=0)
_PUBLISHED_2016 = replace(_NONE, rotation=0.2, shift=0.04, elastic=0.02, contrast=0.15, brightness=0.15)
_PUBLISHED_2019 = replace(_NONE, rotation=0.25, scale=0.2, shift=0.04, elastic=0.015, contrast=0.22, brightness=0.25)
_HAND_2024 = replace(_NONE, rotation=0.175, scale=0.27, shift=0.078, elastic=0.006, elastic_nodes=12, noise=0.001)

_NOOTHOUT = Optimization("adam", lr=1e-3, weight_decay=0.0, betas=(0.9, 0.999), clip=0, schedule="constant")

_NOOTHOUT_LOCAL = Refinement(
    "noothout2020", 1, 1.0, size={2: 16, 3: 16}, crops={2: 148, 3: 90}, share=0.5, optimization=_NOOTHOUT, augment=_NONE
)

PRESETS: tuple[Preset, ...] = (
    Preset(
        method="scn",
        name="default",
        about="ours: probability maps, presence, and a local refiner; made to be trained on a CPU",
        network="coarse",
        widths=_COARSE,
        stride=4,
        sigma=0.9,
        refine=Refinement(),
    ),
    Preset(
        method="scn",
        name="single",
        about="ours without the local refiner: fastest to train and to run",
        network="fine",
        widths=_FINE,
        stride=2,
    ),
    Preset(
        method="scn",
        name="payer2016",
        about="Payer 2016: three 5x5 convolutions and one 15x15 per landmark pair, fixed sigma 3",
        network="payer2016",
        dims=(2,),
        grid_size={2: (256, 256)},
        multiple={2: 8},
        batch={2: 8},
        target=GaussianTarget(sigma=3.0),
        optimization=Optimization(
            "nesterov", lr=1e-7, momentum=0.99, weight_decay=5e-5, clip=0, schedule="constant", precision="fp32"
        ),
        augment=_PUBLISHED_2016,
        window=(5.0, 95.0),
        scale_to_minus1_1=True,
    ),
    Preset(
        method="scn",
        name="payer2019",
        about="Payer 2019, cephalogram settings: four-level local network, learned sigma",
        network="payer2019",
        dims=(2,),
        grid_size={2: (512, 512)},
        multiple={2: 16},
        batch={2: 1},
        target=GaussianTarget(sigma=2.5, learned=True, scale=100.0, norm="density", penalty=20.0),
        optimization=Optimization(
            "nesterov", lr=1e-6, momentum=0.99, weight_decay=1e-3, clip=1e4, schedule="constant", precision="fp32"
        ),
        augment=_PUBLISHED_2019,
        window=(1.0, 99.0),
        scale_to_minus1_1=True,
    ),
    Preset(
        method="scn",
        name="payer2019",
        about="Payer 2019, spine CT settings: the same network in 3D, reflecting borders, learned sigma",
        network="payer2019",
        dims=(3,),
        grid_size={3: (96, 96, 192)},
        multiple={3: 8},
        batch={3: 1},
        target=GaussianTarget(sigma=4.0, learned=True, scale=1000.0, norm="density", penalty=100.0),
        optimization=Optimization(
            "nesterov", lr=5e-8, momentum=0.99, weight_decay=5e-4, clip=0, schedule="constant", precision="fp32"
        ),
        augment=replace(_PUBLISHED_2019, rotation=0.35, scale=0.1),
        window=(1.0, 99.0),
        scale_to_minus1_1=True,
    ),
    Preset(
        method="scn",
        name="hand2024",
        about="the 2024 PyTorch hand-joint network: 64 filters 5x5, 15x15 spatial part, histogram matching",
        network="hand2024",
        dims=(2,),
        grid_size={2: (256, 256)},
        multiple={2: 8},
        batch={2: 1},
        target=GaussianTarget(sigma=2.0, background=-1.0),
        optimization=Optimization(
            "adam", lr=1e-4, betas=(0.5, 0.999), weight_decay=2e-5, clip=0, schedule="constant", precision="fp32"
        ),
        augment=_HAND_2024,
        window=(0.0, 100.0),
        scale_to_minus1_1=True,
        match_histogram=True,
    ),
    Preset(
        method="global_local",
        name="default",
        about="ours: cells of a coarse grid vote, presence, and the same local refiner",
        network="votes",
        widths=_COARSE,
        refine=Refinement(),
    ),
    Preset(
        method="global_local",
        name="noothout2020",
        about="Noothout 2020: ResNet34 votes on the whole image, then a specialised network per landmark",
        network="noothout2020",
        dims=(2,),
        grid_size={2: 384 * 288},
        multiple={2: 32},
        batch={2: 4},
        optimization=_NOOTHOUT,
        augment=_NONE,
        window=(0.0, 100.0),
        refine=_NOOTHOUT_LOCAL,
    ),
    Preset(
        method="global_local",
        name="noothout2020",
        about="Noothout 2020 in 3D: cells of 8 voxels, then a specialised network per landmark",
        network="noothout2020",
        dims=(3,),
        grid_size={3: 72**3},
        multiple={3: 8},
        batch={3: 2},
        optimization=_NOOTHOUT,
        augment=_NONE,
        window=(0.0, 100.0),
        tiling_threshold=64.0,
        refine=_NOOTHOUT_LOCAL,
    ),
)


@cache
def presets() -> tuple[Preset, ...]:
    """Every preset: the program's own and those of plugins."""
    known = list(PRESETS)
    for point in plugins.installed(plugins.NETWORKS).values():
        value = plugins.load(point)
        for preset in value if isinstance(value, (tuple, list)) else (value,) if value is not None else ():
            if fault := _fault(preset, known):
                plugins.left_out(point, fault)
            else:
                known.append(preset)
    return tuple(known)


def _fault(preset: object, known: list[Preset]) -> str | None:
    """Why a plugin's preset cannot be used; None where it can."""
    if not isinstance(preset, Preset):
        return f"{preset!r:.80} is no Preset"
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}:[a-z][a-z0-9_]{0,40}", preset.key):
        return f"{preset.key!r}: method and name must be small letters, digits and _"
    if not preset.dims or not set(preset.dims) <= {2, 3}:
        return f"{preset.key!r}: dims {preset.dims!r} must be of 2 and 3"
    taken = [p for p in known if p.served_as == preset.served_as and (p.key != preset.key or set(p.dims) & set(preset.dims))]
    return f"there is a model {taken[0].key!r} already; call it otherwise" if taken else None


def find_preset(text: str, dims: int | None = None) -> Preset:
    """The preset called ``METHOD`` or ``METHOD:PRESET``, made for ``dims``; UsageError names the nearest one otherwise."""
    method, _, name = text.partition(":")
    wanted = f"{method}:{name or 'default'}"

    def fitting(some: tuple[Preset, ...]) -> list[Preset]:
        return [p for p in some if p.key == wanted and (dims is None or dims in p.dims)]

    if found := fitting(PRESETS) or fitting(presets()):  # a plugin is not needed, nor loaded, for the program's own
        return found[0]
    others = [p for p in presets() if p.key == wanted]
    if not others:
        keys = list(dict.fromkeys(p.key for p in presets()))
        near = difflib.get_close_matches(wanted, keys, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise UsageError(f"no model called {text!r}{hint} known are {', '.join(keys)}")
    raise UsageError(f"model {wanted!r} is made for {others[0].dims[0]}D images, the task is {dims}D")
