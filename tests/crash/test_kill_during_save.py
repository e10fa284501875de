"""kill -9 in the middle of saving labels: what was acknowledged is there, every file is whole, work goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from label_writer import IDS, TASK
from tests.thoroughness import times

from landmarklabel.io.markups import dump_markups
from landmarklabel.store.revision_json import landmarks_of
from landmarklabel.store.study import Study

ROUNDS = times(60, in_full=200)
WRITER = Path(__file__).with_name("label_writer.py")


def test_kills_lose_no_acknowledged_label(tmp_path):
    for image_id in IDS:
        (tmp_path / f"{image_id}.png").touch()
    command = [sys.executable, str(WRITER), str(tmp_path), str(ROUNDS), "0"]
    done = subprocess.run(command, capture_output=True, timeout=500, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rounds) == ROUNDS
    for name in ("lost", "half_written", "problems", "leftovers"):
        assert [r[name] for r in rounds if r[name]] == [], name
    acknowledged = [line for r in rounds for line in r["acknowledged"]]
    assert len(acknowledged) >= ROUNDS // 4  # the writers did work
    assert max(r["reopen_s"] for r in rounds) < 2

    study = Study(tmp_path, TASK)
    assert study.revisions.verify() == []
    kept = {f"{r.image_id} {r.number} {r.sha256}" for image_id in IDS for r in study.history(image_id)}
    assert set(acknowledged) <= kept
    for image_id, head in study.revisions.heads().items():
        text = (tmp_path / "labels" / "final" / f"{image_id}.mrk.json").read_text(encoding="utf-8")
        assert text == dump_markups(landmarks_of(head.body, TASK))
        history = study.history(image_id)
        assert [r.number for r in history] == list(range(1, head.number + 1))
        assert "file" not in {r.author for r in history}  # a stale file was never taken for a person's edit
    study.close()
