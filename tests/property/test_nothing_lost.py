"""Random interleavings of everything that can happen to a study's labels: nothing is lost, nothing silently replaced.

Hand edits (whole files, files written in place, files that an editor is half through with), submissions with and without a base,
edits that fall between a submission's steps, restores, images swapped and put back, and a second program on the same study.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from tests.thoroughness import times

from landmarklabel.errors import Conflict
from landmarklabel.io.files import MARKUPS_SUFFIX
from landmarklabel.io.markups import dump_markups, read_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.store import label_files
from landmarklabel.store.study import Study

TASK = LandmarkTask("t", ("p", "q"), dims=2)
IMAGES = st.sampled_from(["a", "b"])
PROGRAMS = st.sampled_from([0, 1])
EDITS = st.sampled_from([None, "save", "swap_in"])  # a step of a submission
INTERLEAVINGS = times(150, in_full=1000)
FAST_DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # these tests are about order, not about disks


def points(value: int) -> LandmarkSet:
    """Landmarks that nobody else states."""
    return LandmarkSet.of_positions(TASK, np.array([[value, 0.5], [value, 1.5]], float))


class AnythingGoes(RuleBasedStateMachine):
    """Every statement gets a number of its own, which its landmarks carry."""

    @initialize()
    def open(self):
        self.folder = Path(tempfile.mkdtemp(dir=FAST_DISK))
        self.programs = [Study(self.folder, TASK), None]
        self.count, self.pixels, self.made_on = 0, {}, {}
        self.said = {"a": set(), "b": set()}  # statements that were acknowledged or are whole in a file
        self.half = {}  # image to an editor's open file and what it is going to say
        for image_id in "ab":
            self._write_image(image_id)
        self.programs[1] = Study(self.folder, TASK)

    def teardown(self):
        if not hasattr(self, "folder"):
            return
        try:
            self._check()
        finally:
            for file, _ in self.half.values():
                file.close()
            for study in self.programs:
                study.close()
            shutil.rmtree(self.folder)

    def _next(self) -> int:
        self.count += 1
        return self.count

    def _write_image(self, image_id):
        self.pixels[image_id] = self._next()
        path = self.folder / f"{image_id}.png"
        sitk.WriteImage(sitk.GetImageFromArray(np.full((4, 5), self.pixels[image_id] % 251, np.uint8)), str(path))

    def _file(self, image_id) -> Path:
        return self.folder / "labels" / "final" / f"{image_id}{MARKUPS_SUFFIX}"

    def _kept(self, image_id) -> list[int]:
        """What the revisions of an image say, the oldest first."""
        store = self.programs[0].revisions
        return [int(self.programs[0].read(r).positions_mm[0, 0]) for r in store.history(image_id)]

    # --- what people and programs do ---------------------------------------------------------------------------------

    def _edit(self, image_id, whole: bool):
        """A person saves the label file; returns what it says."""
        value, path = self._next(), self._file(image_id)
        if path.exists():
            before = int(read_markups(path, TASK).positions_mm[0, 0])
            if before not in self._kept(image_id):  # their own, over which they wrote before any program looked
                self.said[image_id].discard(before)
        text = dump_markups(points(value))
        if whole:
            fresh = path.with_name(f"{value}.tmp")
            fresh.write_text(text, encoding="utf-8")
            os.replace(fresh, path)
        else:
            path.write_text(text, encoding="utf-8")
        self.said[image_id].add(value)
        return value

    @rule(image_id=IMAGES, whole=st.booleans(), program=PROGRAMS)
    def edit_and_notice(self, image_id, whole, program):
        if image_id not in self.half:
            self._edit(image_id, whole)
            self.programs[program].sync()

    @rule(image_id=IMAGES)
    @precondition(lambda self: len(self.half) < 2)
    def begin_to_write_in_place(self, image_id):
        if image_id in self.half or not self._file(image_id).exists():
            return
        self.programs[0].sync()  # what lies there is known
        file = self._file(image_id).open("r+", encoding="utf-8")
        file.truncate()
        text = dump_markups(points(value := self._next()))
        file.write(text[: len(text) // 2])
        file.flush()
        self.half[image_id] = file, (text[len(text) // 2 :], value)
        label_files.CONFIG = replace(label_files.CONFIG, replaced_kept_ns=10**18)  # an editor is at work

    @rule(image_id=IMAGES)
    def end_writing_in_place(self, image_id):
        if image_id in self.half:
            file, (rest, value) = self.half.pop(image_id)
            file.write(rest)
            file.close()
            self.said[image_id].add(value)
            self.programs[0].recheck_replaced()
            label_files.CONFIG = replace(label_files.CONFIG, replaced_kept_ns=10**18 if self.half else 0)

    @rule(image_id=IMAGES, program=PROGRAMS, with_base=st.booleans(), edit=EDITS, whole=st.booleans())
    def submit(self, image_id, program, with_base, edit, whole):
        """A submission; ``edit``: a person saves the file just before that step of it."""
        study, value = self.programs[program], self._next()
        head = study.revisions.head(image_id)
        base = (head.number if head else 0) if with_base else None
        with pytest.MonkeyPatch.context() as patch:
            if edit is not None and image_id not in self.half:
                self._slip_in(patch, study, edit, lambda: self._edit(image_id, whole))
            try:
                study.save(image_id, points(value), author=str(program), base_revision=base)
            except Conflict:
                assert with_base  # somebody was first, and the author is told
                return
        self.said[image_id].add(value)
        self.made_on[value] = self.pixels[image_id]

    @staticmethod
    def _slip_in(patch, study, step, edit):
        owner, name = (study.revisions, "save") if step == "save" else (label_files, "swap_in")
        do, done = getattr(owner, name), []

        def first_the_edit(*given, **more):
            if not done:
                done.append(edit())
            return do(*given, **more)

        patch.setattr(owner, name, first_the_edit)

    @rule(image_id=IMAGES, program=PROGRAMS, back=st.integers(1, 3))
    def restore(self, image_id, program, back):
        history = self.programs[program].history(image_id)
        if len(history) >= back and image_id not in self.half:
            self.programs[program].restore(image_id, history[-back].number, author="restorer")

    @rule(image_id=IMAGES)
    def swap_the_image(self, image_id):
        self._write_image(image_id)

    @rule(image_id=IMAGES, program=PROGRAMS)
    def remove_and_add_another(self, image_id, program):
        self.programs[program].remove_image(image_id)
        self._write_image(image_id)

    @rule(program=PROGRAMS)
    def start_again(self, program):
        self.programs[program].close()
        self.programs[program] = Study(self.folder, TASK)
        self.programs[program].sync()

    # --- what must hold ----------------------------------------------------------------------------------------------

    def _check(self):
        for image_id in list(self.half):
            self.end_writing_in_place(image_id)
        first, second = self.programs
        for study in (first, second, first):
            study.sync()
        for image_id in "ab":
            history = first.history(image_id)
            kept = self._kept(image_id)
            assert self.said[image_id] <= set(kept), f"lost: {self.said[image_id] - set(kept)}"
            if not history:
                continue
            assert self._file(image_id).read_text(encoding="utf-8") == dump_markups(second.labels(image_id))
            made_on = self.made_on.get(kept[-1])
            if made_on is not None and history[-1].source == "annotation":
                same_pixels = made_on == self.pixels[image_id]
                assert (image_id in second.labelled()) == same_pixels == (image_id not in second.changed())
        assert first.revisions.verify() == []


@pytest.mark.slow
def test_random_interleavings_lose_nothing_and_replace_nothing_silently(monkeypatch):
    monkeypatch.setattr(
        label_files, "CONFIG", replace(label_files.CONFIG, editor_idle_ns=0)
    )  # an editor that has closed its file is done
    monkeypatch.setattr(label_files, "CONFIG", replace(label_files.CONFIG, replaced_kept_ns=0))
    limits = settings(max_examples=INTERLEAVINGS, stateful_step_count=8, deadline=None, database=None)
    run_state_machine_as_test(seed(15)(AnythingGoes), settings=limits)
