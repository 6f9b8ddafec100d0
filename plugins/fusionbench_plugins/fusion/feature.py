"""Feature-level fusion: an extractor for each modality, all their features side by side, one classifier.

For modalities m = 1..M, with SFE a backbone, DA an attention module and G a classifier:

    f_m = DA_m(SFE_m(x_m))
    p   = G({pool(f_1), ..., pool(f_M)})             level "pooled"
    p   = G(pool(C({f_1, ..., f_M})))                level "map", with a 1x1x1 convolution C

The features of a modality that a subject lacks are zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from fusionbench import FusionBenchError, FusionStrategy, Parts, hookimpl, pool, present, where_present


class Extractor(nn.Module):
    """One modality's way to its features: backbone and attention, no classifier."""

    def __init__(self, parts: Parts, modality: str) -> None:
        super().__init__()
        self.modality = modality
        self.backbone = parts.backbone(modality)
        self.attention = parts.attention(self.backbone.high_spec.channels)

    def forward(self, x: Tensor, here: Tensor | None) -> Tensor:
        """f_m: (B, C, D, H, W) -> high-level features after attention; zeros where the modality is missing."""
        return where_present(here, self._features, self.backbone.high_spec, x)

    def _features(self, x: Tensor) -> Tensor:
        features: Tensor = self.attention(self.backbone(x))
        return features


class Feature(FusionStrategy):
    """Feature-level fusion: an extractor for each modality, their features concatenated, one classifier."""

    name = "feature"
    takes_missing = True

    def __init__(
        self,
        parts: Parts,
        *,
        shared: Annotated[bool, "one extractor for all modalities: images that have the same backbone"] = False,
        level: Annotated[
            Literal["pooled", "map"], "what is concatenated: pooled features, or maps that a convolution then mixes"
        ] = "pooled",
    ) -> None:
        super().__init__()
        self.modalities, self.shared, self.level = parts.modalities, shared, level
        extractors = [Extractor(parts, name) for name in parts.modalities]
        channels = [extractor.backbone.high_spec.channels for extractor in extractors]
        if shared:
            _require_alike(extractors)
        self.extractors = nn.ModuleList(extractors[:1] if shared else extractors)
        if level == "map":
            _require_one_size(extractors)
            self.mix = nn.Conv3d(sum(channels), max(channels), 1)  # C
        self.head = parts.head(max(channels) if level == "map" else sum(channels))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, K)."""
        maps = self.maps(inputs)
        if self.level == "map":
            fused = self.mix(torch.cat(maps, 1))  # (B, sum of C_m, D, H, W) -> (B, C, D, H, W)
        else:
            fused = torch.cat([pool(features) for features in maps], 1)  # (B, sum of C_m)
        logits: Tensor = self.head(fused)
        return logits

    def maps(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """f_1, ..., f_M, each (B, C_m, D, H, W)."""
        images = [inputs[name] for name in self.modalities]
        masks = [present(inputs, name) for name in self.modalities]
        if not self.shared:
            return [extractor(x, here) for extractor, x, here in zip(self.extractors, images, masks, strict=True)]
        # One pass for all: in training a normalisation then sees the mixture that its running statistics describe.
        here = None if masks[0] is None else torch.cat([mask for mask in masks if mask is not None])
        together: Tensor = self.extractors[0](torch.cat(images), here)  # (M * B, C, D, H, W)
        return list(together.chunk(len(images)))


def _require_alike(extractors: Sequence[Extractor]) -> None:
    """FusionBenchError unless one extractor can serve all modalities."""
    first, *others = extractors
    if others and first.backbone.needs_statistics:
        raise FusionBenchError(
            f"feature: shared=true is for images: {first.backbone.name} standardises the columns of one table"
        )
    for other in others:
        if type(other.backbone) is not type(first.backbone) or _shapes(other) != _shapes(first):
            raise FusionBenchError(
                f"feature: shared=true needs the same backbone and channels for all modalities, and those of "
                f"{first.modality} and {other.modality} differ: leave it out, or compare modalities that are alike"
            )


def _shapes(extractor: Extractor) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in extractor.state_dict().items()}


def _require_one_size(extractors: Sequence[Extractor]) -> None:
    """FusionBenchError if maps come out at different sizes, as those of an image and a table do."""
    backbones = {extractor.modality: extractor.backbone for extractor in extractors}
    strides = {backbone.high_spec.stride for backbone in backbones.values()}
    if len(strides) > 1 or not frozenset.intersection(*(backbone.accepts for backbone in backbones.values())):
        told = ", ".join(f"{name} has {backbone.name}" for name, backbone in backbones.items())
        raise FusionBenchError(f"feature: level=map needs maps of one size, and {told}: leave it out")


@hookimpl
def fusionbench_fusion_strategies() -> list[type[FusionStrategy]]:
    """The strategy of this module."""
    return [Feature]
