"""What a script or notebook needs, as ``import landmarklabel as ll`` gives it: load, train, predict (docs/python.md).

``evaluate`` is in ``evaluation``. Decision: ``Model`` is thin and stays as it is; the localizer behind it may change at any time.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landmarklabel.errors import StudyError, UsageError
from landmarklabel.io.image_array import Image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask

if TYPE_CHECKING:
    from landmarklabel.inference.localizer import Localizer
    from landmarklabel.store.study import Study
    from landmarklabel.training.fit import FitConfig
    from landmarklabel.training.loop import Progress

_log = logging.getLogger(__name__)


def load_task(name_or_file: str | Path) -> LandmarkTask:
    """Read a task: which landmarks there are, in which order, and the number of dimensions.

    Args:
        name_or_file: a task file (JSON), or the name of a task that comes with the program, for example ``hand_xray``.

    Raises:
        UsageError: no task of this name; the message lists those there are. TaskError: the file is not a task.

    Example:
        ``ll.load_task("hand.json").names``
    """
    from landmarklabel.tasks import resolve_task

    return resolve_task(str(name_or_file))


def read_landmarks(path: str | Path, task: LandmarkTask | None = None, image: str | Path | None = None) -> LandmarkSet:
    """Read the landmarks of one image from a .mrk.json or .fcsv file.

    Args:
        path: the file; positions in it may be LPS or RAS.
        task: whose names and order the set has; without, those of the file, in 3D.
        image: the file's image, needed only for points of a 2D task that lie on a slice of a volume.

    Returns:
        Positions in LPS mm, whatever the file has.

    Raises:
        LandmarkFileError: listing every fault of the file.

    Example:
        ``ll.read_landmarks("case1.mrk.json", task)["tip"].position_mm``
    """
    from landmarklabel.io.markups import read_markups
    from landmarklabel.services.descriptions import image_plane

    plane = image_plane(image, task.dims) if image is not None and task is not None else None
    return read_markups(path, task, plane)


@dataclass(frozen=True, repr=False)
class Model:
    """A trained model; ``load_model`` and ``train`` make one. Use it from one thread at a time.

    Args:
        localizer: what does the work; not part of the stable interface.
        metrics: on the validation cases of its training, as ``landmarklabel evaluate --json`` has them; empty without any.
        folder: where it lies; None where only this object has it.
        published: whether its training made it the model that answers in the study.
        decision: what the study's gate decided and why, in words; empty where it was not asked.
    """

    localizer: Localizer
    metrics: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    published: bool = False
    decision: str = ""

    @property
    def task(self) -> LandmarkTask:
        """The task: the landmarks that the model finds."""
        return self.localizer.task

    @property
    def name(self) -> str:
        """Name of the network and its settings, for example ``scn:default``."""
        return self.localizer.preset.key

    @property
    def unit(self) -> str | None:
        """Unit of ``metrics``: ``mm``, or ``px`` where images have no spacing; None where nothing was measured."""
        unit = self.metrics.get("unit")
        return None if unit is None else str(unit)

    def predict(self, image: Image | str | Path) -> LandmarkSet:
        """Find the landmarks of one image.

        Args:
            image: an ``Image``, an image file of any format that is read, or a folder with one DICOM series.

        Returns:
            Every landmark of the task, ``predicted``, ``absent``, or ``unset`` where training never saw it. Positions are
            (n, dims) LPS mm, or pixels where the image states no spacing (``unit`` says which).

        Raises:
            ImageRejected: the image cannot be read, or has other dimensions than the task. ModelError: not enough memory.

        Example:
            ``model.predict("case1.nii.gz")["tip"].position_mm``
        """
        from landmarklabel.io.images import read_image
        from landmarklabel.io.plugin_images import finite_pixels

        if isinstance(image, (str, PathLike)):
            image = read_image(image, self.task.dims)
        elif not isinstance(image, Image):
            raise UsageError(
                f"{type(image).__name__} is no image: give a file, or an array with its geometry, "
                "ll.Image(ll.ImageGeometry.identity(size, spacing), array)"
            )
        image = replace(image, pixels=finite_pixels(np.asarray(image.pixels), "the image"))
        if image.geometry.dims != self.task.dims:
            raise UsageError(f"a {image.geometry.dims}D image; task {self.task.name!r} needs {self.task.dims}D")
        return replace(self.localizer.predict(image), unit=image.unit)

    def predict_many(self, images: Iterable[Image | str | Path]) -> Iterator[LandmarkSet]:
        """Find the landmarks of images one after the other, in their order; only one image is in memory at a time.

        Raises as ``predict``, at the image that it concerns.

        Example:
            ``found = dict(zip(paths, model.predict_many(paths.values())))``
        """
        if isinstance(images, (str, PathLike, Mapping, Image)):
            raise UsageError("give a list of images; predict is for one")
        return map(self.predict, images)

    def __repr__(self) -> str:
        task, mre = self.task, self.metrics.get("mre_mm")
        text = f"Model({self.name} of task {task.name!r}, {len(task)} landmarks, {task.dims}D"
        return text + (
            f", validation MRE {mre:.2f} {self.unit} on {self.metrics['n_images']} images)" if mre is not None else ")"
        )


def load_model(folder: str | Path, device: str = "auto") -> Model:
    """Read a trained model; nothing in its folder is executed.

    Args:
        folder: as ``train`` or ``landmarklabel train --out`` wrote it.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelError: no model lies there, or it is damaged. UsageError: no such device.

    Example:
        ``ll.load_model("model/").predict("case1.nii.gz")["tip"].position_mm``
    """
    from landmarklabel.inference.model_folder import load_model as load_localizer
    from landmarklabel.inference.model_record import read_record
    from landmarklabel.networks.devices import choose_device

    record, localizer = read_record(folder), load_localizer(folder, device=choose_device(device))
    metrics = record.get("metrics")
    return Model(localizer, metrics if isinstance(metrics, dict) else {}, Path(folder))


def train(
    study: Study | str | Path,
    model: str = "scn",
    minutes: float | None = 30.0,
    *,
    out: str | Path | None = None,
    publish: bool = True,
    steps: int | None = None,
    device: str = "auto",
    seed: int = 0,
    valid: Sequence[str] | None = None,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Model:
    """Train a model on a study's landmarks, as ``landmarklabel train`` does.

    Args:
        study: a study, or its folder.
        model: which network, as ``NAME`` or ``NAME:PRESET``; those of plugins as well.
        minutes: time for everything, measuring included; None where ``steps`` alone are to count.
        out: a folder that the model is written to (an earlier model there gets another name, which is logged); without, only a
            model that is published stays on disk.
        publish: offer the model to the study, where it goes live unless it is measured to be no better than what answers now.
            False leaves the study alone.
        steps: training steps, instead of a time or as well as one.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: of everything random.
        valid: ids of the validation images; without, a fixed fifth by a hash of the id.
        resume: go on where a stopped training left off.
        on_progress: told after every step (``stage``, ``step``, ``fraction`` done, ``loss``, ``seconds``).
        should_stop: asked after every step; True ends the training with ``ll.Cancelled``, and ``resume`` goes on from there.

    Returns:
        The model with its ``metrics`` on the validation images; ``published`` and ``decision`` tell what the study made of it.

    Raises:
        StudyError: nothing to train on, a study that is not there, or another training that runs.
        UsageError: no such model or device, a number out of range, or ``out`` is no place for a model.
        Cancelled: ``should_stop`` said so.

    Example:
        ``ll.train("STUDY", minutes=10, out="model/").metrics["mre_mm"]``
    """
    begun = time.monotonic()
    _check_budget(minutes, steps, seed)
    with ExitStack() as held:
        opened = _opened(study, held)
        config = _config(opened, model, minutes, steps, seed, device, resume)
        config.ends_at = begun + 60 * minutes if minutes is not None and not resume else None
        return _train(opened, config, valid, out, publish, on_progress, should_stop)


def _config(
    study: Study, model: str, minutes: float | None, steps: int | None, seed: int, device: str, resume: bool
) -> FitConfig:
    from landmarklabel.networks.devices import choose_device
    from landmarklabel.networks.presets import find_preset
    from landmarklabel.training.fit import FitConfig as Config
    from landmarklabel.training.loop import Budget

    return Config(find_preset(model, study.task.dims), Budget(minutes, steps), seed, choose_device(device), resume)


def _train(
    study: Study,
    config: FitConfig,
    valid: Sequence[str] | None,
    out: str | Path | None,
    publish: bool,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Model:
    from landmarklabel.services.train_and_publish import train_and_publish
    from landmarklabel.services.trainings import gather

    if isinstance(valid, str):
        raise UsageError(f"valid={valid!r} must be a list of image ids")
    material = gather(study, None if valid is None else list(valid))
    config.unlabelled = material.unlabelled
    for text in [*material.left_out, *material.remarks]:
        _log.warning("%s", text)
    _log.info("training %s on %d images, %d to validate", config.preset.key, len(material.train), len(material.valid))
    kept = out is not None or publish
    with tempfile.TemporaryDirectory(prefix="landmarklabel-") as nowhere:
        place = out if kept else nowhere
        done = train_and_publish(study, material, config, place, publish, on_progress, should_stop, _log.warning)
    for text in done.remarks:
        _log.warning("%s", text)
    if done.decision:
        _log.info("%s", done.decision)
    return Model(done.model, done.metrics, done.folder if kept else None, done.published, done.decision)


def _check_budget(minutes: float | None, steps: int | None, seed: int) -> None:
    if minutes is None and steps is None:
        raise UsageError("minutes or steps must say how long to train")
    if any(isinstance(x, bool) or not isinstance(x, (int, float)) for x in (minutes, steps, seed) if x is not None):
        raise UsageError(f"minutes={minutes!r}, steps={steps!r} and seed={seed!r} must be numbers")
    if (minutes is not None and not math.isfinite(minutes)) or steps not in (None, int(steps or 0)) or seed != int(seed):
        raise UsageError(f"minutes={minutes!r} must be finite, steps={steps!r} and seed={seed!r} whole numbers")
    if (minutes is not None and not minutes > 0) or (steps is not None and steps < 1):
        raise UsageError(f"minutes={minutes!r} and steps={steps!r} must be positive")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed={seed!r} must be from 0 to {2**32 - 1}")


def _opened(study: Study | str | Path, held: ExitStack) -> Study:
    """The study itself, or the one in a folder, which is closed in the end."""
    from landmarklabel.store.study import Study as StudyClass

    if isinstance(study, StudyClass):
        return study
    if not Path(study).is_dir():
        raise StudyError(f"{study}: no such study folder")
    return held.enter_context(StudyClass.open(study))
