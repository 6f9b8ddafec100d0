"""A fit: one model trained on one set of subjects, and the address of its result.

The address is a hash of exactly what may change the result, so strategies, experiments and runs that ask for the same
fit train it once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fusionbench.cohorts import Modality, file_digest
from fusionbench.errors import CohortError, UsageError
from fusionbench.folds import Split
from fusionbench.registry import Component
from fusionbench.seeds import content_digest, derive_seed

NUMERICS = (
    "batches", "beginning", "cohorts", "components", "devices", "features", "imaging.augmentation",
    "imaging.imagecache", "imaging.nifti", "imaging.preprocessing", "imaging.transforms", "imaging.volumes", "numerics",
    "precision", "pretrained", "ranks", "seeds", "training",
)  # fmt: skip
"""The modules of the core whose code may change a result: their source is part of every key."""

LIBRARIES = ("torch", "torchio", "nibabel", "numpy", "scipy", "scikit-learn")
"""The libraries whose version may change a result."""


@dataclass(frozen=True)
class Built:
    """A component as a fit uses it: its options, and the code that it was."""

    name: str
    options: Mapping[str, Any]
    files: Mapping[str, str]
    """Option that names a file -> the SHA-256 of its content, which is what counts."""
    distribution: str
    version: str
    source: str
    libraries: Mapping[str, str]
    """Distributions that the component leans on -> their version."""

    def content(self) -> dict[str, Any]:
        """All that counts of it: of a file that an option names its content, and not its place."""
        told = asdict(self)
        files = told.pop("files")
        return told | {"options": told["options"] | files}


@dataclass(frozen=True)
class ParentFits:
    """The finished fits that a fit starts from: one for weights, one per inner fold for out-of-fold predictions."""

    role: str
    use: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Fit:
    """One model on one set of subjects: everything that may change its predictions, and nothing else."""

    fusion: Built
    backbones: Mapping[str, Built]
    """Modality -> its backbone; none, and no attention, for a strategy that is not built from them."""
    attention: Built | None
    features: Built | None
    """What makes a table of each image, if the strategy works on features."""
    outlines: str
    """Whose tumour outlines are read: none, training or test."""
    modalities: tuple[Modality, ...]
    """In the strategy's order, the primary first; of the kind that the strategy gets to see."""
    classes: tuple[str, ...]
    split: Split
    labels: Mapping[str, str]
    digests: Mapping[str, tuple[str, ...]]
    """Subject -> the SHA-256 of the content of each modality, and of the segmentation if it is read."""
    absent: Mapping[str, tuple[str, ...]]
    """Subject -> the modalities that it lacks, for those that lack some. What nobody of the training part has is
    lacking in the test part too: the model knows nothing of it."""
    preprocessing: Mapping[str, Any]
    recipe: Mapping[str, Any]
    stages: Mapping[str, Mapping[str, Any]]
    seed: int
    parents: tuple[ParentFits, ...]
    runtime: Mapping[str, str]

    @cached_property
    def key(self) -> str:
        """The address of the result: a hash of all of the above."""
        content = asdict(self) | {
            "fusion": self.fusion.content(),
            "backbones": {name: backbone.content() for name, backbone in self.backbones.items()},
            "attention": self.attention and self.attention.content(),
            "features": self.features and self.features.content(),
        }
        return content_digest(content)[:32]

    @classmethod
    def from_record(cls, told: Mapping[str, Any]) -> Fit:
        """The inverse of `asdict`, through JSON as well: a fit of the same key. TypeError for other fields."""
        changed = {
            "fusion": Built(**told["fusion"]),
            "backbones": {name: Built(**backbone) for name, backbone in told["backbones"].items()},
            "attention": told["attention"] and Built(**told["attention"]),
            "features": told["features"] and Built(**told["features"]),
            "modalities": tuple(Modality(**{**m, "columns": tuple(m["columns"])}) for m in told["modalities"]),
            "classes": tuple(told["classes"]),
            "split": Split(*(tuple(told["split"][part]) for part in ("training", "test"))),
            "digests": {id: tuple(digests) for id, digests in told["digests"].items()},
            "absent": {id: tuple(names) for id, names in told["absent"].items()},
            "parents": tuple(ParentFits(p["role"], p["use"], tuple(p["keys"])) for p in told["parents"]),
        }
        return cls(**{**told, **changed})

    @property
    def components(self) -> tuple[tuple[str, Built], ...]:
        """(kind, component) for everything that it is made with."""
        backbones = (("backbone", built) for built in self.backbones.values())
        others = (("attention", self.attention), ("extractor", self.features))
        return (("fusion", self.fusion), *backbones, *((kind, built) for kind, built in others if built))

    @property
    def base_seed(self) -> int:
        """What every seed of the fit derives from; no name is in it, so a renamed plugin predicts the same."""
        return derive_seed(self.seed, self.split.training, [modality.name for modality in self.modalities])

    @property
    def processes(self) -> int:
        """How many processes do it together."""
        number: int = self.recipe.get("processes", 1)
        return number

    @cached_property
    def learners(self) -> tuple[str, ...]:
        """Those of the training part who have any of the modalities: the others teach nothing."""
        names = {modality.name for modality in self.modalities}
        return tuple(id for id in self.split.training if names - {*self.absent.get(id, ())})

    @cached_property
    def unseen(self) -> tuple[str, ...]:
        """The modalities that nobody of the training part has."""
        return unseen_by_all([modality.name for modality in self.modalities], self.split.training, self.absent)

    @property
    def masks(self) -> bool:
        """Whether the strategy is told which modalities each subject has."""
        return bool(self.absent) or self.recipe.get("modality_dropout", 0) > 0

    @property
    def work(self) -> int:
        """Subjects times epochs, for an estimate of the time left."""
        epochs: int = sum(stage["epochs"] for stage in self.stages.values())
        return len(self.learners) * epochs * len(self.modalities) + len(self.split.test)


@dataclass(frozen=True)
class Job:
    """A fit to do, and the keys of those that must be done before."""

    key: str
    fit: Fit
    needs: tuple[str, ...]


def built(component: Component, settings: Mapping[str, Mapping[str, Any]]) -> Built:
    """A component as fits use it, with the options that the settings give it and the content of files they name."""
    options = component.chosen(settings)
    named = {option.name: options[option.name] for option in component.options if option.is_file}
    files = {name: _file_of_option(component, name, Path(path)) for name, path in named.items() if path}
    return Built(
        name=component.name,
        options=options,
        files=files,
        distribution=component.distribution,
        version=component.version,
        source=component.source,
        libraries=component.libraries,
    )


def _file_of_option(component: Component, option: str, path: Path) -> str:
    """The digest of a file that an option names; UsageError that says which option, if it cannot be read."""
    where, file = f"{component.name.partition(':')[0]}.{option}", path.expanduser()
    if not file.is_file():
        raise UsageError(f"{where}: there is no file {path}; give the path of one with --set {where}=PATH")
    try:
        return file_digest(file)
    except CohortError as error:
        raise UsageError(f"{where}: {error}") from None


@lru_cache(maxsize=1)
def runtime() -> Mapping[str, str]:
    """The code below every fit: the core's own numerics and the versions of the libraries they use."""
    folder = Path(__file__).parent
    sources = {name: (folder / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8") for name in NUMERICS}
    return {"core": content_digest(sources)} | {name: version(name) for name in LIBRARIES}


def unseen_by_all(
    modalities: Sequence[str], training: Sequence[str], absent: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """Of these modalities those that nobody in training has."""
    if not training or not absent:
        return ()
    return tuple(name for name in modalities if all(name in absent.get(id, ()) for id in training))
