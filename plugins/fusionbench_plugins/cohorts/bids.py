"""BIDS data sets, raw or derived: sequences from the names of the files, labels from participants.tsv."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from fusionbench import Cohort, CohortError, CohortReader, Modality, Proposal, Subject, hookimpl, nearest, summary
from fusionbench_plugins.cohorts.reading import proposals
from fusionbench_plugins.cohorts.reading.cells import column_of, indexed, read_cells
from fusionbench_plugins.cohorts.reading.labels import Labelling

PARTICIPANTS = "participants.tsv"
UNKNOWN = "n/a"
"""How BIDS writes a value that is not known."""
SEQUENCES = {"t1ce": ["ce-*_T1w"], "t2": ["T2w"], "flair": ["FLAIR"], "t1": ["T1w"]}
TUMOUR = (
    "label-tumo*_dseg", "label-lesion*_dseg", "label-tumo*_mask", "label-lesion*_mask",
    "desc-tumo*_dseg", "desc-lesion*_dseg", "desc-tumo*_mask", "desc-lesion*_mask",
)  # fmt: skip
"""Outlines of a tumour. A plain dseg is not among them: it mostly holds grey matter, white matter and fluid."""

_NO_CLASSES: dict[str, str] = {}
_NO_ENTITIES: dict[str, str] = {}
_NIFTI = re.compile(r"(?P<stem>.+)\.nii(\.gz)?", re.DOTALL)


@dataclass(frozen=True)
class Name:
    """What the name of a file says: its entities, such as ses and run, and its suffix.

    >>> Name.of("sub-01_ce-gadolinium_T1w.nii.gz")
    Name(entities={'sub': '01', 'ce': 'gadolinium'}, suffix='T1w')
    """

    entities: Mapping[str, str]
    suffix: str

    @classmethod
    def of(cls, text: str) -> Name | None:
        """That of a NIfTI file; None if it is none, or not named so."""
        match = _NIFTI.fullmatch(text)
        return cls.pattern(match["stem"]) if match else None

    @classmethod
    def pattern(cls, text: str) -> Name | None:
        """The same of a name without its ending; values may be patterns."""
        *pairs, suffix = text.split("_")
        entities = dict(pair.partition("-")[::2] for pair in pairs)
        return None if "-" in suffix or not all(entities.values()) else cls(entities, suffix)

    def fits(self, pattern: Name) -> bool:
        """Whether it has that suffix, and all those entities."""
        return self.suffix == pattern.suffix and self.has(pattern.entities)

    def has(self, wanted: Mapping[str, str]) -> bool:
        """Whether each entity has that value, where an empty one means that there is none."""
        mine = self.entities
        return all(key in mine and fnmatchcase(mine[key], v) if v else key not in mine for key, v in wanted.items())


@dataclass(frozen=True)
class Scan:
    """The files of a participant, or of a session of one."""

    participant: str
    files: dict[str, list[Path]] = field(default_factory=dict)
    """Modality -> every file that may be it."""
    segs: list[Path] = field(default_factory=list)


class Bids(CohortReader):
    """BIDS, raw or derived: T1w, T2w, FLAIR and contrast-enhanced T1w of sub-*, labels from participants.tsv.

    Every session is a subject, and those of a participant are one group, so they stay in one fold. A session lacks a
    sequence of which it has no file. A derivative takes the participants.tsv of its data set if it has none.
    """

    name: ClassVar[str] = "bids"
    config: ClassVar[str] = "brats"

    def __init__(
        self,
        *,
        label: Annotated[str, "column of participants.tsv that holds the labels"] = "label",
        site: Annotated[str, "column of the sites; may be absent"] = "site",
        sequences: Annotated[
            dict[str, list[str]], "modality -> suffix, with entities as patterns before it; the first that fits"
        ] = SEQUENCES,
        entities: Annotated[
            dict[str, str], "what images are to have, such as {space = 'SRI24', desc = 'preproc'}; '' means none"
        ] = _NO_ENTITIES,
        seg: Annotated[tuple[str, ...], "what tumour outlines are called, also those in derivatives/"] = TUMOUR,
        runs: Annotated[Literal["refuse", "first"], "what is done with several runs of a sequence"] = "refuse",
        classes: Annotated[dict[str, str], "label as written -> class name, in order"] = _NO_CLASSES,
        positive_class: Annotated[str, "the class that sensitivity is about; empty: the smaller one"] = "",
    ) -> None:
        self.label = label
        self.site = site
        self.sequences = {name: [_pattern(text) for text in texts] for name, texts in sequences.items()}
        self.entities = entities
        self.seg = [_pattern(text) for text in seg]
        self.runs = runs
        self.labelling = Labelling(self.name, classes, positive_class)

    def read(self, path: Path) -> Cohort:
        """The cohort of a data set; CohortError lists everything that is wrong with it."""
        scans, faults = self._scans(path)
        told, more = _participants(path)
        if self.label not in told:
            there = nearest(self.label, told)
            raise CohortError(f"{PARTICIPANTS} has no column {self.label!r}: {there}; set bids.label")
        labels = told[self.label]
        faults += [*more, *(f"{id!r} is not in {PARTICIPANTS}" for id in _people(scans) if id not in labels)]
        left_out = [id for id in _people(scans) if labels.get(id) == ""]
        absent = [id for id in labels if id not in _people(scans)]
        notes = [
            *([f"left out, for their {self.label} is {UNKNOWN}: {_several(left_out)}"] if left_out else []),
            *([f"left out, for they have no images: {_several(absent)}"] if absent else []),
        ]
        kept = {id: scan for id, scan in scans.items() if scan.participant not in left_out}
        classes, wrong = self.labelling.read(
            {id: labels[s.participant] for id, s in kept.items() if s.participant in labels}
        )
        subjects, missed, chosen = self._subjects(kept, classes, told.get(self.site, {}))
        if faults := [*faults, *wrong, *missed]:
            raise CohortError.of(path.name, faults)
        if scans and not classes:
            raise CohortError(f"{path.name}: nobody has a {self.label}; fill in {PARTICIPANTS}")
        positive, assumed = self.labelling.positive_of(classes) if classes else ("", [])
        names = self.labelling.names(classes)
        return self._cohort(path, subjects, names, positive, (*notes, *assumed, *chosen))

    def read_new(self, path: Path, classes: tuple[str, ...], positive_class: str) -> Cohort:
        """Every session that has images; participants.tsv is not needed."""
        scans, faults = self._scans(path)
        told = _participants(path)[0] if _table(path) else {}
        written = told.get(self.label, {})
        labels, notes = self.labelling.known({id: written.get(s.participant, "") for id, s in scans.items()}, classes)
        subjects, wrong, chosen = self._subjects(scans, labels, told.get(self.site, {}))
        if faults := [*faults, *wrong]:
            raise CohortError.of(path.name, faults)
        return self._cohort(path, subjects, classes, positive_class, (*notes, *chosen), labelled=False)

    def propose(self, path: Path) -> Proposal | None:
        """How a folder of sub-* could be read: the column of labels, and what images are ambiguous."""
        if not path.is_dir() or not _sub_folders(path):
            return None
        scans, faults = self._scans(path)
        imaged = {id: scan for id, scan in scans.items() if scan.files}
        if not imaged:
            return None
        faults += self._subjects(imaged, {}, {})[1]
        told = _participants(path)[0] if _table(path) else {}
        label = proposals.likely(told, (*proposals.LABELS, "group"))
        people, present = len(_people(imaged)), {name for scan in imaged.values() for name in scan.files}
        guesses = [
            f"sequences {', '.join(name for name in self.sequences if name in present)}",
            *([f"{len(imaged)} sessions of {people} participants"] if people < len(imaged) else []),
            f"labels in the column {label!r} of {PARTICIPANTS}"
            if label
            else f"{PARTICIPANTS} needs a column of labels",
            *([f"to be mended: {summary(faults, shown=3)}"] if faults else []),
        ]
        settings = [proposals.setting("bids.label", label)] if label not in ("", "label") else []
        return Proposal(tuple(settings), {}, tuple(guesses), len(imaged), labelled=bool(label))

    def _scans(self, root: Path) -> tuple[dict[str, Scan], list[str]]:
        """Subject -> its files, and names that do not go with their folder."""
        folders = _sub_folders(root)
        if not folders:
            raise CohortError(f"{root.name} holds no sub-* folders; give the root of a BIDS data set or derivative")
        scans: dict[str, Scan] = {}
        faults = []
        for path, name in _named(folders):
            person = f"sub-{name.entities.get('sub', '')}"
            if person != (folder := path.relative_to(root).parts[0]):
                faults.append(f"{path.name!r} lies in {folder!r}: move or rename it")
            elif (modality := self._modality(name)) and name.has(self.entities):
                scan = scans.setdefault(_id(name), Scan(person))
                scan.files.setdefault(modality, []).append(path)
        for path, name in (*_named(folders), *_named(_derived(root))):
            if _id(name) in scans and any(name.fits(pattern) for pattern in self.seg):
                scans[_id(name)].segs.append(path)
        return scans, faults

    def _modality(self, name: Name) -> str:
        """The first whose pattern the name fits; empty if it is none."""
        fitting = (m for m, patterns in self.sequences.items() if any(name.fits(pattern) for pattern in patterns))
        return next(fitting, "")

    def _subjects(
        self, scans: Mapping[str, Scan], labels: Mapping[str, str], sites: Mapping[str, str]
    ) -> tuple[tuple[Subject, ...], list[str], list[str]]:
        """The subjects, what is wrong with their files, and a note if some of several runs was taken."""
        subjects, faults, first = [], [], []
        for id, scan in scans.items():
            choices = {name: self._choice(paths) for name, paths in scan.files.items()}
            faults += [f"{id!r}, {name}: {fault}" for name, (_, fault) in choices.items() if fault]
            first += [id for name, (_, fault) in choices.items() if len(scan.files[name]) > 1 and not fault]
            seg, fault = self._choice(self._preferred(scan.segs), "seg") if scan.segs else (None, "")
            faults += [f"{id!r}, outline: {fault}"] if fault else []
            files = {name: path for name, (path, _) in choices.items()}
            site = sites.get(scan.participant, "")
            subjects.append(Subject(id, labels.get(id, ""), files, seg=seg, group=scan.participant, site=site))
        notes = [f"of several runs the first was taken: {_several(list(dict.fromkeys(first)))}"] if first else []
        return tuple(subjects), faults, notes

    def _preferred(self, segs: Sequence[Path]) -> list[Path]:
        """Of several outlines those of the first pattern that any fits."""
        read = [(path, name) for path in segs if (name := Name.of(path.name))]
        fitting = ([path for path, name in read if name.fits(pattern)] for pattern in self.seg)
        return next((paths for paths in fitting if paths), [])

    def _choice(self, paths: Sequence[Path], option: str = "entities") -> tuple[Path, str]:
        """The file that is meant of several, and what is wrong if that cannot be said but by an option."""
        if len(paths) == 1:
            return paths[0], ""
        names = [name for path in paths if (name := Name.of(path.name))]
        others = {tuple((k, v) for k, v in name.entities.items() if k != "run") for name in names}
        runs = [name.entities.get("run", "") for name in names]
        alike = len(others) == 1 and len(set(runs)) == len(runs)
        if alike and self.runs == "first":
            return min(zip(paths, runs, strict=True), key=lambda one: (len(one[1]), one[1]))[0], ""
        mend = "set bids.runs=first" if alike else f"keep one, or say which with bids.{option}"
        return paths[0], f"{len(paths)} files ({summary([path.name for path in paths], ', ', 3)}); {mend}"

    def _cohort(
        self,
        path: Path,
        subjects: tuple[Subject, ...],
        classes: tuple[str, ...],
        positive_class: str,
        notes: Iterable[str],
        labelled: bool = True,
    ) -> Cohort:
        if not subjects:
            wanted = summary([f"_{p.suffix}.nii.gz" for patterns in self.sequences.values() for p in patterns], ", ")
            raise CohortError(
                f"{path.name} has no images in its sub-* folders: looked for {wanted}; set bids.sequences"
            )
        present = {name for subject in subjects for name in subject.files}
        modalities = tuple(Modality(name) for name in self.sequences if name in present)
        return Cohort(
            path.resolve().name, classes, positive_class, modalities, subjects, notes=tuple(notes), labelled=labelled
        )


def _pattern(text: str) -> Name:
    """An option as a pattern; CohortError if it is none."""
    name = Name.pattern(text)
    if name is None:
        raise CohortError(f"bids: {text!r} is no pattern of names; write it as ce-*_T1w, the suffix last")
    return name


def _sub_folders(root: Path) -> list[Path]:
    return sorted(path for path in (root.glob("sub-*") if root.is_dir() else ()) if path.is_dir())


def _derived(root: Path) -> list[Path]:
    """The folders of participants in every derivative that lies in a data set."""
    return [folder for pipeline in sorted(root.glob("derivatives/*")) for folder in _sub_folders(pipeline)]


def _named(folders: Iterable[Path]) -> list[tuple[Path, Name]]:
    """Every NIfTI file below that is named as BIDS names files."""
    files = (path for folder in folders for path in sorted(folder.rglob("*.nii*")) if not path.name.startswith("."))
    return [(path, name) for path in files if (name := Name.of(path.name))]


def _id(name: Name) -> str:
    """The id of a subject: its participant, and the session if there is one."""
    parts = [f"{key}-{name.entities[key]}" for key in ("sub", "ses") if key in name.entities]
    return "_".join(parts)


def _people(scans: Mapping[str, Scan]) -> list[str]:
    return list(dict.fromkeys(scan.participant for scan in scans.values()))


def _several(ids: Sequence[str]) -> str:
    return summary([repr(id) for id in ids], ", ")


def _table(root: Path) -> Path | None:
    """participants.tsv of a data set, or of the one that a derivative lies in; None if there is none."""
    places = [root, *([root.resolve().parents[1]] if root.resolve().parent.name == "derivatives" else [])]
    return next((place / PARTICIPANTS for place in places if (place / PARTICIPANTS).is_file()), None)


def _participants(root: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Column of participants.tsv -> participant -> cell, empty where it is not known; and what is wrong with ids."""
    file = _table(root)
    if file is None:
        raise CohortError(f"{root.name} has no {PARTICIPANTS}: write it with the columns participant_id and label")
    cells = read_cells(file)
    if "participant_id" not in cells.columns:
        raise CohortError(f"{PARTICIPANTS} has no column 'participant_id': {nearest('participant_id', cells.columns)}")
    table, faults = indexed(cells, "participant_id")
    columns = {str(column): column_of(table, column) for column in table.columns}
    named = {
        column: {_person(id): "" if cell == UNKNOWN else cell for id, cell in values.items()}
        for column, values in columns.items()
    }
    return named, [f"{PARTICIPANTS}: {fault}" for fault in faults]


def _person(id: str) -> str:
    return id if id.startswith("sub-") else f"sub-{id}"


@hookimpl
def fusionbench_cohorts() -> list[type[CohortReader]]:
    """The reader for BIDS."""
    return [Bids]
