"""BraTS folders of any year: which files belong to which subject, and its grade."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from fusionbench import Cohort, CohortError, CohortReader, Modality, Subject, hookimpl, nearest

MODALITIES = ("t1ce", "t2", "flair", "t1")
"""The names of 2018, in the order in which a cohort has them."""
ALIASES = {"t1c": "t1ce", "t1gd": "t1ce", "t2f": "flair", "t1n": "t1", "t2w": "t2", "seg_auto": "seg"}
"""Other years' names -> the names of 2018."""
MAPPING = "name_mapping.csv"

_NAMES = "|".join(sorted([*MODALITIES, "seg", *ALIASES], key=len, reverse=True))
_FILE = re.compile(rf".+[_-](?P<name>{_NAMES})\.nii(\.gz)?", re.IGNORECASE | re.DOTALL)
_SESSION = re.compile(r"(?P<patient>BraTS-[A-Za-z]+-\d+)-\d{3}")
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

    A patient with several sessions (BraTS-GLI-00000-000, -001) is one group and so stays in one fold.
    """

    name: ClassVar[str] = "brats"
    config: ClassVar[str] = "brats"

    def __init__(
        self,
        *,
        labels: Annotated[str, "CSV in the data folder with columns subject,label[,group,site]"] = "",
        classes: Annotated[tuple[str, ...], "every label there is, in order"] = ("HGG", "LGG"),
        positive_class: Annotated[str, "the class that sensitivity is about"] = "LGG",
    ) -> None:
        self.labels = labels
        self.classes = classes
        self.positive_class = positive_class

    def read(self, path: Path) -> Cohort:
        """The cohort in that folder; CohortError lists everything that is wrong with it."""
        if not path.is_dir():
            raise CohortError(f"{path.name} is no folder; give the folder that holds the BraTS subjects")
        listing = self._listing(path)
        found = [_subject(case) for case in listing.cases]
        faults = [*listing.faults, *(fault for _, faults in found for fault in faults)]
        faults += [
            f"{s.id!r} has the label {s.label!r}: {nearest(s.label, self.classes)}"
            for s, _ in found
            if s.label not in self.classes
        ]
        if faults:
            raise CohortError.of(path.name, faults)
        return self._cohort(path, tuple(subject for subject, _ in found), listing.notes)

    def _listing(self, root: Path) -> Listing:
        """The cases of the first layout that fits: a table that was asked for, one folder per class, a name mapping."""
        if self.labels:
            return _labelled(root, self.labels)
        if any((root / label).is_dir() for label in self.classes):
            return Listing([Case(folder, label) for label in self.classes for folder in _folders(root / label)])
        if (root / MAPPING).is_file():
            return _mapped(root)
        if any(_images(folder) for folder in _folders(root)):
            raise CohortError(
                f"{root.name} says nowhere which grade a subject has: write a CSV with the columns "
                "subject,label and name it with --set brats.labels=FILE.csv"
            )
        wanted = ", ".join(f"{label}/" for label in self.classes)
        raise CohortError(
            f"{root.name} holds no subjects: looked for {wanted}, {MAPPING} and folders with "
            "*_t1ce.nii.gz or *-t1c.nii.gz; give the folder right above them"
        )

    def _cohort(self, path: Path, subjects: tuple[Subject, ...], notes: Iterable[str]) -> Cohort:
        if not subjects:
            raise CohortError(f"{path.name} holds no subject folders; unpack the download there")
        card = _card(path)
        present = {name for subject in subjects for name in subject.files}
        return Cohort(
            name=str(card.get("name", path.resolve().name)),
            classes=self.classes,
            positive_class=self.positive_class,
            modalities=tuple(Modality(name) for name in MODALITIES if name in present),
            subjects=subjects,
            synthetic=bool(card.get("synthetic", False)),
            notes=(*([str(card["note"])] if "note" in card else []), *notes),
        )


def _labelled(root: Path, table: str) -> Listing:
    """The cases that a CSV of labels names; a folder that it does not name is left out and noted."""
    rows = _table(root / table, ("subject", "label"))
    folders = {folder.name: folder for folder in _folders(root)}
    cases = [
        Case(folders[row["subject"]], row["label"], row.get("group", ""), row.get("site", ""))
        for row in rows
        if row["subject"] in folders
    ]
    faults = [
        f"{row['subject']!r} of {table} has no folder: {nearest(row['subject'], folders)}"
        for row in rows
        if row["subject"] not in folders
    ]
    named = {row["subject"] for row in rows}
    left_out = [name for name, folder in folders.items() if name not in named and _images(folder)]
    return Listing(cases, faults, [f"left out, not in {table}: {name!r}" for name in left_out])


def _mapped(root: Path) -> Listing:
    """The cases of BraTS 2020, graded by the newest column of its name mapping that fits the folders."""
    rows = _table(root / MAPPING, ("Grade",))
    folders = [folder for folder in _folders(root) if _images(folder)]
    names = {folder.name for folder in folders}
    columns = {column: int(match["year"]) for column in rows[0] if (match := _ID_COLUMN.fullmatch(column))}
    if not columns:
        raise CohortError(f"{MAPPING} has no column like BraTS_2020_subject_ID; take the one of the download")
    column = max(columns, key=lambda name: (len(names & {row[name] for row in rows}), columns[name]))
    grades = {row[column]: row["Grade"] for row in rows}
    cases = [Case(folder, grades[folder.name]) for folder in folders if folder.name in grades]
    faults = [f"{name!r} is not in column {column} of {MAPPING}" for name in sorted(names - set(grades))]
    return Listing(cases, faults)


def _subject(case: Case) -> tuple[Subject, list[str]]:
    """A case with its images, and what is wrong with them."""
    images = _images(case.folder)
    faults = [
        f"{case.folder.name!r} has {len(files)} files for {name}; keep one"
        for name, files in images.items()
        if len(files) > 1
    ]
    files = {name: images[name][0] for name in MODALITIES if name in images}
    seg = images["seg"][0] if "seg" in images else None
    id = case.folder.name
    return Subject(id, case.label, files, seg=seg, group=case.group or _patient(id), site=case.site), faults


def _images(folder: Path) -> Mapping[str, list[Path]]:
    """Name of 2018 -> the files for it; an automatic segmentation only where there is no other."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match and not path.name.startswith("."):  # macOS leaves ._copies that hold no image
            files.setdefault(match["name"].lower(), []).append(path)
    automatic = files.pop("seg_auto", [])
    files.setdefault("seg", automatic)
    named: dict[str, list[Path]] = {}
    for name, paths in files.items():
        named.setdefault(ALIASES.get(name, name), []).extend(paths)
    return {name: paths for name, paths in named.items() if paths}


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


def _table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV that must have these columns; every cell as text, as it stands."""
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise CohortError(f"{path.name} is not in the data folder; write it or correct its name") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError):
        raise CohortError(f"{path.name} cannot be read as CSV; save it as comma-separated UTF-8") from None
    absent = [column for column in columns if column not in frame.columns]
    if absent or frame.empty:
        missing = f"column {absent[0]!r}" if absent else "rows"
        raise CohortError(f"{path.name} has no {missing}; its columns are {', '.join(map(str, frame.columns))}")
    return [{str(name): str(cell) for name, cell in row.items()} for row in frame.fillna("").to_dict("records")]


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


@hookimpl
def fusionbench_cohorts() -> list[type[CohortReader]]:
    """The reader for BraTS folders."""
    return [Brats]
