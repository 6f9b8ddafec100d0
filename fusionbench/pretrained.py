"""Pretrained weights of a backbone: read a checkpoint without running its code, load all of it or nothing, say what.

fusionbench downloads nothing: a checkpoint is a file on this machine that an option of the backbone names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from fusionbench.errors import FusionBenchError, summary


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint: the tensors that were loaded, that are missing from it, and that were skipped."""

    path: Path
    loaded: tuple[str, ...]
    """Tensors of the backbone that hold the checkpoint's values now."""
    missing: tuple[str, ...]
    """Tensors of the backbone that keep their own initialisation."""
    skipped: tuple[str, ...]
    """Tensors of the checkpoint that the backbone does not use."""

    def __str__(self) -> str:
        rest = f"{_listing('missing', self.missing)}; {_listing('skipped', self.skipped)}"
        return f"{self.path.name}: {len(self.loaded)} tensors loaded; {rest}"


def read_tensors(file: Path) -> Any:
    """What a .safetensors file holds, or any other file as torch.load reads it without running its code."""
    if file.suffix == ".safetensors":
        return safetensors.torch.load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def read_checkpoint(path: Path, read: Callable[[Path], Any] = read_tensors) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name; FusionBenchError in one line if there is no file, or it is none.

    `read` is for formats of a library's own. It must run no code of the file.
    """
    file = path.expanduser()
    if not file.is_file():
        raise FusionBenchError(f"weights: there is no file {path}; give the path of a downloaded checkpoint")
    try:
        found = read(file)
    except Exception as error:  # for damaged files readers raise a dozen kinds, IndexError and KeyError too
        reason = str(error).strip().partition("\n")[0]
        raise FusionBenchError(f"weights: {path} is not a checkpoint: {type(error).__name__}: {reason}") from error
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise FusionBenchError(f"weights: {path} holds no plain mapping of names to tensors; save a state_dict()")
    return {str(name): value for name, value in found.items()}


def load_into(
    target: Mapping[str, Tensor], checkpoint: Mapping[str, Tensor], path: Path, name: str, fresh: Collection[str] = ()
) -> LoadReport:
    """Copy a checkpoint into the tensors of a network, its state_dict(), and say what was loaded, missing and skipped.

    `path` is where the checkpoint came from, `name` what the network is called, `fresh` the tensors that start anew
    although the checkpoint has them. Raises FusionBenchError, and copies nothing, if the checkpoint is of another
    network: one that is half pretrained and half random would pass for a pretrained one.
    """
    usable = {key: value for key, value in checkpoint.items() if key not in fresh}
    # Batch counters do not change a prediction, and checkpoints of old releases have none.
    needed = [key for key in target if not key.endswith("num_batches_tracked")]
    if absent := [key for key in needed if key not in checkpoint]:
        raise FusionBenchError(
            f"weights: {path} does not fit {name}: {len(absent)} of its {len(needed)} tensors are missing, "
            f"the first is {absent[0]}"
        )
    for key in needed:
        if key in usable and usable[key].shape != target[key].shape:
            raise FusionBenchError(
                f"weights: {path} does not fit {name}: {key} is {tuple(usable[key].shape)}, "
                f"not {tuple(target[key].shape)}; it is of another network"
            )
    loaded = tuple(key for key in target if key in usable)
    with torch.no_grad():
        for key in loaded:
            target[key].copy_(usable[key])
    missing = tuple(key for key in target if key not in usable)
    skipped = tuple(key for key in checkpoint if key not in loaded)
    return LoadReport(path, loaded, missing, skipped)


def _listing(word: str, names: tuple[str, ...]) -> str:
    return f"{len(names)} {word} ({summary(names, ', ', 4)})" if names else f"0 {word}"
