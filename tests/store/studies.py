"""What tests of studies and stores share: landmarks, label files, DICOM folders, and a look into the database."""

from __future__ import annotations

import os

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from sqlalchemy import text

from landmarklabel.io.markups import read_markups
from landmarklabel.landmarks import LandmarkSet, Status
from landmarklabel.store.database import open_engine


def points(task, value, status=Status.PLACED):
    """Landmarks that differ with ``value``."""
    positions = np.arange(len(task) * task.dims, dtype=float).reshape(len(task), task.dims) + value
    return LandmarkSet.of_positions(task, positions, status)


def label_file(study, image_id):
    """Where a label lies as a plain file."""
    return study.folder / "labels" / "final" / f"{image_id}.mrk.json"


def on_file(study, image_id):
    """The landmarks in the plain file."""
    return read_markups(label_file(study, image_id), study.task)


def age(path, seconds=60):
    """As if a file or folder had been changed a while ago."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def write_dicom(folder, slices=3, name="slice"):
    """A series of small slices; returns the folder."""
    folder.mkdir(parents=True)
    series, study_uid, frame = generate_uid(), generate_uid(), generate_uid()
    for i in range(slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"{name}{i}"
        data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, study_uid, frame
        data.Modality, data.PatientID, data.PatientName, data.InstanceNumber = "CT", "1", "A", i + 1
        data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.0 * i]
        data.PixelSpacing, data.SliceThickness = [1, 1], 2
        data.Rows = data.Columns = 8
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation, data.RescaleIntercept, data.RescaleSlope = 15, 0, 0, 1
        data.PixelData = np.full((8, 8), i, np.uint16).tobytes()
        pydicom.dcmwrite(path, data, write_like_original=False)
    return folder


def execute(url, statement, **values):
    """Run one statement in the database, past the store; returns the rows if there are any."""
    engine = open_engine(url)
    with engine.begin() as connection:
        done = connection.execute(text(statement), values)
        rows = done.all() if done.returns_rows else []
    engine.dispose()
    return rows
