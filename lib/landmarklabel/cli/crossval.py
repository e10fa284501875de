"""``crossval``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from landmarklabel.cli.configuration import CONFIG
from landmarklabel.cli.train import Interrupt, TrainingProgress, check_budget, open_study
from landmarklabel.errors import StudyError, listed
from landmarklabel.networks.presets import find_preset
from landmarklabel.services.descriptions import unit_lookup
from landmarklabel.services.evaluations import compare, metrics_line
from landmarklabel.store.study_task import check_same_task
from landmarklabel.tasks import resolve_study_task


def crossval(args: argparse.Namespace) -> int:
    """Train a model for each fold, and measure all of them on the cases that each has not seen."""
    from landmarklabel.errors import Cancelled
    from landmarklabel.networks.devices import choose_device, use_all_cores
    from landmarklabel.services.cases import read_cases
    from landmarklabel.services.crossvalidation import CrossValidation, deal
    from landmarklabel.training.fit import FitConfig
    from landmarklabel.training.loop import Budget

    task = resolve_study_task(args.task, args.study, url=args.store)
    check_same_task(args.study, task, exactly=True)
    preset = find_preset(args.model, task.dims)
    check_budget(args)
    use_all_cores()
    study = open_study(args.study, task, args.store)
    problems = study.sync()
    labels = {i: landmarks for i, landmarks in study.labelled().items() if landmarks.defined.any()}
    cases, faults = read_cases(study, labels)
    for text in [*problems, *faults]:
        print(f"landmarklabel: {text}", file=sys.stderr)
    folds = deal(cases, args.folds)
    minutes = CONFIG.train_minutes if args.minutes is None and args.steps is None else args.minutes
    config = FitConfig(preset, Budget(minutes, args.steps), args.seed, choose_device(args.device))
    paths = {case.image_id: study.image_path(case.image_id) for case in cases}
    whole = CrossValidation(task, config, folds, paths, Path(args.out or f"{study.folder.resolve().name}-crossval"))
    long = f"{minutes:g} minutes" if minutes is not None else f"{args.steps} steps"
    print(f"{len(cases)} labelled images in {len(folds)} folds, {long} of training for each: {whole.folder}", file=sys.stderr)
    stop = Interrupt()
    try:
        for fold in folds:
            with TrainingProgress(f"fold {fold.number} of {len(folds)}", sys.stderr) as show:
                whole.run(fold, show, stop)
    except Cancelled:
        print("landmarklabel: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    _say(args, whole, study)
    study.close()
    return 0


def _say(args: argparse.Namespace, whole, study) -> None:
    from landmarklabel.io.prediction_folder import notes_remarks, read_notes
    from landmarklabel.services.label_folders import read_label_folder

    notes = read_notes(whole.predictions)
    predicted = read_label_folder(whole.predictions, whole.task, whole.paths)
    truth = {case.image_id: case.labels for fold in whole.folds for case in fold.held}  # as they were when it began
    if whole.changed_by_hand:
        text = "predictions changed by hand are no figure of the models and are left out; move their files away, and the same"
        print(f"landmarklabel: {text} command predicts them anew: {listed(whole.changed_by_hand)}", file=sys.stderr)
        predicted, truth = ({i: x for i, x in known.items() if i not in whole.changed_by_hand} for known in (predicted, truth))
        if not truth:
            raise StudyError(f"every prediction in {whole.predictions} was changed by hand")
    unit = unit_lookup(notes, whole.paths)
    done = compare(whole.task, predicted, truth, unit=unit, places=(str(whole.predictions), str(study.folder)))
    for text in [*whole.remarks, *notes_remarks(notes), *done.remarks]:
        print(f"landmarklabel: {text}", file=sys.stderr)
    each = []
    for fold in whole.folds:
        own = {case.image_id for case in fold.held}
        try:
            found = compare(whole.task, {i: x for i, x in predicted.items() if i in own}, truth, unit=unit).metrics
        except StudyError:  # nothing in this fold that could be measured
            continue
        each.append({"fold": fold.number, "n_images": found["n_images"], "mre_mm": found["mre_mm"]})
    if args.json:
        print(json.dumps({**done.metrics, "folds": each}, allow_nan=False))
        return
    unit_name = done.metrics["unit"]
    for one in each:
        mre = "no landmark found" if one["mre_mm"] is None else f"MRE {one['mre_mm']:.3f} {unit_name}"
        print(f"fold {one['fold']}: {one['n_images']} images, {mre}")
    print(f"all folds: {done.metrics['n_images']} images: {metrics_line(done.metrics)}")
    print(f"look at them: landmarklabel evaluate {whole.predictions} {study.folder} --report report.html")
