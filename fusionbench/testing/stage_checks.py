"""What every fusion strategy promises of its stages and parents, each promise a function that raises AssertionError."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fusionbench.components import Batch, Context, FusionStrategy, Stage
from fusionbench.errors import UsageError
from fusionbench.registry import load_registry
from fusionbench.testing.requirements import (
    close,
    gradients,
    listing,
    moved,
    require,
    seeds,
    state_of,
)
from fusionbench.testing.toys import (
    Toy,
    begin,
    begun,
    build,
    randomise,
    settings_for,
    toy_context,
    toys_for,
    training_batch,
)
from fusionbench.testing.trials import PROGRESS, STEPS, Strategy, loss_of, shaken, train
from fusionbench.training import is_trained, set_modes

FROZEN_STEPS = 3


def check_every_parameter_trains(cls: Strategy, **options: Any) -> None:
    """Every parameter that is not inherited is trained by a stage, whose loss gives it a gradient."""
    for toy, chosen in settings_for(cls, (1, 2, 3, 4), options):
        model = begun(cls, toy, chosen)
        names = {name for name, _ in model.named_parameters()}
        owned = {name for name in names if not is_trained(name, cls.inherited)}
        promised = {name for stage in model.stages() for name in names if is_trained(name, stage.trains)}
        idle = sorted(owned - promised)
        require(not idle, f"no stage trains {listing(idle)}: train it, or name it in `inherited` ({toy})")
        dead = sorted(promised - _reached(cls, toy, chosen))
        require(not dead, f"no gradient for {listing(dead)}: use it in the loss, or do not create it ({toy})")


def check_stages_declared(cls: Strategy, **options: Any) -> None:
    """`stage_names` holds every stage in order, `planned_stages` those of its options; what they train exists."""
    for toy, chosen in settings_for(cls, (1, 2, 3, 4), options):
        model = begun(cls, toy, chosen)
        names = [stage.name for stage in model.stages()]
        planned = cls.planned_stages(**chosen)
        lost = [name for name in planned if name not in cls.stage_names]
        require(not lost, f"`planned_stages` has {listing(lost)}, but `stage_names` does not ({toy})")
        declared = [name for name in planned if name in names]
        require(names == declared, f"the stages are {names}, but declared are {list(planned)} ({toy})")
        known = {name for name, _ in (*model.named_modules(), *model.named_parameters())}
        for stage in model.stages():
            lost = [prefix for prefix in stage.trains if prefix not in known]
            require(not lost, f"stage {stage.name} trains {listing(lost)}, which does not exist ({toy})")
            trained = any(is_trained(name, stage.trains) for name, _ in model.named_parameters())
            require(trained, f"stage {stage.name} trains no parameter: leave it out of stages() ({toy})")
        lost = [prefix for prefix in cls.inherited if prefix not in known]
        require(not lost, f"`inherited` names {listing(lost)}, which does not exist ({toy})")


def check_stages_learn(cls: Strategy, **options: Any) -> None:
    """Each stage lowers its loss on a few subjects."""
    for toy in toys_for(cls, (1, 3), options):
        model, batch = begun(cls, toy, options), training_batch(toy)
        for stage in model.stages():
            losses = list(train(model, stage, [batch] * STEPS))
            first, last = sum(losses[:4]) / 4, sum(losses[-4:]) / 4
            require(
                last < first,
                f"{STEPS} steps of stage {stage.name} bring its loss on six subjects from {first:.4g} to {last:.4g} "
                f"({toy})",
            )


def check_frozen_stays(cls: Strategy, **options: Any) -> None:
    """What a stage does not train does not move: no parameter, and no running statistic."""
    for toy, chosen in settings_for(cls, (1, 3), options):
        model = begun(cls, toy, chosen)
        for stage in model.stages():
            before = state_of(model)
            list(train(model, stage, [training_batch(toy, seed=seed) for seed in range(FROZEN_STEPS)]))
            names = [name for name in moved(before, model) if not is_trained(name, stage.trains)]
            require(
                not names,
                f"stage {stage.name} moves {listing(names)}, which it does not train: leave the modes of modules "
                f"(train, eval) to the training loop, and share no tensor ({toy})",
            )


def check_own_tensors(cls: Strategy, **options: Any) -> None:
    """Its tensors are its own: it shares none with a parent, nor between two branches."""
    for toy in toys_for(cls, (1, 3), options):
        model, context = build(cls, toy, options), toy_context(cls, toy, options)
        begin(model, context)
        owner = {_memory(x): f"parent {role}" for role, state in context.parents.items() for x in state.values()}
        named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        for name, tensor in named:
            other = owner.setdefault(_memory(tensor), name) if tensor.numel() else name
            require(other == name, f"{name} shares its memory with {other}: copy it, or register it once ({toy})")


def check_begin_leaves_parents(cls: Strategy, **options: Any) -> None:
    """`begin` changes nothing of the parents' weights, which other strategies use as well."""
    for toy in toys_for(cls, (1, 3), options):
        model, context, before = (
            build(cls, toy, options),
            toy_context(cls, toy, options),
            toy_context(cls, toy, options),
        )
        begin(model, context)
        for role, state in context.parents.items():
            spoilt = [name for name in state if not torch.equal(state[name], before.parents[role][name])]
            require(not spoilt, f"begin() changes {listing(spoilt)} of parent {role}: copy it first ({toy})")


def check_class_weight_counts(cls: Strategy, **options: Any) -> None:
    """Where a loss depends on the label, it depends on the class weight, even in a batch of one."""
    for toy, chosen in settings_for(cls, (1, 3), options):
        model = shaken(cls, toy, chosen)
        batch = training_batch(toy, 1)
        for stage in model.stages():
            plain, heavy, other = (
                loss_of(model, stage, changed)
                for changed in (
                    batch,
                    replace(batch, weights=batch.weights * 3),
                    replace(batch, labels=1 - batch.labels),
                )
            )
            require(
                close(plain, other, 1e-6) or not close(plain, heavy, 1e-6),
                f"the class weight cancels in stage {stage.name} at batch size 1: use batch.cross_entropy(logits), "
                f"which divides by the number of samples, not by the sum of weights ({toy})",
            )


def check_batch_of_one(cls: Strategy, **options: Any) -> None:
    """Each stage trains on one subject at a time, which is the published batch size."""
    for toy in toys_for(cls, (1, 3), options):
        model = begun(cls, toy, options)
        for stage in model.stages():
            for loss in train(model, stage, [training_batch(toy, 1)] * 2):
                require(abs(loss) < float("inf"), f"stage {stage.name} gives {loss} for a batch of one ({toy})")


def check_row_order_ignored(cls: Strategy, **options: Any) -> None:
    """A loss is the same for the same subjects in another order: nothing is joined by position."""
    for toy in toys_for(cls, (1, 3), options):
        model, batch = shaken(cls, toy, options), training_batch(toy)
        for stage in model.stages():
            plain = loss_of(model, stage, batch)
            if not torch.equal(plain, loss_of(model, stage, batch, seed=1)):
                continue  # it draws random numbers by row even in eval mode, so that rows cannot be compared
            require(
                close(loss_of(model, stage, _rows(batch, [4, 0, 5, 2, 1, 3])), plain),
                f"the loss of stage {stage.name} changes when subjects swap rows with all that is theirs: take labels, "
                f"weights and batch.given as they come, they are joined by subject already ({toy})",
            )


def check_parents_planned(cls: Strategy, **options: Any) -> None:
    """Its parents are installed strategies of modalities that it has, and always the same ones."""
    for toy in toys_for(cls, options=options):
        parents = cls.parents(toy.modalities, **options)
        require(parents == cls.parents(toy.modalities, **options), "parents() gives another answer when asked again")
        for parent in parents:
            try:
                theirs = load_registry().get("fusion", parent.fusion).cls
            except UsageError as error:
                raise AssertionError(f"parent {parent.role}: {error}") from None
            strange = sorted(set(parent.modalities) - set(toy.modalities))
            require(not strange, f"parent {parent.role} is of {listing(strange)}, which the strategy does not have")
            lost = {toy.kinds[name] for name in parent.modalities} - theirs.accepts  # type: ignore[attr-defined]
            require(not lost, f"parent {parent.role} ({parent.fusion}) takes no {' or '.join(sorted(lost))}")


def check_parents_matter(cls: Strategy, **options: Any) -> None:
    """Other weights of any parent give another start."""
    for toy in toys_for(cls, (1, 3), options):
        ours, theirs = toy_context(cls, toy, options), toy_context(cls, toy, options, seed=1)
        plain = _started(cls, toy, options, ours)
        for role in ours.parents:
            other = _started(cls, toy, options, replace(ours, parents={**ours.parents, role: theirs.parents[role]}))
            require(
                any(not torch.equal(plain[name], other[name]) for name in plain),
                f"the weights of parent {role} make no difference: load them in begin(), or ask for none ({toy})",
            )


def check_out_of_fold_used(cls: Strategy, **options: Any) -> None:
    """What it learns depends on the out-of-fold predictions of each parent that was asked for them."""
    for toy in toys_for(cls, (1, 3), options):
        model, batch, context = shaken(cls, toy, options), training_batch(toy), toy_context(cls, toy, options)
        start = _started(cls, toy, options, context)
        for role in toy.roles:
            other = replace(batch, given={**batch.given, role: batch.given[role].flip(1)})
            losses = (
                not close(loss_of(model, stage, other), loss_of(model, stage, batch), 1e-6) for stage in model.stages()
            )
            begun_otherwise = _started(cls, toy, options, replace(context, training=_only(other)))
            require(
                any(losses) or any(not torch.equal(start[name], begun_otherwise[name]) for name in start),
                f"neither a loss nor begin() depends on the out-of-fold predictions of {role}: learn from "
                f"batch.given[{role!r}]. What a parent says of subjects that it was trained on is better than what it "
                f"will say of others ({toy})",
            )


def _reached(cls: Strategy, toy: Toy, options: Mapping[str, Any]) -> set[str]:
    """The parameters that get a gradient in a stage that trains them, in one of a few random models."""
    found: set[str] = set()
    batch = training_batch(toy)
    for seed in seeds():
        model = begun(cls, toy, options, seed)
        randomise(model, seed)
        for stage in model.stages():
            set_modes(model, stage.trains)
            found |= gradients(model, _bound(model, stage, batch), stage.trains)
    return found


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _started(cls: Strategy, toy: Toy, options: Mapping[str, Any], context: Context) -> dict[str, Tensor]:
    model = build(cls, toy, options)
    begin(model, context)
    return state_of(model)


def _only(batch: Batch) -> Callable[[], Iterator[Batch]]:
    return lambda: iter([batch])


def _bound(model: FusionStrategy, stage: Stage, batch: Batch) -> Callable[[], Tensor]:
    return lambda: stage.loss(model, batch, PROGRESS)


def _rows(batch: Batch, rows: list[int]) -> Batch:
    """The subjects of a batch in another order, each with all that is theirs."""
    return replace(
        batch,
        ids=tuple(batch.ids[row] for row in rows),
        inputs={name: x[rows] for name, x in batch.inputs.items()},
        labels=batch.labels[rows],
        weights=batch.weights[rows],
        present={name: there[rows] for name, there in batch.present.items()},
        seg=None if batch.seg is None else batch.seg[rows],
        given={role: probabilities[rows] for role, probabilities in batch.given.items()},
    )
