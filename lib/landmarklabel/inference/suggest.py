"""From what is known of an image to what the user is shown: positions, expected errors, doubts, and what to place next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.calibration import Calibration
from landmarklabel.inference.evidence import Evidence, LocalMaps
from landmarklabel.inference.interactive import (
    CONVINCING,
    FOUND,
    FREE,
    FREEDOM,
    Explained,
    explain,
    most_contradicted,
    next_landmark,
)
from landmarklabel.inference.prior import PosePrior, ShapePrior
from landmarklabel.inference.sides import is_unusual
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.networks.heatmaps import TEMPERATURE

MOST_SLIPS = 3  # of a person that are looked for: each costs another explanation
CELLS = 256  # of a landmark's map that are weighed against what the others say
MEAN_OF_NORM = {2: 0.886, 3: 0.921}  # mean length of a normal vector over the root of its covariance's trace


@dataclass(frozen=True)
class Suggestion:
    """Landmarks of an image.

    Args:
        landmarks: PLACED where a person fixed them, else PREDICTED, ABSENT or UNSET.
        flagged: (n,) bool: the detection, or the person's point, contradicts the others; look at it.
        detected_mm: (n, d) what the network alone would have said, NaN where it said nothing.
        explained: pose and shape behind it; None without a shape prior.
        decided: the evidence with the positions that were decided on; None without a model.
        next: name of the landmark whose placing would tell most about the others; None when nothing is left.
    """

    landmarks: LandmarkSet
    flagged: np.ndarray
    detected_mm: np.ndarray
    explained: Explained | None
    next: str | None
    decided: Evidence | None = None


def suggest(
    task: LandmarkTask,
    geometry: ImageGeometry,
    prior: ShapePrior | None,
    evidence: Evidence | None,
    calibration: Calibration,
    fixed: Mapping[str, Sequence[float]] | None = None,
    absent: Sequence[str] = (),
    before: Explained | None = None,
    untaught: Sequence[str] = (),
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
        before: an earlier explanation of the same image, to start from.
        untaught: names that the networks were never shown: whatever they say of them is noise, and they stay unset.
    """
    n, d = len(task), task.dims
    given = {task.index(name): np.asarray(p, float)[:d] for name, p in (fixed or {}).items()}
    gone = np.isin(np.arange(n), [task.index(name) for name in absent])
    by_person = gone | np.isin(np.arange(n), list(given))
    unknown = np.isin(np.arange(n), [task.index(name) for name in untaught]) & ~by_person
    detected, covariance = np.full((n, d), np.nan), np.full((n, d, d), np.nan)
    if evidence is not None:
        gone |= (evidence.presence < calibration.presence_threshold) & ~by_person & ~unknown
        nowhere = (gone | unknown)[:, None]
        detected, covariance = np.where(nowhere, np.nan, evidence.positions_mm), evidence.covariance_mm2.copy()
    explained, positions, flagged, slips = None, detected.copy(), np.zeros(n, bool), []
    if prior is not None:
        candidates = None if evidence is None else evidence.candidates.without(gone | unknown)
        usual, start, lost = prior.usual.in_image(geometry), before and before.posterior.pose, np.flatnonzero(gone)
        explained = explain(prior, usual, candidates, given, lost, start)
        agreed = _agreed(prior, usual, explained, detected, covariance, evidence, calibration.loose)
        positions, covariance, flagged = _kept_inside(geometry, detected, *agreed)
        slips = _slips(prior, usual, candidates, explained, given, lost)
    decided, expected, covariance, radius95 = _confidence(evidence, explained, calibration, positions, covariance)
    for i, p in given.items():
        positions[i], covariance[i] = p, 0.0
    positions[gone | unknown] = np.nan
    landmarks = LandmarkSet(
        task,
        positions,
        _status(positions, gone, given),
        expected_error_mm=np.where(gone | by_person | unknown, np.nan, expected),
        covariance_mm2=covariance,
        presence=None if evidence is None else evidence.presence,
        radius95_mm=None if radius95 is None else np.where(gone | by_person | unknown, np.nan, radius95),
    )
    chosen = None if explained is None else next_landmark(explained, np.flatnonzero(landmarks.defined & ~by_person))
    flagged = (flagged & ~(gone | by_person | unknown)) | np.isin(np.arange(n), slips)
    return Suggestion(landmarks, flagged, detected, explained, None if chosen is None else task.names[chosen], decided)


def _confidence(evidence, explained: Explained | None, calibration: Calibration, positions: np.ndarray, covariance: np.ndarray):
    """The evidence with what was decided on (None without a model), expected errors, covariances, and radii of 95 % regions."""
    if evidence is None:
        return None, np.sqrt(np.trace(covariance, axis1=1, axis2=2)) * MEAN_OF_NORM[positions.shape[1]], covariance, None
    own = np.ones(len(positions), bool) if explained is None else explained.chosen == FOUND
    decided = replace(evidence, positions_mm=positions, covariance_mm2=covariance, mass=np.where(own, evidence.mass, 1.0))
    expected = calibration.expected_error_mm(decided)
    return decided, expected, *calibration.region(decided, expected)


def _slips(prior, usual, candidates, explained: Explained, given: Mapping[int, np.ndarray], gone: np.ndarray) -> list[int]:
    """A person's points that contradict the others: the worst first, each taken out before the next is looked for."""
    left, slips = dict(given), []
    while len(slips) < MOST_SLIPS and (worst := most_contradicted(prior, usual, explained, left)) is not None:
        slips.append(worst)
        left.pop(worst)
        explained = explain(prior, usual, candidates, left, gone, explained.posterior.pose)
    return slips


def makes_no_sense(prior: ShapePrior, usual: PosePrior, explained: Explained, evidence: Evidence | None) -> bool:
    """Even what agrees most is no shape of the study, or lies in a pose the networks have not looked at: all is in doubt."""
    misfit = evidence is not None and explained.posterior.misfit > CONVINCING[1]
    return misfit or turned_unseen(prior, usual, explained, evidence)


def turned_unseen(prior: ShapePrior, usual: PosePrior, explained: Explained, evidence: Evidence | None) -> bool:
    """The shape was found turned or mirrored, but the networks have not looked at it that way."""
    if evidence is None or prior.pose.wild:
        return False
    seen = usual.expected if evidence.view is None else evidence.view.after(usual.expected)
    return is_unusual(explained.posterior.pose, replace(usual, expected=seen))


def _kept_inside(geometry: ImageGeometry, detected, positions, covariance, flagged):
    """What is seen is in the image: a detection stays, flagged, where the others would have it well outside."""
    low, high = geometry.bounds_mm
    margin = 0.1 * (high - low)
    outside = ((positions < low - margin) | (positions > high + margin)).any(axis=1) & np.isfinite(detected).all(axis=1)
    return np.where(outside[:, None], detected, positions), covariance, flagged | outside


def _status(positions: np.ndarray, gone: np.ndarray, given: Mapping[int, np.ndarray]) -> tuple[Status, ...]:
    known = np.isfinite(positions).all(1)
    status = [Status.PREDICTED if k else Status.ABSENT if g else Status.UNSET for k, g in zip(known, gone, strict=True)]
    for i in given:
        status[i] = Status.PLACED
    return tuple(status)


def _fused(maps: LocalMaps, explained: Explained, which: np.ndarray, cases: int, loose: float) -> tuple[np.ndarray, np.ndarray]:
    """The local stage's map times what the others say: (m, d) the point of least expected distance, and (m, d, d)."""
    logits, places = maps.logits[which], maps.places_mm[which]
    if logits.shape[1] > CELLS:  # the rest of a map holds next to nothing
        best = np.argpartition(-logits, CELLS, axis=1)[:, :CELLS]
        logits, places = np.take_along_axis(logits, best, 1), np.take_along_axis(places, best[..., None], 1)
    off = places - explained.others_mm[which, None]
    far = np.einsum("npi,nij,npj->np", off, np.linalg.inv(loose * explained.others_mm2[which]), off, optimize=True)
    freedom = cases + FREEDOM
    log = logits / TEMPERATURE[places.shape[-1]] - 0.5 * (freedom + places.shape[-1]) * np.log1p(far / freedom)
    share = np.exp(log - log.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    found = np.einsum("np,npi->ni", share, places)
    cell = np.linalg.norm(maps.places_mm[which, 0] - maps.places_mm[which, 1], axis=1)[:, None]
    for _ in range(4):  # Weiszfeld's iteration for the geometric median
        near = share / np.sqrt(((places - found[:, None]) ** 2).sum(-1) + 0.25 * cell**2)
        found = np.einsum("np,npi->ni", near, places) / near.sum(1, keepdims=True)
    off = places - found[:, None]
    return found, np.einsum("np,npi,npj->nij", share, off, off, optimize=True)


def _agreed(
    prior: ShapePrior,
    usual: PosePrior,
    explained: Explained,
    detected: np.ndarray,
    covariance: np.ndarray,
    evidence: Evidence | None,
    loose: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where to show each landmark, (n, d, d) how sure that is, and which detections contradict the others."""
    seen = np.isfinite(detected).all(1)
    alone = (explained.chosen == FREE) & prior.known
    kept = ~prior.known & (explained.chosen < FOUND)  # nobody has labelled them: all there is is the network
    taken = explained.chosen == FOUND
    positions = np.where(kept[:, None], detected, explained.positions_mm)
    covariance = np.where((kept | taken)[:, None, None], covariance, explained.covariance_mm2)
    if evidence is not None and evidence.maps is not None:
        positions[taken], covariance[taken] = _fused(evidence.maps, explained, taken, prior.cases, loose)
    flagged = (alone & seen) | (explained.chosen > FOUND) | makes_no_sense(prior, usual, explained, evidence)
    return positions, covariance, flagged
