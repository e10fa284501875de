"""The numbers an answer depends on beside the weights: each model records the ones it was made with.

Where no source is given, a value was chosen on held-out cases of the hand radiographs and mouse skulls; the trials are in
``scripts/experiments.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from landmarklabel.configuration import Configuration, number, numbers
from landmarklabel.data.mean_shape import MeanShapeConfig
from landmarklabel.data.mirror import MirrorConfig
from landmarklabel.data.procrustes import RobustFitConfig

PoseSd = tuple[float, float, float]


@dataclass(frozen=True)
class ShapeModelConfig(Configuration):
    """The shape prior: how it is learned from labelled cases, and how it is fitted to candidates.

    Lengths without a unit are in units of the shape's size (root mean square distance from its centre).
    """

    generic_cases: float = number(16.0, 0)  # labelled cases that the generic covariance counts as when it is shrunk towards
    generic_length: float = number(0.7, 0)  # correlation length of the generic deformation: neighbours move together
    generic_sd: float = number(0.06, 0)  # standard deviation of the generic deformation when no case is known
    generic_jitter_sd: float = number(0.02, 0)  # standard deviation of a single landmark's own part, when no case is known
    min_generic_share: float = number(0.05, 0)  # least scale of the generic covariance, relative to that with no case
    pose_sd: PoseSd = numbers((0.06, 0.08, 0.08), 0)  # centre (of the field), log scale, rotation (radians), at least
    first_pose_sd: PoseSd = numbers((0.15, 0.25, 0.3), 0)  # added in quadrature, divided by the number of cases
    imputation_rounds: int = number(5, 1, 100)  # rounds of expectation maximization, where cases lack landmarks
    clicked_sd: float = number(0.004, 0)  # standard deviation of a point that a person placed
    min_detection_sd: float = number(0.03, 0)  # added to the prior when detections are first compared with it
    extra_dof: float = number(4.0, 0)  # degrees of freedom of the Student distribution, besides one per case
    confusion_rate: float = number(0.02, 0, 1)  # share of detections that are somewhere else entirely
    group_confusion_rate: float = number(0.5, 0, 1)  # probability that a landmark is confused if its group neighbour is
    anywhere_extent: float = number(3.0, 0)  # side of the region in which a confused detection may lie
    unassigned_bonus: float = number(-3.0, -100, 0)  # added to the cost per unassigned detection: confusions come in groups
    mirror_cost: float = number(6.0, 0)  # cost of a fit whose handedness is not the study's
    rounds: int = number(10, 1, 1000)  # at most, alternating between choosing candidates and fitting the shape
    wide_tail_scale: float = number(9.0, 1)  # factor of wider tails for a second first choice, if few agreed
    samples: int = number(800, 1, 10_000)  # random minimal samples of a pose search, for each handedness
    starts: int = number(6, 1, 100)  # distinct poses from a search that are fitted
    start_sd: PoseSd = numbers((0.3, 0.1, 0.25), 0)  # standard deviations of translation, log scale, rotation around it
    max_unassigned: float = number(0.2, 0, 1)  # above this share of unassigned detections, poses are searched
    max_misfit: float = number(4.0, 0)  # above this mean squared distance of clicked points (in sd), too
    plausible_unassigned: float = number(0.12, 0, 1)  # share of unassigned detections up to which a fit is plausible
    plausible_misfit: float = number(2.0, 0)  # misfit up to which a fit is plausible


@dataclass(frozen=True)
class CandidateConfig(Configuration):
    """How many candidates a landmark has."""

    per_landmark: int = number(3, 1, 20)  # peaks of a coarse map that are kept
    max_per_landmark: int = number(6, 1, 40)  # kept in all, with those found where the shape expects the landmark
    min_peak_mass: float = number(0.02, 0, 1)  # smallest share of the map for a candidate other than the first
    refound_mass: float = number(0.05, 0, 1)  # weight of a candidate found where the shape expects the landmark


@dataclass(frozen=True)
class OrientationSearchConfig(Configuration):
    """When and how an image is looked at again in another orientation."""

    directions: int = number(12, 1, 360)  # number of directions in which an implausible image is looked at
    zoomed_in: float = number(0.72, 0.1, 1)  # relative spacing of a second, closer look in 2D: turned images have margins
    followed: int = number(3, 1, 100)  # orientations suggested by the coarse maps that are looked at closely
    max_rotation: float = number(0.45, 0, 3.2)  # largest rotation from the expected pose without a new look, radians
    max_log_scale: float = number(0.4, 0)  # largest difference in log scale from the expected pose without a new look
    orientations: int = number(8, 1, 100)  # tried at most, if a study's cases come in any orientation
    min_pose_rounds: int = number(2, 1, 20)  # fewest rounds of the fine network in the aligned orientation, then
    max_pose_rounds: int = number(4, 1, 20)  # most rounds, run while the result is far from the mean shape
    max_misalignment: float = number(2.0, 0)  # up to this many times the study's own spread is "not far"


@dataclass(frozen=True)
class CalibrationConfig(Configuration):
    """How expected errors, regions and the threshold of presence follow from validation cases."""

    min_points: int = number(30, 2)  # residuals without which no expected error is stated
    level: float = number(0.95, 0.5, 0.999)  # probability that a region contains the truth
    spread_percentiles: tuple[float, float] = numbers((0.5, 99.5), 0, 100)  # of validation cases; spreads are clipped to them
    shrinkage_points: float = number(5.0, 0)  # weight of the mean over all landmarks, in residuals of one landmark
    fine_presence_weights: tuple[float, ...] = numbers((0.0, 0.25, 0.5, 0.75, 1.0), 0, 1)  # tried for the fine network's presence
    min_presence_cases: int = number(5, 1)  # present and absent landmarks needed to choose that weight and the threshold
    never_absent_threshold: float = number(0.2, 0, 1)  # presence threshold if nobody called a landmark absent
    prior_inflations: tuple[float, ...] = numbers((4.0, 8.0, 16.0, 64.0), 0)  # factors tried for the shape prior's covariance
    min_cases_for_inflation: int = number(8, 1)  # validation cases needed to choose that factor


@dataclass(frozen=True)
class SuggestionConfig(Configuration):
    """How evidence and shape become the answer."""

    max_slips: int = number(3, 0, 100)  # most slips looked for among a person's points: each costs a shape fit
    map_cells: int = number(256, 1)  # cells of a fine map that are combined with the shape prior
    outside_margin: float = number(0.1, 0)  # share of the field's side; further out the shape overrules nothing
    temperature_2d: float = number(1.5, 0.01)  # divisor of a fine map's logits, as trained maps are overconfident
    temperature_3d: float = number(1.0, 0.01)  # the same in 3D

    def temperature(self, dims: int) -> float:
        """The divisor of a fine map's logits."""
        return self.temperature_2d if dims == 2 else self.temperature_3d


@dataclass(frozen=True)
class InferenceConfig:
    """All numbers of inference, with how a mean shape and its mirror are found and aligned with detections."""

    shape: ShapeModelConfig = field(default_factory=ShapeModelConfig)
    candidates: CandidateConfig = field(default_factory=CandidateConfig)
    orientation_search: OrientationSearchConfig = field(default_factory=OrientationSearchConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    suggestion: SuggestionConfig = field(default_factory=SuggestionConfig)
    mean_shape: MeanShapeConfig = field(default_factory=MeanShapeConfig)
    mirror: MirrorConfig = field(default_factory=MirrorConfig)
    alignment: RobustFitConfig = field(default_factory=RobustFitConfig)


@dataclass(frozen=True)
class EnsembleConfig(Configuration):
    """How the answers of several models are merged; no part of a model. Set by judgement: no trial has compared others."""

    far: float = number(4.0, 0)  # combined expected errors from the surest answer: a position that lies farther does not count
    least_error_mm: float = number(1e-3, 0)  # below, expected errors weigh alike


@dataclass(frozen=True)
class ExtentConfig(Configuration):
    """How much larger or smaller than in training an image may be; no answer depends on it."""

    most_windows: int = number(2000, 1)  # that cover it; a whole body has a thousand of a small head; a wrong unit, millions
    many_windows: int = number(30, 1)  # that cover it: a person who waits is told
    most_times: float = number(5.0, 1)  # of the trained field, on every side: a body is as thick as a head; cm for mm, 10
    least_share: float = number(0.2, 0, 1)  # of the mean shape's diagonal: hardly a fifth of it is imaged; mm for cm, 0.1


EXTENT = ExtentConfig()
