"""Image in, landmarks out: a trained model, ready to run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from landmarklabel.data.cases import Case, grey_window
from landmarklabel.data.mapped_pixels import where_it_was
from landmarklabel.data.mean_shape import MeanShape
from landmarklabel.errors import ImageRejected
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.calibration import Calibration
from landmarklabel.inference.configuration import EXTENT, InferenceConfig
from landmarklabel.inference.evidence import Candidates, Evidence
from landmarklabel.inference.network_runner import NetworkRunner
from landmarklabel.inference.orientation_search import (
    predict_in_any_orientation,
    predict_in_pose,
    predict_upright,
    search_orientations,
)
from landmarklabel.inference.orientations import candidate_orientations
from landmarklabel.inference.shape_fit import Assignment, ShapeFit
from landmarklabel.inference.shape_prior import ShapePrior
from landmarklabel.inference.suggestion import Suggestion, in_unseen_orientation, suggest, unconditioned_fit
from landmarklabel.io.image_array import Image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.networks.preprocess import match_to_reference
from landmarklabel.networks.presets import Preset


@dataclass
class Localizer:
    """A trained model: its networks, its shape prior and its calibration.

    Args:
        task: the landmarks it finds.
        networks: what runs on an image.
        calibration: presence threshold and expected errors.
        alignment_shape: where cases come in any orientation: the fine network then looks in the orientation of this shape.
        prior: what the training labels say about the shape, or None where they say too little.
        reference: pixels whose grey values images are matched to (``hand2024``), or None.
        never_labelled: names of landmarks that no training case had: they are answered unset.
    """

    task: LandmarkTask
    networks: NetworkRunner
    calibration: Calibration = field(default_factory=Calibration)
    alignment_shape: MeanShape | None = None
    prior: ShapePrior | None = None
    reference: np.ndarray | None = None
    never_labelled: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.calibrate(self.calibration)

    def calibrate(self, calibration: Calibration) -> None:
        """Replace the calibration."""
        self.calibration, self.networks.fine_presence_weight = calibration, calibration.fine_presence_weight

    @property
    def config(self) -> InferenceConfig:
        """Numbers the answer depends on beside the weights."""
        return self.networks.config

    @property
    def preset(self) -> Preset:
        """Which kind of model it is."""
        return self.networks.preset

    def case(self, image_id: str, image: Image, landmarks: LandmarkSet | None = None) -> Case:
        """An image prepared the way this model wants it."""
        if self.preset.match_histogram and self.reference is not None:
            matched = match_to_reference(np.asarray(image.pixels), self.reference)
            image = Image(image.geometry, where_it_was(matched, image.pixels))
        return Case(image_id, image, landmarks, grey_window(image.pixels, *self.preset.window))

    def predict(self, image: Image | Case) -> LandmarkSet:
        """Landmarks of one image, all PREDICTED, ABSENT or UNSET, with expected errors where the model is calibrated."""
        return self.propose(image).landmarks

    def propose(self, image: Image | Case) -> Suggestion:
        """As ``predict``, with what is flagged.

        Where the shape prior contradicts a detection, another candidate takes its place; see ``inference.suggestion``.
        """
        case = image if isinstance(image, Case) else self.case("image", image)
        evidence, shape_fit = self.assess(case)
        return self.suggest(evidence, case.image.geometry, shape_fit=shape_fit)

    def suggest(
        self,
        evidence: Evidence,
        geometry: ImageGeometry,
        fixed: Mapping[str, Sequence[float] | np.ndarray] | None = None,
        absent: Sequence[str] = (),
        before: ShapeFit | None = None,
        shape_fit: ShapeFit | None = None,
    ) -> Suggestion:
        """``inference.suggestion.suggest`` with what this model knows; the arguments are its own."""
        return suggest(
            self.task,
            geometry,
            self.prior,
            evidence,
            self.calibration,
            fixed,
            absent,
            before=before,
            shape_fit=shape_fit,
            never_labelled=self.never_labelled,
            config=self.config,
        )

    def detect(self, case: Case) -> Evidence:
        """Run the networks once, with several candidates per landmark where there is a shape prior to choose between them.

        Raises:
            ImageRejected: as ``check_extent``.
        """
        self.check_extent(case)
        count = 1 if self.prior is None else self.config.candidates.per_landmark
        if self.alignment_shape is not None:
            return predict_in_any_orientation(self.networks, self.alignment_shape, case, count)
        return predict_upright(self.networks, case, count)

    def assess(self, case: Case, may_take: Callable[[float], bool] = lambda _: True) -> tuple[Evidence, ShapeFit | None]:
        """All that the networks find in an image, looked at again where it does not look like the study's shape.

        Args:
            case: the image, as ``case`` prepares it.
            may_take: asked before it looks again, with the seconds that takes at most, by the time of the first look.

        Returns:
            The evidence, and the shape fitted to it (None without a shape prior), for ``suggest``.

        Raises:
            ImageRejected: as ``check_extent``.
        """
        started = time.monotonic()
        evidence = self.detect(case)
        look_s = time.monotonic() - started
        if self.prior is None:
            return evidence, None
        geometry = case.image.geometry
        shape_fit = self._fit(evidence, geometry)
        looks = len(candidate_orientations(geometry, self.config.orientation_search))
        if self.alignment_shape is None:
            evidence, shape_fit = search_orientations(
                self.networks,
                self.prior,
                case,
                evidence,
                shape_fit,
                fit_shape=lambda found: self._fit(found, geometry),
                may_look=lambda: may_take(looks * look_s),
            )
        if self.needs_second_pass(evidence, geometry, shape_fit) and may_take(look_s):
            found = self.second_pass(case, evidence, shape_fit)
            again = self._fit(found, geometry)
            if again.cost <= shape_fit.cost:
                evidence, shape_fit = found, again
        return evidence, shape_fit

    def check_extent(self, case: Case) -> None:
        """Raise ImageRejected for an image that is none of the task's, or far larger or smaller than those of the training."""
        self.task.check_image(case.image_id, case.image.unit)
        grid = self.networks.grid
        low, high = case.image.geometry.bounds_mm
        if grid.spacing_mm is None:  # sizes go with the image
            return
        is_sizeless = case.image.unit == "px" and case.image.geometry.dims == 2  # in 2D the model learned in mm then
        field_mm, span_mm = np.array(grid.size) * grid.spacing_mm, self._landmarks_span_mm()
        if self.count_windows(case) > EXTENT.most_windows or (high - low > EXTENT.most_times * field_mm).all():
            known = f"this model was trained on fields of {_sides(field_mm)} mm"
        elif np.linalg.norm(high - low) < EXTENT.least_share * span_mm:
            known = f"the landmarks of this model's cases span {span_mm:.3g} mm"
        elif is_sizeless and self.count_windows(case) > EXTENT.many_windows:
            known = f"this model was trained on fields of {_sides(field_mm)} mm"
        else:
            return
        if is_sizeless:
            text = f"it states no pixel size, and {known}: write its pixel size into the image, or train on images without"
            raise ImageRejected(case.image_id, [text])
        raise ImageRejected(
            case.image_id, [f"it measures {_sides(high - low)} mm, and {known}: is its unit or pixel spacing right?"]
        )

    def count_windows(self, case: Case) -> int:
        """How many windows of the training's size, looked at one after the other, cover an image."""
        return self.networks.grid.count_windows(case.image.geometry)

    def _landmarks_span_mm(self) -> float:
        """From corner to corner of the mean shape, in mm; 0 without a shape prior."""
        if self.prior is None:
            return 0.0
        return float(np.linalg.norm(np.ptp(self.prior.mean_shape.points[self.prior.known], axis=0)))

    def needs_second_pass(self, evidence: Evidence, geometry: ImageGeometry, shape_fit: ShapeFit | None) -> bool:
        """Whether the networks have something further to look at: a pose not looked at yet, or landmarks without a candidate."""
        if shape_fit is None:
            return False
        unassigned = self.networks.fine_net is not None and bool((shape_fit.assignment == Assignment.UNASSIGNED).any())
        return unassigned or self._in_unseen_orientation(evidence, geometry, shape_fit)

    def second_pass(self, case: Case, evidence: Evidence, shape_fit: ShapeFit) -> Evidence:
        """Look again, where the shape fit or a person's points show that the first pass looked at the wrong place or pose.

        What it finds is taken where the shape fits it no worse than what was known before.
        """
        if self.prior is not None and self._in_unseen_orientation(evidence, case.image.geometry, shape_fit):
            expected_pose = self.prior.pose_distribution.in_image(case.image.geometry)
            return predict_in_pose(self.networks, case, shape_fit.posterior.pose, expected_pose)
        unassigned = shape_fit.assignment == Assignment.UNASSIGNED
        return self._look_near(case, evidence, np.where(unassigned[:, None], shape_fit.posterior.mean, np.nan))

    def suggest_after_second_pass(
        self,
        case: Case,
        evidence: Evidence,
        suggestion: Suggestion,
        fixed: Mapping[str, Sequence[float] | np.ndarray],
        absent: Sequence[str],
    ) -> tuple[Evidence, Suggestion]:
        """The second pass after a person's points, and the suggestion it leads to; the first ones where those fit better."""
        if suggestion.shape_fit is None:
            return evidence, suggestion
        found = self.second_pass(case, evidence, suggestion.shape_fit)
        again = self.suggest(found, case.image.geometry, fixed, absent, before=suggestion.shape_fit)
        if again.shape_fit is not None and again.shape_fit.cost <= suggestion.shape_fit.cost:
            return found, again
        return evidence, suggestion

    def _fit(self, evidence: Evidence, geometry: ImageGeometry) -> ShapeFit:
        if self.prior is None:
            raise ValueError("this model has no shape prior")
        return unconditioned_fit(self.task, geometry, self.prior, evidence, self.calibration, self.never_labelled)

    def _in_unseen_orientation(self, evidence: Evidence, geometry: ImageGeometry, shape_fit: ShapeFit) -> bool:
        if self.alignment_shape is not None or self.prior is None:
            return False
        expected_pose = self.prior.pose_distribution.in_image(geometry)
        return in_unseen_orientation(self.prior, expected_pose, shape_fit, evidence, self.config.orientation_search)

    def _look_near(self, case: Case, evidence: Evidence, places_mm: np.ndarray) -> Evidence:
        """Ask the fine network about further places (n, d), NaN for none, and add what it finds to the candidates."""
        config, n, d = self.config.candidates, len(self.task), self.task.dims
        asked = np.flatnonzero(np.isfinite(places_mm).all(1))
        if self.networks.fine_net is None or not len(asked):
            return evidence
        found = self.networks.find_near(case, places_mm[asked], asked, evidence.sampling_transform)
        positions = np.full((n, 1, d), np.nan)
        positions[asked, 0] = found.positions_mm
        weight = np.full((n, 1), config.refound_mass)
        covariance = np.tile(np.eye(d), (n, 1, 1, 1))
        covariance[asked, 0] = found.covariance_mm2
        known = evidence.candidates.first(config.max_per_landmark - 1)
        return replace(evidence, candidates=known.followed_by(Candidates(positions, weight, covariance)))


def _sides(lengths_mm: np.ndarray) -> str:
    return "x".join(f"{side:.3g}" for side in lengths_mm)
