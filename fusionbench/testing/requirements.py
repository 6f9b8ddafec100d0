"""What the checks are written with: one way to say what is wrong, and comparisons of tensors and states."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fusionbench.numerics import seeded
from fusionbench.training import is_trained

State = dict[str, Tensor]


def require(held: bool, otherwise: str) -> None:
    """AssertionError with that sentence unless it held; unlike `assert`, also under `python -O`."""
    if not held:
        raise AssertionError(otherwise)


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> bool:
    """Whether two tensors are equal but for rounding: relative to the largest value, for float32."""
    if ours.shape != theirs.shape:
        return False
    scale = 1 + theirs.detach().abs().max().item() if theirs.numel() else 1
    return bool((ours.detach().float() - theirs.detach().float()).abs().max() <= tolerance * scale)


def state_of(module: nn.Module) -> State:
    """A copy of every parameter and buffer under each of its names, also those that are not saved."""
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {name: value.detach().clone() for name, value in named}


def moved(before: Mapping[str, Tensor], module: nn.Module) -> list[str]:
    """The names of the tensors of a module that are no longer bit for bit what they were."""
    now = state_of(module)
    return sorted(name for name in now if name not in before or not torch.equal(before[name], now[name]))


def gradients(module: nn.Module, loss: Callable[[], Tensor], trains: tuple[str, ...] = ("",)) -> set[str]:
    """The names of the trained parameters that a loss gives a gradient other than zero."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(is_trained(name, trains))
        parameter.grad = None
    total = loss()
    if total.requires_grad:
        total.backward()  # type: ignore[no-untyped-call]
    return {name for name, p in module.named_parameters() if p.grad is not None and bool(p.grad.any())}


def pickled(module: nn.Module) -> Any:
    """The module after a round trip through pickle, as it goes to a worker process."""
    return pickle.loads(pickle.dumps(module))  # noqa: S301 - our own bytes of a moment ago


def seeds(number: int = 3) -> Iterator[int]:
    """A few seeds, each also that of the random numbers drawn inside the loop."""
    for seed in range(number):
        with seeded(seed):
            yield seed


def listing(names: list[str], shown: int = 4) -> str:
    """Some names: the first few, and how many more."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
