"""``import``: images and their landmarks into a study, every file accounted for."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from landmarklabel.cli.configuration import CONFIG
from landmarklabel.cli.import_labels import Labels, Placed, read_labels
from landmarklabel.cli.progress import followed
from landmarklabel.cli.surfaces import SurfacesRead, stated_surfaces
from landmarklabel.errors import Conflict, LandmarkFileError, LandmarkLabelError, StudyError, UsageError, counted, listed
from landmarklabel.io.bounds_check import check_inside
from landmarklabel.io.cl_detection import read_stack, unpack_images
from landmarklabel.io.folders import Found, find_images
from landmarklabel.io.images import Description, describe_image
from landmarklabel.io.monailabel_datastore import read_datastore
from landmarklabel.io.tables import read_ids
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.scale_rules import PixelSize
from landmarklabel.store.revision_json import same_landmarks
from landmarklabel.store.study import Study
from landmarklabel.store.study_changes import BY_VERB
from landmarklabel.store.study_task import check_same_task
from landmarklabel.tasks import resolve_study_task


@dataclass
class _Account:
    """What became of everything that was seen."""

    refused: list[str] = field(default_factory=list)
    corrected: list[str] = field(default_factory=list)
    remarks: dict[str, list[str]] = field(default_factory=dict)  # what is said, and of which images
    unset: Counter[str] = field(default_factory=Counter)  # of landmarks: in how many labels nothing is said of it …
    removed: Counter[str] = field(default_factory=Counter)  # … and in how many of these it was labelled before
    saved: int = 0

    def remark(self, text: str, image_id: str) -> None:
        self.remarks.setdefault(text, []).append(image_id)


def import_study(args: argparse.Namespace) -> None:
    """Copy images and landmarks into a study; what is already there and equal is left alone."""
    task = resolve_study_task(args.task, args.study, url=args.store)
    check_same_task(args.study, task)
    with tempfile.TemporaryDirectory(prefix="landmarklabel-") as unpacked:
        found = _images(args, Path(unpacked))
        _import_found(args, task, found, stated_surfaces(found, args, Path(unpacked)))


def _images(args: argparse.Namespace, unpacked: Path) -> Found:
    """The images that were named; those of a stack are written to ``unpacked``."""
    if args.cl_detection and args.images:
        raise UsageError("--cl-detection brings its images along: leave --images out")
    if args.images:
        return find_images([args.images])
    if args.monailabel:
        return Found(read_datastore(args.monailabel).images)
    if args.cl_detection:
        found = Found()
        found.paths.update(unpack_images(read_stack(args.cl_detection), unpacked, found.left_out))
        return found
    raise UsageError("import needs --images DIR, or --monailabel DIR or --cl-detection DIR, which bring their images along")


def _import_found(args: argparse.Namespace, task: LandmarkTask, found: Found, surfaces: SurfacesRead) -> None:
    images, place = found.paths, args.images or args.monailabel or args.cl_detection
    unreadable = surfaces.unreadable
    labels = read_labels(args, task, images)
    if args.only:
        wanted = set(read_ids(args.only))
        if missing := sorted(wanted - set(images) - set(unreadable)):
            raise StudyError(f"--only names {len(missing)} images that are not in {place}, for example {missing[0]!r}")
        images = {i: p for i, p in images.items() if i in wanted}
        unreadable = {i: why for i, why in unreadable.items() if i in wanted}
    _say(_left_out(found, labels, place))
    if not images:
        _say([*unreadable.values()])
        raise StudyError(f"no images in {place}" + (", see above" if found.left_out or unreadable else ""))
    homeless = sorted(set(labels.of) - set(images)) if not args.only else []
    if args.complete:
        _check_complete(images, labels, homeless)
    if args.preview:
        _preview(args, task, images, labels, homeless, [*unreadable.values()], surfaces)
        return
    study, account = Study(args.study, task, args.store), _Account(remarks=surfaces.remarks)
    _say([*study.notices, *study.take_in_edits()])  # what people changed in label files comes before what is imported
    for image_id, path in followed(images, "import"):
        _import_one(study, image_id, path, labels, account, surfaces, args)
    print(_summary(args.study, study, images, labels, account))
    _say(
        [
            *labels.remarks,
            *unreadable.values(),
            *account.refused,
            *_grouped(account.remarks),
            *_remarks(args, study, homeless, labels, account),
        ]
    )
    study.close()
    refused = len(account.refused) + len(unreadable)
    if refused or account.corrected:
        what = [f"{refused} of {len(images) + len(unreadable)} images"] if refused else []
        what += [f"the landmarks of {len(account.corrected)} images"] if account.corrected else []
        raise StudyError(f"{' and '.join(what)} were not imported, see above")


def _preview(
    args: argparse.Namespace,
    task: LandmarkTask,
    images: dict,
    labels: Labels,
    homeless: list[str],
    unreadable: list[str],
    surfaces: SurfacesRead,
) -> None:
    from landmarklabel.report.contact_sheet import write_contact_sheet

    def seen(image_id: str) -> tuple[LandmarkSet | None, str]:
        about = _described(image_id, images[image_id], task)
        given = labels.on(image_id, about)
        if not given:
            return None, ""
        try:
            return given[-1].points, _check_places(image_id, images[image_id], given, about, surfaces, args)
        except LandmarkLabelError as error:
            return given[-1].points, str(error)

    remarks = [*labels.remarks, *([f"{len(homeless)} labels have no image: {listed(homeless)}"] if homeless else [])]
    faults = unreadable + write_contact_sheet(args.preview, task, followed(images, "preview"), seen, remarks)
    _say([*remarks, *faults])
    pointed = sum(bool(labels.of.get(image_id)) for image_id in images)
    print(f"{args.preview}: {counted(len(images), 'image')}, {pointed} with points; nothing was imported")
    if faults:
        raise StudyError(f"{len(faults)} of {len(images) + len(unreadable)} images would not be imported, see above")


def _import_one(
    study: Study,
    image_id: str,
    path: Path,
    labels: Labels,
    account: _Account,
    surfaces: SurfacesRead,
    args: argparse.Namespace,
) -> None:
    try:
        about = _described(image_id, path, study.task)
        given = labels.on(image_id, about)
        if off := _check_places(image_id, path, given, about, surfaces, args):
            account.remark(off, image_id)
        for said in filter(None, (_looks_missing(given), _looks_like_mm(given, about, study.task))):
            account.remark(said, image_id)
        study.add_image(image_id, path)
        for remark in about.remarks:
            account.remark(remark, image_id)
        before = _newest(study, image_id)
        saved = _save_or_leave(study, image_id, [g for g in given if g.kept], args.replace)
        if saved is None:
            account.corrected.append(image_id)
        else:
            account.saved += saved
            _note_unset(account, given, before, _newest(study, image_id))
    except LandmarkLabelError as error:
        account.refused.append(str(error))


def _note_unset(account: _Account, given: list[Placed], before: LandmarkSet | None, now: LandmarkSet | None) -> None:
    """Count the landmarks of which the labels say nothing, and those that were labelled before and are not any more."""
    if not given or now is None:
        return
    for k, (name, status) in enumerate(zip(now.names, now.status, strict=True)):
        if status is Status.UNSET:
            was = before is not None and before.status[k].by_person
            (account.removed if was else account.unset)[name] += 1


def _newest(study: Study, image_id: str) -> LandmarkSet | None:
    head = study.revisions.head(image_id)
    return None if head is None else study.read(head)


def _described(image_id: str, path: Path, task: LandmarkTask) -> Description:
    about = describe_image(path, task.dims)
    task.check_image(image_id, about.unit)
    return about


def _check_places(
    image_id: str, path: Path, given: list[Placed], about: Description, surfaces: SurfacesRead, args: argparse.Namespace
) -> str:
    """Raise LandmarkFileError where landmarks are not in their image, or off their surface because its unit was said wrongly.

    With --allow-outside the second is returned instead, to be said: the points may be meant to lie there.
    """
    what, off = f"landmarks of {image_id}", None
    for one in given:
        try:
            surfaces.check(image_id, path, one.points, what if one.kept else f"{what} by {one.author}")
        except LandmarkFileError as error:
            if not args.allow_outside:
                raise
            off = error
    for one in given:
        try:
            check_inside(one.points, about.geometry, what if one.kept else f"{what} by {one.author}", args.allow_outside)
        except LandmarkFileError as error:
            raise off or error from None  # why they are off their surface says more
    return str(off or "")


def _looks_like_mm(given: list[Placed], about: Description, task: LandmarkTask) -> str:
    """Said of points that lie where they would if they were millimetres instead of pixels; empty where they do not."""
    if not isinstance(task.scale, PixelSize) or task.scale.mm > 0.5 or not given:
        return ""
    low, high = about.geometry.bounds_mm
    places = given[-1].points.positions_mm[given[-1].points.defined]
    if len(places) < 3 or not (places <= low + task.scale.mm * (high - low)).all():
        return ""
    return "all points lie near its first corner, and are taken as pixels: if they are in mm, divide them by the size of a pixel"


def _looks_missing(given: list[Placed]) -> str:
    """Said of points that lie where some programs put what is missing, and are imported; empty where there are none."""
    if not any((one.points.positions_mm == 0).all(axis=1).any() for one in given):
        return ""
    place = ", ".join("0" * given[0].points.task.dims)
    return f"points at exactly ({place}), as some programs mark what is missing: leave such cells empty, or check them"


def _save_or_leave(study: Study, image_id: str, given: list[Placed], replace_newest: bool) -> int | None:
    """How many images got a new revision (0 or 1); None where the newest landmarks are a person's and stay so."""
    for _ in range(CONFIG.import_tries):
        if given and not replace_newest and _corrected_since(study, image_id, given):
            return None
        with suppress(Conflict):  # somebody saved in this very moment: perhaps the same, by another import
            return _save(study, image_id, given, replace_newest)
    return None


def _check_complete(images: dict, labels: Labels, homeless: list[str]) -> None:
    bare = sorted(i for i in images if not labels.of.get(i))
    faults = [f"{len(homeless)} labels have no image: {listed(homeless)}"] if homeless else []
    faults += [f"{len(bare)} images have no landmarks: {listed(bare)}"] if bare else []
    if faults:
        raise StudyError(f"--complete: {' and '.join(faults)}; nothing was imported")


def _summary(place: str, study: Study, images: dict, labels: Labels, account: _Account) -> str:
    bare = [i for i in images if not labels.of.get(i)]
    there = counted(len(images) - len(account.refused), "image")
    text = f"{place}: {there}, {len(study.labelled())} labelled ({account.saved} new or changed)"
    return text + (f", {len(bare)} without landmarks" if labels.asked and bare else "")


def _left_out(found: Found, labels: Labels, place: str) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for name, why in found.left_out.items():
        if name in labels.files:  # they lie beside the images
            continue
        by_reason.setdefault(why, []).append(name)
    return [f"left out of {place}: {listed(names)} ({why})" for why, names in by_reason.items()]


def _grouped(remarks: dict[str, list[str]]) -> list[str]:
    return [f"{listed(ids)}: {text}" for text, ids in remarks.items()]


def _say(texts: list[str]) -> None:
    for text in texts:
        print("landmarklabel: " + " ".join(text.split()), file=sys.stderr)


def _remarks(args: argparse.Namespace, study: Study, homeless: list[str], labels: Labels, account: _Account) -> list[str]:
    """What was not done as the files say, one text per kind."""
    remarks = [f"{len(homeless)} labels have no image, for example {listed(homeless)}"] if homeless else []
    if account.unset:
        remarks.append(f"left unset, as the labels say nothing of them: {_most(account.unset)}")
    if account.removed:
        remarks.append(
            f"no longer labelled, as the labels say nothing of them: {_most(account.removed)}; earlier revisions have them, "
            "and the browser brings one back"
        )
    if changed := sorted(study.changed() & set(labels.of)):
        remarks.append(
            f"{len(changed)} images are not those that were labelled, for example {changed[0]!r}, and are left out of training: "
            f"look at them, then submit their points or say: landmarklabel study keep-labels {args.study} {changed[0]}"
        )
    if account.corrected:
        remarks.append(
            f"corrected by people since: {counted(len(account.corrected), 'case')}, for example {account.corrected[0]!r}: their "
            "landmarks stay as they are; --replace puts the imported ones above them"
        )
    return remarks


def _most(counts: Counter[str]) -> str:
    most = [f"{name!r} in {counted(count, 'case')}" for name, count in counts.most_common(CONFIG.named_unset)]
    return ", ".join(most) + (f" and {len(counts) - len(most)} more landmarks" if len(counts) > len(most) else "")


def _corrected_since(study: Study, image_id: str, given: list[Placed]) -> bool:
    """Whether the newest landmarks are a person's own, and the import would put others above them."""
    history = [r for r in study.history(image_id) if not r.source.startswith(BY_VERB)]
    if not history or history[-1].source == "import":
        return False
    saved = [(r.author, study.read(r)) for r in history]
    return any(not any(g.author == w and same_landmarks(g.points, y) for w, y in saved) for g in given)


def _save(study: Study, image_id: str, given: list[Placed], replace_newest: bool) -> int:
    """Append what was never imported, in this order.

    What was newest stays so where all of it was imported before, unless ``replace_newest``. Raises Conflict where somebody else
    saves meanwhile.
    """
    saved = [(r.author, study.read(r)) for r in study.history(image_id)]
    number = len(saved)
    new = [g for g in given if not any(g.author == w and same_landmarks(g.points, y) for w, y in saved)]
    if replace_newest and given and not same_landmarks((new or saved)[-1][1], given[-1].points):
        new.append(given[-1])
    elif new and new[-1] is not given[-1]:  # the last one was imported before: what was newest stays newest
        new.append(Placed(*saved[-1]))
    for base, g in enumerate(new, number):
        bare = replace(g.points, expected_error_mm=np.full(len(g.points.task), np.nan))
        study.save(image_id, bare, author=g.author, source="import", base_revision=base, made=g.made)
    return int(bool(new))
