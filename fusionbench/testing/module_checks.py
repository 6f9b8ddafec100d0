"""What backbones and attention modules promise alike, as modules from a feature map to a feature map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fusionbench.components import AttentionModule, Backbone
from fusionbench.numerics import seeded
from fusionbench.testing.class_checks import each_option_value
from fusionbench.testing.requirements import close, gradients, listing, moved, pickled, require, state_of
from fusionbench.testing.toys import randomise

Size = tuple[int, int, int]
Part = type[Backbone] | type[AttentionModule]
Built = TypeVar("Built", bound=nn.Module)

IMAGE_SIZES: tuple[Size, ...] = ((3, 33, 20), (1, 16, 24), (6, 17, 31))
"""(D, H, W) of images that a backbone meets: odd, of one slice, and not divisible by 16."""
MAP_SIZES: tuple[Size, ...] = ((3, 5, 7), (1, 5, 7), (4, 1, 6), (2, 3, 1), (1, 1, 1))
"""(D, H, W) of feature maps that an attention module meets, down to one voxel."""
CHANNELS = 8


@dataclass(frozen=True)
class Case:
    """An input for a module: so many channels, of such a size."""

    channels: int
    size: Size

    def __str__(self) -> str:
        return f"{self.channels} channels of size {self.size}"

    def draw(self, subjects: int = 3, seed: int = 0) -> Tensor:
        """(B, C, D, H, W) of random numbers."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(subjects, self.channels, *self.size, generator=generator)


def cases(cls: Part) -> Iterator[Case]:
    """Inputs that the module must take, the most ordinary first."""
    if issubclass(cls, AttentionModule):
        yield from (Case(CHANNELS, size) for size in MAP_SIZES)
        return
    if "image" in cls.accepts:
        yield from (Case(channels, size) for channels, size in zip((1, 4, 1), IMAGE_SIZES, strict=True))
    if "table" in cls.accepts:
        yield from (Case(channels, (1, 1, 1)) for channels in (5, 1))


def main_cases(cls: Part) -> Iterator[Case]:
    """The most ordinary input of each kind."""
    yield from {case.size == (1, 1, 1): case for case in reversed(list(cases(cls)))}.values()


def build(cls: type[Built], channels: int, seed: int = 0, **options: Any) -> Built:
    """A module with fresh weights from a seed."""
    with seeded(seed):
        return cls(channels, **options)


def shaken(cls: type[Built], channels: int, seed: int = 0, **options: Any) -> Built:
    """A module in eval mode whose parameters have left their start."""
    module = build(cls, channels, seed, **options)
    randomise(module, seed)
    return module.eval()


def check_finite(cls: Part, **options: Any) -> None:
    """What it returns is finite, also for an input of zeros and a large one."""
    for case in cases(cls):
        module = shaken(cls, case.channels, **options)
        for scale in (0, 1, 100):
            with torch.no_grad():
                out = module(case.draw() * scale)
            require(bool(torch.isfinite(out).all()), f"NaN or infinity for {case}, of magnitude {scale}")


def check_every_parameter_trains(cls: Part, **options: Any) -> None:
    """Every parameter gets a gradient, once parameters are random."""
    silent: set[str] = {name for name, _ in build(cls, next(cases(cls)).channels, **options).named_parameters()}
    for case in main_cases(cls):
        for seed in range(3):
            module = shaken(cls, case.channels, seed, **options)
            silent -= gradients(module, _random_sum(module, case.draw(seed=seed)))
    require(not silent, f"no gradient for {listing(sorted(silent))}: use it in forward, or do not create it")


def check_differentiable(cls: Part, **options: Any) -> None:
    """The gradient reaches the input."""
    for case in main_cases(cls):
        module, x = shaken(cls, case.channels, **options), case.draw().requires_grad_()
        _random_sum(module, x)().backward()  # type: ignore[no-untyped-call]
        require(x.grad is not None and bool(x.grad.any()), f"no gradient reaches the input, for {case}")


def check_samples_independent(cls: Part, **options: Any) -> None:
    """In eval mode a sample's features do not depend on what else is in the batch."""
    for case in main_cases(cls):
        module, x = shaken(cls, case.channels, **options), case.draw()
        with torch.no_grad():
            together, alone = module(x), torch.cat([module(x[row : row + 1]) for row in range(len(x))])
        require(close(together, alone), f"a sample's features change with its company, for {case}")


def check_inputs_untouched(cls: Part, **options: Any) -> None:
    """Nobody's input is changed in place."""
    for case in main_cases(cls):
        for module in (shaken(cls, case.channels, **options), shaken(cls, case.channels, **options).train()):
            x = case.draw()
            with seeded(0), torch.no_grad():
                module(x)
            require(torch.equal(x, case.draw()), "the input is changed in place: work on a copy")


def check_eval_changes_nothing(cls: Part, **options: Any) -> None:
    """In eval mode a pass moves no parameter and no buffer."""
    for case in main_cases(cls):
        module = shaken(cls, case.channels, **options)
        before = state_of(module)
        with torch.no_grad():
            module(case.draw())
        names = moved(before, module)
        require(not names, f"a pass in eval mode moves {listing(names)}: move it only if self.training")


def check_batch_of_one(cls: Part, **options: Any) -> None:
    """It trains on one sample at a time, which is the published batch size."""
    for case in main_cases(cls):
        module = build(cls, case.channels, **options).train()
        out = module(case.draw(1))
        require(bool(torch.isfinite(out).all()), f"NaN or infinity in train mode for one sample of {case}")


def check_state_round_trip(cls: Part, **options: Any) -> None:
    """Its state_dict is all there is to it: loaded into a new one, it gives the same features."""
    for case in main_cases(cls):
        old, new = shaken(cls, case.channels, **options), build(cls, case.channels, 1, **options).eval()
        if isinstance(old, Backbone):
            old.fit_statistics([case.draw(8, seed=5) * 3 + 1])
        new.load_state_dict(old.state_dict())
        with torch.no_grad():
            same = torch.equal(old(case.draw()), new(case.draw()))
        require(same, "a reloaded one gives other features: keep all that was learned in parameters and buffers")


def check_same_seed(cls: Part, **options: Any) -> None:
    """The same seed gives the same weights."""
    for case in main_cases(cls):
        first, second = (build(cls, case.channels, 3, **options) for _ in range(2))
        names = moved(state_of(first), second)
        require(not names, f"{listing(names)} differ for the same seed: draw with torch's own generator")


def check_pickles(cls: Part, **options: Any) -> None:
    """It can be pickled, as worker processes need."""
    for case in main_cases(cls):
        module = shaken(cls, case.channels, **options)
        with torch.no_grad():
            require(torch.equal(module(case.draw()), pickled(module)(case.draw())), "a pickled copy gives others")


def check_autocast(cls: Part, **options: Any) -> None:
    """Under bf16 autocast it runs, and what it returns is finite and near what float32 gives."""
    for case in main_cases(cls):
        module, x = shaken(cls, case.channels, **options), case.draw()
        with torch.no_grad():
            exact = module(x)
            with torch.autocast("cpu", torch.bfloat16):
                rough = module(x)
        require(bool(torch.isfinite(rough).all()), f"NaN or infinity under bf16 autocast, for {case}")
        require(close(rough, exact, 0.1), f"bf16 autocast is more than 10 % off float32, for {case}")


def check_each_option(cls: Part, **options: Any) -> None:
    """It can be built and run with each value of each option that lists its values."""
    case = next(cases(cls))
    for values in each_option_value(cls):
        with torch.no_grad():
            out = build(cls, case.channels, **{**options, **values}).eval()(case.draw(1))
        require(bool(torch.isfinite(out).all()), f"NaN or infinity with {values}")


def check_low_then_high(cls: type[Backbone], **options: Any) -> None:
    """forward(x) is high(low(x)), and high leaves the low-level features as they are."""
    for case in cases(cls):
        module, x = shaken(cls, case.channels, **options), case.draw()
        with torch.no_grad():
            low = module.low(x)
            kept = low.clone()
            high = module.high(low)
            require(torch.equal(kept, low), "high() changes the low-level features in place: work on a copy")
            require(torch.equal(module(x), high), f"forward(x) is not high(low(x)), for {case}")


def check_specs_true(cls: type[Backbone], **options: Any) -> None:
    """low_spec and high_spec are the truth about channels and sizes."""
    for case in cases(cls):
        module = shaken(cls, case.channels, **options)
        with torch.no_grad():
            low = module.low(case.draw())
            high = module.high(low)
        for name, spec, found in (("low", module.low_spec, low), ("high", module.high_spec, high)):
            told = (len(found), spec.channels, *spec.size(case.size))
            require(
                tuple(found.shape) == told,
                f"{name}_spec says {told} for an input of size {case.size}, but {name}() returns {tuple(found.shape)}",
            )


def check_statistics_fitted(cls: type[Backbone], **options: Any) -> None:
    """What it knows of its inputs comes from fit_statistics, exactly if `needs_statistics` says so."""
    for case in main_cases(cls):
        module = shaken(cls, case.channels, **options)
        parameters, before = dict(module.named_parameters()), state_of(module)
        module.fit_statistics([case.draw(8, seed=5) * 3 + 1])
        names = moved(before, module)
        trained = [name for name in names if name in parameters]
        require(not trained, f"fit_statistics moves the parameters {listing(trained)}: keep statistics in buffers")
        if cls.needs_statistics:
            require(bool(names), "`needs_statistics` is true, but fit_statistics moves no buffer")
        require(
            cls.needs_statistics or not names,
            f"fit_statistics moves {listing(names)}, but is not called unless `needs_statistics` is true",
        )


def check_shape_kept(cls: type[AttentionModule], **options: Any) -> None:
    """It returns the shape that it was given, for any D, H, W."""
    for case in cases(cls):
        with torch.no_grad():
            found = tuple(shaken(cls, case.channels, **options)(case.draw()).shape)
        require(found == tuple(case.draw().shape), f"returns {found} for {tuple(case.draw().shape)}")


def check_maps(cls: type[AttentionModule], **options: Any) -> None:
    """The maps that it offers for drawing are finite, and each axis is that of the features or 1."""
    for case in cases(cls):
        x = case.draw()
        with torch.no_grad():
            maps = shaken(cls, case.channels, **options).maps(x)
        for name, found in maps.items():
            fits = found.dim() == 5 and len(found) == len(x)
            fits = fits and all(n in (1, whole) for n, whole in zip(found.shape, x.shape, strict=True))
            require(
                fits, f"map {name} is {tuple(found.shape)} for {tuple(x.shape)}: (B, C or 1, D or 1, H or 1, W or 1)"
            )
            require(bool(torch.isfinite(found).all()), f"NaN or infinity in the map {name}, for {case}")


def check_identity_told(cls: type[AttentionModule], **options: Any) -> None:
    """`identity` is true exactly if it changes nothing: then no label mentions it."""
    for case in main_cases(cls):
        with torch.no_grad():
            same = torch.equal(shaken(cls, case.channels, **options)(case.draw()), case.draw())
        require(same or not cls.identity, "`identity` is true, but the features are changed")
        require(cls.identity or not same, "the features are not changed: say so with `identity = True`")


def _random_sum(module: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """A scalar in which every value of the output counts differently, so that no normalisation cancels it."""

    def total() -> Tensor:
        out: Tensor = module(x)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
        return (out * weights).sum()

    return total
