"""What the uni-modal models say together. Nothing is trained, so it costs nothing where they are shared.

For the modalities m = 1..M that a subject has, with U_m the uni-modal model of x_m and q_m = softmax(U_m(x_m)), the
prediction is

    mean        sum_m q_m / M
    logits      softmax(sum_m U_m(x_m) / M)
    weighted    sum_m w_m q_m,   w_m = max(AUC_m - 1/2, 0) over their sum; AUC_m on out-of-fold predictions
    majority    (sum_m v_m + e mean) / (M + e),   v_m the vote of m for its most probable class, e = 1/100
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import torch
from torch import Tensor, nn

from fusionbench import Batch, Context, FusionStrategy, Parent, Parts, hookimpl, present

Rule = Literal["mean", "logits", "weighted", "majority"]
CHANCE: Final = 0.5
"""The area under the ROC curve of a member that knows nothing."""
TIE: Final = 0.01
"""What the mean probability counts beside a vote: it decides a tie, and cannot outweigh a vote."""


class Ensemble(FusionStrategy):
    """The mean of the uni-modal probabilities, or their vote; nothing is trained."""

    name = "ensemble"
    takes_missing = True
    inherited = ("members",)
    stage_names = ()
    weights: Tensor

    def __init__(
        self,
        parts: Parts,
        *,
        rule: Annotated[
            Rule, "mean of probabilities, mean of logits, mean weighted by out-of-fold ROC-AUC, or majority of votes"
        ] = "mean",
    ) -> None:
        super().__init__()
        self.rule: Rule = rule
        self.modalities = parts.modalities
        self.members = nn.ModuleList(parts.branch(name) for name in parts.modalities)
        if rule == "weighted":
            count = len(parts.modalities)
            self.register_buffer("weights", torch.full((count,), 1 / count))

    @classmethod
    def parents(cls, modalities: tuple[str, ...], *, rule: Rule = "mean", **options: Any) -> tuple[Parent, ...]:
        """The uni-modal model of each modality; to weigh several, what others like it say of unseen subjects too."""
        members = [Parent(name, "unimodal", (name,), "weights") for name in modalities]
        if rule != "weighted" or len(modalities) == 1:
            return tuple(members)
        return (*members, *(Parent(name, "unimodal", (name,), "out-of-fold") for name in modalities))

    def begin(self, context: Context) -> None:
        """Take over the members' weights; if they are weighed, see what each is worth."""
        for name, member in zip(self.modalities, self.members, strict=True):
            member.load_state_dict(context.parents[name])
        if self.rule == "weighted" and len(self.modalities) > 1:
            self.weights.copy_(weights_of(self.modalities, context.training()))

    def stages(self) -> tuple[()]:
        """None."""
        return ()

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(B, K), whose softmax is the prediction."""
        masks = [present(inputs, name) for name in self.modalities]
        members = zip(self.modalities, self.members, masks, strict=True)
        logits = torch.stack([member(inputs[name], here).float() for name, member, here in members])  # (M, B, K)
        say = self._say(masks, logits)
        if self.rule == "logits":
            return (say * logits).sum(0)
        probabilities = logits.softmax(2)
        mean = (say * probabilities).sum(0)
        combined = _majority(probabilities, say, mean) if self.rule == "majority" else mean
        return combined.clamp_min(torch.finfo(torch.float32).tiny).log()

    def _say(self, masks: Sequence[Tensor | None], like: Tensor) -> Tensor:
        """How much each member counts for each subject, (M, B, 1): nothing where its modality is missing, one in all.

        Where those that are there weigh nothing, they count alike; where nothing is there, all do.
        """
        everywhere = torch.ones(like.shape[1], dtype=torch.bool, device=like.device)
        here = torch.stack([everywhere if mask is None else mask for mask in masks])[..., None]  # (M, B, 1)
        weights = self.weights[:, None, None] if self.rule == "weighted" else torch.ones_like(like[:, :1, :1])
        weighed = torch.where(here, weights, 0)
        alike = torch.where(here.any(0), here, True).to(weights)
        say = torch.where(weighed.sum(0) > 0, weighed, alike)
        return say / say.sum(0)


def weights_of(modalities: Iterable[str], batches: Iterable[Batch]) -> Tensor:
    """How much each modality counts, (M,), which sums to one: its AUC above chance, or the same for all at chance."""
    seen = list(batches)
    labels = torch.cat([batch.labels for batch in seen])
    areas = torch.stack([area(labels, torch.cat([batch.given[name] for batch in seen])) for name in modalities])
    above = (areas - CHANCE).clamp_min(0)
    return above / above.sum() if above.any() else torch.full_like(above, 1 / len(above))


def area(labels: Tensor, probabilities: Tensor) -> Tensor:
    """ROC-AUC of (N, K) for labels (N,): how often a subject of a class gets more of it than one of another.

    Equal probabilities count half; the mean over classes, each against the rest; CHANCE if there is one class only.
    """
    areas = []
    for number in range(probabilities.shape[1]):
        own, others = probabilities[labels == number, number], probabilities[labels != number, number]
        if len(own) and len(others):
            ahead = own[:, None] - others  # (own, others)
            areas.append(((ahead > 0).float() + (ahead == 0).float() / 2).mean())
    return torch.stack(areas).mean() if areas else torch.tensor(CHANCE, device=labels.device)


def _majority(probabilities: Tensor, say: Tensor, mean: Tensor) -> Tensor:
    """The share of the members that vote for each class, (M, B, K) -> (B, K).

    A member that is undecided splits its vote. The mean probability breaks ties, and keeps every share above zero.
    """
    favourite = probabilities == probabilities.amax(2, keepdim=True)
    votes = favourite / favourite.sum(2, keepdim=True)
    voters = (say > 0).sum(0)  # (B, 1)
    return (voters * (say * votes).sum(0) + TIE * mean) / (voters + TIE)


@hookimpl
def fusionbench_fusion_strategies() -> list[type[FusionStrategy]]:
    """The strategy of this module."""
    return [Ensemble]
