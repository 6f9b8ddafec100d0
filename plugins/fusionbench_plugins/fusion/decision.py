"""Decision-level fusion: a small classifier on what the uni-modal models say.

For modalities m = 1..M and K classes, with U_m the uni-modal model of x_m:

    q_m = softmax(U_m(x_m))                                          K probabilities
    p   = MLP({q_1, ..., q_M})                                       logits, from K * M numbers

The classes of a modality that a subject lacks are equally likely: q_m = 1/K.

Stacking after D. H. Wolpert, "Stacked generalization", Neural Networks 5 (1992): what trains the classifier are
probabilities that each U_m gave for subjects that it was not trained on, for of those it was trained on it is too sure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, Literal

import torch
from torch import Tensor, nn

from fusionbench import Batch, Context, FusionStrategy, Parent, Parts, Stage, hookimpl, present

Mode = Literal["stacked", "joint"]
Meta = Literal["mlp", "linear", "weighted"]
HIDDEN: Final = (64, 32)
"""Units between the probabilities and the logits."""


class Mlp(nn.Sequential):
    """Three layers, with ReLU and dropout between them."""

    def __init__(self, modalities: int, classes: int, dropout: float) -> None:
        first, second = HIDDEN
        super().__init__(
            nn.Flatten(),  # (B, M, K) -> (B, M * K)
            *(nn.Linear(modalities * classes, first), nn.ReLU(), nn.Dropout(dropout)),
            *(nn.Linear(first, second), nn.ReLU(), nn.Dropout(dropout)),
            nn.Linear(second, classes),
        )


class Linear(nn.Sequential):
    """One layer."""

    def __init__(self, modalities: int, classes: int, dropout: float) -> None:
        super().__init__(nn.Flatten(), nn.Linear(modalities * classes, classes))


class Weighted(nn.Module):
    """The mean of the probabilities with a learned weight for each modality; equal weights at the start."""

    scores: Tensor

    def __init__(self, modalities: int, classes: int, dropout: float) -> None:
        super().__init__()
        if modalities > 1:
            self.scores = nn.Parameter(torch.zeros(modalities))
        else:  # its weight is 1, whatever is learned
            self.register_buffer("scores", torch.zeros(1))

    def forward(self, probabilities: Tensor) -> Tensor:
        """(B, M, K) -> the log of the weighted mean, (B, K)."""
        mean = (self.scores.softmax(0)[:, None] * probabilities).sum(1)
        return mean.clamp_min(torch.finfo(torch.float32).tiny).log()


METAS: Final[Mapping[Meta, Callable[[int, int, float], nn.Module]]] = {
    "mlp": Mlp,
    "linear": Linear,
    "weighted": Weighted,
}
"""What turns the probabilities of all modalities, (B, M, K), into logits (B, K)."""


class Decision(FusionStrategy):
    """Decision-level fusion: a perceptron on the probabilities of the uni-modal models (stacking)."""

    name = "decision"
    takes_missing = True
    inherited = ("members",)
    stage_names = ("meta", "fit")

    def __init__(
        self,
        parts: Parts,
        *,
        mode: Annotated[
            Mode, "stacked: the uni-modal models stay as they are; joint: all is trained at once, from scratch"
        ] = "stacked",
        meta: Annotated[Meta, "what the probabilities go into: three layers, one, or a weighted mean"] = "mlp",
    ) -> None:
        super().__init__()
        self.mode, self.modalities = mode, parts.modalities
        self.members = nn.ModuleList(parts.branch(name) for name in parts.modalities)
        self.meta = METAS[meta](len(parts.modalities), len(parts.classes), parts.dropout)

    @classmethod
    def parents(
        cls, modalities: tuple[str, ...], *, mode: Mode = "stacked", meta: Meta = "mlp", **options: Any
    ) -> tuple[Parent, ...]:
        """If stacked, the uni-modal models, and what others like them say of subjects they have not seen."""
        if mode == "joint":
            return ()
        members = [Parent(name, "unimodal", (name,), "weights") for name in modalities]
        if meta == "weighted" and len(modalities) == 1:  # there is nothing to learn
            return tuple(members)
        unseen = [Parent(name, "unimodal", (name,), "out-of-fold") for name in modalities]
        return (*members, *unseen)

    @classmethod
    def planned_stages(cls, *, mode: Mode = "stacked", **options: Any) -> tuple[str, ...]:
        """One of the two, by the mode."""
        return ("fit",) if mode == "joint" else ("meta",)

    def begin(self, context: Context) -> None:
        """If stacked, take over the weights of the uni-modal models."""
        if self.mode == "stacked":
            for name, member in zip(self.modalities, self.members, strict=True):
                member.load_state_dict(context.parents[name])

    def stages(self) -> tuple[Stage, ...]:
        """If stacked, one that trains the classifier alone, unless it has nothing to learn."""
        if self.mode == "joint":
            return super().stages()
        learns = any(True for _ in self.meta.parameters())
        return (Stage("meta", ("meta",), stacked_loss, sees_inputs=False),) if learns else ()

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, K)."""
        members = zip(self.modalities, self.members, strict=True)
        return self.decide(member(inputs[name], present(inputs, name)).float().softmax(1) for name, member in members)

    def decide(self, probabilities: Iterable[Tensor]) -> Tensor:
        """Logits (B, K) from the probabilities (B, K) of each modality, in the order of the modalities."""
        logits: Tensor = self.meta(torch.stack(list(probabilities), 1))  # (B, M, K)
        return logits


def stacked_loss(model: Decision, batch: Batch, progress: float) -> Tensor:
    """Weighted cross-entropy on out-of-fold probabilities: no member was trained on the subject it speaks of."""
    return batch.cross_entropy(model.decide(_said(batch, name) for name in model.modalities))


def _said(batch: Batch, modality: str) -> Tensor:
    """(B, K): every class is equally likely where the modality is missing or hidden."""
    given = batch.given[modality]
    return torch.where(batch.present[modality][:, None], given, 1 / given.shape[1])


@hookimpl
def fusionbench_fusion_strategies() -> list[type[FusionStrategy]]:
    """The strategy of this module."""
    return [Decision]
