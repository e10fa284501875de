"""Weights come back as they were saved; what is too large or was changed is refused. Hostile files: tests/hostile."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

from landmarklabel.errors import ModelError
from landmarklabel.io import checkpoints
from landmarklabel.io.checkpoints import load_tensors, save_tensors
from landmarklabel.io.limits import LIMITS

TENSORS = {
    "weight": torch.arange(6.0).reshape(2, 3),
    "half": torch.tensor([1.5, -2.5], dtype=torch.bfloat16),
    "count": torch.tensor(3),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
}


def test_tensors_and_metadata_come_back(tmp_path):
    path = tmp_path / "sub" / "w.safetensors"
    sha = save_tensors(path, TENSORS, {"step": 3, "stage": "locate", "seconds": 0.5})
    tensors, meta = load_tensors(path, sha)
    assert meta == {"step": 3, "stage": "locate", "seconds": 0.5} and tensors.keys() == TENSORS.keys()
    for key, value in TENSORS.items():
        assert tensors[key].dtype == value.dtype and torch.equal(tensors[key], value)


def test_shared_and_tracked_tensors_are_saved_by_value(tmp_path):
    weight = torch.nn.Parameter(torch.ones(3))
    save_tensors(tmp_path / "w", {"a": weight, "b": weight, "part": torch.arange(10.0)[2:4]}, {})
    tensors, _ = load_tensors(tmp_path / "w")
    assert torch.equal(tensors["a"], tensors["b"]) and tensors["part"].tolist() == [2, 3]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w"
    save_tensors(path, {"a": torch.ones(2)}, {"n": 1})

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="disk full"):
        save_tensors(path, {"a": torch.zeros(2)}, {"n": 2})
    assert load_tensors(path)[1] == {"n": 1} and [p.name for p in tmp_path.iterdir()] == ["w"]


def test_a_header_of_megabytes_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes((5_000_000).to_bytes(8, "little") + b"{}" + b" " * 4_999_998)
    with pytest.raises(ModelError, match=r"w\.safetensors: not a safetensors file \(header of 5000000 bytes\)"):
        load_tensors(path)


def test_every_cut_and_the_wrong_hash_are_noticed(tmp_path):
    path = tmp_path / "w"
    sha = save_tensors(path, {"a": torch.arange(100.0)}, {"k": 1})
    data = path.read_bytes()
    for cut in (0, 7, 8, 30, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(ModelError):
            load_tensors(path)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # one bit, which the format itself cannot notice
    load_tensors(path)
    with pytest.raises(ModelError, match="its sha256 is not the one model.json names"):
        load_tensors(path, sha)


def test_a_missing_file_a_folder_and_a_giant_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="gone: cannot be read"):
        load_tensors(tmp_path / "gone")
    with pytest.raises(ModelError, match="cannot be read"):
        load_tensors(tmp_path)
    monkeypatch.setattr(checkpoints, "LIMITS", replace(LIMITS, checkpoint_bytes=50))
    save_tensors(tmp_path / "w", TENSORS, {})
    with pytest.raises(ModelError, match="weights of at most 50 are read"):
        load_tensors(tmp_path / "w")
