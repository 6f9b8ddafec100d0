"""What a sequence shows of a tissue: relaxation times at 1.5 T and the signal equations.

>>> t1, t2, flair = SEQUENCES["t1"], SEQUENCES["t2"], SEQUENCES["flair"]
>>> t1.signal(WHITE) > t1.signal(GREY) > t1.signal(FLUID) and t2.signal(FLUID) > t2.signal(GREY) > t2.signal(WHITE)
True
>>> round(flair.signal(FLUID) / flair.signal(GREY), 2)
0.0
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp
from types import MappingProxyType
from typing import Protocol


@dataclass(frozen=True)
class Tissue:
    """Relaxation times in ms and proton density over that of water."""

    t1: float
    t2: float
    density: float

    def scaled(self, t1: float = 1.0, t2: float = 1.0) -> Tissue:
        """The same tissue with its relaxation times multiplied."""
        return Tissue(self.t1 * t1, self.t2 * t2, self.density)

    def with_gadolinium(self, millimolar: float) -> Tissue:
        """The tissue with that much contrast agent: 1/T1 = 1/T1_0 + r1 C."""
        return Tissue(1 / (1 / self.t1 + RELAXIVITY * millimolar), self.t2, self.density)


RELAXIVITY = 4.1e-3
"""r1 of gadopentetate in plasma at 1.5 T and 37 degrees, per ms and mM (Rohrer et al., Invest Radiol 2005)."""

# BrainWeb (Kwan, Evans and Pike, IEEE Trans Med Imaging 1999; tissue_mr_parameters.txt).
WHITE = Tissue(500.0, 70.0, 0.77)
GREY = Tissue(833.0, 83.0, 0.86)
FLUID = Tissue(2569.0, 329.0, 1.0)

# Solid high-grade tumour. Its T2 is twice that of white matter (1.6 to 2.4 times in de Blank et al., who saw 23 young
# patients; 200 ms without and 357 ms with IDH mutation in adults of grade II-III, BMC Neurol 2020, s12883-019-1590-1).
# Its T1 is twice that of white matter, too (1.4 to 2.0), since a glioma is no brighter than grey matter on T1.
SOLID = Tissue(1000.0, 140.0, 0.88)
# White matter around a tumour has 1.34 and 1.71 times the T1 and T2 (de Blank et al.), deviations up to 1.73 and 3.05,
# in regions that are half healthy; pure oedema lies above the means.
OEDEMA = Tissue(950.0, 150.0, 0.86)
# Debris in fluid: half way, in logarithms, between solid tumour and cerebrospinal fluid, by reasoning.
NECROSIS = Tissue(1600.0, 215.0, 0.94)
# Arterial and venous blood, which the agent reaches everywhere: 1441 and 290 ms at 1.5 T (Stanisz et al., MRM 2005).
BLOOD = Tissue(1441.0, 290.0, 0.9)


class Sequence(Protocol):
    """A pulse sequence: a tissue in, a signal out."""

    def signal(self, tissue: Tissue) -> float:
        """The signal over that of fully relaxed water."""


@dataclass(frozen=True)
class SpinEcho:
    """S = PD (1 - exp(-TR/T1)) exp(-TE/T2); times in ms."""

    repetition: float
    echo: float

    def signal(self, tissue: Tissue) -> float:
        """The signal over that of fully relaxed water."""
        return tissue.density * (1 - exp(-self.repetition / tissue.t1)) * exp(-self.echo / tissue.t2)


@dataclass(frozen=True)
class InversionRecovery:
    """S = PD |1 - 2 exp(-TI/T1) + exp(-TR/T1)| exp(-TE/T2); times in ms."""

    repetition: float
    echo: float
    inversion: float

    def signal(self, tissue: Tissue) -> float:
        """The magnitude of the signal over that of fully relaxed water."""
        recovered = 1 - 2 * exp(-self.inversion / tissue.t1) + exp(-self.repetition / tissue.t1)
        return tissue.density * abs(recovered) * exp(-self.echo / tissue.t2)


T1_WEIGHTED = SpinEcho(repetition=500.0, echo=15.0)
SEQUENCES: Mapping[str, Sequence] = MappingProxyType(
    {
        "t1": T1_WEIGHTED,
        "t1ce": T1_WEIGHTED,  # the same scan after the injection
        "t2": SpinEcho(repetition=4000.0, echo=100.0),
        # The inversion time nulls cerebrospinal fluid: TI = T1 ln(2 / (1 + exp(-TR/T1))) = 1704 ms.
        "flair": InversionRecovery(repetition=9000.0, echo=120.0, inversion=1704.0),
    }
)
