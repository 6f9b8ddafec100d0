"""A cohort is checked whole, and its fingerprint is that of its content and of nothing else."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionbench import Cohort, CohortError, Modality, Subject
from fusionbench.cohorts import class_weights, file_digest
from fusionbench.errors import UsageError

CLASSES = ("HGG", "LGG")


def subject(number: int, **changes: Any) -> Subject:
    features = {"rna": (float(number), 0.5), "clinical": (float(-number),)}
    return replace(Subject(f"s{number}", CLASSES[number % 2], features=features, group=f"p{number}"), **changes)


def cohort_of(subjects: Sequence[Subject], **changes: Any) -> Cohort:
    modalities = (Modality("rna", "table", 2), Modality("clinical", "table", 1))
    return replace(Cohort("toys", CLASSES, "LGG", modalities, tuple(subjects)), **changes)


def toys(number: int = 6) -> Cohort:
    return cohort_of([subject(n) for n in range(number)])


def with_first(**changes: Any) -> Cohort:
    return cohort_of([subject(0, **changes), *(subject(n) for n in range(1, 6))])


# Faults


def test_every_fault_is_named_at_once_in_one_line() -> None:
    bad = [subject(0), subject(0), subject(1, label="LLG"), subject(2), subject(3, features={})]
    with pytest.raises(CohortError) as caught:
        cohort_of(bad)
    text = str(caught.value)
    assert text.startswith("toys: ")
    for fault in (
        "'s0' appears 2 times",
        "'s1' has the label 'LLG': did you mean 'LGG'?",
        "'s3' has none of rna, clinical",
    ):
        assert fault in text
    assert "\n" not in text


def test_of_many_faults_the_first_are_named_and_the_rest_counted() -> None:
    with pytest.raises(CohortError, match=r"; and 12 more; `fusionbench data check` lists them all$"):
        cohort_of([subject(n, features={}) for n in range(20)])


def test_an_unknown_positive_class_is_refused_with_the_nearest() -> None:
    with pytest.raises(CohortError, match=r"positive class 'lgg': did you mean 'LGG'\?"):
        replace(toys(), positive_class="lgg")


@pytest.mark.parametrize("number", [0, 1])
def test_fewer_than_two_classes_are_refused(number: int) -> None:
    with pytest.raises(CohortError, match="nobody is of class LGG"):
        toys(number)


def test_a_subject_with_too_few_features_is_named() -> None:
    with pytest.raises(CohortError, match="s0"):
        with_first(features={"rna": (1.0,), "clinical": (1.0,)})


def test_a_class_without_subjects_is_named() -> None:
    with pytest.raises(CohortError, match="healthy"):
        replace(toys(), classes=("HGG", "LGG", "healthy"))


# The fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "other"},
        {"label": "LGG"},
        {"group": "p1"},
        {"features": {"rna": (0.0, 0.5000000000000001), "clinical": (0.0,)}},
        {"features": {"rna": (0.5, 0.0), "clinical": (0.0,)}},
    ],
    ids=["id", "label", "group", "last bit of a feature", "order of the features"],
)
def test_the_fingerprint_changes_with(changes: dict[str, Any]) -> None:
    assert with_first(**changes).fingerprint != toys().fingerprint


@given(st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=20, database=None)
def test_the_fingerprint_does_not_change_with_the_order_of_the_subjects(shuffler: random.Random) -> None:
    subjects = list(toys().subjects)
    shuffler.shuffle(subjects)
    assert cohort_of(subjects).fingerprint == toys().fingerprint


def test_the_fingerprint_does_not_change_with_name_notes_or_site() -> None:
    assert replace(toys(), name="other", notes=("read on a Monday",)).fingerprint == toys().fingerprint
    assert with_first(site="elsewhere").fingerprint == toys().fingerprint


def test_the_fingerprint_changes_when_a_subject_is_gone() -> None:
    assert toys(5).fingerprint != toys(6).fingerprint


def test_swapping_the_data_of_two_modalities_changes_the_fingerprint() -> None:
    one = replace(toys(), modalities=(Modality("a", "table"), Modality("b", "table")), subjects=_pair(1.0, 2.0))
    two = replace(one, subjects=_pair(2.0, 1.0))
    assert one.fingerprint != two.fingerprint


def _pair(a: float, b: float) -> tuple[Subject, ...]:
    return tuple(Subject(f"s{n}", CLASSES[n], features={"a": (a,), "b": (b,)}) for n in range(2))


def test_the_fingerprint_changes_with_the_names_of_the_modalities() -> None:
    one = replace(toys(), modalities=(Modality("a", "table"), Modality("b", "table")), subjects=_pair(1.0, 2.0))
    names = {"a": "rna", "b": "clinical"}
    renamed = [replace(s, features={names[name]: row for name, row in s.features.items()}) for s in one.subjects]
    modalities = tuple(Modality(name, "table") for name in names.values())
    assert replace(one, modalities=modalities, subjects=tuple(renamed)).fingerprint != one.fingerprint


def imaged(folder: Path, content: bytes = b"image", seg: bytes = b"seg") -> Cohort:
    folder.mkdir(parents=True)
    subjects = []
    for n in range(2):
        (folder / f"{n}_t1.nii.gz").write_bytes(content + bytes([n]))
        (folder / f"{n}_seg.nii.gz").write_bytes(seg)
        files = {"t1": folder / f"{n}_t1.nii.gz"}
        subjects.append(Subject(f"s{n}", CLASSES[n], files=files, seg=folder / f"{n}_seg.nii.gz"))
    return Cohort("images", CLASSES, "LGG", (Modality("t1"),), tuple(subjects))


def test_the_fingerprint_changes_with_the_content_of_an_image_and_not_with_its_path(tmp_path: Path) -> None:
    here = imaged(tmp_path / "here")
    assert imaged(tmp_path / "there" / "far").fingerprint == here.fingerprint
    assert imaged(tmp_path / "else", content=b"another").fingerprint != here.fingerprint


def test_the_fingerprint_changes_with_the_tumour_labels(tmp_path: Path) -> None:
    assert imaged(tmp_path / "a").fingerprint != imaged(tmp_path / "b", seg=b"other").fingerprint


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    cohort = imaged(tmp_path / "here")
    shutil.rmtree(tmp_path / "here")
    with pytest.raises(CohortError, match=r"^cannot read 0_\w+\.nii\.gz: No such file"):
        _ = cohort.fingerprint


def test_the_digest_of_a_file_is_its_sha_256(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert file_digest(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


# Looking things up


def test_counts_are_in_the_order_of_the_classes() -> None:
    assert list(toys(5).counts().items()) == [("HGG", 3), ("LGG", 2)]


def test_modalities_and_subjects_are_found_by_name() -> None:
    assert toys().modality("rna") == Modality("rna", "table", 2)
    assert toys().subject("s3") == subject(3)
    with pytest.raises(UsageError, match=r"toys has no modality 'rnaa': did you mean 'rna'\? There are clinical, rna"):
        toys().modality("rnaa")


def test_a_subject_knows_what_it_has() -> None:
    one = Subject("s", "LGG", files={"t1": Path("t1.nii")}, features={"rna": (1.0,)})
    assert [one.has(name) for name in ("t1", "rna", "t2")] == [True, True, False]
    assert one.seg_digest == ""


def test_class_weights_are_computed_from_what_they_are_given_and_add_up() -> None:
    assert sum(class_weights(["HGG", "LGG", "HGG"], CLASSES, "paper")) == pytest.approx(1)
    assert class_weights(["HGG", "LGG"], CLASSES, "paper") != class_weights(["HGG", "HGG", "LGG"], CLASSES, "paper")
