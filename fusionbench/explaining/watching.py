"""What the backbones of a model compute while it predicts: caught on the way, with gradients from there on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fusionbench.components import AttentionModule, Backbone


@dataclass(eq=False)
class Pass:
    """One run of a backbone; R rows, which are subjects, or modalities where one run serves several."""

    backbone: Backbone
    x: Tensor
    """(R, C, D, H, W): what it saw."""
    low: Tensor
    """(R, C, d, h, w): its low-level features."""
    high: Tensor | None = None
    """(R, C, d, h, w): its high-level features, of which gradients can be taken; None if it never came to them."""
    handed_on: Tensor | None = None
    """The same, as the model goes on with them."""
    attention: AttentionModule | None = None
    """What sees them next, if that is an attention module."""


@contextmanager
def watched(model: nn.Module) -> Iterator[list[Pass]]:
    """Catch every run of a backbone inside, and let gradients flow from its high-level features to what comes out.

    Parameters need no gradient inside, so nothing before those features is kept for a backward pass. A strategy may
    keep the gradients of its training from features by `torch.no_grad`: its prediction depends on them all the same,
    and it is the prediction that is differentiated here, so recording is switched on again behind each backbone.
    """
    passes: list[Pass] = []
    backbones = [module for module in model.modules() if isinstance(module, Backbone)]
    modules = [module for module in model.modules() if isinstance(module, AttentionModule)]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hooks = [module.register_forward_pre_hook(partial(_note_attention, passes)) for module in modules]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        for backbone in backbones:
            _catch(backbone, passes)
        with torch.enable_grad():
            yield passes
    finally:
        for hook in hooks:
            hook.remove()
        for backbone in backbones:
            for half in ("low", "high"):
                vars(backbone).pop(half, None)  # the method of its class is there again
        for parameter in trained:
            parameter.requires_grad_(True)


def _catch(backbone: Backbone, passes: list[Pass]) -> None:
    low, high = backbone.low, backbone.high

    def watched_low(x: Tensor) -> Tensor:
        features = low(x)
        passes.append(Pass(backbone, x, features))
        return features

    def watched_high(low_features: Tensor) -> Tensor:
        features = high(low_features)
        source = features if features.requires_grad else features.detach().requires_grad_()
        torch.set_grad_enabled(True)
        handed_on = source.clone()  # a copy, so that what follows may change it in place
        for one in passes:
            if one.backbone is backbone and one.high is None:
                one.high, one.handed_on = source, handed_on
                break
        return handed_on

    for name, half in (("low", watched_low), ("high", watched_high)):
        setattr(backbone, name, half)


def _note_attention(passes: list[Pass], module: AttentionModule, arguments: tuple[Any, ...]) -> None:
    for one in passes:
        if one.handed_on is arguments[0]:
            one.attention = module
