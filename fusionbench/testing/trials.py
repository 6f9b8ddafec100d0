"""A fusion strategy at work on made-up subjects: shaken, trained for some steps, asked for its loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fusionbench.components import Batch, FusionStrategy, Stage
from fusionbench.numerics import seeded
from fusionbench.testing.toys import Toy, begun, randomise
from fusionbench.training import is_trained, set_modes

Strategy = type[FusionStrategy]

STEPS = 40
"""Of Adam, after which a stage's loss on six subjects is lower."""
LEARNING_RATE = 1e-2
PROGRESS = 0.5
"""Where in its stage a loss is asked for: an annealed loss may rise as progress does, so it is held."""


def shaken(cls: Strategy, toy: Toy, options: Mapping[str, Any], seed: int = 0) -> FusionStrategy:
    """A strategy as begun, in eval mode, whose parameters have left a start that may hide what they do."""
    model = begun(cls, toy, options, seed)
    randomise(model, seed)
    return model.eval().requires_grad_(False)


def train(model: FusionStrategy, stage: Stage, batches: list[Batch]) -> Iterator[float]:
    """Train a stage as the training loop does, and give the loss of each step."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name, stage.trains))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], LEARNING_RATE)
    set_modes(model, stage.trains)
    for step, batch in enumerate(batches):
        with seeded(step):
            loss = stage.loss(model, batch if stage.sees_inputs else replace(batch, inputs={}), PROGRESS)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield loss.item()


def loss_of(model: FusionStrategy, stage: Stage, batch: Batch, seed: int = 0) -> Tensor:
    """The loss of a batch, without a gradient."""
    with seeded(seed), torch.no_grad():
        return stage.loss(model, batch, PROGRESS)


def predicted(model: FusionStrategy, toy: Toy) -> Tensor:
    """The logits of the made-up subjects."""
    with torch.no_grad():
        logits: Tensor = model.eval()(toy.batch().inputs)
    return logits
