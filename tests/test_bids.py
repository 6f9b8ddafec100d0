"""BIDS becomes a cohort: sequences by the names of files, sessions of a participant together, nothing guessed alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fusionbench import CohortError, Subject
from fusionbench.experiment import parse_setting
from fusionbench.options import resolve_options
from fusionbench_plugins.cohorts.bids import Bids, Name


def write(root: Path, *files: str, participants: str = "") -> Path:
    """A data set of empty files; the reader looks at names only."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    if participants:
        (root / "participants.tsv").write_text(participants, encoding="utf-8")
    return root


def scans(person: str, *names: str, session: str = "") -> list[str]:
    """The paths of a participant's images."""
    folder = f"sub-{person}/{f'ses-{session}/' if session else ''}anat"
    stem = f"sub-{person}{f'_ses-{session}' if session else ''}"
    return [f"{folder}/{stem}_{name}.nii.gz" for name in names]


FOUR = ("ce-gadolinium_T1w", "T2w", "FLAIR", "T1w")
TWO = "participant_id\tlabel\tsite\nsub-01\tHGG\tnorth\nsub-02\tLGG\tsouth\n"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write(tmp_path / "raw", *scans("01", *FOUR), *scans("02", *FOUR), participants=TWO)


def names(subject: Subject) -> dict[str, str]:
    return {modality: path.name for modality, path in subject.files.items()}


def test_sequences_are_found_by_suffix_and_contrast_agent(raw: Path) -> None:
    cohort = Bids().read(raw)
    assert [m.name for m in cohort.modalities] == ["t1ce", "t2", "flair", "t1"]
    assert {m: name.partition("_")[2] for m, name in names(cohort.subject("sub-01")).items()} == {
        "t1ce": "ce-gadolinium_T1w.nii.gz",
        "t2": "T2w.nii.gz",
        "flair": "FLAIR.nii.gz",
        "t1": "T1w.nii.gz",
    }
    assert [(s.id, s.label, s.group, s.site) for s in cohort.subjects] == [
        ("sub-01", "HGG", "sub-01", "north"),
        ("sub-02", "LGG", "sub-02", "south"),
    ]
    assert (cohort.name, cohort.positive_class) == ("raw", "HGG")


@pytest.mark.parametrize(
    ("text", "entities", "suffix"),
    [
        ("sub-01_ses-a_run-02_T2w.nii", {"sub": "01", "ses": "a", "run": "02"}, "T2w"),
        ("sub-01_acq-a-b_T1w.nii.gz", {"sub": "01", "acq": "a-b"}, "T1w"),
        ("sub-Ü x_T1w.nii.gz", {"sub": "Ü x"}, "T1w"),
    ],
)
def test_names_are_entities_and_a_suffix(text: str, entities: dict[str, str], suffix: str) -> None:
    assert Name.of(text) == Name(entities, suffix)


@pytest.mark.parametrize("text", ["sub-01_T1w.json", "sub-01.nii.gz", "sub01_T1w.nii.gz", "sub-_T1w.nii.gz"])
def test_other_names_are_none_of_bids(text: str) -> None:
    assert Name.of(text) is None


def test_sessions_are_subjects_and_those_of_a_participant_one_group(tmp_path: Path) -> None:
    files = [
        *scans("01", *FOUR, session="pre"),
        *scans("01", "T2w", session="post"),
        *scans("02", "T2w", session="pre"),
    ]
    cohort = Bids().read(write(tmp_path, *files, participants=TWO))
    assert [(s.id, s.group, s.label) for s in cohort.subjects] == [
        ("sub-01_ses-post", "sub-01", "HGG"),
        ("sub-01_ses-pre", "sub-01", "HGG"),
        ("sub-02_ses-pre", "sub-02", "LGG"),
    ]
    assert cohort.subjects[0].lacks(["t1ce", "t2"]) == ("t1ce",)


def test_several_runs_are_refused_or_the_first_is_taken(raw: Path) -> None:
    write(raw, *scans("01", "run-10_T2w", "run-9_T2w"))
    (raw / scans("01", "T2w")[0]).unlink()
    with pytest.raises(CohortError, match=r"'sub-01', t2: 2 files .*; set bids\.runs=first"):
        Bids().read(raw)
    cohort = Bids(runs="first").read(raw)
    assert names(cohort.subjects[0])["t2"] == "sub-01_run-9_T2w.nii.gz"
    assert "of several runs the first was taken: 'sub-01'" in cohort.notes


def test_several_kinds_of_a_sequence_are_told_apart_by_entities(raw: Path) -> None:
    write(raw, *scans("01", "space-SRI24_desc-preproc_T2w"), *scans("02", "space-SRI24_desc-preproc_T2w"))
    with pytest.raises(CohortError) as error:
        Bids(runs="first").read(raw)
    assert len(error.value.faults) == 2
    assert "say which with bids.entities" in error.value.faults[1]
    derived = Bids(entities={"desc": "preproc"}).read(raw)
    assert [m.name for m in derived.modalities] == ["t2"]
    assert names(derived.subjects[0]) == {"t2": "sub-01_space-SRI24_desc-preproc_T2w.nii.gz"}
    plain = Bids(entities={"desc": ""}).read(raw)
    assert names(plain.subjects[0])["t2"] == "sub-01_T2w.nii.gz"


def test_a_derivative_takes_the_labels_of_its_data_set(raw: Path) -> None:
    derived = raw / "derivatives" / "stripped"
    write(derived, *scans("01", "desc-brain_T2w"), *scans("02", "desc-brain_T2w"))
    assert Bids().read(derived).counts() == {"HGG": 1, "LGG": 1}
    assert names(Bids().read(raw).subjects[0])["t2"] == "sub-01_T2w.nii.gz"


def test_outlines_of_tumours_are_found_beside_and_in_derivatives(raw: Path) -> None:
    write(raw, *scans("01", "dseg", "label-lesion_mask"))
    write(raw / "derivatives" / "drawn", *scans("01", "label-tumor_dseg"), *scans("02", "label-tumor_dseg"))
    cohort = Bids().read(raw)
    assert [s.seg and s.seg.name for s in cohort.subjects] == [
        "sub-01_label-tumor_dseg.nii.gz",
        "sub-02_label-tumor_dseg.nii.gz",
    ]
    write(raw / "derivatives" / "again", *scans("01", "label-tumor_dseg"))
    with pytest.raises(CohortError, match=r"'sub-01', outline: 2 files .*say which with bids\.seg"):
        Bids().read(raw)


def test_a_plain_dseg_is_no_tumour_unless_somebody_says_so(raw: Path) -> None:
    write(raw, *scans("01", "dseg"))
    assert Bids().read(raw).subjects[0].seg is None
    assert Bids(seg=("dseg",)).read(raw).subjects[0].seg == raw / scans("01", "dseg")[0]


def test_who_is_unknown_or_has_no_images_is_left_out_and_noted(raw: Path) -> None:
    write(raw, *scans("03", "T2w"), participants=TWO + "sub-03\tn/a\tn/a\nsub-04\tLGG\tnorth\n")
    cohort = Bids().read(raw)
    assert len(cohort.subjects) == 2
    assert "left out, for their label is n/a: 'sub-03'" in cohort.notes
    assert "left out, for they have no images: 'sub-04'" in cohort.notes


def test_every_fault_is_named_at_once(raw: Path) -> None:
    write(raw, *scans("03", "T2w"), *scans("04", "T2w", "run-1_T2w"), "sub-01/anat/sub-1_T2w.nii.gz",
          participants=TWO + "04\tLLG\tn/a\n02\tLGG\tn/a\nsub-02\tLGG\tn/a\n")  # fmt: skip
    with pytest.raises(CohortError) as error:
        Bids(classes={"LGG": "low", "HGG": "high"}).read(raw)
    text = "\n".join(error.value.faults)
    for fault in (
        "'sub-1_T2w.nii.gz' lies in 'sub-01'",
        "participants.tsv: 'sub-02' is in 2 rows",
        "'sub-03' is not in participants.tsv",
        "'sub-04' has the label 'LLG': did you mean 'LGG'?",
        "'sub-04', t2: 2 files",
    ):
        assert fault in text


@pytest.mark.parametrize(
    ("participants", "options", "says"),
    [
        (TWO, {"label": "grade"}, r"has no column 'grade': there are label, site; set bids\.label"),
        ("subject\tlabel\nsub-01\tHGG\n", {}, "has no column 'participant_id'"),
        ("", {}, r"has no participants\.tsv: write it"),
        (TWO, {"sequences": {"pd": ["PDw"]}}, r"looked for _PDw\.nii\.gz; set bids\.sequences"),
        ("participant_id\tlabel\nsub-01\tn/a\nsub-02\tn/a\n", {}, "nobody has a label"),
    ],
)
def test_what_is_not_there_is_asked_for(tmp_path: Path, participants: str, options: dict[str, Any], says: str) -> None:
    write(tmp_path, *scans("01", "T2w"), *scans("02", "T2w"), participants=participants)
    with pytest.raises(CohortError, match=says):
        Bids(**options).read(tmp_path)


def test_a_folder_without_participants_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"holds no sub-\* folders"):
        Bids().read(tmp_path)
    with pytest.raises(CohortError, match="is no pattern of names"):
        Bids(seg=("ce-*",))


def test_new_participants_need_no_table(raw: Path) -> None:
    (raw / "participants.tsv").unlink()
    cohort = Bids().read_new(raw, ("LGG", "HGG"), "LGG")
    assert [(s.id, s.label) for s in cohort.subjects] == [("sub-01", ""), ("sub-02", "")]
    (raw / "participants.tsv").write_text("participant_id\tlabel\nsub-01\tHGG\nsub-02\tn/a\n")
    assert [s.label for s in Bids().read_new(raw, ("LGG", "HGG"), "LGG").subjects] == ["HGG", ""]


def test_hostile_ids_are_kept_exactly(tmp_path: Path) -> None:
    ids = ["Ünï 1", "[bold]", "-x", "=1+1", "x" * 200]
    files = [path for id in ids for path in (f"sub-{id}/sub-{id}_T2w.nii.gz",)]
    rows = "".join(f"sub-{id}\t{'ab'[n % 2]}\n" for n, id in enumerate(ids))
    cohort = Bids().read(write(tmp_path, *files, participants=f"participant_id\tlabel\n{rows}"))
    assert {s.id for s in cohort.subjects} == {f"sub-{id}" for id in ids}
    assert all(s.files["t2"].is_file() for s in cohort.subjects)


def test_a_data_set_is_proposed_as_it_can_be_read(tmp_path: Path) -> None:
    files = [*scans("01", *FOUR, session="a"), *scans("01", *FOUR, session="b"), *scans("02", *FOUR, session="a")]
    table = "participant_id\tage\tWHO_grade\nsub-01\t30\t2\nsub-02\t50\t4\n"
    root = write(tmp_path / "set", *files, participants=table)
    proposal = Bids().propose(root)
    assert proposal is not None
    assert (proposal.subjects, proposal.settings) == (3, ('bids.label="WHO_grade"',))
    assert "3 sessions of 2 participants" in proposal.guesses
    options = resolve_options(Bids, parse_setting(proposal.settings[0])["options"]["bids"])
    assert Bids(**options).read(root).counts() == {"2": 2, "4": 1}
    assert Bids().propose(tmp_path) is None
    (root / "participants.tsv").unlink()
    bare = Bids().propose(root)
    assert bare is not None
    assert "participants.tsv needs a column of labels" in bare.guesses


def test_new_subjects_need_no_table_whatever_the_run_was_read_with(raw):
    (raw / "participants.tsv").unlink()
    options = {"label": "grade", "site": "hospital", "classes": {"4": "HGG", "2": "LGG"}, "positive_class": "LGG"}
    cohort = Bids(**options).read_new(raw, ("LGG", "HGG"), "LGG")
    assert {(subject.label, subject.site) for subject in cohort.subjects} == {("", "")}
