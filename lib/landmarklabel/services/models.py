"""Which models a study has, and which of them answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from landmarklabel.errors import LandmarkLabelError
from landmarklabel.inference.model_record import WEIGHTS, ModelRecord, read_record
from landmarklabel.io.checkpoints import load_tensors
from landmarklabel.store.study import Study
from landmarklabel.training.publishing import ModelRegistry


@dataclass(frozen=True)
class Answering:
    """What answers under a model's name: its version, or 0 where the template does, and why, in words."""

    version: int
    answers: bool
    reason: str
    when: str = ""

    @property
    def text(self) -> str:
        """The state in one line."""
        if not self.version:
            return f"template answers: {self.reason}"
        state = "answers" if self.answers else "does not answer, the template does"
        return f"version {self.version} {state}: {self.reason}"


def answering(study: Study) -> dict[str, Answering]:
    """What answers under each model's name of which the study has a version."""
    if not study.models_dir.is_dir():
        return {}
    shelves = [ModelRegistry(folder) for folder in sorted(study.models_dir.iterdir()) if (folder / "live.json").is_file()]
    return {registry.folder.name: what_answers(study, registry) for registry in shelves}


def damaged_models(folder: Path) -> list[str]:
    """What is wrong with the live models below ``STUDY/.landmarklabel/models``, one text each."""
    faults = []
    for pointer in sorted(folder.glob("*/live.json")):
        try:
            if (live := ModelRegistry(pointer.parent).live()) is not None:
                load_tensors(live / WEIGHTS, ModelRecord.of(read_record(live), live).weights_sha256)
        except LandmarkLabelError as error:
            faults.append(f"{pointer.parent.name}: {error}")
    return faults


def what_answers(study: Study, registry: ModelRegistry) -> Answering:
    """What answers under one model's name."""
    try:
        record, live = registry.record(), registry.live()
        if live is None:
            why = record["history"][-1]["reason"] if record["history"] else "no model was trained yet"
            return Answering(0, False, str(why))
        model, last = read_record(live), record["history"][-1]
    except (LandmarkLabelError, KeyError, TypeError, IndexError) as error:
        return Answering(0, False, f"the model's folder is damaged ({error})")
    if model.get("task_hash") != study.task.hash:
        return Answering(record["version"], False, "it was trained for other landmarks; train again", str(last.get("time", "")))
    entries = [e for e in record["history"] if e.get("version") == record["version"] and e.get("what") != "kept"]
    last = entries[-1] if entries else last
    return Answering(record["version"], True, str(last.get("reason", "")), str(last.get("time", "")))
