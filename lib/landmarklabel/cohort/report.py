"""The page of a cohort: how far and how fast, what has failed and why, and the doubtful cases with their pictures."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from landmarklabel import __version__
from landmarklabel.cohort.configuration import CONFIG
from landmarklabel.cohort.progress import Progress
from landmarklabel.cohort.run_folder import CohortRun, Row, not_writable
from landmarklabel.data.cases import Case
from landmarklabel.errors import LandmarkLabelError, listed
from landmarklabel.inference.model_card import cautions
from landmarklabel.io.images import read_image
from landmarklabel.io.pixels import pixel_hash
from landmarklabel.landmarks import LandmarkSet, Status
from landmarklabel.report.configuration import CONFIG as REPORT
from landmarklabel.report.page import Page
from landmarklabel.report.thumbnails import make_thumbnail, sheet, thumbnail_html

REPORT_FILE = "report.html"


def write_report(run: CohortRun, progress: Progress) -> Path:
    """Write ``report.html`` into the folder of the cohort; its path."""
    page = Page(f"{run.task.name}: {progress.cases} cases")
    page.text(_about(run))
    for text in cautions(run.record):
        page.text(f"Careful: {text}")
    page.numbers(_numbers(progress))
    if progress.reasons:
        page.section("Failed")
        page.text(
            "One case of each kind, and how many have failed alike; cohort run --again tries them again. The table names each."
        )
        page.table(["Reason", "Cases"], progress.reasons.most_common(CONFIG.most_reasons))
    if progress.doubtful:
        shown = progress.doubtful[: CONFIG.most_flagged]
        page.section("Doubtful")
        page.text(
            "Cases with flagged landmarks, those with most of them first: look at these. Below a picture is which they are."
        )
        wanted = [i for i, _ in shown[: CONFIG.most_pictures]]
        pictures = _pictures(run, wanted)
        page.html_block(sheet(pictures, 14))
        if len(pictures) < len(wanted):
            left = len(wanted) - len(pictures)
            page.text(f"{left} more are not shown: their images are at an address, changed since, or cannot be read.")
        page.table(["Landmark", "Flagged in so many cases"], progress.flagged.most_common(CONFIG.most_reasons))
        page.table(["Case", "Flagged landmarks"], shown)
        if len(progress.doubtful) > len(shown):
            page.text(f"{len(progress.doubtful) - len(shown)} more are in the table, column doubtful.")
    path = run.folder / REPORT_FILE
    try:
        page.write(path)
    except OSError as error:
        raise not_writable(run.folder, error) from None
    return path


def _about(run: CohortRun) -> str:
    made = f"{run.record.get('preset')}, weights {str(run.record.get('weights_sha256'))[:12]}"
    return f"{run.folder.absolute()}, {datetime.now():%Y-%m-%d %H:%M}. Model: {made}. Program: LandmarkLabel {__version__}."


def _numbers(progress: Progress) -> list[tuple[str, str, str]]:
    counts = [
        ("Done", str(progress.done), f"of {progress.cases} cases"),
        ("Failed", str(progress.failed), "see below" if progress.failed else ""),
        ("Doubtful", str(len(progress.doubtful)), "with flagged landmarks"),
    ]
    if progress.left:
        counts.append(("Without a result", str(progress.left), "cohort run goes on"))
    if progress.busy_s:
        per_second = (progress.done + progress.failed) / progress.busy_s
        counts.append(("Cases a second", f"{per_second:.3g}", "of all computers together, without pauses"))
    if progress.done:
        each = f"{1000 * progress.read_s / progress.done:.0f} ms read, {1000 * progress.predict_s / progress.done:.0f} ms predict"
        counts.append(("A case took", each, "in one worker"))
    return counts


def _pictures(run: CohortRun, ids: list[str]) -> list[str]:
    wanted, pictures = set(ids), dict[str, str]()
    for case, row in run.rows():
        if case.id in wanted and row is not None:
            try:
                image = read_image(case.path, run.task.dims)
            except (LandmarkLabelError, OSError):
                continue
            if pixel_hash(image) == row["pixels"]:  # else the points are of another image
                names = listed([run.task.names[i] for i in row["flagged"]])
                picture = make_thumbnail(Case(case.id, image), REPORT.sheet_pixels)
                pictures[case.id] = thumbnail_html(picture, _landmarks(run, row), f"{case.id}: {names}")
    return [pictures[i] for i in ids if i in pictures]


def _landmarks(run: CohortRun, row: Row) -> LandmarkSet:
    positions = [[float("nan") if x is None else x for x in position] for position in row["positions"]]
    return LandmarkSet(run.task, positions, tuple(Status(s) for s in row["status"]))  # type: ignore[arg-type]  # made an array
