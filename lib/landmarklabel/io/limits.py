"""What files may ask of the reader: hostile and damaged ones are refused before they cost memory or time."""

from __future__ import annotations

from dataclasses import dataclass

from landmarklabel.configuration import Configuration, number


@dataclass(frozen=True)
class ReadingLimits(Configuration):
    """What files may ask of the reader: hostile and damaged ones are refused before they cost memory or time."""

    checkpoint_bytes: int = number(4 * 2**30, 0)  # of a safetensors file
    checkpoint_header_bytes: int = number(4 * 2**20, 0)  # of its header
    stack_labels_bytes: int = number(50 * 2**20, 0)  # of the label file of a CL-Detection stack
    stack_head_bytes: int = number(4096, 0)  # of such a stack that are read for its text header
    stack_slices: int = number(100_000, 0)  # of such a stack
    flat_mm: float = number(1e-3, 0)  # of z within which points of a 2D task count as on one plane
    hints: int = number(10, 0)  # faults that come with a hint
    frames: int = number(100_000, 0)  # of a DICOM series
    trailing_bytes: int = number(64 * 1024, 0)  # that a file may have beyond what its header declares
    inflate_bytes: int = number(1 << 20, 0)  # of a compressed file read at a time
    scan_samples: int = number(1 << 20, 0)  # looked at for values that are no numbers, at a time
    text_header_bytes: int = number(1 << 20, 0)  # of a NRRD or MetaImage header
    meta_line_bytes: int = number(255, 0)  # of a MetaImage header: longer ones are read differently by programs
    points: int = number(5000, 0)  # control points of a file
    json_values: int = number(1_000_000, 0)  # of a label file
    mask_labels: int = number(5000, 0)  # of a segmentation
    extreme_tie: float = number(1e-3, 0)  # of the extent, within which several voxels are the extreme point together
    decoder_bytes: int = number(32 << 20, 0)  # that decoders and small buffers take
    datastore_bytes: int = number(200 * 2**20, 0)  # of a MONAI Label datastore file
    nifti_offset: int = number(16 << 20, 0)  # bytes of a NIfTI header with its extensions
    form_disagreement: float = number(0.1, 0)  # of a voxel, by which sform and qform may differ
    hash_samples: int = number(1 << 18, 0)  # hashed at a time: converted copies stay in the processor's cache
    file_name_bytes: int = number(100, 1)  # of a measurement's file, in UTF-8
    label_bytes: int = number(20_000_000, 0)  # of a file with the landmarks of one image
    table_bytes: int = number(50_000_000, 0)  # of a table
    coordinate_mm: float = number(1e6, 0)  # of a position, either side of 0
    shown_faults: int = number(20, 0)  # of a table
    lock_wait_s: float = number(10.0, 0)  # a save takes some 20 ms; who waits longer than this is better told to come back
    waiting_threads: int = number(32, 0)  # for one lock; a server has more, so that others are answered meanwhile
    model_record_bytes: int = number(20 * 2**20, 0)  # of a model.json
    network_levels: int = number(8, 0)  # that it may describe
    network_width: int = number(2048, 0)  # channels of a level


LIMITS = ReadingLimits()
