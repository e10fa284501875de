"""Which cases to label: campaigns over the radiographs."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from experiment import each_on_a_core, hand_split, import_hands

from landmarklabel.active.campaign import Campaign, summarize_campaigns
from landmarklabel.inference.model_folder import load_model
from landmarklabel.networks.devices import use_all_cores
from landmarklabel.networks.presets import Preset, find_preset
from landmarklabel.report.labels import write_labels
from landmarklabel.report.pictures import label_curves
from landmarklabel.services.cases import load_cases
from landmarklabel.store.study import Study
from landmarklabel.tasks import resolve_task
from landmarklabel.training.fit import FitConfig, fit
from landmarklabel.training.loop import Budget

FIRST = 3  # the first training of a curve, which starts from nothing, against the later ones


def labels(data: Path, runs: Path, seeds: int = 5, steps: int = 400) -> dict:
    """Error against labels, adaptive and random, each from its first three labels on; tested on the 21 of the valid split.

    Each training goes on from the model before, as a server's does, also the last one, of all labels: the mean of its
    errors is what the target is made of. The model is coarser and smaller than the default one, or it would take days:
    see ``_coarse``.
    """
    everything = len(_campaign(data, runs, (), None).cases)
    counts = (3, 8, 16, 32, 64, everything)
    jobs = [(data, runs, strategy, seed, counts, steps) for strategy in ("random", "adaptive") for seed in range(seeds)]
    rounds = each_on_a_core(_one_of_labels, jobs)
    runs_of = {s: {job[3]: r for job, r in zip(jobs, rounds, strict=True) if job[2] == s} for s in ("adaptive", "random")}
    full = [r[everything]["mre_mm"] for r in rounds]
    result = summarize_campaigns(runs_of, sum(full) / len(full))  # the task has a scale rule: mm
    write_labels(runs / "report.html", resolve_task("hand_xray"), runs_of, result)
    label_curves(result["curves"], result["target_mm"]).savefig(Path(__file__).parent / "results" / "labels.png", dpi=110)
    return {"steps": steps, "first": FIRST, **result}


def _one_of_labels(data: Path, runs: Path, strategy: str, seed: int, counts: tuple[int, ...], steps: int) -> dict:
    """One curve."""
    campaign = _campaign(data, runs, counts, None)
    campaign = replace(campaign, preset=_coarse(campaign.preset), budget=Budget(steps=steps), first=FIRST)
    return campaign.run(strategy, seed, runs / "out" / strategy / f"seed{seed}", lambda text: print(text, flush=True))


def _coarse(preset: Preset) -> Preset:
    """A third of the samples and crops: some 0.2 s per step on one core without bf16."""
    return replace(preset, grid_size={2: 224 * 160}, refine=replace(preset.refine, crops={2: 24}, size={2: 40}))


def one_label(data: Path, runs: Path, minutes: float = 12.0) -> dict:
    """The one image that adaptive chooses first, with the other ninety unlabelled; trained, and trained again from that model."""
    once = _adaptive(data, runs, (1,), minutes)
    campaign = _campaign(data, runs, (1,), minutes)
    [chosen] = once["by_labels"][1]["chosen"]
    unlabelled = [path for i, path in sorted(campaign.paths.items()) if i != chosen]
    before = load_model(runs / "out" / "0001", campaign.task)
    config = FitConfig(campaign.preset, campaign.budget, start_from=before, unlabelled=unlabelled, resume=True)
    model, _ = fit(campaign.task, [campaign.cases[chosen]], [], config, runs / "again")
    return {"minutes": minutes, "once": once["by_labels"][1], "again": campaign.measured(model)}


def few_labels(data: Path, runs: Path, minutes: float = 12.0) -> dict:
    """One, three and ten labels that adaptive has chosen, with the other images unlabelled; each model goes on from the last."""
    return _adaptive(data, runs, (1, 3, 10), minutes)


def five_labels(data: Path, runs: Path, minutes: float = 8.0) -> dict:
    """From five labels to an assistant, everything included: how many points need no click?"""
    return _adaptive(data, runs, (5,), minutes)


def _adaptive(data: Path, runs: Path, counts: tuple[int, ...], minutes: float) -> dict:
    """One campaign. Minutes are those of each training; ``all_s`` is all that was done after the images were read."""
    campaign = _campaign(data, runs, counts, minutes)
    started = time.monotonic()
    rounds = campaign.run("adaptive", 0, runs / "out", lambda text: print(text, flush=True))
    told = {n: {k: v for k, v in r.items() if k != "seen"} for n, r in rounds.items()}
    return {"minutes": minutes, "all_s": round(time.monotonic() - started), "by_labels": told}


def _campaign(data: Path, runs: Path, counts: tuple[int, ...], minutes: float | None) -> Campaign:
    """Over the radiographs of the train split, measured on the 21 of the valid split."""
    use_all_cores()
    task, tests = resolve_task("hand_xray"), set(hand_split(data, "valid"))
    study = Study(import_hands(data, runs), task)
    cases = {c.image_id: c for c in load_cases(study, study.labelled())}
    pool = {i: c for i, c in cases.items() if i not in tests}
    paths, tested = {i: study.image_path(i) for i in pool}, [cases[i] for i in sorted(tests)]
    return Campaign(task, pool, paths, tested, find_preset("scn", 2), Budget(minutes), counts)


EXPERIMENTS = (labels, one_label, few_labels, five_labels)
