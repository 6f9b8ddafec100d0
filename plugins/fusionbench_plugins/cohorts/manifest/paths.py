"""Paths as a table has them: to files that are there, inside the folder of the table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ENDINGS = (".nii", ".nii.gz")


def is_image(cell: str) -> bool:
    """Whether a cell is meant as a NIfTI file.

    >>> is_image("scans/a_t1.NII.gz"), is_image("0.5")
    (True, False)
    """
    return cell.lower().endswith(ENDINGS)


@dataclass(frozen=True)
class Root:
    """The folder that paths are relative to, and whether they may leave it."""

    folder: Path
    outside: bool
    taken: dict[Path, str] = field(default_factory=dict)
    """File -> who has it."""

    def files(self, column: str, cells: Mapping[str, str]) -> tuple[dict[str, Path], list[str]]:
        """Subject -> file, of those that have one, and what is wrong with the cells."""
        files, faults = {}, []
        for id, cell in cells.items():
            if not cell.strip():
                continue
            if fault := self._fault(cell, f"{column} of {id!r}"):
                faults.append(f"{id!r}, {column}: {fault}")
            files[id] = self.folder / cell
        return files, faults

    def _fault(self, cell: str, owner: str) -> str:
        """What is wrong with the path of an owner; empty if nothing is."""
        if not is_image(cell):
            return f"{cell!r} is no NIfTI file (.nii, .nii.gz); leave the cell empty if there is none"
        path = Path(cell)
        if not self.outside and (path.is_absolute() or ".." in path.parts):
            return (
                f"{cell!r} leaves the folder of the manifest; write it relative to that, or set manifest.outside=true"
            )
        file = self.folder / path
        if not os.path.isfile(file):  # noqa: PTH113 - unlike Path.is_file it survives names of any length
            return f"{cell!r} is not there"
        real = file.resolve()
        if not self.outside and not real.is_relative_to(self.folder.resolve()):
            return f"{cell!r} is a link that leaves the folder of the manifest; set manifest.outside=true to follow it"
        first = self.taken.setdefault(real, owner)
        return f"{cell!r} is the file of {first} too" if first != owner else ""
