"""Devices and precisions: what there is, what `auto` means, and how much memory was used."""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric import Fabric

from fusionbench.errors import UsageError

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces every precision it is given

FABRIC_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def resolve_device(asked: str) -> str:
    """The device to use: cuda if there is one, else mps, else cpu; UsageError for one that is not there."""
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    available = ["cpu", *(["mps"] if torch.backends.mps.is_available() else [])]
    available += ["cuda", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))] if torch.cuda.is_available() else []
    if asked not in available:
        raise UsageError(f"no device {asked!r}: there are {', '.join(available)}")
    return asked


def resolve_precision(asked: str, device: str, kinds: set[str]) -> str:
    """bf16 for images on a GPU that computes in it, else 32: what `auto` means, chosen once and recorded.

    Never on a CPU: with torch 2.15 on one with AMX, weight gradients of convolutions over large maps of few slices are
    wrong in bf16, by 10 % and far more, differ from run to run, and the process may crash (docs/backbones.md).
    """
    if asked != "auto":
        return asked
    computes = device.startswith("cuda") and torch.cuda.is_bf16_supported()
    return "bf16" if computes and "image" in kinds else "32"


def make_fabric(recipe: Mapping[str, Any]) -> Fabric:
    """Lightning Fabric for one device and precision."""
    accelerator, _, index = recipe["device"].partition(":")
    devices: Any = [int(index)] if index else 1
    return Fabric(accelerator=accelerator, devices=devices, precision=FABRIC_PRECISION[recipe["precision"]])  # type: ignore[arg-type]


def settle(device: str) -> None:
    """Wait until a GPU has done what it was asked to; a CPU has."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def peak_memory(device: str) -> int:
    """The most memory that this process (or its GPU) ever held, in bytes."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
