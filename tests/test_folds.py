"""Folds are disjoint, exhaustive, stratified, one patient in one fold, and the same for everybody who asks."""

from __future__ import annotations

import csv
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionbench import Cohort, CohortError, Fold, Modality, Split, Subject
from fusionbench.folds import draw_folds, draw_splits, folds_digest, folds_rows, read_folds, site_folds

relaxed = settings(deadline=None, max_examples=40, database=None)


def subjects_of(labels: Iterable[str], groups: Sequence[str] = ()) -> tuple[Subject, ...]:
    return tuple(
        Subject(f"s{n:03d}", label, features={"rna": (0.0,)}, group=groups[n] if groups else "")
        for n, label in enumerate(labels)
    )


def cohort_of(subjects: Sequence[Subject]) -> Cohort:
    classes = tuple(sorted({subject.label for subject in subjects}))
    return Cohort("toys", classes, classes[-1], (Modality("rna", "table"),), tuple(subjects))


def gliomas(lgg: int, hgg: int) -> Cohort:
    return cohort_of(subjects_of(["LGG"] * lgg + ["HGG"] * hgg))


def class_counts(splits: Sequence[Split], subjects: Sequence[Subject]) -> list[Counter[str]]:
    label = {subject.id: subject.label for subject in subjects}
    return [Counter(label[id] for id in split.test) for split in splits]


def assert_partition(splits: Sequence[Split], subjects: Sequence[Subject]) -> None:
    everyone = {subject.id for subject in subjects}
    assert Counter(id for split in splits for id in split.test) == Counter(everyone)
    for split in splits:
        assert not set(split.training) & set(split.test)
        assert set(split.training) | set(split.test) == everyone
        assert split.training == tuple(sorted(split.training))
        assert split.test == tuple(sorted(split.test))
        assert split.test


@st.composite
def labelled(draw: st.DrawFn) -> tuple[list[str], int]:
    """Labels of two or three classes, each with enough subjects for that many folds."""
    folds = draw(st.integers(2, 6))
    sizes = draw(st.lists(st.integers(folds, 40), min_size=2, max_size=3))
    labels = [name for name, size in zip(("HGG", "LGG", "none"), sizes, strict=False) for _ in range(size)]
    return draw(st.permutations(labels)), folds


@st.composite
def patients(draw: st.DrawFn) -> tuple[tuple[Subject, ...], int]:
    """Patients with one to four sessions of the same label, enough of either label for that many folds."""
    folds = draw(st.integers(2, 5))
    sessions = draw(st.lists(st.integers(1, 4), min_size=2 * folds, max_size=6 * folds))
    of_patient = [("HGG", "LGG")[patient % 2] for patient in range(len(sessions))]
    labels = [of_patient[patient] for patient, several in enumerate(sessions) for _ in range(several)]
    groups = [f"patient-{patient}" for patient, several in enumerate(sessions) for _ in range(several)]
    return subjects_of(labels, groups), folds


# Drawn folds


@given(labelled(), st.integers(0, 2**40))
@relaxed
def test_folds_are_disjoint_exhaustive_and_class_counts_differ_by_at_most_one(
    case: tuple[list[str], int], seed: int
) -> None:
    labels, folds = case
    subjects = subjects_of(labels)
    splits = draw_splits(subjects, folds, seed)
    assert len(splits) == folds
    assert_partition(splits, subjects)
    counts = class_counts(splits, subjects)
    for label in set(labels):
        assert max(c[label] for c in counts) - min(c[label] for c in counts) <= 1


@given(patients(), st.integers(0, 2**40))
@relaxed
def test_sessions_of_a_patient_stay_together_and_no_fold_lacks_a_class(
    case: tuple[tuple[Subject, ...], int], seed: int
) -> None:
    subjects, folds = case
    splits = draw_splits(subjects, folds, seed)
    assert len(splits) == folds
    assert_partition(splits, subjects)
    fold_of = {id: number for number, split in enumerate(splits) for id in split.test}
    for group in {subject.group for subject in subjects}:
        assert len({fold_of[subject.id] for subject in subjects if subject.group == group}) == 1
    assert all(len(counts) == 2 for counts in class_counts(splits, subjects))


@given(patients(), st.randoms(use_true_random=False))
@relaxed
def test_the_order_of_the_subjects_does_not_matter(
    case: tuple[tuple[Subject, ...], int], shuffler: random.Random
) -> None:
    subjects, folds = case
    shuffled = list(subjects)
    shuffler.shuffle(shuffled)
    assert draw_splits(shuffled, folds, 0) == draw_splits(subjects, folds, 0)


@pytest.mark.parametrize(
    ("sizes", "lgg", "hgg"),
    [((75, 210), [25, 25, 25], [70, 70, 70]), ((76, 259), [25, 25, 26], [86, 86, 87])],
    ids=["BraTS2018", "BraTS2019"],
)
@pytest.mark.parametrize("seed", range(4))
def test_three_folds_of_the_papers_cohorts_have_the_papers_counts(
    sizes: tuple[int, int], lgg: list[int], hgg: list[int], seed: int
) -> None:
    cohort = gliomas(*sizes)
    counts = class_counts([fold.split for fold in draw_folds(cohort, 3, seed=seed)], cohort.subjects)
    assert sorted(c["LGG"] for c in counts) == lgg
    assert sorted(c["HGG"] for c in counts) == hgg


def test_the_same_seed_gives_the_same_folds_and_another_gives_others() -> None:
    cohort = gliomas(20, 40)
    assert draw_folds(cohort, 3, seed=1) == draw_folds(cohort, 3, seed=1)
    digests = {folds_digest(draw_folds(cohort, 3, seed=seed)) for seed in range(10)}
    assert len(digests) == 10


def test_repeats_differ_and_each_is_a_partition() -> None:
    cohort = gliomas(20, 40)
    folds = draw_folds(cohort, 3, repeats=4)
    assert [(fold.repeat, fold.number) for fold in folds] == [(r, n) for r in range(4) for n in range(3)]
    repeats = [[fold.split for fold in folds if fold.repeat == repeat] for repeat in range(4)]
    for splits in repeats:
        assert_partition(splits, cohort.subjects)
    assert len({tuple(splits) for splits in repeats}) == 4


def test_more_repeats_leave_the_first_as_they_were() -> None:
    cohort = gliomas(20, 40)
    assert draw_folds(cohort, 3, repeats=4)[:3] == draw_folds(cohort, 3)


def test_folds_do_not_depend_on_anything_but_ids_labels_and_groups() -> None:
    cohort = gliomas(20, 40)
    others = [replace(subject, features={"rna": (9.0,)}, site="elsewhere") for subject in cohort.subjects]
    assert draw_folds(cohort_of(others), 3) == draw_folds(cohort, 3)


def test_ids_stay_plain_strings() -> None:
    (fold, *_) = draw_folds(gliomas(4, 5), 2)
    assert {type(id) for id in (*fold.split.training, *fold.split.test)} == {str}


def test_a_class_smaller_than_the_number_of_folds_is_refused_in_one_line() -> None:
    with pytest.raises(CohortError, match=r"^class LGG has 4 patients, too few for 5 folds: use fewer folds$"):
        draw_folds(gliomas(4, 40), 5)


def test_patients_are_counted_and_not_their_sessions() -> None:
    subjects = subjects_of(["LGG"] * 6 + ["HGG"] * 6, ["one"] * 3 + ["two"] * 3 + [f"p{n}" for n in range(6)])
    with pytest.raises(CohortError, match="class LGG has 2 patients"):
        draw_splits(subjects, 3, 0)


# The digest and the table


@given(labelled(), st.integers(0, 1000))
@relaxed
def test_the_digest_changes_when_one_subject_is_tested_elsewhere(case: tuple[list[str], int], seed: int) -> None:
    labels, number = case
    first, second, *others = draw_folds(cohort_of(subjects_of(labels)), number, seed=seed)
    gone = first.split.test[0]
    fewer = replace(first, split=Split(first.split.training, first.split.test[1:]))
    more = replace(second, split=Split(second.split.training, tuple(sorted((*second.split.test, gone)))))
    assert folds_digest([fewer, more, *others]) != folds_digest([first, second, *others])


def test_the_digest_stays_when_the_assignment_does() -> None:
    cohort = gliomas(20, 40)
    folds = draw_folds(cohort, 3)
    assert folds_digest(list(folds)) == folds_digest(folds)
    shuffled = replace(cohort, subjects=cohort.subjects[::-1], name="other")
    assert folds_digest(draw_folds(shuffled, 3)) == folds_digest(folds)


def test_the_digest_tells_repeats_and_numbers_apart() -> None:
    split = Split(("b",), ("a",))
    digests = {folds_digest([Fold(repeat, number, split)]) for repeat in range(3) for number in range(3)}
    assert len(digests) == 9


def test_the_table_has_one_row_per_test_subject() -> None:
    folds = draw_folds(gliomas(6, 9), 3, repeats=2)
    rows = folds_rows(folds)
    assert len(rows) == len(set(rows)) == 30
    assert {(fold.repeat, fold.number, id) for fold in folds for id in fold.split.test} == set(rows)


# An official split


def written(path: Path, *rows: Sequence[object], header: Sequence[str] = ("subject", "fold")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def cohort() -> Cohort:
    return cohort_of(subjects_of(["LGG", "HGG"] * 3, ["p0", "p1", "p2", "p3", "p4", "p5"]))


FAIR = (("s000", 1), ("s001", 1), ("s002", 2), ("s003", 2), ("s004", 3), ("s005", 3))


def test_an_official_split_comes_back_as_it_was_written(tmp_path: Path) -> None:
    cohort = gliomas(20, 40)
    folds = draw_folds(cohort, 3, repeats=2)
    path = written(tmp_path / "folds.csv", *folds_rows(folds), header=("repeat", "fold", "subject"))
    again = read_folds(path, cohort)
    assert again == folds
    assert folds_digest(again) == folds_digest(folds)


def test_hostile_ids_come_back_as_they_were_written(tmp_path: Path) -> None:
    names = ["a,b", 'c"d', "e\nf", "=1+1", "Ünï 雪", " blank "]
    cohort = cohort_of([Subject(id, ("LGG", "HGG")[n % 2], features={"rna": (0.0,)}) for n, id in enumerate(names)])
    folds = draw_folds(cohort, 2)
    path = written(tmp_path / "folds.csv", *folds_rows(folds), header=("repeat", "fold", "subject"))
    assert read_folds(path, cohort) == folds


def test_an_official_split_needs_no_repeat_and_may_have_other_columns(tmp_path: Path, cohort: Cohort) -> None:
    rows = [(fold, "x", subject) for subject, fold in FAIR]
    folds = read_folds(written(tmp_path / "f.csv", *rows, header=("fold", "note", "subject")), cohort)
    assert [(fold.repeat, fold.number) for fold in folds] == [(0, 1), (0, 2), (0, 3)]
    assert_partition([fold.split for fold in folds], cohort.subjects)


def test_an_official_split_from_a_spreadsheet_may_start_with_a_byte_order_mark(tmp_path: Path, cohort: Cohort) -> None:
    path = written(tmp_path / "f.csv", *FAIR)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_folds(path, cohort)) == 3


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ((*FAIR, ("stranger", 1)), "'stranger' is not in the cohort"),
        (FAIR[:-1], "'s005' is in no fold"),
        ((*FAIR, ("s000", 2)), "'s000' is in two folds"),
        ((*FAIR, ("s000", 1)), "'s000' is in two folds"),
    ],
    ids=["unknown", "missing", "doubled", "listed twice"],
)
def test_a_fault_of_an_official_split_is_named(
    rows: tuple[tuple[str, int], ...], fault: str, tmp_path: Path, cohort: Cohort
) -> None:
    with pytest.raises(CohortError, match=rf"^f.csv: .*{fault}") as caught:
        read_folds(written(tmp_path / "f.csv", *rows), cohort)
    assert "\n" not in str(caught.value)


def test_every_fault_of_an_official_split_is_named_at_once(tmp_path: Path, cohort: Cohort) -> None:
    rows = (*FAIR[:-1], ("s000", 2), ("stranger", 3))
    with pytest.raises(CohortError) as caught:
        read_folds(written(tmp_path / "f.csv", *rows), cohort)
    for fault in ("'s005' is in no fold", "'stranger' is not in the cohort", "'s000' is in two folds"):
        assert fault in str(caught.value)


def test_a_patient_in_two_folds_is_refused(tmp_path: Path) -> None:
    cohort = cohort_of(subjects_of(["LGG", "LGG", "HGG", "HGG"], ["p0", "p0", "p1", "p2"]))
    rows = (("s000", 1), ("s001", 2), ("s002", 1), ("s003", 2))
    with pytest.raises(CohortError, match="patient 'p0' is in folds 1, 2"):
        read_folds(written(tmp_path / "f.csv", *rows), cohort)


def test_a_fault_of_a_later_repeat_is_found_and_not_mixed_with_the_first(tmp_path: Path, cohort: Cohort) -> None:
    rows = [(0, fold, subject) for subject, fold in FAIR] + [(1, fold, subject) for subject, fold in FAIR[:-1]]
    with pytest.raises(CohortError, match=r"^f.csv: 's005' is in no fold$"):
        read_folds(written(tmp_path / "f.csv", *rows, header=("repeat", "fold", "subject")), cohort)


def test_a_missing_file_is_refused_in_one_line(tmp_path: Path, cohort: Cohort) -> None:
    with pytest.raises(CohortError, match=r"no file of folds at .*none\.csv: give a number of folds or a CSV"):
        read_folds(tmp_path / "none.csv", cohort)


@pytest.mark.parametrize("header", [("subject",), ("id", "fold"), ("fold",)], ids="-".join)
def test_a_missing_column_is_refused_in_one_line(header: tuple[str, ...], tmp_path: Path, cohort: Cohort) -> None:
    path = written(tmp_path / "f.csv", *[["0"] * len(header)], header=header)
    with pytest.raises(CohortError, match=r"^f.csv needs the columns subject and fold"):
        read_folds(path, cohort)


def test_an_empty_file_is_refused_in_one_line(tmp_path: Path, cohort: Cohort) -> None:
    (tmp_path / "f.csv").touch()
    with pytest.raises(CohortError, match=r"^f.csv needs the columns"):
        read_folds(tmp_path / "f.csv", cohort)


@pytest.mark.parametrize(
    "text",
    ["subject,fold\ns000,first\n", "subject,fold\ns000\n", "subject,fold,repeat\ns000,1,x\n", "sübject,fold\ns000,1\n"],
    ids=["fold is a word", "row is short", "repeat is a word", "not UTF-8"],
)
def test_a_cell_that_cannot_be_read_is_refused_in_one_line(text: str, tmp_path: Path, cohort: Cohort) -> None:
    (tmp_path / "f.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(CohortError, match=r"^f.csv"):
        read_folds(tmp_path / "f.csv", cohort)


def test_a_single_fold_is_refused(tmp_path: Path, cohort: Cohort) -> None:
    with pytest.raises(CohortError):
        read_folds(written(tmp_path / "f.csv", *((subject, 0) for subject, _ in FAIR)), cohort)


def test_an_official_split_that_trains_without_a_class_is_refused(tmp_path: Path, cohort: Cohort) -> None:
    rows = ((subject.id, int(subject.label == "LGG")) for subject in cohort.subjects)
    with pytest.raises(CohortError, match="without fold 0 there is no HGG left to train on"):
        read_folds(written(tmp_path / "f.csv", *rows), cohort)


# Those who are only trained on


def test_a_single_test_part_comes_back_with_those_who_are_only_trained_on(tmp_path: Path, cohort: Cohort) -> None:
    rows = (("s000", 1), ("s001", 1), ("s002", "train"), ("s003", ""), ("s004", "train"), ("s005", ""))
    (fold,) = read_folds(written(tmp_path / "f.csv", *rows), cohort)
    assert (fold.number, fold.split.test) == (1, ("s000", "s001"))
    assert fold.split.training == ("s002", "s003", "s004", "s005")
    again = written(tmp_path / "folds.csv", *folds_rows([fold]), header=("repeat", "fold", "subject"))
    assert read_folds(again, cohort) == (fold,)


def test_those_who_are_only_trained_on_are_so_in_every_fold(tmp_path: Path, cohort: Cohort) -> None:
    folds = read_folds(written(tmp_path / "f.csv", *FAIR[:4], ("s004", "train"), ("s005", "")), cohort)
    assert all({"s004", "s005"} <= set(fold.split.training) for fold in folds)
    assert sorted(id for fold in folds for id in fold.split.test) == ["s000", "s001", "s002", "s003"]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (FAIR[:5], "'s005' is in no fold"),
        ((*FAIR, ("s000", "train")), "'s000' is in two folds"),
        ([(id, "train") for id, _ in FAIR], "nobody is tested in repeat 0"),
        ((*FAIR[:5], ("s005", "val")), "fold 'val' of repeat '0' is no whole number: those who are only trained on"),
    ],
)
def test_who_is_not_listed_or_listed_twice_is_refused(
    rows: Sequence[tuple[str, object]], says: str, tmp_path: Path, cohort: Cohort
) -> None:
    with pytest.raises(CohortError, match=says):
        read_folds(written(tmp_path / "f.csv", *rows), cohort)


def test_a_patient_who_is_tested_and_trained_on_is_refused(tmp_path: Path) -> None:
    cohort = cohort_of(subjects_of(["LGG", "LGG", "HGG", "HGG", "LGG"], ["p0", "p0", "p1", "p2", "p3"]))
    rows = (("s000", 1), ("s001", "train"), ("s002", 1), ("s003", "train"), ("s004", "train"))
    with pytest.raises(CohortError, match="patient 'p0' is in folds 1, train"):
        read_folds(written(tmp_path / "f.csv", *rows), cohort)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"subject,fold\n{'x' * 140_000},1\n", "cannot be read as CSV, line 2: field larger"),
        ("subject,fold,fold\ns000,1,2\n", "has two columns 'fold'"),
        ("subject,fold\ns000,1\ns001,1,2\n", "has 3 cells on line 3 and 2 columns"),
    ],
)
def test_a_table_that_is_none_is_refused_in_one_line(text: str, says: str, tmp_path: Path, cohort: Cohort) -> None:
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(CohortError, match=f"^f.csv {says}"):
        read_folds(tmp_path / "f.csv", cohort)


# By site


def sited(sites: Sequence[str], groups: Sequence[str] = ()) -> Cohort:
    subjects = subjects_of(["HGG", "LGG"] * (len(sites) // 2), groups)
    return cohort_of([replace(subject, site=site) for subject, site in zip(subjects, sites, strict=True)])


def test_a_fold_per_site_is_tested_where_nothing_was_trained() -> None:
    cohort = sited(["north", "north", "west", "west", "east", "east"])
    folds = site_folds(cohort)
    assert [{cohort.subject(id).site for id in fold.split.test} for fold in folds] == [{"east"}, {"north"}, {"west"}]
    assert_partition([fold.split for fold in folds], cohort.subjects)


@pytest.mark.parametrize(
    ("sites", "groups", "says"),
    [
        (["north", "", "west", "west"], (), "1 subjects have no site, such as 's001'"),
        (["north"] * 4, (), "all subjects are of one site, 'north'"),
        (["north", "north", "west", "west"], ["p", "q", "p", "r"], "patient 'p' is in folds 0, 1"),
        (["north", "west", "north", "west"], (), "without fold 0 there is no HGG left to train on"),
    ],
)
def test_sites_that_cannot_be_folds_are_refused(sites: list[str], groups: Sequence[str], says: str) -> None:
    with pytest.raises(CohortError, match=says):
        site_folds(sited(sites, groups))
