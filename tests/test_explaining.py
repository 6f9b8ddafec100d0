"""Explanations of a run: the right fit, the numbers of predictions.csv, pictures the right way round, safe pages."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from conftest import comparison, table_cohort

from fusionbench import Cohort, Modality, Predictions, Store, Subject, TrainedRun, load_comparison, open_study, run
from fusionbench.errors import CohortError, UsageError
from fusionbench.explaining import Entry, Explainer, Explanation, explained_files, folder_name, index_page
from fusionbench.explaining.measuring import on_image, place_of, slices_around, strength
from fusionbench.explaining.selecting import Verdicts
from fusionbench.explaining.sights import FeatureMap, Sight
from fusionbench.explaining.tiles import OUTLINE, bars_tile, image_tile, map_tile, overlay_tile
from fusionbench.explaining.viewer import View, centred_affine, viewer_page
from fusionbench.imaging.volumes import Volumes
from fusionbench.runs import Result, Run, begin_run, write_run
from fusionbench.training import Workplace
from fusionbench_cli.app import main

HOSTILE = '<img src="http://elsewhere/x">\n/../'
"""The beginning of the ids of the subjects of these tests."""


def cohort_of(folder: Path, subjects: int = 8) -> Cohort:
    """Two sequences of noise as NIfTI of (X, Y, Z) = (12, 10, 6), a tumour on the left in front."""
    random, affine = np.random.default_rng(0), np.diag([2.0, 3.0, 4.0, 1.0])
    folder.mkdir(parents=True)

    def written(name: str, voxels: np.ndarray) -> Path:
        nibabel.Nifti1Image(voxels, affine).to_filename(folder / name)
        return folder / name

    def subject(number: int) -> Subject:
        size = (12, 10, 6)
        files = {m: written(f"{number}_{m}.nii", random.random(size, dtype=np.float32)) for m in ("t1", "t2")}
        outline = np.zeros(size, np.uint8)
        outline[0:3, 7:10, 3:5] = 1
        outline[0, 7, 4] = 0  # so that slice 3 has most
        seg = written(f"{number}_seg.nii", outline)
        return Subject(f"{HOSTILE}p{number}", ("LGG", "HGG")[number % 2], files=files, seg=seg)

    return Cohort(
        "images", ("HGG", "LGG"), "LGG", (Modality("t1"), Modality("t2")), tuple(map(subject, range(subjects)))
    )


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    """Strategies for images, two folds twice, trained for a moment."""
    folder = tmp_path_factory.mktemp("explained")
    cohort = cohort_of(folder / "images")
    settings = {
        "fusion": ["pixel", "guidance", "feature", "agg"],
        "baselines": ["unimodal", "ensemble"],
        "protocol": {"folds": 2, "repeats": 2, "inner_folds": 2, "ranking": {"ranker": "fixed"}},
        "recipe": {"epochs": 1, "batch_size": 2, "device": "cpu", "stages": {"secondary": {"epochs": 1}}},
        "modalities": ["t2", "t1"],
        "preprocessing": {"crop": [6, 10, 12]},
        "options": {"rmc": {"width": 2}, "agg": {"width": 2, "size": 4}},
    }
    study = open_study(load_comparison("brats", settings), cohort=cohort)
    store = Store(folder / "store")
    begin_run(study, folder / "run")
    outcome = run(study, store)
    assert not outcome.failed
    write_run(Run.of(outcome), folder / "run")
    return opened(folder / "run", store, cohort)


def opened(folder: Path, store: Store, cohort: Cohort, repeat: int = 0) -> Explainer:
    """A run whose cohort no reader reads."""
    from fusionbench.runs import read_run

    trained = TrainedRun.open(folder, store, open_study(comparison(), cohort=table_cohort()).registry)
    volumes = Volumes(cohort, trained.comparison.preprocessing, store.root / "volumes")
    place = Workplace(cohort, trained.registry, volumes, store)
    return Explainer(trained, Verdicts(read_run(folder), repeat), cohort, place)


@pytest.fixture(scope="module")
def told(explainer: Explainer) -> Explanation:
    return explainer.explain(explainer.case(f"{HOSTILE}p1", "guidance"))


@pytest.fixture(scope="module")
def files(told: Explanation) -> dict[str, bytes]:
    return explained_files(told)


# Which fit, which numbers


@pytest.mark.parametrize("method", ["guidance", "pixel", "feature", "ensemble", "t2+dual"])
@pytest.mark.parametrize("repeat", [0, 1])
def test_the_numbers_are_those_of_the_run(explainer: Explainer, method: str, repeat: int) -> None:
    asked = replace(explainer, verdicts=replace(explainer.verdicts, repeat=repeat))
    for number in (1, 4):
        subject = f"{HOSTILE}p{number}"
        account = asked.explain(asked.case(subject, method, "none")).account
        (result,) = (
            r
            for r in asked.verdicts.run.results
            if (r.method, r.repeat) == (method, repeat) and subject in r.predictions.ids
        )
        recorded = result.predictions.probabilities[result.predictions.ids.index(subject)]
        assert account.said.probabilities == tuple(recorded)
        assert account.now == pytest.approx(recorded, abs=1e-6)
        assert account.said.fold == result.fold
        fit = asked.trained.store.record(account.key)["fit"]
        assert subject in fit["split"]["test"]
        assert subject not in fit["split"]["training"]
        assert account.notes == ()


def test_method_and_primary_are_found(explainer: Explainer) -> None:
    case = explainer.case(f"{HOSTILE}p1")
    assert (case.method, case.baseline) == ("pixel", "t2+dual")  # the first asked for; the first in the fixed order
    assert explainer.case(f"{HOSTILE}p1", "guidance", "none").baseline == ""
    assert explainer.case(f"{HOSTILE}p1", "guidance", "feature").baseline == "feature"


def test_both_are_asked_about_one_class(explainer: Explainer, told: Explanation) -> None:
    assert [account.method for account in told.accounts] == ["t2+dual", "guidance"]
    assert told.target == told.account.said.predicted
    case = explainer.case(f"{HOSTILE}p1", "guidance")
    with pytest.raises(UsageError, match=r"^run has no class 'LG': did you mean 'LGG'\?"):
        explainer.explain(case, "LG")


def test_each_modality_is_seen(told: Explanation) -> None:
    assert [sight.modalities for sight in told.account.sights] == [("t2",), ("t1",)]
    assert {name for sight in told.account.sights for name in sight.attention} == {"spatial", "slices"}
    assert all(sight.cam is not None for sight in told.account.sights)


def test_what_changed_is_said(explainer: Explainer, tmp_path: Path) -> None:
    subject = f"{HOSTILE}p1"
    results = tuple(
        replace(r, predictions=replace(r.predictions, probabilities=r.predictions.probabilities[:, ::-1] * 0.9 + 0.05))
        for r in explainer.verdicts.run.results
    )
    other = replace(explainer, verdicts=Verdicts(replace(explainer.verdicts.run, results=results)))
    (note,) = other.explain(other.case(subject, "pixel", "none")).account.notes
    assert note.startswith("WARNING: it now says 0.")
    moved = nibabel.load(explainer.cohort.subject(subject).files["t1"])
    nibabel.Nifti1Image(moved.get_fdata() + 1, moved.affine).to_filename(tmp_path / "t1.nii")
    changed = replace(explainer.cohort.subject(subject), files={"t1": tmp_path / "t1.nii", "t2": tmp_path / "t1.nii"})
    others = tuple(changed if s.id == subject else s for s in explainer.cohort.subjects)
    cohort = replace(explainer.cohort, subjects=others)
    with pytest.raises(CohortError, match="is not what run was run on: say where that lies with --data"):
        replace(explainer, cohort=cohort).explain(explainer.case(subject, "pixel"))


@pytest.mark.parametrize(
    ("subject", "method", "baseline", "message"),
    [
        ("p9", "guidance", "", "guidance was not tested on 'p9' in run"),
        (f"{HOSTILE}p1", "guidence", "", "run has no method 'guidence': did you mean 'guidance'?"),
        (f"{HOSTILE}p1", "guidance", "t3", "run has no method 't3'"),
        (f"{HOSTILE}p1", "agg", "", "agg is not built on backbones whose features could be looked at"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    explainer: Explainer, subject: str, method: str, baseline: str, message: str
) -> None:
    with pytest.raises(UsageError) as refused:
        explainer.case(subject, method, baseline)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value).replace(HOSTILE, "")


def test_tables_are_refused(tmp_path: Path) -> None:
    study = open_study(comparison(baselines=[], fusion=["feature"]), cohort=table_cohort())
    begin_run(study, tmp_path / "r")
    store = Store(tmp_path / "store")
    write_run(Run.of(run(study, store)), tmp_path / "r")
    with pytest.raises(UsageError, match="feature sees tables only, of which there are no pictures"):
        opened(tmp_path / "r", store, study.cohort).case("s00")


# Whom


def verdicts(answers: dict[str, Sequence[float]], single: Sequence[str]) -> Verdicts:
    """Methods and what they give LGG for subjects a (LGG), b (LGG) and c (HGG)."""
    ids, labels = ("a", "b", "c"), ("LGG", "LGG", "HGG")
    results = tuple(
        Result("", name, 0, 0, Predictions(ids, labels, ("HGG", "LGG"), np.array([[1 - p, p] for p in said])))
        for name, said in answers.items()
    )
    methods = {
        name: {"modalities": ["t1"] if name in single else ["t1", "t2"], "failed": "", "fusion": name, "attention": ""}
        for name in answers
    }
    facts: dict[str, Any] = {"methods": methods, "cohort": {"positive_class": "LGG", "modalities": ["t1", "t2"]}}
    return Verdicts(Run("r", facts, results, ()))


def test_rescued_are_those_that_every_single_modality_lost() -> None:
    found = verdicts({"one": (0.4, 0.1, 0.9), "two": (0.3, 0.6, 0.6), "fused": (0.5, 0.7, 0.2)}, ["one", "two"])
    assert found.select("rescued", "fused") == ("a", "c")  # of b the second was right; .5 is LGG
    assert found.select("wrong", "two") == ("a", "c")
    assert found.select("wrong", "fused") == ()
    assert found.method("", ("other", "fused")) == "fused"


def test_nobody_is_rescued_without_single_modalities() -> None:
    with pytest.raises(UsageError, match="r has no uni-modal method beside fused"):
        verdicts({"fused": (1, 1, 0)}, []).select("rescued", "fused")


def test_a_repeat_that_is_not_there() -> None:
    found = replace(verdicts({"fused": (1, 1, 0)}, []), repeat=3)
    with pytest.raises(UsageError, match="r has no repeat 3: give --repeat 0 to 0"):
        found.select("wrong", "fused")


# Pictures


def test_the_front_is_on_top_and_the_left_on_the_left(told: Explanation) -> None:
    place = place_of(told)
    assert place.slice == 3
    assert place.middle == (8, 1)
    assert "0.5 square cm" in place.why  # 9 voxels of 2 x 3 mm
    assert told.outline is not None
    grey = np.zeros((10, 12), np.float32)
    grey[9, 0] = 1  # the voxel furthest to the front and the left
    tile = image_tile(grey, told.outline[place.slice], told.grid.spacing[1:], "", "")
    pixels = np.asarray(tile.picture).astype(int)
    assert tile.picture.size == (205, 256)  # 12 x 2 mm wide, 10 x 3 mm high
    rows, columns = (pixels == OUTLINE).all(2).nonzero()
    assert rows.max() < 256 * 0.31
    assert columns.max() < 205 * 0.26
    assert (rows.min(), columns.min()) == (0, 0)
    bright = np.asarray(image_tile(grey, None, told.grid.spacing[1:], "", "").picture.convert("L"))
    assert np.unravel_index(bright.argmax(), bright.shape)[0] < 26


def test_what_is_nowhere_leaves_the_image_as_it_is() -> None:
    grey = np.random.default_rng(0).random((6, 6)).astype(np.float32)
    zero = np.zeros_like(grey)
    voxel = (1.0, 1.0)
    over = np.asarray(overlay_tile(grey, zero, None, voxel, "", "").picture).astype(int)
    assert (over == over[..., :1]).all()  # grey
    zero[5, 0] = 1
    marked = np.asarray(overlay_tile(grey, zero, None, voxel, "", "").picture).astype(int)
    assert (marked[:20, :20, 0] - marked[:20, :20, 2]).mean() > 40  # bright and warm in the upper left corner
    assert (marked[128:] == over[128:]).all()


def test_features_are_squares_that_are_not_smoothed() -> None:
    tile = map_tile(np.array([[0.0, 1.0], [2.0, 3.0]], np.float32), (8.0, 8.0), (0, 3), "", "")
    assert len({tuple(colour) for colour in np.asarray(tile.picture).reshape(-1, 3).tolist()}) == 4
    assert tile.picture.getpixel((255, 0)) == (253, 231, 36)  # viridis at its end: column 1 of the front row


def test_the_bar_of_the_slice_stands_out() -> None:
    picture = bars_tile(np.array([1.0, 0.5, 1.0, 1.0], np.float32), 1, "", "").picture
    assert picture.getpixel((96, 60)) == OUTLINE
    assert picture.getpixel((96, 20)) != OUTLINE
    assert picture.getpixel((32, 20)) == picture.getpixel((160, 20)) == (122, 130, 138)


def test_without_an_outline_the_map_decides(explainer: Explainer) -> None:
    cohort = replace(explainer.cohort, subjects=tuple(replace(s, seg=None) for s in explainer.cohort.subjects))
    bare = replace(explainer, cohort=cohort).explain(explainer.case(f"{HOSTILE}p0", "pixel", "none"))
    assert bare.outline is None
    cam = np.zeros_like(bare.account.sights[0].high.mean)
    cam[4] = 1.0
    sights = tuple(replace(sight, cam=cam) for sight in bare.account.sights)
    there = replace(bare, accounts=(replace(bare.account, sights=sights),))
    assert place_of(there).slice == 4
    assert slices_around(there, place_of(there)) == (0, 2, 4)  # 4 mm apart, so every second
    nothing = tuple(replace(sight, cam=None) for sight in sights)
    assert place_of(replace(there, accounts=(replace(bare.account, sights=nothing),))).slice == 3


def test_how_much_of_a_map_is_tumour(told: Explanation) -> None:
    assert told.outline is not None
    sight = told.account.sights[0]
    even = replace(sight, cam=np.ones_like(sight.high.mean))
    account = replace(told.account, sights=(replace(even, cam=even.cam * 4), even))
    found = strength(even, account, told)
    assert found is not None
    assert found.peak == 0.25
    head = told.images["t2"] > 0
    assert found.inside == pytest.approx(told.outline.mean(), rel=1e-5)
    assert found.room == pytest.approx((told.outline & head).sum() / head.sum())
    assert on_image(even.cam, told).shape == (6, 10, 12)


# Pages


class Tags(HTMLParser):
    """The tags of a page, with what they refer to, and its text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str, attribute: str) -> list[str]:
        return [str(attrs[attribute]) for name, attrs in self.tags if name == tag and attribute in attrs]


def test_the_page_loads_nothing_and_shows_strangers_words_as_they_are(files: dict[str, bytes]) -> None:
    page = Tags(files["index.html"])
    assert len(page.all("img", "src")) > 20
    assert all(source.startswith("data:image/png;base64,") for source in page.all("img", "src"))
    (policy,) = (attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy)
    assert "script-src" not in str(policy)
    assert not {"script", "iframe", "link"} & {tag for tag, _ in page.tags}
    assert '<img src="http://elsewhere/x">\\n/../p1, labelled HGG' in page.words
    assert set(page.all("a", "href")) == {name for name in files if name.startswith("viewer-")}
    assert all(attrs.get("alt") is not None for tag, attrs in page.tags if tag == "img")


def test_the_page_says_what_must_be_known(files: dict[str, bytes], told: Explanation) -> None:
    words = Tags(files["index.html"]).words
    for sentence in ("Not for clinical use", "no evidence of reasoning", "Trained on 4 subjects, of whom this is none"):
        assert sentence in words
    shares = ", ".join(f"{p:.3f}" for p in told.account.said.probabilities)
    assert re.findall(r"0\.\d{3}", shares)[0] in words
    assert "synthetic" not in words
    made_up = explained_files(replace(told, synthetic=True))["index.html"]
    assert "These data are synthetic" in Tags(made_up).words


def test_the_numbers_are_data_too(files: dict[str, bytes], told: Explanation) -> None:
    data = json.loads(files["explanation.json"])
    assert data["subject"] == f"{HOSTILE}p1"
    guidance = data["methods"][1]
    assert guidance["probabilities"] == dict(zip(told.classes, told.account.said.probabilities, strict=True))
    one = guidance["backbones"][0]
    np.testing.assert_allclose(one["cam"], told.account.sights[0].cam, rtol=1e-5)
    assert one["high_size"] == list(told.account.sights[0].high.mean.shape)


def test_files_have_safe_names(files: dict[str, bytes]) -> None:
    assert all(re.fullmatch(r"[\w.-]+", name) for name in files)
    assert {"overview.png", "slices.png", "channels.png"} < set(files)
    assert files["overview.png"].startswith(b"\x89PNG")
    assert folder_name(HOSTILE) != folder_name(HOSTILE.replace("/", ""))
    assert re.fullmatch(r"[\w.-]+", folder_name("../../etc"))


def test_a_map_that_is_nowhere_and_one_that_is_not_there(told: Explanation) -> None:
    first, second = told.account.sights
    gone = replace(told.account, sights=(replace(first, cam=first.cam * 0), replace(second, cam=None)))
    page = explained_files(replace(told, accounts=(gone,)))
    words = Tags(page["index.html"]).words
    assert f"nothing here speaks for {told.target}" in words
    assert "no gradient of the prediction reaches these features" in words
    assert not [name for name in page if name.startswith("viewer")]


def test_even_attention_is_not_drawn(told: Explanation) -> None:
    even = {"spatial": np.ones((6, 1, 1), np.float32) + 0.001 * np.arange(6, dtype=np.float32)[:, None, None]}
    sights = tuple(replace(sight, attention=even) for sight in told.account.sights)
    words = Tags(explained_files(replace(told, accounts=(replace(told.account, sights=sights),)))["index.html"]).words
    assert "even: 1.000 to 1.005" in words


def test_the_index_leads_to_each(told: Explanation) -> None:
    page = Tags(index_page([Entry.of(told)], "Chosen by id."))
    assert page.all("a", "href") == [f"{folder_name(told.case.subject)}/index.html"]
    assert "Chosen by id." in page.words
    assert not {"script", "img"} & {tag for tag, _ in page.tags}


# The viewer


def test_the_viewer_loads_nothing_and_takes_no_words_as_markup() -> None:
    image = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    text = viewer_page(View(image, image, (4.0, 3.0, 2.0), (1, 2, 3)), "<script>alert(1)</script>", "a & b")
    page = Tags(text.encode())
    assert not re.findall(r"https?://", text)
    assert "<script>alert" not in text
    assert "default-src 'none'; img-src data:" in text
    assert not page.all("link", "href")
    assert all(source.startswith("data:") for source in page.all("img", "src"))
    assert text.index("Content-Security-Policy") < text.index("<script")


def test_the_viewer_knows_left_and_front() -> None:
    affine = centred_affine((4, 5, 6), (4.0, 3.0, 2.0))  # (D, H, W)
    assert nibabel.aff2axcodes(affine) == ("R", "A", "S")
    np.testing.assert_allclose(affine @ [0, 0, 0, 1], [-5, -6, -6, 1])
    np.testing.assert_allclose(affine @ [5, 4, 3, 1], [5, 6, 6, 1])


# The command


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["fusionbench", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr()
    return int(stopped.value.code or 0), said.out + said.err


def test_the_command_writes_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path / "home"))
    small = ["phantom.subjects=8", "phantom.spacing=8", "recipe.epochs=1", "protocol.folds=2", "rmc.width=2"]
    small += ["preprocessing.resize=[4,8,8]", "recipe.stages.secondary.epochs=1"]
    settings = [word for setting in small for word in ("--set", setting)]
    trained = ["run", "--fusion", "guidance", "--ranking", "fixed", "--jobs", "1", "--modalities", "t1ce,t2"]
    assert call([*trained, "--out", "r", *settings], monkeypatch, capsys)[0] == 0
    code, said = call(["explain", "r", "--subject", "Phantom_003", "--out", "seen"], monkeypatch, capsys)
    assert code == 0, said
    page = tmp_path / "seen" / folder_name("Phantom_003") / "index.html"
    assert "These data are synthetic" in Tags(page.read_bytes()).words
    assert (tmp_path / "seen" / "index.html").is_file()
    code, said = call(["explain", "r", "--subject", "Phantom_003", "--out", "seen"], monkeypatch, capsys)
    assert (code, said) == (2, "fusionbench: seen exists: choose another folder with --out\n")
    code, said = call(["explain", "r", "--out", "more"], monkeypatch, capsys)
    assert (code, said) == (2, "fusionbench: say whom to look at: --subject ID, or --select rescued or wrong\n")
    rows = (tmp_path / "r" / "predictions.csv").read_text().splitlines()
    always = [re.sub(r"(HGG|LGG),[\d.e-]+,[\d.e-]+", _right, row) for row in rows]
    (tmp_path / "r" / "predictions.csv").write_text("\n".join(always) + "\n")
    code, said = call(["explain", "r", "--select", "rescued", "--out", "more"], monkeypatch, capsys)
    assert (code, said) == (0, "Nobody in r is rescued by guidance: nothing is written.\n")
    assert not (tmp_path / "more").exists()


def _right(row: re.Match[str]) -> str:
    return f"{row[1]},{'0.9,0.1' if row[1] == 'HGG' else '0.1,0.9'}"


def test_strongest_channels_come_first() -> None:
    import torch

    features = torch.tensor([0.1, -3.0, 2.0, 0.0, 1.0, 0.5])[:, None, None, None].expand(6, 1, 2, 2)
    found = FeatureMap.of(features)
    assert list(found.strongest) == [1, 2, 4, 5]
    assert found.channels == 6
    assert Sight(("t1",), found, found, None).changed is None
