"""Weights on disk: safetensors only, checked before use. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save

from landmarklabel.errors import ModelError
from landmarklabel.io.files import atomic_write

MAX_BYTES = 4 * 2**30
_MAX_HEADER = 4 * 2**20


def save_tensors(path: str | Path, tensors: dict, meta: dict) -> str:
    """Write tensors and JSON metadata atomically into one safetensors file; returns the file's sha256."""
    data = save({k: v.detach().contiguous().cpu().clone() for k, v in tensors.items()}, {"json": json.dumps(meta)})
    atomic_write(path, data)
    return hashlib.sha256(data).hexdigest()


def load_tensors(path: str | Path, sha256: str | None = None) -> tuple[dict, dict]:
    """Read tensors and metadata.

    Args:
        path: a safetensors file.
        sha256: refuse a file with another hash.

    Raises:
        ModelError: missing, too large, not safetensors, damaged, or not the expected file.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path.name}: {path.stat().st_size} bytes; weights of at most {MAX_BYTES} are read")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path.name}: cannot be read ({error.strerror})") from None
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ModelError(f"{path.name}: its sha256 is not the one model.json names: the file was changed or damaged")
    header = int.from_bytes(data[:8], "little")
    if not 2 <= header <= min(_MAX_HEADER, len(data) - 8):
        raise ModelError(f"{path.name}: not a safetensors file (header of {header} bytes)")
    try:
        meta = json.loads(json.loads(data[8 : 8 + header]).get("__metadata__", {}).get("json", "{}"))
        return load(data), dict(meta)
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path.name}: damaged safetensors file ({str(error)[:200]})") from None
