"""The panel's widgets from the ``.ui`` file, and what only Slicer's own widgets can do: the one seam that tests stand in for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import qt
import slicer

FOLDERS = 0x001 | 0x010  # QDir's Dirs and Readable
TEXTS = ("QLineEdit", "QAbstractSpinBox", "QTextEdit", "QPlainTextEdit")  # in which people write
TYPED = (*TEXTS, "QComboBox")  # to which a letter means something
RESOURCES = Path(__file__).resolve().parents[1] / "Resources"


def load_ui():
    """The panel as Qt Designer has it: the widget, and its parts by name."""
    widget = slicer.util.loadUI(str(RESOURCES / "UI" / "LandmarkLabel.ui"))
    return widget, slicer.util.childWidgetVariables(widget)


def takes_folders(*lines) -> None:
    """Lines for paths in which a folder is chosen, not a file."""
    for line in lines:
        line.setProperty("filters", FOLDERS)


def state_icon(state: str):
    """The icon of a landmark's state."""
    return qt.QIcon(str(RESOURCES / "Icons" / f"state_{state}.png"))


def style_pixmap(widget, name: str):
    """One of the style's own icons, which go with its palette, at the size of a line of text."""
    icon = widget.style().standardIcon(getattr(qt.QStyle, name))
    size = widget.fontMetrics().height()
    return icon.pixmap(size, size)


def _content(line) -> str:
    """The property that holds what is typed in a line, or the path of a line for paths."""
    return "currentPath" if line.inherits("ctkPathLineEdit") else "text"


def text_of(widget) -> str:
    """What is typed in a line; the path of a line for paths."""
    return str(widget.property(_content(widget))).strip()


def put_text(widget, text: str) -> None:
    """Fill such a line."""
    widget.setProperty(_content(widget), text)


def when_changed(widget, call) -> None:
    """Call with the new text when such a line is changed."""
    signal = getattr(widget, f"{_content(widget)}Changed")
    signal.connect(lambda text: call(str(text).strip()))


def is_typing(kinds: Sequence[str] = TYPED) -> bool:
    """Whether a key that is pressed now belongs to the widget that has the focus, being of one of these kinds."""
    focus = qt.QApplication.focusWidget()
    return focus is not None and any(focus.inherits(kind) for kind in kinds)


def startup_environment() -> dict:
    """The environment that Slicer was started in: its own paths must not lead other programs into its Python."""
    return dict(slicer.util.startupEnvironment())


def slicer_python() -> str:
    """Slicer's own interpreter, for making environments with; empty where it is not found."""
    name = "PythonSlicer.exe" if sys.platform == "win32" else "PythonSlicer"
    path = Path(str(getattr(slicer.app, "slicerHome", ""))) / "bin" / name
    return str(path) if path.is_file() else ""
