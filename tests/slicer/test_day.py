"""Days at the panel on real images: no click is lost, no point gets another's name, every state can be read on screen."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing

import pytest
from day import MISHAPS, Day
from serving import serving
from test_drawn_images import agreement
from test_end_to_end import some
from tests.thoroughness import times

LABELLED, ACTIONS = 4, 5  # cases with labels at the start, things done to a case
SEEDS = range(times(1, in_full=10))
CASES = times(4, in_full=20)


def token_of(study, name: str) -> str:
    words = ("token", "new", study, "--name", name, "--role", name)
    made = subprocess.run([sys.executable, "-m", "landmarklabel", *map(str, words)], capture_output=True, check=True, text=True)
    return re.search(r"\S{20,}", made.stdout)[0]


@pytest.mark.real_data
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("task_name", "most"), [("hand_xray", 20), ("mouse_skull", 15)])
def test_a_day_with_mishaps(data_dir, tmp_path, task_name, most, seed):
    count = min(CASES, most)
    material = some(data_dir, task_name, tmp_path, LABELLED + count)
    ids, place = sorted(material.truth), tmp_path / "labels"
    place.mkdir()
    with serving(material) as server:
        for image_id in ids[:LABELLED]:
            server.client.save_label(image_id, str(material.label_file(image_id, place)), tag="final")
    tokens = {name: token_of(material.study, name) for name in ("admin", "annotator")}
    elsewhere = some(data_dir, task_name, tmp_path / "elsewhere", 2)
    with (
        serving(material) as server,
        serving(elsewhere) as other,
        closing(
            Day(server, material, tmp_path / "panel", tokens, seed, others_case=ids[0], other_study=(other, elsewhere))
        ) as day,
    ):
        mishaps = [MISHAPS[i] for _ in range(2) for i in day.rng.permutation(len(MISHAPS))]
        todo = ids[LABELLED:]
        day.panel.ui.strategy.setCurrentIndex(day.panel.ui.strategy.findText("first"))
        for number, case in enumerate(todo):
            day._back_to_done(case) if day.panel.logic.session is not None else first(day, case)
            day.look_at_pixels(agreement)
            share = max(1, round(len(MISHAPS) * 1.5 / len(todo)))  # every kind comes once, and then some again
            due = mishaps[number * share : (number + 1) * share]
            for step in range(ACTIONS):
                day.annotate()
                if step % 2 == 0 and due:
                    day.mishap(due.pop())
            for left in due:
                day.mishap(left)
            day.submit()
        day.panel.tick()
        left = [(row.image_id, getattr(row, "why", "not submitted")) for row in day.panel._rows]
        assert left == [] and not day.panel.logic.outbox.waiting(), (left, day.log[-5:])
        day.check_server(todo)
        assert day.others_meant and day.meant_elsewhere
        day.as_colleague(day.submit)
        day.check_meant(ids[0], day.others_meant)
        day.in_other_study(day.submit)
        for case, meant in day.meant_elsewhere.items():
            day.check_meant(case, {case: meant}, other)


def first(day: Day, case: str) -> None:
    """The first case of the day is the one the server chooses."""
    day.panel.ui.nextButton.click()
    day.rest()
    assert day.case == case
