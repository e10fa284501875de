"""Looking at an image again in other orientations, while what is found there does not look like the study's shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from landmarklabel.data.augment import random_rotation
from landmarklabel.data.cases import Case
from landmarklabel.data.mean_shape import MeanShape
from landmarklabel.data.procrustes import RobustFitConfig, Similarity
from landmarklabel.inference.evidence import Candidates, Evidence
from landmarklabel.inference.network_runner import NetworkRunner
from landmarklabel.inference.orientations import about_image_centre, candidate_orientations, is_far_from_expected
from landmarklabel.inference.pose_sampling import rough_pose
from landmarklabel.inference.shape_fit import ShapeFit
from landmarklabel.inference.shape_prior import PosePrior, ShapePrior

FitShape = Callable[[Evidence], ShapeFit]


def search_orientations(
    networks: NetworkRunner,
    prior: ShapePrior,
    case: Case,
    evidence: Evidence,
    shape_fit: ShapeFit,
    fit_shape: FitShape,
    may_look: Callable[[], bool],
) -> tuple[Evidence, ShapeFit]:
    """For studies of one orientation: look in the pose that was found, and from all directions, while that makes more sense.

    Args:
        networks, prior: of the model.
        case: the image.
        evidence, shape_fit: of the first look.
        fit_shape: fits the shape to evidence.
        may_look: asked once, before the first further look, and only where there would be one.

    Returns:
        The evidence whose shape fit costs least, and that fit.
    """
    config = networks.config.orientation_search
    expected_pose = prior.pose_distribution.in_image(case.image.geometry)

    def keep_better(pose: Similarity) -> bool:
        nonlocal evidence, shape_fit
        other = predict_in_pose(networks, case, pose, expected_pose)
        other_fit = fit_shape(other)
        better = other_fit.cost < shape_fit.cost
        if better:
            evidence, shape_fit = other, other_fit
        return better

    for look in range(2):
        if shape_fit.needs_no_other_orientation and not is_far_from_expected(shape_fit.posterior.pose, expected_pose, config):
            return evidence, shape_fit
        if look == 0 and not may_look():
            return evidence, shape_fit
        if not keep_better(shape_fit.posterior.pose):
            break
    if not shape_fit.needs_no_other_orientation:
        for pose in _rough_poses(networks, prior, case, expected_pose)[: config.followed]:
            keep_better(pose)
            if shape_fit.needs_no_other_orientation:
                break
    return evidence, shape_fit


def _rough_poses(networks: NetworkRunner, prior: ShapePrior, case: Case, expected_pose: PosePrior) -> list[Similarity]:
    """Poses that the coarse network suggests from all directions, those that most landmarks agree with first."""
    found = []
    for transform in candidate_orientations(case.image.geometry, networks.config.orientation_search):
        candidates = networks.coarse_pass(case, transform, networks.config.candidates.per_landmark).candidates
        pose, score = rough_pose(prior, expected_pose, candidates, transform.mirrored)
        if pose is not None:
            found.append((pose, score))
    return [pose for pose, _ in sorted(found, key=lambda one: -one[1])]


def predict_in_pose(networks: NetworkRunner, case: Case, pose: Similarity, expected_pose: PosePrior) -> Evidence:
    """Evidence with the shape brought into its expected pose; ``pose`` is where it lies now."""
    return predict_upright(networks, case, networks.config.candidates.per_landmark, pose.after(expected_pose.mean.inverse()))


def predict_upright(networks: NetworkRunner, case: Case, count: int, transform: Similarity | None = None) -> Evidence:
    """The coarse and the fine network once, on the image sampled as ``transform`` moves it."""
    evidence: Evidence = networks.coarse_pass(case, transform, count)
    for _ in range(networks.crops.rounds if networks.crops is not None and networks.fine_net is not None else 0):
        evidence = networks.refine(case, evidence, transform)
    return evidence


def predict_in_any_orientation(networks: NetworkRunner, mean_shape: MeanShape, case: Case, count: int) -> Evidence:
    """For studies whose cases come in any orientation: align the mean shape with what the coarse network finds, refine there.

    The fine network looks in the orientation of the mean shape. While the result is far from it, the coarse network looks
    from another direction.
    """
    config, alignment = networks.config.orientation_search, networks.config.alignment
    dims = case.image.geometry.dims
    rng, best, least = np.random.default_rng(0), None, np.inf
    for attempt in range(config.orientations):
        turned = None if attempt == 0 else about_image_centre(case.image.geometry, random_rotation(rng, dims, None))
        coarse = networks.coarse_pass(case, turned, count)
        evidence, misalignment = coarse.best_only(), _misalignment(mean_shape, coarse, alignment)
        rotation = np.eye(dims)
        for round_ in range(config.max_pose_rounds if networks.fine_net is not None else 0):
            pulled, rotation = _pulled_to_shape(mean_shape, evidence, alignment)
            evidence = networks.refine(case, pulled, Similarity(rotation, np.zeros(dims)))
            misalignment = _misalignment(mean_shape, evidence, alignment)
            if round_ + 1 >= config.min_pose_rounds and misalignment <= config.max_misalignment:
                break
        if best is None or misalignment < least:
            aligned = Similarity(rotation, np.zeros(dims))
            evidence = replace(evidence, coarse_mm=coarse.positions_mm)
            best, least = _with_other_candidates(networks, case, evidence, coarse.candidates, aligned), misalignment
        if least <= config.max_misalignment:
            break
    if best is None:
        raise ValueError("no orientation was looked at")  # orientations is at least 1
    return best


def _with_other_candidates(
    networks: NetworkRunner, case: Case, evidence: Evidence, candidates: Candidates, transform: Similarity
) -> Evidence:
    """Further candidates beside the best ones, refined like them."""
    if networks.fine_net is None or candidates.weight.shape[1] == 1:
        return evidence
    more = Candidates(candidates.positions_mm[:, 1:], candidates.weight[:, 1:], candidates.covariance_mm2[:, 1:])
    which = np.argwhere(np.isfinite(more.positions_mm).all(-1))
    if len(which):
        at = tuple(which.T)
        found = networks.find_near(case, more.positions_mm[at], which[:, 0], transform)
        more.positions_mm[at], more.covariance_mm2[at] = found.positions_mm, found.covariance_mm2
    return replace(evidence, candidates=evidence.candidates.followed_by(more))


def _misalignment(mean_shape: MeanShape, evidence: Evidence, config: RobustFitConfig) -> float:
    """Median distance from the aligned mean shape, in units of the study's own."""
    residual = mean_shape.align_to(evidence.positions_mm, evidence.peak_mass * evidence.presence, config)[1]
    return float(np.nanmedian(residual)) / (mean_shape.spread * mean_shape.size)


def _pulled_to_shape(mean_shape: MeanShape, evidence: Evidence, config: RobustFitConfig) -> tuple[Evidence, np.ndarray]:
    """Evidence with outlying positions put where the mean shape lies, and the orientation of the case."""
    pose, residual = mean_shape.align_to(evidence.positions_mm, evidence.peak_mass * evidence.presence, config)
    aligned = pose.apply(mean_shape.points)
    gate = 3 * np.nanmedian(residual)
    near = np.where(residual[:, None] <= gate, (aligned + evidence.positions_mm) / 2, aligned)
    positions = np.where(np.isfinite(near), near, evidence.positions_mm)
    return replace(evidence, positions_mm=positions), pose.rotation
