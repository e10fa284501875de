"""What the strategies know of the study's images, kept up to date in the background: asking for a case never waits for it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress

import numpy as np

from landmarklabel.active.pool import Pool, Seen, look_over, off_by, thumbnail, trust
from landmarklabel.data.cases import Case
from landmarklabel.data.split import is_validation
from landmarklabel.errors import LandmarkLabelError
from landmarklabel.inference.localizer import Localizer
from landmarklabel.io.files import write_json
from landmarklabel.io.images import read_image
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.report.thumbnails import Thumbnail, make_thumbnail
from landmarklabel.server.console import tell_of
from landmarklabel.store.pixels import stamp
from landmarklabel.store.study import Study

CHECK_SHARE = 50  # times as long as a look at changed files took, until the next one
REST_S, NICENESS = 2.0, 15  # between looks at what has changed; of the thread
SAVED_EVERY = 10  # images
STAMP = 128  # pixels of a picture's longest side on the status page: some 4 kB an image


class PoolWatch:
    """Thumbnails of all images, and what the newest model makes of those without labels.

    Args:
        study: whose images.
        live: the newest model and its version; (None, 0) while there is none.
        alone: held while the model looks at an image, so that no request runs the same networks meanwhile.
    """

    def __init__(
        self,
        study: Study,
        live: Callable[[], tuple[Localizer | None, int]] = lambda: (None, 0),
        alone: Callable[[], AbstractContextManager] = nullcontext,
    ):
        self.study, self.live, self.alone = study, live, alone
        self.file = study.cache_dir / "pool.json"
        self.looks: dict[str, np.ndarray] = {}
        self.pictures: dict[str, Thumbnail] = {}  # to be shown
        self._stamps: dict[str, str] = {}  # of the files that were looked at
        self._next_check = 0.0
        self.seen: dict[str, tuple[int, Seen]] = self._load()  # model version, and what it saw before people labelled the image
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

    def pool(self, open_ids: list[str]) -> Pool:
        """What is known right now of the cases that may be chosen."""
        labelled, free = self.study.labelled(), set(open_ids)
        seen = {i: s for i, (_, s) in list(self.seen.items()) if i in free}
        calibration = frozenset(i for i in open_ids if is_validation(i))
        placed = {i: points.positions_mm for i, points in labelled.items()}
        return Pool(open_ids, list(labelled), dict(self.looks), seen, trust(self.observed().values()), calibration, placed)

    def observed(self) -> dict[str, tuple[Seen, np.ndarray]]:
        """Of labelled images a model saw first: what it made of them, and (n,) how far off it was, in the task's mm."""
        labelled = self.study.labelled()
        return {i: (self.seen[i][1], off_by(self.seen[i][1], points)) for i, points in labelled.items() if i in self.seen}

    def _run(self) -> None:
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while not self._stop.wait(REST_S):
            try:
                self._round()
            except Exception as error:  # a full disk, a damaged model: this thread tries again, whatever it was
                tell_of(error)
                self._stop.wait(30)

    def _round(self) -> None:
        model, version = self.live()
        labelled, changed = self._labelled_now(), 0
        for image_id, path in self.study.images().items():
            if self._stop.is_set():
                return
            wanted = model is not None and image_id not in labelled and self.seen.get(image_id, (0, None))[0] != version
            if image_id in self.looks and not wanted:
                continue
            with suppress(LandmarkLabelError):
                before, image = stamp(path), read_image(path, self.study.task.dims)
                self.study.note_pixels(image_id, image, before)
                if image_id not in self.looks:
                    looked = Case(image_id, image)
                    self.pictures[image_id] = make_thumbnail(looked, STAMP)
                    self.looks[image_id] = thumbnail(looked)
                if wanted:
                    case = model.case(image_id, image)
                    with self.alone():  # requests wait meanwhile, so not at the low priority of this thread
                        self.seen[image_id] = version, self._passes.submit(look_over, model, case).result()
                    changed += 1
            if changed and changed % SAVED_EVERY == 0:
                self._save()
        if changed:
            self._save()

    def _labelled_now(self) -> dict[str, LandmarkSet]:
        """After a look at what may have changed behind the server's back: label files, and pixels of labelled images."""
        started = time.monotonic()
        if started >= self._next_check:
            self.study.look_again()
            self.study.verify()
            for image_id, path in self.study.images().items():
                self._forget_if_changed(image_id, stamp(path))
            self._next_check = time.monotonic() + CHECK_SHARE * (time.monotonic() - started)
        return self.study.labelled()

    def _forget_if_changed(self, image_id: str, now: str) -> None:
        if self._stamps.setdefault(image_id, now) != now:
            self._stamps[image_id] = now
            self.looks.pop(image_id, None)
            self.pictures.pop(image_id, None)
            self.seen.pop(image_id, None)

    def _save(self) -> None:
        rows = {i: {"version": v, "stamp": self._stamps.get(i, ""), **vars(s)} for i, (v, s) in self.seen.items()}
        write_json(self.file, rows)

    def _load(self) -> dict[str, tuple[int, Seen]]:
        out = {}
        with suppress(OSError, ValueError, AttributeError):
            for image_id, row in json.loads(self.file.read_text(encoding="utf-8")).items():
                with suppress(KeyError, TypeError):
                    if was := row.pop("stamp", ""):
                        self._stamps[str(image_id)] = was
                    out[str(image_id)] = int(row.pop("version")), Seen(**row)
        return out
