"""The one table of a cohort: a row for every case, the same bytes whichever processes predicted which part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import Timeout

from landmarklabel.cohort.configuration import CONFIG
from landmarklabel.cohort.manifest import CohortCase
from landmarklabel.cohort.run_folder import OK, CohortRun, Row, lock_mode, not_writable
from landmarklabel.errors import StudyError
from landmarklabel.io.locks import file_lock, take
from landmarklabel.io.tables import table_text
from landmarklabel.landmarks import LandmarkTask

CSV, PARQUET = "table.csv", "table.parquet"
MISSING = "missing"
_ABOUT = {"id": str, "path": str, "state": str, "reason": str, "unit": str, "pixels": str, "trained_on": bool, "doubtful": int}
_AXES = "xyz"


def columns(task: LandmarkTask) -> dict[str, type]:
    """Name and kind of the table's columns.

    ``doubtful`` counts the flagged landmarks; each landmark has its coordinates (LPS mm, or px), its status, its expected error
    and whether it is flagged.
    """
    kinds: dict[str, type] = dict(_ABOUT)
    for name in task.names:
        kinds |= {f"{name}_{axis}": float for axis in _AXES[: task.dims]}
        kinds |= {f"{name}_status": str, f"{name}_expected_error": float, f"{name}_flagged": bool}
    return kinds


def _cells(case: CohortCase, row: Row | None, task: LandmarkTask) -> list[Any]:
    state = MISSING if row is None else row["state"]
    row = row or {}
    about = [case.id, case.path, state, row.get("reason"), row.get("unit"), row.get("pixels"), row.get("trained_on")]
    if state != OK:
        return [*about, None, *[None] * (len(task) * (task.dims + 3))]
    flagged = set(row["flagged"])
    cells: list[Any] = [*about, len(flagged)]
    for i, position in enumerate(row["positions"]):
        cells += [*position, row["status"][i], row["expected_error"][i], i in flagged]
    return cells


def write_table(run: CohortRun) -> dict[str, int]:
    """Write ``table.csv`` and ``table.parquet`` into the folder of the cohort, each whole or not at all.

    Returns:
        How many cases are in which state.

    Raises:
        StudyError: pyarrow is not installed, or another process merges.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise StudyError(
            "the table is also written as Parquet, by the package pyarrow, which the extra [cohort] installs"
        ) from None
    kinds = columns(run.task)
    arrow = {str: pyarrow.string(), float: pyarrow.float64(), bool: pyarrow.bool_(), int: pyarrow.int64()}
    schema = pyarrow.schema([(name, arrow[kind]) for name, kind in kinds.items()])
    counts: dict[str, int] = {}
    part_csv, part_parquet = (run.folder / f".{name}.part" for name in (CSV, PARQUET))
    for name in (CSV, PARQUET):
        if (run.folder / name).is_dir():
            raise StudyError(f"{run.folder / name} is a folder; move it away, the table is written there")
    with _one_at_a_time(run.folder), ExitStack() as files:
        for part in (part_csv, part_parquet):
            files.callback(part.unlink, missing_ok=True)
        text = files.enter_context(part_csv.open("w", encoding="utf-8", newline=""))
        binary = files.enter_context(parquet.ParquetWriter(part_parquet, schema))
        text.write(table_text([list(kinds)]))
        for rows in _groups(run):
            for row in rows:
                counts[row[2]] = counts.get(row[2], 0) + 1
            text.write(table_text([["" if cell is None else _as_text(cell) for cell in row] for row in rows]))
            columns_of_rows = [list(column) for column in zip(*rows, strict=True)]
            binary.write_table(
                pyarrow.Table.from_arrays(
                    [pyarrow.array(column, field.type) for column, field in zip(columns_of_rows, schema, strict=True)],
                    schema=schema,
                )
            )
        text.close()
        binary.close()
        part_csv.replace(run.folder / CSV)
        part_parquet.replace(run.folder / PARQUET)
    return counts


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    lock = file_lock(folder / ".merge.lock", lock_mode())
    try:
        take(lock)
        yield
    except Timeout:
        raise StudyError(f"{folder}: another process merges it; wait for its end") from None
    except OSError as error:
        raise not_writable(folder, error) from None
    finally:
        lock.release()


def _as_text(cell: Any) -> Any:
    return str(cell).lower() if isinstance(cell, bool) else cell


def _groups(run: CohortRun) -> Iterator[list[list[Any]]]:
    rows = (_cells(case, row, run.task) for case, row in run.rows())
    while group := list(islice(rows, CONFIG.rows_at_once)):
        yield group
