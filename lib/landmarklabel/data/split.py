"""A validation split that never moves: by a hash of the case's id, so no case changes sides between training rounds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def is_validation(image_id: str, share: float = 0.2) -> bool:
    """Whether a case is kept for validation, now and for ever."""
    value = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big")
    return value < share * 2**64


def split_ids(image_ids: Iterable[str]) -> tuple[list[str], list[str]]:
    """(train, valid) ids, sorted. When every case would be for validation, all are trained on and none validates."""
    ids = sorted(image_ids)
    valid = [i for i in ids if is_validation(i)]
    return ([i for i in ids if i not in set(valid)], valid) if len(valid) < len(ids) else (ids, [])
