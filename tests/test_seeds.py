"""A seed is what it was derived from: the same everywhere, and unlike that of anything else."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionbench.seeds import content_digest, derive_seed

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
json_like = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
relaxed = settings(deadline=None, max_examples=60, database=None)


@given(st.lists(json_like, max_size=4))
@relaxed
def test_the_same_content_gives_the_same_63_bit_seed(content: list[object]) -> None:
    assert derive_seed(*content) == derive_seed(*content)
    assert 0 <= derive_seed(*content) < 2**63


@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.text(), min_size=1, max_size=4))
@relaxed
def test_other_content_gives_another_seed_however_it_is_cut(one: list[str], two: list[str]) -> None:
    assert (derive_seed(*one) == derive_seed(*two)) == (one == two)


def test_parts_are_not_run_together() -> None:
    seeds = {derive_seed("ab", "c"), derive_seed("a", "bc"), derive_seed("abc"), derive_seed(["ab", "c"])}
    assert len(seeds) == 4


def test_neighbouring_epochs_have_unrelated_seeds() -> None:
    seeds = [derive_seed(0, "subject", "epoch", epoch) for epoch in range(200)]
    assert len(set(seeds)) == 200
    ones = [bin(first ^ second).count("1") for first, second in pairwise(seeds)]
    assert 28 < sum(ones) / len(ones) < 35  # half of 63 bits differ


def test_numbers_text_and_truth_are_told_apart() -> None:
    assert len({derive_seed(value) for value in (1, "1", True, 1.0, None, [1])}) == 6


@given(st.dictionaries(st.text(), scalars, max_size=5))
@relaxed
def test_the_order_of_keys_does_not_matter(content: dict[str, object]) -> None:
    assert content_digest(dict(reversed(content.items()))) == content_digest(content)


def test_tuples_and_lists_are_the_same_content() -> None:
    assert content_digest(("a", ("b",))) == content_digest(["a", ["b"]])


def test_a_digest_is_the_sha_256_of_canonical_json() -> None:
    # printf '{"a":[1,2.5,"\\u00fc"],"b":null}' | sha256sum
    expected = "e5a582106364885fcb4b1fd5b6850f60904ecfeee47eb6da2b4a488530333866"
    assert content_digest({"b": None, "a": [1, 2.5, "ü"]}) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}], ids=["nan", "inf", "object", "set"])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        content_digest([value])


def test_seeds_are_the_same_in_another_process_with_another_hash_seed() -> None:
    code = "from fusionbench.seeds import derive_seed; print(derive_seed(0, 'ü', {'b': 1, 'a': [2.5, None]}))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {str(derive_seed(0, "ü", {"b": 1, "a": [2.5, None]}))}
