"""An explanation as files: a page that loads nothing, pictures, numbers, and viewers beside them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from fusionbench.cards.card import SYNTHETIC
from fusionbench.errors import one_line
from fusionbench.explaining.explainer import Account, Explanation
from fusionbench.explaining.galleries import galleries, seen_by, verdict
from fusionbench.explaining.measuring import on_image, place_of, step_mm, strength
from fusionbench.explaining.sheets import sheet
from fusionbench.explaining.sights import Sight
from fusionbench.explaining.tiles import Picture, png
from fusionbench.explaining.viewer import View, viewer_page
from fusionbench.jsontext import known
from fusionbench.runs import slug
from fusionbench.using.inference import NOT_CLINICAL

HONEST = (
    "Grad-CAM is a coarse picture of where features speak for a class. It is no evidence of reasoning, shows no cause, "
    "and a map on a tumour does not make a model right.",
    "Each map has its own scale: 0 to its largest value. How strong it is beside the others of its model is said below "
    "it.",
    "A position of a feature map sees far more of the image than the place where it is drawn.",
    "Attention is drawn as what is attended to. How much it changes the features is said in the table; near 0 it "
    "changes nothing, whatever its maps look like.",
    "Subjects that were chosen for a page are no sample: count nothing on them.",
)
"""What must be known to read a page."""
DIGITS = 6
"""Significant digits of the numbers of a map."""


@dataclass(frozen=True)
class Entry:
    """One subject in the page that leads to several."""

    run: str
    subject: str
    label: str
    fold: int
    verdicts: tuple[tuple[str, str], ...]
    """(Method, what it said)."""
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, told: Explanation) -> Entry:
        """An explanation in one line."""
        verdicts = tuple((account.method, verdict(account, told)) for account in told.accounts)
        said = told.account.said
        return cls(told.run, told.case.subject, said.label, said.fold, verdicts, _warnings(told))

    @property
    def page(self) -> str:
        """Where its own page lies."""
        return f"{folder_name(self.subject)}/index.html"


@dataclass(frozen=True)
class _Measure:
    """A line of the table of numbers."""

    method: str
    images: str
    features: str
    step: str
    peak: str
    inside: str
    changed: str


def explained_files(told: Explanation) -> dict[str, bytes]:
    """File name -> content, for one folder: the page `index.html`, pictures, `explanation.json`, viewers."""
    viewers = dict(_viewers(told))
    drawn = galleries(told)
    sheets = {f"{one.id}.png": png(sheet(one, _title(told), _warnings(told))) for one in drawn}
    page = _render(
        "explanation.html",
        title=_title(told),
        told=told,
        version=version("fusionbench"),
        warnings=_warnings(told),
        verdicts=[(account, verdict(account, told)) for account in told.accounts],
        galleries=drawn,
        measures=[_measure(sight, account, told) for account in told.accounts for sight in account.sights],
        viewers=[(file, heading) for file, (heading, _) in viewers.items()],
        notes=[*told.notes, *(f"{one.method}: {note}" for one in told.accounts for note in one.notes)],
        honest=HONEST,
    )
    data = json.dumps(known(_data(told)), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return {
        "index.html": page.encode(),
        "explanation.json": data.encode("utf-8", "backslashreplace"),
        **sheets,
        **{file: content.encode() for file, (_, content) in viewers.items()},
    }


def index_page(entries: Sequence[Entry], chosen: str) -> bytes:
    """A page that leads to those of several subjects, one at least, and says how they were chosen."""
    first = entries[0]
    page = _render(
        "explanations.html",
        entries=entries,
        run=first.run,
        chosen=chosen,
        warnings=first.warnings,
        version=version("fusionbench"),
    )
    return page.encode()


def folder_name(subject: str) -> str:
    """A folder for a subject, which may be called anything.

    >>> folder_name("../Phantom 003")
    'Phantom-003-882ac65d'
    """
    return f"{slug(subject)[:40]}-{_code(subject)}"


def _viewers(told: Explanation) -> Iterator[tuple[str, tuple[str, str]]]:
    """(File name, (heading, page)) for each Grad-CAM that is not 0."""
    place = place_of(told)
    for account in told.accounts:
        for number, sight in enumerate(account.sights):
            if sight.cam is None or not sight.cam.any():
                continue
            name = sight.modalities[0]
            words = f"{account.method} {seen_by(sight)}"
            heading = f"{told.case.subject}: {name}, Grad-CAM of {account.method} for {told.target}"
            view = View(told.images[name], on_image(sight.cam, told), told.grid.spacing, (place.slice, *place.middle))
            page = viewer_page(view, heading, " ".join(_warnings(told)))
            yield f"viewer-{slug(words)[:40]}-{_code(f'{words} {number}')}.html", (heading, page)


def _title(told: Explanation) -> str:
    return f"What models look at: {told.case.subject}, {told.account.said.label}"


def _warnings(told: Explanation) -> tuple[str, ...]:
    return (*([f"These data are {SYNTHETIC}."] if told.synthetic else []), f"{NOT_CLINICAL.capitalize()}.")


def _measure(sight: Sight, account: Account, told: Explanation) -> _Measure:
    found = strength(sight, account, told)
    depth, height, width = sight.high.mean.shape
    known = found and found.inside is not None
    inside = f"{found.inside:.0%} (outline: {found.room:.0%} of the head)" if found and known else ""
    return _Measure(
        account.method,
        seen_by(sight),
        f"{sight.high.channels} x {depth} x {height} x {width}",
        " x ".join(f"{mm:.0f}" for mm in step_mm(sight.high.mean, told)) + " mm",
        "" if found is None else f"{found.peak:.0%}",
        inside,
        "none" if sight.changed is None else f"{sight.changed:.1%}",
    )


def _data(told: Explanation) -> dict[str, Any]:
    place = place_of(told)
    return {
        "run": told.run,
        "synthetic": told.synthetic,
        "subject": told.case.subject,
        "label": told.account.said.label,
        "repeat": told.case.repeat,
        "fold": told.account.said.fold,
        "target": told.target,
        "classes": list(told.classes),
        "grid": {"size": list(told.grid.size), "spacing": list(told.grid.spacing)},
        "slice": place.slice,
        "slice_chosen": place.why,
        "notes": list(told.notes),
        "methods": [_account_data(account, told) for account in told.accounts],
    }


def _account_data(account: Account, told: Explanation) -> dict[str, Any]:
    return {
        "method": account.method,
        "fit": account.key,
        "training_subjects": account.training_subjects,
        "predicted": account.said.predicted,
        "right": account.said.right,
        "probabilities": dict(zip(told.classes, account.said.probabilities, strict=True)),
        "probabilities_now": dict(zip(told.classes, account.now, strict=True)),
        "notes": list(account.notes),
        "backbones": [_sight_data(sight, account, told) for sight in account.sights],
    }


def _sight_data(sight: Sight, account: Account, told: Explanation) -> dict[str, Any]:
    found = strength(sight, account, told)
    return {
        "modalities": list(sight.modalities),
        "low_channels": sight.low.channels,
        "low_size": list(sight.low.mean.shape),
        "high_channels": sight.high.channels,
        "high_size": list(sight.high.mean.shape),
        "attention_changes": sight.changed,
        "cam_peak_share": found and found.peak,
        "cam_inside_outline": found and found.inside,
        "outline_of_head": found and found.room,
        "cam": None if sight.cam is None else _rounded(sight.cam.tolist()),
        "attention": {name: _rounded(weights.tolist()) for name, weights in sight.attention.items()},
    }


def _rounded(values: Any) -> Any:
    if isinstance(values, list):
        return [_rounded(value) for value in values]
    return float(f"{values:.{DIGITS}g}")


def _code(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _render(template: str, **values: Any) -> str:
    style = _asset("fusionbench.report", "report.css") + _asset("fusionbench.explaining", "explanation.css")
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"
    page: str = (
        _environment()
        .get_template(template)
        .render(
            policy=policy,
            style=Markup(style),
            **values,
        )
    )
    return page


def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(lambda name: _asset("fusionbench.explaining", name)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: one_line(value) if type(value) is str else value,
    )
    environment.filters["embedded"] = _embedded
    environment.tests["words"] = lambda cell: isinstance(cell, str)
    return environment


def _embedded(picture: Picture) -> Markup:
    """The address of a picture that is inside the page."""
    return Markup(f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}")


def _asset(package: str, name: str) -> str:
    return (files(package) / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
