"""The card of a cohort: counts by hand, pictures where they must be, strangers' names made harmless; every fault."""

from __future__ import annotations

import io
import json
import re
from copy import copy
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import table_cohort
from PIL import Image

from fusionbench import Cohort, CohortError, CohortReader, Modality, Proposal, Subject, compose, load_registry
from fusionbench.cards.card import CohortCard, ImageFacts, Scan, Spread, TableFacts, card_of, escaped, measured
from fusionbench.cards.slices import OUTLINE, TILE, file_name, pictures, shown
from fusionbench.cards.survey import Candidate, candidates, survey
from fusionbench.errors import UsageError, one_line
from fusionbench.imaging.nifti import Grid

HOSTILE = ("[/x]", "a\nb", "=1+1", "ü\u202e雪", "n" * 200, "<img src=x onerror=alert(1)>", "a|b`c", "\udcff\x1b[31m")


def write(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def subject(folder: Path, id: str, label: str = "a", names: tuple[str, ...] = ("t1",), **more: object) -> Subject:
    """One whose images are noise; its files are numbered, for its id may be anything."""
    number = len(list(folder.iterdir()))
    random = np.random.default_rng(number)
    voxels = random.integers(1, 900, (len(names), 8, 10, 6)).astype(np.int16)
    files = {name: write(folder / f"{number}-{index}.nii.gz", voxels[index]) for index, name in enumerate(names)}
    return Subject(id, label, files, **more)


def cohort(*subjects: Subject, modalities: tuple[str, ...] = ("t1",), **more: object) -> Cohort:
    return Cohort("made", ("a", "b"), "b", tuple(map(Modality, modalities)), subjects, **more)


# The card


def test_a_card_counts_what_was_counted_by_hand(tmp_path: Path) -> None:
    seg = write(tmp_path / "seg.nii.gz", np.zeros((8, 10, 6), np.uint8))
    made = cohort(
        subject(tmp_path, "one", "a", ("t1", "t2"), group="p1", site="north", seg=seg),
        subject(tmp_path, "two", "a", ("t1",), group="p1", site="north"),
        subject(tmp_path, "three", "b", ("t1", "t2"), group="p2", site="south"),
        subject(tmp_path, "four", "b", ("t1",), group="p3"),
        modalities=("t1", "t2"),
        notes=("'five' left out: no label",),
    )
    card = card_of(made, measured(made))
    assert (card.subjects, card.classes, card.positive_class) == (4, {"a": 2, "b": 2}, "b")
    assert (card.patients, card.several_sessions) == (3, 1)
    assert card.sites == {"not given": {"a": 0, "b": 1}, "north": {"a": 2, "b": 0}, "south": {"a": 0, "b": 1}}
    assert card.present == {"t1": {"a": 2, "b": 2}, "t2": {"a": 1, "b": 1}, "outline": {"a": 1, "b": 0}}
    assert card.missing == {"t2": 2}
    assert card.outlines == 1
    assert [image.subjects for image in card.images] == [4, 2]
    assert card.notes == ("'five' left out: no label",)
    assert card.fingerprint == made.fingerprint
    assert not card.synthetic


def test_sizes_spacings_and_percentiles_are_those_of_the_files(tmp_path: Path) -> None:
    ramp = np.arange(1000, dtype=np.int16).reshape(10, 20, 5)  # X, Y, Z
    files = [write(tmp_path / f"{n}.nii.gz", ramp * (n + 1), np.diag([1.0, 2.0, 3.0, 1.0])) for n in range(2)]
    third = write(tmp_path / "2.nii.gz", ramp.reshape(20, 10, 5))
    made = cohort(*(Subject(str(n), "ab"[n % 2], {"t1": file}) for n, file in enumerate([*files, third])))
    image = card_of(made, measured(made)).images[0]
    assert image.orientations == {"RAS": 3}
    assert image.sizes == {"5 x 20 x 10": 2, "5 x 10 x 20": 1}
    assert image.spacings == {"3 x 2 x 1": 2, "1 x 1 x 1": 1}
    for name, once in {"0.5": 4.995, "50": 499.5, "90": 899.1, "99.5": 994.005}.items():  # of 0, 1, ..., 999
        found = image.intensities[name]
        assert (found.smallest, found.median, found.largest) == pytest.approx((once, once, 2 * once))


def test_tables_are_counted_and_their_constant_columns_found() -> None:
    rows = {"x": (1.0, 5.0, -2.5), "y": (2.0, 5.0, 0.0), "z": (3.0, 5.0, 9.5)}
    subjects = tuple(Subject(id, "ab"[id == "z"], features={"omics": row}) for id, row in rows.items())
    made = Cohort("made", ("a", "b"), "b", (Modality("omics", "table", 3),), subjects)
    (table,) = card_of(made, {}).tables
    assert (table.features, table.subjects, table.constant, table.smallest, table.largest) == (3, 3, 1, -2.5, 9.5)
    assert "3 rows of 3 features, 1 of them constant; -2.5 to 9.5" in card_of(made, {}).to_markdown()


def test_a_cohort_of_nobody_with_a_table_has_a_card(tmp_path: Path) -> None:
    one, two = subject(tmp_path, "one"), subject(tmp_path, "two", "b")
    made = Cohort("made", ("a", "b"), "b", (Modality("t1"), Modality("omics", "table", 3)), (one, two))
    card = card_of(made, {("one", "t1"): Scan(Grid((6, 10, 8), (1, 1, 1)))})
    assert card.tables == ()
    assert card.missing == {"omics": 2}
    assert "1 images; 6 x 10 x 8 voxels; 1 x 1 x 1 mm" in card.to_markdown()
    assert "## Images" not in card.to_markdown()


def test_json_and_markdown_hold_the_card(tmp_path: Path) -> None:
    made = cohort(subject(tmp_path, "one"), subject(tmp_path, "two", "b"))
    card = card_of(made, measured(made))
    told = json.loads(card.to_json())
    assert told["classes"] == {"a": 1, "b": 1}
    assert told["images"][0]["intensities"]["50"].keys() == {"smallest", "median", "largest"}
    assert told.keys() == CohortCard.__dataclass_fields__.keys()
    assert "| t1 | RAS | " in card.to_markdown()


def test_every_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    made = cohort(*(subject(tmp_path, f"s{n:02d}", "ab"[n % 2]) for n in range(12)))
    for one in made.subjects[:10]:
        one.files["t1"].write_bytes(b"<html>not here</html>")
    with pytest.raises(CohortError, match="and 2 more") as caught:
        measured(made)
    assert [fault[:5] for fault in caught.value.faults] == [f"'s{n:02d}'" for n in range(10)]


def test_synthetic_is_said_in_every_form(tmp_path: Path) -> None:
    subjects = subject(tmp_path, "one"), subject(tmp_path, "two", "b")
    real, made_up = (cohort(*subjects, synthetic=synthetic) for synthetic in (False, True))
    for made, said in ((real, False), (made_up, True)):
        card = card_of(made, measured(made))
        assert ("synthetic" in card.to_markdown()) == ("synthetic" in dict(card.facts())["cohort"]) == said
        assert json.loads(card.to_json())["synthetic"] is said
    plain, stamped = (pictures(made, subjects)[0].png for made in (real, made_up))
    strip = np.asarray(Image.open(io.BytesIO(stamped)))[: height(stamped) - height(plain)]
    assert strip.shape[0] > 0
    assert strip.any()


# Names of strangers


def test_names_of_strangers_stay_text_in_every_output(tmp_path: Path) -> None:
    subjects = [subject(tmp_path, id, "ab"[n % 2], HOSTILE, site=id) for n, id in enumerate(HOSTILE)]
    made = cohort(*subjects, modalities=HOSTILE, notes=HOSTILE)
    card = card_of(made, measured(made))
    drawn = pictures(made, shown(made))
    text = card.to_markdown({p.modality: p.file for p in drawn}, [(s.id, s.label) for s in shown(made)])
    assert "<" not in text
    assert text.isprintable() or set(text) - {"\n"} == {c for c in text if c.isprintable()}
    text.encode()
    tables = [line for line in text.splitlines() if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
    blocks = re.split(r"\n\n", text)
    for block in (block for block in blocks if block.startswith("|")):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert max(widths) <= 8
    assert json.loads(card.to_json())["sites"].keys() == set(HOSTILE)
    assert len({p.file for p in drawn}) == len(HOSTILE)
    for picture in drawn:
        assert re.fullmatch(r"slices-[\w.-]+-[0-9a-f]{8}\.png", picture.file)
        assert len(picture.file.encode()) < 200


def test_markdown_shows_a_name_as_it_is() -> None:
    assert escaped("a|b*c_d[e](f)") == r"a\|b\*c_d\[e\](f)"
    assert escaped("<b>&amp;") == "&lt;b&gt;&amp;amp;"
    assert escaped("x\n# y") == r"x\\n\# y"
    assert "://" not in escaped("https://there")
    assert one_line("plain ü 雪") == "plain ü 雪"


def test_names_that_differ_in_what_no_file_name_holds_have_different_pictures() -> None:
    assert len({file_name(name) for name in ("t1", "T1", "t1/", "../t1", "t1\n")}) == 5


# Slices


def height(png: bytes) -> int:
    return Image.open(io.BytesIO(png)).height


def painted(png: bytes) -> np.ndarray:
    """The pixels of an outline, (rows, columns)."""
    return (np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) == OUTLINE).all(axis=-1)


def test_the_classes_take_turns_and_those_with_most_images_come_first(tmp_path: Path) -> None:
    subjects = [subject(tmp_path, f"s{n}", "a" if n < 7 else "b", ("t1", "t2")) for n in range(9)]
    subjects[0] = subject(tmp_path, "s0", "a", ("t1",))
    made = cohort(*reversed(subjects), modalities=("t1", "t2"))
    assert [s.id for s in shown(made)] == ["s1", "s7", "s2", "s8", "s3", "s4"]
    assert shown(made) == shown(cohort(*subjects, modalities=("t1", "t2")))


@pytest.mark.parametrize("axes", ["RAS", "LPS"])
def test_front_is_on_top_and_left_is_left_however_the_file_is_turned(tmp_path: Path, axes: str) -> None:
    head = np.zeros((20, 20, 9), np.int16)
    head[:, :, 2:7] = 10
    head[2:6, 14:18, 2:7] = 1000  # left, front
    seg = (head == 1000).astype(np.uint8)
    there = nibabel.orientations.axcodes2ornt(axes)
    files = []
    for index, voxels in enumerate((head, seg)):
        image = nibabel.Nifti1Image(voxels, np.eye(4))
        turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), there)
        nibabel.save(image.as_reoriented(turn), files_path := tmp_path / f"{index}.nii.gz")
        files.append(files_path)
    one, two = (Subject(id, id, {"t1": files[0]}, seg=files[1]) for id in "ab")
    (picture,) = pictures(cohort(one, two), [one])
    image = Image.open(io.BytesIO(picture.png))
    width = (image.width - 3 * TILE, image.height)
    assert width[1] == TILE
    tile = np.asarray(image.convert("L"))[:, width[0] : width[0] + TILE]
    rows, columns = np.nonzero(tile > 200)
    # rows 14 to 17 of 20 from the back are 2 to 6 from the top; columns 2 to 5 from the left
    assert (rows.min() / TILE, columns.min() / TILE) == pytest.approx((0.1, 0.1), abs=0.02)
    assert (rows.max() / TILE, columns.max() / TILE) == pytest.approx((0.3, 0.3), abs=0.02)
    edge_rows, edge_columns = np.nonzero(painted(picture.png)[:, width[0] : width[0] + TILE])
    assert (edge_rows.min() / TILE, edge_columns.max() / TILE) == pytest.approx((0.1, 0.3), abs=0.02)
    assert not painted(picture.png)[TILE // 2 :].any()


def test_slices_keep_their_proportions_and_go_through_the_tumour(tmp_path: Path) -> None:
    voxels = np.arange(20 * 10 * 30, dtype=np.float32).reshape(20, 10, 30)
    seg = np.zeros((20, 10, 30), np.uint8)
    seg[8:12, 4:6, 25:] = 4
    image = write(tmp_path / "t1.nii.gz", voxels, np.diag([1.0, 4.0, 1.0, 1.0]))  # 20 mm wide, 40 mm high
    outline = write(tmp_path / "seg.nii.gz", seg, np.diag([1.0, 4.0, 1.0, 1.0]))
    one, two = (Subject(id, id, {"t1": image}, seg=outline) for id in "ab")
    (picture,) = pictures(cohort(one, two), [one])
    rgb = np.asarray(Image.open(io.BytesIO(picture.png)))
    assert rgb.shape[0] == TILE
    for tile in np.split(rgb[:, -3 * TILE :], 3, axis=1):
        assert not tile[:, : TILE // 4].any()  # half as wide as high
        assert (tile == OUTLINE).all(axis=-1).any()  # each slice meets the tumour, which lies at the upper end


def test_who_lacks_an_image_has_an_empty_row_and_who_has_no_outline_none(tmp_path: Path) -> None:
    one, two = subject(tmp_path, "one", "a", ("t1", "t2")), subject(tmp_path, "two", "b", ("t1",))
    first, second = pictures(cohort(one, two, modalities=("t1", "t2")), [one, two])
    lower = np.asarray(Image.open(io.BytesIO(second.png)))[TILE:, -3 * TILE :]
    assert not lower.any()
    assert np.asarray(Image.open(io.BytesIO(first.png)))[TILE:, -3 * TILE :].any()
    assert not painted(first.png).any()


def test_an_outline_on_another_grid_is_drawn_where_it_lies(tmp_path: Path) -> None:
    image = write(tmp_path / "t1.nii.gz", np.arange(20 * 20 * 8, dtype=np.int16).reshape(20, 20, 8))
    coarse = np.zeros((10, 10, 8), np.uint8)
    coarse[1:3, 7:9] = 1
    voxels_of_two = np.array([[2, 0, 0, 0.5], [0, 2, 0, 0.5], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    fine = np.zeros((20, 20, 8), np.uint8)
    fine[2:6, 14:18] = 1
    segs = write(tmp_path / "coarse.nii.gz", coarse, voxels_of_two), write(tmp_path / "fine.nii.gz", fine)
    one, two = (Subject(id, id, {"t1": image}, seg=seg) for id, seg in zip("ab", segs, strict=True))
    (picture,) = pictures(cohort(one, two), [one, two])
    upper, lower = np.split(painted(picture.png), 2)
    assert upper.any()
    assert (upper == lower).all()


def test_pictures_are_the_same_bytes_each_time_and_hold_pixels_only(tmp_path: Path) -> None:
    made = cohort(subject(tmp_path, "one"), subject(tmp_path, "two", "b"))
    (first,), (second,) = (pictures(made, shown(made)) for _ in range(2))
    assert first == second
    chunks = re.findall(rb"(IHDR|PLTE|IDAT|IEND|tEXt|iTXt|zTXt|eXIf|tIME)", first.png)
    assert {b"IHDR", b"IDAT", b"IEND"} >= set(chunks)


# Faults, all of them


def test_an_error_of_a_cohort_holds_every_fault_and_survives_a_process() -> None:
    error = CohortError.of("made", [f"{n} is bad" for n in range(20)])
    assert str(error).endswith("7 is bad; and 12 more; `fusionbench data check` lists them all")
    assert str(CohortError.of("made", ["0 is bad"] * 8)).endswith("; 0 is bad")
    assert len(error.faults) == 20
    again = copy(error)  # by the same means as into another process
    assert (str(again), again.faults) == (str(error), error.faults)
    assert CohortError("one thing").faults == ("one thing",)


class Handed(CohortReader):
    """Reads what a test hands over."""

    name = "handed"
    config = "brats"
    cohort: Cohort

    def read(self, path: Path) -> Cohort:
        """What was handed over."""
        return type(self).cohort


def surveyed(
    made: Cohort, folder: Path, monkeypatch: pytest.MonkeyPatch, *settings: str
) -> tuple[str, ...] | CohortCard:
    registry = load_registry().with_classes("mine", cohort=[Handed])
    monkeypatch.setattr(Handed, "cohort", made, raising=False)
    monkeypatch.setattr("fusionbench.registry.load_registry", lambda: registry)
    source = {"fusion": ["all"], "cohort": {"reader": "handed", "data": str(folder)}}
    comparison = compose(registry, "", source, ["preprocessing.crop=[6, 10, 8]", "protocol.folds=2", *settings])
    found = survey(comparison, registry, folder / "cache")
    return found.card or found.faults


def test_a_survey_names_every_bad_file_bad_outline_and_missing_modality(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects = [subject(tmp_path, f"s{n:02d}", "ab"[n % 2], ("t1", "t2")) for n in range(20)]
    for one in subjects[:10]:
        one.files["t2"].write_bytes(one.files["t2"].read_bytes()[:-9])
    seg = write(tmp_path / "seg.nii.gz", np.zeros((8, 10, 7), np.uint8))
    subjects[10] = subject(tmp_path, "s10", "a", ("t1", "t2"), seg=seg)
    subjects[11] = subject(tmp_path, "s11", "b", ("t1",))
    faults = surveyed(cohort(*subjects, modalities=("t1", "t2")), tmp_path, monkeypatch)
    assert isinstance(faults, tuple)
    assert len(faults) == 12
    assert all(any(f"'s{n:02d}', t2" in fault for fault in faults) for n in range(10))
    assert any(fault.startswith("'s10': seg is 7 x 10 x 8") for fault in faults)
    assert any(fault.startswith("'s11' has no t2") and "--missing" in fault for fault in faults)


def test_a_crop_that_is_far_too_large_is_one_fault_that_says_which_would_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seg = write(tmp_path / "seg.nii.gz", np.zeros((8, 10, 6), np.uint8))
    subjects = [subject(tmp_path, f"s{n}", "ab"[n % 2], ("t1", "t2"), seg=seg) for n in range(8)]
    subjects[3].files["t2"].write_bytes(b"no image")
    made = cohort(*subjects, modalities=("t1", "t2"))
    faults = surveyed(made, tmp_path, monkeypatch, "preprocessing.crop=[96, 96, 96]")
    assert isinstance(faults, tuple)
    assert len(faults) == 2
    assert faults[0] == (
        "15 images are lost in preprocessing.crop=[96, 96, 96]: almost nothing is in the picture; "
        "most files are [6, 10, 8], so set preprocessing.crop=[6, 10, 8]"
    )
    assert "'s3', t2" in faults[1]
    wide = surveyed(made, tmp_path, monkeypatch, "preprocessing.percentiles=[50, 50.01]")
    assert not [fault for fault in wide if "are lost in" in fault]


def test_a_survey_says_what_a_run_would_not_start_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = cohort(*(subject(tmp_path, f"s{n}", "ab"[n > 4]) for n in range(6)))
    faults = surveyed(made, tmp_path, monkeypatch)
    assert faults == ("class b has 1 patients, too few for 2 folds: use fewer folds",)
    with pytest.raises(UsageError, match="no modality 't9'"):
        surveyed(made, tmp_path, monkeypatch, 'modalities=["t9"]')


def test_a_survey_without_fault_is_a_card_of_what_would_be_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects = [subject(tmp_path, f"s{n}", "ab"[n % 2], ("t1", "t2")) for n in range(8)]
    subjects.append(subject(tmp_path, "s8", "a", ("t1",)))
    made = cohort(*subjects, modalities=("t1", "t2"))
    card = surveyed(made, tmp_path, monkeypatch, "missing=drop-subject")
    assert isinstance(card, CohortCard)
    assert card.subjects == 8
    assert "left out" in card.notes[-1]
    assert card.images[0].sizes == {"6 x 10 x 8": 8}
    other = surveyed(made, tmp_path, monkeypatch, 'modalities=["t1"]')
    assert isinstance(other, CohortCard)
    assert [image.name for image in other.images] == ["t1"]


# Who would read it


def reader(called: str, subjects: int | None, **files: str) -> type[CohortReader]:
    class Proposing(CohortReader):
        """Says what it is told to say."""

        name = called

        def read(self, path: Path) -> Cohort:
            return table_cohort()

        def propose(self, path: Path) -> Proposal | None:
            return None if subjects is None else Proposal(files=files, subjects=subjects)

    return Proposing


def test_the_reader_of_most_subjects_comes_first_and_then_the_one_that_needs_no_file(tmp_path: Path) -> None:
    several = [reader("a", 3, manifest="x"), reader("b", 7), reader("c", None), reader("d", 3)]
    registry = load_registry().with_classes("mine", cohort=several)
    ours = {"a", "b", "c", "d"}
    assert [c.reader for c in candidates(tmp_path, registry) if c.reader in ours] == ["b", "d", "a"]
    assert [c.reader for c in candidates(tmp_path, registry, "a")] == ["a"]


def test_a_reader_that_knows_the_labels_and_needs_no_file_goes_before_one_of_more_subjects(tmp_path: Path) -> None:
    class Unlabelled(reader("unlabelled", 9)):  # type: ignore[misc]
        """Finds everybody, and no label."""

        def propose(self, path: Path) -> Proposal | None:
            return Proposal(subjects=9, labelled=False)

    several = [reader("ready", 3), reader("writes", 5, manifest="x"), Unlabelled]
    registry = load_registry().with_classes("mine", cohort=several)
    ours = {"ready", "writes", "unlabelled"}
    found = [c.reader for c in candidates(tmp_path, registry) if c.reader in ours]
    assert found == ["ready", "unlabelled", "writes"]
    (tmp_path / "manifest").touch()
    found = [c.reader for c in candidates(tmp_path, registry) if c.reader in ours]
    assert found == ["writes", "ready", "unlabelled"]


def test_where_nothing_fits_it_is_said_what_was_looked_for(tmp_path: Path) -> None:
    registry = load_registry().with_classes("mine", cohort=[reader("never", None)])
    with pytest.raises(UsageError, match=r"looked for .*never \(Says what it is told to say\)"):
        candidates(tmp_path, registry)
    with pytest.raises(UsageError, match="nothing is at"):
        candidates(tmp_path / "absent", registry)


def test_a_candidate_knows_which_of_its_files_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "there.csv").touch()
    proposal = Proposal(files={"there.csv": "", "absent.csv": ""})
    assert Candidate("any", proposal).unwritten(tmp_path) == ("absent.csv",)


def test_the_documents_name_every_key_of_the_card() -> None:
    text = (Path(__file__).parent.parent / "docs" / "files.md").read_text()
    told = text[text.index("**`card.json`**") : text.index("## The store")]
    keys = [key for facts in (CohortCard, ImageFacts, TableFacts, Spread) for key in facts.__dataclass_fields__]
    assert not [key for key in keys if f"`{key}`" not in told]
