"""What the strategies know of the study's images, kept up to date in the background: asking for a case never waits for it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING

import numpy as np

from landmarklabel.active.unlabelled_pool import (
    ImageAssessment,
    UnlabelledPool,
    assess_image,
    error_correlation,
    prediction_error,
    thumbnail,
)
from landmarklabel.data.cases import Case
from landmarklabel.data.split import is_validation
from landmarklabel.errors import LandmarkLabelError
from landmarklabel.io.files import write_json
from landmarklabel.io.images import read_image
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.portability import thread_gives_way
from landmarklabel.report.thumbnails import Thumbnail, make_thumbnail
from landmarklabel.services.configuration import PoolMonitorConfig
from landmarklabel.services.console import NOTICE
from landmarklabel.services.internal_errors import log_internal_error
from landmarklabel.store.pixels import stamp
from landmarklabel.store.study import Study

if TYPE_CHECKING:
    from landmarklabel.inference.localizer import Localizer


log = logging.getLogger(__name__)


class PoolMonitor:
    """Thumbnails of all images, and what the newest model makes of those without labels.

    Args:
        study: whose images.
        live: the newest model and its version; (None, 0) while there is none.
        inference_lock: held while the model looks at an image, so that no request runs the same networks meanwhile.
    """

    def __init__(
        self,
        study: Study,
        live: Callable[[], tuple[Localizer | None, int]] = lambda: (None, 0),
        inference_lock: Callable[[], AbstractContextManager] = nullcontext,
        config: PoolMonitorConfig | None = None,
    ):
        self.study, self.live, self.inference_lock = study, live, inference_lock
        self.config = config or PoolMonitorConfig()
        self.file = study.cache_dir / "pool.json"
        self.thumbnails: dict[str, np.ndarray] = {}
        self.pictures: dict[str, Thumbnail] = {}  # to be shown
        self._file_stamps: dict[str, str] = {}  # of the files that were looked at
        self._next_check = 0.0
        self._problems: int | None = None  # of label files, at the last look; the server's start has told of those before
        # Of images without labels, and as it was before people labelled them: model version, and what it made of them.
        self.assessments: dict[str, tuple[int, ImageAssessment]] = self._load()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pool", daemon=True)
        self._passes = ThreadPoolExecutor(1, "pool passes")

    def start(self) -> None:
        """Begin to look, in a thread of its own."""
        self._passes.submit(int).result()  # makes its thread here: one made by the thread below would be as slow as that is
        self._thread.start()

    def stop(self) -> None:
        """End after the image that is being looked at."""
        self._stop.set()

    def pool(self, open_ids: list[str]) -> UnlabelledPool:
        """What is known right now of the cases that may be chosen."""
        labelled, free = self.study.labelled(), set(open_ids)
        assessments = {i: s for i, (_, s) in list(self.assessments.items()) if i in free}
        validation = frozenset(i for i in open_ids if is_validation(i))
        placed = {i: points.positions_mm for i, points in labelled.items()}
        correlation = error_correlation(self._observed(labelled).values())
        return UnlabelledPool(open_ids, list(labelled), dict(self.thumbnails), assessments, correlation, validation, placed)

    def observed(self) -> dict[str, tuple[ImageAssessment, np.ndarray]]:
        """Of labelled images a model saw first: what it made of them, and (n,) how far off it was, in the task's mm."""
        return self._observed(self.study.labelled())

    def _observed(self, labelled: dict[str, LandmarkSet]) -> dict[str, tuple[ImageAssessment, np.ndarray]]:
        known = {i: (self.assessments[i][1], points) for i, points in labelled.items() if i in self.assessments}
        return {i: (one, prediction_error(one, points)) for i, (one, points) in known.items()}

    def _run(self) -> None:
        thread_gives_way(self.config.niceness)
        while not self._stop.wait(self.config.rest_s):
            try:
                self._round()
            except Exception as error:  # a full disk, a damaged model: this thread tries again, whatever it was
                log_internal_error(error)
                self._stop.wait(self.config.retry_s)

    def _round(self) -> None:
        model, version = self._passes.submit(self.live).result()  # requests wait for a model to be loaded as well
        labelled, changed = self._labelled_now(), 0
        for image_id, path in self.study.images().items():
            if self._stop.is_set():
                return
            wanted = model is not None and image_id not in labelled and self.assessments.get(image_id, (0, None))[0] != version
            if image_id in self.thumbnails and not wanted:
                continue
            began = time.monotonic()
            with suppress(LandmarkLabelError):
                before, image = stamp(path), read_image(path, self.study.task.dims)
                self.study.note_pixels(image_id, image, before)
                if image_id not in self.thumbnails:
                    looked = Case(image_id, image)
                    self.pictures[image_id] = make_thumbnail(looked, self.config.thumbnail_pixels)
                    self.thumbnails[image_id] = thumbnail(looked)
                if wanted and model is not None:
                    case = model.case(image_id, image)
                    with self.inference_lock():  # requests wait meanwhile, so not at the low priority of this thread
                        self.assessments[image_id] = version, self._passes.submit(assess_image, model, case).result()
                    changed += 1
            if not wanted:  # a first look at many images: requests of the first seconds come before it
                self._stop.wait(self.config.first_look_pause * (time.monotonic() - began))
            if changed and changed % self.config.saved_every == 0:
                self._save()
        if changed:
            self._save()

    def _labelled_now(self) -> dict[str, LandmarkSet]:
        """After a look at what may have changed behind the server's back: label files, and pixels of labelled images."""
        started = time.monotonic()
        if started >= self._next_check:
            self._look_at_label_files()
            self.study.verify()
            for image_id, path in self.study.images().items():
                self._forget_if_changed(image_id, stamp(path))
            self._next_check = time.monotonic() + self.config.check_share * (time.monotonic() - started)
        return self.study.labelled()

    def _look_at_label_files(self) -> None:
        """What people have edited becomes revisions; how much needs a look is logged where that has changed."""
        try:
            problems = len(self._passes.submit(self.study.take_in_edits, at_leisure=True).result())  # savers wait for its lock
        except LandmarkLabelError:  # in use, or changed by another program: it is looked at again
            return
        if self._problems is not None and problems > self._problems:
            log.log(NOTICE, "%d label files need a look: landmarklabel study status says which", problems)
        self._problems = problems

    def _forget_if_changed(self, image_id: str, now: str) -> None:
        if self._file_stamps.setdefault(image_id, now) != now:
            self._file_stamps[image_id] = now
            self.thumbnails.pop(image_id, None)
            self.pictures.pop(image_id, None)
            self.assessments.pop(image_id, None)

    def _save(self) -> None:
        rows = {i: {"version": v, "stamp": self._file_stamps.get(i, ""), **s.to_json()} for i, (v, s) in self.assessments.items()}
        write_json(self.file, rows)

    def _load(self) -> dict[str, tuple[int, ImageAssessment]]:
        out = {}
        with suppress(OSError, ValueError, AttributeError):
            for image_id, row in json.loads(self.file.read_text(encoding="utf-8")).items():
                with suppress(KeyError, TypeError):
                    if was := row.pop("stamp", ""):
                        self._file_stamps[str(image_id)] = was
                    out[str(image_id)] = int(row.pop("version")), ImageAssessment.from_json(row)
        return out
