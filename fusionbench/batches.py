"""The subjects of one fit as batches; nothing else of the cohort can be reached through them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from fusionbench.cohorts import class_weights
from fusionbench.components import OUTLINE, Batch, presence
from fusionbench.experiment import Augmentation
from fusionbench.features import Features
from fusionbench.fits import Fit
from fusionbench.imaging.augmentation import augment
from fusionbench.imaging.volumes import Volumes
from fusionbench.predictions import Predictions
from fusionbench.prefetching import prefetched
from fusionbench.ranks import ALONE, Ranks
from fusionbench.seeds import derive_seed
from fusionbench.stopwatch import Watch, unwatched

UNKNOWN = -1
"""The class number of a subject without a label: somebody that a trained model is asked about."""


class Batches:
    """Serves the training part of a fit, shuffled and augmented, and any of its subjects in order."""

    def __init__(
        self,
        fit: Fit,
        volumes: Volumes,
        device: torch.device,
        features: Features | None = None,
        given: Mapping[str, Predictions] | None = None,
        watch: Watch = unwatched,
        ranks: Ranks = ALONE,
    ) -> None:
        self.fit, self.volumes, self.device, self.features = fit, volumes, device, features
        self.watch, self.ranks = watch, ranks
        self.pinned = device.type == "cuda"
        """Whether images are read into memory from which a GPU copies by itself."""
        self.ahead = device.type != "cpu" and any(modality.kind == "image" for modality in fit.modalities)
        """Whether a thread reads the next batch of training: it would take a CPU's time from training."""
        self.modalities = tuple(modality.name for modality in fit.modalities)
        self.class_number = {name: number for number, name in enumerate(fit.classes)} | {"": UNKNOWN}
        labels = [fit.labels[id] for id in fit.learners]
        self.class_weights = torch.tensor(class_weights(labels, fit.classes, fit.recipe["class_weights"]))
        self.given = {role: _by_subject(predictions) for role, predictions in (given or {}).items()}
        self.allowed = frozenset((*fit.split.training, *fit.split.test))

    def training(self, stage: str, epoch: int, *, inputs: bool = True) -> Iterator[Batch]:
        """The training part once: in the order and with the augmentation of this stage and epoch; or without inputs.

        Of each batch, what this process takes of it where several do the fit. The next batch is read while one is
        trained on, where that is of use; close the iterator to end that early.
        """
        ids = self.fit.learners
        generator = torch.Generator().manual_seed(derive_seed(self.fit.base_seed, "order", stage, epoch))
        order = torch.randperm(len(ids), generator=generator).tolist()
        size, least = self.fit.stages[stage]["batch_size"], 2 * self.ranks.count
        shares = [self.ranks.share(some) for some in chunks([ids[index] for index in order], size, least)]
        read = partial(self._read, given=self.given, inputs=inputs)
        with closing(prefetched(read, shares) if self.ahead and inputs else (read(some) for some in shares)) as several:
            for batch in self._waited_for(several):
                with self.watch("augment"):
                    ready = self._for_training(batch, stage, epoch) if inputs else self._hidden(batch, stage, epoch)
                yield ready

    def in_order(self, ids: Sequence[str], *, given: bool = False) -> Iterator[Batch]:
        """Some subjects of the fit as they are; with the out-of-fold probabilities only where they exist."""
        read = partial(self._read, given=self.given if given else {})
        yield from self._waited_for(read(some) for some in chunks(ids, self.fit.recipe["batch_size"]))

    def batch(self, ids: Sequence[str], given: Mapping[str, Mapping[str, Tensor]], *, inputs: bool = True) -> Batch:
        """These subjects together, on the device; without inputs nothing is read of them."""
        return self._on_device(self._read(ids, given, inputs=inputs))

    def _waited_for(self, several: Iterator[Batch]) -> Iterator[Batch]:
        """Each batch, on the device."""
        while True:
            with self.watch("wait"):
                if (batch := next(several, None)) is None:
                    return
                batch = self._on_device(batch)
            yield batch

    def _read(self, ids: Sequence[str], given: Mapping[str, Mapping[str, Tensor]], *, inputs: bool = True) -> Batch:
        """These subjects together, in main memory."""
        with self.watch("read"):
            return self._gathered(ids, given, inputs=inputs)

    def _gathered(self, ids: Sequence[str], given: Mapping[str, Mapping[str, Tensor]], *, inputs: bool) -> Batch:
        if strangers := sorted(set(ids) - self.allowed):
            raise ValueError(f"{strangers} are not subjects of this fit")
        labels = torch.tensor([self.class_number[self.fit.labels[id]] for id in ids])
        outlined = inputs and self.fit.outlines != "none"
        return Batch(
            ids=tuple(ids),
            inputs=self._inputs(ids) if inputs else {},
            labels=labels,
            weights=self.class_weights[labels],
            present={name: self._present(ids, name) for name in self.modalities},
            seg=self.volumes.segmentation(ids, pinned=self.pinned) if outlined else None,
            given={role: torch.stack([known[id] for id in ids]) for role, known in given.items()},
            constant=True,
        )

    def _inputs(self, ids: Sequence[str]) -> Mapping[str, Tensor]:
        if self.features is not None:
            return self.features.inputs(ids, self.modalities)
        return self.volumes.inputs(ids, self.modalities, pinned=self.pinned)

    def _present(self, ids: Sequence[str], modality: str) -> Tensor:
        return torch.tensor([modality not in self.fit.absent.get(id, ()) for id in ids])

    def _on_device(self, batch: Batch) -> Batch:
        """The batch on the device, with what the strategy is told; a GPU copies pinned memory while this goes on."""

        def moved(values: Tensor) -> Tensor:
            return values.to(self.device, non_blocking=self.pinned)

        return self._told(
            replace(
                batch,
                inputs={name: moved(values) for name, values in batch.inputs.items()},
                labels=moved(batch.labels),
                weights=moved(batch.weights),
                present={name: moved(here) for name, here in batch.present.items()},
                seg=None if batch.seg is None else moved(batch.seg),
                given={role: moved(probabilities) for role, probabilities in batch.given.items()},
            )
        )

    def _told(self, batch: Batch) -> Batch:
        """With what the strategy is told among the inputs: who has what, and the outline if it asks for it."""
        told = dict(batch.inputs)
        if self.fit.masks and told:
            told |= {presence(name): here for name, here in batch.present.items()}
        if self.fit.outlines == "test" and batch.seg is not None:
            told[OUTLINE] = batch.seg.float()
        return replace(batch, inputs=told)

    def _for_training(self, batch: Batch, stage: str, epoch: int) -> Batch:
        """Moved as augmentation says, with the modalities hidden that modality dropout takes."""
        plain = replace(batch, inputs={name: batch.inputs[name] for name in self.modalities})
        return self._told(self._hidden(self._augmented(plain, stage, epoch), stage, epoch))

    def _hidden(self, batch: Batch, stage: str, epoch: int) -> Batch:
        share = self.fit.recipe.get("modality_dropout", 0)
        if not share:
            return batch
        seeds = [derive_seed(self.fit.base_seed, "modality dropout", stage, epoch, id) for id in batch.ids]
        before = torch.stack([batch.present[name] for name in self.modalities], 1).cpu()  # (B, M)
        kept = torch.stack([keep(seed, here, share) for seed, here in zip(seeds, before, strict=True)]).to(self.device)
        inputs = {
            name: batch.inputs[name] * kept[:, index, None, None, None, None]
            for index, name in enumerate(self.modalities)
            if name in batch.inputs
        }
        present = {name: kept[:, index] for index, name in enumerate(self.modalities)}
        return replace(batch, inputs=inputs, present=present, constant=False)

    def _augmented(self, batch: Batch, stage: str, epoch: int) -> Batch:
        if not any(modality.kind == "image" for modality in self.fit.modalities):
            return batch
        seeds = [derive_seed(self.fit.base_seed, "augmentation", stage, epoch, id) for id in batch.ids]
        settings = Augmentation(**self.fit.recipe["augmentation"])
        if settings.off:
            return batch
        spacing = self.volumes.spacing(batch.ids)
        inputs, seg = augment(batch.inputs, batch.seg, seeds, spacing, settings)
        return replace(batch, inputs=inputs, seg=seg, constant=False)


def keep(seed: int, here: Tensor, share: float) -> Tensor:
    """Which modalities (M,) stay: each that is `here` goes with that probability, but the last one never does.

    >>> keep(0, torch.tensor([True, False]), 0.9).tolist()
    [True, False]
    """
    drawn = torch.rand(len(here), generator=torch.Generator().manual_seed(seed)).masked_fill(~here, -1)
    kept = drawn >= share
    return kept if kept.any() else drawn == drawn.max()


def chunks(ids: Sequence[str], size: int, least: int = 2) -> Iterator[Sequence[str]]:
    """Runs of `size` ids; a last one of fewer than `least` joins the run before it: normalisation needs company.

    >>> list(chunks("abcdefg", 3))
    ['abc', 'defg']
    """
    starts = list(range(0, len(ids), size))
    if size > 1 and len(starts) > 1 and len(ids) - starts[-1] < least:
        starts.pop()
    for start, end in pairwise([*starts, len(ids)]):
        yield ids[start:end]


def _by_subject(predictions: Predictions) -> dict[str, Tensor]:
    rows = torch.tensor(predictions.probabilities, dtype=torch.float32)
    return dict(zip(predictions.ids, rows, strict=True))
