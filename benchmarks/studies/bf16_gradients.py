"""How far the convolutions of `rmc` are from float32 when a CPU computes them in bf16: the table of docs/backbones.md.

    python -m benchmarks.studies.bf16_gradients

A line for each size; NaN and crashes are findings, not faults of it.
For every convolution the output and the gradient of the weight are computed again in float32, from the same inputs and
the same gradient, both rounded to bf16 as autocast does. The worst relative difference of the network is printed.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionbench import load_registry

SIZES = (
    (8, (4, 1, 12, 24, 24)),  # the demo
    (8, (4, 1, 38, 60, 60)),
    (16, (4, 1, 24, 48, 48)),
    (64, (1, 1, 32, 96, 96)),
    (64, (2, 1, 4, 128, 128)),
    (16, (2, 1, 3, 240, 240)),
)
"""Width, and (B, C, D, H, W)."""


@dataclass
class Seen:
    """What went through a convolution, forwards and backwards."""

    inputs: Tensor
    output: Tensor
    gradient: Tensor | None = None


def watch(seen: dict[nn.Conv3d, Seen], layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
    """A forward hook that keeps what goes through a convolution."""
    assert isinstance(layer, nn.Conv3d)
    kept = seen[layer] = Seen(inputs[0].detach(), output.detach())

    def keep(gradient: Tensor) -> None:
        kept.gradient = gradient.detach()

    output.register_hook(keep)


def errors(layer: nn.Conv3d, seen: Seen) -> tuple[float, float]:
    """Relative to float32: of the output, and of the gradient of the weight."""
    assert seen.gradient is not None
    assert layer.weight.grad is not None
    weight = layer.weight.detach().bfloat16().float().requires_grad_()
    exact = F.conv3d(seen.inputs.bfloat16().float(), weight, None, layer.stride, layer.padding)
    (gradient,) = torch.autograd.grad(exact, weight, seen.gradient.float())
    return _relative(seen.output, exact), _relative(layer.weight.grad, gradient)


def worst(width: int, size: tuple[int, ...]) -> tuple[float, float]:
    """The largest of these errors in a network; NaN counts as infinite."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = load_registry().get("backbone", "rmc").cls(size[1], width=width)
    seen: dict[nn.Conv3d, Seen] = {}
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            layer.register_forward_hook(partial(watch, seen))
    with torch.autocast("cpu", torch.bfloat16):
        features = network(torch.rand(size))
    features.float().square().mean().backward()
    found = [errors(layer, kept) for layer, kept in seen.items()]
    output, gradient = (max(column) for column in zip(*found, strict=True))
    return output, gradient


def _relative(ours: Tensor, exact: Tensor) -> float:
    difference = float((ours.detach().float() - exact.detach()).norm() / exact.detach().norm())
    return difference if difference == difference else float("inf")


def main() -> None:
    """One process for each size, since some end it."""
    print("| width | input | output | gradient of the weight |\n|---|---|---|---|")
    for width, size in SIZES:
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            try:
                found = pool.apply_async(worst, (width, size)).get(timeout=120)
                told = " | ".join("not finite" if error == float("inf") else f"{error:.1%}" for error in found)
            except multiprocessing.TimeoutError:  # a pool waits for ever for a process that crashed
                told = "the process ended | "
        print(f"| {width} | {' x '.join(map(str, size))} | {told} |", flush=True)


if __name__ == "__main__":
    main()
