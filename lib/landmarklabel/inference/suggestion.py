"""From what is known of an image to what the user is shown: positions, expected errors, flags, and what to place next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.calibration import Calibration
from landmarklabel.inference.configuration import InferenceConfig, OrientationSearchConfig
from landmarklabel.inference.evidence import Candidates, Evidence, FineMaps
from landmarklabel.inference.orientations import is_far_from_expected
from landmarklabel.inference.shape_fit import Assignment, ShapeFit, fit_shape_to_candidates, most_contradicted, next_landmark
from landmarklabel.inference.shape_prior import PosePrior, ShapePrior
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status


@dataclass(frozen=True)
class Suggestion:
    """What the user is shown for one image.

    Args:
        landmarks: PLACED where a person fixed them, else PREDICTED, ABSENT or UNSET.
        flagged: (n,) bool: look at it. Its detection, or the person's point, contradicts the others; another candidate than
            the first was taken; the others would have it well outside of the image. Or the whole fit is no shape of the study,
            or lies in an orientation that the networks have not looked at: then all are.
        detected_mm: (n, d) what the networks alone would have said, NaN where they said nothing.
        shape_fit: pose and shape behind it; None without a shape prior.
        next: name of the landmark whose placing would tell most about the others; None when nothing is left.
        final_evidence: the evidence with the positions that were decided on; None without a model.
    """

    landmarks: LandmarkSet
    flagged: np.ndarray
    detected_mm: np.ndarray
    shape_fit: ShapeFit | None
    next: str | None
    final_evidence: Evidence | None = None


@dataclass(frozen=True)
class _Known:
    """What a person and the networks have settled before any shape is fitted.

    Args:
        fixed: (d,) LPS mm by landmark number.
        absent: (n,) bool: a person, or the networks, call it absent.
        by_person: (n,) bool: a person has spoken.
        never_labelled: (n,) bool: the networks were never shown it, and no person has spoken.
    """

    fixed: dict[int, np.ndarray]
    absent: np.ndarray
    by_person: np.ndarray
    never_labelled: np.ndarray

    @property
    def without_detection(self) -> np.ndarray:
        """(n,) bool: landmarks whose detections are ignored."""
        made: np.ndarray = self.absent | self.never_labelled
        return made

    @property
    def settled(self) -> np.ndarray:
        """(n,) bool: landmarks that the networks need not find."""
        made: np.ndarray = self.without_detection | self.by_person
        return made

    def candidates(self, evidence: Evidence | None) -> Candidates | None:
        """The candidates of the landmarks that may be in the image."""
        return None if evidence is None else evidence.candidates.without(self.without_detection)


def _what_is_known(
    task: LandmarkTask,
    evidence: Evidence | None,
    calibration: Calibration,
    fixed: Mapping[str, Sequence[float] | np.ndarray],
    absent: Sequence[str],
    never_labelled: Sequence[str],
) -> _Known:
    n = np.arange(len(task))
    placed = {task.index(name): np.asarray(p, float)[: task.dims] for name, p in fixed.items()}
    gone = np.isin(n, [task.index(name) for name in absent])
    by_person = gone | np.isin(n, list(placed))
    never = np.isin(n, [task.index(name) for name in never_labelled]) & ~by_person
    if evidence is not None:
        gone = gone | (calibration.predicted_absent(evidence) & ~by_person & ~never)
    return _Known(placed, gone, by_person, never)


def unconditioned_fit(
    task: LandmarkTask,
    geometry: ImageGeometry,
    prior: ShapePrior,
    evidence: Evidence,
    calibration: Calibration,
    never_labelled: Sequence[str] = (),
) -> ShapeFit:
    """The shape fitted to the networks' evidence alone: what ``suggest`` makes of it before a person says anything."""
    known = _what_is_known(task, evidence, calibration, {}, (), never_labelled)
    expected_pose = prior.pose_distribution.in_image(geometry)
    return fit_shape_to_candidates(prior, expected_pose, known.candidates(evidence), {}, np.flatnonzero(known.absent))


def suggest(
    task: LandmarkTask,
    geometry: ImageGeometry,
    prior: ShapePrior | None,
    evidence: Evidence | None,
    calibration: Calibration,
    fixed: Mapping[str, Sequence[float] | np.ndarray] | None = None,
    absent: Sequence[str] = (),
    *,
    before: ShapeFit | None = None,
    shape_fit: ShapeFit | None = None,
    never_labelled: Sequence[str] = (),
    config: InferenceConfig | None = None,
) -> Suggestion:
    """Bring a person's points, the networks' evidence and the shape prior into agreement. No network runs.

    Args:
        task: the landmarks.
        geometry: of the image.
        prior: of the study, or None.
        evidence: of the networks, or None while there is no model.
        calibration: of the model.
        fixed: (d,) LPS mm by name; they come back unchanged, as PLACED.
        absent: names a person called absent.
        before: an earlier shape fit to the same image, to start from.
        shape_fit: the fit of exactly these, where it is known already; see ``unconditioned_fit``.
        never_labelled: names that the networks were never shown: whatever they say of them is noise, and they stay unset.
        config: of the model; the defaults when None.
    """
    config = config or InferenceConfig()
    n, d = len(task), task.dims
    known = _what_is_known(task, evidence, calibration, fixed or {}, absent, never_labelled)
    detected, covariance = np.full((n, d), np.nan), np.full((n, d, d), np.nan)
    if evidence is not None:
        detected = np.where(known.without_detection[:, None], np.nan, evidence.positions_mm)
        covariance = evidence.covariance_mm2.copy()
    positions, flagged, slips = detected.copy(), np.zeros(n, bool), []
    if prior is not None:
        expected_pose, start = prior.pose_distribution.in_image(geometry), None if before is None else before.posterior.pose
        candidates, gone = known.candidates(evidence), np.flatnonzero(known.absent)
        if shape_fit is None:
            shape_fit = fit_shape_to_candidates(prior, expected_pose, candidates, known.fixed, gone, start)
        agreed = _agree(prior, expected_pose, shape_fit, detected, covariance, evidence, calibration, config)
        positions, covariance, flagged = _keep_inside(geometry, detected, *agreed, config.suggestion.outside_margin)
        slips = _slips(prior, expected_pose, candidates, shape_fit, known.fixed, gone, config.suggestion.max_slips)
    if evidence is None and prior is not None and known.fixed:
        covariance = covariance * _widening(prior.cases) ** 2
    final, expected, covariance, radius95 = _confidence(evidence, shape_fit, calibration, positions, covariance)
    for i, p in known.fixed.items():
        positions[i], covariance[i] = p, 0.0
    positions[known.without_detection] = np.nan
    landmarks = _landmarks(task, known, positions, evidence, expected, covariance, radius95)
    landmarks = replace(landmarks, interval_factors={} if evidence is None else calibration.interval_factors)
    free = np.flatnonzero(landmarks.defined & ~known.by_person)
    following = None if shape_fit is None else next_landmark(shape_fit, free)
    flagged = (flagged & ~known.settled) | np.isin(np.arange(n), slips)
    return Suggestion(landmarks, flagged, detected, shape_fit, None if following is None else task.names[following], final)


def _landmarks(
    task: LandmarkTask,
    known: _Known,
    positions: np.ndarray,
    evidence: Evidence | None,
    expected: np.ndarray,
    covariance: np.ndarray,
    radius95: np.ndarray | None,
) -> LandmarkSet:
    """What is shown; nothing is expected of, and no region drawn around, what is settled."""
    return LandmarkSet(
        task,
        positions,
        _status(positions, known),
        expected_error_mm=np.where(known.settled, np.nan, expected),
        covariance_mm2=covariance,
        presence=None if evidence is None else evidence.presence,
        radius95_mm=None if radius95 is None else np.where(known.settled, np.nan, radius95),
    )


def _widening(cases: int) -> float:
    """By how much points are farther off than the shape of so few cases says, once a person has placed some of them.

    A curve through what is seen on skulls, cephalograms and hands (``scripts/reproduce.py template_confidence``): 1.7 times for 2
    to 5 cases, 1.4 for 8, 1.3 for 15.
    """
    return 1 + 5 / (cases + 4)


def _confidence(
    evidence: Evidence | None,
    shape_fit: ShapeFit | None,
    calibration: Calibration,
    positions: np.ndarray,
    covariance: np.ndarray,
) -> tuple[Evidence | None, np.ndarray, np.ndarray, np.ndarray | None]:
    """The evidence with what was decided on (None without a model), expected errors, covariances, and radii of 95 % regions."""
    if evidence is None:
        mean_of_norm = 0.886 if positions.shape[1] == 2 else 0.921  # of a normal vector, over the root of the covariance's trace
        return None, np.sqrt(np.trace(covariance, axis1=1, axis2=2)) * mean_of_norm, covariance, None
    first = np.ones(len(positions), bool) if shape_fit is None else shape_fit.assignment == Assignment.FIRST_CANDIDATE
    mass = np.where(first, evidence.peak_mass, 1.0)
    final = replace(evidence, positions_mm=positions, covariance_mm2=covariance, peak_mass=mass)
    expected = calibration.expected_error_mm(final)
    return final, expected, *calibration.region(final, expected)


def _slips(
    prior: ShapePrior,
    expected_pose: PosePrior,
    candidates: Candidates | None,
    shape_fit: ShapeFit,
    fixed: Mapping[int, np.ndarray],
    absent: np.ndarray,
    most: int,
) -> list[int]:
    """A person's points that contradict the others: the worst first, each taken out before the next is looked for."""
    slips: list[int] = []
    left = dict(fixed)
    while len(slips) < most and (worst := most_contradicted(prior, expected_pose, shape_fit, left)) is not None:
        slips.append(worst)
        left.pop(worst)
        shape_fit = fit_shape_to_candidates(prior, expected_pose, candidates, left, absent, shape_fit.posterior.pose)
    return slips


def contradicts_study(
    prior: ShapePrior, expected_pose: PosePrior, shape_fit: ShapeFit, evidence: Evidence | None, config: OrientationSearchConfig
) -> bool:
    """Whether the fit is no shape of the study, or lies in a pose that the networks have not looked at."""
    misfit = evidence is not None and shape_fit.posterior.misfit > shape_fit.config.plausible_misfit
    return misfit or in_unseen_orientation(prior, expected_pose, shape_fit, evidence, config)


def in_unseen_orientation(
    prior: ShapePrior, expected_pose: PosePrior, shape_fit: ShapeFit, evidence: Evidence | None, config: OrientationSearchConfig
) -> bool:
    """The shape was found turned or mirrored, but the networks have not looked at it that way."""
    if evidence is None or prior.mean_shape.arbitrary_orientation:
        return False
    transform = evidence.sampling_transform
    seen = expected_pose.mean if transform is None else transform.after(expected_pose.mean)
    return is_far_from_expected(shape_fit.posterior.pose, replace(expected_pose, mean=seen), config)


def _keep_inside(
    geometry: ImageGeometry,
    detected: np.ndarray,
    positions: np.ndarray,
    covariance: np.ndarray,
    flagged: np.ndarray,
    margin: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is seen is in the image: a detection stays, flagged, where the others would have it well outside."""
    low, high = geometry.bounds_mm
    border = margin * (high - low)
    outside = ((positions < low - border) | (positions > high + border)).any(axis=1) & np.isfinite(detected).all(axis=1)
    return np.where(outside[:, None], detected, positions), covariance, flagged | outside


def _status(positions: np.ndarray, known: _Known) -> tuple[Status, ...]:
    there = np.isfinite(positions).all(1)
    status = [Status.PREDICTED if t else Status.ABSENT if a else Status.UNSET for t, a in zip(there, known.absent, strict=True)]
    for i in known.fixed:
        status[i] = Status.PLACED
    return tuple(status)


def _fuse_with_shape(
    maps: FineMaps, shape_fit: ShapeFit, which: np.ndarray, prior: ShapePrior, inflation: float, config: InferenceConfig
) -> tuple[np.ndarray, np.ndarray]:
    """The fine map times what the others say: (m, d) the point of least expected distance, and (m, d, d).

    Source: Weiszfeld 1937 for the geometric median.
    """
    logits, places = maps.logits[which], maps.places_mm[which]
    dims, cells = places.shape[-1], config.suggestion.map_cells
    if logits.shape[1] > cells:  # the rest of a map holds next to nothing
        best = np.argpartition(-logits, cells, axis=1)[:, :cells]
        logits, places = np.take_along_axis(logits, best, 1), np.take_along_axis(places, best[..., None], 1)
    offset = places - shape_fit.loo_mean_mm[which, None]
    precision = np.linalg.inv(inflation * shape_fit.loo_covariance_mm2[which])
    distance2 = np.einsum("npi,nij,npj->np", offset, precision, offset, optimize=True)
    log = logits / config.suggestion.temperature(dims) - 0.5 * (prior.dof + dims) * np.log1p(distance2 / prior.dof)
    share = np.exp(log - log.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    found = np.einsum("np,npi->ni", share, places)
    cell = np.linalg.norm(maps.places_mm[which, 0] - maps.places_mm[which, 1], axis=1)[:, None]
    for _ in range(4):
        near = share / np.sqrt(((places - found[:, None]) ** 2).sum(-1) + 0.25 * cell**2)
        found = np.einsum("np,npi->ni", near, places) / near.sum(1, keepdims=True)
    offset = places - found[:, None]
    return found, np.einsum("np,npi,npj->nij", share, offset, offset, optimize=True)


def _agree(
    prior: ShapePrior,
    expected_pose: PosePrior,
    shape_fit: ShapeFit,
    detected: np.ndarray,
    covariance: np.ndarray,
    evidence: Evidence | None,
    calibration: Calibration,
    config: InferenceConfig,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where to show each landmark, (n, d, d) how sure that is, and which detections contradict the others."""
    assignment = shape_fit.assignment
    contradicted = (assignment == Assignment.UNASSIGNED) & prior.known & np.isfinite(detected).all(1)
    network_alone = ~prior.known & (assignment < Assignment.FIRST_CANDIDATE)  # nobody has labelled them: there is no shape
    first = assignment == Assignment.FIRST_CANDIDATE
    positions = np.where(network_alone[:, None], detected, shape_fit.positions_mm)
    covariance = np.where((network_alone | first)[:, None, None], covariance, shape_fit.covariance_mm2)
    if evidence is not None and evidence.maps is not None:
        fused = _fuse_with_shape(evidence.maps, shape_fit, first, prior, calibration.prior_inflation, config)
        positions[first], covariance[first] = fused
    replaced = assignment > Assignment.FIRST_CANDIDATE
    all_doubtful = contradicts_study(prior, expected_pose, shape_fit, evidence, config.orientation_search)
    return positions, covariance, contradicted | replaced | all_doubtful
