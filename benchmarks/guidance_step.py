"""What a step of stage 2 of guidance costs, beside the paper's Algorithm 1 as it is written.

    python -m benchmarks guidance_step
    python -m benchmarks.guidance_step [--rounds 5] [--size 12 48 48] [--width 16] [--batch 2]

Forward and backward on one thread, every way in this process, in turn, medians of the processor's time; images of
12 x 48 x 48, batches of two, RMC of width 16 and of width 32, four modalities. The second form prints the table of
docs/performance.md for one width. Batches of one are refused: there single-precision convolutions of a CPU fall to a
slow kernel, and any comparison would be of that.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.targets import Row, Target, alternating
from fusionbench import Batch, Parts
from fusionbench.costs.meter import kept
from fusionbench.training import channels_last, is_trained, set_modes
from fusionbench_plugins.attention.dual import DualAttention
from fusionbench_plugins.backbones.resnet import Rmc
from fusionbench_plugins.fusion.guidance import Guidance, guidance_loss

IMAGES = ("t1ce", "t2", "flair", "t1")
LITERAL, CAREFUL, OURS = "Algorithm 1, float32", "careful baseline, float32", "ours, float32"
BF16, LAST = "ours, bf16", "ours, bf16, channels last"
KEEPING, FRUGAL = "ours, features of the primary kept", "ours, branch by branch"
BOUNDS = {
    (LITERAL, OURS): 1.6, (LITERAL, BF16): 2.8, (LITERAL, LAST): 2.8, (LITERAL, KEEPING): 1.9,
    (CAREFUL, OURS): 1.1, (CAREFUL, BF16): 1.9, (CAREFUL, LAST): 1.9,
}  # fmt: skip
KEPT = 0.6
"""Of the activations that Algorithm 1 keeps."""
EXACT = 1e-6
"""How far gradients in double precision may be apart, relative to their norm."""


@dataclass(frozen=True)
class Measured:
    """What each way takes, by name."""

    seconds: dict[str, float]
    kept: dict[str, int]
    """Bytes held for the backward pass."""
    apart: dict[str, float]
    """How far the gradients are from those of Algorithm 1, relative to their norm."""
    exact: float
    """How far ours are from them in double precision."""


def concatenated(model: Guidance, batch: Batch, *, graph: bool) -> Tensor:
    """Algorithm 1: the primary once for every secondary, R_i on what is concatenated at full size, T_i on maps."""
    logits, fused = [], None
    secondaries: list[Any] = [*model.secondaries]
    for name, guided in zip(model.secondary_modalities, secondaries, strict=True):
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


def build(width: int, *, graph: bool = False, modalities: tuple[str, ...] = IMAGES, **options: Any) -> Guidance:
    """Guidance in the middle of stage 2, nothing where it started; the primary frozen, but where a graph is wanted."""
    torch.manual_seed(0)
    parts = Parts(
        modalities,
        ("HGG", "LGG"),
        dict.fromkeys(modalities, 1),
        lambda names, n: Rmc(n, width=width),
        DualAttention,
        0.0,
    )
    model = Guidance(parts, reduce_init="default", fuse_init="default", **options)
    (stage,) = model.stages()
    set_modes(model, stage.trains)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(graph or is_trained(name, stage.trains))
    return model


def step(model: Guidance, batch: Batch, loss: Callable[[Guidance, Batch], Tensor], bf16: bool) -> None:
    """A forward and a backward pass."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        total = loss(model, batch)
    total.backward()


def gradients(model: Guidance) -> dict[str, Tensor]:
    """Of what stage 2 trains."""
    return {n: p.grad.clone() for n, p in model.secondaries.named_parameters() if p.grad is not None}


def apart(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """How far two sets of gradients are apart, relative to their norm."""
    square = sum(float((ours[name] - theirs[name]).square().sum()) for name in theirs)
    return float((square / sum(float(g.square().sum()) for g in theirs.values())) ** 0.5)


def images(size: Sequence[int], subjects: int) -> Batch:
    """Noise of (D, H, W) for every modality."""
    inputs = {name: torch.rand(subjects, 1, *size) for name in IMAGES}
    return Batch(tuple(map(str, range(subjects))), inputs, torch.arange(subjects) % 2, torch.ones(subjects))


def compared(width: int, batch: Batch, rounds: int) -> Measured:
    """Every way on the same batch."""
    torch.set_num_threads(1)
    plain, literal = build(width), build(width, graph=True)
    frugal, keeping = build(width, backward="branchwise"), build(width, primary_features="kept")
    last = build(width)
    channels_last(last)
    ours, algorithm = partial(guidance_loss, progress=0.0), partial(concatenated, graph=True)
    ways = {
        LITERAL: partial(step, literal, batch, algorithm, False),
        CAREFUL: partial(step, plain, batch, partial(concatenated, graph=False), False),
        OURS: partial(step, plain, batch, ours, False),
        BF16: partial(step, plain, batch, ours, True),
        LAST: partial(step, last, batch, ours, True),
        KEEPING: partial(step, keeping, replace(batch, constant=True), ours, False),
        FRUGAL: partial(step, frugal, batch, ours, False),
    }
    held, found = {}, {}
    for name, way in ways.items():
        model = way.args[0]
        with kept([*model.state_dict().values(), *batch.inputs.values()]) as bytes_:
            way()
        held[name], found[name] = sum(bytes_.values()), gradients(model)
    seconds = alternating(ways, rounds, time.process_time)
    exact = replace(batch, inputs={name: x.double() for name, x in batch.inputs.items()})
    for model, loss in ((plain.double(), ours), (literal.double(), algorithm)):
        step(model, exact, loss, False)
    differences = {name: apart(found[name], found[LITERAL]) for name in ways}
    return Measured(seconds, held, differences, apart(gradients(plain), gradients(literal)))


def measure() -> Iterator[Row]:
    """Both sides of every ratio."""
    for width in (16, 32):
        found = compared(width, images((12, 48, 48), 2), rounds=3)
        for (slow, fast), bound in BOUNDS.items():
            ratio = found.seconds[slow] / found.seconds[fast]
            yield Target(f"stage 2 at width {width}, {slow} / {fast}", ratio, bound)
        share = found.kept[OURS] / found.kept[LITERAL]
        yield Target(f"stage 2 at width {width}, activations kept, ours / Algorithm 1's", share, KEPT, at_least=False)
        print(f"  gradients in double precision are {found.exact:.0e} apart (allowed: {EXACT:g})")
        if found.exact > EXACT:
            raise SystemExit("the two do not have the same gradients: nothing is compared")


def main() -> None:
    """Print all ways as one table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=3, default=(12, 48, 48))
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, default=2)
    asked = parser.parse_args()
    if asked.batch < 2:
        parser.error("give a batch of two or more")
    found = compared(asked.width, images(asked.size, asked.batch), asked.rounds)
    print("| step | Algorithm 1 / it | careful / it | activations kept | gradients apart |")
    print("|---|---|---|---|---|")
    for name, seconds in found.seconds.items():
        fast, careful = found.seconds[LITERAL] / seconds, found.seconds[CAREFUL] / seconds
        share = found.kept[name] / found.kept[LITERAL]
        print(f"| {name} | {fast:.2f}x | {careful:.2f}x | {share:.2f} | {found.apart[name]:.1e} |")
    print(f"\nin double precision ours and Algorithm 1 are {found.exact:.0e} apart")


if __name__ == "__main__":
    main()
