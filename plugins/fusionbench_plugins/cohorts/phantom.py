"""The built-in cohort: a glioma phantom with the physics of MRI, so that nobody needs data to start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fusionbench import Cohort, CohortReader, atomic_folder, hookimpl, load_registry, read_cohort
from fusionbench_plugins.cohorts.glioma_phantom.recipe import MODALITIES, Recipe
from fusionbench_plugins.cohorts.phantom_collection.knobs import Collection


class Phantom(CohortReader):
    """The built-in synthetic glioma cohort, written once as BraTS-layout NIfTI.

    It proves mechanics, not medicine. docs/phantom.md has the equations, the constants and their sources.
    """

    name = "phantom"
    config = "demo"

    def __init__(
        self,
        *,
        subjects: Annotated[int, "how many subjects"] = 72,
        seed: Annotated[int, "another seed, another cohort"] = 0,
        spacing: Annotated[float, "size of a voxel in mm, 1 to 10"] = 4.0,
        hgg_share: Annotated[float, "share of high-grade subjects; 0.74 is that of BraTS2018"] = 0.74,
        noise: Annotated[float, "deviation of the noise over the signal of white matter"] = 0.03,
        informative: Annotated[
            tuple[str, ...], "the modalities that carry the grade; none makes a null cohort"
        ] = MODALITIES,
        missingness: Annotated[float, "share of the files of modalities that are lost, up to 0.75"] = 0.0,
        sites: Annotated[int, "how many sites with a scanner each; with several, every subject has a site"] = 1,
    ) -> None:
        self.recipe = Recipe(subjects, seed, spacing, hgg_share, noise, informative)
        self.collection = Collection(missingness, sites)

    def location(self, home: Path) -> Path:
        """A folder of its own for these options and this generator: another one never meets old files."""
        state = self.collection.fingerprint(self.recipe)
        return home / "phantom" / f"{self.recipe.subjects}-seed{self.recipe.seed}-{state[:12]}"

    def read(self, path: Path) -> Cohort:
        """The cohort at that path, written first if nothing is there; CohortError if something else is."""
        from fusionbench_plugins.cohorts.glioma_phantom.writing import check_written, write_cohort
        from fusionbench_plugins.cohorts.phantom_collection.files import LABELS, check_collected, collect

        if not path.exists():
            with atomic_folder(path) as partial:
                write_cohort(self.recipe, partial)
                if not self.collection.idle:
                    collect(self.collection, self.recipe, partial)
        check_written(self.recipe, path)
        check_collected(self.collection, self.recipe, path)
        cohort: Cohort = read_cohort("brats", path, labels=LABELS if self.collection.sites > 1 else "")
        return cohort

    def read_new(self, path: Path, classes: tuple[str, ...], positive_class: str) -> Cohort:
        """Whatever lies there in the layout of BraTS, phantoms of other options too; nothing is written."""
        reader: CohortReader = load_registry().get("cohort", "brats").make(options={})
        return reader.read_new(path, classes, positive_class)


@hookimpl
def fusionbench_cohorts() -> list[type[CohortReader]]:
    """The phantom."""
    return [Phantom]
