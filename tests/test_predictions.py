"""Predictions survive a round trip through CSV to the last bit, whatever the subjects are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionbench import Predictions, Store

CLASSES = ("HGG", "LGG")
HOSTILE = [
    "a,b",
    'say "x"',
    "two\nlines",
    "two\r\nlines",
    "=1+1",
    "+1",
    "@cmd",
    " blank ",
    "Ünï-雪-🧠",
    "'quoted'",
    "1e3",
    "\ufeffmark",
    "",
    ";\t|",
]
anything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=12)
probability = st.floats(0, 1)


def predictions(*ids: str, seed: int = 0, classes: tuple[str, ...] = CLASSES, **notes: list[str]) -> Predictions:
    random = np.random.default_rng(seed)
    labels = tuple(classes[n % len(classes)] for n in range(len(ids)))
    remarks = tuple({column: values[n] for column, values in notes.items()} for n in range(len(ids)))
    return Predictions(ids, labels, classes, random.dirichlet(np.ones(len(classes)), len(ids)), remarks)


def assert_equal(ours: Predictions, theirs: Predictions) -> None:
    assert (ours.ids, ours.labels, ours.classes) == (theirs.ids, theirs.labels, theirs.classes)
    assert ours.probabilities.tobytes() == theirs.probabilities.tobytes()
    assert ours.probabilities.dtype == theirs.probabilities.dtype == np.float64


@given(st.lists(st.tuples(anything, st.sampled_from(CLASSES), probability, probability), min_size=1, max_size=8))
@settings(deadline=None, max_examples=80, database=None)
def test_a_round_trip_is_exact_to_the_last_bit(rows: list[tuple[str, str, float, float]]) -> None:
    ids, labels, first, second = zip(*rows, strict=True)
    before = Predictions(ids, labels, CLASSES, np.array([first, second]).T.copy())
    after = Predictions.from_csv(before.to_csv(), CLASSES)
    assert_equal(after, before)
    assert after.to_csv() == before.to_csv()


def test_tiny_and_awkward_probabilities_come_back() -> None:
    rows = np.array([[5e-324, 1.0], [0.1 + 0.2, 0.7], [1 / 3, 2 / 3], [1 - 2**-53, 2**-53]])
    before = Predictions(("a", "b", "c", "d"), ("HGG",) * 4, CLASSES, rows)
    assert_equal(Predictions.from_csv(before.to_csv(), CLASSES), before)


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_hostile_ids_labels_and_remarks_come_back(name: str) -> None:
    classes = (f"HGG{name}", "LGG")
    before = predictions(name, "other", classes=classes, roi=[name, "plain"], **{f"why{name}": ["x", name]})
    after = Predictions.from_csv(before.to_csv(), classes)
    assert_equal(after, before)
    assert after.notes == before.notes


def test_an_id_with_a_lone_carriage_return_comes_back() -> None:
    before = predictions("two\rlines", "other")
    assert_equal(Predictions.from_csv(before.to_csv(), CLASSES), before)


def test_a_file_keeps_the_bytes_of_the_text(tmp_path: Path) -> None:
    text = predictions(*HOSTILE).to_csv()
    (tmp_path / "p.csv").write_text(text, encoding="utf-8", newline="")
    assert (tmp_path / "p.csv").read_bytes().decode() == text


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_the_store_gives_back_what_it_was_given(name: str, store: Store) -> None:
    before = predictions(name, "other")
    store.save("ab12", {"w": torch.zeros(1)}, before, [], {})
    assert_equal(store.predictions("ab12", CLASSES), before)


def test_a_remark_that_some_subjects_lack_is_empty() -> None:
    before = Predictions(("a", "b"), CLASSES, CLASSES, np.eye(2), ({"roi": "fallback"}, {}))
    assert Predictions.from_csv(before.to_csv(), CLASSES).notes == ({"roi": "fallback"}, {"roi": ""})


def test_columns_are_subject_label_probabilities_and_sorted_remarks() -> None:
    text = predictions("a", "b", roi=["x", "y"], doubt=["1", "2"]).to_csv()
    assert text.splitlines()[0] == "subject,label,p_HGG,p_LGG,doubt,roi"
    assert "\r" not in text


def test_classes_are_read_by_name_and_not_by_position() -> None:
    before = predictions("a", "b")
    after = Predictions.from_csv(before.to_csv(), CLASSES[::-1])
    assert np.array_equal(after.probabilities, before.probabilities[:, ::-1])


def test_targets_are_class_numbers() -> None:
    found = Predictions(("a", "b", "c"), ("LGG", "HGG", "LGG"), CLASSES, np.full((3, 2), 0.5))
    assert found.targets.tolist() == [1, 0, 1]
    assert found.targets.dtype == np.int64


def test_no_subjects_are_a_table_without_rows() -> None:
    joined = Predictions.joined([], CLASSES)
    assert (joined.ids, joined.probabilities.shape) == ((), (0, 2))


def test_a_table_without_rows_comes_back() -> None:
    empty = Predictions((), (), CLASSES, np.zeros((0, 2)))
    assert Predictions.from_csv(empty.to_csv(), CLASSES).probabilities.shape == (0, 2)


# Joining


@given(st.permutations(range(9)), st.lists(st.integers(0, 2), min_size=9, max_size=9))
@settings(deadline=None, max_examples=50, database=None)
def test_joined_predictions_are_sorted_by_id_and_keep_each_row_with_its_subject(
    order: list[int], part_of: list[int]
) -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(2), 9)
    parts = []
    for number in range(3):
        some = [n for n in order if part_of[n] == number]
        labels = tuple(CLASSES[n % 2] for n in some)
        parts.append(Predictions(tuple(f"s{n}" for n in some), labels, CLASSES, rows[some].reshape(-1, 2)))
    joined = Predictions.joined(parts, CLASSES)
    assert joined.ids == tuple(f"s{n}" for n in range(9))
    assert joined.labels == tuple(CLASSES[n % 2] for n in range(9))
    assert np.array_equal(joined.probabilities, rows)


def test_the_order_of_the_parts_does_not_matter() -> None:
    one, two = predictions("a", "d", seed=1), predictions("c", "b", seed=2)
    assert_equal(Predictions.joined([one, two], CLASSES), Predictions.joined([two, one], CLASSES))


def test_parts_are_not_changed_by_joining() -> None:
    one = predictions("b", "a")
    before = one.probabilities.copy()
    Predictions.joined(iter([one, predictions("c")]), CLASSES)
    assert one.ids == ("b", "a")
    assert np.array_equal(one.probabilities, before)


def test_joined_predictions_keep_the_remarks() -> None:
    joined = Predictions.joined([predictions("b", roi=["x"]), predictions("a", roi=["y"])], CLASSES)
    assert joined.notes == ({"roi": "y"}, {"roi": "x"})
