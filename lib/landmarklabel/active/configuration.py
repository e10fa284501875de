"""Numbers of active learning: which case is next, when to train again, whether labelling more still pays."""

from __future__ import annotations

from dataclasses import dataclass

from landmarklabel.configuration import Configuration, number, numbers


@dataclass(frozen=True)
class PoolConfig(Configuration):
    """How images are compared with each other."""

    min_observed: int = number(5, 1)  # cases without which nothing is concluded from them
    thumbnail_edge_2d: int = number(16, 2)  # samples per side
    thumbnail_edge_3d: int = number(8, 2)
    max_compared: int = number(1000, 2)  # of more, the newest labelled ones and some evenly spread unlabelled ones
    looks_share: float = number(0.3, 0, 1)  # of how different two images are by their grey values, beside their shapes
    disagreement_weight: float = number(3.0, 0)  # how much the share of contradicted points adds to an expected error
    min_peak_mass: float = number(0.5, 0, 1)  # a detection with less is torn between places


@dataclass(frozen=True)
class StrategyConfig(Configuration):
    """The strategy ``adaptive``."""

    cold_start_labels: int = number(10, 1)  # below, typical cases teach more than uncertain ones (Hacohen 2022, section 3)
    validation_every: int = number(5, 1)  # so many cases one is drawn at random, for validation that nobody has chosen
    notable_disagreement: float = number(0.02, 0, 1)  # share of contradicted points from which the reason names it
    unlike_rank: float = number(0.7, 0, 1)  # rank of its gain from which an image is called unlike the labelled ones


@dataclass(frozen=True)
class RetrainingConfig(Configuration):
    """When a server trains by itself."""

    after_labels: int = number(0, 0)  # new labels; 0: only when somebody asks
    minutes: float = number(10.0, 0)
    stale_factor: float = number(2.0, 1)  # times the model's own error that the last cases were off
    min_recent: int = number(3, 1)  # of those cases


@dataclass(frozen=True)
class AdviceConfig(Configuration):
    """Whether labelling more still pays."""

    min_cases: int = number(8, 2)  # seen by a model before they were labelled, without which nothing can be said
    labels_ahead: int = number(10, 1)  # the advice looks ahead
    min_relative_gain: float = number(0.03, 0, 1)  # of the error that so many labels must still save


@dataclass(frozen=True)
class ClicksConfig(Configuration):
    """What ``simulate clicks`` counts; radii in mm: 2 and 4 are the smallest and largest of ISBI 2015."""

    noc_radii_mm: tuple[float, ...] = numbers((2.0, 4.0), 0)  # within which a case counts as done
    beyond_mm: tuple[float, ...] = numbers((2.0, 4.0, 10.0), 0)  # distances beyond which points are counted
