"""BraTS folders of any year: which files belong to which subject, and its grade."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from fusionbench import Cohort, CohortError, CohortReader, Modality, Proposal, Subject, csv_text, hookimpl, nearest
from fusionbench_plugins.cohorts.reading import proposals
from fusionbench_plugins.cohorts.reading.cells import absent_columns, read_cells

MODALITIES = ("t1ce", "t2", "flair", "t1")
"""The names of 2018, in the order in which a cohort has them."""
ALIASES = {
    "t1c": "t1ce",
    "t1gd": "t1ce",
    "t2f": "flair",
    "t1n": "t1",
    "t2w": "t2",
    "segm": "seg",  # BraTS20_Training_355 has W39_1998.09.19_Segm.nii
    "seg_auto": "seg",
}
"""Other years' names -> the names of 2018."""
MAPPING = "name_mapping.csv"

_NAMES = "|".join(sorted([*MODALITIES, "seg", *ALIASES], key=len, reverse=True))
_FILE = re.compile(rf".+[_-](?P<name>{_NAMES})\.nii(\.gz)?", re.IGNORECASE | re.DOTALL)
_SESSION = re.compile(r"(?P<patient>BraTS(-[A-Za-z]+)+-\d+)-\d+")
_NUMBERED = re.compile(r".*\D(?P<number>\d+)", re.DOTALL)
_ID_COLUMN = re.compile(r"BraTS_?(20)?(?P<year>\d\d)_subject_ID", re.IGNORECASE)


@dataclass(frozen=True)
class Case:
    """One subject before its images are known: where they lie, and what a folder or a table says of it."""

    folder: Path
    label: str
    group: str = ""
    site: str = ""


@dataclass(frozen=True)
class Listing:
    """The cases of a layout, what is wrong with it, and what was left out."""

    cases: Sequence[Case]
    faults: Sequence[str] = ()
    notes: Sequence[str] = ()


class Brats(CohortReader):
    """BraTS as downloaded: 2018/2019 (HGG/, LGG/), 2020 (name_mapping.csv), later years with a table of labels.

    A subject lacks a sequence of which it has no file. A patient with several sessions (BraTS-GLI-00000-000, -001) is
    one group and so stays in one fold.
    """

    name: ClassVar[str] = "brats"
    config: ClassVar[str] = "brats"

    def __init__(
        self,
        *,
        labels: Annotated[str, "CSV in the data folder with columns subject,label[,group,site]"] = "",
        subject: Annotated[str, "its column of ids: folders, their last numbers (0 is 00000), or patients"] = "subject",
        label: Annotated[str, "its column of labels"] = "label",
        site: Annotated[str, "its column of sites, if it has one"] = "site",
        classes: Annotated[tuple[str, ...], "every label there is, in order"] = ("HGG", "LGG"),
        positive_class: Annotated[str, "the class that sensitivity is about"] = "LGG",
    ) -> None:
        self.labels = labels
        self.subject = subject
        self.label = label
        self.site = site
        self.classes = classes
        self.positive_class = positive_class

    def read(self, path: Path) -> Cohort:
        """The cohort in that folder; CohortError lists everything that is wrong with it."""
        _check_folder(path)
        listing = self._listing(path)
        subjects, faults = _subjects(path, listing)
        faults += [
            f"{s.id!r} has the label {s.label!r}: {nearest(s.label, self.classes)}"
            if s.label
            else f"{s.id!r} has no label"
            for s in subjects
            if s.label not in self.classes
        ]
        if faults:
            raise CohortError.of(path.name, faults)
        return _cohort(path, subjects, listing.notes, self.classes, self.positive_class)

    def read_new(self, path: Path, classes: tuple[str, ...], positive_class: str) -> Cohort:
        """Every subject folder, or the one that is given, with its label where the layout tells it."""
        _check_folder(path)
        listing = self._told(path)
        known = {case.folder: case for case in listing.cases}
        folders = [path] if _images(path) else [f for f in _subject_folders(path).values() if _images(f)]
        cases = [known.get(folder, Case(folder, "")) for folder in folders]
        told = [case if case.label in classes else replace(case, label="") for case in cases]
        subjects, faults = _subjects(path, Listing(told))
        if faults:
            raise CohortError.of(path.name, faults)
        return _cohort(path, subjects, (), classes, positive_class, labelled=False)

    def propose(self, path: Path) -> Proposal | None:
        """How a folder of subject folders could be read; labels.csv to fill in where nothing tells the grade."""
        if not path.is_dir():
            return None
        graded = {grade: _with_images(path / grade) for grade in ("HGG", "LGG")}
        if all(graded.values()):
            told = ", ".join(f"{len(folders)} {grade}" for grade, folders in graded.items())
            return Proposal((), {}, (f"grades from the folders: {told}",), sum(map(len, graded.values())))
        names = [folder.name for folder in _with_images(path)]
        if not names:
            return None
        if (path / MAPPING).is_file():
            return Proposal((), {}, (f"grades from {MAPPING}",), len(names))
        return _proposed_table(path, names) or _proposed_labels(path, names)

    def _told(self, root: Path) -> Listing:
        """What is said of subjects who need no label: by the table if it is there, by folders, by nothing."""
        if self.labels and (root / self.labels).is_file():
            return self._labelled(root)
        return self._graded(root) or Listing([])

    def _listing(self, root: Path) -> Listing:
        """The cases of the first layout that fits: a table that was asked for, one folder per class, a name mapping."""
        if self.labels:
            return self._labelled(root)
        if graded := self._graded(root):
            return graded
        if _with_images(root):
            raise CohortError(
                f"{root.name} says nowhere which grade a subject has: write a CSV with the columns "
                "subject,label and name it with --set brats.labels=FILE.csv"
            )
        wanted = ", ".join(f"{label}/" for label in self.classes)
        raise CohortError(
            f"{root.name} holds no subjects: looked for {wanted}, {MAPPING} and folders with "
            "*_t1ce.nii.gz or *-t1c.nii.gz; give the folder right above them"
        )

    def _graded(self, root: Path) -> Listing | None:
        """The cases as one folder per class, or a name mapping, tells them; None if neither is there."""
        if any((root / label).is_dir() for label in self.classes):
            return Listing([Case(folder, label) for label in self.classes for folder in _folders(root / label)])
        return _mapped(root) if (root / MAPPING).is_file() else None

    def _labelled(self, root: Path) -> Listing:
        """The cases that the CSV of labels names; a folder that it does not name is left out and noted."""
        columns = (self.subject, self.label, *([self.site] if self.site != "site" else []))
        rows = _table(root / self.labels, columns, ": set brats.subject, brats.label or brats.site")
        folders = _subject_folders(root)
        numbers = _by_number(folders)
        cases: list[Case] = []
        faults: list[str] = []
        for row in rows:
            id = row[self.subject]
            found = _meant(id, folders, numbers)
            if not found:
                faults.append(f"{id!r} of {self.labels} has no folder: {nearest(id, folders)}")
            elif len(found) > 1 and len({_patient(folder.name) for folder in found}) > 1:
                told = " and ".join(repr(folder.name) for folder in found[:2])
                faults.append(f"{id!r} of {self.labels} may be {told}: write the name of the folder")
            else:
                group, site = row.get("group", ""), row.get(self.site, "")
                cases += [Case(folder, row[self.label], group, site) for folder in found]
        named = {case.folder for case in cases}
        left_out = [name for name, folder in folders.items() if folder not in named and _images(folder)]
        return Listing(cases, faults, [f"left out, not in {self.labels}: {name!r}" for name in left_out])


def _mapped(root: Path) -> Listing:
    """The cases of BraTS 2020, graded by the newest column of its name mapping that fits the folders."""
    rows = _table(root / MAPPING, ("Grade",))
    folders = _with_images(root)
    names = {folder.name for folder in folders}
    columns = {column: int(match["year"]) for column in rows[0] if (match := _ID_COLUMN.fullmatch(column))}
    if not columns:
        raise CohortError(f"{MAPPING} has no column like BraTS_2020_subject_ID; take the one of the download")
    column = max(columns, key=lambda name: (len(names & {row[name] for row in rows}), columns[name]))
    grades = {row[column]: row["Grade"] for row in rows}
    cases = [Case(folder, grades[folder.name]) for folder in folders if folder.name in grades]
    faults = [f"{name!r} is not in column {column} of {MAPPING}" for name in sorted(names - set(grades))]
    return Listing(cases, faults)


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        raise CohortError(f"{path.name} is no folder; give the folder that holds the BraTS subjects")


def _subjects(path: Path, listing: Listing) -> tuple[tuple[Subject, ...], list[str]]:
    """The cases with their images, and what is wrong with them."""
    found = [_subject(case) for case in listing.cases]
    return tuple(s for s, _ in found), [*listing.faults, *(fault for _, faults in found for fault in faults)]


def _subject(case: Case) -> tuple[Subject, list[str]]:
    """A case with its images, and what is wrong with them."""
    images = _images(case.folder)
    id = case.folder.resolve().name
    faults = [f"{id!r} has {len(files)} files for {name}; keep one" for name, files in images.items() if len(files) > 1]
    files = {name: images[name][0] for name in MODALITIES if name in images}
    seg = images["seg"][0] if "seg" in images else None
    return Subject(id, case.label, files, seg=seg, group=case.group or _patient(id), site=case.site), faults


def _cohort(
    path: Path,
    subjects: tuple[Subject, ...],
    notes: Iterable[str],
    classes: tuple[str, ...],
    positive_class: str,
    labelled: bool = True,
) -> Cohort:
    if not subjects:
        raise CohortError(f"{path.name} holds no subject folders; unpack the download there")
    card = _card(path)
    present = {name for subject in subjects for name in subject.files}
    return Cohort(
        name=str(card.get("name", path.resolve().name)),
        classes=classes,
        positive_class=positive_class,
        modalities=tuple(Modality(name) for name in MODALITIES if name in present),
        subjects=subjects,
        synthetic=bool(card.get("synthetic", False)),
        notes=(*([str(card["note"])] if "note" in card else []), *notes),
        labelled=labelled,
    )


def _images(folder: Path) -> Mapping[str, list[Path]]:
    """Name of 2018 -> the files for it; an automatic segmentation only where there is no other."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match and not path.name.startswith("."):  # macOS leaves ._copies that hold no image
            files.setdefault(match["name"].lower(), []).append(path)
    automatic = files.pop("seg_auto", [])
    named: dict[str, list[Path]] = {}
    for name, paths in files.items():
        named.setdefault(ALIASES.get(name, name), []).extend(paths)
    named.setdefault("seg", automatic)
    return {name: paths for name, paths in named.items() if paths}


def _subject_folders(root: Path) -> dict[str, Path]:
    """Name -> folder, of those right below and of those in one that holds no images itself, such as HGG/."""
    here = {folder.name: folder for folder in _folders(root)}
    below = [inner for folder in here.values() if not _images(folder) for inner in _with_images(folder)]
    return here | {folder.name: folder for folder in below}


def _with_images(root: Path) -> list[Path]:
    """The folders right below that hold images."""
    return [folder for folder in _folders(root) if _images(folder)]


def _folders(root: Path) -> list[Path]:
    """The visible folders right below, by name; none if there is no such folder."""
    return sorted(path for path in (root.iterdir() if root.is_dir() else ()) if _visible_folder(path))


def _visible_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith((".", "__MACOSX"))


def _patient(id: str) -> str:
    """The patient of a session: BraTS-GLI-00012-001 is the second one of BraTS-GLI-00012.

    >>> _patient("BraTS-GLI-00012-001"), _patient("Brats18_TCIA10_130_1")
    ('BraTS-GLI-00012', 'Brats18_TCIA10_130_1')
    """
    match = _SESSION.fullmatch(id)
    return match["patient"] if match else id


def _by_number(folders: Mapping[str, Path]) -> dict[int, list[Path]]:
    """The last number in a folder's name, such as 0 of BraTS2021_00000, -> the folders."""
    found: dict[int, list[Path]] = {}
    for name, folder in folders.items():
        if match := _NUMBERED.fullmatch(name):
            found.setdefault(int(match["number"]), []).append(folder)
    return found


def _meant(id: str, folders: Mapping[str, Path], numbers: Mapping[int, list[Path]]) -> list[Path]:
    """The folders that a table means: that of this name, the sessions of this patient, those of this number."""
    if id in folders:
        return [folders[id]]
    if sessions := [folder for name, folder in folders.items() if _patient(name) == id]:
        return sessions
    return numbers.get(int(id), []) if id.isascii() and id.isdigit() else []


def _table(path: Path, columns: Sequence[str], mend: str = "") -> list[dict[str, str]]:
    """The rows of a CSV that must have these columns; every cell as text, as it stands."""
    cells = read_cells(path)
    if absent := absent_columns(columns, cells):
        raise CohortError(f"{path.name} has {absent}{mend}")
    return [{str(name): str(cell) for name, cell in row.items()} for row in cells.to_dict("records")]


def _card(root: Path) -> Mapping[str, Any]:
    """What cohort.json says: name, synthetic, note; nothing if there is no such file."""
    path = root / "cohort.json"
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        card = None
    if not isinstance(card, dict):
        raise CohortError(f'{path.name} is not JSON like {{"name": "...", "synthetic": true}}; mend or remove it')
    return card


def _proposed_table(root: Path, names: Sequence[str]) -> Proposal | None:
    """The table in the folder that names most subjects, with its columns; None if none names half of them."""
    folders = {name: root / name for name in names}
    numbers = _by_number(folders)
    named: dict[tuple[Path, str], int] = {}
    for file in sorted(root.glob("*.csv")):
        table = proposals.readable(file)
        for column, ids in table.items() if table is not None else ():
            meant = [_meant(id, folders, numbers) for id in ids]
            named[file, str(column)] = len({found[0] for found in meant if found})
    (file, subject), found = max(named.items(), key=lambda item: item[1], default=((root, ""), 0))
    if 2 * found < len(names):
        return None
    table = read_cells(file)
    label = proposals.likely([column for column in table.columns if column != subject], proposals.LABELS)
    classes, positive, why = proposals.classes_of(table[label]) if label else ((), "", "")
    options = {"labels": file.name, "subject": subject, "label": label}
    ordinary = {"subject": "subject", "label": "label"}
    settings = [proposals.setting(f"brats.{n}", v) for n, v in options.items() if v and ordinary.get(n) != v]
    if classes and classes != ("HGG", "LGG"):
        settings += [proposals.setting("brats.classes", classes), proposals.setting("brats.positive_class", positive)]
    guesses = [f"{file.name} names {found} subjects in its column {subject!r}"]
    guesses.append(f"labels in its column {label!r}" if label else "none of its columns is called like labels")
    guesses += [f"positive class {positive}, {why}"] if classes and classes != ("HGG", "LGG") else []
    guesses += ["its labels are to be filled in"] if label and not classes else []
    return Proposal(tuple(settings), {}, tuple(guesses), len(names), labelled=bool(classes))


def _proposed_labels(root: Path, names: Sequence[str]) -> Proposal:
    """A table of labels to fill in, under a name that is free."""
    free = next(
        name for name in ("labels.csv", *(f"labels-{n}.csv" for n in range(2, 1000))) if not (root / name).exists()
    )
    text = csv_text(("subject", "label"), [(name, "") for name in names])
    guesses = (f"nothing tells the grades: fill in the column label of {free} with HGG or LGG, or set brats.classes",)
    return Proposal((proposals.setting("brats.labels", free),), {free: text}, guesses, len(names), labelled=False)


@hookimpl
def fusionbench_cohorts() -> list[type[CohortReader]]:
    """The reader for BraTS folders."""
    return [Brats]
