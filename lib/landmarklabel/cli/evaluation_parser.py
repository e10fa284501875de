"""The options of ``crossval``, ``evaluate`` and ``compare``."""

from __future__ import annotations

from landmarklabel.cli.verbs import Verbs, add_device, add_store, add_surface, add_task, add_verb, list_models


def add_evaluations(verbs: Verbs) -> None:
    """The three verbs."""
    _crossval(verbs)
    _evaluate(verbs)
    _compare(verbs)


def _crossval(verbs: Verbs) -> None:
    about = "how good would this recipe be? Each labelled case is predicted by a model that is trained on the others"
    verb = add_verb(verbs, "crossval", "crossval", "crossval", about)
    list_models(verb)
    verb.add_argument("study", metavar="STUDY")
    add_task(verb)
    verb.add_argument("--folds", type=int, default=5, metavar="K", help="models to train, each without one K-th (default 5)")
    verb.add_argument("--model", default="scn", metavar="NAME[:PRESET]", help="which model (default scn)")
    verb.add_argument("--minutes", type=float, metavar="M", help="time to train each (default 30 unless --steps is given)")
    verb.add_argument("--steps", type=int, metavar="N", help="training steps instead of, or as well as, a time")
    add_device(verb)
    verb.add_argument("--seed", type=int, default=0, metavar="N")
    add_store(verb)
    where = "models and predictions, kept after every fold: call again to go on (default STUDY-crossval in this folder)"
    verb.add_argument("--out", metavar="DIR", help=where)
    verb.add_argument("--json", action="store_true", help="print all metrics as JSON")


def _evaluate(verbs: Verbs) -> None:
    verb = add_verb(verbs, "evaluate", "evaluate", "evaluate", "compare predictions with the truth")
    verb.add_argument("predictions", metavar="PREDICTIONS_DIR")
    verb.add_argument("truth", metavar="TRUTH", help="a study, a folder of .mrk.json or .fcsv files, or a table (see import)")
    add_task(verb)
    verb.add_argument("--images", metavar="DIR", help="the images, for the report's pictures (those of a study are found)")
    add_surface(verb)
    verb.add_argument(
        "--include-training", action="store_true", help="count images that the model was trained on as well; they are marked"
    )
    verb.add_argument("--json", action="store_true", help="print all metrics as JSON")
    verb.add_argument("--report", metavar="report.html", help="write a page with tables, plots and the worst images")


def _compare(verbs: Verbs) -> None:
    about = "which of two predictions of the same images is nearer to the truth, and could that be chance?"
    verb = add_verb(verbs, "compare", "compare", "compare", about)
    verb.add_argument("predictions_a", metavar="PREDICTIONS_A", help="a folder that predict or crossval wrote, or of label files")
    verb.add_argument("predictions_b", metavar="PREDICTIONS_B", help="another one")
    verb.add_argument("truth", metavar="TRUTH", help="a study, a folder of .mrk.json or .fcsv files, or a table (see import)")
    add_task(verb)
    verb.add_argument("--images", metavar="DIR", help="the images, where neither a study nor predict says in which unit they are")
    verb.add_argument("--include-training", action="store_true", help="count images that a model was trained on as well")
    verb.add_argument("--json", action="store_true", help="print all figures, also those of each landmark, as JSON")
