"""Cross-modality guidance: the primary modality's high-level features guide the secondary ones.

After D. Xu, X. Wang, J. Cai, P.-A. Heng, "Cross-modality Guidance-aided Multi-modal Learning with Dual Attention for
MRI Brain Tumor Grading", arXiv 2401.09029. In the paper's symbols, for secondaries i = 1..M in ranked order:

    f_p = DA_p(SFE_p(x_p))                           the primary's features, after attention
    z_i = R_i({LFE_i(x_i), Upsample(f_p)})           a 1x1x1 convolution back to the channels of LFE_i
    f_i = DA_i(HFE_i(z_i))
    t_0 = f_p,  t_i = T_i({t_{i-1}, f_i})            a 1x1x1 convolution back to the channels of f_p
    p_i = G(t_i)                                     one shared head; the prediction is softmax(p_M)

Of a subject that lacks a secondary i, t_i = t_(i-1). Of one that lacks the primary nothing guides: f_p = 0, so R_i sees
low-level features alone, and the chain starts from t_0 = 0, which T_i learns to fill from f_i.

Both convolutions are computed in a cheaper form with the same value: R_i is split, so that the primary's half is
applied before the upsampling, which it commutes with; T_i works on pooled vectors, since pooling is linear.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fusionbench import (
    Batch,
    Branch,
    Context,
    FusionBenchError,
    FusionStrategy,
    Parent,
    Parts,
    Stage,
    copy_equal_shapes,
    hookimpl,
    pool,
    present,
    where_present,
)

Upsample = Literal["trilinear", "nearest"]


class Reduce(nn.Module):
    """R_i: low-level features and the upsampled guidance, concatenated, back to the low-level channels."""

    def __init__(self, low: int, guidance: int, start: str, upsample: Upsample) -> None:
        super().__init__()
        self.low, self.upsample = low, upsample
        self.conv = nn.Conv3d(low + guidance, low, 1)
        if start == "identity":  # HFE_i first sees what it was trained on
            _identity_first(self.conv.weight, self.conv.bias)

    def forward(self, low: Tensor, guidance: Tensor) -> Tensor:
        """(B, low, D, H, W) and (B, guidance, d, h, w) -> (B, low, D, H, W)."""
        own = F.conv3d(low, self.conv.weight[:, : self.low], self.conv.bias)
        guided = F.conv3d(guidance, self.conv.weight[:, self.low :])  # (B, low, d, h, w): before the upsampling
        return own + self.resize(guided, low)

    def resize(self, guidance: Tensor, like: Tensor) -> Tensor:
        """Features at the (D, H, W) of others; down to one voxel, for a table, it is their mean."""
        if like.shape[2:].numel() == 1:
            return guidance.mean((2, 3, 4), keepdim=True)
        return F.interpolate(guidance, size=like.shape[2:], mode=self.upsample)


class Guided(nn.Module):
    """One secondary modality: LFE_i, R_i, HFE_i, DA_i, and T_i."""

    def __init__(
        self, parts: Parts, modality: str, primary: int, reduce_init: str, fuse_init: str, upsample: Upsample
    ) -> None:
        super().__init__()
        self.backbone = parts.backbone(modality)
        low, high = self.backbone.low_spec.channels, self.backbone.high_spec.channels
        self.reduce = Reduce(low, primary, reduce_init, upsample)
        self.attention = parts.attention(high)
        self.fuse = nn.Linear(primary + high, primary)
        _start_fuse(self.fuse, fuse_init)

    def start_from(self, primary: Branch) -> None:
        """Take a copy of the primary's weights where both have the same image backbone; start fresh elsewhere."""
        if type(self.backbone) is type(primary.backbone) and "image" in self.backbone.accepts:
            copy_equal_shapes(primary.backbone, self.backbone)
            copy_equal_shapes(primary.attention, self.attention)

    def forward(self, x: Tensor, guidance: Tensor, before: Tensor, here: Tensor | None = None) -> Tensor:
        """t_i (B, C) from x_i (B, C, D, H, W), f_p and t_(i-1); t_(i-1) where the modality is missing."""
        features = where_present(here, self._features, self.backbone.high_spec, x, guidance)
        fused: Tensor = self.fuse(torch.cat([before, pool(features)], 1))
        return fused if here is None else torch.where(here[:, None], fused, before.to(fused))

    def _features(self, x: Tensor, guidance: Tensor) -> Tensor:
        """f_i."""
        features: Tensor = self.attention(self.backbone.high(self.reduce(self.backbone.low(x), guidance)))
        return features


class Guidance(FusionStrategy):
    """Cross-modality guidance: the primary's high-level features guide the others (Xu et al. 2024)."""

    name = "guidance"
    uses_order = True
    takes_missing = True
    inherited = ("primary",)
    stage_names = ("secondary",)
    lean: ClassVar[Mapping[str, Any]] = {"backward": "branchwise"}

    def __init__(
        self,
        parts: Parts,
        *,
        train: Annotated[
            Literal["secondary", "secondary+head", "joint"], "what stage 2 trains; all else stays as stage 1 left it"
        ] = "secondary",
        upsample: Annotated[Upsample, "how the guidance is brought to the size of low-level features"] = "trilinear",
        reduce_init: Annotated[
            Literal["identity", "default"], "R_i at the start: passes the low-level features on, or random"
        ] = "identity",
        fuse_init: Annotated[
            Literal["primary", "mean", "default"], "T_i at the start: keeps t_(i-1), the mean of both, or random"
        ] = "primary",
        backward: Annotated[
            Literal["joint", "branchwise"], "branchwise: activations of one secondary at a time, a fifth more work"
        ] = "joint",
        primary_features: Annotated[
            Literal["computed", "kept"],
            "kept: f_p of a training subject is computed once and held in memory, where nothing is augmented",
        ] = "computed",
    ) -> None:
        super().__init__()
        if train == "joint" and primary_features == "kept":
            raise FusionBenchError(
                "guidance: primary_features=kept needs a primary that stays as it is: not train=joint"
            )
        primary, *secondaries = parts.modalities
        self.train_mode, self.branchwise = train, backward == "branchwise"
        self.keeps, self.kept = primary_features == "kept", dict[str, Tensor]()
        self.primary_modality, self.secondary_modalities = primary, tuple(secondaries)
        self.primary = parts.branch(primary)
        channels = self.primary.backbone.high_spec.channels
        self.secondaries = nn.ModuleList(
            Guided(parts, name, channels, reduce_init, fuse_init, upsample) for name in self.secondary_modalities
        )

    @classmethod
    def parents(cls, modalities: tuple[str, ...], **options: Any) -> tuple[Parent, ...]:
        """Stage 1 is the primary's uni-modal fit."""
        return (Parent("primary", "unimodal", modalities[:1], "weights"),)

    def begin(self, context: Context) -> None:
        """Load the primary, and start each secondary from a copy of it."""
        self.primary.load_state_dict(context.parents["primary"])
        for guided in self.secondaries.children():
            assert isinstance(guided, Guided)
            guided.start_from(self.primary)

    def stages(self) -> tuple[Stage, ...]:
        """Stage 2; none if the primary is alone."""
        trains = {
            "secondary": ("secondaries", "primary.head.dropout"),  # G's dropout stays active, its weights do not move
            "secondary+head": ("secondaries", "primary.head"),
            "joint": ("",),
        }[self.train_mode]
        return (Stage("secondary", trains, guidance_loss),) if self.secondaries else ()

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """p_M: logits (B, K) after the last secondary."""
        return self.chain(inputs)[-1]

    def guide(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """f_p (B, C, d, h, w), detached unless everything trains: then gradients flow through the guidance too."""
        with nullcontext() if self.train_mode == "joint" else torch.no_grad():
            here = present(inputs, self.primary_modality)
            return self.primary.features(inputs[self.primary_modality], here)

    def guide_training(self, batch: Batch) -> Tensor:
        """f_p of training subjects; if it is kept, each one's is computed once, alone, so that no order matters."""
        if not (self.keeps and batch.constant):
            return self.guide(batch.inputs)
        for row, id in enumerate(batch.ids):
            if id not in self.kept:
                self.kept[id] = self.guide({name: x[row : row + 1] for name, x in batch.inputs.items()}).cpu()
        return torch.cat([self.kept[id] for id in batch.ids]).to(batch.labels.device)

    def chain(self, inputs: Mapping[str, Tensor], guidance: Tensor | None = None) -> list[Tensor]:
        """[p_0, ..., p_M]: logits (B, K) after the primary and after each secondary, from f_p if that is known."""
        guidance = self.guide(inputs) if guidance is None else guidance
        here = present(inputs, self.primary_modality)
        fused = pool(guidance)  # t_0, (B, C)
        alone = self.primary.head(fused)
        logits = [alone if here is None else alone * here[:, None]]
        for name, guided in zip(self.secondary_modalities, self.secondaries, strict=True):
            # The last one is the first to be needed in the backward pass: nothing is gained by forgetting it.
            forget = self.branchwise and torch.is_grad_enabled() and name != self.secondary_modalities[-1]
            inputs_i = (inputs[name], guidance, fused, present(inputs, name))
            fused = recomputed(guided, *inputs_i) if forget else guided(*inputs_i)  # t_i
            logits.append(self.primary.head(fused))
        return logits


def recomputed(module: nn.Module, *inputs: Any) -> Tensor:
    """What the module makes of the inputs; what it needs for the backward pass is not kept but computed again there.

    Exactly: under the same random numbers and the same autocast, and from the buffers as they were. What that does to
    buffers is lost, so running statistics move once.
    """
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    first: Iterator[dict[str, Tensor]] = iter([{}])

    def compute(*inputs: Any) -> Any:
        return functional_call(module, next(first, before), inputs)  # with its own buffers once, as they were after

    result: Tensor = checkpoint(compute, *inputs, use_reentrant=False)
    return result


def guidance_loss(model: Guidance, batch: Batch, progress: float) -> Tensor:
    """Eq. 6: L_p plus the loss after each secondary, all with weight one."""
    chain = model.chain(batch.inputs, model.guide_training(batch))
    return torch.stack([batch.cross_entropy(logits) for logits in chain]).sum()


def _start_fuse(fuse: nn.Linear, start: str) -> None:
    """T_i = [I | 0] keeps the stage-1 prediction exactly, [I/2 | I/2] averages old and new features."""
    if start == "default":
        return
    _identity_first(fuse.weight, fuse.bias)
    if start == "mean":
        with torch.no_grad():
            outputs = fuse.out_features
            shared = min(outputs, fuse.in_features - outputs)
            fuse.weight[:, :outputs] /= 2
            fuse.weight[:shared, outputs : outputs + shared] = torch.eye(shared) / 2


def _identity_first(weight: Tensor, bias: Tensor | None) -> None:
    """[I | 0] and a bias of zero, for a weight of shape (out, in, ...) that maps to its first inputs."""
    with torch.no_grad():
        weight.zero_()
        weight.flatten(1).fill_diagonal_(1)
        if bias is not None:
            bias.zero_()


@hookimpl
def fusionbench_fusion_strategies() -> list[type[FusionStrategy]]:
    """The strategy of this module."""
    return [Guidance]
