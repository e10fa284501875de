"""Weights on disk: safetensors only, checked before use. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError

from landmarklabel.errors import ModelError
from landmarklabel.io.files import atomic_write
from landmarklabel.io.limits import LIMITS

# what JSON, safetensors and torch raise for headers that are none: LookupError for a dtype torch lacks, RuntimeError for a shape
_DAMAGES = (SafetensorError, ValueError, TypeError, AttributeError, LookupError, RuntimeError)


def save_tensors(path: str | Path, tensors: dict, meta: dict) -> str:
    """Write tensors and JSON metadata atomically into one safetensors file; returns the file's sha256."""
    from safetensors.torch import save  # it brings PyTorch

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
    from safetensors.torch import load

    path, data = Path(path), read_weights(path, sha256)
    header = int.from_bytes(data[:8], "little")
    if not 2 <= header <= min(LIMITS.checkpoint_header_bytes, len(data) - 8):
        raise ModelError(f"{path.name}: not a safetensors file (header of {header} bytes)")
    try:
        meta = _object(_object(data[8 : 8 + header]).get("__metadata__", {}).get("json", "{}"))
        json.dumps(meta, allow_nan=False)
        return load(data), meta
    except _DAMAGES as error:
        raise ModelError(f"{path.name}: damaged safetensors file ({' '.join(str(error).split())[:200]})") from None


def read_weights(path: str | Path, sha256: str | None = None) -> bytes:
    """The bytes of a file of weights. Raises ModelError where it is missing, too large, or not the expected file."""
    path = Path(path)
    try:
        if path.stat().st_size > LIMITS.checkpoint_bytes:
            raise ModelError(f"{path.name}: {path.stat().st_size} bytes; weights of at most {LIMITS.checkpoint_bytes} are read")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path.name}: cannot be read ({error.strerror})") from None
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ModelError(f"{path.name}: its sha256 is not the one model.json names: the file was changed or damaged")
    return data


def _object(text: str | bytes) -> dict:
    """A JSON object that says every key once. Raises ValueError."""

    def unique(pairs: list) -> dict:
        content = dict(pairs)
        if len(content) != len(pairs):
            raise ValueError("a key appears twice in one object of the header")
        return content

    content = json.loads(text, object_pairs_hook=unique)
    if not isinstance(content, dict):
        raise ValueError("the header or its metadata is no JSON object")
    return content
