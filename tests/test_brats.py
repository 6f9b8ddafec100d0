"""Every BraTS layout becomes the same cohort, and what cannot be used is named."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fusionbench import Proposal
from fusionbench.errors import CohortError
from fusionbench.experiment import parse_setting
from fusionbench.options import resolve_options
from fusionbench_plugins.cohorts.brats import Brats

REAL = Path(__file__).parent / "data" / "brats"
OLD = ("t1", "t1ce", "t2", "flair", "seg")


def case(folder, names=OLD, separator="_", ending=".nii.gz"):
    """A subject folder whose files are real, if tiny, NIfTI images."""
    folder.mkdir(parents=True)
    for name in names:
        image = nibabel.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
        nibabel.save(image, folder / f"{folder.name}{separator}{name}{ending}")


@pytest.fixture
def graded(tmp_path):
    """The layout of 2018 and 2019."""
    for grade, number in (("HGG", 1), ("HGG", 2), ("LGG", 3)):
        case(tmp_path / grade / f"Brats18_{number}")
    return tmp_path


def labelled(folder, text, **options):
    (folder / "labels.csv").write_text(text, encoding="utf-8", newline="")
    return Brats(labels="labels.csv", **options).read(folder)


def test_2018_has_a_folder_per_grade(graded):
    cohort = Brats().read(graded)
    assert cohort.counts() == {"HGG": 2, "LGG": 1}
    assert cohort.positive_class == "LGG"
    assert [modality.name for modality in cohort.modalities] == ["t1ce", "t2", "flair", "t1"]
    assert {modality.kind for modality in cohort.modalities} == {"image"}
    first = cohort.subject("Brats18_1")
    assert first.files["flair"].name == "Brats18_1_flair.nii.gz"
    assert first.seg.name == "Brats18_1_seg.nii.gz"
    assert first.group == "Brats18_1"
    assert cohort.name == graded.name
    assert not cohort.synthetic


def test_2020_is_graded_by_the_newest_column_that_fits(tmp_path):
    for number in (1, 2, 3):
        case(tmp_path / f"BraTS20_Training_00{number}", ending=".nii")
    (tmp_path / "name_mapping.csv").write_text(
        "Grade,BraTS_2017_subject_ID,BraTS_2019_subject_ID,BraTS_2020_subject_ID\n"
        "HGG,Brats17_A,BraTS19_A,BraTS20_Training_001\n"
        "LGG,NA,NA,BraTS20_Training_002\n"
        "LGG,BraTS20_Training_001,NA,BraTS20_Training_003\n"
        "HGG,Brats17_B,BraTS19_B,NA\n"
    )
    cohort = Brats().read(tmp_path)
    assert [subject.label for subject in cohort.subjects] == ["HGG", "LGG", "LGG"]


def test_2020_names_subjects_without_a_grade(tmp_path):
    case(tmp_path / "known")
    case(tmp_path / "unknown")
    (tmp_path / "name_mapping.csv").write_text("Grade,BraTS_2020_subject_ID\nHGG,known\n")
    with pytest.raises(CohortError, match="'unknown' is not in column BraTS_2020_subject_ID"):
        Brats().read(tmp_path)


def test_2023_names_and_sessions_of_one_patient_are_understood(tmp_path):
    for name in ("BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000"):
        case(tmp_path / name, ("t1n", "t1c", "t2w", "t2f", "seg"), "-")
    cohort = labelled(
        tmp_path,
        "subject,label\nBraTS-GLI-00001-000,LGG\nBraTS-GLI-00001-001,HGG\nBraTS-GLI-00002-000,HGG\n",
    )
    assert [modality.name for modality in cohort.modalities] == ["t1ce", "t2", "flair", "t1"]
    assert cohort.subjects[0].files["t1ce"].name == "BraTS-GLI-00001-000-t1c.nii.gz"
    assert [subject.group for subject in cohort.subjects] == ["BraTS-GLI-00001"] * 2 + ["BraTS-GLI-00002"]


def test_labels_may_be_any_classes_with_groups_and_sites(tmp_path):
    case(tmp_path / "a b", ("t1gd", "T2"))
    case(tmp_path / "=ö", ("t1c", "t2w"))
    case(tmp_path / "not asked for")
    (tmp_path / "scripts").mkdir()
    cohort = labelled(
        tmp_path, "\ufeffsubject,label,site,group\na b,1,here,p\n=ö,0,,\n", classes=("0", "1"), positive_class="1"
    )
    assert cohort.counts() == {"0": 1, "1": 1}
    assert (cohort.subject("a b").site, cohort.subject("a b").group, cohort.subject("=ö").group) == ("here", "p", "=ö")
    assert [modality.name for modality in cohort.modalities] == ["t1ce", "t2"]
    assert cohort.notes == ("left out, not in labels.csv: 'not asked for'",)


def test_the_real_layout_reads(tmp_path):
    shutil.copytree(REAL, tmp_path / "real")
    case(tmp_path / "real" / "made")
    cohort = labelled(
        tmp_path / "real", "subject,label\nBrats18_TCIA10_130_1,LGG\nBrats18_TCIA12_101_1,LGG\nmade,HGG\n"
    )
    assert cohort.subjects[0].seg.name == "Brats18_TCIA10_130_1_seg_auto.nii.gz"
    assert len(cohort.fingerprint) == 64


def test_a_drawn_segmentation_goes_before_an_automatic_one(graded):
    folder = graded / "LGG" / "Brats18_3"
    shutil.copy(folder / "Brats18_3_seg.nii.gz", folder / "Brats18_3_seg_auto.nii.gz")
    assert Brats().read(graded).subject("Brats18_3").seg.name == "Brats18_3_seg.nii.gz"


def test_cohort_json_says_what_the_data_are(graded):
    (graded / "cohort.json").write_text('{"name": "phantom", "synthetic": true, "note": "made, not measured"}')
    cohort = Brats().read(graded)
    assert (cohort.name, cohort.synthetic, cohort.notes) == ("phantom", True, ("made, not measured",))
    (graded / "cohort.json").write_text("[1")
    with pytest.raises(CohortError, match=r"cohort\.json is not JSON like"):
        Brats().read(graded)


def test_hidden_and_foreign_files_are_no_images(graded):
    folder = graded / "HGG" / "Brats18_1"
    (folder / "._Brats18_1_t1.nii.gz").write_bytes(b"Mac OS X")
    (folder / "Brats18_1_t1.json").write_text("{}")
    (folder / "Brats18_1_t1_mask.nii.gz").write_bytes(b"")
    (graded / "HGG" / ".DS_Store").write_bytes(b"")
    (graded / "HGG" / "__MACOSX").mkdir()
    assert len(Brats().read(graded).subjects) == 3


def test_a_missing_file_is_a_missing_modality(graded):
    (graded / "HGG" / "Brats18_1" / "Brats18_1_t1.nii.gz").unlink()
    (graded / "LGG" / "Brats18_3" / "Brats18_3_flair.nii.gz").unlink()
    cohort = Brats().read(graded)
    names = [modality.name for modality in cohort.modalities]
    assert names == ["t1ce", "t2", "flair", "t1"]
    assert [subject.lacks(names) for subject in cohort.subjects] == [("t1",), (), ("flair",)]


def test_subjects_without_images_are_all_named(graded):
    for name in ("Brats18_1", "Brats18_2"):
        for file in (graded / "HGG" / name).iterdir():
            file.unlink()
    with pytest.raises(CohortError, match=r"'Brats18_1' has none of t1ce, t2, flair, t1; 'Brats18_2' has none of"):
        Brats().read(graded)


def test_doubled_images_are_all_named(graded):
    for name in ("Brats18_1", "Brats18_2"):
        folder = graded / "HGG" / name
        shutil.copy(folder / f"{name}_t1ce.nii.gz", folder / f"{name}_t1c.nii.gz")
    with pytest.raises(CohortError) as error:
        Brats().read(graded)
    assert error.value.faults == tuple(f"'Brats18_{n}' has 2 files for t1ce; keep one" for n in (1, 2))


def test_bad_labels_are_all_named_with_what_was_meant(tmp_path):
    case(tmp_path / "one")
    case(tmp_path / "two")
    with pytest.raises(CohortError) as error:
        labelled(tmp_path, "subject,label\none,hgg \ntwo,grade 4\nonne,LGG\n")
    assert str(error.value) == (
        f"{tmp_path.name}: 'onne' of labels.csv has no folder: did you mean 'one'? There are one, two; "
        "'one' has the label 'hgg ': did you mean 'HGG'? There are HGG, LGG; "
        "'two' has the label 'grade 4': there are HGG, LGG"
    )
    with pytest.raises(CohortError, match="'one' appears 2 times"):
        labelled(tmp_path, "subject,label\none,HGG\none,LGG\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("subject,grade\none,LGG\n", "has no column 'label': there are grade, subject"),
        ("subject,label\n", "has no rows"),
        ("id,grade\none,LGG\n", "has no columns 'subject', 'label': "),
        ("", "labels.csv is empty"),
    ],
)
def test_a_table_that_is_no_table_of_labels_is_refused(tmp_path, text, says):
    case(tmp_path / "one")
    with pytest.raises(CohortError, match=says):
        labelled(tmp_path, text)


def test_wrong_folders_are_refused_with_the_mend(tmp_path):
    with pytest.raises(CohortError, match="is no folder"):
        Brats().read(tmp_path / "nowhere")
    with pytest.raises(CohortError, match=r"holds no subjects: looked for HGG/, LGG/, name_mapping\.csv and folders"):
        Brats().read(tmp_path)
    case(tmp_path / "one")
    with pytest.raises(CohortError, match=r"--set brats\.labels=FILE\.csv"):
        Brats().read(tmp_path)
    with pytest.raises(CohortError, match=r"gone\.csv does not exist"):
        Brats(labels="gone.csv").read(tmp_path)
    (tmp_path / "HGG").mkdir()
    with pytest.raises(CohortError, match="holds no subject folders"):
        Brats().read(tmp_path)


@pytest.mark.parametrize("ids", [("00000", "00012"), ("0", "12"), ("BraTS2021_00000", "BraTS2021_00012")])
def test_2021_is_labelled_by_numbers_with_or_without_their_zeros(tmp_path, ids):
    for number in (0, 12):
        case(tmp_path / f"BraTS2021_{number:05d}")
    (tmp_path / "train_labels.csv").write_text(f"BraTS21ID,MGMT_value\n{ids[0]},1\n{ids[1]},0\n")
    options = {"labels": "train_labels.csv", "subject": "BraTS21ID", "label": "MGMT_value"}
    cohort = Brats(**options, classes=("0", "1"), positive_class="1").read(tmp_path)
    assert {s.id: s.label for s in cohort.subjects} == {"BraTS2021_00000": "1", "BraTS2021_00012": "0"}


def test_a_number_that_two_folders_have_is_refused(tmp_path):
    for name in ("a_001", "b_01"):
        case(tmp_path / name)
    with pytest.raises(CohortError, match=r"'1' of labels\.csv may be 'a_001' and 'b_01': write the name"):
        labelled(tmp_path, "subject,label\n1,HGG\n")


def test_a_patient_labels_every_session(tmp_path):
    for name in ("BraTS-GLI-00005-100", "BraTS-GLI-00005-101", "BraTS-MEN-RT-0001-1"):
        case(tmp_path / name, ("t1n", "t1c", "t2w", "t2f"), "-")
    cohort = labelled(
        tmp_path, "subject,label,Site No\nBraTS-GLI-00005,HGG,7\nBraTS-MEN-RT-0001-1,LGG,8\n", site="Site No"
    )
    assert [(s.label, s.group, s.site) for s in cohort.subjects] == [
        *[("HGG", "BraTS-GLI-00005", "7")] * 2,
        ("LGG", "BraTS-MEN-RT-0001", "8"),
    ]
    with pytest.raises(CohortError, match=r"has no column 'site number'.*set brats\.subject"):
        Brats(labels="labels.csv", site="site number").read(tmp_path)


def test_a_table_may_label_the_folders_of_2018_anew(graded):
    cohort = labelled(
        graded, "subject,label\nBrats18_1,a\nBrats18_2,b\nBrats18_3,a\n", classes=("a", "b"), positive_class="a"
    )
    assert {s.id: s.label for s in cohort.subjects} == {"Brats18_1": "a", "Brats18_2": "b", "Brats18_3": "a"}


def test_the_odd_segmentation_of_2020_is_found(graded):
    folder = graded / "HGG" / "Brats18_1"
    (folder / "Brats18_1_seg.nii.gz").rename(folder / "W39_1998.09.19_Segm.nii.gz")
    assert Brats().read(graded).subject("Brats18_1").seg.name == "W39_1998.09.19_Segm.nii.gz"


def test_new_subjects_need_no_labels(tmp_path):
    for name in ("BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "x [y]"):
        case(tmp_path / name, ("t1n", "t1c", "t2w"), "-")
    cohort = Brats(labels="labels.csv").read_new(tmp_path, ("HGG", "LGG"), "LGG")
    assert [(s.id, s.label, s.group) for s in cohort.subjects] == [
        ("BraTS-GLI-00001-000", "", "BraTS-GLI-00001"),
        ("BraTS-GLI-00001-001", "", "BraTS-GLI-00001"),
        ("x [y]", "", "x [y]"),
    ]
    assert [m.name for m in cohort.modalities] == ["t1ce", "t2", "t1"]
    one = Brats().read_new(tmp_path / "BraTS-GLI-00001-000", ("a", "b"), "b")
    assert [s.id for s in one.subjects] == ["BraTS-GLI-00001-000"]
    (tmp_path / "labels.csv").write_text("subject,label\nBraTS-GLI-00001-001,HGG\nx [y],II\nnobody,LGG\n")
    known = Brats(labels="labels.csv").read_new(tmp_path, ("HGG", "LGG"), "LGG")
    assert [s.label for s in known.subjects] == ["", "HGG", ""]
    (tmp_path / "none").mkdir()
    with pytest.raises(CohortError, match="holds no subject folders"):
        Brats().read_new(tmp_path / "none", ("HGG", "LGG"), "LGG")


def test_new_subjects_in_folders_of_their_grade_keep_it(graded):
    cohort = Brats().read_new(graded, ("LGG", "HGG"), "LGG")
    assert [s.label for s in cohort.subjects] == ["HGG", "HGG", "LGG"]


def proposed(folder):
    """The proposal for a folder, and the reader that it asks for."""
    proposal = Brats().propose(folder)
    settings = {}
    for text in proposal.settings:
        settings |= parse_setting(text)["options"]["brats"]
    return proposal, Brats(**resolve_options(Brats, settings))


def test_what_tells_the_grades_is_proposed(graded, tmp_path_factory):
    assert Brats().propose(graded) == Proposal((), {}, ("grades from the folders: 2 HGG, 1 LGG",), 3)
    mapped = tmp_path_factory.mktemp("2020")
    case(mapped / "BraTS20_Training_001")
    (mapped / "name_mapping.csv").touch()
    assert Brats().propose(mapped) == Proposal((), {}, ("grades from name_mapping.csv",), 1)
    assert Brats().propose(mapped / "BraTS20_Training_001") is None
    assert Brats().propose(mapped / "name_mapping.csv") is None


def test_a_table_of_labels_is_proposed_with_its_columns(tmp_path):
    for number in (0, 2, 3):
        case(tmp_path / f"BraTS2021_{number:05d}")
    (tmp_path / "scores.csv").write_text("rank,score\n1,2\n")
    (tmp_path / "train_labels.csv").write_text("BraTS21ID,MGMT_value\n0,1\n2,0\n3,1\n")
    proposal, reader = proposed(tmp_path)
    assert proposal.subjects == 3
    assert proposal.files == {}
    assert "positive class 0, the smaller one" in proposal.guesses
    assert reader.read(tmp_path).counts() == {"0": 1, "1": 2}


def test_a_table_to_fill_in_is_proposed_where_nothing_tells_the_grades(tmp_path):
    names = ("BraTS-GLI-00001-000", '=a, "b"', "-Ü [x]")
    for name in names:
        case(tmp_path / name)
    proposal, reader = proposed(tmp_path)
    assert list(proposal.files) == ["labels.csv"]
    (tmp_path / "labels.csv").write_text(proposal.files["labels.csv"], encoding="utf-8")
    with pytest.raises(CohortError) as error:
        reader.read(tmp_path)
    assert len(error.value.faults) == 3
    again, _ = proposed(tmp_path)
    assert again.files == {}
    assert "its labels are to be filled in" in again.guesses
    head, *rows = proposal.files["labels.csv"].splitlines()
    text = "\n".join([head, *(row + label for row, label in zip(rows, ("HGG", "LGG", "HGG"), strict=True))])
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    assert {s.id for s in reader.read(tmp_path).subjects} == set(names)


@pytest.mark.parametrize("id", ["line\nbreak", "-rf", "[bold]", "=1+1", "Ü" * 100, "car\rriage", 'a,b"c'])
def test_hostile_ids_are_kept_exactly(tmp_path, id):
    for name in (id, "ordinary"):
        case(tmp_path / name)
    cell = id.replace('"', '""')
    cohort = labelled(tmp_path, f'"subject","label"\n"{cell}","HGG"\n"ordinary","LGG"\n')
    assert cohort.subject(id).files["t1"].name == f"{id}_t1.nii.gz"


def test_options_can_be_set_from_toml():
    assert resolve_options(Brats, {"classes": ["0", "1"], "positive_class": "1"}) == {
        "labels": "",
        "subject": "subject",
        "label": "label",
        "site": "site",
        "classes": ("0", "1"),
        "positive_class": "1",
    }


# No label source


EVERY_OPTION = {"labels": "gone.csv", "subject": "ID", "label": "MGMT", "site": "Hospital", "positive_class": "HGG"}


def test_new_subjects_need_no_table_whatever_the_run_was_read_with(tmp_path):
    case(tmp_path / "a")
    for folder in (tmp_path, tmp_path / "a"):
        cohort = Brats(**EVERY_OPTION).read_new(folder, ("HGG", "LGG"), "LGG")
        assert [(subject.id, subject.label) for subject in cohort.subjects] == [("a", "")]


def test_new_subjects_without_the_table_of_the_run_have_the_grades_of_their_folders(graded):
    cohort = Brats(**EVERY_OPTION).read_new(graded, ("HGG", "LGG"), "LGG")
    assert [subject.label for subject in cohort.subjects] == ["HGG", "HGG", "LGG"]


def test_a_name_of_a_table_that_is_nearly_right_is_said_so(graded):
    (graded / "labels.csv").write_text("subject,label\nBrats18_1,HGG\n")
    with pytest.raises(CohortError, match=r"lables.csv does not exist: did you mean 'labels.csv'\?"):
        Brats(labels="lables.csv").read(graded)
