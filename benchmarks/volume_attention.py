"""What position attention over a whole volume costs, with its map and without.

    python benchmarks/volume_attention.py

Forward and backward for 9,600 positions and 512 channels on one thread: the time, and how far the peak of memory rises
above what was there before. Each way is measured in a process of its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import torch
from torch import Tensor
from torch.nn import functional as F

from fusionbench_plugins.attention.dual import Attend

POSITIONS, CHANNELS, NARROW = 9600, 512, 64


def filled_up(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """torch's own attention, with queries and keys as wide as the values, so that it does without the map."""
    wide = (F.pad(rows, (0, CHANNELS - NARROW))[:, None] for rows in (query, key))
    return F.scaled_dot_product_attention(*wide, value[:, None], scale=1.0)[:, 0]


WAYS = {
    "with its map": lambda q, k, v: (q @ k.mT).softmax(-1) @ v,
    "without": Attend.apply,
    "torch's, filled up": filled_up,
}


def measure(way: str) -> None:
    """Print the MiB and seconds of one way."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    inputs = [torch.randn(1, POSITIONS, width).mul_(0.3).requires_grad_() for width in (NARROW, NARROW, CHANNELS)]
    above = torch.randn(1, POSITIONS, CHANNELS)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    WAYS[way](*inputs).backward(above)
    taken = time.process_time() - started
    print(f"{way}: {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f} MiB, {taken:.1f} s")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        for name in WAYS:
            subprocess.run([sys.executable, __file__, name], check=True)
