"""A manifest for a folder tree of NIfTI files: which subject and which sequence a file is, guessed from its name."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from fusionbench import Proposal, csv_text, summary
from fusionbench_plugins.cohorts.manifest.paths import ENDINGS
from fusionbench_plugins.cohorts.reading.cells import column_of
from fusionbench_plugins.cohorts.reading.proposals import readable

MANIFESTS = ("manifest.csv", "manifest.tsv")
"""What a folder's manifest is called."""
STANDARD = "dataset_description.json"
"""Where it lies, a standard says which file is what, so nothing is to be guessed."""
SEQUENCES: Final[Mapping[str, str]] = {
    "t1ce": r"t1w?[_-]?(?:ce|c|gd|gad|km|post|postcontrast|contrast|contrastenhanced)|ce-[a-z0-9]+_t1w",
    "flair": r"(?:t2w?[_-]?)?flair|t2f",
    "t2": r"t2w?",
    "t1": r"t1[wn]?(?:[_-]?(?:pre|native))?",
    "seg": r"(?:tumou?r|lesion)[_-]?(?:seg|segm|segmentation|mask|labels?)|seg|segm|dseg|segmentation"
    r"|glistrboost(?:[_-]manuallycorrected)?",
}
"""Column of the manifest -> how its files are called; the first that fits at a place is meant."""
COLUMNS = ("t1ce", "t2", "flair", "t1", "seg")
"""In the order of the manifest."""

_WORD: Final = re.compile(
    "(?:^|(?<=[_. -]))(?:" + "|".join(f"(?P<{name}>{words})" for name, words in SEQUENCES.items()) + ")(?=$|[_. -])",
    re.IGNORECASE,
)
_TRAILING: Final = re.compile(r"[_. -]+(?P<word>auto|automated|approx)$", re.IGNORECASE)
_ENTITY: Final = re.compile(r"_(?:acq|rec|run|space|res|desc|label)(?:-[^_]*)?(?=_|$)", re.IGNORECASE)
"""What BIDS says of a file and not of its subject."""
_NOT_TUMOUR: Final = re.compile(r"(brain|parenchyma|wm|gm|csf|tissue)$", re.IGNORECASE)
_VISIT: Final = re.compile(r"(?P<patient>.*\d{3})[_-](?:ses-\w+|fu\w+|\d{1,3})", re.IGNORECASE | re.DOTALL)
_BLANKS: Final = " _.-"
_MOST_VISITS: Final = 10
"""Of a patient; beyond, what looks like visits is a numbering."""


@dataclass(frozen=True)
class Found:
    """A file whose name says what it is."""

    path: PurePosixPath
    """From the folder on."""
    subject: str
    """What its name begins with; empty if it says the sequence alone."""
    sequence: str
    variant: str
    """What else its name says, such as `bias`; empty for the plain file."""


Naming = Callable[[Found], str]
"""Who a file is of."""
NAMINGS: Final[Mapping[str, Naming]] = {
    "the names of the files": lambda file: file.subject or file.path.parent.as_posix(),
    "the folders of the files": lambda file: file.path.parent.as_posix(),
    "the folders right below": lambda file: file.path.parts[0],
}
"""What may say who a file is of; where several would do, the first."""


def propose(root: Path) -> Proposal | None:
    """A manifest of every NIfTI file below a folder that is understood; None if there is none, or a standard."""
    if manifest := next((name for name in MANIFESTS if (root / name).is_file()), ""):
        return Proposal((), {}, (f"{manifest} is there already",), *_told(root / manifest))
    if (root / STANDARD).is_file():
        return None
    paths = sorted(nifti_files(root))
    read = {path: found for path in paths if (found := read_name(path))}
    if not any(file.sequence != "seg" for file in read.values()):
        return None
    said, naming = _best(read.values())
    chosen, left = _chosen(read.values(), naming)
    columns = [name for name in COLUMNS if any(name in files for files in chosen.values())]
    strange = [path for path in paths if path not in read]
    groups = _groups(chosen)
    header = ("subject", "label", *(("group",) if groups else ()), *columns)
    rows = [
        (id, "", *((groups[id],) if groups else ()), *(str(files[c].path) if c in files else "" for c in columns))
        for id, files in chosen.items()
    ]
    guesses = [
        "the column label is empty: fill it in",
        f"subjects from {said}, sequences from the names of the files: {', '.join(columns)}",
        *(f"{_counted(name, chosen)} have no {name}" for name in columns if _counted(name, chosen)),
        *(["group from the names of subjects that differ in their last part"] if groups else []),
        *([f"left out, as another file is the plainer one: {_examples(left)}"] if left else []),
        *([f"left out, not understood: {_examples(strange)}"] if strange else []),
    ]
    return Proposal((), {MANIFESTS[0]: csv_text(header, rows)}, tuple(guesses), len(rows), labelled=False)


def nifti_files(root: Path) -> Iterable[PurePosixPath]:
    """Every NIfTI file below a folder that is not hidden, from the folder on."""
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        here = PurePosixPath(Path(place).relative_to(root).as_posix())
        yield from (here / name for name in names if name.lower().endswith(ENDINGS) and not name.startswith("."))


def read_name(path: PurePosixPath) -> Found | None:
    """What the name of a file says; None if it names no sequence.

    >>> found = read_name(PurePosixPath("UPENN-GBM-00001_11_T1GD.nii.gz"))
    >>> found.subject, found.sequence
    ('UPENN-GBM-00001_11', 't1ce')
    """
    if not _is_text(path):
        return None  # bytes that are no UTF-8, which no table can hold
    stem = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    words = list(_WORD.finditer(stem))
    if not words:
        return None
    word = words[-1]
    sequence = str(word.lastgroup)
    subject, variant = stem[: word.start()].rstrip(_BLANKS), stem[word.end() :].strip(_BLANKS).lower()
    if sequence == "seg":
        if _NOT_TUMOUR.search(subject):
            return None
        if len(words) > 1 and words[-2].end() == len(subject):  # x_t1_seg is of x
            subject = stem[: words[-2].start()].rstrip(_BLANKS)
        while match := _TRAILING.search(subject):
            subject, variant = subject[: match.start()], f"{match['word'].lower()} {variant}".strip()
    variant = " ".join(filter(None, [*_ENTITY.findall(subject), variant]))
    subject = _ENTITY.sub("", subject)
    return Found(path, subject, sequence, variant)


def _best(files: Collection[Found]) -> tuple[str, Naming]:
    """What tells the subjects apart: the fewest files for the same thing, then the fewest subjects."""

    def cost(item: tuple[str, Naming]) -> tuple[int, int]:
        things = Counter((item[1](file), file.sequence, file.variant) for file in files)
        return len(files) - len(things), len({item[1](file) for file in files})

    return min(NAMINGS.items(), key=cost)


def _chosen(files: Collection[Found], naming: Naming) -> tuple[dict[str, dict[str, Found]], list[PurePosixPath]]:
    """Subject -> sequence -> its plainest file, for subjects that have an image; and the files that are not it."""
    common = Counter((file.sequence, file.variant) for file in files)
    chosen: dict[str, dict[str, Found]] = {}
    for file in sorted(files, key=lambda f: (f.variant != "", -common[f.sequence, f.variant], f.variant, f.path)):
        chosen.setdefault(naming(file), {}).setdefault(file.sequence, file)
    imaged = {id: own for id, own in sorted(chosen.items()) if set(own) != {"seg"}}
    kept = {file.path for own in imaged.values() for file in own.values()}
    return imaged, sorted(file.path for file in files if file.path not in kept)


def _groups(subjects: Iterable[str]) -> dict[str, str]:
    """Subject -> patient, if some have several visits; else nothing, nor where a patient would have too many."""
    patients = {id: match["patient"] if (match := _VISIT.fullmatch(id)) else id for id in subjects}
    visits = max(Counter(patients.values()).values(), default=0)
    return patients if 1 < visits <= _MOST_VISITS else {}


def _counted(name: str, chosen: Mapping[str, Mapping[str, Found]]) -> int:
    return sum(name not in files for files in chosen.values())


def _examples(paths: list[PurePosixPath]) -> str:
    """How many files, and the ends of their names."""
    ends = Counter(path.name.rpartition("_")[2].encode("utf-8", "replace").decode() for path in paths)
    return f"{len(paths)} files ({summary([f'{n} ..._{end}' for end, n in ends.most_common()], ', ', 6)})"


def _is_text(path: PurePosixPath) -> bool:
    return str(path).encode("utf-8", "replace").decode() == str(path)


def _told(manifest: Path) -> tuple[int, bool]:
    """The subjects of a manifest, 0 if it is none, and whether a label is written in any row."""
    table = readable(manifest)
    return (0, False) if table is None else (len(table), any(column_of(table, "label").values()))
