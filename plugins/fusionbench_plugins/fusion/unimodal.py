"""A single modality on its own: what every fusion has to beat, and what ranks the modalities."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fusionbench import Batch, FusionStrategy, Parts, hookimpl, present, where_present


class Unimodal(FusionStrategy):
    """One modality alone: backbone, attention, head.

    For a subject that lacks it every class is equally likely.
    """

    name = "unimodal"
    single = True
    takes_missing = True

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        (self.modality,) = parts.modalities
        branch = parts.branch(self.modality)
        self.backbone, self.attention, self.head = branch.backbone, branch.attention, branch.head

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, K) from (B, C, D, H, W); zeros for a subject that lacks the modality."""
        here = present(inputs, self.modality)
        logits: Tensor = self.head(where_present(here, self._features, self.backbone.high_spec, inputs[self.modality]))
        return logits if here is None else logits * here[:, None]

    def notes(self, batch: Batch) -> Mapping[str, list[str]]:
        """Whose answer is no more than chance, for the modality is missing."""
        here = present(batch.inputs, self.modality)
        return {} if here is None else {"answered by chance": ["" if there else "yes" for there in here.tolist()]}

    def _features(self, x: Tensor) -> Tensor:
        features: Tensor = self.attention(self.backbone(x))
        return features


@hookimpl
def fusionbench_fusion_strategies() -> list[type[FusionStrategy]]:
    """The strategy of this module."""
    return [Unimodal]
