"""What a run is asked to do: frozen, validated, read from and written to TOML."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fusionbench.errors import UsageError, nearest
from fusionbench.metrics import metric
from fusionbench.seeds import content_digest

Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CohortSource(_Settings):
    """Which reader reads what."""

    reader: str
    data: str = ""
    """A path; empty for a reader that knows its own place."""


class Preprocessing(_Settings):
    """What is done to every image once, before it is cached. Sizes are (D, H, W), slices first."""

    crop: Size | None = None
    resize: Size | None = None
    percentiles: tuple[float, float] = (0.5, 99.5)
    centre: Literal["volume", "content"] = "volume"
    """Where the middle of the crop lies: in the middle of the volume, or of what is not 0 in the subject's images."""
    resample: bool = False
    """Bring every image of a subject onto the grid of its first one, instead of refusing it."""
    max_voxels: Annotated[int, Field(ge=1)] = 512**3
    """An image of more is refused before it is unpacked."""

    @property
    def joint(self) -> bool:
        """Whether what becomes of an image depends on the other images of the subject."""
        return self.resample or self.centre == "content"

    @model_validator(mode="after")
    def _centred_crop(self) -> Preprocessing:
        if self.centre == "content" and self.crop is None:
            raise ValueError("centre is that of the crop; set preprocessing.crop too")
        return self

    @field_validator("percentiles")
    @classmethod
    def _rising(cls, percentiles: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise ValueError("give a lower and an upper percentile between 0 and 100")
        return percentiles


class Augmentation(_Settings):
    """What is done to the images of a training subject, anew in each epoch, alike for all its modalities.

    The defaults are the paper's; flip 0, degrees 0 and scales (1, 1) without extras switch it off.
    """

    flip: Annotated[float, Field(ge=0, le=1)] = 0.25
    degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    scales: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.9, 1.2)
    extra: tuple[str, ...] = ()
    """Transforms of torchio that come after it, such as `RandomNoise(std=0.05)`."""

    @property
    def off(self) -> bool:
        """Whether nothing is done."""
        return not (self.flip or self.degrees or self.extra) and set(self.scales) == {1.0}


class StageRecipe(_Settings):
    """What one stage of a strategy does otherwise than the recipe says."""

    epochs: Annotated[int, Field(ge=0)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None


class Recipe(_Settings):
    """How everything is trained: Adam at a constant learning rate, last epoch."""

    epochs: Annotated[int, Field(ge=0)] = 200
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    batch_size: Annotated[int, Field(ge=1)] = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    class_weights: Literal["paper", "inverse", "none"] = "paper"
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """How likely each modality of a training subject is hidden in an epoch, though never all of them; for strategies
    that can do without one."""
    augmentation: Augmentation = Augmentation()
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    """How the weights of volumes' convolutions lie in memory, and with them the features."""
    device: str = "auto"
    threads: Annotated[int, Field(ge=1)] = 1
    processes: Annotated[int, Field(ge=1)] = 1
    """How many processes do a fit together, each on a device of its own or all on the CPU."""
    stages: dict[str, StageRecipe] = {}

    def stage(self, name: str) -> dict[str, Any]:
        """Epochs, learning rate, weight decay and batch size of a stage."""
        return {field: getattr(self, field) for field in StageRecipe.model_fields} | self.stages.get(
            name, StageRecipe()
        ).model_dump(exclude_none=True)


class Ranking(_Settings):
    """How modalities are ordered, by which ranker and on which score."""

    ranker: str
    score: str = "roc_auc"
    attention: str = ""
    """The attention of the uni-modal models that rank; empty: the experiment's own."""
    primary: str = ""
    """The modality that comes first whatever the evidence says; empty: the ranking decides."""
    primary_is: Literal["given", "most-frequent"] = "given"
    """Where `primary` comes from; the most frequent one over all folds saw the test subjects, and is marked."""

    @field_validator("score")
    @classmethod
    def _known(cls, name: str) -> str:
        return metric(name).name


class Protocol(_Settings):
    """How results are obtained: folds, and the ranking inside them."""

    ranking: Ranking
    folds: int | str = 3
    """How many, or the path of a CSV with an official split."""
    folds_by: Literal["", "site"] = ""
    """`site`: one fold per site, tested on subjects from a place that training never saw; instead of `folds`."""
    inner_folds: Annotated[int, Field(ge=2)] = 3
    """Folds inside a training part, for ranking and for out-of-fold predictions."""
    repeats: Annotated[int, Field(ge=1)] = 1
    fold_seed: int = 0
    refit: bool = False
    """Train on everybody and test nobody: for models to be used, whatever the folds are."""

    @field_validator("folds")
    @classmethod
    def _enough(cls, folds: int | str) -> int | str:
        if isinstance(folds, int) and folds < 2:
            raise ValueError("a cross-validation needs at least 2 folds")
        return folds


class _Shared(_Settings):
    cohort: CohortSource
    modalities: tuple[str, ...]
    backbone: dict[str, str]
    """Kind of modality (image, table) or name of a modality -> backbone."""
    attention: str
    features: str = ""
    """The extractor that makes a table of each image, from what lies inside the outline; empty: the images."""
    missing: Literal["error", "drop-subject", "mask"] = "error"
    """What is done about a subject that lacks a modality: refuse the cohort, leave the subject out, or tell the
    strategy, which must be one that can do without."""
    protocol: Protocol
    recipe: Recipe = Recipe()
    preprocessing: Preprocessing = Preprocessing()
    options: dict[str, dict[str, Any]] = {}
    """Component -> its options."""
    seed: int = 0

    @field_validator("modalities")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("a modality is named twice")
        return names


class Experiment(_Shared):
    """One method on one cohort: what one row of a leaderboard says."""

    fusion: str
    label: str
    """The name of the row, unique in its run."""

    def key(self, cohort_fingerprint: str) -> str:
        """A short hash of all that is asked for and of the data, but not of where the data lie."""
        content = self.model_dump(mode="json", exclude={"cohort": {"data"}})
        return content_digest([content, cohort_fingerprint])[:16]


class Variant(_Settings):
    """A method under a name of its own: a strategy with another attention, backbone, set of modalities or options."""

    fusion: str
    attention: str = ""
    """Empty: that of the comparison."""
    features: str = ""
    """Empty: that of the comparison."""
    backbone: dict[str, str] = {}
    """Laid over those of the comparison."""
    modalities: tuple[str, ...] = ()
    """Empty: those of the comparison."""
    options: dict[str, dict[str, Any]] = {}
    """Component -> options, laid over those of the comparison."""


class Comparison(_Shared):
    """Methods to compare on one cohort and the same folds: a configuration file, or one command."""

    modalities: tuple[str, ...] = ()
    """Which, in the order that breaks ties; all of the cohort's if empty."""
    fusion: tuple[str, ...] = ()
    """Strategies and variants by name; `all` is every one that the cohort has the data for."""
    baselines: tuple[str, ...] = ()
    """Strategies and variants that come along; one for a single modality stands once for each."""
    variants: dict[str, Variant] = {}
    """Name -> a method that can be asked for by that name."""

    def to_toml(self) -> str:
        """Everything, as a configuration file that can be run again; the user's home in a path is written `~`."""
        return tomli_w.dumps(_homeless(without_none(self.model_dump(mode="json"))))


def load_comparison(config: str | Path, *overrides: Mapping[str, Any]) -> Comparison:
    """A shipped configuration by name, or a TOML file by path, with some settings changed.

    Raises UsageError in one line for an unknown name, broken TOML, or a setting that does not exist or does not fit.
    """
    settings = read_config(config)
    for override in overrides:
        settings = merged(settings, override)
    return _validated(settings)


def read_config(config: str | Path) -> dict[str, Any]:
    """The settings of a shipped configuration by name, or of a TOML file by path, not yet validated."""
    path = Path(config)
    if path.suffix != ".toml":
        path = configs_folder() / f"{config}.toml"
    if not path.is_file():
        raise UsageError(
            f"no configuration {str(config)!r}: {nearest(str(config), shipped_configs())}, or give a FILE.toml"
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path.name} is not valid TOML: {error}") from None


def configs_folder() -> Path:
    """Where the shipped configurations are: in the wheel, or beside the package in a checkout."""
    package = Path(str(files("fusionbench")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped_configs() -> list[str]:
    """The names of the shipped configurations."""
    return sorted(path.stem for path in configs_folder().glob("*.toml"))


def parse_setting(text: str) -> dict[str, Any]:
    """`recipe.epochs=5` or `guidance.upsample=nearest` as nested settings; the value is TOML, or else a string.

    >>> parse_setting("recipe.epochs=5")
    {'recipe': {'epochs': 5}}
    >>> parse_setting("guidance.upsample=nearest")
    {'options': {'guidance': {'upsample': 'nearest'}}}
    """
    name, equals, value = text.partition("=")
    path = name.strip().split(".")
    if ":" in name:  # a member of a family, whose name may have dots: timm:resnet18.a1_in1k
        path = [*name.strip().rpartition(".")[::2]]
    if not equals or not all(path):
        raise UsageError(f"--set {text!r}: write it as NAME.OPTION=VALUE, such as recipe.epochs=5")
    if path[0] not in Comparison.model_fields:
        path = ["options", *path]
    settings: Any = _toml_value(value.strip())
    for part in reversed(path):
        settings = {part: settings}
    return dict(settings)


def parse_options(component: str, settings: Iterable[str], why: str) -> dict[str, Any]:
    """The options of one component from `NAME.OPTION=VALUE`; UsageError, which says why, for any other setting.

    >>> parse_options("mlp", ["mlp.width=8"], "")
    {'width': 8}
    """
    options: dict[str, Any] = {}
    for text in settings:
        setting = parse_setting(text).get("options", {})
        if list(setting) != [component]:
            raise UsageError(f"--set {text}: only {component}.OPTION can be set, {why}")
        options |= setting[component]
    return options


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with others laid over them.

    >>> merged({"recipe": {"epochs": 8, "threads": 1}}, {"recipe": {"epochs": 5}})
    {'recipe': {'epochs': 5, 'threads': 1}}
    """
    out = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merged(out[key], value) if both else value
    return out


def without_none(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings without those that are None, or a table of nothing else."""
    nested = {key: without_none(value) if isinstance(value, Mapping) else value for key, value in settings.items()}
    return {key: value for key, value in nested.items() if value is not None and value != {}}


def difference(old: str, new: str) -> str:
    """The settings in which two configuration files differ, in one line: `recipe.epochs: 8 -> 5`."""
    before, after = _flat(tomllib.loads(old)), _flat(tomllib.loads(new))
    changed = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    return ", ".join(f"{key}: {before.get(key, 'not set')} -> {after.get(key, 'not set')}" for key in changed)


def _validated(settings: Mapping[str, Any]) -> Comparison:
    try:
        return Comparison(**settings)
    except ValidationError as error:
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")  # a misspelt one explains others
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden" and where.startswith("variants."):
            raise UsageError(f"no setting {where!r}: {nearest(where.split('.')[-1], Variant.model_fields)}") from None
        if first["type"] == "extra_forbidden":
            raise UsageError(f"no setting {where!r}: {_nearest_setting(where)}") from None
        message = first["msg"].removeprefix("Value error, ").replace("valid tuple", 'list, such as ["guidance"]')
        raise UsageError(f"{where}: {message}, not {first['input']!r}") from None


def _nearest_setting(where: str) -> str:
    known = list(_flat(_schema(Comparison)))
    close = difflib.get_close_matches(where, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}, and component options"


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    fields = {}
    for name, info in model.model_fields.items():
        nested = next((m for m in _models(info.annotation) if issubclass(m, BaseModel)), None)
        fields[name] = _schema(nested) if nested and name not in ("stages", "variants") else ""
    return fields


def _models(annotation: Any) -> list[type]:
    options = getattr(annotation, "__args__", (annotation,))
    return [option for option in options if isinstance(option, type)]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in settings.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out


def _homeless(value: Any) -> Any:
    """Settings without the name of the user's home, which says who ran it."""
    if isinstance(value, Mapping):
        return {key: _homeless(inner) for key, inner in value.items()}
    if isinstance(value, str) and value.startswith(home := f"{Path.home()}{os.sep}"):
        return f"~{os.sep}{value.removeprefix(home)}"
    return value


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
