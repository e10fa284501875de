"""Which arithmetic a network runs in: bf16 where it pays, fp32 otherwise."""

from __future__ import annotations

import re

import torch

DEVICES = "auto, cpu, cuda, cuda:N or mps"
_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?|mps")


def bf16_pays(device: torch.device) -> bool:
    """Whether bf16 arithmetic is faster than fp32 on a device."""
    if device.type == "cuda":
        made: bool = torch.cuda.is_bf16_supported()
        return made
    known: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    # Without these instructions torch emulates bf16, and a convolution takes 4 times as long as in fp32.
    return any(known.get(key) for key in ("avx512_bf16", "amx_bf16"))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context a forward pass runs in; ``precision`` is ``bf16`` or ``fp32``."""
    enabled = precision == "bf16" and bf16_pays(device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def choose_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` (of Apple's processors); UsageError when there is no such device.

    ``auto`` is CUDA where there is it, else the processor: ``mps`` is only used by name.
    """
    from landmarklabel.errors import UsageError

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not _DEVICE.fullmatch(name):
        raise UsageError(f"device {name[:40]!r} is not known; use {DEVICES}")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device 'mps' was asked for, but this machine has no such device; use --device cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device {name!r} was asked for, but this machine has no usable CUDA device; use --device cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UsageError(f"device {name!r} was asked for, but this machine has only {count}, counted from cuda:0")
    return device
