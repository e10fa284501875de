"""Ten thousand cases: saving is as quick as with ten, and a restart takes no time."""

from __future__ import annotations

import time

import numpy as np
import pytest
from tests.store.studies import age, label_file, points

from landmarklabel.io.files import write_json
from landmarklabel.io.markups import dump_markups
from landmarklabel.store import audit, revisions
from landmarklabel.store.revision_json import body_of, canonical
from landmarklabel.store.revisions import RevisionStore
from landmarklabel.store.study import Study

SAVES = 40


def fill(folder, task, url, count):
    """A study with one label a case, written in one go instead of ten thousand saves; the chains are as saves make them."""
    store, landmarks = RevisionStore(url), points(task, 1)
    body = canonical(body_of(landmarks))
    rows, told, chain, trail = [], [], "", ""
    for i in range(1, count + 1):
        row = {"id": i, "image_id": f"case{i}", "number": 1, "author": "ann", "source": "annotation", "created": audit.now()}
        row |= {"key": f"key{i}", "body": body, "sha256": revisions._sha256(body)}
        chain = revisions._chain(chain, row)
        change = {"id": i, "at": row["created"], "who": "ann", "what": "annotation", "subject": row["image_id"], "before": ""}
        change |= {"after": row["sha256"], "revision": i}
        trail = audit._chain(trail, change)
        rows.append(row | {"chain": chain})
        told.append(change | {"chain": trail})
    with store._writing() as connection:
        connection.execute(revisions._rows.insert(), rows)
        connection.execute(revisions._trail.insert(), told)
    store.close()
    study, text, seen = Study(folder, task, url), dump_markups(landmarks), {}
    for row in rows:
        (folder / f"{row['image_id']}.png").touch()
        label_file(study, row["image_id"]).write_text(text, encoding="utf-8")
        seen[row["image_id"]] = {"stamp": study._files._stamp(row["image_id"]), "number": 1, "problem": None}
    write_json(study.cache_dir / "label_files.json", {"task": task.hash, "files": seen})  # as a look at all of them leaves it
    study.close()
    age(folder)


def seconds(act):
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def times_of_saves(study):
    cases = list(study.images())[:10]
    saves = [seconds(lambda i=i: study.save(cases[i % 10], points(study.task, i), author="ann")) for i in range(SAVES)]
    return 1000 * np.array(saves[10:])  # ms; the first ones warm up


@pytest.fixture
def studies(tmp_path, task, new_url):
    """Of ten and of ten thousand cases; folder and URL of each."""
    made = {}
    for count in (10, 10_000):
        made[count] = tmp_path / str(count), new_url()
        fill(made[count][0], task, made[count][1], count)
    return made


@pytest.mark.timed
def test_saving_and_restarting_with_ten_thousand_cases(studies, task, record_property):
    """The figures are recorded; what is asserted leaves room for a slow and busy machine."""
    few, many = (Study(folder, task, url) for folder, url in studies.values())
    times = {len(study.images()): times_of_saves(study) for study in (few, many)}
    for count, values in times.items():
        record_property(f"save_ms_p50_p99_of_{count}", [round(float(np.percentile(values, q)), 1) for q in (50, 99)])
    assert np.median(times[10_000]) < 3 * np.median(times[10])
    few.close()
    many.close()

    folder, url = studies[10_000]
    again = []
    opening = seconds(lambda: again.append(Study(folder, task, url)))
    (study,) = again
    labels = seconds(lambda: study.labelled())
    files = seconds(lambda: study.sync())
    record_property("restart_s_opening_labels_files", [round(t, 2) for t in (opening, labels, files)])
    assert opening < 2 and len(study.labelled()) == 10_000
    assert study.revisions.latest_row() == 10_000 + SAVES and study.revisions.verify() == []
    study.close()
