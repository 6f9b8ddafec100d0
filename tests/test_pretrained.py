"""A checkpoint is read without running its code, and loaded whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from fusionbench import FusionBenchError, LoadReport, load_into, read_checkpoint

FILE = Path("net.pth")


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4), nn.Linear(4, 3))


def other_values(module: nn.Module) -> dict[str, Tensor]:
    return {key: value + 1 for key, value in module.state_dict().items()}


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_a_checkpoint_comes_back_as_it_was_saved(name: str, tmp_path: Path) -> None:
    state = network().state_dict()
    save = safetensors.torch.save_file if name.endswith(".safetensors") else torch.save
    save(state, tmp_path / name)
    found = read_checkpoint(tmp_path / name)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save({"a": torch.ones(2)}, tmp_path / "net.pth")
    assert read_checkpoint(Path("~/net.pth"))["a"].tolist() == [1, 1]


def test_a_format_of_a_librarys_own_fails_in_one_line_too(tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_bytes(b"1 2 3")
    found = read_checkpoint(tmp_path / "net.bin", lambda file: {"a": torch.tensor([int(file.read_text()[0])])})
    assert found["a"].tolist() == [1]

    def fails(file: Path) -> dict[str, Tensor]:
        raise KeyError("line one\nline two")

    with pytest.raises(FusionBenchError, match=r"net\.bin is not a checkpoint: KeyError: ") as caught:
        read_checkpoint(tmp_path / "net.bin", fails)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("found", [{"a": 1}, {"state_dict": {"a": torch.ones(1)}}, [torch.ones(1)], torch.ones(1)])
def test_anything_but_names_and_tensors_is_an_error(found: object, tmp_path: Path) -> None:
    torch.save(found, tmp_path / "net.pth")
    with pytest.raises(FusionBenchError, match="holds no plain mapping of names to tensors"):
        read_checkpoint(tmp_path / "net.pth")


def test_all_is_loaded_and_what_is_too_much_is_skipped() -> None:
    module = network()
    checkpoint = other_values(module) | {"classifier.bias": torch.zeros(7)}
    report = load_into(module.state_dict(), checkpoint, FILE, "net")
    assert all(torch.equal(value, checkpoint[key]) for key, value in module.state_dict().items())
    assert report == LoadReport(FILE, tuple(module.state_dict()), (), ("classifier.bias",))
    assert str(report) == "net.pth: 9 tensors loaded; 0 missing; 1 skipped (classifier.bias)"


def test_what_starts_anew_keeps_its_values_and_may_have_another_shape() -> None:
    module = network()
    before = module[0].weight.detach().clone()
    checkpoint = other_values(module) | {"0.weight": torch.zeros(4, 3, 3, 3, 3)}
    report = load_into(module.state_dict(), checkpoint, FILE, "net", fresh=["0.weight"])
    assert torch.equal(module[0].weight, before)
    assert (report.missing, report.skipped) == (("0.weight",), ("0.weight",))


def test_batch_counters_may_be_missing_and_nothing_else_may() -> None:
    module = network()
    checkpoint = other_values(module)
    del checkpoint["1.num_batches_tracked"]
    assert load_into(module.state_dict(), checkpoint, FILE, "net").missing == ("1.num_batches_tracked",)
    del checkpoint["1.running_var"]
    with pytest.raises(FusionBenchError, match=r"net\.pth does not fit net: 1 of its 8 .* the first is 1\.running_var"):
        load_into(module.state_dict(), checkpoint, FILE, "net")


def test_a_checkpoint_of_another_network_leaves_everything_as_it_was() -> None:
    module = network()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    checkpoint = other_values(module) | {"2.weight": torch.zeros(5, 4)}  # the last but one, so others came before
    with pytest.raises(FusionBenchError, match=r"2\.weight is \(5, 4\), not \(3, 4\); it is of another network"):
        load_into(module.state_dict(), checkpoint, FILE, "net")
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_a_report_names_a_few_tensors_and_counts_the_rest() -> None:
    report = LoadReport(FILE, (), tuple("abcdef"), ())
    assert str(report) == "net.pth: 0 tensors loaded; 6 missing (a, b, c, d, and 2 more); 0 skipped"
