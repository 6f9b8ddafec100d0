"""What it costs to bring subjects to the network at full size: ours, torchio's and MONAI's ways side by side.

    python -m benchmarks input_pipeline

Batches of two subjects with four sequences of 240 x 240 x 155 voxels as int16 .nii.gz, the paper's crop, percentiles
and augmentation, linear interpolation of every voxel. Every way has one thread, SimpleITK under torchio too, and no
worker processes; medians of the processor's seconds in alternating rounds, all files being in the page cache. Ours
reads a cache on disk that was filled before, MONAI's CacheDataset one in memory; torchio's SubjectsDataset and
SubjectsLoader read and preprocess the files in every epoch. MONAI is measured if it is installed (extra `bench`).

A faster way to another tensor would say nothing. What comes out without augmentation is compared first; that the
augmentation is torchio's, drawn numbers being equal, is `test_equals_torchio` of tests/test_augmentation.py. MONAI
draws from the same ranges about each axis.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from benchmarks.targets import NotMeasured, Row, Target, alternating
from fusionbench import Cohort, Modality, Subject
from fusionbench.experiment import Augmentation, Preprocessing
from fusionbench.imaging.augmentation import augment
from fusionbench.imaging.volumes import Volumes

NAMES = ("t1ce", "t2", "flair", "t1")
SIZE = (240, 240, 155)
CROP = (150, 240, 240)
START = (0, 0, 3)
"""Where torchio and ours cut (X, Y, Z) in the middle; of five slices too many MONAI leaves the third at the front."""
TOLERANCE = 1e-3
"""Of the range 0 to 1: the cache holds half floats."""
Ways = dict[str, Callable[[], dict[str, torch.Tensor]]]


def written(
    folder: Path, subjects: int, size: tuple[int, ...], names: tuple[str, ...], ending: str = ".nii.gz"
) -> Cohort:
    """Subjects of noise inside an ellipsoid: as much to unpack, rescale and move as a head."""
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    inside = sum(axis**2 for axis in grid) < 0.75
    random = np.random.default_rng(0)
    found = []
    for number in range(subjects):
        files = {}
        for name in names:
            voxels = np.where(inside, random.integers(50, 1500, size), 0).astype(np.int16)
            files[name] = folder / f"{number}_{name}{ending}"
            nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(files[name])
        found.append(Subject(f"s{number}", ("LGG", "HGG")[number % 2], files))
    return Cohort("noise", ("HGG", "LGG"), "LGG", tuple(map(Modality, names)), tuple(found))


def torchio_steps(*, moved: bool) -> Any:
    """The same preprocessing, and perhaps the paper's augmentation, by torchio."""
    import torchio

    width, height, depth = CROP[2], CROP[1], CROP[0]
    steps = [
        torchio.ToCanonical(),
        torchio.CropOrPad((width, height, depth)),
        torchio.RescaleIntensity((0, 1), percentiles=(0.5, 99.5)),
    ]
    settings = Augmentation()
    affine = torchio.RandomAffine(scales=settings.scales, degrees=settings.degrees, isotropic=True, default_pad_value=0)
    flip = torchio.RandomFlip(axes=(0,), flip_probability=settings.flip)
    return torchio.Compose([*steps, *([flip, affine] if moved else [])])


def torchio_subject(subject: Subject) -> Any:
    """The files of a subject, not yet read."""
    import torchio

    return torchio.Subject({name: torchio.ScalarImage(subject.files[name]) for name in NAMES})


def ours(volumes: Volumes, ids: Sequence[str], *, moved: bool) -> dict[str, torch.Tensor]:
    """The inputs of some subjects as a fit gets them."""
    inputs = volumes.inputs(ids, NAMES)
    if not moved:
        return inputs
    return augment(inputs, None, range(len(ids)), volumes.spacing(ids), Augmentation())[0]


def torchio_ways(cohort: Cohort) -> Ways:
    """torchio's dataset without a cache, and its loader without processes."""
    import SimpleITK
    import torchio

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    subjects = [torchio_subject(subject) for subject in cohort.subjects]

    def way(*, moved: bool) -> Callable[[], dict[str, torch.Tensor]]:
        dataset = torchio.SubjectsDataset(subjects, transform=torchio_steps(moved=moved))
        loader = torchio.SubjectsLoader(dataset, batch_size=len(subjects), num_workers=0)

        def batch() -> dict[str, torch.Tensor]:
            (read,) = loader
            return {name: read[name][torchio.DATA] for name in NAMES}

        return batch

    return {"torchio": way(moved=False), "torchio, augmented": way(moved=True)}


def monai_ways(cohort: Cohort) -> Ways:
    """MONAI's CacheDataset with the same steps; nothing if MONAI is not installed."""
    try:
        from monai import data, transforms
    except ImportError:
        return {}
    settings = Augmentation()
    angle, (low, high) = np.deg2rad(settings.degrees), settings.scales
    fixed = [
        transforms.LoadImaged(NAMES, ensure_channel_first=True),
        transforms.Orientationd(NAMES, axcodes="RAS", labels=None),
        transforms.SpatialCropd(
            NAMES, roi_start=START, roi_end=[a + b for a, b in zip(START, CROP[::-1], strict=True)]
        ),
        transforms.ScaleIntensityRangePercentilesd(NAMES, 0.5, 99.5, 0, 1, clip=True),
    ]
    random = [
        transforms.RandFlipd(NAMES, prob=settings.flip, spatial_axis=0),
        transforms.RandAffined(
            NAMES, prob=1, rotate_range=[angle] * 3, scale_range=[(low - 1, high - 1)] * 3, mode="bilinear",
            padding_mode="zeros",
        ),
    ]  # fmt: skip
    rows = [{name: str(subject.files[name]) for name in NAMES} for subject in cohort.subjects]
    still = data.CacheDataset(rows, transforms.Compose(fixed), progress=False)
    moving = data.CacheDataset(rows, transforms.Compose([*fixed, *random]), progress=False)

    def batch(dataset: Any) -> dict[str, torch.Tensor]:
        read = [dataset[number] for number in range(len(rows))]
        return {name: torch.stack([each[name].as_tensor() for each in read]) for name in NAMES}

    return {"MONAI": lambda: batch(still), "MONAI, augmented": lambda: batch(moving)}


def largest_difference(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Between two batches, (B, 1, D, H, W) and (B, 1, X, Y, Z)."""
    return max(float((mine[name] - theirs[name].permute(0, 1, 4, 3, 2)).abs().max()) for name in NAMES)


def compared(mine: Callable[[], Any], others: Ways) -> None:
    """That the others come to the same tensors where nothing is drawn."""
    for name in {"torchio", "MONAI"} & others.keys():
        difference = largest_difference(mine(), others[name]())
        print(f"  largest difference from {name}'s tensor: {difference:.1e} (allowed: {TOLERANCE:g})")
        if difference > TOLERANCE:
            raise SystemExit("the two do not make the same tensor: nothing is compared")


def measure() -> Iterator[Row]:
    """Both sides of every ratio."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cohort = written(Path(folder), 2, SIZE, NAMES)
        ids = [subject.id for subject in cohort.subjects]
        volumes = Volumes(cohort, Preprocessing(crop=CROP), Path(folder) / "cache")
        volumes.prepare(ids, NAMES)
        others = {**torchio_ways(cohort), **monai_ways(cohort)}
        still, moving = partial(ours, volumes, ids, moved=False), partial(ours, volumes, ids, moved=True)
        compared(still, others)
        taken = alternating({"ours": still, "ours, augmented": moving, **others}, rounds=3, clock=time.process_time)
    for name, seconds in taken.items():
        print(f"  {name}: {seconds / len(ids):.3f} s per subject")
    yield Target("input without augmentation, torchio / ours", taken["torchio"] / taken["ours"], 10)
    for name, bound in (("torchio", 2.5), ("MONAI", 1.8)):
        what = f"input with the paper's augmentation, {name} / ours"
        if name in taken:
            yield Target(what, taken[f"{name}, augmented"] / taken["ours, augmented"], bound)
        else:
            yield NotMeasured(what, "not installed: pip install 'fusionbench[bench]'")
