"""In which type a device multiplies fastest: bfloat16 where it is native, else float32.

A CPU without it computes bfloat16 products one by one, fifty times slower than float32.
"""

from __future__ import annotations

import torch


def compute_dtype(device: str | torch.device = "cpu") -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32 (bfloat16 is the slower one there)."""
    kind = torch.device(device).type
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def mixed_precision(device: str | torch.device = "cpu") -> torch.autocast:
    """A context that multiplies matrices in `compute_dtype`; where that is float32 it changes nothing."""
    dtype = compute_dtype(device)
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=dtype is torch.bfloat16)
