"""Radiomics: the published values of IBSI's phantom, what mirp computes, and what symmetry demands.

Run this file as a program to see what mirp gives for data/radiomics_mirp.csv.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fusionbench import CohortError, FusionBenchError
from fusionbench.errors import UsageError
from fusionbench.options import resolve_options
from fusionbench.source import sources
from fusionbench_plugins.extractors import mirp as mirp_plugin
from fusionbench_plugins.extractors import radiomics as radiomics_plugin
from fusionbench_plugins.extractors.mirp import Mirp
from fusionbench_plugins.extractors.radiomics import EVERY, FAMILIES, Radiomics
from fusionbench_plugins.extractors.radiomics.extents import counted
from fusionbench_plugins.extractors.radiomics.family import half_of_neighbours

ROOT = Path(__file__).parent.parent
RECORDED = Path(__file__).parent / "data" / "radiomics_mirp.csv"
Scan = tuple[np.ndarray, np.ndarray, tuple[float, float, float]]


def row(extractor: Radiomics | Mirp, scan: Scan) -> dict[str, float]:
    return dict(zip(extractor.names, extractor.extract(*scan), strict=True))


# ------------------------------------------------------------------------------------------------------- the phantom

X = 0  # excluded
PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [X, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, X, X], [1, 1, 1, 1, 1], [1, 1, X, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, X, X], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ],
    dtype=float,
)
"""IBSI's digital phantom, 4 x 4 x 5 voxels (z, y, x) of 2 mm: reference manual (arXiv 1612.07003), chapter 5."""

CONSENSUS: dict[str, tuple[float, float, str]] = {
    "morphology-volume": (556, 4, "morph_volume"),
    "morphology-volume-voxel-counting": (592, 4, "morph_vol_approx"),
    "morphology-surface-area": (388, 3, "morph_area_mesh"),
    "morphology-surface-to-volume-ratio": (0.698, 0.004, "morph_av"),
    "morphology-compactness-1": (0.0411, 0.0003, "morph_comp_1"),
    "morphology-compactness-2": (0.599, 0.004, "morph_comp_2"),
    "morphology-spherical-disproportion": (1.19, 0.01, "morph_sph_dispr"),
    "morphology-sphericity": (0.843, 0.005, "morph_sphericity"),
    "morphology-maximum-3d-diameter": (13.1, 0.1, "morph_diam"),
    "morphology-major-axis-length": (11.4, 0.1, "morph_pca_maj_axis"),
    "morphology-minor-axis-length": (9.31, 0.06, "morph_pca_min_axis"),
    "morphology-least-axis-length": (8.54, 0.05, "morph_pca_least_axis"),
    "morphology-elongation": (0.816, 0.005, "morph_pca_elongation"),
    "morphology-flatness": (0.749, 0.005, "morph_pca_flatness"),
    "intensity-mean": (2.15, 0, "stat_mean"),
    "intensity-variance": (3.05, 0, "stat_var"),
    "intensity-skewness": (1.08, 0, "stat_skew"),
    "intensity-excess-kurtosis": (-0.355, 0, "stat_kurt"),
    "intensity-median": (1, 0, "stat_median"),
    "intensity-minimum": (1, 0, "stat_min"),
    "intensity-percentile-10": (1, 0, "stat_p10"),
    "intensity-percentile-90": (4, 0, "stat_p90"),
    "intensity-maximum": (6, 0, "stat_max"),
    "intensity-interquartile-range": (3, 0, "stat_iqr"),
    "intensity-range": (5, 0, "stat_range"),
    "intensity-mean-absolute-deviation": (1.55, 0, "stat_mad"),
    "intensity-robust-mean-absolute-deviation": (1.11, 0, "stat_rmad"),
    "intensity-median-absolute-deviation": (1.15, 0, "stat_medad"),
    "intensity-coefficient-of-variation": (0.812, 0, "stat_cov"),
    "intensity-quartile-coefficient-of-dispersion": (0.6, 0, "stat_qcod"),
    "intensity-energy": (567, 0, "stat_energy"),
    "intensity-root-mean-square": (2.77, 0, "stat_rms"),
    "histogram-entropy": (1.27, 0, "ih_entropy"),
    "histogram-uniformity": (0.512, 0, "ih_uniformity"),
    "glcm-joint-maximum": (0.509, 0, "cm_joint_max"),
    "glcm-joint-average": (2.15, 0, "cm_joint_avg"),
    "glcm-joint-variance": (3.13, 0, "cm_joint_var"),
    "glcm-joint-entropy": (2.57, 0, "cm_joint_entr"),
    "glcm-difference-average": (1.38, 0, "cm_diff_avg"),
    "glcm-difference-variance": (3.21, 0, "cm_diff_var"),
    "glcm-difference-entropy": (1.64, 0, "cm_diff_entr"),
    "glcm-sum-average": (4.3, 0, "cm_sum_avg"),
    "glcm-sum-variance": (7.41, 0, "cm_sum_var"),
    "glcm-sum-entropy": (2.11, 0, "cm_sum_entr"),
    "glcm-angular-second-moment": (0.291, 0, "cm_energy"),
    "glcm-contrast": (5.12, 0, "cm_contrast"),
    "glcm-dissimilarity": (1.38, 0, "cm_dissimilarity"),
    "glcm-inverse-difference": (0.688, 0, "cm_inv_diff"),
    "glcm-normalised-inverse-difference": (0.856, 0, "cm_inv_diff_norm"),
    "glcm-inverse-difference-moment": (0.631, 0, "cm_inv_diff_mom"),
    "glcm-normalised-inverse-difference-moment": (0.902, 0, "cm_inv_diff_mom_norm"),
    "glcm-inverse-variance": (0.0574, 0, "cm_inv_var"),
    "glcm-correlation": (0.183, 0, "cm_corr"),
    "glcm-autocorrelation": (5.19, 0, "cm_auto_corr"),
    "glcm-cluster-tendency": (7.41, 0, "cm_clust_tend"),
    "glcm-cluster-shade": (17.4, 0, "cm_clust_shade"),
    "glcm-cluster-prominence": (147, 0, "cm_clust_prom"),
    "glcm-information-correlation-1": (-0.0288, 0, "cm_info_corr1"),
    "glcm-information-correlation-2": (0.269, 0, "cm_info_corr2"),
    "glrlm-short-runs-emphasis": (0.729, 0, "rlm_sre"),
    "glrlm-long-runs-emphasis": (2.76, 0, "rlm_lre"),
    "glrlm-low-grey-level-run-emphasis": (0.607, 0, "rlm_lgre"),
    "glrlm-high-grey-level-run-emphasis": (9.64, 0, "rlm_hgre"),
    "glrlm-short-run-low-grey-level-emphasis": (0.372, 0, "rlm_srlge"),
    "glrlm-short-run-high-grey-level-emphasis": (8.67, 0, "rlm_srhge"),
    "glrlm-long-run-low-grey-level-emphasis": (2.16, 0, "rlm_lrlge"),
    "glrlm-long-run-high-grey-level-emphasis": (15.6, 0, "rlm_lrhge"),
    "glrlm-grey-level-non-uniformity": (281, 0, "rlm_glnu"),
    "glrlm-normalised-grey-level-non-uniformity": (0.43, 0, "rlm_glnu_norm"),
    "glrlm-run-length-non-uniformity": (328, 0, "rlm_rlnu"),
    "glrlm-normalised-run-length-non-uniformity": (0.501, 0, "rlm_rlnu_norm"),
    "glrlm-run-percentage": (0.68, 0, "rlm_r_perc"),
    "glrlm-grey-level-variance": (3.48, 0, "rlm_gl_var"),
    "glrlm-run-length-variance": (0.598, 0, "rlm_rl_var"),
    "glrlm-run-entropy": (2.62, 0, "rlm_rl_entr"),
    "glszm-small-zone-emphasis": (0.255, 0, "szm_sze"),
    "glszm-large-zone-emphasis": (550, 0, "szm_lze"),
    "glszm-low-grey-level-zone-emphasis": (0.253, 0, "szm_lgze"),
    "glszm-high-grey-level-zone-emphasis": (15.6, 0, "szm_hgze"),
    "glszm-small-zone-low-grey-level-emphasis": (0.0256, 0, "szm_szlge"),
    "glszm-small-zone-high-grey-level-emphasis": (2.76, 0, "szm_szhge"),
    "glszm-large-zone-low-grey-level-emphasis": (503, 0, "szm_lzlge"),
    "glszm-large-zone-high-grey-level-emphasis": (1490, 0, "szm_lzhge"),
    "glszm-grey-level-non-uniformity": (1.4, 0, "szm_glnu"),
    "glszm-normalised-grey-level-non-uniformity": (0.28, 0, "szm_glnu_norm"),
    "glszm-zone-size-non-uniformity": (1, 0, "szm_zsnu"),
    "glszm-normalised-zone-size-non-uniformity": (0.2, 0, "szm_zsnu_norm"),
    "glszm-zone-percentage": (0.0676, 0, "szm_z_perc"),
    "glszm-grey-level-variance": (2.64, 0, "szm_gl_var"),
    "glszm-zone-size-variance": (331, 0, "szm_zs_var"),
    "glszm-zone-size-entropy": (2.32, 0, "szm_zs_entr"),
}
"""Feature -> IBSI's consensus value for the phantom, its tolerance, and what mirp calls the feature.

Values and tolerances are those of github.com/oncoray/mirp, test/data/ibsi_1_reference_values/ibsi_1_dig_phantom.csv:
three significant digits, of the merged 3D matrices.
"""


def phantom(levels: np.ndarray = PHANTOM) -> Scan:
    return levels, PHANTOM > 0, (2.0, 2.0, 2.0)


def test_the_consensus_values_cover_every_feature() -> None:
    assert set(CONSENSUS) == set(Radiomics(normalise="none").names)


@pytest.mark.parametrize("options", [{"bins": 6}, {"bin_width": 1.0}], ids=str)
def test_the_digital_phantom_has_the_consensus_values(options: dict[str, float]) -> None:
    """Both discretisations leave the phantom as it is, says the manual."""
    values = row(Radiomics(normalise="none", **options), phantom())
    wrong = {
        name: (values[name], expected)
        for name, (expected, tolerance, _) in CONSENSUS.items()
        if abs(float(f"{values[name]:.3g}") - expected) > tolerance + 1e-9
    }
    assert not wrong


# -------------------------------------------------------------------------------------------------------------- mirp


def scans() -> dict[str, Scan]:
    """Noise and structure; boxes, balls with holes, loose parts; equal and unequal spacing."""
    generator = np.random.default_rng(7)
    noise = generator.random((25, 25, 25))
    places = np.indices((17, 14, 20))
    distance = np.sqrt((((places.T - (8, 6, 10)) * (1.1, 1.3, 0.8)).T ** 2).sum(0))
    waves = np.cos(places[0] / 2) + np.sin(places[1] / 3 + places[2] / 4) + 0.1 * generator.random(distance.shape)
    edge = np.zeros((9, 8, 7), dtype=bool)
    edge[:4, :, 3:] = True
    edge[1, 2, 4] = False
    return {
        "phantom": phantom(),
        "noise in a box": (1000 * noise, np.ones_like(noise, dtype=bool), (1.0, 1.0, 1.0)),
        "noise in parts": (noise - 0.3, generator.random(noise.shape) > 0.6, (0.9, 0.9, 3.0)),
        "waves in a hollow ball": (waves, (distance < 6) & (distance > 2.5), (2.0, 1.0, 1.5)),
        "steps at the edge": (np.round(4 * waves[:9, :8, :7]) / 4 + 9, edge, (1.5, 0.7, 0.7)),
    }


@pytest.fixture
def without_standardising() -> Radiomics:
    return Radiomics(normalise="none")


@pytest.mark.parametrize("name", scans())
def test_every_feature_is_what_mirp_gave(name: str, without_standardising: Radiomics) -> None:
    recorded = pd.read_csv(RECORDED, index_col=0)[name]
    values = row(without_standardising, scans()[name])
    assert list(recorded.index) == list(values)
    assert_close(values, dict(recorded))


def assert_close(ours: dict[str, float], theirs: dict[str, float]) -> None:
    """Equal but for rounding; mirp computes its mesh in single precision."""
    for name, value in ours.items():
        tolerance = 1e-6 if name.startswith("morphology") else 1e-10
        assert value == pytest.approx(theirs[name], rel=tolerance, abs=1e-12), name


def mirp_rows(scan: Scan, extractor: Mirp | None = None) -> dict[str, float]:
    """What mirp gives now, by our names."""
    families = ("statistics", "intensity_histogram", "morphological", "glcm", "glrlm", "glszm")
    theirs = row(extractor or Mirp(families=families, normalise="none"), scan)
    return {name: _of(theirs, CONSENSUS[name][2]) for name in Radiomics(normalise="none").names}


def _of(theirs: dict[str, float], short: str) -> float:
    """A feature of mirp, whose names go on: `cm_corr` is `cm_corr_d1_3d_v_mrg_fbn_n32`."""
    (name,) = (
        name for name in theirs if name == short or name.startswith((f"{short}_d1", f"{short}_3d", f"{short}_fb"))
    )
    return theirs[name]


@pytest.mark.parametrize("name", scans())
def test_the_recorded_numbers_of_mirp_are_true(name: str) -> None:
    pytest.importorskip("mirp")
    np.testing.assert_allclose(
        list(mirp_rows(scans()[name]).values()), pd.read_csv(RECORDED, index_col=0)[name], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("seed", range(4))
def test_random_outlines_give_what_mirp_gives(seed: int, without_standardising: Radiomics) -> None:
    pytest.importorskip("mirp")
    generator = np.random.default_rng(seed)
    image = generator.normal(size=generator.integers(3, 9, 3)).cumsum(0)
    mask = generator.random(image.shape) < generator.uniform(0.3, 0.9)
    scan = image, mask, tuple(generator.uniform(0.5, 3, 3))
    assert_close(row(without_standardising, scan), mirp_rows(scan))


def test_bins_of_a_width_give_what_mirp_gives() -> None:
    mirp = pytest.importorskip("mirp")
    image, mask, _ = scans()["waves in a hollow ball"]
    (table,) = mirp.extract_features(
        image=image.copy(), mask=mask.astype(int), sample_name="x", base_feature_families=["glcm", "glrlm", "glszm"],
        base_discretisation_method="fixed_bin_size", base_discretisation_bin_width=0.25,
        resegmentation_intensity_range=[image[mask].min(), image[mask].max()],
    )  # fmt: skip
    theirs = {name: float(table[name].iloc[0]) for name in table.columns if "fbs" in name}
    ours = row(
        Radiomics(families=("glcm", "glrlm", "glszm"), bin_width=0.25, normalise="none"), (image, mask, (1, 1, 1))
    )
    for name, value in ours.items():
        assert value == pytest.approx(_of(theirs, CONSENSUS[name][2]), rel=1e-9), name


def test_mirp_keeps_quiet_and_standardises_as_the_built_in_does(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mirp")
    image, mask, spacing = scans()["waves in a hollow ball"]
    scan = np.where(image > -1, image, 0), mask, spacing
    mirp = Mirp(families=("statistics",))
    assert capfd.readouterr() == ("", "")
    ours, theirs = row(Radiomics(families=("intensity",)), scan), row(mirp, scan)
    assert capfd.readouterr() == ("", "")
    for name, value in ours.items():
        assert value == pytest.approx(theirs[CONSENSUS[name][2]], rel=1e-9), name


def test_mirp_gives_0_for_what_it_leaves_undefined() -> None:
    pytest.importorskip("mirp")
    image, mask, spacing = scans()["phantom"]
    one = np.zeros_like(mask)
    one[1, 1, 1] = True
    values = row(Mirp(normalise="none"), (image, one, spacing))
    assert values["morph_pca_maj_axis"] == 0
    assert values["stat_mean"] == 1


def test_mirp_refuses_what_is_not_finite() -> None:
    image, mask, spacing = scans()["phantom"]
    for normalise in ("zscore", "none"):
        with pytest.raises(CohortError, match="mirp: there are grey values that are not finite"):
            Mirp(normalise=normalise).extract(np.where(PHANTOM == 3, np.nan, image), mask, spacing)


def test_without_mirp_there_is_a_line_that_tells_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mirp", None)
    mirp_plugin._columns.cache_clear()
    with pytest.raises(FusionBenchError, match=r'mirp is not installed: pip install "fusionbench\[radiomics\]"'):
        _ = Mirp().names


# ------------------------------------------------------------------------------------------------------------ symmetry

BALL = "waves in a hollow ball"


def assert_same(one: dict[str, float], other: dict[str, float], tolerance: float = 1e-9) -> None:
    assert list(one) == list(other)
    np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=tolerance, atol=tolerance)


def test_where_the_outline_lies_does_not_count() -> None:
    image, mask, spacing = scans()[BALL]
    moved = tuple(np.pad(part, ((3, 0), (0, 5), (2, 2))) for part in (image, mask))
    assert_same(row(Radiomics(), (image, mask, spacing)), row(Radiomics(), (*moved, spacing)))


@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_which_axis_is_which_does_not_count(axes: tuple[int, int, int]) -> None:
    image, mask, spacing = scans()[BALL]
    turned = image.transpose(axes), mask.transpose(axes), tuple(spacing[axis] for axis in axes)
    assert_same(row(Radiomics(), (image, mask, spacing)), row(Radiomics(), turned))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_left_and_right_do_not_count(axis: int) -> None:
    image, mask, spacing = scans()[BALL]
    mirrored = np.flip(image, axis), np.flip(mask, axis), spacing
    assert_same(row(Radiomics(), (image, mask, spacing)), row(Radiomics(), mirrored))


def test_the_unit_of_grey_values_does_not_count_when_they_are_standardised() -> None:
    image, mask, spacing = scans()[BALL]
    scanned_twice = np.where(mask, image + 5, 0), np.where(mask, 0.01 * image + 3, 0)
    one, other = (row(Radiomics(), (part, mask, spacing)) for part in scanned_twice)
    assert_same(one, other, tolerance=1e-7)


def test_the_unit_of_grey_values_does_not_count_for_texture() -> None:
    image, mask, spacing = scans()[BALL]
    textures = ("histogram", "glcm", "glrlm", "glszm")
    raw, standardised = Radiomics(families=textures, normalise="none"), Radiomics(families=textures)
    expected = row(raw, (image, mask, spacing))
    assert_same(row(raw, (1024 * image, mask, spacing)), expected)
    assert_same(row(standardised, (image, mask, spacing)), expected)


def test_size_counts_as_it_must_and_shape_does_not_know_it() -> None:
    image, mask, spacing = scans()[BALL]
    small, large = (row(Radiomics(families=("morphology",)), (image, mask, s)) for s in (spacing, (6.0, 3.0, 4.5)))
    power = {"volume": 3, "volume-voxel-counting": 3, "surface-area": 2, "surface-to-volume-ratio": -1}
    lengths = {"maximum-3d-diameter", "major-axis-length", "minor-axis-length", "least-axis-length"}
    for name, value in small.items():
        feature = name.removeprefix("morphology-")
        assert large[name] == pytest.approx(value * 3 ** power.get(feature, int(feature in lengths))), name


def test_what_is_outside_does_not_count_without_standardising(without_standardising: Radiomics) -> None:
    image, mask, spacing = scans()[BALL]
    other = np.where(mask, image, np.nan)
    assert_same(row(without_standardising, (image, mask, spacing)), row(without_standardising, (other, mask, spacing)))


def test_a_large_ball_is_a_ball() -> None:
    ball = ((np.indices((61, 61, 61)) - 30) ** 2).sum(0) <= 28**2
    shape = row(Radiomics(families=("morphology",)), (np.ones(ball.shape), ball, (1.0, 1.0, 1.0)))
    assert shape["morphology-volume"] == pytest.approx(4 / 3 * np.pi * 28**3, rel=0.01)
    assert shape["morphology-elongation"] == pytest.approx(1)
    assert shape["morphology-flatness"] == pytest.approx(1)
    assert shape["morphology-major-axis-length"] == pytest.approx(4 * 28 / np.sqrt(5), rel=0.01)
    assert shape["morphology-sphericity"] > 0.9  # a mesh of voxels has steps
    assert shape["morphology-maximum-3d-diameter"] == pytest.approx(57, rel=0.01)


# --------------------------------------------------------------------------------- the matrices, counted one by one


def by_hand(levels: np.ndarray, size: int) -> np.ndarray:
    """Co-occurrences of all 26 neighbours, voxel by voxel."""
    counts = np.zeros((size, size))
    for place in np.argwhere(levels):
        for step in np.argwhere(np.ones((3, 3, 3))) - 1:
            other = place + step
            if step.any() and (other >= 0).all() and (other < levels.shape).all() and levels[tuple(other)]:
                counts[levels[tuple(place)] - 1, levels[tuple(other)] - 1] += 1
    return counts


def test_cooccurrences_are_those_counted_one_by_one() -> None:
    extractor = Radiomics(bins=6, normalise="none")
    region = extractor.preparation.region(*phantom())
    joint = radiomics_plugin.glcm.measure(region).joint
    counts = by_hand(region.levels, 6)
    np.testing.assert_allclose(joint, counts / counts.sum())


def test_the_13_directions_and_their_opposites_are_all_neighbours() -> None:
    half = {tuple(step) for step in half_of_neighbours().tolist()}
    assert len(half) == 13
    assert len(half | {tuple(-part for part in step) for step in half}) == 26


def test_runs_of_a_checkerboard() -> None:
    board = np.indices((4, 4, 4)).sum(0) % 2
    region = Radiomics(bins=2, normalise="none").preparation.region(board + 1.0, board >= 0, (1.0, 1.0, 1.0))
    runs = radiomics_plugin.glrlm.measure(region)
    assert runs.count @ runs.extent == 13 * 64  # each voxel is in one run of each direction
    assert radiomics_plugin.glszm.measure(region).extent.tolist() == [32, 32]  # all of a colour touch by edges


def test_extents_are_counted_by_level_and_extent() -> None:
    extents = counted(np.array([2, 1, 2, 2]), np.array([1, 3, 1, 4]), 9)
    entries = zip(extents.level, extents.extent, extents.count, strict=True)
    assert list(entries) == [(1, 3, 1), (2, 1, 2), (2, 4, 1)]


# ---------------------------------------------------------------------------------------------- small and odd outlines


def only(*where: int | slice) -> np.ndarray:
    mask = np.zeros((5, 6, 7), dtype=bool)
    mask[where] = True
    return mask


def extracted(mask: np.ndarray, image: np.ndarray | None = None) -> dict[str, float]:
    noise = np.random.default_rng(3).random(mask.shape) + 1
    return row(Radiomics(normalise="none"), (noise if image is None else image, mask, (1.0, 1.0, 1.0)))


def test_a_single_voxel() -> None:
    values = extracted(only(0, 0, 0))
    expected = {
        "intensity-variance": 0, "intensity-skewness": 0, "intensity-excess-kurtosis": 0, "intensity-range": 0,
        "intensity-coefficient-of-variation": 0, "histogram-entropy": 0, "histogram-uniformity": 1,
        "morphology-volume-voxel-counting": 1, "morphology-major-axis-length": 0, "morphology-elongation": 1,
        "morphology-flatness": 1, "glcm-joint-average": 16, "glcm-contrast": 0, "glcm-correlation": 1,
        "glcm-information-correlation-1": 0, "glcm-information-correlation-2": 0, "glcm-inverse-variance": 0,
        "glcm-angular-second-moment": 1, "glrlm-run-percentage": 1, "glrlm-short-runs-emphasis": 1,
        "glszm-zone-percentage": 1, "glszm-zone-size-entropy": 0,
    }  # fmt: skip
    assert {name: values[name] for name in expected} == expected
    assert values["morphology-volume"] == pytest.approx(1 / 6)  # an octahedron


def test_a_single_slice_is_flat_and_a_line_is_a_line() -> None:
    assert extracted(only(2, slice(1, 5), slice(1, 6)))["morphology-flatness"] == 0
    line = extracted(only(2, 3, slice(0, 7)))
    assert line["morphology-elongation"] == line["morphology-flatness"] == 0


def test_one_grey_value_has_no_spread_even_where_its_mean_is_rounded() -> None:
    mask = only(slice(1, 4), slice(1, 4), slice(1, 4))
    values = extracted(mask, np.full(mask.shape, 0.1))
    assert values["intensity-variance"] == values["intensity-skewness"] == values["histogram-entropy"] == 0
    assert values["glcm-correlation"] == 1


def test_voxels_that_do_not_touch_count_as_their_own_neighbours() -> None:
    mask = only(slice(0, 5, 2), slice(0, 6, 2), slice(0, 7, 2))
    values = extracted(mask)
    assert values["glcm-contrast"] == 0
    assert values["glcm-joint-entropy"] == pytest.approx(values["histogram-entropy"])


def test_ratios_of_a_mean_of_zero_are_zero() -> None:
    mask = only(slice(0, 2), slice(0, 2), slice(0, 1))
    image = np.where(np.arange(7) % 2, 1.0, -1.0) * np.ones(mask.shape)
    image[0] *= -1
    values = extracted(mask, image)
    assert values["intensity-variance"] == 1
    assert values["intensity-coefficient-of-variation"] == values["intensity-quartile-coefficient-of-dispersion"] == 0


def test_two_voxels_have_none_between_the_10th_and_90th_percentile() -> None:
    assert extracted(only(1, 1, slice(1, 3)))["intensity-robust-mean-absolute-deviation"] == 0


@settings(max_examples=60, deadline=None)
@given(
    shape=hnp.array_shapes(min_dims=3, max_dims=3, max_side=6),
    data=st.data(),
    normalise=st.sampled_from(["zscore", "none"]),
    bins=st.integers(2, 256),
)
def test_every_number_is_finite_for_any_outline(
    shape: tuple[int, ...], data: st.DataObject, normalise: str, bins: int
) -> None:
    values = st.one_of(st.floats(-1e15, 1e15), st.integers(-2, 2).map(float), st.just(0.0))
    image = data.draw(hnp.arrays(np.float64, shape, elements=values))
    mask = data.draw(hnp.arrays(np.bool_, shape).filter(np.any))
    spacing = data.draw(st.tuples(*[st.floats(0.1, 10)] * 3))
    result = Radiomics(normalise=normalise, bins=bins).extract(image, mask, spacing)
    assert np.isfinite(result.astype(np.float32)).all()  # in which strategies compute


# --------------------------------------------------------------------------------------------------- errors and options


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e16])
@pytest.mark.parametrize("normalise", ["zscore", "none"])
def test_grey_values_that_are_no_numbers_are_refused(bad: float, normalise: str) -> None:
    with pytest.raises(CohortError, match=r"^radiomics: 1 of \d+ grey values .* are not finite, or beyond 1e\+15"):
        Radiomics(normalise=normalise).extract(*phantom(np.where(PHANTOM == 3, bad, PHANTOM)))


def test_standardising_needs_the_whole_image() -> None:
    with pytest.raises(CohortError, match="grey values of the image are not finite"):
        Radiomics().extract(*phantom(np.where(PHANTOM == X, np.nan, PHANTOM)))


def test_bins_that_are_too_narrow_are_refused() -> None:
    with pytest.raises(CohortError, match=r"bin_width 0\.001 makes 5001 grey levels of 1 to 6; 1000 are the most"):
        Radiomics(bin_width=0.001, normalise="none").extract(*phantom())


def test_families_can_be_chosen_and_keep_their_order() -> None:
    some = Radiomics(families=("glszm", "morphology"))
    assert {name.partition("-")[0] for name in some.names} == {"glszm", "morphology"}
    assert some.names == tuple(name for name in Radiomics().names if name.startswith(("glszm-", "morphology-")))
    every = row(Radiomics(), phantom())
    assert row(some, phantom()) == {name: every[name] for name in some.names}


def test_ratios_are_left_out_where_zero_is_arbitrary() -> None:
    left_out = set(Radiomics(normalise="none").names) - set(Radiomics().names)
    assert left_out == {"intensity-coefficient-of-variation", "intensity-quartile-coefficient-of-dispersion"}
    assert len(Radiomics().names) == 89


@pytest.mark.parametrize("wrong", [{"bins": 1}, {"bins": 300}, {"bin_width": 0}, {"families": []}, {"families": ["x"]}])
def test_options_out_of_their_limits_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=f"^radiomics.{next(iter(wrong))}"):
        resolve_options(Radiomics, wrong)


def test_the_families_to_choose_from_are_those_there_are() -> None:
    assert tuple(one.name for one in FAMILIES) == EVERY


def test_the_digest_of_the_code_covers_every_module() -> None:
    package = Path(radiomics_plugin.__file__).parent
    assert set(package.glob("*.py")) <= set(sources(Radiomics))


def test_the_table_of_features_is_complete_and_true() -> None:
    lines = (ROOT / "docs" / "radiomics.md").read_text(encoding="utf-8").splitlines()
    documented = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `")]
    codes = {
        name: feature.code for one in FAMILIES for name, feature in zip(one.names, one.features.values(), strict=True)
    }
    table = {cells[0].strip("`"): cells[1] for cells in documented if cells[0].strip("`") in codes}
    assert table == codes


def written() -> str:
    """data/radiomics_mirp.csv as it should be."""
    return pd.DataFrame({name: mirp_rows(scan) for name, scan in scans().items()}).to_csv(lineterminator="\n")


if __name__ == "__main__":
    print(written(), end="")
