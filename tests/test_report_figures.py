"""Figures by value: points, ticks, and what a file of them holds."""

from __future__ import annotations

import io
import statistics
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from made_runs import made_sources
from PIL import Image
from sklearn.metrics import roc_auc_score, roc_curve

from fusionbench.comparing import pooled, standings
from fusionbench.histories import Epoch
from fusionbench.predictions import Predictions
from fusionbench.report import document, figure_files
from fusionbench.report.axes import Scale, span
from fusionbench.report.curves import area, bins_of, calibration_panel, fold_dots, roc_points
from fusionbench.report.drawing import Box, Dot, Drawing, Label, Line, shortened
from fusionbench.report.pairs import rank_diagram
from fusionbench.report.raster import png
from fusionbench.report.svg import inline, standalone
from fusionbench.report.training import loss_panel

HOSTILE = "<img src=x onerror=alert(1)>"


def said(scores: list[float], labels: str) -> Predictions:
    """Predictions of two classes, N and P."""
    table = np.array([[1 - score, score] for score in scores])
    return Predictions(tuple(f"s{n}" for n in range(len(scores))), tuple(labels), ("N", "P"), table)


def test_a_roc_curve_by_hand() -> None:
    assert roc_points(said([0.9, 0.8, 0.7, 0.1], "PNPN"), "P") == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]


def test_ties_are_one_slanted_step() -> None:
    assert roc_points(said([0.5, 0.5, 0.5, 0.5], "PNPN"), "P") == [(0, 0), (1, 1)]


def test_a_class_that_is_missing_has_no_curve() -> None:
    assert roc_points(said([0.5, 0.6], "PP"), "P") == []


def test_roc_curves_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    scores, hits = random.integers(0, 40, 200) / 40, random.random(200) < 0.4
    points = roc_points(said(scores.tolist(), "".join("NP"[hit] for hit in hits.astype(int))), "P")
    false, found, _ = roc_curve(hits, scores, drop_intermediate=False)
    assert set(zip(false, found, strict=True)) >= set(points)
    x, y = zip(*points, strict=True)
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(hits, scores), abs=1e-12)


def test_pooling_has_each_subject_once_per_repeat(tmp_path: Path) -> None:
    (row, *_) = made_sources(tmp_path, subjects=30).tested
    assert [len(part.ids) for part in pooled(row.tested)] == [30] * 4


def test_of_more_classes_each_has_its_curve(tmp_path: Path) -> None:
    sources = made_sources(tmp_path, classes=("I", "II", "III"), repeats=1)
    assert sources.shown_classes == ("I", "II", "III")
    row = sources.tested[0]
    titles = [drawing.title for drawing in document(sources).figures() if drawing.name.startswith("roc-")]
    assert titles[:3] == [f"ROC curve of {row.method}: {name}" for name in ("I", "II", "III")]
    assert len(titles) == 9
    areas = [
        statistics.fmean(area(roc_points(part, name)) for part in row.tested.values()) for name in ("I", "II", "III")
    ]
    assert statistics.fmean(areas) == pytest.approx(row.mean("roc_auc"), abs=1e-12)


def test_whiskers_are_of_the_first_repeat_only(tmp_path: Path) -> None:
    row = made_sources(tmp_path).tested[0]
    dots = [shape for shape in calibration_panel(row, "LGG", "guidance").shapes if isinstance(shape, Dot)]
    assert len(dots) == len(bins_of(pooled(row.tested)[0], "LGG"))


def test_fold_dots_lie_where_the_scores_are(tmp_path: Path) -> None:
    sources = made_sources(tmp_path)
    drawing = fold_dots(sources.tested, "roc_auc", "ROC-AUC")
    dots = [shape for shape in drawing.shapes if isinstance(shape, Dot)]
    assert len(dots) == 3 * 12
    best, worst = sources.tested[0], sources.tested[-1]
    assert max(dot.x for dot in dots if dot.y == dots[0].y) > max(dot.x for dot in dots if dot.y == dots[-1].y)
    assert f"{best.method}: " in drawing.description
    assert f"mean {worst.mean('roc_auc'):.3f}" in drawing.description


def test_the_rank_diagram_reaches_from_best_to_worst_place() -> None:
    drawing = rank_diagram(standings("abc", {("a", "c")}))
    bars = [shape for shape in drawing.shapes if isinstance(shape, Box)]
    places = [shape.x for shape in drawing.shapes if isinstance(shape, Label) and shape.text in "123"]
    ends = [(bar.x + 6, bar.x + bar.width - 6) for bar in bars]
    assert ends == [(places[0], places[1]), (places[0], places[2]), (places[1], places[2])]
    assert drawing.description == "a: 1-2; b: 1-3; c: 2-3"


def test_a_loss_has_a_line_per_fit_and_stage() -> None:
    history = [
        Epoch("guidance", 0, fold, stage, epoch, 1.0 - 0.1 * epoch)
        for fold in range(3)
        for stage, epochs in (("first", 4), ("second", 2))
        for epoch in range(epochs)
    ]
    drawing = loss_panel("guidance", history)
    lines = [shape for shape in drawing.shapes if isinstance(shape, Line) and shape.tone == "accent"]
    assert [len(line.points) for line in lines] == [4, 2] * 3
    assert "first (4 epochs), second (2 epochs)" in drawing.description


@pytest.mark.parametrize(
    ("ends", "ticks"),
    [
        ((0.0, 1.0), [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ((0.7, 0.9), [0.7, 0.75, 0.8, 0.85, 0.9]),
        ((0, 250), [0, 50, 100, 150, 200, 250]),
    ],
)
def test_ticks_are_round(ends: tuple[float, float], ticks: list[float]) -> None:
    assert Scale(*ends, 0, 100).ticks() == pytest.approx(ticks)


def test_a_span_holds_everything_and_is_never_empty() -> None:
    assert span([0.42, 0.88], ceiling=1.0) == (0.4, 0.9)
    low, high = span([0.5, 0.5])
    assert low < 0.5 < high or low == 0.5 < high
    assert span([float("nan")]) == (0.0, 1.0)


def test_a_file_stands_alone_and_keeps_its_text() -> None:
    shapes = [Label(0, 10, HOSTILE), Line(((0, 0), (9, 9)), "rule"), Dot(3, 3, hollow=True), Box(0, 0, 2, 2)]
    drawing = Drawing.of(HOSTILE, HOSTILE, "a\x00b", (20, 20), shapes)
    for text in (standalone(drawing), inline(drawing, "f")):
        root = ElementTree.fromstring(text)
        assert HOSTILE not in text
        assert HOSTILE in [element.text for element in root.iter() if element.tag.endswith("text")]
        assert "://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "style=" not in text
    assert "\\x00" in standalone(drawing)
    assert "var(" not in standalone(drawing)


def test_a_png_is_as_large_as_asked_and_tells_nothing_else() -> None:
    drawing = Drawing.of("x", "x", "x", (96, 48), [Label(4, 20, "p $ 5"), Box(0, 0, 10, 48, "accent"), Dot(50, 20)])
    picture = Image.open(io.BytesIO(png(drawing, dpi=192)))
    assert picture.size == (192, 96)
    assert picture.getpixel((5, 50))[:3] == (0x1D, 0x5C, 0x8F)
    assert set(picture.info) <= {"dpi"}


def test_figures_have_safe_names_and_say_that_data_are_synthetic(tmp_path: Path) -> None:
    methods = {"../a b": 3.0, "t1ce": 0.5}
    sources = made_sources(tmp_path, methods=methods, cohort={"synthetic": True})
    found = figure_files(document(sources), "svg")
    assert all("/" not in name and " " not in name and not name.startswith(".") for name in found)
    assert {"folds.svg", "ranks.svg", "roc-t1ce.svg", "loss-t1ce.svg"} <= set(found)
    assert all(b"SYNTHETIC DATA" in content for content in found.values())


def test_figures_of_real_data_are_not_stamped(tmp_path: Path) -> None:
    found = figure_files(document(made_sources(tmp_path)), "svg")
    assert not any(b"SYNTHETIC" in content for content in found.values())


def test_long_names_are_cut() -> None:
    assert shortened("x" * 40, 12) == "x" * 11 + "…"
