"""Comparing: what may be claimed from a cross-validated comparison, as pure functions of predictions and scores."""

from fusionbench.comparing.calibration import Bin, Calibration, calibration, reliability
from fusionbench.comparing.delong import AreaUnderCurve, delong_p
from fusionbench.comparing.findings import ENOUGH_SCORES, KNOWN, TOO_FEW, Estimate, Findings, Pair, compare
from fusionbench.comparing.intervals import CONDITIONAL, Interval, Resample, bootstrap, shares, wilson
from fusionbench.comparing.orders import Agreement, agreement, rank_probabilities
from fusionbench.comparing.pooling import Place, Tested, mean_or_nan, pooled, pooled_score, undefined
from fusionbench.comparing.power import Detectable, smallest_auc_difference, smallest_difference
from fusionbench.comparing.resampled import ROPE, Difference, holm
from fusionbench.comparing.shapley import shapley
from fusionbench.comparing.standings import Standing, standings

__all__ = [
    "CONDITIONAL",
    "ENOUGH_SCORES",
    "KNOWN",
    "ROPE",
    "TOO_FEW",
    "Agreement",
    "AreaUnderCurve",
    "Bin",
    "Calibration",
    "Detectable",
    "Difference",
    "Estimate",
    "Findings",
    "Interval",
    "Pair",
    "Place",
    "Resample",
    "Standing",
    "Tested",
    "agreement",
    "bootstrap",
    "calibration",
    "compare",
    "delong_p",
    "holm",
    "mean_or_nan",
    "pooled",
    "pooled_score",
    "rank_probabilities",
    "reliability",
    "shapley",
    "shares",
    "smallest_auc_difference",
    "smallest_difference",
    "standings",
    "undefined",
    "wilson",
]
