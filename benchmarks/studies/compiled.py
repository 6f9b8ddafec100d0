"""Does torch.compile make a training step of the RMC faster, and what does compiling take? The figures of
docs/performance.md.

    python -m benchmarks.studies.compiled

Forward and backward on one thread, with and without in turn in one process, medians of the processor's seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.targets import alternating
from fusionbench_plugins.backbones.resnet import Rmc

CASES = ((16, (12, 48, 48), 2), (32, (12, 48, 48), 2))
"""Width, (D, H, W), subjects."""


def step(network: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """A forward and a backward pass; x is (B, 1, D, H, W)."""
    network(x).mean().backward()


def main() -> None:
    """Print a line per case."""
    torch.set_num_threads(1)
    print("| width | size | as it is / compiled | to compile |\n|---|---|---|---|")
    for width, size, subjects in CASES:
        x = torch.rand(subjects, 1, *size)
        compiled = torch.compile(Rmc(1, width=width))
        started = time.perf_counter()
        step(compiled, x)
        taken = time.perf_counter() - started
        steps = {"as it is": partial(step, Rmc(1, width=width), x), "compiled": partial(step, compiled, x)}
        plain, faster = alternating(steps, clock=time.process_time).values()
        print(f"| {width} | {' x '.join(map(str, size))} | {plain / faster:.2f}x | {taken:.0f} s |", flush=True)


if __name__ == "__main__":
    main()
