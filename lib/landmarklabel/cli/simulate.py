"""``simulate``: an annotator who knows the truth."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from landmarklabel.cli.progress import followed
from landmarklabel.errors import FaultsError, StudyError, UsageError
from landmarklabel.io.files import write_json
from landmarklabel.io.tables import read_ids
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.metrics import unit_of
from landmarklabel.store.study import Study
from landmarklabel.store.study_task import check_same_task
from landmarklabel.tasks import resolve_study_task


def clicks(args: argparse.Namespace) -> None:
    """Print and plot error against clicks, assisted and alone."""
    from landmarklabel.active.annotator import click_through, summarize_clicks
    from landmarklabel.inference.model_folder import load_model
    from landmarklabel.inference.model_record import read_record
    from landmarklabel.io.images import read_image
    from landmarklabel.networks.devices import choose_device, use_all_cores

    if args.clicks < 1:
        raise UsageError(f"--clicks {args.clicks} must be at least 1")
    task = _task(args)
    use_all_cores()
    model = load_model(args.model, task, choose_device(args.device))
    if not Path(args.study).is_dir():
        raise StudyError(f"{args.study}: no such study folder; landmarklabel import makes one")
    study = Study(args.study, task)
    labels = _chosen(study, args.only)
    if seen := sorted(set(read_record(args.model).get("train_labels") or ()) & set(labels)):
        text = f"{len(seen)} of {len(labels)} images were trained on, so the figures are too good: choose others with --only"
        print(f"landmarklabel: {text}", file=sys.stderr)
    if model.prior is None:
        print("landmarklabel: the model has no shape prior: clicks move nothing else", file=sys.stderr)
    played, units = {}, set()
    for image_id, truth in followed(labels, "clicks"):
        try:
            image = read_image(study.image_path(image_id), task.dims)
        except FaultsError as error:
            print(f"landmarklabel: {error}", file=sys.stderr)
            continue
        units.add(image.unit)
        played[image_id] = click_through(model, model.case(image_id, image, truth))
    if not played:
        raise StudyError(f"{args.study}: no labelled image could be read")
    result = summarize_clicks(list(played.values()), args.clicks, unit_of(task, units))
    if args.report:
        from landmarklabel.report.clicks import write_clicks

        write_clicks(args.report, task, played, result)
    if args.json:
        print(json.dumps(result, allow_nan=False))
        return
    _print(result, args.clicks)
    if args.report:
        print(f"report: {args.report}")


def labels(args: argparse.Namespace) -> None:
    """Print and plot error against labels for several strategies."""
    from landmarklabel.active.campaign import Campaign, summarize_campaigns
    from landmarklabel.active.strategies import STRATEGIES
    from landmarklabel.data.split import split_ids
    from landmarklabel.networks.devices import use_all_cores
    from landmarklabel.networks.presets import find_preset
    from landmarklabel.report.labels import write_labels
    from landmarklabel.services.cases import load_cases
    from landmarklabel.training.loop import Budget

    task, strategies = _task(args), [s for s in args.strategies.split(",") if s]
    if unknown := [s for s in strategies if s not in STRATEGIES] or (not strategies and [""]):
        raise UsageError(f"--strategies: no strategy called {unknown[0]!r}; there are {', '.join(STRATEGIES)}")
    if args.seeds < 1:
        raise UsageError(f"--seeds {args.seeds} must be at least 1")
    if (args.minutes is not None and args.minutes <= 0) or (args.steps is not None and args.steps <= 0):
        raise UsageError("--minutes and --steps must be positive")
    preset, counts = find_preset(args.model, task.dims), _counts(args.counts)
    if not Path(args.study).is_dir():
        raise StudyError(f"{args.study}: no such study folder; landmarklabel import makes one")
    study = Study(args.study, task)
    cases = {c.image_id: c for c in load_cases(study, _chosen(study, None))}
    tests = set(read_ids(args.valid)) if args.valid else set(split_ids(cases)[1])
    if unknown := sorted(tests - set(cases)):
        raise StudyError(f"--valid names {len(unknown)} images without labels in the study, first {unknown[0]!r}")
    pool = {i: c for i, c in cases.items() if i not in tests}
    if not pool or not tests & set(cases):
        raise StudyError(f"{args.study}: {len(pool)} labelled images to choose from and {len(tests & set(cases))} to measure on")
    counts = sorted({min(n, len(pool)) for n in counts})
    use_all_cores()
    budget = Budget(args.minutes if args.minutes or args.steps else 2.0, args.steps)
    paths = {i: study.image_path(i) for i in pool}
    report = lambda text: print(f"landmarklabel: {text}", file=sys.stderr)  # noqa: E731
    campaign = Campaign(task, pool, paths, [cases[i] for i in sorted(tests & set(cases))], preset, budget, counts)
    everything = Campaign(task, pool, paths, campaign.tests, preset, budget.times(len(counts)), [len(pool)])
    full = everything.run("random", 0, Path(args.out) / "all", report)[len(pool)]
    if full["mre_mm"] is None:
        raise StudyError("the model trained on all labels finds nothing: give it more --minutes")
    runs: dict[str, dict] = {s: {} for s in strategies}
    for seed in range(args.seeds):
        for strategy in strategies:
            runs[strategy][seed] = campaign.run(strategy, seed, Path(args.out) / strategy / f"seed{seed}", report)
    result = summarize_campaigns(runs, full["mre_mm"], unit=unit_of(task, (c.image.unit for c in campaign.tests)))
    write_json(Path(args.out) / "labels.json", result)
    write_labels(Path(args.out) / "report.html", task, runs, result)
    if args.json:
        print(json.dumps(result, allow_nan=False))
        return
    print(f"all {len(pool)} labels: {full['mre_mm']:.2f} {result['unit']}; target {result['target_mm']:.2f} {result['unit']}")
    for strategy in strategies:
        needed, worst = result["labels_to_target"][strategy], result["worst_seed"][strategy]
        curve = "  ".join(f"{n}: {sum(e) / len(e):.2f}" for n, e in result["curves"][strategy] if e)
        reached = "not reached" if needed is None else f"{needed:.1f} labels, at most {worst:.1f}"
        print(f"{strategy:<10}{reached}; {result['unit']} by labels  {curve}")
    print(f"report: {Path(args.out) / 'report.html'}")


def _task(args: argparse.Namespace) -> LandmarkTask:
    task = resolve_study_task(args.task, args.study)
    check_same_task(args.study, task, exactly=True)
    return task


def _counts(text: str) -> list[int]:
    try:
        counts = sorted({int(n) for n in text.split(",")})
    except ValueError:
        counts = []
    if not counts or counts[0] < 1:
        raise UsageError(f"--counts {text!r} must be whole numbers from 1 on, such as 3,5,8,12")
    return counts


def _chosen(study: Study, only: str | None) -> dict[str, LandmarkSet]:
    labels = {i: landmarks for i, landmarks in study.labelled().items() if landmarks.defined.any()}
    if only:
        wanted = read_ids(only)
        if unknown := sorted(set(wanted) - set(labels)):
            raise StudyError(f"--only names {len(unknown)} images without labels in the study, first {unknown[0]!r}")
        labels = {i: labels[i] for i in wanted}
    if not labels:
        raise StudyError(f"{study.folder}: no labelled image")
    return labels


def _print(result: dict, clicks: int) -> None:
    print("clicks    " + "".join(f"{k:>8}" for k in range(clicks + 1)))
    for name, key in (("assisted", "mre_mm"), ("alone", "alone_mre_mm")):
        print(f"{name:<10}" + "".join("       -" if e is None else f"{e:8.2f}" for e in result[key]) + f"  {result['unit']}")
    for radius in result["noc"]:
        needed = result["noc"][radius]
        print(
            f"clicks until every point is within {radius} {result['unit']}: "
            f"{needed['assisted']:.1f} assisted, {needed['alone']:.1f} alone"
        )
