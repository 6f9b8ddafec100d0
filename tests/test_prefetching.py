"""The next batch is read while one is trained on, and nothing but the time of it is another."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import workplace

from fusionbench import Store, Study, load_comparison, open_study, plan, training
from fusionbench.batches import Batches
from fusionbench.components import Batch
from fusionbench.errors import CohortError
from fusionbench.fits import Job
from fusionbench.prefetching import prefetched
from fusionbench.training import execute


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_a_thread_is_one_item_ahead_and_no_further() -> None:
    read: list[tuple[int, str]] = []
    second = threading.Event()

    def reading(number: int) -> int:
        read.append((number, threading.current_thread().name))
        if number == 1:
            second.set()
        return number * number

    with closing(prefetched(reading, range(5))) as squares:
        assert next(squares) == 0
        assert second.wait(10)
        time.sleep(0.05)  # what it might do if it went further
        assert [number for number, _ in read] == [0, 1]
        assert list(squares) == [1, 4, 9, 16]
    assert all(name.startswith("prefetch") for _, name in read)
    assert not readers()
    assert list(prefetched(reading, [])) == []


def test_an_error_is_raised_where_its_item_was_due() -> None:
    fault, read = CohortError("the file is gone"), []

    def reading(number: int) -> int:
        read.append(number)
        if number == 2:
            raise fault
        return number

    seen: list[int] = []
    with pytest.raises(CohortError) as error:
        seen.extend(prefetched(reading, range(9)))
    assert error.value is fault
    assert seen == [0, 1]
    assert 5 not in read
    assert not readers()


def trained_on(numbers: Iterator[int]) -> None:
    for number in numbers:
        1 / (number - 1)


def test_nothing_is_left_running_when_it_is_closed_or_its_user_fails() -> None:
    squares = prefetched(abs, range(9))
    next(squares)
    assert len(readers()) == 1
    squares.close()
    assert not readers()
    with pytest.raises(ZeroDivisionError):
        trained_on(prefetched(abs, range(9)))
    assert not readers()


def test_a_process_that_forks_meanwhile_can_end_it() -> None:
    squares = prefetched(abs, range(9))
    next(squares)
    child = os.fork()
    if child == 0:
        squares.close()
        os._exit(0)
    deadline = time.monotonic() + 20
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child waits for a thread that it does not have")
        time.sleep(0.01)
    assert list(squares) == [*range(1, 9)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """On small images, with all that is drawn for a batch."""
    small = {"preprocessing": {"resize": [4, 8, 8]}, "options": {"phantom": {"subjects": 16, "spacing": 8.0}}}
    recipe = {"epochs": 2, "batch_size": 3, "dropout": 0.5, "modality_dropout": 0.3}
    asked = {"fusion": ["feature"], "baselines": [], "protocol": {"folds": 2}, "recipe": recipe, "missing": "mask"}
    return open_study(load_comparison("demo", small, asked), home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def job(study: Study) -> Job:
    return plan(study).jobs[0]


class Ahead(Batches):
    """Reads ahead on a CPU too."""

    def __init__(self, *told: Any, **more: Any) -> None:
        super().__init__(*told, **more)
        self.ahead = True


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    return {"labels": batch.labels, "weights": batch.weights, **batch.inputs, **batch.present}


def test_the_batches_are_the_same_bit_by_bit(study: Study, job: Job, tmp_path: Path) -> None:
    volumes, cpu = workplace(study, Store(tmp_path).open()).volumes, torch.device("cpu")
    plain, ahead = Batches(job.fit, volumes, cpu), Ahead(job.fit, volumes, cpu)
    assert not plain.ahead
    for epoch in range(2):
        both = zip(plain.training("fit", epoch), ahead.training("fit", epoch), strict=True)
        for one, other in both:
            assert one.ids == other.ids
            mine, theirs = tensors(one), tensors(other)
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert not readers()


def test_a_fit_has_the_same_weights_and_its_profile_says_how_long_was_read_and_waited(
    study: Study, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [Store(tmp_path / name).open() for name in ("plain", "ahead")]
    for store, kind in zip(stores, (Batches, Ahead), strict=True):
        monkeypatch.setattr(training, "Batches", kind)
        place = replace(workplace(study, store), profile=True)
        execute(job, place, lambda progress: None)
    one, other = (store.weights(job.key) for store in stores)
    assert all(torch.equal(one[name], other[name]) for name in one)
    plain, ahead = (store.record(job.key)["profile"] for store in stores)
    assert plain["wait"] > plain["read"] > 0
    assert ahead["read"] > 0


def test_a_file_that_goes_while_training_ends_the_fit_with_its_error(
    study: Study, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = workplace(study, Store(tmp_path).open()).volumes
    inputs, calls = volumes.inputs, []

    def failing(ids: Any, modalities: Any, **more: Any) -> Any:
        calls.append(ids)
        if len(calls) == 3:
            raise CohortError("cannot read t1.nii.gz: it is gone")
        return inputs(ids, modalities, **more)

    monkeypatch.setattr(volumes, "inputs", failing)
    with pytest.raises(CohortError, match="it is gone"):
        list(Ahead(job.fit, volumes, torch.device("cpu")).training("fit", 0))
    assert len(calls) == 3
    assert not readers()


def test_no_thread_is_started_where_nothing_is_read(job: Job, study: Study, tmp_path: Path) -> None:
    volumes = workplace(study, Store(tmp_path).open()).volumes
    for inputs, expected in ((True, 1), (False, 0)):
        with closing(Ahead(job.fit, volumes, torch.device("cpu")).training("fit", 0, inputs=inputs)) as batches:
            next(batches)
            assert len(readers()) == expected
