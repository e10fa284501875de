"""``cohort``."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator

from landmarklabel.cohort.configuration import CONFIG
from landmarklabel.cohort.manifest import CohortCase, Shard, find_cases
from landmarklabel.cohort.progress import progress_of
from landmarklabel.cohort.run_folder import FAILED, LEFT_OUT, CohortRun, Results, Row, not_writable
from landmarklabel.cohort.run_folder import plan as plan_cohort
from landmarklabel.errors import StudyError, UsageError, listed
from landmarklabel.inference.model_card import cautions
from landmarklabel.io.locks import NOT_LOCKED
from landmarklabel.io.memory import total_bytes
from landmarklabel.networks.devices import check_device, check_name
from landmarklabel.portability import available_cores


def plan(args: argparse.Namespace) -> int:
    """Find the cases and make the folder of the cohort."""
    cases, left_out = find_cases(args.images)
    run = plan_cohort(args.out, args.model, cases, left_out)
    for name, why in list(left_out.items())[: CONFIG.most_reasons]:
        print(f"landmarklabel: left out: {name} ({why})", file=sys.stderr)
    for text in [*_remarks(cases), *cautions(run.record)]:
        print(f"landmarklabel: {text}", file=sys.stderr)
    said = f"{len(cases)} cases" + (f", {len(left_out)} files or folders left out, see {LEFT_OUT}" if left_out else "")
    print(f"{run.folder}: {said}; go on with: landmarklabel cohort run {run.folder}")
    return 0


def _remarks(cases: list[CohortCase]) -> list[str]:
    """What may be a mistake, a text each."""
    gone = [case.path for case in cases if "://" not in case.path and not os.path.exists(case.path)]
    times = Counter(case.path for case in cases)
    twice = [path for path, count in times.items() if count > 1]
    remarks = [f"{len(gone)} of the paths do not exist: {listed(gone)}"] if gone else []
    return remarks + ([f"{len(twice)} images are several cases, under other ids: {listed(twice)}"] if twice else [])


def run(args: argparse.Namespace) -> int:
    """Predict a part of the cohort, or all of it."""
    from landmarklabel.cohort.local import LocalExecutor
    from landmarklabel.cohort.prediction import Executor, PredictorSettings
    from landmarklabel.cohort.ray_executor import RayExecutor

    cohort, shard = CohortRun(args.folder), Shard.of(args.shard)
    if args.ray is None:
        check_device(args.device)
    else:
        check_name(args.device)  # the cluster's, which this computer need not have
    _check_numbers(args)
    with Results(cohort, shard) as results:
        if not results.is_locked:
            print(f"landmarklabel: {cohort.folder}: {NOT_LOCKED}; cases that two predict count once", file=sys.stderr)
        cases, known = cohort.cases(shard), cohort.succeeded()
        left = [case for case in cases if not known.get(case.id, False) and (args.again or case.id not in known)]
        whole = len(cases)
        del known
        print(f"{cohort.folder}: part {shard}, {len(left)} of {whole} cases to predict", file=sys.stderr, flush=True)
        settings = PredictorSettings(str(cohort.model.absolute()), cohort.model_sha256, args.device, args.threads or 1)
        executor: Executor
        if args.ray is not None:
            executor = RayExecutor(settings, args.ray, args.workers)
        else:
            workers = min(args.workers or _usual_workers(args.device), max(len(left), 1))
            executor = LocalExecutor(settings, workers, args.case_seconds)
        done, failed, first = 0, 0, ""
        try:
            for row in _followed(executor.rows(left) if left else iter(()), len(left)):
                results.add(row)
                done += 1
                if row["state"] == FAILED:
                    failed, first = failed + 1, first or f"{row['id']}: {row['reason']}"
        except KeyboardInterrupt:
            print(f"{cohort.folder}: {done} of {len(left)} cases are kept; the same command goes on", file=sys.stderr)
            raise
    kept = cohort.succeeded()
    if missing := sum(case.id not in kept for case in cases):
        raise StudyError(f"{cohort.results}: {missing} of {whole} results are gone; who removed them? The same command goes on")
    print(f"{cohort.folder}: part {shard} is done, {len(left) - failed} predicted now, {failed} failed")
    if left and not any(kept[case.id] for case in cases):
        raise StudyError(f"no case of part {shard} could be predicted; the first: {first}")
    return 0


def _check_numbers(args: argparse.Namespace) -> None:
    """Raise UsageError for what no run can use."""
    for name in ("workers", "threads"):
        if (value := getattr(args, name)) is not None and not 1 <= value <= CONFIG.most_processes:
            raise UsageError(f"--{name} {value} must be from 1 to {CONFIG.most_processes}")
    if getattr(args, "ray", None) == "":
        raise UsageError("--ray needs an address: auto, local, ray://HOST:PORT or HOST:PORT")
    if not 1 <= args.case_seconds < math.inf:
        raise UsageError(f"--case-seconds {args.case_seconds:g} must be a number from 1")


def _usual_workers(device: str) -> int:
    """One for a GPU, which one process keeps busy; else one a core, as many as there is memory for."""
    if device not in ("cpu", "auto") or (device == "auto" and _has_gpu()):
        return 1
    return max(1, min(available_cores(), total_bytes() // CONFIG.worker_bytes))


def _has_gpu() -> bool:
    from landmarklabel.networks.devices import choose_device

    return choose_device("auto").type != "cpu"


def _followed(rows: Iterator[Row], count: int) -> Iterator[Row]:
    """The rows, while stderr shows how far it is."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        yield from tqdm(rows, desc="cohort", unit="case", total=count)
        return
    told = begun = time.monotonic()
    for number, row in enumerate(rows):
        yield row
        now = time.monotonic()
        if number == 0:  # from here, as workers take a while to begin
            told = begun = now
        if now - told > CONFIG.told_s:
            told, rate = now, number / (now - begun)
            left = (count - number) / rate
            print(f"cohort: {number + 1} of {count} cases, {rate:.3g} a second, {_span(left)} left", file=sys.stderr, flush=True)


def _span(seconds: float) -> str:
    hours, minutes = seconds / 3600, seconds / 60
    return f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min" if minutes >= 1 else f"{seconds:.0f} s"


def status(args: argparse.Namespace) -> int:
    """Say how far the cohort is."""
    cohort = CohortRun(args.folder)
    found = progress_of(cohort)
    if args.json:
        print(json.dumps(found.to_json(), indent=1))
        return 0
    print(f"{cohort.folder}: {found.done} of {found.cases} cases done, {found.failed} failed, {found.left} left")
    for reason, count in found.reasons.most_common(CONFIG.most_reasons):
        print(f"  {count} × {reason}" if count == 1 else f"  {count} × such as: {reason}")
    if found.doubtful:
        print(f"  {len(found.doubtful)} done cases have flagged landmarks")
    if found.left and found.seconds_left is not None:
        print(f"  {found.recent:.3g} cases a second of late: {_span(found.seconds_left)} left")
    return 0


def merge(args: argparse.Namespace) -> int:
    """Write the table and the report."""
    from landmarklabel.cohort.report import write_report
    from landmarklabel.cohort.table import CSV, MISSING, PARQUET, write_table

    cohort = CohortRun(args.folder)
    try:
        counts = write_table(cohort)
    except OSError as error:
        raise not_writable(cohort.folder, error) from None
    page = write_report(cohort, progress_of(cohort))
    said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    print(f"{cohort.folder / PARQUET}, {CSV} and {page.name}: {said}")
    if counts.get(MISSING):
        text = f"{counts[MISSING]} cases have no result yet; go on with: landmarklabel cohort run {cohort.folder}"
        print(f"landmarklabel: {text}", file=sys.stderr)
    return 0


def submit(args: argparse.Namespace) -> int:
    """Write and submit a Slurm array, or print it."""
    from landmarklabel.cohort.slurm import sbatch_script
    from landmarklabel.cohort.slurm import submit as submit_script

    cohort = CohortRun(args.folder)
    if not 1 <= args.slurm <= CONFIG.most_processes:
        raise UsageError(f"--slurm {args.slurm} must be from 1 to {CONFIG.most_processes}")
    _check_numbers(args)
    check_name(args.device)
    options = [f"--device={args.device}", *(["--again"] if args.again else [])]
    if args.case_seconds != CONFIG.case_s:
        options.append(f"--case-seconds={args.case_seconds:g}")
    options += [f"--{name}={value}" for name in ("workers", "threads") if (value := getattr(args, name)) is not None]
    script = sbatch_script(cohort.folder, args.slurm, args.sbatch or (), options)
    if args.dry_run:
        print(script, end="")
        return 0
    print(submit_script(cohort.folder, script))
    print(f"when it has ended: landmarklabel cohort merge {cohort.folder}", file=sys.stderr)
    return 0
