"""Grad-CAM: where the features of a network speak for a class.

After R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
ICCV 2017 (arXiv 1610.02391). With A_k channel k of a feature map, Z its positions and y the score of the class:

    a_k = (1/Z) sum_i dy / dA_k,i            L_i = relu(sum_k a_k A_k,i)

The paper's y is the logit of the class. Here it is its log-odds, z_c - log sum_(j != c) exp z_j: a strategy promises no
more than that the softmax of its logits is the prediction, and logits that differ by a constant for each subject are
the same prediction with other gradients. Of two classes it is the difference of both logits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def log_odds(logits: Tensor, number: int) -> Tensor:
    """The log-odds of a class against all others, from logits (K,).

    >>> log_odds(torch.tensor([1.0, 3.5]), 1).item()
    2.5
    """
    return logits[number] - torch.cat([logits[:number], logits[number + 1 :]]).logsumexp(0)


def grad_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """Features and the gradient of a score by them, (C, D, H, W) each, -> the map (D, H, W), nowhere below 0."""
    weights = gradient.mean((1, 2, 3), keepdim=True)  # a_k, (C, 1, 1, 1)
    return (weights * features).sum(0).relu()


def enlarged(map: Tensor, size: tuple[int, int, int]) -> Tensor:
    """A map (d, h, w) at the size of the image (D, H, W), linear between the middles of its positions."""
    return F.interpolate(map[None, None], size, mode="trilinear")[0, 0]
