"""Does another memory layout make a training step of the RMC faster? The figures of docs/performance.md.

    python -m benchmarks.studies.channels_last

Forward and backward on one thread, both layouts in turn in one process, medians of the processor's seconds.
"""

from __future__ import annotations

import time
from functools import partial

import torch

from benchmarks.targets import alternating
from fusionbench_plugins.backbones.resnet import Rmc

CASES = ((16, (12, 48, 48), 2), (32, (12, 48, 48), 2), (16, (24, 64, 64), 2))
"""Width, (D, H, W), subjects."""
LAYOUTS = (torch.contiguous_format, torch.channels_last_3d)


def step(network: Rmc, x: torch.Tensor, bf16: bool) -> None:
    """A forward and a backward pass; x is (B, 1, D, H, W)."""
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = network(x).float().mean()
    loss.backward()


def main() -> None:
    """Print a line per case and precision."""
    torch.set_num_threads(1)
    print("| width | size | precision | contiguous / channels_last_3d |\n|---|---|---|---|")
    for width, size, subjects in CASES:
        x = torch.rand(subjects, 1, *size)
        ways = [(Rmc(1, width=width).to(memory_format=each), x.to(memory_format=each)) for each in LAYOUTS]
        for bf16 in (False, True):
            steps = {str(each): partial(step, *way, bf16) for each, way in zip(LAYOUTS, ways, strict=True)}
            plain, last = alternating(steps, clock=time.process_time).values()
            shape = " x ".join(map(str, size))
            print(f"| {width} | {shape} | {'bf16' if bf16 else 'float32'} | {plain / last:.2f}x |", flush=True)


if __name__ == "__main__":
    main()
