"""L2 logistic regression on the concatenated tables: the plain reference that a neural fusion has to reach."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from fusionbench import Context, FusionStrategy, Parts, hookimpl, present

ABSENT = -1e4
"""The logit of a class that the training part lacks: a probability of zero."""


class Logistic(FusionStrategy):
    """Logistic regression on the standardised, concatenated tables (scikit-learn's solution).

    The features of a table that a subject lacks are taken as the mean of those who have it.
    """

    name = "logistic"
    takes_missing = True
    accepts = frozenset({"table"})
    uses_parts = False
    stage_names = ()

    def __init__(
        self, parts: Parts, *, c: Annotated[float, "inverse strength of the L2 penalty, as scikit-learn's C"] = 1.0
    ) -> None:
        super().__init__()
        self.c = c
        self.modalities = parts.modalities
        features = sum(parts.shapes.values())
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.register_buffer("weight", torch.zeros(len(parts.classes), features))
        self.register_buffer("bias", torch.zeros(len(parts.classes)))

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def begin(self, context: Context) -> None:
        """Fit scaler and regression on the training part, and keep the solution in buffers."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        batches = list(context.training())
        features = torch.cat([self._table(batch.inputs) for batch in batches]).double()
        known = torch.cat([self._known(batch.inputs) for batch in batches])
        table = features.masked_fill(~known, math.nan).cpu().numpy()
        labels = torch.cat([batch.labels for batch in batches]).cpu().numpy()
        with np.errstate(invalid="ignore"):  # of a table that nobody has
            scaler = StandardScaler().fit(table)
        standard = np.nan_to_num(scaler.transform(table), nan=0.0)
        solution = LogisticRegression(C=self.c, max_iter=5000).fit(standard, labels)
        self.mean.copy_(torch.from_numpy(np.nan_to_num(scaler.mean_, nan=0.0)))
        self.std.copy_(torch.from_numpy(np.nan_to_num(scaler.scale_, nan=1.0)))
        self.bias.fill_(ABSENT)
        # For two classes scikit-learn gives one row, the logit of the second; the first then has the logit 0.
        present = torch.from_numpy(solution.classes_)
        self.bias[present] = 0
        rows = present[-len(solution.coef_) :]
        self.weight[rows] = torch.from_numpy(solution.coef_).to(self.weight)
        self.bias[rows] = torch.from_numpy(solution.intercept_).to(self.bias)

    @property
    def parameter_count(self) -> int:
        """Coefficients and intercepts, of every class; of two classes there is one row."""
        classes, features = self.weight.shape
        return (1 if classes == 2 else classes) * (features + 1)

    def stages(self) -> tuple[()]:
        """None: the solver is exact."""
        return ()

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, K)."""
        standard = ((self._table(inputs) - self.mean) / self.std).masked_fill(~self._known(inputs), 0)
        return standard @ self.weight.T + self.bias

    def _table(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Modality -> (B, F, 1, 1, 1) as one table (B, sum of F)."""
        return torch.cat([inputs[name].flatten(1) for name in self.modalities], 1)

    def _known(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(B, sum of F): which features are of a table that the subject has."""
        return torch.cat([_known(inputs, name) for name in self.modalities], 1)


def _known(inputs: Mapping[str, Tensor], modality: str) -> Tensor:
    table, here = inputs[modality].flatten(1), present(inputs, modality)
    if here is None:
        return torch.ones_like(table, dtype=torch.bool)
    return here[:, None].expand_as(table)


@hookimpl
def fusionbench_fusion_strategies() -> list[type[FusionStrategy]]:
    """The strategy of this module."""
    return [Logistic]
