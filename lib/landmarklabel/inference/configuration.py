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
    generic_sd: float = number(0.06, 0)  # standard deviation of the generic deformation while no case is known
    generic_jitter_sd: float = number(0.02, 0)  # of single landmarks, likewise
    min_generic_share: float = number(0.05, 0)  # the generic part never falls below this share of its size with no case
    pose_sd: PoseSd = numbers((0.06, 0.08, 0.08), 0)  # centre (of the field), log scale, rotation (radians), at least
    first_pose_sd: PoseSd = numbers((0.15, 0.25, 0.3), 0)  # added to those with a single case
    imputation_rounds: int = number(5, 1, 100)  # of expectation maximization, where cases lack landmarks
    clicked_sd: float = number(0.004, 0)  # of a point a person placed
    min_detection_sd: float = number(0.03, 0)  # added to the prior when detections are first compared with it
    extra_dof: float = number(4.0, 0)  # degrees of freedom of the deformation's Student distribution, besides one per case
    confusion_rate: float = number(0.02, 0, 1)  # share of detections that are somewhere else entirely
    group_confusion_rate: float = number(0.5, 0, 1)  # that a landmark is confused when its neighbour in the group is
    anywhere_extent: float = number(3.0, 0)  # side of the region in which a confused detection may lie
    unassigned_bonus: float = number(-3.0, -100, 0)  # to a fit's cost for each: confusions come in groups, so they are cheap
    mirror_cost: float = number(6.0, 0)  # of a fit whose handedness is not the study's
    rounds: int = number(10, 1, 1000)  # of choosing candidates given the shape, and the shape given candidates
    wide_tail_scale: float = number(9.0, 1)  # first choice again with so much wider tails, where too few candidates agreed
    samples: int = number(800, 1, 10_000)  # minimal samples of a pose search, for either handedness
    starts: int = number(6, 1, 100)  # distinct poses of a search that are fitted
    start_sd: PoseSd = numbers((0.3, 0.1, 0.25), 0)  # of translation, log scale and rotation around such a pose
    max_unassigned: float = number(0.2, 0, 1)  # share of detections that agree with nothing beyond which poses are searched
    max_misfit: float = number(4.0, 0)  # mean squared standardized distance of clicked points, likewise
    plausible_unassigned: float = number(0.12, 0, 1)  # at most, for a fit so good that no other orientation is tried
    plausible_misfit: float = number(2.0, 0)  # likewise
    mean_shape: MeanShapeConfig = field(default_factory=MeanShapeConfig)
    mirror: MirrorConfig = field(default_factory=MirrorConfig)


@dataclass(frozen=True)
class PoseSearchConfig(Configuration):
    """How many candidates a landmark has, and when and how an image is looked at again in another orientation."""

    candidates: int = number(3, 1, 20)  # peaks of a coarse map that are kept
    max_candidates: int = number(6, 1, 40)  # with those found by looking where the shape would have the landmark
    min_peak_mass: float = number(0.02, 0, 1)  # of all candidates but the first, as a share of the map
    refound_mass: float = number(0.05, 0, 1)  # that a place found by looking where the shape would have it counts as
    directions: int = number(12, 1, 360)  # an implausible image is looked at from
    zoomed_in: float = number(0.72, 0.1, 1)  # in 2D also with this spacing: turned images have margins
    followed: int = number(3, 1, 100)  # orientations that are looked at closely, of those the coarse maps suggest
    max_rotation: float = number(0.45, 0, 3.2)  # radians from the expected pose that a network of upright images copes with
    max_log_scale: float = number(0.4, 0)  # likewise
    orientations: int = number(8, 1, 100)  # tried at most where a study's cases come in any orientation
    min_pose_rounds: int = number(2, 1, 20)  # there, of the fine network in the aligned orientation
    max_pose_rounds: int = number(4, 1, 20)  # likewise, while the result is far from the mean shape
    max_misalignment: float = number(2.0, 0)  # times the study's own spread around its mean shape, for "not far"


@dataclass(frozen=True)
class CalibrationConfig(Configuration):
    """How expected errors, regions and the threshold of presence follow from validation cases."""

    min_points: int = number(30, 2)  # residuals without which no expected error is stated
    level: float = number(0.95, 0.5, 0.999)  # of the regions
    spread_percentiles: tuple[float, float] = numbers((0.5, 99.5), 0, 100)  # of validation cases, where spreads are cut
    shrinkage_points: float = number(5.0, 0)  # residuals that the mean over all landmarks counts as for each
    local_weights: tuple[float, ...] = numbers((0.0, 0.25, 0.5, 0.75, 1.0), 0, 1)  # tried for the fine network's presence
    min_presence_cases: int = number(5, 1)  # present and absent landmarks needed to choose that weight and the threshold
    never_absent_threshold: float = number(0.2, 0, 1)  # of presence, in a study where nobody called a landmark absent
    prior_inflations: tuple[float, ...] = numbers((4.0, 8.0, 16.0, 64.0), 0)  # tried for the covariance of the shape prior …
    min_cases_for_inflation: int = number(8, 1)  # … with so many validation cases


@dataclass(frozen=True)
class SuggestionConfig(Configuration):
    """How evidence and shape become the answer."""

    max_slips: int = number(3, 0, 100)  # of a person's points that are checked for slips: each costs another shape fit
    map_cells: int = number(256, 1)  # of a landmark's fine map that are weighed against what the other landmarks say
    outside_margin: float = number(0.1, 0)  # of the field's side, beyond which the shape does not overrule a detection
    temperature_2d: float = number(1.5, 0.01)  # a trained map is surer than it should be; its logits are divided by this
    temperature_3d: float = number(1.0, 0.01)

    def temperature(self, dims: int) -> float:
        """The divisor of a fine map's logits."""
        return self.temperature_2d if dims == 2 else self.temperature_3d


@dataclass(frozen=True)
class InferenceConfig:
    """Everything of the above, and how a mean shape is aligned with detections."""

    shape: ShapeModelConfig = field(default_factory=ShapeModelConfig)
    pose_search: PoseSearchConfig = field(default_factory=PoseSearchConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    suggestion: SuggestionConfig = field(default_factory=SuggestionConfig)
    alignment: RobustFitConfig = field(default_factory=RobustFitConfig)
