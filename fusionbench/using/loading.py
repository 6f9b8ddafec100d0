"""A finished fit as a model again, and the same fit asked about subjects that are not its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from fusionbench.cohorts import Subject
from fusionbench.components import FusionStrategy
from fusionbench.errors import StoreError
from fusionbench.fits import Built, Fit, built
from fusionbench.folds import Split
from fusionbench.registry import Registry
from fusionbench.store import Store
from fusionbench.training import build_strategy


@dataclass(frozen=True)
class Detached(Fit):
    """A trained fit without its own subjects, asked about others: it predicts them as it predicted its test part.

    Nobody is in its training part, so whoever serves it can reach the subjects asked about and no other.
    """

    trained_seed: int
    told_presence: bool
    """Whether it was told in training who has which modality."""
    never_seen: tuple[str, ...]
    """The modalities that nobody had whom it was trained on."""

    @property
    def base_seed(self) -> int:
        """The seed of the fit as it was trained."""
        return self.trained_seed

    @property
    def unseen(self) -> tuple[str, ...]:  # there is nobody to find it by
        """The modalities that nobody had whom it was trained on."""
        return tuple(self.never_seen)

    @property
    def masks(self) -> bool:
        """Whether it is told who has which modality: as in training, and wherever somebody lacks one."""
        return self.told_presence or bool(self.absent)


def load_fit(key: str, store: Store, registry: Registry) -> tuple[FusionStrategy, Fit]:
    """The model of a finished fit as training left it, on the CPU and in eval mode, and what the fit was.

    `begin` is not called, and no file that an option names is read: what came of them is in the weights. StoreError
    if the store has not got the fit, if it was altered, or if its weights do not fit the code that there is now.
    """
    fit = read_fit(key, store)
    model = build_strategy(_without_files(fit), registry)
    try:
        model.load_state_dict(store.weights(key))
    except RuntimeError as error:
        why = "; ".join(changed_code([fit], registry)) or "its weights were altered"
        reason = str(error).strip().splitlines()[-1].strip()
        raise StoreError(f"fit {key} of {fit.fusion.name} cannot be loaded, {why}: {reason}") from None
    return model.eval(), fit


def read_fit(key: str, store: Store) -> Fit:
    """What a finished fit was, without its weights; StoreError if it is not there, altered, or another version's."""
    folder = store.folder(key)
    if not all((folder / name).is_file() for name in ("weights.safetensors", "job.json")):
        raise StoreError(f"there is no fit {key} in {store.root}: name the right --store, or run the command again")
    try:
        record = store.record(key)
        fit = Fit.from_record(record["fit"])
    except (KeyError, TypeError, ValueError):
        raise StoreError(f"fit {key} is damaged, or of another version of fusionbench: train it again") from None
    if "detached" in record:
        return Detached(**_values(fit), **record["detached"])
    if fit.key != key:
        raise StoreError(f"{folder / 'job.json'} was altered: remove its folder and run the command again")
    return fit


def detach(fit: Fit, subjects: Iterable[Subject], registry: Registry, **recipe: Any) -> Detached:
    """The fit as it is asked about these subjects, with some of its recipe changed, such as the device."""
    asked = sorted(subjects, key=lambda subject: subject.id)
    names = [modality.name for modality in fit.modalities]
    outlined = fit.outlines == "test" or all(subject.seg for subject in asked)
    changed = {
        "outlines": fit.outlines if outlined else "none",  # those that only a loss needs are read for remarks
        "split": Split((), tuple(subject.id for subject in asked)),
        "labels": {subject.id: subject.label for subject in asked},
        "digests": {},
        "absent": {subject.id: lacks for subject in asked if (lacks := _lacks(subject, names, fit))},
        "features": _as_it_is_now(fit.features, registry),
        "recipe": {**fit.recipe, **recipe, "class_weights": "none"},  # there is nobody to count
    }
    return Detached(
        **{**_values(fit), **changed}, trained_seed=fit.base_seed, told_presence=fit.masks, never_seen=fit.unseen
    )


def _lacks(subject: Subject, names: Sequence[str], fit: Fit) -> tuple[str, ...]:
    """The modalities of which the fit learns nothing of a subject."""
    return tuple(name for name in names if name in fit.unseen or not subject.has(name))


def changed_code(fits: Iterable[Fit], registry: Registry) -> list[str]:
    """The components whose code is not what the fits were trained with, one line each."""
    then = {(kind, built.name, built.source): built for fit in fits for kind, built in fit.components}
    now = {(kind, name): registry.get(kind, name) for kind, name, _ in then}
    return [
        f"the code of {kind} {name} changed since ({built.version}, now {now[kind, name].version})"
        for (kind, name, source), built in then.items()
        if source != now[kind, name].source
    ]


def _values(fit: Fit) -> dict[str, Any]:
    """The fields of a fit as they are, without those that a kind of it adds."""
    return {one.name: getattr(fit, one.name) for one in fields(Fit)}


def _without_files(fit: Fit) -> Fit:
    """The fit with every option that names a file at its default: such a file is where training began."""

    def bare(component: Built) -> Built:
        return replace(component, options={n: v for n, v in component.options.items() if n not in component.files})

    return replace(
        fit,
        fusion=bare(fit.fusion),
        backbones={name: bare(backbone) for name, backbone in fit.backbones.items()},
        attention=fit.attention and bare(fit.attention),
    )


def _as_it_is_now(extractor: Built | None, registry: Registry) -> Built | None:
    """An extractor with the code of today, so that no row of changed code is kept as one of the old."""
    return extractor and built(registry.get("extractor", extractor.name), {extractor.name: extractor.options})
