"""Playing an annotation campaign over known labels: choose, label, train, choose again; the error after each round."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from landmarklabel.active.strategies import STRATEGIES
from landmarklabel.active.unlabelled_pool import (
    ImageAssessment,
    UnlabelledPool,
    assess_image,
    error_correlation,
    prediction_error,
    thumbnail,
)
from landmarklabel.data.cases import Case
from landmarklabel.errors import UsageError
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model_folder import load_model
from landmarklabel.io.files import write_json
from landmarklabel.landmarks import LandmarkTask
from landmarklabel.metrics import summarize, unit_of
from landmarklabel.networks.presets import Preset
from landmarklabel.training.fit import FitConfig, fit
from landmarklabel.training.loop import Budget

KEPT = ("unit", "mre_mm", "median_mm", "sdr", "outliers", "n_missed")


@dataclass(frozen=True)
class Campaign:
    """Simulated labelling; holds what all runs of an experiment share.

    Args:
        task: the landmarks.
        cases: labelled cases to choose from, by id.
        paths: their images, of which the unlabelled ones teach as well.
        tests: labelled cases the models are measured on.
        preset, budget: of every training; the first one, which goes on from nothing, has ``first`` times as much.
        counts: numbers of labels after which a model is trained, ascending.
    """

    task: LandmarkTask
    cases: Mapping[str, Case]
    paths: Mapping[str, Path]
    tests: Sequence[Case]
    preset: Preset
    budget: Budget
    counts: Sequence[int]
    first: int = 1

    def run(self, strategy: str, seed: int, folder: Path, on_message: Callable[[str], None] = lambda _: None) -> dict[int, dict]:
        """Run one campaign, in which each training continues from the model before; finished rounds are read from ``folder``.

        Returns:
            Metrics on the tests by number of labels, with ``chosen``: the ids in the order they were labelled.
        """
        self._check(folder)
        rng, thumbnails = np.random.default_rng(seed), {i: thumbnail(c) for i, c in self.cases.items()}
        chosen: list[str] = []
        assessments: dict[str, ImageAssessment] = {}
        observed: list[tuple[ImageAssessment, np.ndarray]] = []  # expected, and found by a person since
        rounds: dict[int, dict] = {}
        model: Localizer | None = None
        finished: Path | None = None
        for count in self.counts:
            kept = folder / f"{count:04d}.json"
            before = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else None
            if before is not None:
                observed += self._observed(assessments, before["chosen"][len(chosen) :])
                chosen = list(before["chosen"])
                assessments = {i: ImageAssessment.from_json(s) for i, s in before["seen"].items()}
                rng = np.random.default_rng([seed, count])
                rounds[count], finished = before, folder / f"{count:04d}"
                continue
            known = len(chosen)
            while len(chosen) < min(count, len(self.cases)):
                left = [i for i in sorted(self.cases) if i not in chosen]
                placed = {i: self.cases[i].labels.positions_mm for i in chosen}
                open_ones = {i: s for i, s in assessments.items() if i in left}
                pool = UnlabelledPool(left, chosen, thumbnails, open_ones, error_correlation(observed), labelled_positions=placed)
                chosen.append(STRATEGIES[strategy](pool, rng).image_id)
            observed += self._observed(assessments, chosen[known:])
            rng = np.random.default_rng([seed, count])
            on_message(f"{strategy}, seed {seed}: training on {len(chosen)} labels")
            if model is None and finished is not None:
                model = load_model(finished, self.task, torch.device("cpu"))
            model = self._train(chosen, seed, folder / f"{count:04d}", model)
            unlabelled = {} if strategy == "random" else {i: c for i, c in self.cases.items() if i not in chosen}
            assessments = {i: assess_image(model, c) for i, c in unlabelled.items()}
            kept_assessments = {i: s.to_json() for i, s in assessments.items()}
            rounds[count] = {**self.measured(model), "chosen": list(chosen), "seen": kept_assessments}
            write_json(kept, rounds[count])
        return rounds

    def _observed(
        self, assessments: Mapping[str, ImageAssessment], labelled: Sequence[str]
    ) -> list[tuple[ImageAssessment, np.ndarray]]:
        known = [(assessments[i], self.cases[i].labels) for i in labelled if i in assessments]
        return [(one, prediction_error(one, landmarks)) for one, landmarks in known]

    def _check(self, folder: Path) -> None:
        """Refuse to go on with rounds that were made in another way."""
        about = {
            "task": self.task.hash,
            "preset": self.preset.key,
            "minutes": self.budget.minutes,
            "steps": self.budget.steps,
            "first": self.first,
            "tests": sorted(c.image_id for c in self.tests),
            "pool": sorted(self.cases),
        }
        record = folder / "about.json"
        if record.exists() and json.loads(record.read_text(encoding="utf-8")) != about:
            raise UsageError(f"{folder} holds rounds of another task, model, time or set of images; give another --out")
        if not record.exists():
            write_json(record, about)

    def _train(self, chosen: Sequence[str], seed: int, folder: Path, before: Localizer | None) -> Localizer:
        unlabelled = [path for i, path in sorted(self.paths.items()) if i not in chosen]
        budget = self.budget if before is not None else self.budget.times(self.first)
        config = FitConfig(self.preset, budget, seed=seed, resume=True, start_from=before, unlabelled=unlabelled)
        return fit(self.task, [self.cases[i] for i in chosen], [], config, folder)[0]

    def measured(self, model: Localizer) -> dict:
        """Metrics of a model on the tests."""
        pairs = [(model.predict(model.case(c.image_id, c.image)), c.labels) for c in self.tests]
        metrics = summarize(pairs, unit=unit_of(self.task, (c.image.unit for c in self.tests)))
        return {key: metrics[key] for key in KEPT}


def summarize_campaigns(
    runs: Mapping[str, Mapping[int, Mapping[int, dict]]], full_mre: float, margin: float = 0.1, unit: str = "mm"
) -> dict:
    """The content of ``simulate labels --json``.

    Args:
        runs: metrics by strategy, seed and number of labels.
        full_mre: of the model trained on all labels.
        margin: by which the target is larger.
        unit: of the errors.

    Returns:
        ``unit``; ``target_mm``; ``labels_to_target`` by strategy: the mean over the seeds that reach it, None when one does not;
        ``worst_seed``: the most any seed needs, None likewise; ``curves``: [number of labels, [MRE of each seed]].
    """
    target = full_mre * (1 + margin)
    needed = {s: [_labels_to(target, rounds) for rounds in seeds.values()] for s, seeds in runs.items()}
    found = {s: [n for n in values if n is not None] for s, values in needed.items()}
    reached = {s: bool(values) and len(found[s]) == len(values) for s, values in needed.items()}
    return {
        "unit": unit,
        "target_mm": target,
        "full_mre_mm": full_mre,
        "labels_to_target": {s: float(np.mean(v)) if reached[s] else None for s, v in found.items()},
        "worst_seed": {s: float(max(v)) if reached[s] else None for s, v in found.items()},
        "curves": {s: _curve(seeds) for s, seeds in runs.items()},
    }


def _labels_to(target: float, rounds: Mapping[int, dict]) -> float | None:
    """Labels at which the curve first goes below the target, linear between rounds; None when it never does."""
    previous = None
    for count, metrics in sorted(rounds.items()):
        error = metrics["mre_mm"]
        if error is None:  # the model found nothing
            continue
        if error <= target:
            if previous is None:
                return float(count)
            share = (previous[1] - target) / max(previous[1] - error, 1e-9)
            return float(previous[0] + share * (count - previous[0]))
        previous = count, error
    return None


def _curve(seeds: Mapping[int, Mapping[int, dict]]) -> list:
    counts = sorted({n for rounds in seeds.values() for n in rounds})
    found = lambda n: [r[n]["mre_mm"] for _, r in sorted(seeds.items()) if n in r and r[n]["mre_mm"] is not None]  # noqa: E731
    return [[n, found(n)] for n in counts]
