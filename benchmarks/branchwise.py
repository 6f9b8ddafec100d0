"""Guidance with the memory of one branch: what it holds at most, and whether gradients are the same.

    python -m benchmarks branchwise

Four modalities of 12 x 48 x 48 against two, so one secondary, batches of two, RMC of width 16, float32, one thread.
Counted are the bytes of all tensors that come into being in a step and are there at the same time: what is kept for the
backward pass, what is computed again in it, and what passes by. Gradients are there before, and added to.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.guidance_step import IMAGES, apart, build, gradients, images, step
from benchmarks.targets import Row, Target
from fusionbench import Batch
from fusionbench.costs.meter import Meter
from fusionbench_plugins.fusion.guidance import Guidance, guidance_loss

WIDTH = 16
LOSS = partial(guidance_loss, progress=0.0)


def held(model: Guidance, batch: Batch) -> int:
    """Bytes at most at the same time in a step, after one that left gradients."""
    there = (*model.state_dict().values(), *(p.grad for p in model.parameters() if p.grad is not None))
    meter = Meter([*there, *batch.inputs.values()])
    with meter:
        LOSS(model, batch).backward()
    return meter.peak


def moved(model: Guidance) -> int:
    """How often the running statistics that moved most have moved."""
    counts = [int(x) for name, x in model.state_dict().items() if name.endswith("num_batches_tracked")]
    return max(counts)


def measure() -> Iterator[Row]:
    """Both sides of every ratio."""
    torch.set_num_threads(1)
    batch = images((12, 48, 48), 2)
    plain, frugal, one = (
        build(WIDTH), build(WIDTH, backward="branchwise"), build(WIDTH, modalities=IMAGES[:2])
    )  # fmt: skip
    before = moved(frugal)
    for model in (plain, frugal, one):
        step(model, batch, LOSS, False)
    updates, difference = moved(frugal) - before, apart(gradients(frugal), gradients(plain))
    bytes_ = {model: held(model, batch) for model in (plain, frugal, one)}
    print(f"  all branches at once hold {bytes_[plain] / bytes_[one]:.2f}x of one")
    yield Target("activations held, branch by branch / one branch", bytes_[frugal] / bytes_[one], 1.2, at_least=False)
    yield Target("its gradients' distance from the plain ones / their norm", difference, 1e-6, at_least=False, unit="")
    yield Target("its updates of running statistics in one step", updates, 1, at_least=False, unit="")
