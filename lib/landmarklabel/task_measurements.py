"""A task's measurements together: read from its file, what is wrong between them, and in which order they are calculated."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from landmarklabel.errors import TaskError, listed
from landmarklabel.measurement_definitions import (
    KINDS,
    Measurement,
    called,
    composed,
    shown,
    with_article,
)
from landmarklabel.task_limits import LIMITS


def read_measurements(content: object, names: Iterable[object], dims: object) -> tuple[tuple[Measurement, ...], list[str]]:
    """The entries of a task file's ``measurements``, and all their faults; no entries where there is a fault.

    Args:
        content: of the file, whatever it is.
        names: of the task's landmarks.
        dims: of the task.
    """
    if not isinstance(content, list) or len(content) > LIMITS.measurements:
        return (), [f'"measurements" must be a list of at most {LIMITS.measurements} objects']
    found, faults, broken = [], [], set()
    for i, entry in enumerate(content):
        try:
            found.append(Measurement.from_json(entry))
        except TaskError as error:
            name = entry.get("name") if isinstance(entry, dict) else None
            broken |= {composed(name)} if isinstance(name, str) else set()
            what = error.what if isinstance(name, str) else f"measurement {i + 1}"
            faults += [f"{what}: {fault}" for fault in error.faults]
    faults += reference_faults(found, names, dims, broken)
    return () if faults else tuple(found), faults


def reference_faults(
    measurements: Iterable[Any], names: Iterable[object], dims: object, broken: Collection[str] = ()
) -> list[str]:
    """What is wrong between measurements, the task's landmarks and each other, one text each.

    Args:
        measurements: of a task.
        names: of its landmarks.
        dims: of the task.
        broken: names of measurements that have faults of their own; that others refer to them is none.
    """
    given: list[Any] = list(measurements)
    faults: list[str] = []
    if len(given) > LIMITS.measurements:
        return [f"{len(given)} measurements; allowed are at most {LIMITS.measurements}"]
    if not all(isinstance(m, Measurement) for m in given):
        return ["a measurement must be a Measurement"]
    known, seen = {name for name in names if isinstance(name, str)}, set(broken)
    for m in given:
        if m.name in seen:
            faults.append(f"{called(m.name)}: the name appears twice")
        seen.add(m.name)
    for m in given:
        unknown = [f"names {shown(name)}, which is no landmark" for name in m.landmarks if name not in known]
        unknown += [f"names {shown(name)}, which is no measurement" for name in m.of if name not in seen]
        faults += [f"{called(m.name)}: {fault}" for fault in [*unknown, *_dims_faults(m, dims)]]
    ordered, rest = in_order(given)
    if rest:
        circle = f"s {listed([repr(m.name) for m in rest])} refer to each other in a circle"
        faults.append("measurement" + (circle if len(rest) > 1 else f" {shown(rest[0].name)} refers to itself"))
    of_one = dimensions(ordered)
    for m in ordered:
        there = {of_one[name] for name in m.of if name in of_one}
        if len(there) > 1:
            faults.append(f"{called(m.name)}: its parts are of different units ({', '.join(sorted(there))})")
        elif m.kind == "ratio" and not there <= {"length", "angle"}:
            faults.append(f"{called(m.name)}: a ratio is of two lengths or two angles")
    return faults


def in_order(measurements: Iterable[Measurement]) -> tuple[list[Measurement], list[Measurement]]:
    """Measurements so that each comes after those it is made of, and those that refer to each other in a circle.

    What stands behind a circle is in neither list.
    """
    waiting = {m.name: m for m in measurements}
    ordered: list[Measurement] = []
    while ready := [m for m in waiting.values() if not waiting.keys() & set(m.of)]:
        ordered += ready
        waiting = {name: m for name, m in waiting.items() if m not in ready}
    while behind := waiting.keys() - {name for m in waiting.values() for name in m.of}:
        waiting = {name: m for name, m in waiting.items() if name not in behind}
    return ordered, list(waiting.values())


def dimensions(ordered: Iterable[Measurement]) -> dict[str, str]:
    """``length``, ``angle``, ``ratio`` or ``percentage`` by measurement, which come in order (``in_order``)."""
    found: dict[str, str] = {}
    for m in ordered:
        if m.kind == "ratio":
            found[m.name] = "percentage" if m.percent else "ratio"
        elif m.kind != "sum":
            found[m.name] = KINDS[m.kind].dimension
        elif there := [found[name] for name in m.of if name in found]:
            found[m.name] = there[0]
    return found


def _dims_faults(m: Measurement, dims: object) -> list[str]:
    kind = KINDS[m.kind]
    if dims not in (2, 3):
        return []
    if dims not in kind.dims:
        return [f"{with_article(m.kind)} is defined in {kind.dims[0]}D, the task is {dims}D"]
    if m.towards is not None and dims not in kind.signed_in:
        return [f"the sign of {with_article(m.kind)} is defined in {kind.signed_in[0]}D, the task is {dims}D"]
    return []
