"""The options of ``cohort``."""

from __future__ import annotations

import argparse

from landmarklabel.cli.help_texts import COHORT
from landmarklabel.cli.verbs import Verbs, add_device, add_verb
from landmarklabel.cohort.configuration import CONFIG


def add_cohort(verbs: Verbs) -> None:
    """The verbs below ``cohort``."""
    about = "predict thousands of images, on one computer or many, exactly once each, into one table"
    cohort = verbs.add_parser(
        "cohort", help=about, description=about, epilog=COHORT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    inner = cohort.add_subparsers(metavar="plan|run|status|merge|submit", required=True)
    verb = add_verb(inner, "plan", "cohort", "plan", "find the cases and keep them, with a copy of the model, in a new folder")
    places = "image files, folders with all below them, patterns with *, addresses (s3://…), tables with a column path"
    verb.add_argument("images", nargs="+", metavar="IMAGES", help=places)
    verb.add_argument("--model", required=True, metavar="MODEL_DIR")
    verb.add_argument("--out", required=True, metavar="RUN", help="folder to be made")
    verb = add_verb(inner, "run", "cohort", "run", "predict what has no result yet; call it again after any stop")
    verb.add_argument("folder", metavar="RUN")
    verb.add_argument(
        "--shard", default="1/1", metavar="i/N", help="only the i-th of N parts, on another computer than the others"
    )
    _add_workers(verb)
    where = "have a Ray cluster predict: its address, auto for the one of this computer, or local for a new one"
    verb.add_argument("--ray", metavar="ADDRESS", help=where)
    verb = add_verb(inner, "status", "cohort", "status", "say how many cases are done, and why others have failed")
    verb.add_argument("folder", metavar="RUN")
    verb.add_argument("--json", action="store_true", help="print it as JSON")
    verb = add_verb(
        inner, "merge", "cohort", "merge", "write table.parquet, table.csv and report.html of all results that there are"
    )
    verb.add_argument("folder", metavar="RUN")
    verb = add_verb(
        inner, "submit", "cohort", "submit", "have Slurm predict the cohort: an array whose tasks predict a part each"
    )
    verb.add_argument("folder", metavar="RUN", help="in a folder that all nodes see")
    verb.add_argument("--slurm", required=True, type=int, metavar="N", help="how many tasks the array has")
    verb.add_argument("--sbatch", action="append", metavar="=OPTION", help="of sbatch, for example --sbatch=--time=12:00:00")
    verb.add_argument("--dry-run", action="store_true", help="print the script and submit nothing")
    _add_workers(verb)


def _add_workers(verb: argparse.ArgumentParser) -> None:
    usual = "processes that hold the model (default: one a core as memory allows, one for a GPU)"
    verb.add_argument("--workers", type=int, metavar="N", help=usual)
    verb.add_argument("--threads", type=int, metavar="N", help="of each worker (default 1)")
    verb.add_argument("--again", action="store_true", help="also try again what has failed")
    about = f"a case that takes longer has failed (default {CONFIG.case_s:g})"
    verb.add_argument("--case-seconds", type=float, default=CONFIG.case_s, metavar="S", help=about)
    add_device(verb)
