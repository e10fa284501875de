"""``landmarklabel.evaluate``: predictions against the truth, however the two are given, as one small object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landmarklabel.errors import TaskMismatch, UsageError
from landmarklabel.landmarks import LandmarkSet, LandmarkTask

if TYPE_CHECKING:
    import pandas

    from landmarklabel.store.study import Study

Landmarks = Mapping[str, LandmarkSet] | LandmarkSet | str | Path


@dataclass(frozen=True, repr=False)
class Evaluation:
    """How far predictions are from the truth; ``evaluate`` makes one.

    Args:
        metrics: all figures, as ``landmarklabel evaluate --json`` prints them.
        remarks: what a person should know of the images that do not count, one text each.
    """

    metrics: Mapping[str, Any]
    remarks: tuple[str, ...] = ()

    @property
    def mre(self) -> float:
        """Mean radial error over all points found, in ``unit``; NaN where none was found."""
        value = self.metrics["mre_mm"]
        return float("nan") if value is None else float(value)

    @property
    def sdr(self) -> dict[float, float]:
        """Radius (2, 2.5, 3 and 4 ``unit``) to the percentage of points within it; a missed point counts as outside."""
        return {float(radius): float("nan") if share is None else float(share) for radius, share in self.metrics["sdr"].items()}

    @property
    def per_landmark(self) -> dict[str, dict[str, Any]]:
        """The figures of each landmark by its name."""
        return dict(self.metrics["per_landmark"])

    @property
    def unit(self) -> str:
        """Of all distances: ``mm``, or ``px`` where an image states no spacing and the task no scale rule."""
        return str(self.metrics["unit"])

    def to_dict(self) -> dict[str, Any]:
        """All figures, as ``landmarklabel evaluate --json`` prints them."""
        return dict(self.metrics)

    def to_dataframe(self) -> pandas.DataFrame:
        """A pandas DataFrame, one row per landmark; distances in ``unit``, rates in percent. Raises MissingPackage."""
        from landmarklabel.display import dataframe

        rows = self.per_landmark.values()
        columns: dict[str, list[object]] = {name: [row[f"{name}_mm"] for row in rows] for name in ("mre", "median", "sd", "max")}
        columns |= {f"sdr_{radius}": [row["sdr"][radius] for row in rows] for radius in self.metrics["sdr"]}
        columns |= {f"outliers_{radius}": [row["outliers"][radius] for row in rows] for radius in self.metrics["outliers"]}
        frame = dataframe(columns, index=list(self.per_landmark), index_name="landmark")
        frame.attrs["unit"] = self.unit
        return frame

    def __repr__(self) -> str:
        from landmarklabel.services.evaluations import metrics_line

        what = f"{self.metrics['n_images']} images, {self.metrics['n_landmarks']} landmarks: {metrics_line(self.metrics)}"
        return "\n".join([f"Evaluation of {what}", *(f"  {text}" for text in self.remarks)])


def evaluate(
    predictions: Landmarks,
    truth: Landmarks | Study,
    task: LandmarkTask | str | Path | None = None,
    *,
    images: str | Path | None = None,
    include_training: bool = False,
) -> Evaluation:
    """Measure predictions against the truth, as ``landmarklabel evaluate`` does.

    Args:
        predictions: image id to ``LandmarkSet``, one set, a folder that ``landmarklabel predict`` wrote, or a table.
        truth: the same, or a study; of it counts what a person has stated, and no prediction.
        task: of both; may be left out where a set or study knows it.
        images: folder of the images, where neither sets nor study say whether distances are mm or pixels.
        include_training: count images that the model was trained on, which a folder of predictions remembers.

    Raises:
        StudyError: nothing to measure. UsageError: the task is not known. TaskMismatch: sets of different tasks.
        LandmarkFileError: files that cannot be read. ImageRejected: an image that the task's scale rule is not for.

    Example:
        ``ll.evaluate({"case1": model.predict("case1.nii.gz")}, study).mre``
    """
    from landmarklabel.services.descriptions import check_scale, unit_lookup
    from landmarklabel.services.evaluations import compare
    from landmarklabel.services.label_folders import images_beside
    from landmarklabel.services.predicted_images import of_models
    from landmarklabel.store.study import Study as StudyClass
    from landmarklabel.tasks import resolve_task

    given = task if isinstance(task, LandmarkTask) or task is None else resolve_task(str(task))
    place = truth.folder if isinstance(truth, StudyClass) else Path(truth) if isinstance(truth, str | Path) else None
    known = given or _task_of(truth) or _task_of(predictions)  # the truth's scale rule counts
    if known is None:
        raise UsageError("which landmarks? neither predictions nor truth say it themselves: give task=…")
    found = images_beside(place or Path(), images) if place or images else {}
    told: list[str] = []
    predicted, true = (_sets(one, known, found, told) for one in (predictions, truth))
    notes: dict[str, dict] = {}
    if isinstance(predictions, str | Path) and Path(predictions).is_dir():
        predicted, notes, of_them = of_models(predictions, predicted)
        told += of_them
    check_scale(known, sorted(predicted), notes, found)
    of_files, own = unit_lookup(notes, found), {i: x.unit for i, x in predicted.items() if x.unit != "mm"}
    done = compare(
        known,
        predicted,
        true,
        unit=lambda i: own.get(i) or of_files(i),
        trained_on=[i for i, note in notes.items() if note.get("trained_on") is True],
        include_training=include_training,
    )
    return Evaluation(done.metrics, (*told, *done.remarks))


def _task_of(landmarks: Landmarks | Study) -> LandmarkTask | None:
    from landmarklabel.store.opening import recorded_task

    if isinstance(landmarks, str | Path):
        return recorded_task(landmarks)
    if isinstance(landmarks, Mapping):
        return next((one.task for one in landmarks.values()), None)
    return landmarks.task


def _sets(
    landmarks: Landmarks | Study, task: LandmarkTask, images: Mapping[str, Path], told: list[str]
) -> dict[str, LandmarkSet]:
    """Landmarks by image id from any of the ways they are given; ``told`` gets remarks. Raises TaskMismatch."""
    from landmarklabel.services.label_folders import read_many
    from landmarklabel.store.study_task import check_same_task

    if isinstance(landmarks, str | Path):
        check_same_task(landmarks, task, exactly=True)
        sets, remarks = read_many(landmarks, task, images)
        told += remarks
        return sets
    if isinstance(landmarks, LandmarkSet):
        landmarks = {"image": landmarks}
    sets = dict(landmarks) if isinstance(landmarks, Mapping) else landmarks.newest()
    for image_id, one in sets.items():
        if one.task.hash != task.hash:
            raise TaskMismatch(
                f"{image_id}: landmarks of task {one.task.name!r}, not of {task.name!r}; names and order must agree"
            )
    return {i: replace(one, task=task) for i, one in sets.items()}
