"""What fusilli needs for its folds: run by the interpreter of an environment that has it, without fusionbench.

    PYTHON benchmarks/fusilli_side.py FOLDER SHORT LONG FOLDS ...

FOLDER has first.csv and second.csv as fusilli reads them; FOLDS are JSON files in it with the row numbers of each
fold's training and test part. Prints as JSON the parameters of a model and, per file, the processor's seconds of
training all its folds for a short and for a long number of epochs; fusilli stops none before its sixteenth.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from fusilli.data import prepare_fusion_data
from fusilli.fusionmodels.tabularfusion.concat_feature_maps import ConcatTabularFeatureMaps
from fusilli.train import train_and_save_models

BATCH = 8


def prepared(folder: Path, folds: str, epochs: int) -> Any:
    """fusilli's data module."""
    output = {name: str(folder / name) for name in ("losses", "checkpoints", "figures")}
    for path in output.values():
        Path(path).mkdir(exist_ok=True)
    rows = json.loads((folder / folds).read_text())
    return prepare_fusion_data(
        prediction_task="binary",
        fusion_model=ConcatTabularFeatureMaps,
        data_paths={
            "tabular1": str(folder / "first.csv"), "tabular2": str(folder / "second.csv"), "tabular3": "", "image": "",
        },
        output_paths=output,
        kfold=True,
        num_folds=len(rows),
        own_kfold_indices=rows,
        batch_size=BATCH,
        max_epochs=epochs,
    )  # fmt: skip


def trained(folder: Path, folds: str, epochs: int) -> tuple[int, float]:
    """The parameters of a model, and the seconds; nothing of data is read in them."""
    data = prepared(folder, folds, epochs)
    started = time.process_time()
    models = train_and_save_models(
        data, ConcatTabularFeatureMaps, max_epochs=epochs, enable_checkpointing=False,
        training_modifications={"accelerator": "cpu", "devices": 1},
    )  # fmt: skip
    return sum(p.numel() for p in models[0].model.parameters()), time.process_time() - started


def main(folder: Path, epochs: tuple[int, int], files: list[str]) -> str:
    """What is printed."""
    found = {folds: [trained(folder, folds, number) for number in epochs] for folds in files}
    parameters = max(each for several in found.values() for each, _ in several)
    seconds = {folds: [taken for _, taken in several] for folds, several in found.items()}
    return json.dumps({"parameters": parameters, "seconds": seconds})


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):
        told = main(Path(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3])), sys.argv[4:])
    print(told)
