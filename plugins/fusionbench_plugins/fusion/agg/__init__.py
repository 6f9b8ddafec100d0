"""AGG: a U-Net finds the tumour, and a 3-D network grades what lies in the box around it.

After Y. Zhuge et al., "Automated glioma grading on conventional MRI images using deep convolutional neural networks",
Med. Phys. 47(7):3044-3053, 2020, doi 10.1002/mp.14168: the second of its two ways, 3DConvNet. With x the images of a
subject, one channel for each modality:

    mask  = the largest component of {voxels: sigmoid(UNet(x)) > .5}
    box   = the smallest one around the mask, and a margin
    cube  = x in the box, resampled to size^3, each modality at mean 0 and deviation 1
    p     = softmax(Grader(cube))

docs/agg.md says what the article leaves open and what was decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fusionbench import OUTLINE, Batch, FusionStrategy, Needs, Parts, Stage, hookimpl
from fusionbench_plugins.fusion.agg.region import (
    Mask,
    as_masks,
    cut,
    dice,
    largest_component,
    standardised,
)
from fusionbench_plugins.fusion.agg.unet import UNet, segmentation_loss


class Grader(nn.Sequential):
    """Five blocks of convolution, BatchNorm, ReLU and max-pooling, width to 16 width, then the head.

    Pooling stops at two voxels a side: BatchNorm learns nothing from one voxel of one subject, and refuses it.
    """

    def __init__(self, parts: Parts, channels: int, width: int, size: int) -> None:
        widths = [width * 2**block for block in range(5)]
        blocks: list[nn.Module] = []
        for before, own in pairwise([channels, *widths]):
            blocks += [nn.Conv3d(before, own, 3, padding=1, bias=False), nn.BatchNorm3d(own), nn.ReLU()]
            if size >= 4:
                blocks.append(nn.MaxPool3d(2))
                size //= 2
        super().__init__(*blocks, parts.head(widths[-1]))


class Agg(FusionStrategy):
    """Finds the tumour with a U-Net, then grades what lies in the box around it (Zhuge et al. 2020)."""

    name = "agg"
    accepts = frozenset({"image"})
    uses_parts = False
    stage_names = ("segment", "grade")
    libraries = ("scipy",)

    def __init__(
        self,
        parts: Parts,
        *,
        roi: Annotated[
            Literal["predicted", "ground-truth"],
            "whose outline of the tumour makes the box: the U-Net's or the cohort's",
        ] = "predicted",
        width: Annotated[int, Field(ge=1), "channels of the first level of both networks; deeper ones double"] = 16,
        size: Annotated[int, Field(ge=2), "voxels a side that the box is resampled to"] = 64,
        margin: Annotated[int, Field(ge=0), "voxels that are added to the box on each side"] = 4,
    ) -> None:
        super().__init__()
        self.modalities, self.size, self.margin = parts.modalities, size, margin
        channels = sum(parts.shapes[name] for name in parts.modalities)
        self.segmenter = UNet(channels, width) if roi == "predicted" else None
        self.grader = Grader(parts, channels, width, size)

    @classmethod
    def needs(cls, **options: Any) -> Needs:
        """Outlines of training subjects for the U-Net's loss, or, in its place, of test subjects too."""
        return Needs(outlines="test" if options.get("roi") == "ground-truth" else "training")

    @classmethod
    def planned_stages(cls, **options: Any) -> tuple[str, ...]:
        """Without a U-Net there is nothing to segment with."""
        return cls.stage_names[1:] if options.get("roi") == "ground-truth" else cls.stage_names

    def stages(self) -> tuple[Stage, ...]:
        """First the U-Net, then the grader on the boxes that the U-Net, now frozen, finds."""
        grade = Stage("grade", ("grader",), grading_loss)
        return (grade,) if self.segmenter is None else (Stage("segment", ("segmenter",), outlining_loss), grade)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, K) from what lies in the boxes."""
        logits: Tensor = self.grader(self.cubes(inputs))
        return logits

    def cubes(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What lies in each subject's box, resampled and standardised: (B, C, size, size, size)."""
        return standardised(cut(self.stacked(inputs), self.tumour(inputs), self.margin, self.size))

    @torch.no_grad()
    def tumour(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Where each subject has tumour, (B, 1, D, H, W) of truth values."""
        outline: Tensor = inputs[OUTLINE] if self.segmenter is None else self.segmenter(self.stacked(inputs))
        # Of labels and of logits alike: a logit above 0 is a probability above .5.
        return outline > 0

    def masks(self, inputs: Mapping[str, Tensor]) -> list[Mask]:
        """Each subject's tumour, (D, H, W), in one piece; empty where none is found."""
        return [largest_component(mask) for mask in as_masks(self.tumour(inputs))]

    def stacked(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """All modalities as channels, in their order: (B, C, D, H, W)."""
        return torch.cat([inputs[name] for name in self.modalities], 1)

    def notes(self, batch: Batch) -> Mapping[str, list[str]]:
        """Whether the box is the fallback and, with a U-Net, the Dice of its mask.

        The U-Net runs once more: masks kept from the last `forward` might be those of other subjects.
        """
        masks = self.masks(batch.inputs)
        remarks = {"box": ["" if mask.any() else "fallback" for mask in masks]}
        if self.segmenter is not None and batch.seg is not None:
            pairs = zip(masks, as_masks(batch.seg > 0), strict=True)
            remarks["dice"] = [f"{dice(mask, truth):.3f}" for mask, truth in pairs]
        return remarks


def outlining_loss(model: Agg, batch: Batch, progress: float) -> Tensor:
    """Stage `segment`: how far the U-Net is from the outlines of the whole tumour, every label above 0."""
    assert model.segmenter is not None
    assert batch.seg is not None
    return segmentation_loss(model.segmenter(model.stacked(batch.inputs)), (batch.seg > 0).float())


def grading_loss(model: Agg, batch: Batch, progress: float) -> Tensor:
    """Stage `grade`: weighted cross-entropy (Eq. 1)."""
    return batch.cross_entropy(model(batch.inputs))


@hookimpl
def fusionbench_fusion_strategies() -> list[type[FusionStrategy]]:
    """The strategy of this package."""
    return [Agg]
