"""ITK's warnings, off while this program reads or writes an image and as they were before at any other time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import SimpleITK as sitk


class _Silence:
    """The switch is one for the whole process: the first of several threads turns it off, the last puts it back."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, False

    def enter(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.before = sitk.ProcessObject.GetGlobalWarningDisplay()
                sitk.ProcessObject.GlobalWarningDisplayOff()
            self.inside += 1

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                sitk.ProcessObject.SetGlobalWarningDisplay(self.before)


_silence = _Silence()


@contextmanager
def without_itk_warnings() -> Iterator[None]:
    """ITK's warnings name file paths, and paths name patients; what matters in them is an ImageRejected here."""
    _silence.enter()
    try:
        yield
    finally:
        _silence.leave()
