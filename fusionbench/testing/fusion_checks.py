"""What every fusion strategy promises of its predictions, each promise a function that raises AssertionError."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import nn

from fusionbench.components import AttentionModule, Backbone, Parts, presence
from fusionbench.numerics import seeded
from fusionbench.testing.class_checks import each_option_value
from fusionbench.testing.requirements import (
    close,
    listing,
    moved,
    pickled,
    require,
    seeds,
    state_of,
)
from fusionbench.testing.toys import (
    CLASSES,
    NAMES,
    MixedKindsError,
    Size,
    Toy,
    begun,
    build,
    refuses,
    toy_for,
    toys_for,
    training_batch,
)
from fusionbench.testing.trials import PROGRESS, Strategy, loss_of, predicted, shaken, train

SIZES: tuple[Size, ...] = ((3, 5, 7), (1, 9, 6), (4, 6, 5))
"""(D, H, W) of images: odd, of one slice, ordinary."""


def check_shape(cls: Strategy, **options: Any) -> None:
    """It returns logits (B, K): for 1 to 4 modalities, 2 and 3 classes, images of odd sizes."""
    for toy in (*toys_for(cls, options=options), *_more_toys(cls, options)):
        found = tuple(shaken(cls, toy, options)(toy.batch().inputs).shape)
        require(found == (4, len(toy.classes)), f"returns {found}, not (4, {len(toy.classes)}), for {toy}")


def check_mixed_kinds(cls: Strategy, **options: Any) -> None:
    """If it takes images and tables, it takes both at once, unless it says that it `stacks` them."""
    if len(cls.accepts) < 2 or cls.single:
        return
    toy = toy_for(cls, {NAMES[0]: "image", NAMES[1]: "table", NAMES[2]: "image"}, options)
    if refuses(cls, toy, options):
        return
    try:
        logits = shaken(cls, toy, options)(toy.batch().inputs)
    except MixedKindsError:
        require(cls.stacks, "asks for one backbone for an image and a table: say so with `stacks = True`")
        return
    require(tuple(logits.shape) == (4, 2), f"returns {tuple(logits.shape)}, not (4, 2), for {toy}")


def check_parts_told(cls: Strategy, **options: Any) -> None:
    """`uses_parts` is true exactly if it is built from the backbone or the attention of the comparison."""
    for toy in toys_for(cls, (2,), options):
        asked: list[nn.Module] = []
        cls(_watched(toy.parts, asked), **options)
        require(cls.uses_parts or not asked, f"asks for parts, but says `uses_parts = False` ({toy})")
        require(bool(asked) or not cls.uses_parts, f"asks for no part: say so with `uses_parts = False` ({toy})")


def check_finite(cls: Strategy, **options: Any) -> None:
    """Its logits are finite, also for inputs of zeros and large ones."""
    for toy in toys_for(cls, (1, 3), options):
        model, inputs = shaken(cls, toy, options), toy.batch().inputs
        for scale in (0, 1, 100):
            logits = model({name: x * scale for name, x in inputs.items()})
            require(bool(torch.isfinite(logits).all()), f"NaN or infinity for inputs of magnitude {scale}: {toy}")


def check_found_by_name(cls: Strategy, **options: Any) -> None:
    """It finds modalities by their names, whatever their position in the mapping."""
    for toy in toys_for(cls, (2, 4), options):
        model, inputs = shaken(cls, toy, options), toy.batch().inputs
        turned = dict(reversed(list(inputs.items())))
        require(
            close(model(turned), model(inputs)),
            f"the same modalities in another order give another prediction: index by name, inputs[name] ({toy})",
        )


def check_every_modality_matters(cls: Strategy, **options: Any) -> None:
    """Another value of any modality gives another prediction, once parameters are random."""
    for toy in toys_for(cls, (1, 2, 4), options):
        dumb = set(toy.modalities)
        for seed in seeds():
            model, inputs, others = shaken(cls, toy, options, seed), toy.batch().inputs, toy.batch(seed=9).inputs
            plain = model(inputs)
            dumb -= {name for name in dumb if not close(model({**inputs, name: others[name]}), plain, 1e-6)}
        require(not dumb, f"{listing(sorted(dumb))} makes no difference to the prediction: {toy}")


def check_missing_ignored(cls: Strategy, **options: Any) -> None:
    """If it `takes_missing`, any modality may be missing, and what stands in its place makes no difference."""
    if not cls.takes_missing:
        return
    for toy in toys_for(cls, (1, 2, 4), options):
        first, last = toy.modalities[0], toy.modalities[-1]
        gone = {name: [False, name == first, name == last, name != first] for name in toy.modalities}  # per subject
        masks = {presence(name): ~torch.tensor(rows) for name, rows in gone.items()}
        model, inputs = shaken(cls, toy, options), toy.batch().inputs
        logits = model({**inputs, **masks})
        require(bool(torch.isfinite(logits).all()), f"NaN or infinity where a modality is missing: {toy}")
        junk = {name: x + 9 * ~masks[presence(name)].view(-1, 1, 1, 1, 1) for name, x in inputs.items() if name in gone}
        require(
            close(model({**inputs, **junk, **masks}), logits),
            f"looks at a modality that the subject lacks: ask present(inputs, name) ({toy})",
        )
        require(
            close(logits[:1], model(inputs)[:1]),
            f"a subject that has every modality is judged differently when others lack one: {toy}",
        )


def check_samples_independent(cls: Strategy, **options: Any) -> None:
    """In eval mode a subject's prediction does not depend on who else is in the batch, or on chance."""
    for toy in toys_for(cls, (1, 3), options):
        model, inputs = shaken(cls, toy, options), toy.batch(5).inputs
        together = model(inputs)
        for rows in ([0], [4, 1], [3, 2, 0, 4, 1]):
            some = model({name: x[rows] for name, x in inputs.items()})
            require(close(some, together[rows]), f"a prediction changes with the company in the batch: {toy}")


def check_inputs_untouched(cls: Strategy, **options: Any) -> None:
    """It changes neither the inputs nor the mapping that holds them."""
    for toy in toys_for(cls, (1, 3), options):
        for training in (False, True):
            batch = training_batch(toy)
            model = begun(cls, toy, options).train(training)
            with torch.no_grad(), seeded(0):
                model(batch.inputs)
                for stage in model.stages():
                    stage.loss(model, batch, PROGRESS)
            kept = training_batch(toy).inputs
            require(list(batch.inputs) == list(kept), f"the mapping of inputs is changed: copy it first ({toy})")
            spoilt = [name for name in kept if not torch.equal(kept[name], batch.inputs[name])]
            require(not spoilt, f"{listing(spoilt)} is changed in place: work on a copy ({toy})")


def check_state_round_trip(cls: Strategy, **options: Any) -> None:
    """Its state_dict is all there is to it: loaded into a new one, without begin(), it predicts the same."""
    for toy in toys_for(cls, (1, 3), options):
        trained = begun(cls, toy, options)
        for stage in trained.stages():
            list(train(trained, stage, [training_batch(toy)] * 2))
        loaded = build(cls, toy, options, seed=1)
        loaded.load_state_dict(trained.state_dict())
        require(
            torch.equal(predicted(trained, toy), predicted(loaded, toy)),
            f"a reloaded one predicts otherwise: keep all that begin() learns in parameters and buffers ({toy})",
        )


def check_same_seed(cls: Strategy, **options: Any) -> None:
    """The same seed gives the same weights, before and after begin()."""
    for toy in toys_for(cls, (1, 3), options):
        for make in (build, begun):
            names = moved(state_of(make(cls, toy, options, 3)), make(cls, toy, options, 3))
            require(not names, f"{listing(names)} differ for the same seed: draw with torch's own generator ({toy})")


def check_pickles(cls: Strategy, **options: Any) -> None:
    """It can be pickled, as worker processes need."""
    for toy in toys_for(cls, (1, 3), options):
        model = begun(cls, toy, options)
        same = torch.equal(predicted(model, toy), predicted(pickled(model), toy))
        require(same, f"a pickled copy predicts otherwise ({toy})")


def check_autocast(cls: Strategy, **options: Any) -> None:
    """Under bf16 autocast it trains, and its probabilities are near those of float32."""
    for toy in toys_for(cls, (1, 3), options):
        model, batch = shaken(cls, toy, options), training_batch(toy)
        exact = model(batch.inputs)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(batch.inputs)
            for stage in model.stages():
                loss = loss_of(model, stage, batch)
                require(bool(torch.isfinite(loss)), f"stage {stage.name} gives {loss.item()} under bf16 ({toy})")
        require(bool(torch.isfinite(rough).all()), f"NaN or infinity under bf16 autocast ({toy})")
        require(
            close(rough.float().softmax(1), exact.softmax(1), 0.1),
            f"probabilities under bf16 autocast are more than 0.1 off those of float32 ({toy})",
        )


def check_notes(cls: Strategy, **options: Any) -> None:
    """Each column of its notes has one remark for each subject."""
    for toy in toys_for(cls, (1, 3), options):
        model, batch = begun(cls, toy, options).eval(), training_batch(toy)
        with torch.no_grad():
            model(batch.inputs)
            for column, remarks in model.notes(batch).items():
                require(len(remarks) == 6, f"notes()[{column!r}] has {len(remarks)} remarks for 6 subjects ({toy})")
                require(all(isinstance(one, str) for one in remarks), f"notes()[{column!r}] holds more than text")


def check_each_option(cls: Strategy, **options: Any) -> None:
    """It can be built, begun and run with each value of each option that lists its values."""
    for values in each_option_value(cls):
        chosen = {**options, **values}
        for toy in toys_for(cls, (2,), chosen):
            model = begun(cls, toy, chosen)
            require(bool(torch.isfinite(predicted(model, toy)).all()), f"NaN or infinity with {values} ({toy})")
            for stage in model.stages():
                list(train(model, stage, [training_batch(toy)]))


def _watched(parts: Parts, made: list[nn.Module]) -> Parts:
    """The same parts, which write down every backbone and attention module that is made."""

    def backbone(modalities: tuple[str, ...], channels: int) -> Backbone:
        made.append(module := parts.make_backbone(modalities, channels))
        return module

    def attention(channels: int) -> AttentionModule:
        made.append(module := parts.make_attention(channels))
        return module

    return replace(parts, make_backbone=backbone, make_attention=attention)


def _more_toys(cls: Strategy, options: Mapping[str, Any]) -> Iterator[Toy]:
    names = NAMES[: 1 if cls.single else 2]
    for kind, classes in product(sorted(cls.accepts), (CLASSES[:2], CLASSES)):
        for size in SIZES if kind == "image" else SIZES[:1]:
            toy = toy_for(cls, dict.fromkeys(names, kind), options, classes=classes, size=size)
            if not refuses(cls, toy, options):
                yield toy
