"""A manifest names images and features of everybody; what it cannot mean is refused, all of it at once."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

from fusionbench import CohortError, Proposal, Run, Store, load_comparison, open_study, read_cohort, run
from fusionbench.folds import draw_folds
from fusionbench_plugins.cohorts.manifest import Manifest
from fusionbench_plugins.cohorts.manifest.proposing import read_name

HOSTILE = [
    "=cmd|' /C calc'!A0",
    "line\nbreak",
    "return\rhere",
    "Ünïcode [/x]",
    "-rf",
    "..",
    "a,b",
    '"q"',
    "NA",
    "x" * 200,
]


def write(root: Path, rows: list[dict[str, str]], name: str = "manifest.csv") -> Path:
    """A manifest of these rows, and an empty file for each cell that names one inside the folder."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if name.endswith("tsv") else ",", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    (root / name).write_text(text.getvalue(), encoding="utf-8", newline="")
    for cell in (cell for row in rows for cell in row.values() if len(cell) < 250):
        if cell.endswith((".nii", ".nii.gz")) and ".." not in cell and not cell.startswith("/"):
            (root / cell).parent.mkdir(parents=True, exist_ok=True)
            (root / cell).touch()
    return root / name


def row(id: str, label: str = "HGG", **cells: str) -> dict[str, str]:
    return {"subject": id, "label": label, **cells}


def two(**options: Any) -> Manifest:
    """A reader with a class order, so that no note is made of it."""
    return Manifest(**{"positive_class": "LGG", **options})


def test_images_are_found_by_their_cells_and_features_by_their_columns(tmp_path: Path) -> None:
    rows = [
        row("a", t1ce="scans/a t1.nii.gz", seg="scans/a seg.nii", age="30", sex="0", note="calm", site="n", group="p"),
        row("b", "LGG", t1ce="scans/b.nii", seg="", age="40", sex="1", note="", site="", group=""),
    ]
    cohort = two(features={"clinical": ["age", "s*x"]}).read(write(tmp_path, rows))
    assert [(m.name, m.kind, m.channels) for m in cohort.modalities] == [("t1ce", "image", 1), ("clinical", "table", 2)]
    first, second = cohort.subjects
    assert (first.files, first.seg) == ({"t1ce": tmp_path / "scans/a t1.nii.gz"}, tmp_path / "scans/a seg.nii")
    assert (first.features, first.group, first.site) == ({"clinical": (30.0, 0.0)}, "p", "n")
    assert (second.seg, second.group, second.site) == (None, "b", "")
    assert cohort.notes == ("columns not used: 'note'; manifest.features makes tables of columns",)
    assert (cohort.name, cohort.classes) == (tmp_path.name, ("HGG", "LGG"))


def test_an_empty_cell_is_a_missing_modality(tmp_path: Path) -> None:
    rows = [
        row("a", t1="a1.nii", t2="a2.nii", x="1", y="2"),
        row("b", "LGG", t1="", t2="b2.nii", x="", y=" "),
        row("c", "LGG", t1="c1.nii", t2="", x="0", y="0"),
    ]
    cohort = two(features={"f": ["x", "y"]}).read(write(tmp_path, rows))
    assert [s.lacks(("t1", "t2", "f")) for s in cohort.subjects] == [(), ("t1", "f"), ("t2",)]
    rows[1]["y"] = "3"
    with pytest.raises(CohortError, match=r"f, column 'x': '' of 'b' is no finite number \(1 such cells\)"):
        two(features={"f": ["x", "y"]}).read(write(tmp_path, rows))
    rows[1] |= {"t2": "", "y": ""}
    with pytest.raises(CohortError, match="'b' has none of t1, t2, f"):
        two(features={"f": ["x", "y"]}).read(write(tmp_path, rows))


def test_columns_have_the_names_that_somebody_gives_them(tmp_path: Path) -> None:
    rows = [
        {"ID": "1", "WHO": "2", "Patient": "p", "Scanner": "s", "mask": "m1.nii", "T1": "1.nii"},
        {"ID": "2", "WHO": "4", "Patient": "p", "Scanner": "s", "mask": "m2.nii", "T1": "2.nii"},
    ]
    names = {"subject": "ID", "label": "WHO", "group": "Patient", "site": "Scanner", "seg": "mask"}
    grades = {"4": "high", "2": "low"}
    cohort = Manifest(**names, classes=grades).read(write(tmp_path, rows, "cases.tsv"))
    assert (cohort.name, cohort.classes, [m.name for m in cohort.modalities]) == ("cases", ("high", "low"), ["T1"])
    assert {(s.group, s.site) for s in cohort.subjects} == {("p", "s")}
    assert cohort.notes == (
        "positive class high, the first, for none is smaller, as manifest.positive_class is not set",
    )
    for option in names:
        with pytest.raises(CohortError, match=rf"has no column 'Scaner': did you mean .*; set manifest\.{option}"):
            Manifest(**{**names, option: "Scaner"}).read(tmp_path / "cases.tsv")


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    rows = [
        row("a", t1="a.nii", x="1"),
        row("a", "LGG", t1="a2.nii", x="1"),
        row("", t1="none.nii", x="1"),
        row("b", "hgg ", t1="a.nii", x="male"),
        row("c", "", t1="gone.nii", x="1"),
        row("d", "LGG", t1="../d.nii", x="1"),
        row("e", "LGG", t1="/etc/e.nii", x="1"),
        row("f", "LGG", t1="no scan", x="1"),
        row("g", t1="x" * 300 + ".nii", x="1"),
    ]
    file = write(tmp_path, rows)
    (tmp_path / "gone.nii").unlink()
    with pytest.raises(CohortError) as error:
        two(features={"f": ["x"]}).read(file)
    outside = "leaves the folder of the manifest; write it relative to that, or set manifest.outside=true"
    told = "\n".join(error.value.faults)
    for fault in (
        "'a' is in 2 rows",
        "row 3 has no subject",
        "f, column 'x': 'male' of 'b' is no finite number",
        "'b', t1: 'a.nii' is the file of t1 of 'a' too",
        "'c', t1: 'gone.nii' is not there",
        f"'d', t1: '../d.nii' {outside}",
        f"'e', t1: '/etc/e.nii' {outside}",
        "'f', t1: 'no scan' is no NIfTI file (.nii, .nii.gz); leave the cell empty if there is none",
        "'g', t1: 'xxx",
        "'c' has no label",
        "'b' has the label 'hgg ': did you mean 'HGG'?",
    ):
        assert fault in told, fault
    assert len(error.value.faults) == 11


def test_links_leave_the_folder_only_if_somebody_allows_it(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "far.nii").touch()
    (inside / "near.nii").touch()
    (inside / "link.nii").symlink_to(tmp_path / "far.nii")
    (inside / "close.nii").symlink_to(inside / "near.nii")
    rows = [row("a", t1="link.nii"), row("b", "LGG", t1="close.nii"), row("c", "LGG", t1=str(tmp_path / "far2.nii"))]
    file = write(inside, rows)
    (tmp_path / "far2.nii").touch()
    with pytest.raises(CohortError) as error:
        two().read(file)
    assert [fault[:8] for fault in error.value.faults] == ["'a', t1:", "'c', t1:"]
    assert "is a link that leaves the folder" in error.value.faults[0]
    assert two(outside=True).read(file).subjects[2].files["t1"] == tmp_path / "far2.nii"


def test_hostile_ids_and_paths_are_kept_exactly(tmp_path: Path) -> None:
    rows = [
        row(id, "ab"[n % 2], group=f"{id} group", t1=f"{n}/{id.replace('/', '')[:50].replace('..', 'up')} .nii.gz")
        for n, id in enumerate(HOSTILE)
    ]
    cohort = Manifest().read(write(tmp_path, rows))
    assert [s.id for s in cohort.subjects] == HOSTILE
    assert [s.group for s in cohort.subjects] == [f"{id} group" for id in HOSTILE]
    assert [s.files["t1"] for s in cohort.subjects] == [tmp_path / one["t1"] for one in rows]
    assert len(cohort.fingerprint) == 64


def test_a_group_stays_in_one_fold(tmp_path: Path) -> None:
    rows = [row(f"{n}", "ab"[n // 2 % 2], group=f"p{n // 2}", t1=f"{n}.nii") for n in range(24)]
    cohort = Manifest().read(write(tmp_path, rows))
    for fold in draw_folds(cohort, 3):
        groups = [{cohort.subject(id).group for id in part} for part in (fold.split.training, fold.split.test)]
        assert not groups[0] & groups[1]


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("subject,label,a\nx,HGG,1\ny,LGG,2\n", {}, r"names no images and no features.*there are subject, label, a"),
        ("subject,label,a\nx,HGG,1\ny,LGG,2\n", {"features": {"f": ["b"]}}, "modality f: no column is 'b'"),
        ("subject,label,a\nx,HGG,1\ny,LGG,2\n", {"features": {"f": ["label"]}}, "modality f has no column left"),
        ("subject,label,t1\nx,HGG,x.nii\n", {"features": {"t1": ["*"]}}, "'t1' is an image already"),
        ("subject,Label,t1\nx,HGG,x.nii\n", {}, r"no column 'label': did you mean 'Label'\?.*set manifest\.label"),
        ("subject\tlabel\tt1\nx\tHGG\tx.nii\n", {}, "save it as comma-separated"),
        ("", {}, "is empty"),
        ("subject,label,t1\n", {}, "has no rows"),
        ("ID,WHO,t1\nx,1,x.nii\n", {}, "has no columns 'subject', 'label'.*set manifest.subject and manifest.label"),
    ],
)
def test_what_no_manifest_is_is_refused_with_the_mend(
    tmp_path: Path, text: str, options: dict[str, Any], says: str
) -> None:
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(CohortError, match=says) as error:
        Manifest(**options).read(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_is_read_by_its_one_manifest(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"holds no manifest\.csv or manifest\.tsv: give the file itself"):
        Manifest().read(tmp_path)
    rows = [row("a", t1="a.nii"), row("b", "LGG", t1="b.nii")]
    write(tmp_path, rows, "manifest.tsv")
    assert len(Manifest().read(tmp_path).subjects) == 2
    write(tmp_path, rows)
    with pytest.raises(CohortError, match=r"holds manifest\.csv and manifest\.tsv"):
        Manifest().read(tmp_path)


def test_new_subjects_need_no_labels(tmp_path: Path) -> None:
    file = write(tmp_path, [{"subject": "a", "t1": "a.nii"}, {"subject": "b", "t1": "b.nii"}])
    cohort = Manifest().read_new(file, ("HGG", "LGG"), "LGG")
    assert ([s.label for s in cohort.subjects], cohort.labelled) == (["", ""], False)
    rows = [row("a", "II", t1="a.nii"), row("b", "IV", t1="b.nii"), row("c", "?", t1="c.nii"), row("d", "", t1="d.nii")]
    spelt = {"II": "LGG", "IV": "HGG"}
    known = Manifest(classes=spelt).read_new(write(tmp_path, rows), ("HGG", "LGG"), "LGG")
    assert [s.label for s in known.subjects] == ["LGG", "HGG", "", ""]
    assert "labels that the model does not know: '?'" in known.notes


def test_images_and_tables_are_fused_in_one_run(tmp_path: Path) -> None:
    """A phantom's images, and a table of two numbers that nobody has to learn much from, named by one manifest."""
    phantom = read_cohort("phantom", tmp_path / "phantom", subjects=12, spacing=10.0, hgg_share=0.5)
    random = np.random.default_rng(0)
    rows = [
        row(
            s.id,
            s.label,
            t1ce=s.files["t1ce"].relative_to(tmp_path).as_posix(),
            flair=s.files["flair"].relative_to(tmp_path).as_posix(),
            age=repr(random.normal() + (s.label == "HGG")),
            size=repr(random.normal()),
        )
        for s in phantom.subjects
    ]
    quick = {
        "cohort": {"reader": "manifest", "data": str(write(tmp_path, rows))},
        "modalities": ["t1ce", "flair", "clinical"],
        "fusion": ["feature", "ensemble"],
        "baselines": ["unimodal"],
        "attention": "none",
        "backbone": {"image": "rmc", "table": "mlp"},
        "protocol": {"folds": 2, "inner_folds": 2},
        "preprocessing": {"resize": [4, 8, 8]},
        "recipe": {"epochs": 1, "batch_size": 4, "device": "cpu", "precision": "32"},
        "options": {"manifest": {"features": {"clinical": ["age", "size"]}}, "rmc": {"width": 2}, "mlp": {"width": 4}},
    }
    study = open_study(load_comparison("demo", quick))
    assert [m.kind for m in study.cohort.modalities] == ["image", "image", "table"]
    outcome = Run.of(run(study, Store(tmp_path / "store")))
    assert {result.method for result in outcome.results} == {"t1ce", "flair", "clinical", "ensemble", "feature"}
    tested = {result.method: [] for result in outcome.results}
    for result in outcome.results:
        assert np.isfinite(result.predictions.probabilities).all()
        tested[result.method] += result.predictions.ids
    assert all(sorted(ids) == sorted(s.id for s in phantom.subjects) for ids in tested.values())


# Proposals


def tree(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def proposed(root: Path) -> tuple[Proposal, list[dict[str, str]]]:
    """The proposal and the rows of its manifest, after it was written and filled in."""
    proposal = Manifest().propose(root)
    assert proposal is not None
    rows = list(csv.DictReader(io.StringIO(proposal.files["manifest.csv"], newline="")))
    assert {one["label"] for one in rows} == {""}
    for number, one in enumerate(rows):
        one["label"] = "ab"[number % 2]
    cohort = Manifest().read(write(root, rows))
    assert len(cohort.subjects) == proposal.subjects
    return proposal, rows


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("UCSF-PDGM-0004_T1c.nii.gz", ("UCSF-PDGM-0004", "t1ce", "")),
        ("UCSF-PDGM-0004_T1_bias.nii.gz", ("UCSF-PDGM-0004", "t1", "bias")),
        ("UCSF-PDGM-0004_tumor_segmentation.nii.gz", ("UCSF-PDGM-0004", "seg", "")),
        ("UPENN-GBM-00001_11_T1GD.nii.gz", ("UPENN-GBM-00001_11", "t1ce", "")),
        ("UPENN-GBM-00001_11_automated_approx_segm.nii.gz", ("UPENN-GBM-00001_11", "seg", "automated approx")),
        ("TCGA-02-0006_1996.08.23_t1Gd.nii.gz", ("TCGA-02-0006_1996.08.23", "t1ce", "")),
        ("TCGA-02-0006_1996.08.23_GlistrBoost_ManuallyCorrected.nii.gz", ("TCGA-02-0006_1996.08.23", "seg", "")),
        ("BraTS-GLI-00001-000-t2f.nii.gz", ("BraTS-GLI-00001-000", "flair", "")),
        ("sub-01_ce-gadolinium_T1w.nii.gz", ("sub-01", "t1ce", "")),
        ("sub-01_ses-a_run-2_T2w.nii.gz", ("sub-01_ses-a", "t2", "_run-2")),
        ("sub-01_space-T1w_label-lesion_mask.nii.gz", ("sub-01", "seg", "_space-T1w _label")),
        ("p1_t1_gd.nii", ("p1", "t1ce", "")),
        ("p1-T1post.nii", ("p1", "t1ce", "")),
        ("p1 T2_FLAIR.nii", ("p1", "flair", "")),
        ("p1_t1_seg.nii", ("p1", "seg", "")),
        ("Trial_T1_007_FLAIR.nii", ("Trial_T1_007", "flair", "")),
        ("t1.NII.GZ", ("", "t1", "")),
        ("a/b/T2W.nii", ("", "t2", "")),
    ],
)
def test_names_of_well_known_data_sets_are_understood(name: str, says: tuple[str, str, str]) -> None:
    found = read_name(PurePosixPath(name))
    assert found is not None
    assert (found.subject, found.sequence, found.variant) == says


@pytest.mark.parametrize("name", ["p1_ADC.nii", "p1_brain_segmentation.nii.gz", "T13.nii", "p1_mask.nii", "at2b.nii"])
def test_other_names_are_not(name: str) -> None:
    assert read_name(PurePosixPath(name)) is None


def test_ucsf_pdgm_is_proposed(tmp_path: Path) -> None:
    kinds = ("T1", "T1_bias", "T1c", "T1c_bias", "T2", "T2_bias", "FLAIR", "FLAIR_bias", "ADC", "DTI_eddy_FA",
             "tumor_segmentation", "brain_segmentation", "brain_parenchyma_segmentation")  # fmt: skip
    ids = ["UCSF-PDGM-0004", "UCSF-PDGM-0429", "UCSF-PDGM-0429_FU003d"]
    proposal, rows = proposed(tree(tmp_path, *(f"{id}_nifti/{id}_{kind}.nii.gz" for id in ids for kind in kinds)))
    assert list(rows[0]) == ["subject", "label", "group", "t1ce", "t2", "flair", "t1", "seg"]
    assert [one["subject"] for one in rows] == ids
    assert [one["group"] for one in rows] == ["UCSF-PDGM-0004", "UCSF-PDGM-0429", "UCSF-PDGM-0429"]
    assert rows[0]["t1"] == "UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_T1.nii.gz"
    assert rows[0]["seg"] == "UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_tumor_segmentation.nii.gz"
    told = "; ".join(proposal.guesses)
    assert "the column label is empty: fill it in" in told
    assert "12 files (12 ..._bias.nii.gz)" in told
    assert "not understood: 12 files (6 ..._segmentation.nii.gz, 3 ..._ADC.nii.gz, 3 ..._FA.nii.gz)" in told


def test_upenn_gbm_is_proposed(tmp_path: Path) -> None:
    ids = ["UPENN-GBM-00001_11", "UPENN-GBM-00002_11", "UPENN-GBM-00002_21"]
    files = [f"images_structural/{id}/{id}_{kind}.nii.gz" for id in ids for kind in ("T1", "T1GD", "T2", "FLAIR")]
    files += [f"images_structural_unstripped/{id}/{id}_T1_unstripped.nii.gz" for id in ids]
    files += [f"automated_segm/{id}_automated_approx_segm.nii.gz" for id in ids]
    files += [f"images_segm/{ids[0]}_segm.nii.gz"]
    _, rows = proposed(tree(tmp_path, *files))
    assert [(one["subject"], one["group"]) for one in rows] == [
        (ids[0], "UPENN-GBM-00001"),
        (ids[1], "UPENN-GBM-00002"),
        (ids[2], "UPENN-GBM-00002"),
    ]
    assert rows[0]["t1ce"] == "images_structural/UPENN-GBM-00001_11/UPENN-GBM-00001_11_T1GD.nii.gz"
    assert rows[0]["t1"] == "images_structural/UPENN-GBM-00001_11/UPENN-GBM-00001_11_T1.nii.gz"
    assert [one["seg"].partition("/")[0] for one in rows] == ["images_segm", "automated_segm", "automated_segm"]


@pytest.mark.parametrize(
    ("files", "said", "subjects"),
    [
        (["a/t1.nii", "a/t2.nii", "b/t1.nii"], "the names of the files", ["a", "b"]),
        (["a/brain_t1.nii", "a/brain_t2.nii", "b/brain_t1.nii"], "the folders of the files", ["a", "b"]),
        (["a/x/im_t1.nii", "a/y/m_seg.nii", "b/x/im_t1.nii"], "the folders right below", ["a", "b"]),
        (["a_t1.nii", "a_t2.nii", "b_t1.nii"], "the names of the files", ["a", "b"]),
    ],
)
def test_subjects_are_told_apart_by_what_gives_each_a_file_of_its_own(
    tmp_path: Path, files: list[str], said: str, subjects: list[str]
) -> None:
    proposal, rows = proposed(tree(tmp_path, *files))
    assert said in proposal.guesses[1]
    assert [one["subject"] for one in rows] == subjects


def recipe(heading: str) -> str:
    """The Python of docs/data.md that follows a word."""
    text = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    return text.partition(f"**{heading}**")[2].partition("```python\n")[2].partition("```")[0]


def test_the_recipe_for_ucsf_pdgm_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ids = ["UCSF-PDGM-0004", "UCSF-PDGM-0007", "UCSF-PDGM-0007_FU003d", "UCSF-PDGM-0100"]
    root = tree(Path("UCSF-PDGM"), *(f"{id}_nifti/{id}_{kind}.nii.gz" for id in ids for kind in ("T1", "T1c")))
    Path("UCSF-PDGM-metadata_v5.csv").write_text(
        "ID,Sex,WHO CNS Grade\nUCSF-PDGM-004,F,4\nUCSF-PDGM-007,M,2\nUCSF-PDGM-100,F,3\n"
    )
    (root / "manifest.csv").write_text(Manifest().propose(root).files["manifest.csv"])
    exec(recipe("UCSF-PDGM"), {})  # noqa: S102 - the code of our own document
    cohort = Manifest(classes={"4": "HGG", "3": "LGG", "2": "LGG"}, positive_class="LGG").read(root)
    assert [(s.id, s.label, s.group) for s in cohort.subjects] == [
        (ids[0], "HGG", ids[0]),
        (ids[1], "LGG", ids[1]),
        (ids[2], "LGG", ids[1]),
        (ids[3], "LGG", ids[3]),
    ]


def test_the_recipe_for_upenn_gbm_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ids = [f"UPENN-GBM-0000{n}_11" for n in (1, 2, 3)]
    files = [f"images_structural/{id}/{id}_{kind}.nii.gz" for id in ids for kind in ("T1", "T1GD", "FLAIR")]
    root = tree(Path("UPENN-GBM"), *files)
    Path("UPENN-GBM_clinical_info_v2.1.csv").write_text(
        f"ID,MGMT,Age_at_scan_years\n{ids[0]},Methylated,61.5\n{ids[1]},Not Available,50\n{ids[2]},Unmethylated,44\n"
    )
    (root / "manifest.csv").write_text(Manifest().propose(root).files["manifest.csv"])
    exec(recipe("UPENN-GBM"), {})  # noqa: S102 - the code of our own document
    cohort = Manifest(features={"clinical": ["age"]}).read(root)
    assert {s.id: s.features["clinical"] for s in cohort.subjects} == {ids[0]: (61.5,), ids[2]: (44.0,)}
    assert cohort.classes == ("Methylated", "Unmethylated")


def test_numbers_that_are_no_visits_make_no_groups(tmp_path: Path) -> None:
    _, rows = proposed(tree(tmp_path, *(f"site2024-{n:03d}_t1.nii" for n in range(12))))
    assert "group" not in rows[0]


def test_hostile_names_are_proposed_as_they_are(tmp_path: Path) -> None:
    names = ["=a b", "-rf", "Ünï[x]", "line\nbreak", "car\rriage", "co,mma", 'qu"ote']
    _, rows = proposed(tree(tmp_path, *(f"{name}/{name}_t1.nii.gz" for name in names)))
    assert sorted(one["subject"] for one in rows) == sorted(names)


def test_a_name_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    tree(tmp_path, "a_t1.nii", "b_t1.nii")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff_t1.nii")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    proposal, rows = proposed(tmp_path)
    assert len(rows) == 2
    assert "not understood: 1 files (1 ..._t1.nii)" in "; ".join(proposal.guesses)


def test_nothing_is_proposed_where_there_is_nothing_or_a_manifest_already(tmp_path: Path) -> None:
    assert Manifest().propose(tmp_path) is None
    assert Manifest().propose(tree(tmp_path, "a/x_ADC.nii", "a/x_seg.nii", ".hidden/a_t1.nii", "._b_t1.nii")) is None
    standard = tree(tmp_path / "bids", "sub-01/anat/sub-01_T1w.nii", "dataset_description.json")
    assert Manifest().propose(standard) is None
    file = write(tmp_path, [row("a", t1="a.nii"), row("b", t1="b.nii")])
    assert Manifest().propose(tmp_path) == Proposal((), {}, ("manifest.csv is there already",), 2)
    assert Manifest().propose(file) is None


def test_new_subjects_need_neither_labels_nor_groups_sites_and_outlines(tmp_path: Path) -> None:
    file = write(tmp_path, [{"ID": "a", "t1": "a.nii"}])
    names = {"subject": "ID", "label": "WHO", "group": "Patient", "site": "Scanner", "seg": "mask"}
    cohort = Manifest(**names, classes={"4": "HGG"}, positive_class="HGG").read_new(file, ("HGG", "LGG"), "LGG")
    assert [(s.id, s.label, s.group, s.site, s.seg) for s in cohort.subjects] == [("a", "", "a", "", None)]


def test_a_hidden_folder_is_not_proposed(tmp_path: Path) -> None:
    for place in ("seen", ".hidden", "__MACOSX/seen"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a_t1.nii.gz").touch()
    proposal = Manifest().propose(tmp_path)
    assert (proposal.subjects, proposal.labelled) == (1, False)
    assert "hidden" not in proposal.files["manifest.csv"]


@pytest.mark.parametrize(("label", "labelled"), [("HGG", True), ("", False)])
def test_a_manifest_that_is_there_knows_labels_once_they_are_filled_in(
    tmp_path: Path, label: str, labelled: bool
) -> None:
    write(tmp_path, [row("a", label, t1="a.nii"), row("b", "", t1="b.nii")])
    assert Manifest().propose(tmp_path) == Proposal((), {}, ("manifest.csv is there already",), 2, labelled)
