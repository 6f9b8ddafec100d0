"""What every fusion strategy promises, each promise a function that raises AssertionError where it is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from fusionbench.components import AttentionModule, Backbone, Batch, Context, FusionStrategy, Parts, Stage, presence
from fusionbench.errors import UsageError
from fusionbench.numerics import seeded
from fusionbench.registry import load_registry
from fusionbench.testing.class_checks import each_option_value
from fusionbench.testing.requirements import (
    close,
    gradients,
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
    begin,
    begun,
    build,
    randomise,
    refuses,
    settings_for,
    toy_context,
    toy_for,
    toys_for,
    training_batch,
)
from fusionbench.training import is_trained, set_modes

Strategy = type[FusionStrategy]

SIZES: tuple[Size, ...] = ((3, 5, 7), (1, 9, 6), (4, 6, 5))
"""(D, H, W) of images: odd, of one slice, ordinary."""
STEPS = 40
"""Of Adam, after which a stage's loss on six subjects is lower."""
LEARNING_RATE = 1e-2
FROZEN_STEPS = 3
PROGRESS = 0.5
"""Where in its stage a loss is asked for: an annealed loss may rise as progress does, so it is held."""


def check_shape(cls: Strategy, **options: Any) -> None:
    """It returns logits (B, K): for 1 to 4 modalities, 2 and 3 classes, images of odd sizes."""
    for toy in (*toys_for(cls, options=options), *_more_toys(cls, options)):
        found = tuple(_shaken(cls, toy, options)(toy.batch().inputs).shape)
        require(found == (4, len(toy.classes)), f"returns {found}, not (4, {len(toy.classes)}), for {toy}")


def check_mixed_kinds(cls: Strategy, **options: Any) -> None:
    """If it takes images and tables, it takes both at once, unless it says that it `stacks` them."""
    if len(cls.accepts) < 2 or cls.single:
        return
    toy = toy_for(cls, {NAMES[0]: "image", NAMES[1]: "table", NAMES[2]: "image"}, options)
    if refuses(cls, toy, options):
        return
    try:
        logits = _shaken(cls, toy, options)(toy.batch().inputs)
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
        model, inputs = _shaken(cls, toy, options), toy.batch().inputs
        for scale in (0, 1, 100):
            logits = model({name: x * scale for name, x in inputs.items()})
            require(bool(torch.isfinite(logits).all()), f"NaN or infinity for inputs of magnitude {scale}: {toy}")


def check_found_by_name(cls: Strategy, **options: Any) -> None:
    """It finds modalities by their names, whatever their position in the mapping."""
    for toy in toys_for(cls, (2, 4), options):
        model, inputs = _shaken(cls, toy, options), toy.batch().inputs
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
            model, inputs, others = _shaken(cls, toy, options, seed), toy.batch().inputs, toy.batch(seed=9).inputs
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
        model, inputs = _shaken(cls, toy, options), toy.batch().inputs
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


def check_samples_independent(cls: Strategy, **options: Any) -> None:
    """In eval mode a subject's prediction does not depend on who else is in the batch, or on chance."""
    for toy in toys_for(cls, (1, 3), options):
        model, inputs = _shaken(cls, toy, options), toy.batch(5).inputs
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
            losses = list(_train(model, stage, [batch] * STEPS))
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
            list(_train(model, stage, [training_batch(toy, seed=seed) for seed in range(FROZEN_STEPS)]))
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
        model = _shaken(cls, toy, chosen)
        batch = training_batch(toy, 1)
        for stage in model.stages():
            plain, heavy, other = (
                _loss(model, stage, changed)
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
            for loss in _train(model, stage, [training_batch(toy, 1)] * 2):
                require(abs(loss) < float("inf"), f"stage {stage.name} gives {loss} for a batch of one ({toy})")


def check_row_order_ignored(cls: Strategy, **options: Any) -> None:
    """A loss is the same for the same subjects in another order: nothing is joined by position."""
    for toy in toys_for(cls, (1, 3), options):
        model, batch = _shaken(cls, toy, options), training_batch(toy)
        for stage in model.stages():
            plain = _loss(model, stage, batch)
            if not torch.equal(plain, _loss(model, stage, batch, seed=1)):
                continue  # it draws random numbers by row even in eval mode, so that rows cannot be compared
            require(
                close(_loss(model, stage, _rows(batch, [4, 0, 5, 2, 1, 3])), plain),
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
        model, batch, context = _shaken(cls, toy, options), training_batch(toy), toy_context(cls, toy, options)
        start = _started(cls, toy, options, context)
        for role in toy.roles:
            other = replace(batch, given={**batch.given, role: batch.given[role].flip(1)})
            losses = (
                not close(_loss(model, stage, other), _loss(model, stage, batch), 1e-6) for stage in model.stages()
            )
            begun_otherwise = _started(cls, toy, options, replace(context, training=_only(other)))
            require(
                any(losses) or any(not torch.equal(start[name], begun_otherwise[name]) for name in start),
                f"neither a loss nor begin() depends on the out-of-fold predictions of {role}: learn from "
                f"batch.given[{role!r}]. What a parent says of subjects that it was trained on is better than what it "
                f"will say of others ({toy})",
            )


def check_state_round_trip(cls: Strategy, **options: Any) -> None:
    """Its state_dict is all there is to it: loaded into a new one, without begin(), it predicts the same."""
    for toy in toys_for(cls, (1, 3), options):
        trained = begun(cls, toy, options)
        for stage in trained.stages():
            list(_train(trained, stage, [training_batch(toy)] * 2))
        loaded = build(cls, toy, options, seed=1)
        loaded.load_state_dict(trained.state_dict())
        require(
            torch.equal(_predicted(trained, toy), _predicted(loaded, toy)),
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
        same = torch.equal(_predicted(model, toy), _predicted(pickled(model), toy))
        require(same, f"a pickled copy predicts otherwise ({toy})")


def check_autocast(cls: Strategy, **options: Any) -> None:
    """Under bf16 autocast it trains, and its probabilities are near those of float32."""
    for toy in toys_for(cls, (1, 3), options):
        model, batch = _shaken(cls, toy, options), training_batch(toy)
        exact = model(batch.inputs)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(batch.inputs)
            for stage in model.stages():
                loss = _loss(model, stage, batch)
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
            require(bool(torch.isfinite(_predicted(model, toy)).all()), f"NaN or infinity with {values} ({toy})")
            for stage in model.stages():
                list(_train(model, stage, [training_batch(toy)]))


def _shaken(cls: Strategy, toy: Toy, options: Mapping[str, Any], seed: int = 0) -> FusionStrategy:
    """A strategy as begun, in eval mode, whose parameters have left a start that may hide what they do."""
    model = begun(cls, toy, options, seed)
    randomise(model, seed)
    return model.eval().requires_grad_(False)


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


def _only(batch: Batch) -> Callable[[], Iterator[Batch]]:
    return lambda: iter([batch])


def _bound(model: FusionStrategy, stage: Stage, batch: Batch) -> Callable[[], Tensor]:
    return lambda: stage.loss(model, batch, PROGRESS)


def _train(model: FusionStrategy, stage: Stage, batches: list[Batch]) -> Iterator[float]:
    """Train a stage as the training loop does, and give the loss of each step."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name, stage.trains))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], LEARNING_RATE)
    set_modes(model, stage.trains)
    for step, batch in enumerate(batches):
        with seeded(step):
            loss = stage.loss(model, batch if stage.sees_inputs else replace(batch, inputs={}), PROGRESS)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield loss.item()


def _loss(model: FusionStrategy, stage: Stage, batch: Batch, seed: int = 0) -> Tensor:
    with seeded(seed), torch.no_grad():
        return stage.loss(model, batch, PROGRESS)


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


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _started(cls: Strategy, toy: Toy, options: Mapping[str, Any], context: Context) -> dict[str, Tensor]:
    model = build(cls, toy, options)
    begin(model, context)
    return state_of(model)


def _predicted(model: FusionStrategy, toy: Toy) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.eval()(toy.batch().inputs)
    return logits
