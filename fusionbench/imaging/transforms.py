"""Transforms of torchio as settings write them, such as `RandomNoise(std=0.05)`: parsed, tried, applied.

They come after the built-in augmentation. Each item is drawn from its own seed, so that neither the order of the
items nor who else is in a batch changes a voxel.
"""

from __future__ import annotations

import ast
import copy
import inspect
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusionbench.errors import UsageError, nearest, one_line
from fusionbench.seeds import derive_seed

SETTING = "recipe.augmentation.extra"
_SEG = "seg"


def transforms_of(texts: Sequence[str]) -> tuple[Any, ...]:
    """The torchio transforms that are written there; UsageError in one line for what is none.

    >>> transforms_of(["RandomFlip(axes=(0, 1), p=0.5)"])[0].probability
    0.5
    """
    return _transforms_of(tuple(texts))


def transformed(
    transforms: Sequence[Any],
    inputs: Mapping[str, Tensor],
    seg: Tensor | None,
    seeds: Sequence[int],
    spacings: Tensor,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Apply transforms to every item as its own seed says: to all its images (B, C, D, H, W) and its segmentation.

    `spacings` is mm per voxel, (B, 3) in the order (D, H, W). An image of zeros alone stands for one that is missing
    and is left as it is, as are tables. Raises UsageError for a transform that fails or gives another size.
    """
    images = {name: values.clone() for name, values in inputs.items() if values.shape[2:] != (1, 1, 1)}
    labels = None if seg is None else seg.clone()
    for item, seed in enumerate(seeds):
        mine = {name: values[item] for name, values in images.items() if values[item].any()}
        if mine:
            outline = None if labels is None else labels[item]
            _transform_item(transforms, mine, outline, derive_seed(seed, "transforms"), spacings[item].tolist())
    return dict(inputs) | images, labels


def rehearse(texts: Sequence[str], inputs: Mapping[str, Tensor], seg: Tensor | None, spacings: Tensor) -> None:
    """Apply every transform once to these items, however seldom it comes; UsageError for one that cannot be."""
    certain = [copy.copy(transform) for transform in transforms_of(texts)]
    for transform in certain:
        transform.probability = 1
    transformed(certain, inputs, seg, range(len(spacings)), spacings)


@lru_cache(maxsize=16)
def _transforms_of(texts: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(_transform_of(text) for text in texts)


def _transform_of(text: str) -> Any:
    name, options = _parsed(text)
    cls = _named(name)
    known = _options(cls)
    for option in options:
        if option not in known:
            raise UsageError(f"{SETTING}: {name} has no option {option!r}: {nearest(option, known)}")
    try:
        return cls(**options)
    except Exception as error:  # torchio's own checks raise whatever they like
        raise UsageError(f"{SETTING}: {text} cannot be made: {one_line(str(error))}") from None


def _parsed(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of a call that is written with plain values; nothing of it is executed."""
    try:
        match ast.parse(text.strip(), mode="eval").body:
            case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords) if all(word.arg for word in keywords):
                return name, {str(word.arg): ast.literal_eval(word.value) for word in keywords}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        pass
    mend = "write it with named plain values, as RandomNoise(std=0.05)"
    raise UsageError(f"{SETTING}: {text[:80]!r} is no transform; {mend}")


def _named(name: str) -> type[Any]:
    """The class of that name among torchio's transforms."""
    from torchio import transforms

    found = {n: getattr(transforms, n) for n in transforms.__all__}
    known = {n: c for n, c in found.items() if inspect.isclass(c) and issubclass(c, transforms.Transform)}
    usable = {n: c for n, c in known.items() if not inspect.isabstract(c)}
    if name not in usable:
        raise UsageError(f"{SETTING}: torchio has no transform {name!r}: {nearest(name, usable)}")
    return usable[name]


def _options(cls: type[Any]) -> set[str]:
    """The keyword arguments that a transform takes, those of its base classes included."""
    makers = (vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base) and base is not object)
    parameters = (p for maker in makers for p in inspect.signature(maker).parameters.values())
    return {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - {"self"}


def _transform_item(
    transforms: Sequence[Any], images: Mapping[str, Tensor], seg: Tensor | None, seed: int, spacing: Sequence[float]
) -> None:
    """Transform one item, in place: images (C, D, H, W) and labels (1, D, H, W)."""
    import torchio as typed_in_part

    torchio: Any = typed_in_part
    depth, height, width = spacing
    affine = np.diag([width, height, depth, 1.0])
    told = {n: torchio.ScalarImage(tensor=_turned(x).contiguous(), affine=affine) for n, x in images.items()}
    if seg is not None:
        told[_SEG] = torchio.LabelMap(tensor=_turned(seg).contiguous(), affine=affine)
    subject = torchio.Subject(told)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a thousand items each says the same
        torch.default_generator.manual_seed(seed)
        for transform in transforms:
            subject = _applied(transform, subject)
    for name, values in (*images.items(), *([] if seg is None else [(_SEG, seg)])):
        values.copy_(_turned(subject[name].data))


def _applied(transform: Any, subject: Any) -> Any:
    """The subject after one transform; UsageError if it fails, or changes what must fit together."""
    before = {name: subject[name].shape for name in subject}
    try:
        after = transform(subject)
    except Exception as error:  # a transform may fail in any way on a size that does not suit it
        raise UsageError(f"{SETTING}: {transform.name} fails: {one_line(str(error))}; take it out") from None
    shapes = {name: image.shape for name, image in after.items()}
    if shapes != before:
        raise UsageError(f"{SETTING}: {transform.name} changes the size or number of images; take it out")
    return after


def _turned(values: Tensor) -> Tensor:
    """(C, D, H, W) -> torchio's (C, X, Y, Z), and back."""
    return values.permute(0, 3, 2, 1).cpu()
