"""What a step of stage 2 of guidance costs, beside the paper's Algorithm 1 as it is written: docs/performance.md.

    python benchmarks/guidance_step.py [--rounds 5] [--size 12 48 48] [--width 16] [--batch 2]

Forward and backward on one thread, every way in this process, in turn, medians of the processor's time. Prints
Markdown with the target of each ratio. Batches of one are refused: there single-precision convolutions of a CPU fall
to a slow kernel, and any comparison would be of that.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from fusionbench import Batch, Parts, pool
from fusionbench.training import is_trained, set_modes
from fusionbench_plugins.attention.dual import DualAttention
from fusionbench_plugins.backbones.resnet import Rmc
from fusionbench_plugins.fusion.guidance import Guidance, guidance_loss

IMAGES = ("t1ce", "t2", "flair", "t1")
TARGETS = {"ours, float32": 1.6, "ours, bf16": 2.8, "ours, features of the primary given": 1.9}
"""Against Algorithm 1, in float32."""
CAREFUL = {"ours, float32": 1.1, "ours, bf16": 1.9}
"""Against the careful baseline, in float32."""
KEPT = 0.6
"""Of the activations that Algorithm 1 keeps."""


def concatenated(model: Guidance, batch: Batch, *, graph: bool) -> Tensor:
    """Algorithm 1: the primary once for every secondary, R_i on what is concatenated at full size, T_i on maps."""
    logits, fused = [], None
    for name, guided in zip(model.secondary_modalities, model.secondaries, strict=True):
        with nullcontext() if graph else torch.no_grad():
            guidance = model.primary.features(batch.inputs[model.primary_modality])
        if fused is None:
            fused = guidance
            logits.append(model.primary.head(fused))
        low = guided.backbone.low(batch.inputs[name])
        both = torch.cat([low, guided.reduce.resize(guidance, low)], 1)
        features = guided.attention(guided.backbone.high(guided.reduce.conv(both)))
        weight = guided.fuse.weight[:, :, None, None, None]
        fused = F.conv3d(torch.cat([fused, features], 1), weight, guided.fuse.bias)
        logits.append(model.primary.head(fused))
    return torch.stack([batch.cross_entropy(each) for each in logits]).sum()


def given(model: Guidance, batch: Batch, guidance: Tensor) -> Tensor:
    """Ours, the features of the primary being known."""
    fused = pool(guidance)
    logits = [model.primary.head(fused)]
    for name, guided in zip(model.secondary_modalities, model.secondaries, strict=True):
        fused = guided(batch.inputs[name], guidance, fused)
        logits.append(model.primary.head(fused))
    return torch.stack([batch.cross_entropy(each) for each in logits]).sum()


def build(width: int, backward: str, *, graph: bool = False) -> Guidance:
    """Guidance in the middle of stage 2, nothing where it started; the primary frozen, but where a graph is wanted."""
    torch.manual_seed(0)
    parts = Parts(
        IMAGES, ("HGG", "LGG"), dict.fromkeys(IMAGES, 1), lambda names, n: Rmc(n, width=width), DualAttention, 0.0
    )
    model = Guidance(parts, backward=backward, reduce_init="default", fuse_init="default")  # type: ignore[arg-type]
    (stage,) = model.stages()
    set_modes(model, stage.trains)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(graph or is_trained(name, stage.trains))
    return model


@contextmanager
def kept(model: Guidance, batch: Batch) -> Iterator[list[int]]:
    """Bytes held for the backward pass inside, parameters and inputs not counted, in a list of one number."""
    known = {t.untyped_storage().data_ptr() for t in (*model.state_dict().values(), *batch.inputs.values())}
    total = [0]

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            known.add(storage.data_ptr())
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield total


def step(model: Guidance, batch: Batch, loss: Callable[[Guidance, Batch], Tensor], bf16: bool) -> float:
    """The processor's seconds of a forward and a backward pass."""
    model.zero_grad()
    started = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        total = loss(model, batch)
    total.backward()
    return time.process_time() - started


def gradients(model: Guidance) -> dict[str, Tensor]:
    """Of what stage 2 trains."""
    return {n: p.grad.clone() for n, p in model.secondaries.named_parameters() if p.grad is not None}


def apart(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """How far two sets of gradients are apart, relative to their norm."""
    square = sum(float((ours[name] - theirs[name]).square().sum()) for name in theirs)
    return float((square / sum(float(g.square().sum()) for g in theirs.values())) ** 0.5)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=3, default=(12, 48, 48))
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, default=2)
    asked = parser.parse_args()
    if asked.batch < 2:
        parser.error("give a batch of two or more")
    torch.set_num_threads(1)
    inputs = {name: torch.rand(asked.batch, 1, *asked.size) for name in IMAGES}
    ids = tuple(map(str, range(asked.batch)))
    batch = Batch(ids, inputs, torch.arange(asked.batch) % 2, torch.ones(asked.batch))
    plain, frugal, literal = (
        build(asked.width, "joint"), build(asked.width, "branchwise"), build(asked.width, "joint", graph=True)
    )  # fmt: skip
    with torch.no_grad():
        known = plain.primary.features(inputs[IMAGES[0]])
    ours = partial(guidance_loss, progress=0.0)
    ways = {
        "Algorithm 1, float32": (literal, partial(concatenated, graph=True), False),
        "careful baseline, float32": (plain, partial(concatenated, graph=False), False),
        "ours, float32": (plain, ours, False),
        "ours, bf16": (plain, ours, True),
        "ours, features of the primary given": (plain, partial(given, guidance=known), False),
        "ours, branch by branch": (frugal, ours, False),
    }
    held, found = {}, {}
    for name, (model, loss, bf16) in ways.items():
        with kept(model, batch) as total:
            step(model, batch, loss, bf16)
        held[name], found[name] = total[0], gradients(model)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(asked.rounds):
        for name, way in ways.items():
            times[name].append(step(way[0], batch, *way[1:]))
    medians = {name: statistics.median(several) for name, several in times.items()}
    first, second = list(ways)[:2]
    print("| step | Algorithm 1 / it | careful / it | activations kept | gradients apart |")
    print("|---|---|---|---|---|")
    for name in ways:
        fast, careful = medians[first] / medians[name], medians[second] / medians[name]
        print(
            f"| {name} | {fast:.2f}x{verdict(fast, TARGETS.get(name))} | "
            f"{careful:.2f}x{verdict(careful, CAREFUL.get(name))} | {held[name] / held[first]:.2f} | "
            f"{apart(found[name], found[first]):.1e} |"
        )
    exact = replace(batch, inputs={name: x.double() for name, x in inputs.items()})
    for model, loss in ((plain.double(), ours), (literal.double(), partial(concatenated, graph=True))):
        step(model, exact, loss, False)
    print(f"\nin double precision ours and Algorithm 1 are {apart(gradients(plain), gradients(literal)):.0e} apart")
    share = held["ours, float32"] / held[first]
    print(f"activations kept: {share:.2f} of Algorithm 1's (target {KEPT}: {'met' if share <= KEPT else 'not met'})")


def verdict(ratio: float, target: float | None) -> str:
    """Whether a ratio reaches its target, if it has one."""
    return "" if target is None else f" (target {target}x: {'met' if ratio >= target else 'not met'})"


if __name__ == "__main__":
    main()
