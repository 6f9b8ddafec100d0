"""Devices and precisions: what there is, what `auto` means, and how much memory was used."""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from fusionbench.errors import UsageError

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces every precision it is given

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
"""Kind of device -> what processes of a fit talk by."""
PROCESS = Path("/proc/self")
"""What Linux tells a process of itself."""
FABRIC_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def resolve_devices(asked: str) -> tuple[str, ...]:
    """The devices to spread fits over, each fit on one: `cuda:0,1` names two, any other word one.

    UsageError for one that is not there or named twice.
    """
    kind, _, numbers = asked.partition(":")
    devices = tuple(resolve_device(f"{kind}:{number.strip()}" if numbers else asked) for number in numbers.split(","))
    if len(set(devices)) < len(devices):
        raise UsageError(f"--device {asked} names a device twice: name each once")
    return devices


def named(devices: Sequence[str]) -> str:
    """Devices of one kind as they are asked for: what `resolve_devices` takes apart.

    >>> named(("cuda:0", "cuda:1")), named(("cpu",))
    ('cuda:0,1', 'cpu')
    """
    return ",".join([devices[0], *(device.partition(":")[2] for device in devices[1:])])


def kind_of(device: str) -> str:
    """What a fit's key says of a device: not which of its kind it was.

    >>> kind_of("cuda:1"), kind_of("cpu")
    ('cuda', 'cpu')
    """
    return device.partition(":")[0]


def assigned(devices: Sequence[str], worker: int) -> str:
    """The device of a worker by its number: each has about as many workers as any other.

    >>> [assigned(("cuda:0", "cuda:3"), worker) for worker in range(3)]
    ['cuda:0', 'cuda:3', 'cuda:0']
    """
    return devices[worker % len(devices)]


def spans(devices: Sequence[str], processes: int) -> tuple[str, ...]:
    """The devices of one fit each, where a fit takes that many processes: a GPU for each, or all on the CPU.

    >>> spans(("cuda:0", "cuda:1", "cuda:2", "cuda:3"), 2), spans(("cpu",), 2)
    (('cuda:0,1', 'cuda:2,3'), ('cpu',))

    UsageError if the devices cannot be shared out so.
    """
    kind = kind_of(devices[0])
    if processes == 1 or kind == "cpu":
        return tuple(devices)
    numbers = [device.partition(":")[2] for device in devices]
    if kind not in BACKENDS or len(devices) % processes:
        raise UsageError(
            f"recipe.processes={processes} needs a GPU for each process of a fit, or the CPU: "
            f"--device cuda:{','.join(map(str, range(processes)))}, or --device cpu"
        )
    groups = [numbers[start : start + processes] for start in range(0, len(numbers), processes)]
    return tuple(f"{kind}:{','.join(group)}" for group in groups)


def member(device: str, rank: int) -> str:
    """The device of a process by its number, among those of a fit.

    >>> member("cuda:2,3", 1), member("cuda:1", 0), member("cpu", 1)
    ('cuda:3', 'cuda:1', 'cpu')
    """
    kind, _, numbers = device.partition(":")
    return f"{kind}:{numbers.split(',')[rank]}" if numbers else kind


def workers_for(devices: Sequence[str], cores: int, threads: int) -> int:
    """How many fits at once where nobody says: one per GPU, on CPUs as many as have their threads for themselves.

    >>> workers_for(["cuda:0", "cuda:1"], 64, 1), workers_for(["cpu"], 16, 4), workers_for(["cpu"], 2, 4)
    (2, 4, 1)
    """
    return len(devices) if kind_of(devices[0]) != "cpu" else max(1, cores // threads)


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

    UsageError for 16 without CUDA: the gradients of half precision have to be scaled, and Fabric does so there alone.

    Never on a CPU: with torch 2.15 on one with AMX, weight gradients of convolutions over large maps of few slices are
    wrong in bf16, by 10 % and far more, differ from run to run, and the process may crash (docs/backbones.md).
    """
    if asked == "16" and kind_of(device) != "cuda":
        raise UsageError(f"--precision 16 needs a CUDA GPU, and the device is {device}: --precision 32, or bf16")
    if asked != "auto":
        return asked
    computes = device.startswith("cuda") and torch.cuda.is_bf16_supported()
    return "bf16" if computes and "image" in kinds else "32"


def make_fabric(device: str, precision: str) -> Fabric:
    """Lightning Fabric for one device and precision."""
    accelerator, _, index = device.partition(":")
    devices: Any = [int(index)] if index else 1
    return Fabric(accelerator=accelerator, devices=devices, precision=FABRIC_PRECISION[precision])  # type: ignore[arg-type]


def settle(device: str) -> None:
    """Wait until a GPU has done what it was asked to; a CPU has."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def forget_peak(device: str) -> None:
    """Have `peak_memory` count from now on; a CPU can on Linux only."""
    if device.startswith("cuda"):
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats(device)
    elif PROCESS.exists():
        with suppress(OSError), (PROCESS / "clear_refs").open("w") as file:
            file.write("5")


def peak_memory(device: str) -> int:
    """The most bytes that this process, or its tensors on that GPU, held at once since `forget_peak`."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    if PROCESS.exists():  # getrusage goes on from the process that started this one
        (line,) = (line for line in (PROCESS / "status").read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
