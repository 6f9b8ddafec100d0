"""What fusilli needs for its folds: run by the interpreter of an environment that has it, without fusionbench.

    PYTHON benchmarks/fusilli_side.py FOLDER EPOCHS

FOLDER has first.csv and second.csv as fusilli reads them, and folds.json with the row numbers of each fold's training
and test part. Prints the wall seconds of training all folds for that many epochs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
import warnings
from pathlib import Path

import torch
from fusilli.data import prepare_fusion_data
from fusilli.fusionmodels.tabularfusion.concat_feature_maps import ConcatTabularFeatureMaps
from fusilli.train import train_and_save_models

BATCH = 8


def main(folder: Path, epochs: int) -> float:
    """The seconds, nothing of data being read in them."""
    output = {name: str(folder / name) for name in ("losses", "checkpoints", "figures")}
    for path in output.values():
        Path(path).mkdir(exist_ok=True)
    folds = json.loads((folder / "folds.json").read_text())
    data = prepare_fusion_data(
        prediction_task="binary",
        fusion_model=ConcatTabularFeatureMaps,
        data_paths={
            "tabular1": str(folder / "first.csv"), "tabular2": str(folder / "second.csv"), "tabular3": "", "image": "",
        },
        output_paths=output,
        kfold=True,
        num_folds=len(folds),
        own_kfold_indices=folds,
        batch_size=BATCH,
        max_epochs=epochs,
    )  # fmt: skip
    started = time.perf_counter()
    train_and_save_models(
        data, ConcatTabularFeatureMaps, max_epochs=epochs, enable_checkpointing=False,
        training_modifications={"accelerator": "cpu", "devices": 1},
    )  # fmt: skip
    return time.perf_counter() - started


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):
        seconds = main(Path(sys.argv[1]), int(sys.argv[2]))
    print(seconds)
