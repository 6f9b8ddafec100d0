"""The phantom keeps its promises: reproducible files, sound physics, and nothing but the pathology tells the grade."""

from __future__ import annotations

import gzip
import inspect
import json
import shutil
from collections import Counter
from dataclasses import replace
from math import exp, pi, sqrt
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fusionbench import Cohort, CohortError, read_cohort
from fusionbench_plugins.cohorts.glioma_phantom import contrast, growth
from fusionbench_plugins.cohorts.glioma_phantom.anatomy import Atlas, affine, grid, load_atlas, warped_anatomy
from fusionbench_plugins.cohorts.glioma_phantom.compartments import compartments, draw_texture
from fusionbench_plugins.cohorts.glioma_phantom.fields import smooth_field
from fusionbench_plugins.cohorts.glioma_phantom.pathology import draw_pathology
from fusionbench_plugins.cohorts.glioma_phantom.recipe import MODALITIES, Recipe, random_numbers
from fusionbench_plugins.cohorts.glioma_phantom.scanner import rician
from fusionbench_plugins.cohorts.glioma_phantom.subject import Scans, render
from fusionbench_plugins.cohorts.glioma_phantom.writing import nifti, write_cohort
from fusionbench_plugins.cohorts.phantom import Phantom
from fusionbench_plugins.cohorts.phantom_collection.files import collect
from fusionbench_plugins.cohorts.phantom_collection.knobs import Collection, lost

SMALL = Recipe(subjects=8, spacing=8.0)


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return load_atlas(8.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("phantom")
    write_cohort(SMALL, place)
    return place


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def array(file: Path) -> np.ndarray:
    return np.asanyarray(nibabel.load(file).dataobj)


def same(first: Scans, second: Scans) -> set[str]:
    """The names of the volumes that are equal."""
    equal = {name for name in MODALITIES if np.array_equal(first.images[name], second.images[name])}
    return equal | ({"seg"} if np.array_equal(first.seg, second.seg) else set())


# Files


def test_same_options_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_cohort(SMALL, tmp_path)
    assert contents(tmp_path) == contents(folder)


def test_another_seed_gives_other_images(atlas: Atlas) -> None:
    assert same(render(atlas, SMALL, 0, "HGG"), render(atlas, replace(SMALL, seed=1), 0, "HGG")) == set()


def test_a_subject_does_not_depend_on_how_many_there_are(atlas: Atlas) -> None:
    more = replace(SMALL, subjects=80)
    assert same(render(atlas, SMALL, 3, "LGG"), render(atlas, more, 3, "LGG")) == {*MODALITIES, "seg"}


def test_layout_is_that_of_brats_2018(folder: Path) -> None:
    subjects = sorted(folder.glob("*/*"))
    assert Counter(subject.parent.name for subject in subjects) == {"HGG": 6, "LGG": 2}
    for subject in subjects:
        wanted = {f"{subject.name}_{kind}.nii.gz" for kind in (*MODALITIES, "seg")}
        assert {file.name for file in subject.iterdir()} == wanted
    assert {subject.name for subject in subjects} == {f"Phantom_{number:03d}" for number in range(8)}


def test_volumes_are_ras_int16_on_one_grid_and_zero_outside_the_brain(folder: Path) -> None:
    for subject in folder.glob("*/*"):
        brains = []
        for name in MODALITIES:
            image = nibabel.load(subject / f"{subject.name}_{name}.nii.gz")
            assert image.get_data_dtype() == np.int16
            assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
            assert image.header.get_zooms() == (8.0, 8.0, 8.0)
            brains.append(array(subject / f"{subject.name}_{name}.nii.gz") > 0)
        assert all(np.array_equal(brain, brains[0]) for brain in brains)
        assert 0.9e6 < brains[0].sum() * 8.0**3 < 2.5e6  # cubic millimetres
        assert not brains[0][[0, -1]].any()
        assert not brains[0][:, [0, -1]].any()


def test_seg_has_the_labels_of_brats_within_the_brain(folder: Path) -> None:
    found = set()
    for file in folder.glob("*/*/*_seg.nii.gz"):
        seg, brain = array(file), array(Path(str(file).replace("_seg", "_t1"))) > 0
        assert seg.dtype == np.uint8
        assert not seg[~brain].any()
        found |= set(np.unique(seg).tolist())
    assert found == {0, 1, 2, 4}


def test_gzip_holds_no_time(folder: Path) -> None:
    data = next(folder.glob("*/*/*_t1.nii.gz")).read_bytes()
    assert data[4:8] == bytes(4)
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    assert nibabel.Nifti1Image.from_bytes(gzip.decompress(nifti(values, 4.0))).get_fdata().tolist() == values.tolist()


def test_default_grid_and_its_place_in_mni_space() -> None:
    assert grid(4.0) == (48, 60, 38)
    assert nibabel.affines.apply_affine(affine(4.0), (23.5, 34.0, 15.5)).tolist() == [0.0, 0.0, 0.0]


# The plugin


def test_reads_back_through_brats(tmp_path: Path) -> None:
    cohort = read_cohort("phantom", home=tmp_path, subjects=6, spacing=10.0)
    assert (cohort.name, cohort.synthetic, cohort.positive_class) == ("phantom", True, "LGG")
    assert cohort.counts() == {"HGG": 4, "LGG": 2}
    assert {modality.name for modality in cohort.modalities} == set(MODALITIES)
    assert all(subject.seg is not None for subject in cohort.subjects)
    again = read_cohort("phantom", home=tmp_path, subjects=6, spacing=10.0)
    assert again.fingerprint == cohort.fingerprint


def test_each_set_of_options_has_its_own_place(tmp_path: Path) -> None:
    places = [
        Phantom(**options).location(tmp_path) for options in ({}, {"seed": 1}, {"noise": 0.1}, {"informative": ()})
    ]
    assert len(set(places)) == 4
    reordered = Phantom(informative=("flair", "t1", "t2", "t1ce")).location(tmp_path)
    assert reordered == places[0]


def test_something_else_at_the_place_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "cohort.json").write_text(json.dumps({"name": "mine"}))
    with pytest.raises(CohortError, match="is no phantom of these options"):
        Phantom().read(tmp_path)


def test_a_model_of_phantoms_is_asked_about_any_folder_in_their_layout(tmp_path: Path) -> None:
    read_cohort("phantom", tmp_path / "made", subjects=3, spacing=10.0)
    (tmp_path / "made" / "cohort.json").unlink()
    for options in ({}, {"sites": 2}):
        cohort = Phantom(**options).read_new(tmp_path / "made", ("HGG", "LGG"), "LGG")
        assert len(cohort.subjects) == 3
        assert {subject.label for subject in cohort.subjects} == {"HGG", "LGG"}
    with pytest.raises(CohortError, match="is no folder"):
        Phantom().read_new(tmp_path / "absent", ("HGG", "LGG"), "LGG")
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"subjects": 1}, "phantom.subjects is 1"),
        ({"seed": -1}, "phantom.seed is -1"),
        ({"spacing": 0.0}, "phantom.spacing is 0.0"),
        ({"hgg_share": 1.0}, "phantom.hgg_share is 1.0"),
        ({"noise": 0.9}, "phantom.noise is 0.9"),
        ({"informative": ("t1c",)}, "phantom.informative is t1c; it must be some of t1, t1ce, t2, flair"),
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, object], fault: str) -> None:
    with pytest.raises(CohortError, match=fault):
        Phantom(**options)


# What may and what may not tell the grade


def test_class_ratio_is_exact_and_the_order_says_nothing() -> None:
    grades = Recipe(subjects=285, seed=3).grades()
    assert Counter(grades) == {"HGG": 211, "LGG": 74}
    first_half = Counter(grades[:142])["LGG"]
    assert 25 < first_half < 49
    assert Recipe(subjects=285, seed=4).grades() != grades


def test_where_and_how_large_a_tumour_is_knows_no_grade(atlas: Atlas) -> None:
    for function in (growth.draw_volume, growth.draw_tumour, growth.grow):
        assert "grade" not in inspect.signature(function).parameters
    high, low = render(atlas, SMALL, 5, "HGG"), render(atlas, SMALL, 5, "LGG")
    assert np.array_equal(high.seg > 0, low.seg > 0)
    assert not np.array_equal(high.seg, low.seg)


def test_volumes_are_log_normal_about_their_median() -> None:
    rng = np.random.default_rng(0)
    volumes = np.array([growth.draw_volume(rng) for _ in range(4000)])
    assert np.median(volumes) == pytest.approx(growth.VOLUME_MEDIAN, rel=0.05)
    assert (volumes.min(), volumes.max()) == growth.VOLUME_RANGE


def test_tumour_has_the_volume_that_was_drawn(atlas: Atlas) -> None:
    for number in range(4):
        anatomy = warped_anatomy(atlas, 8.0, random_numbers(SMALL, number, "anatomy"))
        tumour = growth.draw_tumour(anatomy, random_numbers(SMALL, number, "tumour"))
        found = np.count_nonzero(render(atlas, SMALL, number, "HGG").seg) * anatomy.voxel_volume
        assert found == pytest.approx(tumour.volume, abs=anatomy.voxel_volume)


def test_null_cohort_shows_the_same_whatever_the_grade(atlas: Atlas) -> None:
    null = replace(SMALL, informative=())
    for number in range(4):
        assert same(render(atlas, null, number, "HGG"), render(atlas, null, number, "LGG")) == {*MODALITIES, "seg"}


@pytest.mark.parametrize("name", MODALITIES)
def test_only_the_informative_modality_changes_with_the_grade(atlas: Atlas, name: str) -> None:
    only = replace(SMALL, informative=(name,))
    silent = {"seg", *MODALITIES} - ({"t1ce", "seg"} if name == "t1ce" else {name})
    assert same(render(atlas, only, 0, "HGG"), render(atlas, only, 0, "LGG")) == silent


def test_an_informative_modality_is_the_same_whatever_the_others_are(atlas: Atlas) -> None:
    alone = render(atlas, replace(SMALL, informative=("t2",)), 1, "HGG")
    assert np.array_equal(alone.images["t2"], render(atlas, SMALL, 1, "HGG").images["t2"])


def test_most_high_grade_and_few_low_grade_tumours_enhance() -> None:
    rng = np.random.default_rng(0)
    share = {
        grade: np.mean([draw_pathology(grade, rng).enhancing > 0 for _ in range(2000)]) for grade in ("HGG", "LGG")
    }
    assert share["HGG"] == pytest.approx(0.875, abs=0.03)
    assert share["LGG"] == pytest.approx(0.15, abs=0.03)


def test_enhancing_tissue_is_bright_after_gadolinium_only(atlas: Atlas) -> None:
    scans = next(
        scans
        for scans in (render(atlas, replace(SMALL, noise=0.0), n, "HGG") for n in range(8))
        if (scans.seg == 4).sum() > 20
    )

    def over_brain(name: str) -> float:
        image = scans.images[name]
        return float(np.median(image[scans.seg == 4]) / np.median(image[(image > 0) & (scans.seg == 0)]))

    assert over_brain("t1ce") > 1.2 * over_brain("t1")


# Growth


def test_growth_has_no_checkerboard_and_stays_a_density(atlas: Atlas) -> None:
    anatomy = warped_anatomy(atlas, 8.0, np.random.default_rng(0))
    tumour = replace(growth.draw_tumour(anatomy, np.random.default_rng(1)), volume=150.0)
    density = growth.grow(anatomy, tumour).astype(np.float64)
    assert density.min() >= 0
    assert density.max() <= 1 + 1e-6
    sign = 1 - 2 * (np.indices(density.shape).sum(axis=0) % 2)
    assert abs((density * sign).sum()) < 0.02 * density.sum()


def test_shortest_wave_dies_at_the_diffusion_number_in_use() -> None:
    sign = (1 - 2 * (np.indices((8, 8, 8)).sum(axis=0) % 2)).astype(np.float32)
    faces = [np.full(np.diff(sign, axis=axis).shape, growth.DIFFUSION_NUMBER, np.float32) for axis in range(3)]
    after = growth.step(sign, faces, np.zeros_like(sign))
    assert growth.DIFFUSION_NUMBER <= 1 / 6
    assert np.abs(after[1:-1, 1:-1, 1:-1]).max() < 1


def test_diffusion_keeps_the_number_of_cells() -> None:
    density = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)
    faces = [np.full(np.diff(density, axis=axis).shape, 0.15, np.float32) for axis in range(3)]
    assert growth.step(density, faces, np.zeros_like(density)).sum() == pytest.approx(density.sum(), rel=1e-5)


def test_nothing_grows_into_fluid(atlas: Atlas) -> None:
    anatomy = warped_anatomy(atlas, 8.0, np.random.default_rng(2))
    density = growth.grow(anatomy, growth.draw_tumour(anatomy, np.random.default_rng(3)))
    assert not density[(anatomy.fluid >= 0.5) | ~anatomy.brain].any()


def test_ring_lies_around_the_necrosis(atlas: Atlas) -> None:
    """From the necrosis to oedema one meets the ring: necrosis seldom touches oedema."""
    anatomy = warped_anatomy(atlas, 8.0, np.random.default_rng(0))
    tumour = replace(growth.draw_tumour(anatomy, np.random.default_rng(1)), volume=150.0)
    pathology = replace(
        draw_pathology("HGG", np.random.default_rng(0)), core=0.5, necrosis=0.3, enhancing=0.5, ring=True
    )
    voxels = round(150.0 / anatomy.voxel_volume)
    texture = draw_texture(anatomy.shape, 8.0, np.random.default_rng(0))
    density = growth.grow(anatomy, tumour)
    labels = compartments(density, voxels, pathology, texture)
    assert [np.count_nonzero(labels == label) for label in (1, 4)] == [
        round(0.3 * round(0.5 * voxels)),
        round(0.5 * round(0.5 * voxels)),
    ]
    middle, ring, rim = (density[labels == label].mean() for label in (1, 4, 2))
    assert middle > ring > rim


# Contrast


def test_spin_echo_by_hand() -> None:
    assert contrast.SpinEcho(500, 15).signal(contrast.Tissue(500, 70, 0.77)) == pytest.approx(
        0.77 * (1 - exp(-1)) * exp(-15 / 70)
    )
    assert contrast.SEQUENCES["t1"].signal(contrast.WHITE) == pytest.approx(0.3928, abs=1e-4)


def test_inversion_recovery_by_hand() -> None:
    sequence = contrast.InversionRecovery(9000, 120, 1704)
    assert sequence.signal(contrast.GREY) == pytest.approx(
        0.86 * abs(1 - 2 * exp(-1704 / 833) + exp(-9000 / 833)) * exp(-120 / 83)
    )
    assert sequence.signal(contrast.FLUID) < 0.001


def test_tissues_are_in_the_order_that_radiologists_know() -> None:
    def brightness(name: str, *tissues: contrast.Tissue) -> list[float]:
        return [contrast.SEQUENCES[name].signal(tissue) for tissue in tissues]

    descending = [
        brightness("t1", contrast.WHITE, contrast.GREY, contrast.SOLID, contrast.NECROSIS, contrast.FLUID),
        brightness(
            "t2", contrast.FLUID, contrast.NECROSIS, contrast.OEDEMA, contrast.SOLID, contrast.GREY, contrast.WHITE
        ),
        brightness("flair", contrast.OEDEMA, contrast.SOLID, contrast.GREY, contrast.WHITE, contrast.FLUID),
    ]
    assert descending == [sorted(signals, reverse=True) for signals in descending]


def test_gadolinium_shortens_t1_and_raises_the_signal() -> None:
    enhanced = contrast.SOLID.with_gadolinium(0.4)
    assert enhanced.t1 == pytest.approx(1 / (1 / 1000 + 0.0041 * 0.4))
    assert contrast.T1_WEIGHTED.signal(enhanced) > contrast.T1_WEIGHTED.signal(contrast.WHITE)


# Scanner


def test_rician_noise_has_the_mean_of_a_rayleigh_distribution_where_there_is_no_signal() -> None:
    background = rician(np.zeros((40, 40, 40), np.float32), 5.0, np.random.default_rng(0))
    assert background.mean() == pytest.approx(sqrt(pi / 2) * 5.0, rel=0.01)


def test_rician_noise_is_normal_where_the_signal_is_strong() -> None:
    strong = rician(np.full((40, 40, 40), 1000, np.float32), 5.0, np.random.default_rng(0))
    assert (strong.mean(), strong.std()) == (pytest.approx(1000, abs=0.2), pytest.approx(5.0, rel=0.02))


def test_smooth_fields_are_smooth_and_standard() -> None:
    field = smooth_field((30, 31, 32), 4.0, 40.0, np.random.default_rng(0))
    assert field.shape == (30, 31, 32)
    assert (field.mean(), field.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in range(3)) < 0.5


# Sites and lost files

NINE = {"subjects": 9, "spacing": 10.0, "hgg_share": 0.67}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine subjects as `Phantom` writes them without sites and losses."""
    place = tmp_path_factory.mktemp("nine") / "phantom"
    Phantom(**NINE).read(place)
    return place


def collected(whole: Path, place: Path, **options: float) -> Cohort:
    """The nine subjects with sites or losses, without growing their tumours anew."""
    shutil.copytree(whole, place)
    reader = Phantom(**NINE, **options)
    collect(reader.collection, reader.recipe, place)
    return reader.read(place)


def test_by_default_nothing_is_done_to_what_the_generator_wrote(whole: Path, tmp_path: Path) -> None:
    plain = Phantom(**NINE)
    assert plain.collection.fingerprint(plain.recipe) == plain.recipe.fingerprint()
    write_cohort(plain.recipe, tmp_path)
    assert contents(whole) == contents(tmp_path)


def test_a_phantom_with_sites_is_written_and_read_in_one_go(tmp_path: Path) -> None:
    cohort = read_cohort("phantom", home=tmp_path, subjects=4, spacing=10.0, sites=2, missingness=0.25)
    assert Counter(subject.site for subject in cohort.subjects) == {"site-0": 2, "site-1": 2}
    assert sum(len(subject.lacks(MODALITIES)) for subject in cohort.subjects) == 4


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.75])
def test_exactly_a_share_of_the_files_is_lost_and_never_all_of_a_subject(share: float) -> None:
    gone = lost(Collection(share), Recipe(subjects=41))
    assert len(set(gone)) == len(gone) == round(share * 41 * 4)
    assert max(Counter(number for number, _ in gone).values(), default=0) <= 3
    assert gone == lost(Collection(share), Recipe(subjects=41))
    assert not gone or gone != lost(Collection(share), Recipe(subjects=41, seed=1))


def test_lost_files_are_missing_modalities(whole: Path, tmp_path: Path) -> None:
    holes = collected(whole, tmp_path / "holes", missingness=0.5)
    assert sum(len(subject.lacks(MODALITIES)) for subject in holes.subjects) == 18
    kept, everything = contents(tmp_path / "holes"), contents(whole)
    assert {name for name in kept if kept[name] != everything[name]} == {"cohort.json"}
    assert len(holes.subjects) == 9


def test_sites_have_scanners_of_their_own_and_are_read_back(whole: Path, tmp_path: Path) -> None:
    plain = Phantom(**NINE).read(whole)
    cohort = collected(whole, tmp_path / "sites", sites=3)
    assert Counter(s.site for s in cohort.subjects) == {"site-0": 3, "site-1": 3, "site-2": 3}
    assert cohort.counts() == plain.counts() == {"HGG": 6, "LGG": 3}
    gains: dict[str, list[float]] = {}
    for subject in cohort.subjects:
        before = array(plain.subject(subject.id).files["t2"]).astype(float)
        after = array(subject.files["t2"]).astype(float)
        assert np.array_equal(after > 0, before > 0)
        gains.setdefault(subject.site, []).append(float(np.median(after[before > 0] / before[before > 0])))
        assert np.array_equal(array(subject.seg), array(plain.subject(subject.id).seg))
    within = max(np.ptp(np.log(values)) for values in gains.values())
    between = np.ptp([np.log(np.mean(values)) for values in gains.values()])
    assert within < 0.05 < 0.2 < between


def test_collections_have_places_of_their_own_and_are_not_confused(whole: Path, tmp_path: Path) -> None:
    options = ({}, {"sites": 2}, {"missingness": 0.1}, {"sites": 2, "missingness": 0.1})
    assert len({Phantom(**one).location(tmp_path) for one in options}) == 4
    collected(whole, tmp_path / "here", sites=2)
    with pytest.raises(CohortError, match="holds a phantom with other sites or missing files"):
        Phantom(**NINE).read(tmp_path / "here")
    collected(whole, tmp_path / "there", sites=2)
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


@pytest.mark.parametrize("options", [{"missingness": 0.8}, {"missingness": -0.1}, {"sites": 0}, {"sites": 51}])
def test_a_collection_out_of_range_is_named(options: dict[str, float]) -> None:
    with pytest.raises(CohortError, match=f"phantom.{next(iter(options))} is {next(iter(options.values()))}"):
        Phantom(**options)
