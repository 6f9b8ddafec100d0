"""What the grade decides: enhancement, necrosis, oedema, and a little of the relaxation of solid tumour.

Volume, place and shape of the tumour are drawn in `growth`, which knows no grade.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from fusionbench_plugins.cohorts.glioma_phantom.contrast import SOLID, Tissue


@dataclass(frozen=True)
class Biology:
    """What is typical of a grade: probabilities, and means of shares."""

    enhances: float
    """P(the tumour enhances)."""
    necrotic_if_enhancing: float
    necrotic_if_not: float
    core: float
    """Mean share of the tumour that is core; the rest is oedema and infiltration."""
    necrosis: float
    """Mean share of the core that is necrotic, where there is necrosis."""
    enhancing: float
    """Mean share of the core that enhances, where it does."""
    ring: bool
    """Enhancement lies around the necrosis; else in patches."""
    gadolinium: float
    """Median concentration where it enhances, in mM."""
    t1: float
    t2: float
    """Median relaxation times of solid tumour over those of `contrast.SOLID`."""


BIOLOGY: Mapping[str, Biology] = MappingProxyType(
    {
        # 308 of 352 glioblastomas enhance; necrosis in 92 % of those and in 25 % of the others (Neuro-Oncology 2025,
        # noaf070). Ring, oedema and necrosis are what VASARI finds typical of high grade; their shares are by
        # reasoning.
        "HGG": Biology(
            enhances=0.875,
            necrotic_if_enhancing=0.92,
            necrotic_if_not=0.25,
            core=0.45,
            necrosis=0.30,
            enhancing=0.45,
            ring=True,
            gadolinium=0.4,
            t1=1.0,
            t2=1.0,
        ),
        # 10 of 47 diffuse gliomas of grade II enhance (95 % interval 11-36 %; Acta Neurochir 2022, 164:2035); the
        # lower half of it, since patches are small. A few have cysts. Solid tumour holds more water: T1 and T2 alone
        # tell the grades of 115 adults apart with an AUC of 0.73 and 0.69 (synthetic MRI, 010zgyxyxjs202406006), that
        # is 0.87 and 0.70 deviations between the medians: with the deviations below, ratios of 1.14 and 1.23.
        "LGG": Biology(
            enhances=0.15,
            necrotic_if_enhancing=0.10,
            necrotic_if_not=0.10,
            core=0.60,
            necrosis=0.15,
            enhancing=0.15,
            ring=False,
            gadolinium=0.2,
            t1=1.14,
            t2=1.23,
        ),
    }
)
SHARE_DEVIATION = 0.3
"""Of each share, relative to its mean."""
T1_DEVIATION, T2_DEVIATION = 0.15, 0.3
"""Between tumours of one grade, of the logarithm; de Blank et al. report 14 and 34 % in low grade."""
WATER = 0.7
"""Share of that variance which T1 and T2 have in common, since water lengthens both; by reasoning."""
GADOLINIUM_DEVIATION = 0.4


@dataclass(frozen=True)
class Pathology:
    """What one tumour is made of."""

    core: float
    """Share of the tumour."""
    necrosis: float
    """Share of the core."""
    enhancing: float
    """Share of the core."""
    ring: bool
    gadolinium: float
    """In mM."""
    solid: Tissue


def draw_pathology(grade: str, rng: np.random.Generator) -> Pathology:
    """What a tumour of that grade is made of; the same random numbers are used up for each grade."""
    biology = BIOLOGY[grade]
    enhances = rng.random() < biology.enhances
    necrotic = rng.random() < (biology.necrotic_if_enhancing if enhances else biology.necrotic_if_not)
    core, necrosis, enhancing = (
        float(np.clip(mean * (1 + SHARE_DEVIATION * rng.standard_normal()), 0.05, 0.9))
        for mean in (biology.core, biology.necrosis, biology.enhancing)
    )
    water, *own = rng.standard_normal(3)
    t1, t2 = (np.sqrt(WATER) * water + np.sqrt(1 - WATER) * each for each in own)
    return Pathology(
        core=core,
        necrosis=necrosis * necrotic,
        enhancing=enhancing * enhances,
        ring=biology.ring,
        gadolinium=float(biology.gadolinium * np.exp(GADOLINIUM_DEVIATION * rng.standard_normal())),
        solid=SOLID.scaled(
            biology.t1 * float(np.exp(T1_DEVIATION * t1)), biology.t2 * float(np.exp(T2_DEVIATION * t2))
        ),
    )
