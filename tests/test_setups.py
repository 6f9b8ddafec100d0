"""Hashes of what was asked but modalities and name: equal where only these differ, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import comparison

from fusionbench import Cohort, Study, open_study
from fusionbench.ablation import ablation
from fusionbench.methods import Method
from fusionbench.setups import setup_digests


def digests(study: Study) -> dict[str, dict[str, str]]:
    return {e.label: setup_digests(Method(e, study.cohort, study.registry)) for e in study.experiments}


def asked(cohort: Cohort, changes: dict[str, Any]) -> dict[str, str]:
    return digests(open_study(comparison(baselines=[], **changes), cohort=cohort))["guidance"]


def test_rows_that_differ_in_their_modalities_have_one_setup(cohort: Cohort) -> None:
    study = open_study(ablation(comparison(baselines=[]), ("a", "b", "c"), "a"), cohort=cohort)
    found = digests(study)
    assert len(found) == 4
    assert len({tuple(one.values()) for one in found.values()}) == 1


def test_a_single_modality_shares_its_settings_with_the_fusion_of_the_same_run(study: Study) -> None:
    found = digests(study)
    assert found["a"]["shared"] == found["guidance"]["shared"]
    assert found["a"]["strategy"] != found["guidance"]["strategy"]


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"recipe": {"epochs": 5}}, {"shared"}),
        ({"seed": 1}, {"shared"}),
        ({"options": {"mlp": {"width": 9}}}, {"shared"}),
        ({"options": {"guidance": {"upsample": "nearest"}}}, {"strategy"}),
        ({"protocol": {"ranking": {"ranker": "fixed"}}}, {"strategy"}),
        ({"protocol": {"ranking": {"score": "brier"}}}, {"strategy"}),
        ({"protocol": {"fold_seed": 1}}, set()),
        ({"recipe": {"threads": 2}}, set()),
    ],
)
def test_what_moves_which(changes: dict[str, Any], moved: set[str], cohort: Cohort) -> None:
    before, after = asked(cohort, {}), asked(cohort, changes)
    assert {key for key in before if before[key] != after[key]} == moved
