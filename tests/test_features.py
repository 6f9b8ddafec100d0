"""Features in place of images: extracted once, cached by content, checked."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fusionbench import Cohort, FeatureExtractor, Modality, Subject
from fusionbench.errors import CohortError, PluginError
from fusionbench.features import Features
from fusionbench.fits import Built

SHAPE = (4, 5, 6)


class Mean(FeatureExtractor):
    """The mean inside the outline, and its volume in mm3."""

    name = "mean"
    calls = 0

    @property
    def names(self) -> tuple[str, ...]:
        return ("mean", "volume")

    def extract(
        self, image: NDArray[np.float64], mask: NDArray[np.bool_], spacing: tuple[float, float, float]
    ) -> NDArray[np.float64]:
        Mean.calls += 1
        return np.array([image[mask].mean(), mask.sum() * np.prod(spacing)])


class Short(Mean):
    """One number too few."""

    def extract(self, *arguments: object) -> NDArray[np.float64]:
        return np.zeros(1)


class Blind(Mean):
    """No number at all."""

    def extract(self, *arguments: object) -> NDArray[np.float64]:
        return np.array([np.nan, 1.0])


def nifti(path: Path, values: NDArray[np.generic], spacing: tuple[float, float, float] = (1, 2, 3)) -> Path:
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.diag([*spacing, 1.0])), path)
    return path


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Two subjects whose image `t1` is 10 * n inside an outline of n voxels, and one table."""
    subjects = []
    for n in (1, 2):
        image, mask = np.random.default_rng(n).normal(size=SHAPE), np.zeros(SHAPE)
        mask[:n, 0, 0] = 4
        image[mask > 0] = 10 * n
        files = {"t1": nifti(tmp_path / f"{n}.nii.gz", image)}
        seg = nifti(tmp_path / f"{n}_seg.nii.gz", mask)
        subjects.append(Subject(f"s{n}", ("HGG", "LGG")[n - 1], files, {"age": (30.0 + n,)}, seg))
    return Cohort("two", ("HGG", "LGG"), "LGG", (Modality("t1"), Modality("age", "table", 1)), tuple(subjects))


def features(cohort: Cohort, cache: Path, cls: type[Mean] = Mean, **options: object) -> Features:
    built = Built(cls.name, options, {}, "here", "1", "source", {})
    return Features(cohort, cls(), built, cache)


def test_images_become_tables_in_the_units_of_the_file_and_tables_stay(cohort: Cohort, tmp_path: Path) -> None:
    inputs = features(cohort, tmp_path / "cache").inputs(["s2", "s1"], ["t1", "age"])
    assert inputs["t1"].shape == (2, 2, 1, 1, 1)
    assert inputs["t1"].flatten(1).tolist() == [[20.0, 12.0], [10.0, 6.0]]
    assert inputs["age"].flatten().tolist() == [32.0, 31.0]
    assert inputs["t1"].dtype == torch.float32


def test_a_row_is_extracted_once_and_again_only_for_other_content_options_or_code(
    cohort: Cohort, tmp_path: Path
) -> None:
    cache, everybody = tmp_path / "cache", (["s1", "s2"], ["t1"])
    before = Mean.calls
    features(cohort, cache).prepare(*everybody)
    features(cohort, cache).prepare(*everybody)
    assert Mean.calls == before + 2
    features(cohort, cache, bins=8).prepare(*everybody)
    assert Mean.calls == before + 4
    image = np.asarray(nibabel.load(cohort.subject("s1").files["t1"]).dataobj)
    nifti(cohort.subject("s1").files["t1"], image + 1)
    assert features(cohort, cache).inputs(["s1"], ["t1"])["t1"].flatten()[0] == 11
    assert Mean.calls == before + 5


def test_a_damaged_row_is_extracted_again(cohort: Cohort, tmp_path: Path) -> None:
    features(cohort, tmp_path / "cache").prepare(["s1"], ["t1"])
    (row,) = (tmp_path / "cache").iterdir()
    row.write_bytes(b"torn")
    assert features(cohort, tmp_path / "cache").inputs(["s1"], ["t1"])["t1"].flatten()[0] == 10


def test_every_bad_outline_is_named_at_once(cohort: Cohort, tmp_path: Path) -> None:
    first, second = cohort.subjects
    assert first.seg is not None
    nifti(first.seg, np.zeros(SHAPE))
    assert second.seg is not None
    nifti(second.seg, np.ones((2, 2, 2)))
    with pytest.raises(CohortError) as told:
        features(cohort, tmp_path / "cache").prepare(["s1", "s2"], ["t1"])
    assert "'s1', t1: the outline is empty" in str(told.value)
    assert "'s2', t1: image and outline lie on different grids" in str(told.value)


@pytest.mark.parametrize(("cls", "message"), [(Short, "not one number for each"), (Blind, "no number for mean")])
def test_what_an_extractor_returns_is_checked(cls: type[Mean], message: str, cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=message):
        features(cohort, tmp_path / "cache", cls).prepare(["s1"], ["t1"])
