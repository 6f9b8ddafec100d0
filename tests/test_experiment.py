"""What is asked is validated, written and read back without loss."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import comparison
from pydantic import ValidationError

from fusionbench import Comparison, load_comparison
from fusionbench.errors import UsageError
from fusionbench.experiment import difference, merged, parse_setting, shipped_configs


def test_the_home_of_the_user_is_not_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "jane.doe"))
    data = f"{tmp_path}/jane.doe/brats"
    text = load_comparison("demo", {"cohort": {"data": data}, "options": {"x": {"weights": f"{data}/w.pt"}}}).to_toml()
    assert "jane.doe" not in text
    assert 'data = "~/brats"' in text
    assert 'weights = "~/brats/w.pt"' in text


@pytest.mark.parametrize("name", shipped_configs())
def test_shipped_configurations_load_and_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    asked = load_comparison(name)
    path = tmp_path / "again.toml"
    path.write_text(asked.to_toml())
    assert load_comparison(path) == asked
    assert difference(asked.to_toml(), path.read_text()) == ""


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        comparison().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("recipe.epoch=3", "no setting 'recipe.epoch': did you mean recipe.epochs?"),
        ("recipe.epochs=many", "recipe.epochs: Input should be a valid integer"),
        ("recipe.epochs=-1", "greater than or equal to 0, not -1"),
        ("protocol.folds=1", "at least 2 folds"),
        ("protocol.ranking.score=auc", "no metric 'auc': did you mean 'roc_auc'?"),
        ("modalities=['t1', 't1']", "a modality is named twice"),
        ("recipe.class_weights=big", "'paper', 'inverse' or 'none'"),
        ("recipe", "write it as NAME.OPTION=VALUE"),
    ],
)
def test_a_wrong_setting_is_one_line(setting: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        load_comparison("demo", parse_setting(setting))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no configuration 'demmo': did you mean 'demo'"):
        load_comparison("demmo")
    broken = tmp_path / "broken.toml"
    broken.write_text("modalities = [")
    with pytest.raises(UsageError, match=r"broken\.toml is not valid TOML"):
        load_comparison(broken)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("recipe.epochs=5", {"recipe": {"epochs": 5}}),
        ("guidance.upsample=nearest", {"options": {"guidance": {"upsample": "nearest"}}}),
        ("rmc.weights=/a/b=c.pth", {"options": {"rmc": {"weights": "/a/b=c.pth"}}}),
        ("preprocessing.resize=[4, 8, 8]", {"preprocessing": {"resize": [4, 8, 8]}}),
        ("phantom.informative=[]", {"options": {"phantom": {"informative": []}}}),
        ("seed=3", {"seed": 3}),
    ],
)
def test_settings_from_the_command_line(text: str, settings: dict[str, object]) -> None:
    assert parse_setting(text) == settings


def test_later_settings_win_and_leave_the_rest() -> None:
    below = {"recipe": {"epochs": 8, "stages": {"a": {"epochs": 1}}}, "seed": 1}
    assert merged(below, {"recipe": {"stages": {"b": {"epochs": 2}}}}) == {
        "recipe": {"epochs": 8, "stages": {"a": {"epochs": 1}, "b": {"epochs": 2}}},
        "seed": 1,
    }


def test_a_stage_inherits_what_it_does_not_say() -> None:
    recipe = load_comparison("demo", {"recipe": {"epochs": 9, "stages": {"secondary": {"epochs": 4}}}}).recipe
    assert recipe.stage("fit")["epochs"] == 9
    assert recipe.stage("secondary") == recipe.stage("fit") | {"epochs": 4}


def test_a_difference_names_the_settings() -> None:
    one, two = comparison(seed=1), comparison(seed=2, attention="dual")
    assert difference(one.to_toml(), two.to_toml()) == "attention: none -> dual, seed: 1 -> 2"


def test_the_key_of_an_experiment_forgets_where_the_data_lie_and_nothing_else() -> None:
    from fusionbench import Experiment

    base: Comparison = comparison(modalities=["a"])
    shared = base.model_dump(exclude={"fusion", "baselines", "variants"})

    def key(**changes: object) -> str:
        return Experiment(**merged(shared, {"fusion": "unimodal", "label": "a", **changes})).key("data")

    assert key(cohort={"data": "/elsewhere"}) == key()
    assert len({key(), key(seed=1), key(attention="dual"), key(recipe={"epochs": 1}), key(modalities=["b"])}) == 5
