"""A fit by several processes at once: what each takes of a batch, and what they tell each other."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import TCPStore

from fusionbench.errors import TrainingError, describe
from fusionbench.seeds import derive_seed
from fusionbench.subprocesses import cause_of_death, start

HERE: Final = "127.0.0.1"
LOOPBACK: Final = "lo0" if sys.platform == "darwin" else "lo"
"""The interface of that address: what processes of a fit tell each other is for nobody else on the network."""
PATIENCE: Final = timedelta(days=1)
"""How long a process waits for another; one that died or failed is noticed at once by whoever started them."""
SECONDS_TO_DIE: Final = 2.0
"""How long after an error it is seen whether another process had died, which is then its cause."""


@dataclass(frozen=True)
class Ranks:
    """One of the processes that do a fit together, by its number; alone if not said otherwise."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether it is the one that saves, predicts and reports."""
        return self.rank == 0

    def share(self, ids: Sequence[str]) -> Sequence[str]:
        """What it takes of a batch: a run of it, as long as the others' or longer by one.

        >>> Ranks().share("abcde"), Ranks(0, 2).share("abcde"), Ranks(1, 2).share("abcde")
        ('abcde', 'abc', 'de')
        """
        size, longer = divmod(len(ids), self.count)
        start = self.rank * size + min(self.rank, longer)
        return ids[start : start + size + (self.rank < longer)]

    def seed(self, seed: int) -> int:
        """A seed of its own, for each draws for other subjects; that of the first is the seed itself."""
        return derive_seed(seed, "rank", self.rank) if self.rank else seed

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all, of a tensor that each has; the same one where there is nobody else."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def total(self, loss: float, subjects: int, device: torch.device) -> tuple[float, int]:
        """The sum of the losses of all subjects, each process having the mean of its own, and how many they are."""
        if self.count == 1:
            return loss * subjects, subjects
        summed, everybody = self.sum(torch.tensor([loss * subjects, subjects], device=device).double()).tolist()
        return summed, int(everybody)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give each parameter the sum of its gradients over all; one that nobody has a gradient of stays without."""
        if self.count == 1 or not parameters:
            return
        here = torch.tensor([p.grad is not None for p in parameters], device=parameters[0].device).float()
        reached = [p for p, found in zip(parameters, self.sum(here).tolist(), strict=True) if found]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in reached]
        summed = self.sum(as_vector(gradients))
        parts = torch.split(summed, [gradient.numel() for gradient in gradients])
        for parameter, gradient, part in zip(reached, gradients, parts, strict=True):
            parameter.grad = gradient.copy_(part.view_as(gradient))

    def start_alike(self, model: nn.Module) -> None:
        """Give all the model that the first has, down to the last bit."""
        if self.count > 1:
            for tensor in model.state_dict().values():
                _take_first(tensor)

    def average_statistics(self, model: nn.Module) -> None:
        """Average the buffers of whatever is in train mode, such as the running statistics of BatchNorm, over all.

        Numbers in which all agree stay as they are to the last bit, and whole numbers are the first one's.
        """
        if self.count == 1:
            return
        for module in model.modules():
            for buffer in module.buffers(recurse=False) if module.training else ():
                own = buffer.clone()
                _take_first(buffer)
                if buffer.is_floating_point():
                    apart = torch.where(own == buffer, torch.zeros_like(own), own - buffer)
                    buffer += self.sum(apart) / self.count


def as_vector(gradients: Sequence[Tensor]) -> Tensor:
    """All of them one behind another, to be sent at once: as much memory again."""
    return torch.cat([gradient.flatten() for gradient in gradients])


ALONE: Final = Ranks()
Work = Callable[[Ranks, Callable[[Any], None]], None]


def together(count: int, backend: str, work: Work, report: Callable[[Any], None]) -> None:
    """Call `work(ranks, tell)` in that many new processes that can talk by `backend`: gloo on CPUs, nccl on GPUs.

    What they tell comes to `report`. TrainingError with the reason if one of them fails or dies; whatever happens, all
    have ended afterwards.
    """
    meeting = _meeting()
    members = [_Member(Ranks(rank, count), backend, meeting.port, work) for rank in range(count)]
    try:
        while at_work := [member for member in members if not member.done]:
            heard = wait_for([member.pipe for member in at_work])
            for member in (member for member in at_work if member.pipe in heard):
                member.listen(report)
    except _FailedError as failed:
        raise TrainingError(_died(members) or str(failed)) from None
    finally:
        for member in members:
            member.end()


def _meeting() -> TCPStore:
    """Where the processes find each other; torch would listen on every interface if it were left to it."""
    listening = socket.create_server((HERE, 0))
    port = listening.getsockname()[1]
    return TCPStore(HERE, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())


class _FailedError(Exception):
    """A process told why it failed, or ended without a word."""


class _Member:
    """One of the processes, and the pipe that it tells something through."""

    def __init__(self, ranks: Ranks, backend: str, port: int, work: Work) -> None:
        self.ranks, self.done = ranks, False
        self.pipe, theirs = multiprocessing.Pipe(duplex=False)
        self.process = start(_serve, theirs, ranks, backend, port, work)
        theirs.close()  # else the pipe would not end with the process

    def listen(self, report: Callable[[Any], None]) -> None:
        """Hand on one thing that it tells; _FailedError if that is why it failed."""
        try:
            told = self.pipe.recv()
        except EOFError:
            self.process.join()
            raise _FailedError("a process of this fit ended without a word") from None
        if isinstance(told, _Reason):
            raise _FailedError(told.text)
        if told is None:
            self.done = True
        else:
            report(told)

    def end(self) -> None:
        """End the process; one that has done its work ends by itself."""
        if not self.done:
            self.process.kill()
        self.process.join()
        self.pipe.close()


@dataclass(frozen=True)
class _Reason:
    """What a process tells last that failed; one that is done tells None."""

    text: str


def _died(members: Sequence[_Member]) -> str:
    """What is said of the first that died without a word; empty if none did."""
    ended = wait_for([member.process.sentinel for member in members], SECONDS_TO_DIE)
    for member in (member for member in members if member.process.sentinel in ended):
        member.process.join()
        if member.process.exitcode:
            who = f"process {member.ranks.rank + 1} of the {member.ranks.count} of this fit"
            cause = cause_of_death(member.process)
            return f"{who} died by {cause}: perhaps for lack of memory; run the same command again to go on"
    return ""


def _serve(pipe: Connection, ranks: Ranks, backend: str, port: int, work: Work) -> None:
    os.environ.update({f"{library}_SOCKET_IFNAME": LOOPBACK for library in ("GLOO", "NCCL")})
    try:
        store = TCPStore(HERE, port, is_master=False, timeout=PATIENCE)
        dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.count, timeout=PATIENCE)
        work(ranks, pipe.send)
    except Exception as error:  # a plugin's code may raise anything
        pipe.send(_Reason(describe(error)))
        threading.Event().wait()  # until it is ended: the others would fail of its absence, and tell of that
    dist.destroy_process_group()
    pipe.send(None)


def _take_first(tensor: Tensor) -> None:
    """Make a tensor that of the first process, in place; it need not be contiguous."""
    sent = tensor.contiguous()
    dist.broadcast(sent, src=0)
    tensor.copy_(sent)
