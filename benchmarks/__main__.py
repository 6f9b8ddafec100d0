"""Measure every target of performance, both sides of each ratio in the same run.

    python -m benchmarks [CASE ...] [--long]

Without names all cases but the long ones, in about ten minutes. Run it from the root of a checkout, on a machine with
nothing else to do: seconds of one machine say nothing of another, and where others work the ratios waver, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from importlib import import_module

from benchmarks.surroundings import settings
from benchmarks.targets import NotMeasured, Row

CASES = (
    "sharing",
    "growth",
    "guidance_step",
    "branchwise",
    "input_pipeline",
    "waiting",
    "engine_overhead",
    "fusilli_epoch",
    "start_up",
    "jobs",
    "cohort_size",
    "volume_attention",
)
"""Each is a module here with `measure() -> Iterator[Row]`, and says in its docstring what it does and with what."""
LONG = ("default_run",)


def chosen(arguments: Sequence[str] | None = None) -> tuple[str, ...]:
    """The cases that were asked for, each once."""
    every = (*CASES, *LONG)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", nargs="*", help=f"any of {', '.join(every)}")
    parser.add_argument("--long", action="store_true", help=f"also {', '.join(LONG)}")
    asked = parser.parse_args(arguments)
    if strangers := sorted({*asked.case} - {*every}):
        parser.error(f"no case {', '.join(strangers)}: choose from {', '.join(every)}")
    return tuple(dict.fromkeys((*(asked.case or CASES), *LONG * asked.long)))


def measured(case: str) -> Iterator[Row]:
    """The targets of a case, printed as they come, below what it does."""
    module = import_module(f"benchmarks.{case}")
    print(f"\n{case}: {str(module.__doc__).partition(chr(10))[0]}", flush=True)
    for row in module.measure():
        print(row, flush=True)
        yield row


def main() -> None:
    """Measure, then print all targets as one table in Markdown, those that a whole suite left out among them."""
    cases = chosen()
    print("\n".join(settings()))
    rows = [row for case in cases for row in measured(case)]
    left_out = [case for case in LONG if case not in cases and {*CASES} <= {*cases}]
    rows += [NotMeasured(case, "left out for its time: call with --long") for case in left_out]
    print("\n| what | ratio | target | |\n|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row.cells)} |")


if __name__ == "__main__":
    main()
