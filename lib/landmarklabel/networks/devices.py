"""Which device networks run on; PyTorch is only asked where one beside the processor may be meant."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from landmarklabel.errors import UsageError
from landmarklabel.portability import available_cores

if TYPE_CHECKING:
    import torch

DEVICES = "auto, cpu, cuda, cuda:N or mps"
_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?|mps")


def check_device(name: str) -> None:
    """Raise UsageError where ``choose_device`` would."""
    check_name(name)
    if name not in ("auto", "cpu"):  # which are always there
        choose_device(name)


def check_name(name: str) -> None:
    """Raise UsageError for what names no device, whether this computer has it or not."""
    if not _DEVICE.fullmatch(name):
        raise UsageError(f"device {name[:40]!r} is not known; use {DEVICES}")


def choose_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` (of Apple's processors); UsageError when there is no such device.

    ``auto`` is CUDA where there is it, else the processor: ``mps`` is only used by name.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    check_name(name)
    if name == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device 'mps' was asked for, but this machine has no such device; use --device cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device {name!r} was asked for, but this machine has no usable CUDA device; use --device cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UsageError(f"device {name!r} was asked for, but this machine has only {count}, counted from cuda:0")
    return device


def use_all_cores(processes: int = 1) -> None:
    """Let torch use every core this process may run on, or its share of them where there are several such processes."""
    import torch

    torch.set_num_threads(max(1, available_cores() // processes))
