"""The numbers of a training; each model records those it was trained with.

Where no source is given, a value was chosen on held-out cases; the trials are in ``scripts/experiments.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from landmarklabel.configuration import Configuration, number


@dataclass(frozen=True)
class SelfTrainingConfig(Configuration):
    """The second round of training, on what the first one finds in images without labels. Source: Lee 2013 (pseudo-labels)."""

    first_round: float = number(0.4, 0, 1)  # share of the budget of the first round
    max_cases: int = number(100, 1)  # labelled and pseudo-labelled together: more would cost time and teach little
    max_pixel_bytes: int = number(2**30, 1)  # of pseudo-labelled cases, which are kept in memory
    min_labelled_share: float = number(0.3, 0, 0.99)  # of the training cases, when there are pseudo-labelled ones


@dataclass(frozen=True)
class CropConfig(Configuration):
    """The crops of the fine network where a preset leaves them to the data."""

    min_size: int = number(16, 8)  # samples per side in a small volume …
    multiple: int = number(8, 1)  # … and a multiple of this: the fine network halves it three times
    zoom_margin: float = number(1.05, 1)  # finer than the images' own resolution by this
    min_zoom: float = number(1.25, 1)  # of the coarse grid's spacing
    max_zoom: float = number(4.0, 1)
    jitter: float = number(0.1, 0, 1)  # standard deviation of the truth's place in a crop, in units of its side
    outlier_jitter: float = number(0.35, 0, 1)  # largest offset of the outliers, likewise
    small_rounds: int = number(2, 1, 4)  # passes over small crops, which show little beside a wrong place


@dataclass(frozen=True)
class GateConfig(Configuration):
    """How a candidate without validation cases is measured: by shorter trainings that leave one case out each."""

    left_out_share: float = number(1 / 3, 0, 0.9)  # of a first training's budget, for those trainings
    max_left_out: int = number(5, 1)  # cases
    min_minutes: float = number(1.0, 0)  # of such a training: less teaches nothing that could be held against the template
    min_steps: int = number(100, 1)  # likewise; with fewer steps of a stage a model is called hardly trained


@dataclass(frozen=True)
class SamplingConfig(Configuration):
    """Which crops and grids the networks are trained on."""

    field_margin: float = number(0.1, 0, 0.4)  # share of the field's side that is kept free of landmarks at either end
    negative_fraction: float = number(0.4, 0, 1)  # of the crops of absent landmarks that show the place of another one
    mirrored_fraction: float = number(0.5, 0, 1)  # of the draws, where the study's shape has a mirror
    cut_fraction: float = number(0.5, 0, 1)  # of the images of which a part is cut off, where cases come in any orientation


@dataclass(frozen=True)
class ClockConfig(Configuration):
    """Keeping to ``--minutes`` by the clock."""

    assessment_factor: float = number(1.5, 1)  # assessing an image takes so many times as long as one pass of the networks
    min_stage_seconds: float = number(1.0, 0)  # of a stage whose time is up before it begins


RENDEZVOUS = "LANDMARKLABEL_RENDEZVOUS"  # environment variable: a file where the processes of one computer find each other


@dataclass(frozen=True)
class ProcessConfig(Configuration):
    """Several processes that train one model together. Times by judgement; no result depends on them."""

    look_s: float = number(0.5, 0)  # between looks at whether one has ended
    same_signal_s: float = number(1.0, 0)  # a second Ctrl-C in this time is the first one, passed on
    grace_s: float = number(20.0, 0)  # after one has failed, for the others to save and end by themselves
    wait_s: float = number(6 * 3600.0, 1)  # for one at work on something else; gloo notices a dead one at once, NCCL is untried


PROCESSES = ProcessConfig()


@dataclass(frozen=True)
class TrainingConfig:
    """All numbers of a training."""

    self_training: SelfTrainingConfig = field(default_factory=SelfTrainingConfig)
    crops: CropConfig = field(default_factory=CropConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    clock: ClockConfig = field(default_factory=ClockConfig)
