"""Work and memory of what runs inside, counted tensor by tensor; of tensors without values, too."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Meter(TorchDispatchMode):
    """Counts FLOP, and the bytes of the tensors that came into being inside; those of the backward pass, too.

    Not with torch's FlopCounterMode: what is computed again in the backward pass would live longer under it.
    """

    def __init__(self, before: Iterable[Tensor] = ()) -> None:
        """The memory of `before` is not counted, even where something inside returns it."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.now = 0
        """Bytes of the tensors that there are."""
        self.peak = 0
        """Bytes of those that there were at the same time, at most."""
        self._known = {tensor.untyped_storage()._cdata for tensor in before}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what was asked, and take note of the work and of the memory behind what comes out."""
        result = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return result

    def restart(self) -> None:
        """Count work from nothing, and the most of memory from what there is."""
        self.flops, self.peak = 0, self.now

    def _see(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        if address not in self._known:
            self._known.add(address)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, address, size)

    def _forget(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.now -= size


@contextmanager
def kept(others: Iterable[Tensor]) -> Iterator[dict[int, int]]:
    """Address -> bytes of what is kept for the backward pass inside, but for the memory of these tensors."""
    known = {tensor.untyped_storage()._cdata for tensor in others}
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            found[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield found
