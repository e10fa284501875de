"""Verbs, their options and help; errors of the user's as one line and exit code 2."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from landmarklabel import __version__
from landmarklabel.cli.cohort_parser import add_cohort
from landmarklabel.cli.evaluation_parser import add_evaluations
from landmarklabel.cli.help_texts import EXAMPLE, LAYOUTS, NAMES, PREDICTIONS
from landmarklabel.cli.verbs import Verbs, add_device, add_store, add_surface, add_task, add_verb, list_models
from landmarklabel.errors import LandmarkLabelError
from landmarklabel.portability import DISK_FULL


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    arguments.words = list(sys.argv[1:] if argv is None else argv)
    module, function = arguments.run
    try:
        return int(getattr(importlib.import_module(module), function)(arguments) or 0)
    except LandmarkLabelError as error:
        print("landmarklabel: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("landmarklabel: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # an --out that cannot be written, a full disk
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        if remedy := DISK_FULL.get(error.errno or 0):
            reason = f"{error.filename or 'a file'}: could not be written ({error.strerror}); {remedy}, then try again"
        print("landmarklabel: " + " ".join(reason.split()), file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """All verbs; nothing heavy is imported until one runs."""
    parser = argparse.ArgumentParser(
        "landmarklabel",
        description="Find anatomical landmarks in medical images and learn from the people who correct them.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"landmarklabel {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    data, models = (
        (_task, _import, _study),
        (_train, _publish, _predict, add_cohort, add_evaluations, _measure, _shapes, _simulate, _export, _model),
    )
    for add in (*data, *models, _serve, _token, _backup, _setup_monailabel, _doctor, _demo):
        add(verbs)
    return parser


_LABELS = "label, train, choose the next cases, train again: error against labels for each way of choosing"
_ROLES = "annotators label; reviewers may also remove labels and download the whole data set; admins train and remove images"
_CLICKS = "correct the worst point first, with the assistant moving the others, and without: error against clicks"


def _task(verbs: Verbs) -> None:
    task = verbs.add_parser("task", help="make a task file (which landmarks, in which order), or show a task")
    inner = task.add_subparsers(metavar="new|show", required=True)
    new = add_verb(inner, "new", "task", "new_task", "make a task file from a list of names or an example")
    new.add_argument("name", metavar="NAME", help="name of the task")
    source = new.add_mutually_exclusive_group(required=True)
    source.add_argument("--names", metavar="FILE.txt", help="one landmark per line: name, optionally a tab and its definition")
    example: dict[str, Any] = {"dest": "example", "metavar": "EXAMPLE"}
    taken = "take them from a Slicer markups file, a table id,label,x,y[,z], a study, a task file or the name of a shipped task"
    source.add_argument("--from", **example, help=taken)
    new.add_argument("--dims", type=int, choices=(2, 3), default=None, help="dimensions (default 3, or those of the table)")
    scale = new.add_mutually_exclusive_group()
    scale.add_argument(
        "--scale",
        nargs=3,
        metavar=("NAME_A", "NAME_B", "MM"),
        help="images without spacing: the distance of these two landmarks is MM millimetres",
    )
    scale.add_argument("--pixel-size", type=float, metavar="MM", help="pictures, which state none: every pixel is MM millimetres")
    new.add_argument("--pictures", metavar="DIR", help="small pictures that show where a landmark is, NAME.png or NAME.jpg")
    new.add_argument("--out", required=True, metavar="TASK.json")
    show = add_verb(inner, "show", "task", "show_task", "names and definitions of a task's landmarks, and what it measures")
    show.add_argument("task", metavar="TASK", help="a task file, a study, or the name of a shipped task")


def _import(verbs: Verbs) -> None:
    verb = add_verb(
        verbs,
        "import",
        "import_study",
        "import_study",
        "copy images and their landmarks into a study folder",
        epilog=LAYOUTS,
    )
    verb.add_argument("study", metavar="STUDY", help="study folder, made if needed")
    add_task(verb)
    verb.add_argument("--images", metavar="DIR", help="folder of images (may be left out with --monailabel and --cl-detection)")
    add_surface(verb)
    labels = verb.add_mutually_exclusive_group()
    labels.add_argument("--table", metavar="CSV", help="landmarks of all images in one table")
    labels.add_argument("--markups", metavar="DIR", help="landmarks as Slicer files, one per image")
    folders: dict[str, Any] = {"nargs": "+", "metavar": ("SENIOR_DIR", "JUNIOR_DIR")}
    labels.add_argument("--isbi", **folders, help="ISBI 2015 cephalogram text files of one or two annotators")
    labels.add_argument("--voxels", metavar="DIR", help="text files with voxel indices, one per image")
    labels.add_argument("--masks", metavar="DIR", help="labelled segmentations, one per image; needs --rule")
    labels.add_argument("--monailabel", metavar="DIR", help="a MONAI Label datastore: images, and labels of all its annotators")
    about = "a CL-Detection challenge: all images in one .mha stack, all points in one .json"
    labels.add_argument("--cl-detection", metavar="DIR", help=about)
    verb.add_argument("--names", metavar="MAP.json", help=NAMES)
    whose = "mean (default) or both (the mean and each); of --isbi also first, second; of long tables names: ann1,ann2"
    verb.add_argument("--annotators", metavar="WHOSE", help=whose)
    verb.add_argument("--rule", choices=("centroid", "extremes"), help="of --masks: how a label becomes landmarks")
    verb.add_argument("--only", metavar="IDS.txt", help="import these images only, one id per line")
    verb.add_argument(
        "--complete", action="store_true", help="import nothing unless every label has an image, every image labels"
    )
    outside = "take points up to MM outside of their image; off their surface it is said only (default 0: they are refused)"
    verb.add_argument("--allow-outside", type=float, default=0.0, metavar="MM", help=outside)
    about = "write a page with the points on the images to look at, and import nothing"
    verb.add_argument("--preview", metavar="sheet.html", help=about)
    add_store(verb)
    verb.add_argument("--replace", action="store_true", help="put imported landmarks above what people corrected since")


def _study(verbs: Verbs) -> None:
    study = verbs.add_parser("study", help="look at a study, and change its landmarks' names")
    inner = study.add_subparsers(metavar="status|rename-landmark|drop-landmark|keep-labels", required=True)
    verb = add_verb(
        inner, "status", "study_verbs", "status", "say what a study holds, which model answers, and what needs a look"
    )
    verb.add_argument("study", metavar="STUDY")
    verb.add_argument("--json", action="store_true")
    add_store(verb)
    verbs_of = (
        ("rename-landmark", "rename_landmark", "give a landmark another name, in the task and in all labels", ("OLD", "NEW")),
        ("drop-landmark", "drop_landmark", "remove a landmark, in the task and in all labels; the history keeps it", ("NAME",)),
        ("keep-labels", "keep_labels", "say that the points of images that were changed since still hold", ("ID",)),
    )
    for name, function, about, words in verbs_of:
        verb = add_verb(inner, name, "study_verbs", function, about)
        verb.add_argument("study", metavar="STUDY")
        for word in words:
            many: dict[str, Any] = {"nargs": "+"} if word == "ID" else {}
            verb.add_argument(word.lower(), metavar=word, **many)
        verb.add_argument("--yes", action="store_true", help="do it without asking")
        add_store(verb)


def _publish(verbs: Verbs) -> None:
    about = "let a trained model answer in a study, even if validation would not accept it"
    verb = add_verb(verbs, "publish", "train", "publish", about)
    verb.add_argument("model", metavar="MODEL")
    verb.add_argument("study", metavar="STUDY")
    add_task(verb)
    add_store(verb)


def _train(verbs: Verbs) -> None:
    about = "train a model on a study's landmarks, and let it answer there unless validation shows that it is no better"
    verb = add_verb(verbs, "train", "train", "train", about)
    list_models(verb)
    verb.add_argument("study", metavar="STUDY")
    add_task(verb)
    verb.add_argument("--model", required=True, metavar="NAME[:PRESET]", help="which model, for example scn")
    verb.add_argument("--out", metavar="MODEL_DIR", help="write the trained model there as well")
    verb.add_argument("--no-publish", action="store_true", help="leave the study's own model alone; needs --out")
    verb.add_argument("--minutes", type=float, metavar="M", help="time to train (default 30 unless --steps is given)")
    verb.add_argument("--steps", type=int, metavar="N", help="training steps instead of, or as well as, a time")
    add_device(verb)
    devices = "train on so many GPUs, or so many processes on the cores of the processor; each gets its share of every batch"
    verb.add_argument("--devices", type=int, default=1, metavar="N", help=devices)
    accumulate = "look at a batch in N parts, one after another: less memory on the device, the same training"
    verb.add_argument("--accumulate", type=int, default=1, metavar="N", help=accumulate)
    verb.add_argument("--seed", type=int, default=0, metavar="N")
    verb.add_argument("--valid", metavar="IDS.txt", help="validation images (default: a fixed fifth, by a hash of the id)")
    add_store(verb)
    verb.add_argument("--resume", action="store_true", help="go on where a stopped run left off")


def _predict(verbs: Verbs) -> None:
    about = "find the landmarks of images; what this model predicted of the same pixels before is kept"
    verb = add_verb(verbs, "predict", "predict", "predict", about, epilog=PREDICTIONS)
    verb.add_argument("model", metavar="MODEL_DIR")
    verb.add_argument("images", nargs="+", metavar="IMAGE_OR_DIR")
    verb.add_argument("--out", required=True, metavar="DIR", help="one <id>.mrk.json per image, and predictions.csv")
    also = "another model of the same landmarks that answers together with the first; repeatable"
    verb.add_argument("--also", action="append", default=[], metavar="MODEL_DIR", help=also)
    add_surface(verb)
    add_device(verb)


def _measure(verbs: Verbs) -> None:
    about = "lengths, angles and indices of the landmarks of many cases, as the task defines them, and how exact they are"
    verb = add_verb(verbs, "measure", "measure", "measure", about)
    where = "a folder of predictions or label files, a study, or a table (see import)"
    verb.add_argument("landmarks", metavar="PREDICTIONS", help=where)
    add_task(verb)
    verb.add_argument("--images", metavar="DIR", help="the images, where neither a study nor predict says in which unit they are")
    verb.add_argument("--out", metavar="measurements.csv", help="the table; printed without it")
    nodes = "also write distances and angles as Slicer's own lines and angles, DIR/ID/MEASUREMENT.mrk.json; a new or empty folder"
    verb.add_argument("--slicer", metavar="DIR", help=nodes)
    readers = "how far the people who labelled a study, or the annotators of a table, agree on each measurement, instead"
    verb.add_argument("--readers", action="store_true", help=readers)
    verb.add_argument("--report", metavar="report.html", help="with --readers: a page with a plot for each measurement")


def _shapes(verbs: Verbs) -> None:
    about = "tables for geometric morphometrics: coordinates, Procrustes-aligned coordinates and centroid sizes, and a TPS file"
    verb = add_verb(verbs, "shapes", "measure", "shapes", about)
    where = "a study, a folder of predictions or label files, or a table (see import)"
    verb.add_argument("landmarks", metavar="LANDMARKS", help=where)
    add_task(verb)
    verb.add_argument("--images", metavar="DIR", help="the images, where neither a study nor predict says in which unit they are")
    verb.add_argument("--out", required=True, metavar="DIR", help="a folder that is not there yet, or empty")
    verb.add_argument(
        "--leave-out", action="append", default=[], metavar="NAME", help="a landmark that no table gets; repeatable"
    )


def _simulate(verbs: Verbs) -> None:
    simulate = verbs.add_parser("simulate", help="play an annotator over known labels: how much work does the assistant save?")
    inner = simulate.add_subparsers(metavar="clicks|labels", required=True)
    verb = add_verb(inner, "clicks", "simulate", "clicks", _CLICKS)
    verb.add_argument("model", metavar="MODEL_DIR")
    verb.add_argument("study", metavar="STUDY", help="a study with labels the model has not seen")
    add_task(verb)
    verb.add_argument("--clicks", type=int, default=5, metavar="N", help="how many clicks the curves show (default 5)")
    verb.add_argument("--only", metavar="IDS.txt", help="these images only, one id per line")
    verb.add_argument("--json", action="store_true", help="print the figures as JSON")
    verb.add_argument("--report", metavar="report.html", help="write a page with the curves")
    add_device(verb)
    verb = add_verb(inner, "labels", "simulate", "labels", _LABELS)
    verb.add_argument("study", metavar="STUDY", help="a study whose images are labelled")
    add_task(verb)
    verb.add_argument("--strategies", default="adaptive,random", metavar="A,B", help="to compare (default adaptive,random)")
    verb.add_argument("--seeds", type=int, default=5, metavar="N", help="runs of each strategy (default 5)")
    verb.add_argument("--out", required=True, metavar="DIR", help="results, kept after every training; call again to go on")
    verb.add_argument("--valid", metavar="IDS.txt", help="images the models are measured on (default: a fixed fifth)")
    verb.add_argument("--counts", default="3,5,8,12,20,32,50", metavar="N,…", help="labels after which a model is trained")
    verb.add_argument("--model", default="scn", metavar="NAME[:PRESET]", help="which model (default scn)")
    verb.add_argument("--minutes", type=float, metavar="M", help="of every training; each goes on from the last (2, or --steps)")
    verb.add_argument("--steps", type=int, metavar="N", help="training steps instead of, or as well as, a time")
    verb.add_argument("--json", action="store_true", help="print the figures as JSON")


def _export(verbs: Verbs) -> None:
    verb = add_verb(verbs, "export", "export", "export", "write a trained model for other programs: a MONAI bundle, or ONNX")
    verb.add_argument("model", metavar="MODEL_DIR")
    kind = verb.add_mutually_exclusive_group(required=True)
    kind.add_argument("--bundle", metavar="DIR", help="a folder that MONAI's own bundle tools load and run")
    kind.add_argument("--onnx", metavar="DIR", help="locator.onnx, refiner.onnx and export.json, checked against torch")
    verb.add_argument("--authors", default="not stated", metavar="TEXT", help="who the bundle's metadata names as its authors")


def _model(verbs: Verbs) -> None:
    model = verbs.add_parser("model", help="look at a trained model")
    inner = model.add_subparsers(metavar="show", required=True)
    verb = add_verb(
        inner, "show", "model", "show", "say what a model finds, what it was trained on, how good it is, and its limits"
    )
    verb.add_argument("model", metavar="MODEL_DIR")
    verb.add_argument("--json", action="store_true", help="print its whole record, model.json, as JSON")


_SERVE = """\
The same settings as MONAI Label's own starter takes with --conf, where _ stands for -:
  monailabel start_server --app apps/landmarks --studies STUDY --conf task TASK --conf retrain 10

examples:
  landmarklabel serve --studies STUDY --task hand.json
  landmarklabel serve --studies STUDY --task hand.json --retrain 10 --retrain-minutes 20
  landmarklabel serve --studies STUDY --task hand.json --host 0.0.0.0 --certificate cert.pem --key key.pem
  landmarklabel serve --studies hands --studies skulls
"""


def _serve(verbs: Verbs) -> None:
    verb = add_verb(
        verbs, "serve", "serve", "serve", "serve a study to browsers, 3D Slicer and MONAI Label clients", epilog=_SERVE
    )
    several = "study folder; given again, each is served below its name, and their trainings take turns"
    verb.add_argument("--studies", required=True, action="append", metavar="STUDY", help=several)
    add_task(verb)
    verb.add_argument("--models", metavar="scn,…", help="models to serve (default those live in the study, else scn)")
    verb.add_argument("--host", default="127.0.0.1", help="another than this computer needs a token and TLS (default 127.0.0.1)")
    verb.add_argument("--port", type=int, default=8000, help="(default 8000)")
    verb.add_argument("--open", action="store_true", help="open the browser front end, /annotate/, when the server answers")
    verb.add_argument("--root-path", metavar="/P", default="", help="path below which a reverse proxy serves this")
    verb.add_argument("--certificate", metavar="PEM", help="serve https with this certificate (and chain)")
    verb.add_argument("--key", metavar="PEM", help="the certificate's private key")
    verb.add_argument(
        "--insecure", action="store_true", help="accept other computers without TLS, and without token where none was ever made"
    )
    verb.add_argument("--retrain", metavar="N", help="after N new labels a training starts by itself (default 0, never)")
    verb.add_argument("--retrain-minutes", metavar="M", help="how long it then trains (default 10)")
    about = "after every N labelled cases one is given out again for a second reading (default 0, never)"
    verb.add_argument("--repeat", metavar="N", help=about)
    verb.add_argument("--max-upload-mb", metavar="N", help="the largest image that is taken, in MiB (default 2048)")
    outside = "take submitted points that are up to MM outside of their image (default 0: they are refused)"
    verb.add_argument("--allow-outside", metavar="MM", help=outside)
    verb.add_argument("--origins", metavar="https://A,…", help="answer web pages of these origins (default none)")
    add_device(verb)
    several = "train on so many GPUs, this server's own among them only where there are no others (default 1: on its own)"
    verb.add_argument("--train-devices", metavar="N", help=several)
    verb.add_argument("--store", metavar="URL", help="keep revisions there, for example postgresql://user@host/name")


def _token(verbs: Verbs) -> None:
    token = verbs.add_parser("token", help="who may use a served study from other computers")
    inner = token.add_subparsers(metavar="new|list|remove", required=True)
    verb = add_verb(inner, "new", "token", "new", "make a token and print it once; an earlier one of the same name ends")
    verb.add_argument("study", metavar="STUDY")
    verb.add_argument("--name", required=True, help="whose; what they save carries this name")
    verb.add_argument("--role", required=True, metavar="annotator|reviewer|admin", help=_ROLES)
    verb.add_argument("--days", type=float, metavar="N", help="it expires after so many days (default never)")
    verb = add_verb(inner, "list", "token", "show", "print names and roles")
    verb.add_argument("study", metavar="STUDY")
    verb = add_verb(inner, "remove", "token", "remove", "end a token at once")
    verb.add_argument("study", metavar="STUDY")
    verb.add_argument("--name", required=True)


def _backup(verbs: Verbs) -> None:
    verb = add_verb(verbs, "backup", "backup", "backup", "write a study into one file, also while its server runs")
    verb.add_argument("study", metavar="STUDY")
    verb.add_argument("file", metavar="FILE.zip", help="made when all is in it; must not exist")
    verb = add_verb(verbs, "restore", "backup", "restore_study", "make a study of such a file")
    verb.add_argument("file", metavar="FILE.zip")
    verb.add_argument("study", metavar="STUDY", help="folder to be made; must not exist")


def _setup_monailabel(verbs: Verbs) -> None:
    about = "install MONAI Label into this environment, for monailabel start_server; landmarklabel serve does not need it"
    verb = add_verb(verbs, "setup-monailabel", "setup_monailabel", "setup_monailabel", about)
    verb.add_argument("--check", action="store_true", help="install nothing, say whether it can be used")
    verb.add_argument("--app", metavar="DIR", help="write the app that MONAI Label starts there; a copy of the repository has it")


def _doctor(verbs: Verbs) -> None:
    verb = add_verb(verbs, "doctor", "doctor", "doctor", "check this installation, or a study, and say what to mend")
    verb.add_argument("study", metavar="STUDY", nargs="?", help="check its files, revisions and audit trail as well")
    verb.add_argument("--store", metavar="URL", help="where its revisions are, if not in the study")
    verb.add_argument("--json", action="store_true")


def _demo(verbs: Verbs) -> None:
    verb = add_verb(verbs, "demo", "demo", "demo", "annotate, train and correct synthetic cases through a real server")
    verb.add_argument("--out", default="landmarklabel-demo", metavar="DIR", help="where the study and the report go")
    verb.add_argument("--minutes", type=float, default=6.0, metavar="M", help="time in all; trainings fill what is left of it")
    verb.add_argument("--keep", action="store_true", help="leave the server running for the browser and 3D Slicer")
