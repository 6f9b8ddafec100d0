"""What a result depends on beside the code: random numbers, threads, kernels; set inside, and put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw random numbers from this seed inside, and leave the streams outside as they were.

    What torch.random.fork_rng does, for the devices in use only: it costs a millisecond per step otherwise.
    """
    cuda: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    before, on_cuda = torch.get_rng_state(), torch.cuda.get_rng_state_all() if cuda else []
    torch.default_generator.manual_seed(seed)
    if cuda:
        torch.cuda.manual_seed_all(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)
        if cuda:
            torch.cuda.set_rng_state_all(on_cuda)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with that many threads inside: a result depends on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deterministic() -> Iterator[None]:
    """Use deterministic kernels inside, where there are any, and those of cuDNN that are chosen without timing them."""
    before = torch.are_deterministic_algorithms_enabled()
    lenient, timed = torch.is_deterministic_algorithms_warn_only_enabled(), torch.backends.cudnn.benchmark
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False  # which of several deterministic kernels is fastest differs from run to run
    memory.fill_uninitialized_memory = False  # a fiftieth of a step, for memory that nobody reads
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=lenient)
        memory.fill_uninitialized_memory = filled
        torch.backends.cudnn.benchmark = timed
