"""What a fit starts from: its parents, and what is learned of its training part without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fusionbench.batches import Batches
from fusionbench.components import Backbone, Batch, Context, FusionStrategy
from fusionbench.fits import Fit
from fusionbench.numerics import seeded
from fusionbench.predictions import Predictions
from fusionbench.seeds import derive_seed
from fusionbench.store import Store


def begin(model: FusionStrategy, fit: Fit, batches: Batches, store: Store) -> None:
    """Let a fresh model learn what is learned without gradients, from the training part alone."""
    with seeded(derive_seed(fit.base_seed, "begin")), torch.no_grad():
        for backbone in model.modules():
            if isinstance(backbone, Backbone) and backbone.needs_statistics:
                _fit_statistics(backbone, lambda: batches.in_order(fit.learners))
        weights = {parent.role: store.weights(parent.keys[0]) for parent in fit.parents if parent.use == "weights"}
        model.begin(Context(weights, lambda: batches.in_order(fit.learners, given=True)))


def _fit_statistics(backbone: Backbone, training: Callable[[], Iterator[Batch]]) -> None:
    """From those who have its modality; of several stacked ones, what a subject lacks counts as the others' mean.

    Not at all if nobody has any.
    """
    names = backbone.modalities
    if len(names) == 1:
        parts = [batch.inputs[names[0]][batch.present[names[0]]] for batch in training()]
    else:
        typical = {name: _mean_of(name, training()) for name in names}
        parts = [torch.cat([_filled(batch, name, typical[name]) for name in names], 1) for batch in training()]
    if any(len(part) for part in parts):
        backbone.fit_statistics(part for part in parts if len(part))


def _mean_of(modality: str, training: Iterator[Batch]) -> Tensor | float:
    """(C, D, H, W) over those who have the modality; 0 if nobody has it."""
    total: Tensor | float = 0.0
    count = 0
    for batch in training:
        rows = batch.inputs[modality][batch.present[modality]]
        total, count = total + rows.double().sum(0), count + len(rows)
    return total / count if count else 0.0


def _filled(batch: Batch, modality: str, typical: Tensor | float) -> Tensor:
    """(B, C, D, H, W) with something typical where the modality is missing."""
    x, here = batch.inputs[modality], batch.present[modality][:, None, None, None, None]
    return torch.where(here, x, torch.as_tensor(typical).to(x))


def out_of_fold(fit: Fit, store: Store) -> dict[str, Predictions]:
    """Role -> what a parent said of the training part, each subject by the one of its fits that had not seen it."""
    return {
        parent.role: Predictions.joined((store.predictions(key, fit.classes) for key in parent.keys), fit.classes)
        for parent in fit.parents
        if parent.use == "out-of-fold"
    }
