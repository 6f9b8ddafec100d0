"""What position attention over a whole volume costs, without its map and with it.

    python -m benchmarks volume_attention

Forward and backward for 9,600 positions and 512 channels on one thread: the processor's seconds, the better of two
rounds, and how far the peak of memory rises above what was there before. Each way is measured in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.memory import MIB, peak_resident
from benchmarks.targets import Row, Target
from fusionbench_plugins.attention.dual import Attend

POSITIONS, CHANNELS, NARROW = 9600, 512, 64


def filled_up(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """torch's own attention, with queries and keys as wide as the values, so that it does without the map."""
    q, k = (F.pad(rows, (0, CHANNELS - NARROW))[:, None] for rows in (query, key))
    return F.scaled_dot_product_attention(q, k, value[:, None], scale=1.0)[:, 0]


WITH, WITHOUT = "with its map", "without"
WAYS = {WITH: lambda q, k, v: (q @ k.mT).softmax(-1) @ v, WITHOUT: Attend.apply, "torch's, filled up": filled_up}


def rise(way: str) -> tuple[int, float]:
    """The bytes and seconds of one way."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    inputs = [torch.randn(1, POSITIONS, width).mul_(0.3).requires_grad_() for width in (NARROW, NARROW, CHANNELS)]
    above = torch.randn(1, POSITIONS, CHANNELS)
    before, started = peak_resident(), time.process_time()
    WAYS[way](*inputs).backward(above)
    return peak_resident() - before, time.process_time() - started


def measure() -> Iterator[Row]:
    """Both sides of every ratio."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        found = [{way: pool.apply(rise, (way,)) for way in WAYS} for _ in range(2)]
    best = {way: min((one[way] for one in found), key=lambda each: each[1]) for way in WAYS}
    for way, (bytes_, seconds) in best.items():
        print(f"  {way}: {bytes_ / MIB:.0f} MiB, {seconds:.1f} s")
    memory, taken = (best[WITHOUT][n] / best[WITH][n] for n in range(2))
    yield Target("memory of attention over a volume, without its map / with it", memory, 0.1, at_least=False)
    yield Target("time of attention over a volume, without its map / with it", taken, 1.15, at_least=False)
