"""Guidance learns from a secondary: where t2 alone knows the grade, it leaves its primary behind."""

from __future__ import annotations

from pathlib import Path

from fusionbench import Leaderboard, Run, Store, load_comparison, open_study, run


def test_guidance_learns_what_only_a_secondary_knows(tmp_path: Path) -> None:
    """A start that does no harm and never moves fails this; docs/learning.md has more and larger cohorts."""
    asked = {
        "fusion": ["guidance"],
        "baselines": ["unimodal"],
        "modalities": ["t1ce", "t2"],
        "protocol": {"folds": 3, "ranking": {"ranker": "fixed", "primary": "t1ce"}},
        "options": {"phantom": {"subjects": 60, "seed": 200, "hgg_share": 0.5, "informative": ["t2"]}},
    }
    study = open_study(load_comparison("radiomics", asked), home=tmp_path)
    board = Leaderboard.of(Run.of(run(study, Store(tmp_path / "store"))))
    scores = {row.method: row.mean("roc_auc") for row in board.rows}
    assert scores["guidance"] > scores["t1ce"] + 0.10
    assert scores["guidance"] > 0.7
