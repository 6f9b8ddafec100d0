"""Does another memory layout make a training step of the RMC faster? The figures of docs/performance.md.

    python -m benchmarks.studies.channels_last

Forward and backward on one thread, both layouts in turn in one process, medians of the processor's seconds.
"""

from __future__ import annotations

import statistics
import time

import torch

from fusionbench_plugins.backbones.resnet import Rmc

ROUNDS = 5
CASES = ((16, (12, 48, 48), 2), (32, (12, 48, 48), 2), (16, (24, 64, 64), 2))
"""Width, (D, H, W), subjects."""


def step(network: Rmc, x: torch.Tensor, bf16: bool) -> float:
    """The processor's seconds of a forward and a backward pass."""
    network.zero_grad()
    started = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = network(x).float().mean()
    loss.backward()
    return time.process_time() - started


def main() -> None:
    """Print a line per case and precision."""
    torch.set_num_threads(1)
    print("| width | size | precision | contiguous / channels_last_3d |\n|---|---|---|---|")
    for width, size, subjects in CASES:
        x = torch.rand(subjects, 1, *size)
        ways = [(Rmc(1, width=width), x)]
        ways.append((Rmc(1, width=width).to(memory_format=torch.channels_last_3d), x))
        ways[1] = (ways[1][0], x.to(memory_format=torch.channels_last_3d))
        for bf16 in (False, True):
            taken: list[list[float]] = [[], []]
            for _ in range(ROUNDS + 1):
                for times, (network, inputs) in zip(taken, ways, strict=True):
                    times.append(step(network, inputs, bf16))
            plain, last = (statistics.median(times[1:]) for times in taken)
            shape = " x ".join(map(str, size))
            print(f"| {width} | {shape} | {'bf16' if bf16 else 'float32'} | {plain / last:.2f}x |", flush=True)


if __name__ == "__main__":
    main()
