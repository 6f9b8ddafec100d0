"""What the paper's methods need at the size of the paper: the table of docs/performance.md.

    python -m benchmarks.studies.cost_table

The methods and the recipe of `paper-brats2018` on images of 150 x 240 x 240, without any. The cohort is a phantom of
40 subjects, of which only the names of the modalities count.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import fusionbench
from fusionbench.costs.budget import Budget

SIZE = (150, 240, 240)
CHANGES = {
    "cohort": {"reader": "phantom"},
    "recipe": {"precision": "32", "device": "cpu"},
    "options": {"phantom": {"subjects": 40}},
}


def main() -> None:
    """Print the table in Markdown, then its notes."""
    study = fusionbench.open_study(fusionbench.load_comparison("paper-brats2018", CHANGES))
    with tempfile.TemporaryDirectory() as folder:
        store = fusionbench.Store(Path(folder)).open()
        budget = Budget.of(study, store, dict.fromkeys(study.comparison.modalities, SIZE))
    for row in (budget.header, ["---"] * len(budget.header), *budget.rows()):
        print(f"| {' | '.join(row)} |")
    print("\n" + "\n".join(budget.notes()))


if __name__ == "__main__":
    main()
