"""LandmarkLabel: finds anatomical landmarks in medical images and learns from the people who correct them.

    import landmarklabel as ll

    study = ll.Study.open("STUDY")
    model = ll.train(study, minutes=30)
    model.predict("new.nii.gz")["tip"].position_mm

Reading order: ``landmarks`` and ``geometry`` (the data model), ``io`` (files), ``store`` (a study and its
revisions), ``data`` and ``networks`` (what is learned from what), ``inference``, ``training``, ``active``, ``report``,
``cohort``, ``services``, and at the top ``server`` (HTTP, and the MONAI Label app), ``cli`` and ``api``. Imports point from the
end of this list to its start.
Decision: every position outside a network is in LPS millimetres, float64; 2D is not a second code path.
Decision: importing this loads nothing and changes nothing; each name below is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from landmarklabel.api import Model, load_model, load_task, read_landmarks, train
    from landmarklabel.errors import Cancelled, LandmarkLabelError
    from landmarklabel.evaluation import Evaluation, evaluate
    from landmarklabel.geometry import ImageGeometry
    from landmarklabel.io.image_array import Image
    from landmarklabel.io.images import read_image
    from landmarklabel.landmarks import Landmark, LandmarkSet, LandmarkTask, Status
    from landmarklabel.measurements import Measured, measure
    from landmarklabel.store.study import Study

__version__ = "0.1.0"

__all__ = [
    "Cancelled",
    "Evaluation",
    "Image",
    "ImageGeometry",
    "Landmark",
    "LandmarkLabelError",
    "LandmarkSet",
    "LandmarkTask",
    "Measured",
    "Model",
    "Status",
    "Study",
    "__version__",
    "evaluate",
    "load_model",
    "load_task",
    "measure",
    "read_image",
    "read_landmarks",
    "train",
]

_HOMES = {
    "api": ("Model", "load_model", "load_task", "read_landmarks", "train"),
    "errors": ("Cancelled", "LandmarkLabelError"),
    "evaluation": ("Evaluation", "evaluate"),
    "geometry": ("ImageGeometry",),
    "io.image_array": ("Image",),
    "io.images": ("read_image",),
    "landmarks": ("Landmark", "LandmarkSet", "LandmarkTask", "Status"),
    "measurements": ("Measured", "measure"),
    "store.study": ("Study",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # which would take every misspelt name for one of these

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
