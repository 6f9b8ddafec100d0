"""What it costs to bring a subject to the network at full size: ours, torchio's and MONAI's ways side by side.

    python benchmarks/input_pipeline.py

Four sequences of 240 x 240 x 155 voxels as int16 .nii.gz, the paper's crop, percentiles and augmentation, one thread,
medians of alternating rounds. Ours reads a cache that was filled before, as MONAI's CacheDataset does; torchio reads
and preprocesses the files, as its SubjectsDataset does in every epoch. MONAI is measured if it is installed (extra
`bench`). First the outputs are compared: a faster way to another tensor would say nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from targets import Target, alternating

from fusionbench import Cohort, Modality, Subject
from fusionbench.augmentation import augment
from fusionbench.experiment import Augmentation, Preprocessing
from fusionbench.volumes import Volumes

NAMES = ("t1ce", "t2", "flair", "t1")
SIZE = (240, 240, 155)
CROP = (150, 240, 240)
TOLERANCE = 1e-3
"""Of the range 0 to 1: the cache holds half floats."""
Ways = dict[str, Callable[[], object]]


def written(folder: Path, subjects: int = 2) -> Cohort:
    """Subjects of noise inside an ellipsoid: as much to unpack, rescale and move as a head."""
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    inside = sum(axis**2 for axis in grid) < 0.75
    random = np.random.default_rng(0)
    found = []
    for number in range(subjects):
        files = {}
        for name in NAMES:
            voxels = np.where(inside, random.integers(50, 1500, SIZE), 0).astype(np.int16)
            files[name] = folder / f"{number}_{name}.nii.gz"
            nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(files[name])
        found.append(Subject(f"s{number}", ("LGG", "HGG")[number % 2], files))
    return Cohort("noise", ("HGG", "LGG"), "LGG", tuple(map(Modality, NAMES)), tuple(found))


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
    flip = torchio.RandomFlip(axes=("LR",), flip_probability=settings.flip)
    return torchio.Compose([*steps, *([flip, affine] if moved else [])])


def torchio_subject(subject: Subject) -> Any:
    """The files of a subject, not yet read."""
    import torchio

    return torchio.Subject({name: torchio.ScalarImage(subject.files[name]) for name in NAMES})


def ours(volumes: Volumes, id: str, *, moved: bool) -> dict[str, torch.Tensor]:
    """The inputs of one subject as a fit gets them."""
    inputs = volumes.inputs([id], NAMES)
    if not moved:
        return inputs
    return augment(inputs, None, [7], volumes.spacing([id]), Augmentation())[0]


def largest_difference(volumes: Volumes, cohort: Cohort) -> float:
    """Between our tensor and torchio's of the same file, without augmentation."""
    read = torchio_steps(moved=False)(torchio_subject(cohort.subjects[0]))
    mine = ours(volumes, cohort.subjects[0].id, moved=False)
    return max(float((mine[name][0] - read[name].data.permute(0, 3, 2, 1)).abs().max()) for name in NAMES)


def monai_ways(cohort: Cohort) -> Ways:
    """MONAI's CacheDataset with the same steps; nothing if MONAI is not installed."""
    try:
        from monai import data, transforms
    except ImportError:
        return {}
    settings = Augmentation()
    angle = np.deg2rad(settings.degrees)
    fixed = [
        transforms.LoadImaged(NAMES, ensure_channel_first=True),
        transforms.Orientationd(NAMES, axcodes="RAS"),
        transforms.ResizeWithPadOrCropd(NAMES, CROP[::-1]),
        transforms.ScaleIntensityRangePercentilesd(NAMES, 0.5, 99.5, 0, 1, clip=True),
    ]
    random = [
        transforms.RandFlipd(NAMES, prob=settings.flip, spatial_axis=0),
        transforms.RandAffined(
            NAMES, prob=1, rotate_range=[angle] * 3, scale_range=[(-0.1, 0.2)] * 3, padding_mode="zeros"
        ),
    ]
    rows = [{name: str(subject.files[name]) for name in NAMES} for subject in cohort.subjects]
    still = data.CacheDataset(rows, transforms.Compose(fixed), progress=False)
    moving = data.CacheDataset(rows, transforms.Compose([*fixed, *random]), progress=False)
    return {"MONAI": lambda: still[0], "MONAI, augmented": lambda: moving[0]}


def measure() -> Iterator[Target]:
    """Both sides of every ratio."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cohort = written(Path(folder))
        volumes = Volumes(cohort, Preprocessing(crop=CROP), Path(folder) / "cache")
        volumes.prepare([s.id for s in cohort.subjects], NAMES)
        difference = largest_difference(volumes, cohort)
        print(f"largest difference from torchio's tensor: {difference:.1e} (allowed: {TOLERANCE:g})")
        if difference > TOLERANCE:
            raise SystemExit("the two do not make the same tensor: nothing is compared")
        subject = cohort.subjects[0]
        plain, moved = torchio_steps(moved=False), torchio_steps(moved=True)
        ways: Ways = {
            "ours": lambda: ours(volumes, subject.id, moved=False),
            "ours, augmented": lambda: ours(volumes, subject.id, moved=True),
            "torchio": lambda: plain(torchio_subject(subject)),
            "torchio, augmented": lambda: moved(torchio_subject(subject)),
            **monai_ways(cohort),
        }
        taken = alternating(ways, rounds=3)
    for name, seconds in taken.items():
        print(f"  {name}: {seconds:.3f} s per subject")
    yield Target("input without augmentation, torchio / ours", taken["torchio"] / taken["ours"], 10)
    yield Target("input with augmentation, torchio / ours", taken["torchio, augmented"] / taken["ours, augmented"], 2.5)
    if "MONAI" in taken:
        ratio = taken["MONAI, augmented"] / taken["ours, augmented"]
        yield Target("input with augmentation, MONAI's CacheDataset / ours", ratio, 1.8)
    else:
        print("  MONAI is not installed, so it was not measured: pip install 'fusionbench[bench]'")


if __name__ == "__main__":
    for target in measure():
        print(target)
