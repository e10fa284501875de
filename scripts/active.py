"""Which cases to label: campaigns over the radiographs."""

from __future__ import annotations

import json
import time
from pathlib import Path

from experiment import hand_split, import_hands, landmarklabel


def labels(data: Path, runs: Path, seeds: int = 5, steps: int = 400) -> dict:
    """Error against labels, adaptive and random, from three labels on; tested on the 21 of the valid split. Hours."""
    study, tests = import_hands(data, runs), runs / "valid.txt"
    tests.write_text("\n".join(hand_split(data, "valid")) + "\n")
    words = ("--strategies", "adaptive,random", "--seeds", seeds, "--counts", "3,8,16,32", "--steps", steps, "--valid", tests)
    out = landmarklabel("simulate", "labels", study, "--task", "hand_xray", *words, "--out", runs / "out", "--json", output=True)
    return {"steps": steps, **json.loads(out)}


def one_label(data: Path, runs: Path, minutes: float = 12.0) -> dict:
    """The one image that adaptive chooses first, with the other ninety unlabelled; trained, and trained again from that model."""
    from landmarklabel.inference.model import load_model
    from landmarklabel.training.fit import FitConfig, fit

    once = _adaptive(data, runs, (1,), minutes)
    campaign = _campaign(data, runs, (1,), minutes)
    [chosen] = once["by_labels"][1]["chosen"]
    unlabelled = [path for i, path in sorted(campaign.paths.items()) if i != chosen]
    before = load_model(runs / "out" / "0001", campaign.task)
    config = FitConfig(campaign.preset, campaign.budget, start_from=before, pool=unlabelled, resume=True)
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


def _campaign(data: Path, runs: Path, counts: tuple[int, ...], minutes: float):
    """Over the radiographs of the train split, measured on the 21 of the valid split."""
    from landmarklabel.active.campaign import Campaign
    from landmarklabel.data.cases import load_cases
    from landmarklabel.networks.registry import find_preset
    from landmarklabel.store.study import Study
    from landmarklabel.tasks import resolve_task
    from landmarklabel.training.loop import Budget, use_all_cores

    use_all_cores()
    task, tests = resolve_task("hand_xray"), set(hand_split(data, "valid"))
    study = Study(import_hands(data, runs), task)
    cases = {c.image_id: c for c in load_cases(study, study.labelled())}
    pool = {i: c for i, c in cases.items() if i not in tests}
    paths, tested = {i: study.image_path(i) for i in pool}, [cases[i] for i in sorted(tests)]
    return Campaign(task, pool, paths, tested, find_preset("scn", 2), Budget(minutes), counts)


EXPERIMENTS = (labels, one_label, few_labels, five_labels)
