"""Where bf16 on a CPU cannot be trusted: the one guard against it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def precisely(compute: Callable[[Tensor], Tensor], x: Tensor, columns: int) -> Tensor:
    """What a function makes of x, (..., W); on a CPU without autocast if x has at most that many columns.

    For a part of a network that is `columns` times narrower behind than before: where one column is left, a CPU's bf16
    convolutions of stride 2 return garbage, off by 100 % and more or not finite (torch 2.15, oneDNN 3.13, with AMX).
    Wider maps, float32 and other devices are left alone.
    """
    if x.shape[-1] > columns or x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return compute(x)
    with torch.autocast("cpu", enabled=False):
        return compute(x.float())
