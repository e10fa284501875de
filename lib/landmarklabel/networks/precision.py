"""Which arithmetic a network runs in: bf16 where it pays, fp32 otherwise."""

from __future__ import annotations

import torch


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
