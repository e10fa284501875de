"""A whole round on real images, driven through the panel's buttons: next case, predict, correct one, the others follow, accept,
submit, train, next case."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import qt_harness
from qt_harness import idle, press, wait_for
from serving import Material, serving

qt = qt_harness.install()

from LandmarkLabelLib.markups import flipped  # noqa: E402
from LandmarkLabelLib.wire import ABSENT, ACCEPTED, PLACED, PREDICTED  # noqa: E402

from landmarklabel.io.markups import read_markups  # noqa: E402
from landmarklabel.io.tables import read_table  # noqa: E402
from landmarklabel.tasks import SHIPPED, resolve_task  # noqa: E402

MINUTES = 0.2


def some(data: Path, task_name: str, folder: Path, count: int) -> Material:
    """A study of ``count`` images of a set: training images of the hands, the first mice."""
    task = resolve_task(task_name)
    if task_name == "hand_xray":
        source = data / "hand_xray"
        truth = read_table(source / "landmarks.csv", task)
        with (source / "landmarks.csv").open(encoding="utf-8") as table:
            ids = [row["id"] for row in csv.DictReader(table) if row["split"] == "train"]
    else:
        source = data / "mouse_ct"
        truth = {p.name.removesuffix(".mrk.json"): read_markups(p, task) for p in (source / "landmarks").glob("*.mrk.json")}
        ids = sorted(truth)
    study = folder / "study"
    study.mkdir(parents=True)
    for image_id in ids[:count]:
        shutil.copy(next((source / "images").glob(f"{image_id}.*")), study)
    return Material(study, SHIPPED / f"{task_name}.json", task, {i: truth[i] for i in ids[:count]})


def drag(panel, name: str, position: np.ndarray) -> None:
    """What dragging does to the point: grabbed, moved in steps, let go."""
    node, index = panel.node.node, panel.logic.task.names.index(name)
    start, end = np.array(panel.node.position(name)), np.array([*position, 0.0][:3])
    node.InvokeEvent(node.PointStartInteractionEvent)
    for share in (0.3, 0.7, 1.0):
        node.SetNthControlPointPositionWorld(index, *flipped(start + share * (end - start)))
    node.InvokeEvent(node.PointEndInteractionEvent)


@pytest.mark.parametrize("task_name, labelled", [("hand_xray", 8), ("mouse_skull", 5)])
def test_a_round_on_real_images(data_dir, tmp_path, task_name, labelled):
    material = some(data_dir, task_name, tmp_path, labelled + 2)
    ids = sorted(material.truth)
    here, following = ids[labelled:]
    place = tmp_path / "labels"
    place.mkdir()
    with serving(material) as server:
        for image_id in ids[:labelled]:
            server.client.save_label(image_id, str(material.label_file(image_id, place)), tag="final")
        panel, window = qt_harness.open_panel(tmp_path / "panel")
        panel.ui.url.setText(server.url)
        press(panel, "connectButton")
        idle(panel)
        panel.ui.strategy.setCurrentIndex(panel.ui.strategy.findText("first"))
        press(panel, "nextButton")
        idle(panel)
        assert panel.logic.session.image_id == here
        size = panel.volume.node.GetImageData().GetDimensions()
        assert size[: material.task.dims] == material.geometry(here).size
        press(panel, "predictButton")
        idle(panel)
        truth = material.truth[here].positions_mm
        before = errors(panel, truth)
        for _ in range(4):
            press(panel, "nextDoubtfulButton")
            number = material.task.names.index(panel.current)
            drag(panel, panel.current, truth[number])
            idle(panel)
            assert panel.ui.message.text().endswith("points moved; Ctrl+Z puts them back") and panel.logic.moved > 0
            assert errors(panel, truth)[number] < 1e-6
        assert np.median(errors(panel, truth)) < 0.9 * np.median(before)
        press(panel, "acceptAllButton")
        assert {p.state for p in panel.logic.session.points} == {PLACED, ACCEPTED}
        press(panel, "submitButton")
        wait_for(panel, lambda: panel.logic.session.image_id == following, "the next case")
        assert server.get(f"/landmarks/images/{here}")["revision"] == 1
        panel.ui.minutes.setValue(MINUTES)
        press(panel, "trainButton")
        wait_for(panel, lambda: panel.logic.training.percent > 0, "the training to start")
        wait_for(panel, lambda: not panel.logic.training.is_running, "the training to end", seconds=200)
        assert panel.ui.trainingText.text().startswith(("published", "not published")), panel.ui.trainingText.text()
        press(panel, "predictButton")
        idle(panel)
        trained = server.client.info()["models"]["scn"]["trained"]  # seconds of it do not always beat the shape's guess
        said = panel.ui.message.text()
        assert said.startswith("predicted; ") if trained else said == "placed by the shape of the labelled cases"
        assert ("how far the model is off was" in said) == trained  # so few cases measure little, or nothing
        states = [p.state for p in panel.logic.session.points]  # after seconds of training some are called absent
        assert states.count(PREDICTED) > 0.7 * len(states) and set(states) <= {PREDICTED, ABSENT}
        panel.close()
        window.close()


def errors(panel, truth: np.ndarray) -> np.ndarray:
    """(n,) mm."""
    shown = np.array([p.position[: truth.shape[1]] for p in panel.logic.session.points])
    return np.linalg.norm(shown - truth, axis=1)
