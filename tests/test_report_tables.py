"""Tables by value: costs, differences, modalities, cohort, checklist."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_runs import FIRST, SECOND, card, made_run, made_sources, predictions_csv, write_made
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from fusionbench.leaderboard import Leaderboard, Row
from fusionbench.published import published
from fusionbench.report import Sources, model_card
from fusionbench.report.checklist import NOT_STATED, checked, checklist
from fusionbench.report.cohort import available, cohort, facts
from fusionbench.report.contributions import contributions, lattices
from fusionbench.report.costs import UNKNOWN, cost
from fusionbench.report.document import Code, Figure, Paragraph, Table
from fusionbench.report.pairs import differences
from fusionbench.report.ranking import ranked, rankings
from fusionbench.report.reliability import reliability_table
from fusionbench.report.reproduce import commands, reproduce
from fusionbench.report.scores import costs, further, performance
from fusionbench.report.sources import Setup


def text(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def tables(blocks: object) -> dict[str, Table]:
    return {block.name: block for block in blocks if isinstance(block, Table)}  # type: ignore[attr-defined]


# Scores and costs


def test_the_leaderboard_has_ranks_intervals_and_marks(tmp_path: Path) -> None:
    table = performance(made_sources(tmp_path, told={"guidance": {"saw_test_folds": True}}))
    assert table.header == ("Method", "Rank", "ROC-AUC", "Balanced accuracy", "Sensitivity", "Specificity")
    first, _, last = table.rows
    assert (first[0].text, first[0].note) == ("guidance", "selection saw the test folds")
    assert (first[1].text, last[1].text) == ("1–2", "3")
    assert " ± " in first[2].text
    assert all(" to " in cell.note for cell in first[2:])
    assert first[2].strong
    assert not last[2].strong
    assert "positive class LGG" in table.caption


def test_without_folds_enough_there_is_no_rank(tmp_path: Path) -> None:
    assert "Rank" not in performance(made_sources(tmp_path, repeats=1)).header


def test_synthetic_data_are_in_the_caption(tmp_path: Path) -> None:
    assert performance(made_sources(tmp_path, cohort={"synthetic": True})).caption.startswith("SYNTHETIC DATA.")


def test_a_failed_method_has_a_row_without_numbers(tmp_path: Path) -> None:
    table = performance(made_sources(tmp_path, told={"guidance": {"failed": "out of memory"}}))
    assert [cell.text for cell in table.rows[-1]] == ["guidance", "", "failed", "", "", ""]


def test_published_scores_stand_beside(tmp_path: Path) -> None:
    papers = {"modalities": ["t1ce", "t2", "flair", "t1"], "attention": "dual", "backbones": ["rmc"]}
    folder = write_made(made_run(told={"guidance": papers}), tmp_path / "made")
    table = performance(Sources.read(folder, published=published("brats2018")))
    column = table.header.index("Published balanced accuracy")
    assert [row[column].text[:5] for row in table.rows] == ["0.985", "", ""]


def test_columns_of_which_nothing_was_published_are_left_out(tmp_path: Path) -> None:
    folder = write_made(made_run(), tmp_path / "made")
    table = performance(Sources.read(folder, published=published("brats2018")))
    assert not [name for name in table.header if name.startswith("Published")]


def test_the_other_metrics_have_their_intervals_and_the_roc_auc_that_of_delong(tmp_path: Path) -> None:
    sources = made_sources(tmp_path)
    table, findings = further(sources), sources.board.findings
    names = ["Accuracy", "Average precision", "Brier score", "Calibration error", "ROC-AUC, DeLong's interval"]
    assert list(table.header[1:]) == names
    assert findings
    for row, estimate in zip(table.rows, findings.estimates, strict=True):
        for cell, name in zip(row[1:5], ("accuracy", "average_precision", "brier", "ece"), strict=True):
            interval = estimate.intervals[name]
            assert cell.note == f"{interval.low:.3f} to {interval.high:.3f}"
        assert row[5].text == f"{estimate.delong.low:.3f} to {estimate.delong.high:.3f}"
    assert "pooled over the test folds" in table.caption
    assert "pooled over the test folds" in performance(sources).caption


def test_of_more_than_two_classes_there_is_no_delong(tmp_path: Path) -> None:
    assert "DeLong" not in str(further(made_sources(tmp_path, classes=("I", "II", "III"))))


def test_recalibration_is_that_of_a_logistic_regression_of_the_pooled_folds(tmp_path: Path) -> None:
    sources = made_sources(tmp_path, repeats=2)
    row = next(row for row in sources.tested if row.method == FIRST)
    cells = next(line for line in reliability_table(sources).rows if line[0].text == FIRST)
    intercept, slope, *parts = (cell.value for cell in cells[1:])
    slopes, briers = [], []
    for repeat in (0, 1):
        several = [part for (r, _), part in row.tested.items() if r == repeat]
        p = np.concatenate([part.probabilities[:, 1] for part in several])
        y = np.concatenate([part.targets == 1 for part in several]).astype(int)
        slopes.append(LogisticRegression(C=np.inf, tol=1e-10).fit(np.log(p / (1 - p))[:, None], y).coef_[0, 0])
        briers.append(brier_score_loss(y, p))
    assert slope == pytest.approx(np.mean(slopes), rel=1e-4)
    brier, miscalibration, discrimination, uncertainty = parts
    assert brier == pytest.approx(np.mean(briers))
    assert brier == pytest.approx(miscalibration - discrimination + uncertainty)
    assert uncertainty == 0.25
    assert intercept is not None
    assert intercept < 0.5


def test_recalibration_is_empty_where_classes_are_separated_and_of_each_class_if_there_are_more(tmp_path: Path) -> None:
    separated = reliability_table(made_sources(tmp_path / "a", methods={"guidance": 50.0}))
    assert separated.rows[0][2].text == ""
    several = reliability_table(made_sources(tmp_path / "b", classes=("I", "II", "III")))
    assert [row[1].text for row in several.rows] == ["I", "II", "III"] * 3


def test_what_a_method_costs(tmp_path: Path) -> None:
    sources = made_sources(tmp_path)
    found = {row.method: cost(sources, row) for row in sources.board.rows}
    assert found[FIRST].seconds == found["guidance"].seconds == 3.0  # 4 less 1 of predicting
    assert found["guidance"].seconds_with_parents == 6.0  # with its primary
    assert found[FIRST].seconds_with_parents == 3.0
    assert found[FIRST].seconds_per_subject == 1.0 / 20
    assert found[FIRST].memory_bytes == 2**20 * 111  # the most of twelve fits
    assert [cell.text for cell in costs(sources).rows[0][1:]] == ["1,000", "3 (6)", "50", "111"]


def test_of_what_was_made_elsewhere_no_cost_is_known(tmp_path: Path) -> None:
    run = made_run()
    folder = write_made(run, tmp_path / "made")
    sources = Sources.read(folder, imported={"theirs": predictions_csv(run, tmp_path)})
    row = next(row for row in sources.board.rows if row.method == "theirs")
    assert cost(sources, row) is UNKNOWN
    assert sources.history(row) == []
    assert "imported" in performance(sources).rows[0][0].note


# Differences


def test_the_matrix_has_each_pair_once(tmp_path: Path) -> None:
    findings = made_sources(tmp_path).board.findings
    assert findings
    matrix = tables(differences(findings))["differences"]
    assert matrix.header == ("Row minus column", "ensemble", FIRST)
    (guidance, ensemble) = matrix.rows
    assert guidance[2].text.endswith("*")
    assert guidance[2].strong
    assert not guidance[1].strong
    assert ensemble[1].text == ""
    pair = next(pair for pair in findings.pairs if (pair.a, pair.b) == ("guidance", FIRST))
    assert guidance[2].value == pair.difference
    full = tables(differences(findings))["pairs"]
    assert full.header[2] == "95 % interval, unadjusted"


def test_overlapping_bars_are_not_said_to_be_tied(tmp_path: Path) -> None:
    findings = made_sources(tmp_path).board.findings
    assert findings
    (figure,) = [block for block in differences(findings) if isinstance(block, Figure)]
    assert "Bars may overlap though the tests separate their methods" in figure.caption


def test_with_too_few_folds_no_test_is_shown(tmp_path: Path) -> None:
    findings = made_sources(tmp_path, repeats=1).board.findings
    assert findings
    blocks = list(differences(findings))
    assert isinstance(blocks[0], Paragraph)
    assert blocks[0].warning
    assert tables(blocks)["pairs"].header == ("Pair", "Difference", "p (DeLong)")


# Modalities


def test_the_ranking_says_how_certain_it_is(tmp_path: Path) -> None:
    sources = made_sources(tmp_path)
    (found,) = rankings(sources.board)
    assert found.frequency == {FIRST: (11 / 12, 1 / 12), SECOND: (1 / 12, 11 / 12)}
    assert found.probability[FIRST] == pytest.approx((0.75 - 0.5 / 12, 0.25 + 0.5 / 12))
    assert found.agreement.kendall_w == pytest.approx((5 / 6) ** 2)  # of two: the squared difference of the shares
    table = tables(ranked(sources.board))["places"]
    assert text(table)[0][:3] == [FIRST, "11 of 12", "1.08"]
    assert "Kendall's W 0.69 over 12 orders" in table.caption
    assert "folds share most training data, so it flatters" in table.caption


def test_folds_have_the_numbers_that_they_have_in_the_files(tmp_path: Path) -> None:
    orders = tables(ranked(made_sources(tmp_path).board))["orders"]
    assert [row[0] for row in text(orders)][:4] == [
        f"repeat {r}, fold {f}" for r, f in ((0, 0), (0, 1), (0, 2), (1, 0))
    ]
    assert "count from 0, as in the files" in orders.caption


def test_orders_of_subsets_are_not_shown_apart(tmp_path: Path) -> None:
    board = made_sources(tmp_path).board
    part = [replace(line, experiment="e-part", modality="t1ce") for line in board.ranking if line.rank == 1]
    assert len(rankings(replace(board, ranking=(*board.ranking, *part)))) == 1


def board_of(scores: dict[tuple[str, ...], float], fusion: str = "guidance", singles: str = "guidance") -> Leaderboard:
    """A board of one strategy on sets of modalities."""
    rows = tuple(
        Row(
            "+".join(names), "e", {"roc_auc": (score, score), "balanced_accuracy": (score, score)},
            fusion=singles if len(names) == 1 else fusion, modalities=names, attention="none", backbones=("mlp",),
        )
        for names, score in scores.items()
    )  # fmt: skip
    modalities = list(dict.fromkeys(name for names in scores for name in names))
    return Leaderboard(rows, {"modalities": modalities}, 2, ())


SETUP: Setup = ("strategy", "shared")


def alike(row: Row) -> Setup:
    """All rows were asked for alike."""
    return SETUP


ABLATED = {("p",): 0.7, ("p", "a"): 0.8, ("p", "b"): 0.7, ("p", "a", "b"): 0.9}


def test_shapley_values_beside_what_is_always_there() -> None:
    (found,) = lattices(board_of(ABLATED), alike)
    assert found.base == {"p"}
    assert found.order == ("p", "a", "b")
    assert found.gains() == pytest.approx({"a": 0.15, "b": 0.05})  # (.1 + .2) / 2, (.0 + .1) / 2


def test_shapley_values_of_everything() -> None:
    (found,) = lattices(board_of({("a",): 0.75, ("b",): 0.5, ("a", "b"): 1.0}), alike)
    assert found.base == frozenset()
    assert found.gains() == pytest.approx({"a": 0.375, "b": 0.125})


def test_single_modalities_of_another_strategy_stand_in() -> None:
    board = board_of({("a",): 0.75, ("b",): 0.5, ("a", "b"): 1.0}, singles="unimodal")
    found = next(one for one in lattices(board, alike) if one.fusion == "guidance")
    assert found.gains() == pytest.approx({"a": 0.375, "b": 0.125})
    blocks = list(contributions(board, alike))
    assert "A single modality is scored by a and b." in blocks[0].caption  # type: ignore[union-attr]
    assert "the value of no modality is 0.5" in blocks[0].caption  # type: ignore[union-attr]


def test_other_attention_does_not_stand_in() -> None:
    board = board_of({("a",): 0.75, ("b",): 0.5, ("a", "b"): 1.0}, singles="unimodal")
    rows = tuple(replace(row, attention="dual") if len(row.modalities) == 1 else row for row in board.rows)
    assert [one.gains() for one in lattices(replace(board, rows=rows), alike) if one.fusion == "guidance"] == [{}]


def test_where_a_subset_is_missing_there_is_no_value() -> None:
    board = board_of({names: score for names, score in ABLATED.items() if names != ("p", "b")})
    (found,) = lattices(board, alike)
    assert found.gains() == {}
    assert found.missing == [frozenset("pb")]
    (said,) = [block.text for block in contributions(board, alike) if isinstance(block, Paragraph)]
    assert said == (
        "No Shapley values of p+a+b: they need the ROC-AUC of every subset with all other settings alike, and there is "
        "none of p + b."
    )


@pytest.mark.parametrize("setup", [("strategy", ""), ("", "shared")])
def test_rows_of_another_recipe_are_not_mixed_in(setup: Setup) -> None:
    board = board_of(ABLATED)
    other = {"p+b": setup}
    (found, *_) = lattices(board, lambda row: other.get(row.method, SETUP))
    assert found.gains() == {}
    (said,) = [
        block.text
        for block in contributions(board, lambda row: other.get(row.method, SETUP))
        if isinstance(block, Paragraph)
    ]
    assert said.endswith("none of p + b. p + b is there with other settings only, which are not mixed.")


def test_a_single_modality_of_another_recipe_does_not_stand_in() -> None:
    board = board_of({("a",): 0.75, ("b",): 0.5, ("a", "b"): 1.0}, singles="unimodal")
    for setup, gains in ((("another", SETUP[1]), 2), ((SETUP[0], "another"), 0)):
        found = lattices(board, lambda row, setup=setup: setup if len(row.modalities) == 1 else SETUP)  # type: ignore[misc]
        assert [len(one.gains()) for one in found if one.fusion == "guidance"] == [gains]


def test_plain_runs_are_not_told_what_an_ablation_would_need(tmp_path: Path) -> None:
    board = board_of({("p",): 0.7, ("p", "a", "b"): 0.9})
    assert list(contributions(board, alike)) == []


def test_the_table_of_subsets() -> None:
    table = tables(contributions(board_of(ABLATED), alike))["subsets-p+a+b"]
    assert table.header == ("Method", "p", "a", "b", "ROC-AUC", "Balanced accuracy", "Difference")
    assert [row[:4] + row[6:] for row in text(table)] == [
        ["p", "●", "", "", "−0.200"],
        ["p+a", "●", "●", "", "−0.100"],
        ["p+b", "●", "", "●", "−0.200"],
        ["p+a+b", "●", "●", "●", ""],
    ]
    assert tables(contributions(board_of(ABLATED), alike))["shapley"].rows[0][1].text == "0.700"


def test_scores_by_what_subjects_have(tmp_path: Path) -> None:
    sources = made_sources(tmp_path, cohort={"lacking": {f"s{n:03d}": [SECOND] for n in range(20)}})
    (table,) = available(sources)
    assert isinstance(table, Table)
    mine = [row[1:3] for row in text(table) if row[0] == "guidance"]
    assert mine == [[f"{FIRST}+{SECOND}", "20 HGG, 20 LGG"], [FIRST, "10 HGG, 10 LGG"]]


# Cohort, checklist, reproduction


def test_patients_are_counted(tmp_path: Path) -> None:
    sources = made_sources(tmp_path, cohort={"groups": {"s000": "p1", "s001": "p1", "s002": "p2"}})
    assert dict(facts(sources))["Patients"].startswith("59 ")


def test_a_card_is_shown_if_it_is_of_these_data(tmp_path: Path) -> None:
    run = made_run()
    folder = write_made(run, tmp_path / "made")
    (folder / "card.json").write_text(card(run))
    assert text(tables(cohort(Sources.read(folder)))["card-present"]) == [[FIRST, "30", "29"]]
    (folder / "card.json").write_text(card(run, fingerprint="another"))
    assert "card-present" not in tables(cohort(Sources.read(folder)))
    (folder / "card.json").write_text("{")
    assert Sources.read(folder).card is None


def test_the_checklist_says_what_the_run_cannot_know(tmp_path: Path) -> None:
    told = {item.asks: item.answer for item in checked(made_sources(tmp_path))}
    assert told["ethical approval, consent"] == NOT_STATED
    assert told["positive class"] == "LGG"
    assert told["what was excluded while reading, with reasons"] == "2 subjects left out: no label"
    assert told["are they synthetic"] == "not marked as such by their reader"
    assert told["identification of the data"].endswith("f" * 64)
    assert told["statistical test of differences"] == "corrected resampled t-test, Holm"


def test_the_checklist_counts_what_is_filled_in(tmp_path: Path) -> None:
    sources = made_sources(tmp_path)
    items = {item.asks: item for item in checked(sources)}
    open_ends = {"what was chosen, and on which data", "sample size justified"}
    assert {asks for asks, item in items.items() if item.known and not item.stated} == open_ends
    assert items["sample size justified"].cell.note == "whether it was justified beforehand: not stated"
    (told, table) = checklist(sources)
    cells = [row[2] for row in table.rows]  # type: ignore[union-attr]
    none = sum(cell.text == NOT_STATED for cell in cells)
    full = sum(NOT_STATED not in cell.whole for cell in cells)
    assert full + none + 2 == len(cells)
    assert f"Of {len(cells)} items {full} are filled in from the run and 2 in part; {none} say" in told.text  # type: ignore[union-attr]
    assert all(cell.strong == (cell.text == NOT_STATED) for cell in cells)


def test_nothing_is_claimed_of_predictions_made_elsewhere(tmp_path: Path) -> None:
    run = made_run()
    folder = write_made(run, tmp_path / "made")
    sources = Sources.read(folder, imported={"theirs": predictions_csv(run, tmp_path)})
    items = {item.asks: item for item in checked(sources)}
    assert items["methods compared"].answer == f"guidance, ensemble, {FIRST}; made elsewhere: theirs"
    for asks in ("initialisation", "training", "class imbalance", "seeds", "hardware", "preprocessing"):
        assert items[asks].cell.note == "of theirs, made elsewhere: not stated"
        assert not items[asks].stated
    card = model_card(sources)
    trained = card[card.index("## Training\n") : card.index("## How well")]
    assert "theirs" not in trained
    assert "Not of theirs: predictions made elsewhere" in card
    assert commands(sources)[-1] == ("fusionbench report again/made --import theirs=PREDICTIONS.csv --out report.html")


def test_of_several_runs_each_is_told_where_they_differ(tmp_path: Path) -> None:
    two = made_run("two", {"decision": 2.8})
    two.facts["seeds"]["seed"] = 7
    two.facts["versions"]["fusionbench"] = "0.2.0"
    folders = [write_made(made_run("one"), tmp_path / "one"), write_made(two, tmp_path / "two")]
    toml = folders[1] / "experiment.toml"
    toml.write_text(f"{toml.read_text()}\n[recipe]\nepochs = 9\n")
    sources = Sources.read(*folders)
    told = {item.asks: item.answer for item in checked(sources)}
    assert told["seeds"] == "one: seed 0, fold_seed 0; two: seed 7, fold_seed 0"
    assert told["training"].startswith("one: Adam, 200 epochs,")
    assert "; two: Adam, 9 epochs," in told["training"]
    assert told["hardware"] == "Linux x86_64, 2 cores, device cpu"
    assert [line for line in commands(sources) if "pip" in line or "run" in line] == [
        "pip install fusionbench==0.1.0",
        "fusionbench run --config one/experiment.toml --data PATH/TO/DATA --cohort table --out again/one",
        "pip install fusionbench==0.2.0",
        "fusionbench run --config two/experiment.toml --data PATH/TO/DATA --cohort table --out again/two",
    ]


def test_runs_in_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [write_made(made_run(told=changes), tmp_path / place / "made") for place, changes in PLACES.items()]
    sources = Sources.read(*folders)
    assert [run.name for run in sources.runs] == ["here/made", "there/made"]
    found = [(row.method, *(sources.behind(row) or ())) for row in sources.board.rows if "guidance" in row.method]
    assert {(method, run.name, name) for method, run, name in found} == {  # type: ignore[misc]
        (f"guidance ({place}/made)", f"{place}/made", "guidance") for place in PLACES
    }


PLACES = {"here": {}, "there": {"guidance": {"fits": [f"other-{fold}" for fold in range(12)]}}}


def test_the_checklist_of_too_few_folds_names_no_test(tmp_path: Path) -> None:
    told = {item.asks: item.answer for item in checked(made_sources(tmp_path, repeats=1))}
    assert told["statistical test of differences"] == "none: too few folds"


def test_the_commands_and_settings_tell_no_place(tmp_path: Path) -> None:
    sources = made_sources(tmp_path)
    assert commands(sources) == [
        "pip install fusionbench==0.1.0",
        "fusionbench run --config made/experiment.toml --data PATH/TO/DATA --cohort table --out again/made",
        "fusionbench report again/made --out report.html",
    ]
    codes = [block.text for block in reproduce(sources) if isinstance(block, Code)]
    assert "rosa" not in "".join(codes)
    assert 'attention = "none"' in codes[-1]
