"""Tables become modalities, joined by subject id; what is no number or no subject everywhere is named."""

from pathlib import Path

import numpy as np
import pytest

from fusionbench import read_cohort
from fusionbench.errors import CohortError, UsageError
from fusionbench.experiment import parse_setting
from fusionbench.options import resolve_options
from fusionbench_plugins.cohorts.table import Table

GLIOMA = Path(__file__).parent / "data" / "glioma" / "TCGA_InfoWithGrade.csv"
CLINICAL = {"clinical": ["Gender", "Age*", "Race"], "mutation": ["*"]}
GRADES = {"0": "LGG", "1": "GBM"}


@pytest.fixture
def omics(tmp_path):
    """Three tables of six people, each in an order of its own, and their labels."""
    ids = [f"person {n}" for n in range(6)]
    values = np.random.default_rng(0).normal(size=(3, 6, 4))
    for number, name in enumerate(("rna", "methylation", "mirna")):
        rows = [f"{id},{','.join(map(repr, values[number, row].tolist()))}" for row, id in enumerate(ids)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["subject,a,b,c,d", *rows[number:], *rows[:number]]) + "\n")
    labels = [f"{id},{'AD' if row < 4 else 'NC'},train" for row, id in enumerate(ids)]
    (tmp_path / "labels.csv").write_text("\n".join(["subject,label,split", *labels]) + "\n")
    return tmp_path, values


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_folder_of_tables_is_joined_by_subject_id(omics):
    folder, values = omics
    cohort = Table().read(folder)
    assert [(m.name, m.kind, m.channels) for m in cohort.modalities] == [
        ("methylation", "table", 4),
        ("mirna", "table", 4),
        ("rna", "table", 4),
    ]
    for number, name in enumerate(("rna", "methylation", "mirna")):
        rows = [subject.features[name] for subject in cohort.subjects]
        assert np.array_equal(rows, values[number])
    assert [subject.id for subject in cohort.subjects] == [f"person {n}" for n in range(6)]
    assert cohort.classes == ("AD", "NC")
    assert cohort.positive_class == "NC"
    assert cohort.notes == ("positive class NC, the smaller one, as table.positive_class is not set",)
    assert cohort.name == folder.name


def test_modalities_choose_tables_and_columns_of_a_folder(omics):
    cohort = Table(modalities={"rna": ["b", "a"], "mirna": ["*"]}, positive_class="AD").read(omics[0])
    assert [(m.name, m.channels) for m in cohort.modalities] == [("rna", 2), ("mirna", 4)]
    assert cohort.notes == ()
    with pytest.raises(CohortError, match=r"has no rnaa\.csv: did you mean 'rna'\?"):
        Table(modalities={"rnaa": ["*"]}).read(omics[0])


def test_the_real_glioma_table_reads():
    options = {"id": "row", "label": "Grade", "modalities": CLINICAL, "classes": GRADES, "positive_class": "LGG"}
    cohort = Table(**resolve_options(Table, options)).read(GLIOMA)
    assert cohort.counts() == {"LGG": 487, "GBM": 352}
    assert [(m.name, m.channels) for m in cohort.modalities] == [("clinical", 3), ("mutation", 20)]
    assert cohort.subjects[0].id == "row-0001"
    assert cohort.subjects[0].features["clinical"] == (0.0, 51.3, 0.0)
    assert cohort.notes == ("equal in every feature with another subject: 'row-0410', 'row-0425'",)


def test_groups_sites_and_hostile_ids_are_kept(tmp_path):
    ids = ["=cmd|' /C calc'!A0", "line\nbreak", "Ünïcode [/x]", "NA"]
    rows = [
        f'"{id}",{label},patient,clinic,{n},{n + 0.5}' for n, (id, label) in enumerate(zip(ids, "xxyy", strict=True))
    ]
    table = write(tmp_path / "all.csv", "\n".join(["subject,label,group,site,f1,f2", *rows]))
    cohort = Table(modalities={"f": ["f?"]}).read(table)
    assert [subject.id for subject in cohort.subjects] == ids
    assert {(subject.group, subject.site) for subject in cohort.subjects} == {("patient", "clinic")}
    assert cohort.subject("NA").features["f"] == (3.0, 3.5)
    assert Table(modalities={"rest": ["*"]}).read(table).modalities[0].channels == 2


def test_subjects_without_labels_are_all_named(omics):
    folder, _ = omics
    (folder / "rna.csv").write_text("subject,a\nperson 0,1\nstranger,2\nanother,2\n")
    with pytest.raises(CohortError) as error:
        Table().read(folder)
    for fault in ("'stranger' is not in the labels", "'another' is not in the labels"):
        assert fault in error.value.faults


def test_a_subject_lacks_what_has_no_row_or_an_empty_one(omics):
    folder, values = omics
    (folder / "rna.csv").write_text("subject,a,b\nperson 0,1,2\nperson 2,, \nperson 3,0,0\n")
    cohort = Table().read(folder)
    assert {s.id: s.lacks(("rna", "mirna")) for s in cohort.subjects} == {
        **dict.fromkeys([f"person {n}" for n in (1, 2, 4, 5)], ("rna",)),
        **dict.fromkeys(["person 0", "person 3"], ()),
    }
    assert cohort.subject("person 3").features["rna"] == (0.0, 0.0)
    assert np.array_equal(cohort.subject("person 1").features["mirna"], values[2][1])


def test_a_subject_in_no_table_is_a_fault(tmp_path):
    table = write(tmp_path / "t.csv", "subject,label,a,b\none,x,1,2\ntwo,y,,\nthree,y,1,3\n")
    with pytest.raises(CohortError, match="'two' has none of f"):
        Table(modalities={"f": ["a", "b"]}).read(table)


@pytest.mark.parametrize("cell", ["", "NA", "male", "nan", "inf", "1,5"])
def test_cells_that_are_no_numbers_are_named_by_column_and_subject(omics, cell):
    folder, _ = omics
    rows = [f'person {n},{n},"{cell if n == 2 else n}"' for n in range(6)]
    (folder / "rna.csv").write_text("\n".join(["subject,age,sex", *rows]))
    with pytest.raises(CohortError) as error:
        Table().read(folder)
    assert f"rna, column 'sex': {cell!r} of 'person 2' is no finite number (1 such cells)" in str(error.value)


def test_labels_that_are_missing_or_no_class_are_named(tmp_path):
    text = "subject,label,f\none,LGG,1\ntwo,,2\nthree,lgg ,3\nfour,GBM,4\n"
    table = write(tmp_path / "t.csv", text)
    with pytest.raises(CohortError) as error:
        Table(modalities={"f": ["f"]}, classes={"LGG": "low", "GBM": "high"}).read(table)
    assert "'three' has the label 'lgg ': did you mean 'LGG'?" in str(error.value)
    assert "'two' has no label" in str(error.value)
    mended = write(tmp_path / "t.csv", text.replace("two,,", "two,LGG,").replace("lgg ", "LGG"))
    cohort = Table(modalities={"f": ["f"]}, classes={"LGG": "low", "GBM": "high"}).read(mended)
    assert cohort.classes == ("low", "high")
    assert cohort.positive_class == "high"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("subject,label,f\na,x,1\na,y,2\n", "t.csv: 'a' is in 2 rows"),
        ("subject,label,f\n,x,1\nb,y,2\n", "t.csv: row 1 has no subject"),
        ("subject,label,f,f\na,x,1,2\n", "t.csv has several columns 'f'; rename"),
        ("patient,label,f\na,x,1\n", "t.csv has no column 'subject'"),
        ("subject,grade,f\na,x,1\n", "no column 'label' of labels"),
        ("subject,label,g\na,x,1\n", "modality f: no column is 'f'"),
        ("subject,label,f\na,x,1\nb,y,1,2\n", "t.csv: line 3 has 4 cells, the header 3"),
        ("", "t.csv is empty"),
        ("subject,label,f\n", "t.csv has no rows; its columns are subject, label, f"),
    ],
)
def test_broken_tables_are_refused_with_the_mend(tmp_path, text, says):
    with pytest.raises(CohortError) as error:
        Table(modalities={"f": ["f"]}).read(write(tmp_path / "t.csv", text))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_are_numbered_only_when_asked_for_and_equally_many(omics):
    folder, _ = omics
    for file in folder.glob("*.csv"):
        file.write_text("\n".join(line.split(",", 1)[1] for line in file.read_text().splitlines()))
    with pytest.raises(CohortError, match=r"table\.id=row to number the rows"):
        Table().read(folder)
    assert Table(id="row").read(folder).subjects[5].id == "row-0006"
    (folder / "rna.csv").write_text("a\n1\n2\n")
    with pytest.raises(CohortError, match=r"unequally many \(labels\.csv 6, .*rna\.csv 2\)"):
        Table(id="row").read(folder)


def test_what_is_not_said_is_asked_for(omics, tmp_path):
    folder, _ = omics
    with pytest.raises(CohortError, match=r"which columns make which modality.*there are a, b, c, d"):
        Table().read(folder / "rna.csv")
    with pytest.raises(CohortError, match=r"nowhere\.csv does not exist"):
        Table().read(folder / "nowhere.csv")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty" / "labels.csv", "subject,label\na,x\nb,y\n")
    with pytest.raises(CohortError, match=r"holds no table besides labels\.csv"):
        Table().read(tmp_path / "empty")


def test_labels_that_differ_in_case_or_blanks_are_no_classes_of_their_own(tmp_path):
    table = write(tmp_path / "t.csv", "subject,label,f\na,HGG,1\nb,hgg ,2\nc,LGG,3\nd,HGG,4\ne, Hgg,5\n")
    with pytest.raises(CohortError) as error:
        Table(modalities={"f": ["f"]}).read(table)
    told = "did you mean 'HGG'? Write them alike, or say in table.classes which class each is"
    assert error.value.faults == (f"'b' has the label 'hgg ': {told}", f"'e' has the label ' Hgg': {told}")
    spelt = {"HGG": "HGG", "hgg ": "HGG", " Hgg": "HGG", "LGG": "LGG"}
    assert Table(modalities={"f": ["f"]}, classes=spelt).read(table).counts() == {"HGG": 4, "LGG": 1}


def test_new_subjects_need_no_labels(omics, tmp_path):
    folder, values = omics
    labels = (folder / "labels.csv").read_text()
    (folder / "labels.csv").unlink()
    with pytest.raises(CohortError, match=r"labels\.csv does not exist"):
        Table().read(folder)
    cohort = Table().read_new(folder, ("NC", "AD"), "AD")
    assert (cohort.labelled, cohort.classes, {s.label for s in cohort.subjects}) == (False, ("NC", "AD"), {""})
    assert np.array_equal(cohort.subject("person 4").features["rna"], values[0][4])
    write(folder / "labels.csv", labels.replace("person 0,AD", "person 0,").replace("person 1,AD", "person 1,MCI"))
    known = Table().read_new(folder, ("NC", "AD"), "AD")
    assert [s.label for s in known.subjects] == ["", "", "AD", "AD", "NC", "NC"]
    assert "labels that the model does not know: 'MCI'" in known.notes
    table = write(tmp_path / "new.csv", "subject,f\none,1\n")
    assert Table(modalities={"f": ["*"]}).read_new(table, ("a", "b"), "b").subjects[0].features == {"f": (1.0,)}


def test_a_table_by_another_separator_is_told(tmp_path):
    table = write(tmp_path / "t.csv", "subject;label;f\na;x;1\n")
    with pytest.raises(
        CohortError, match=r"t\.csv has one column, 'subject;label;f'; save it as comma-separated UTF-8"
    ):
        Table(modalities={"f": ["f"]}).read(table)


def chosen(proposal):
    """The options that a proposal sets, as a run would have them."""
    settings = {}
    for text in proposal.settings:
        settings |= parse_setting(text)["options"]["table"]
    return resolve_options(Table, settings)


def test_a_folder_is_proposed_as_it_can_be_read(omics):
    folder, _ = omics
    for file in folder.glob("*.csv"):
        file.write_text(
            file.read_text().replace("subject,label", "Patient ID,WHO Grade").replace("subject", "Patient ID")
        )
    (folder / "labels.csv").rename(folder / "clinic.csv")
    proposal = Table().propose(folder)
    assert proposal.subjects == 6
    assert proposal.files == {}
    assert "labels in the column 'WHO Grade' of clinic.csv" in proposal.guesses
    cohort = Table(**chosen(proposal)).read(folder)
    assert cohort.counts() == {"AD": 4, "NC": 2}
    assert len(cohort.modalities) == 3


def test_a_table_is_proposed_as_it_can_be_read(tmp_path):
    proposal = Table().propose(GLIOMA)
    assert "labels in the column 'Grade'" in proposal.guesses
    assert "no column of ids, so rows are numbered" in proposal.guesses
    cohort = Table(**chosen(proposal)).read(GLIOMA)
    assert (proposal.subjects, cohort.counts()) == (839, {"0": 487, "1": 352})
    text = "id,label,sex,a,b\n=1,x,male,1,2\n-2,y,female,2,2\n"
    mixed = Table().propose(write(tmp_path / "t.csv", text))
    assert "no numbers, so left out: 'sex'" in mixed.guesses
    assert [m.channels for m in Table(**chosen(mixed)).read(tmp_path / "t.csv").modalities] == [2]
    assert Table().propose(write(tmp_path / "words.csv", "id,text\n1,one\n")) is None
    assert Table().propose(tmp_path / "nowhere") is None


def test_options_are_checked():
    with pytest.raises(UsageError, match="modalities"):
        resolve_options(Table, {"modalities": {"clinical": 3}})
    assert resolve_options(Table, {})["modalities"] == {}


def test_new_subjects_need_no_labels_whatever_the_run_was_read_with(omics):
    folder, _ = omics
    (folder / "labels.csv").unlink()
    options = {"labels": "truth.csv", "label": "grade", "classes": {"1": "AD", "0": "NC"}, "positive_class": "AD"}
    cohort = Table(**options, modalities={"rna": ["a", "b"]}).read_new(folder, ("NC", "AD"), "AD")
    assert {subject.label for subject in cohort.subjects} == {""}


def test_of_classes_of_one_size_none_is_called_the_smaller(tmp_path):
    table = write(tmp_path / "t.csv", "subject,label,f\na,x,1\nb,y,2\n")
    notes = Table(modalities={"f": ["f"]}).read(table).notes
    assert notes == ("positive class x, the first, for none is smaller, as table.positive_class is not set",)


def test_labels_under_a_name_that_is_nearly_right_are_said_so(omics):
    folder, _ = omics
    with pytest.raises(CohortError, match=r"lables.csv does not exist: did you mean 'labels.csv'\?"):
        Table(labels="lables.csv", modalities={"rna": ["*"]}).read(folder)


def test_ids_that_a_spreadsheet_would_make_equal_are_noted(tmp_path):
    ids = ["1", "01", "1.0", " 1", "2", "A b", "aB", "10", "x-01-2", "X-1-02"]
    rows = [f"{id},{'xy'[n % 2]},{n}" for n, id in enumerate(ids)]
    table = write(tmp_path / "t.csv", "\n".join(["subject,label,f", *rows]) + "\n")
    notes = read_cohort("table", table, modalities={"f": ["f"]}, positive_class="x").notes
    assert notes == (
        "ids that differ only in case, blanks or zeros are different subjects: "
        "'1' and '01' and '1.0' and ' 1'; 'A b' and 'aB'; 'x-01-2' and 'X-1-02'",
    )
