"""What the scanner adds: the coil's sensitivity, Rician noise, a gain, and whole numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fusionbench_plugins.cohorts.glioma_phantom.anatomy import Anatomy
from fusionbench_plugins.cohorts.glioma_phantom.fields import Field, smooth_field

BIAS_DEVIATION = 0.08
"""Of the logarithm: about 30 % from the brightest place to the darkest, the middle of BrainWeb's 20 and 40 %."""
BIAS_KNOTS = 120.0  # mm
GAIN_MEDIAN, GAIN_DEVIATION = 600.0, 0.4
"""Of white matter in the file; in the shipped BraTS subjects the medians run from 190 to 1000."""


def bias(anatomy: Anatomy, rng: np.random.Generator) -> Field:
    """The sensitivity of the coil, (X, Y, Z), about 1."""
    sensitivity: Field = np.exp(
        np.float32(BIAS_DEVIATION) * smooth_field(anatomy.shape, anatomy.spacing, BIAS_KNOTS, rng)
    )
    return sensitivity


def rician(signal: Field, sigma: float, rng: np.random.Generator) -> Field:
    """The magnitude of a signal with normal noise in both channels; sqrt(pi/2) sigma on average where it is 0."""
    real, imaginary = rng.standard_normal((2, *signal.shape), dtype=np.float32) * np.float32(sigma)
    magnitude: Field = np.hypot(signal + real, imaginary)
    return magnitude


def acquire(signal: Field, anatomy: Anatomy, noise: float, rng: np.random.Generator) -> NDArray[np.int16]:
    """The image (X, Y, Z) as a file holds it: whole numbers, 0 outside the brain and nowhere else."""
    reference = float(signal[anatomy.white > 0.9].mean())
    magnitude = rician(signal * bias(anatomy, rng), noise * reference, rng)
    gain = GAIN_MEDIAN * np.exp(GAIN_DEVIATION * rng.standard_normal()) / reference
    return np.where(anatomy.brain, np.clip(np.rint(magnitude * gain), 1, 32767), 0).astype(np.int16)
