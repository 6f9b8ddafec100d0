"""Every BraTS layout becomes the same cohort, and what cannot be used is named."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fusionbench.errors import CohortError
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
    (folder / "labels.csv").write_text(text, encoding="utf-8")
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


def test_missing_and_doubled_images_are_all_named(graded):
    (graded / "HGG" / "Brats18_1" / "Brats18_1_t1.nii.gz").unlink()
    (graded / "LGG" / "Brats18_3" / "Brats18_3_flair.nii.gz").unlink()
    with pytest.raises(CohortError, match=r"'Brats18_1' has no t1; 'Brats18_3' has no flair"):
        Brats().read(graded)
    folder = graded / "HGG" / "Brats18_2"
    shutil.copy(folder / "Brats18_2_t1ce.nii.gz", folder / "Brats18_2_t1c.nii.gz")
    with pytest.raises(CohortError, match="'Brats18_2' has 2 files for t1ce; keep one"):
        Brats().read(graded)


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
        ("subject,grade\none,LGG\n", "has no column 'label'; its columns are subject, grade"),
        ("subject,label\n", "has no rows"),
        ("", "cannot be read as CSV"),
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
    with pytest.raises(CohortError, match=r"gone\.csv is not in the data folder"):
        Brats(labels="gone.csv").read(tmp_path)
    (tmp_path / "HGG").mkdir()
    with pytest.raises(CohortError, match="holds no subject folders"):
        Brats().read(tmp_path)


def test_options_can_be_set_from_toml():
    assert resolve_options(Brats, {"classes": ["0", "1"], "positive_class": "1"}) == {
        "labels": "",
        "classes": ("0", "1"),
        "positive_class": "1",
    }
