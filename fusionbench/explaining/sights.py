"""One prediction taken apart: for each backbone its features, its Grad-CAM and the maps of its attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionbench.components import Backbone, FusionStrategy
from fusionbench.explaining.gradcam import grad_cam, log_odds
from fusionbench.explaining.watching import Pass, watched

Volume: TypeAlias = NDArray[np.float32]
"""Numbers along (D, H, W)."""

CHANNELS = 4
"""How many channels are kept of a feature map."""


@dataclass(frozen=True)
class FeatureMap:
    """A feature map (C, D, H, W), in short."""

    channels: int
    mean: Volume
    """Over the channels."""
    strongest: Mapping[int, Volume]
    """The channels of the largest mean magnitude, that one first."""

    @classmethod
    def of(cls, features: Tensor) -> FeatureMap:
        """The features (C, D, H, W) in short."""
        magnitude = features.abs().mean((1, 2, 3))
        first = magnitude.argsort(descending=True, stable=True)[:CHANNELS].tolist()
        return cls(len(features), _volume(features.mean(0)), {channel: _volume(features[channel]) for channel in first})


@dataclass(frozen=True)
class Sight:
    """What one run of a backbone saw of one subject, and what became of it."""

    modalities: tuple[str, ...]
    """Whose image it saw; several if they are the channels of one."""
    low: FeatureMap
    high: FeatureMap
    cam: Volume | None
    """Grad-CAM at the size of the high-level features; None if no gradient reaches these."""
    attention: Mapping[str, Volume] = field(default_factory=dict)
    """Map of weights -> its mean over channels; an axis of length 1 is one over which all weights are alike."""
    changed: float | None = None
    """How far attention turns the features: the sine of the angle between them before and after, 0 if they are only
    scaled. None if no attention module sees them."""


def look(model: FusionStrategy, inputs: Mapping[str, Tensor], number: int) -> tuple[Tensor, tuple[Sight, ...]]:
    """The logits (K,) of the one subject in these inputs, and what leads to the log-odds of a class.

    The model stays as it is. No sights if it has no backbone.
    """
    model.eval()
    with watched(model) as passes:
        logits = model(inputs)[0].float()
        complete = [one for one in passes if one.high is not None]
        gradients = _gradients(log_odds(logits, number), [one.high for one in complete if one.high is not None])
    with torch.no_grad():
        pairs = zip(complete, gradients, strict=True)
        sights = tuple(sight for one, gradient in pairs for sight in _sights(one, gradient, inputs))
    return logits.detach(), sights


def _gradients(score: Tensor, features: Sequence[Tensor]) -> Sequence[Tensor | None]:
    if not score.requires_grad or not features:
        return [None] * len(features)
    return torch.autograd.grad(score, list(features), allow_unused=True)


def _sights(one: Pass, gradient: Tensor | None, inputs: Mapping[str, Tensor]) -> list[Sight]:
    """One for each row."""
    assert one.high is not None
    high, low = one.high.detach().float(), one.low.detach().float()
    attention, changed = _attention(one)
    cams = [None] * len(high) if gradient is None else [*map(grad_cam, high, gradient.float())]
    return [
        Sight(
            modalities=_whose(one.backbone, one.x[row], inputs),
            low=FeatureMap.of(low[row]),
            high=FeatureMap.of(high[row]),
            cam=None if cam is None else _volume(cam),
            attention={name: _volume(map[row].mean(0)) for name, map in attention.items()},
            changed=None if changed is None else changed[row].item(),
        )
        for row, cam in enumerate(cams)
    ]


def _attention(one: Pass) -> tuple[Mapping[str, Tensor], Tensor | None]:
    """The maps of the attention module behind a backbone, and by how much it turns each row."""
    if one.attention is None or one.handed_on is None:
        return {}, None
    before, after = one.handed_on.flatten(1).double(), one.attention(one.handed_on).flatten(1).double()
    cosine = torch.nn.functional.cosine_similarity(before, after)
    return one.attention.maps(one.handed_on), (1 - cosine**2).clamp_min(0).sqrt()


def _whose(backbone: Backbone, seen: Tensor, inputs: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The modality whose image (C, D, H, W) that is: a backbone may serve others than the one that it was made for."""
    if len(backbone.modalities) > 1:
        return backbone.modalities
    own = [name for name in backbone.modalities if name in inputs]
    names = [*own, *(name for name, x in inputs.items() if name not in own and x.dim() == 5)]
    return next(((name,) for name in names if torch.equal(inputs[name][0], seen)), backbone.modalities)


def _volume(tensor: Tensor) -> Volume:
    return tensor.float().cpu().numpy()
