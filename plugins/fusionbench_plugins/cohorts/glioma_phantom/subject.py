"""One subject: anatomy, tumour, pathology and four scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fusionbench_plugins.cohorts.glioma_phantom import compartments as parts
from fusionbench_plugins.cohorts.glioma_phantom import contrast
from fusionbench_plugins.cohorts.glioma_phantom.anatomy import Anatomy, Atlas, warped_anatomy
from fusionbench_plugins.cohorts.glioma_phantom.fields import Field, smooth_field
from fusionbench_plugins.cohorts.glioma_phantom.growth import draw_tumour, grow
from fusionbench_plugins.cohorts.glioma_phantom.pathology import Pathology, draw_pathology
from fusionbench_plugins.cohorts.glioma_phantom.recipe import GRADES, MODALITIES, Recipe, random_numbers
from fusionbench_plugins.cohorts.glioma_phantom.scanner import acquire

TISSUE_DEVIATION = 0.04
"""Of the relaxation times of healthy tissue between people."""
PARTIAL_VOLUME = 0.5
"""Deviation, in voxels, of the smoothing of the compartments' borders."""
BLOOD_GADOLINIUM = 1.0  # mM, some minutes after a standard dose


@dataclass(frozen=True)
class Scans:
    """The images of one subject and its tumour labels, all (X, Y, Z)."""

    images: Mapping[str, NDArray[np.int16]]
    seg: NDArray[np.uint8]


@dataclass(frozen=True)
class Lesion:
    """A tumour as one modality sees it: its pathology, and which voxel holds what."""

    pathology: Pathology
    labels: parts.Labels


@dataclass(frozen=True)
class Healthy:
    """The healthy tissues of one person, and how much enhancing blood there is in each voxel."""

    white: contrast.Tissue
    grey: contrast.Tissue
    fluid: contrast.Tissue
    vessels: Field


def render(atlas: Atlas, recipe: Recipe, number: int, grade: str) -> Scans:
    """The scans of one subject; they depend on the arguments and on nothing else.

    A modality that is not informative shows the same brain and the same tumour with a pathology that was drawn
    without looking at the grade. The segmentation follows t1ce, as the annotators of BraTS do for the core; the
    outline of the tumour knows no grade.
    """
    anatomy = warped_anatomy(atlas, recipe.spacing, random_numbers(recipe, number, "anatomy"))
    true, neutral = _lesions(recipe, number, grade, anatomy)
    seen = {name: true if name in recipe.informative else neutral for name in MODALITIES}
    healthy = _healthy(recipe, number, anatomy)
    images = {
        name: acquire(_signal(name, anatomy, healthy, seen[name]), anatomy, recipe.noise, rng)
        for name, rng in ((name, random_numbers(recipe, number, name)) for name in MODALITIES)
    }
    return Scans(images, parts.brats_labels(seen["t1ce"].labels))


def _lesions(recipe: Recipe, number: int, grade: str, anatomy: Anatomy) -> tuple[Lesion, Lesion]:
    """The tumour with the pathology of its grade, and with that of a grade drawn by lot."""
    tumour = draw_tumour(anatomy, random_numbers(recipe, number, "tumour"))
    density = grow(anatomy, tumour)
    voxels = round(tumour.volume / anatomy.voxel_volume)
    texture = parts.draw_texture(anatomy.shape, anatomy.spacing, random_numbers(recipe, number, "texture"))
    lot = random_numbers(recipe, number, "neutral")
    pathologies = (
        draw_pathology(grade, random_numbers(recipe, number, "pathology")),
        draw_pathology(GRADES[int(lot.random() >= recipe.hgg_share)], lot),
    )
    true, neutral = (Lesion(one, parts.compartments(density, voxels, one, texture)) for one in pathologies)
    return true, neutral


def _healthy(recipe: Recipe, number: int, anatomy: Anatomy) -> Healthy:
    factors = np.exp(TISSUE_DEVIATION * random_numbers(recipe, number, "tissue").standard_normal((3, 2)))
    white, grey, fluid = (
        tissue.scaled(*factor)
        for tissue, factor in zip((contrast.WHITE, contrast.GREY, contrast.FLUID), factors, strict=True)
    )
    return Healthy(white, grey, fluid, _vessels(anatomy, random_numbers(recipe, number, "vessels")))


def _vessels(anatomy: Anatomy, rng: np.random.Generator) -> Field:
    """The share of blood that enhances, mostly in the grooves of the surface: t1ce is bright without a tumour too."""
    here = np.clip(smooth_field(anatomy.shape, anatomy.spacing, 10.0, rng) - 1, 0, 1)
    amount = rng.uniform(0.2, 0.8)
    vessels: Field = np.float32(amount) * here * anatomy.fluid + np.float32(0.03) * anatomy.grey
    return vessels


def _signal(name: str, anatomy: Anatomy, healthy: Healthy, lesion: Lesion) -> Field:
    """The noiseless signal of one modality, (X, Y, Z): each voxel the mean of what it holds."""
    sequence = contrast.SEQUENCES[name]
    signal: Field = (
        anatomy.white * np.float32(sequence.signal(healthy.white))
        + anatomy.grey * np.float32(sequence.signal(healthy.grey))
        + anatomy.fluid * np.float32(sequence.signal(healthy.fluid))
    )
    if name == "t1ce":
        blood = sequence.signal(contrast.BLOOD.with_gadolinium(BLOOD_GADOLINIUM))
        signal += healthy.vessels * (np.float32(blood) - signal)
    for label, tissue in _tumour_tissues(name, lesion.pathology).items():
        share = _share(lesion.labels, label, anatomy)
        signal += share * (np.float32(sequence.signal(tissue)) - signal)
    return signal


def _tumour_tissues(name: str, pathology: Pathology) -> dict[int, contrast.Tissue]:
    """What each compartment is made of in one modality, from the outside inwards."""
    enhancing = pathology.solid.with_gadolinium(pathology.gadolinium) if name == "t1ce" else pathology.solid
    return {
        parts.OEDEMA: contrast.OEDEMA,
        parts.SOLID: pathology.solid,
        parts.ENHANCING: enhancing,
        parts.NECROSIS: contrast.NECROSIS,
    }


def _share(labels: parts.Labels, label: int, anatomy: Anatomy) -> Field:
    """How much of each voxel a compartment takes; oedema spares grey matter by half, and fluid stays fluid."""
    inside = ndimage.gaussian_filter((labels == label).astype(np.float32), PARTIAL_VOLUME)
    share: Field = inside * (anatomy.white + anatomy.grey / 2 if label == parts.OEDEMA else 1 - anatomy.fluid)
    return share
