"""A server's training or batch, in a process of its own: ``python -m landmarklabel.services.worker KIND STUDY``.

What is to be done comes on the standard input as JSON; what is printed becomes the task's details. A training on several devices
is done by further such processes, one for each, which this one starts.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from landmarklabel.portability import give_way
from landmarklabel.services.limits import LIMITS
from landmarklabel.training.configuration import RENDEZVOUS

log = logging.getLogger("landmarklabel.worker")


def main() -> int:
    """Do the task; 0 where it was done, or its server ended meanwhile, 1 where it failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's: what it leaves undone, the next one goes on with
    give_way(LIMITS.training_niceness)  # requests come first, and on a busy machine a training still goes on
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    kind, sent = sys.argv[1], json.load(sys.stdin)
    from landmarklabel.errors import LandmarkLabelError
    from landmarklabel.landmarks import LandmarkTask
    from landmarklabel.services.console import set_up_console
    from landmarklabel.store.image_files import GONE
    from landmarklabel.store.opening import recorded_task
    from landmarklabel.store.study import Study
    from landmarklabel.tasks import resolve_models

    set_up_console()
    task = LandmarkTask.from_json(sent["task"])
    own = Path(sent["study"]) / ".landmarklabel"
    if not own.is_dir():  # ``Study`` would make it anew
        log.error("%s failed: %s", kind, GONE)
        return 1
    threading.Thread(target=_watch, args=(own,), name="watch", daemon=True).start()
    try:
        known = recorded_task(sent["study"], sent["store"])
        if known is not None and known.hash == task.hash:  # its scale rule or measurements may be newer than the server's
            task = known
        study = Study(sent["study"], task, sent["store"], verify_s=0)
        presets = resolve_models(sent["models"], task.dims)
        if kind != "train":
            return _batch(study, presets, sent)
        one = sent["train_devices"] == 1 or RENDEZVOUS in os.environ
        return _train(study, presets, sent) if one else _train_together(study, sent)
    except LandmarkLabelError as error:
        log.error("%s failed: %s", kind, error)
        return 1


def _watch(own: Path) -> None:
    """End this process soon after its server, whatever it does, and at once where the study has moved: nothing makes it anew."""
    from landmarklabel.services.server_process import server_is_gone
    from landmarklabel.store.image_files import GONE

    gone = server_is_gone()
    while not gone():
        if not own.is_dir():
            log.error(GONE)
            _end()
        time.sleep(LIMITS.look_s)
    time.sleep(LIMITS.orphan_s)  # between two steps it ends by itself, and keeps what it has
    _end()


def _end() -> NoReturn:
    import psutil

    with suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            child.kill()
    os._exit(1)


def _train_together(study: Any, sent: dict[str, Any]) -> int:
    """Have one process for each device train, and say which one ended by itself, if any did."""
    from landmarklabel.services.jobs import TrainingList
    from landmarklabel.services.server_process import server_is_gone
    from landmarklabel.services.training_stats import TrainingStats
    from landmarklabel.training.processes import run_together
    from landmarklabel.training.publishing import ModelRegistry

    request, gone = sent["request"], server_is_gone()
    command = [sys.executable, "-m", "landmarklabel.services.worker", *sys.argv[1:]]
    status, said = run_together(command, sent["train_devices"], json.dumps(sent), Path(sent["place"]))
    if said and not gone():  # else the next server goes on
        log.error("train failed: %s", said)
        TrainingStats(ModelRegistry(study.models_dir / request["model"])).end_failed(said)
        TrainingList(study.folder).end(request.get("job"))  # a person decides whether it begins once more
    return status


def _train(study: Any, presets: dict[str, Any], sent: dict[str, Any]) -> int:
    from landmarklabel.errors import Gone
    from landmarklabel.services.jobs import TrainingList
    from landmarklabel.services.training_run import SeveralDevices, TrainingRun
    from landmarklabel.training.group import ProcessLost
    from landmarklabel.training.processes import LOST
    from landmarklabel.training.publishing import BeingTrained, ModelRegistry

    request, over, listed = sent["request"], True, TrainingList(study.folder)
    name, job = request["model"], request.get("job")
    several = SeveralDevices(sent["device"]) if sent["train_devices"] > 1 else None
    run = TrainingRun(study, presets[name], ModelRegistry(study.models_dir / name), sent["device"], several)
    if several is not None and not several.leads:
        return _train_along(run, request)

    def begins(waited: bool) -> bool:
        """Not where the process that was waited for has done it: that of a server which had ended."""
        return listed.begin(job) or not waited

    try:
        done = run.run(request, begins)
        over = done["state"] != "stopped"  # because its server ended: the next one goes on
        return 0 if done["state"] in ("done", "stopped") else 1
    except (BeingTrained, Gone):  # the server has ended, or the study is elsewhere: whoever serves it next does it
        over = False
        raise
    except ProcessLost:
        over = False
        return LOST  # who started the processes says which was lost
    finally:
        if over:
            listed.end(job)


def _train_along(run: Any, request: dict[str, Any]) -> int:
    """What a process does that does not lead."""
    from landmarklabel.errors import Cancelled
    from landmarklabel.training.group import ProcessLost
    from landmarklabel.training.processes import LOST

    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the leading process decides
    try:
        run.along(request)
    except Cancelled:  # as the leading process said
        return 0
    except ProcessLost as error:
        log.error("%s", error)  # who started the processes reads it
        return LOST
    return 0


def _batch(study: Any, presets: dict[str, Any], sent: dict[str, Any]) -> int:
    from landmarklabel.errors import LandmarkLabelError
    from landmarklabel.services.datastore import StudyDatastore
    from landmarklabel.services.inference import ServedModel, keep_prediction
    from landmarklabel.services.server_process import server_is_gone
    from landmarklabel.training.publishing import ModelRegistry

    request = sent["request"]
    name, tag, store = request["model"], request["label_tag"], StudyDatastore(study, sent["allow_outside"])
    model = ServedModel(study, presets[name], ModelRegistry(study.models_dir / name), sent["device"])
    gone = server_is_gone()
    wanted = request["images"]
    if wanted == "labeled":
        ids = store.get_labeled_images()
    elif wanted == "unlabeled":
        ids = store.get_unlabeled_images()
    else:
        ids = store.list_images() if wanted == "all" else wanted
    ids = sorted(ids)[: request["max_batch_size"] or None]
    for number, image_id in enumerate(ids, 1):
        if gone():
            return 1
        try:
            keep_prediction(model, store, image_id, tag)
            log.info("%d of %d", number, len(ids))  # without ids, which may be names of patients
        except (LandmarkLabelError, OSError) as error:
            log.info("%d of %d: refused (%s)", number, len(ids), type(error).__name__)
    return 0


if __name__ == "__main__":
    sys.exit(main())
