"""The contract of each kind of component: its promises, and whether a component keeps them.

A promise is a plain function `check_NAME(component_class, **options)` that raises AssertionError with a sentence on
what is wrong and how to mend it. One that cannot hold for a class is declared on it, with the reason:
`exempt = {"batch-of-one": "contrasts two subjects"}`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from fusionbench.errors import describe
from fusionbench.numerics import seeded, threads
from fusionbench.registry import Component
from fusionbench.testing import (
    class_checks,
    extractor_checks,
    fusion_checks,
    module_checks,
    reader_checks,
    stage_checks,
)
from fusionbench.testing.requirements import require

Check = Callable[..., None]

_ALL: Final[tuple[Check, ...]] = (class_checks.check_documented, class_checks.check_options_valid)
_MODULES: Final[tuple[Check, ...]] = (
    module_checks.check_each_option,
    module_checks.check_finite,
    module_checks.check_every_parameter_trains,
    module_checks.check_differentiable,
    module_checks.check_samples_independent,
    module_checks.check_inputs_untouched,
    module_checks.check_eval_changes_nothing,
    module_checks.check_batch_of_one,
    module_checks.check_state_round_trip,
    module_checks.check_same_seed,
    module_checks.check_pickles,
    module_checks.check_autocast,
)
CHECKS: Final[Mapping[str, tuple[Check, ...]]] = {
    "backbone": (
        *_ALL,
        class_checks.check_kinds_known,
        module_checks.check_specs_true,
        module_checks.check_low_then_high,
        module_checks.check_statistics_fitted,
        *_MODULES,
    ),
    "attention": (
        *_ALL,
        module_checks.check_shape_kept,
        module_checks.check_identity_told,
        module_checks.check_maps,
        *_MODULES,
    ),
    "fusion": (
        *_ALL,
        class_checks.check_kinds_known,
        fusion_checks.check_shape,
        fusion_checks.check_mixed_kinds,
        fusion_checks.check_parts_told,
        fusion_checks.check_each_option,
        fusion_checks.check_finite,
        fusion_checks.check_found_by_name,
        fusion_checks.check_every_modality_matters,
        fusion_checks.check_missing_ignored,
        fusion_checks.check_samples_independent,
        fusion_checks.check_inputs_untouched,
        stage_checks.check_stages_declared,
        stage_checks.check_every_parameter_trains,
        stage_checks.check_stages_learn,
        stage_checks.check_frozen_stays,
        stage_checks.check_class_weight_counts,
        stage_checks.check_batch_of_one,
        stage_checks.check_row_order_ignored,
        stage_checks.check_parents_planned,
        stage_checks.check_parents_matter,
        stage_checks.check_begin_leaves_parents,
        stage_checks.check_own_tensors,
        stage_checks.check_out_of_fold_used,
        fusion_checks.check_state_round_trip,
        fusion_checks.check_same_seed,
        fusion_checks.check_pickles,
        fusion_checks.check_autocast,
        fusion_checks.check_notes,
    ),
    "cohort": (
        *_ALL,
        reader_checks.check_each_option,
        reader_checks.check_config_shipped,
        reader_checks.check_absent_data_told,
    ),
    "ranker": (
        *_ALL,
        reader_checks.check_fusion_installed,
        reader_checks.check_order_complete,
        reader_checks.check_test_unseen,
    ),
    "extractor": (
        *_ALL,
        extractor_checks.check_names,
        extractor_checks.check_row,
        extractor_checks.check_each_option,
        extractor_checks.check_finite,
        extractor_checks.check_degenerate_finite,
        extractor_checks.check_broken_image_told,
        extractor_checks.check_arguments_only,
        extractor_checks.check_random_state_kept,
        extractor_checks.check_inputs_untouched,
        extractor_checks.check_pickles,
    ),
}
"""Kind of component -> what each of that kind promises."""


@dataclass(frozen=True)
class Verdict:
    """Whether a component keeps a promise, or why it need not."""

    promise: str
    held: bool
    exempt: bool = False
    detail: str = ""


@dataclass(frozen=True)
class Promise:
    """One promise of one component."""

    name: str
    text: str
    test: Callable[[], None]
    exemption: str = ""
    """Why the class need not keep it; empty: it must."""

    def verdict(self) -> Verdict:
        """Try it. An exemption from a promise that is kept after all is a fault too: it would hide the next one."""
        try:
            with seeded(0), threads(1):
                self.test()
        except AssertionError as error:
            fault = str(error)
        except Exception as error:  # a stranger's code may raise anything
            fault = describe(error)
        else:
            fault = ""
        if not self.exemption:
            return Verdict(self.name, not fault, detail=fault)
        if not fault:
            return Verdict(self.name, False, detail="holds after all: take it out of `exempt`")
        return Verdict(self.name, True, True, self.exemption)


def promises(component: Component, **options: Any) -> tuple[Promise, ...]:
    """What a component promises, to be tried with these options; UsageError for an option that it does not have."""
    if component.member:
        options = {component.family: component.member} | options
    if options:
        component.resolve(options)
    named = {promise_name(check): check for check in CHECKS[component.kind]}
    exempt: Mapping[str, str] = component.cls.exempt  # type: ignore[attr-defined]  # readers and rankers have none
    first = Promise("exemptions", "Exemptions are known, with a reason.", partial(_check_exemptions, exempt, named))
    return (
        first,
        *(
            Promise(name, inspect.getdoc(check) or "", partial(check, component.cls, **options), exempt.get(name, ""))
            for name, check in named.items()
        ),
    )


def check_component(component: Component, **options: Any) -> Iterator[Verdict]:
    """Try every promise of a component's kind, one after the other."""
    return (promise.verdict() for promise in promises(component, **options))


def promise_name(check: Check) -> str:
    """The name of a promise, as `exempt` and the tests have it.

    >>> promise_name(stage_checks.check_frozen_stays)
    'frozen-stays'
    """
    return check.__name__.removeprefix("check_").replace("_", "-")


def _check_exemptions(exempt: Mapping[str, str], known: Mapping[str, Check]) -> None:
    strange = sorted(set(exempt) - set(known))
    require(not strange, f"`exempt` names {', '.join(strange)}; the promises are {', '.join(known)}")
    bare = sorted(name for name, reason in exempt.items() if not reason.strip())
    require(not bare, f"`exempt` gives no reason for {', '.join(bare)}")
