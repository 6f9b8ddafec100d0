"""A report in other forms: Markdown to read, LaTeX for a paper, CSV for a spreadsheet, JSON for a program."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from fusionbench.csvtext import csv_rows, csv_text
from fusionbench.errors import one_line
from fusionbench.jsontext import json_text
from fusionbench.markdown import escaped, markdown_table
from fusionbench.report.checklist import checked
from fusionbench.report.content import NO_CLINICAL_USE
from fusionbench.report.contributions import lattices
from fusionbench.report.costs import cost
from fusionbench.report.document import Block, Code, Document, Paragraph, Points, Table
from fusionbench.report.ranking import rankings
from fusionbench.report.reproduce import commands
from fusionbench.report.sources import Sources

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


def to_markdown(report: Document) -> str:
    """Everything but the figures."""
    parts = [f"# {escaped(report.title)}"]
    parts.append("\n".join(f"- **{line.what}**: {escaped(line.text)}" for line in report.brief))
    for section in report.sections:
        told = [text for block in section.blocks for text in _markdown(block)]
        parts += [f"## {section.title}", *told] if told else []
    return "\n\n".join([*parts, NO_CLINICAL_USE]) + "\n"


def to_csv(sources: Sources) -> str:
    """leaderboard.csv with what methods cost; text that a spreadsheet would take for a formula begins with `'`."""
    costs = {row.method: asdict(cost(sources, row)) for row in sources.board.rows}
    rows = csv_rows(sources.board.to_csv())
    names = list(next(iter(costs.values()), {}))
    header = [*rows[0], *names] if rows else []
    table = [[*map(_harmless, row.values()), *(costs[row["method"]][name] for name in names)] for row in rows]
    return csv_text(header, table)


def to_json(sources: Sources, report: Document) -> str:
    """What was found, as values; null where nothing is known."""
    findings = sources.board.findings
    told = {
        "summary": [asdict(line) for line in report.brief],
        "leaderboard": json.loads(sources.board.to_json()),
        "findings": asdict(findings) if findings else None,
        "costs": {row.method: asdict(cost(sources, row)) for row in sources.board.rows},
        "rankings": [_ranking(one) for one in rankings(sources.board)],
        "shapley": {
            one.label: {"empty": sorted(one.base or ()), "gains": one.gains()}
            for one in lattices(sources.board, sources.setup)
        },
        "failures": {row.method: row.failed for row in sources.board.rows if row.failed},
        "checklist": [asdict(item) for item in checked(sources)],
        "commands": commands(sources),
    }
    return json_text(told, sort_keys=True)


def _markdown(block: Block) -> Iterator[str]:
    match block:
        case Table():
            rows = ([cell.whole for cell in row] for row in block.rows)
            yield escaped(block.caption)
            yield markdown_table(list(block.header), rows)
        case Paragraph():
            yield escaped(block.text)
        case Points():
            yield "\n".join(f"- {escaped(text)}" for text in block.texts)
        case Code():
            yield _fenced(block.text)


def _fenced(text: str) -> str:
    """Code whose fence is longer than any in it."""
    lines = [one_line(line) for line in text.splitlines()]
    fence = "`" * max(3, 1 + max((len(run) for line in lines for run in _runs(line)), default=0))
    return "\n".join([fence, *lines, fence])


def _runs(line: str) -> list[str]:
    return [run for run in "".join(c if c == "`" else " " for c in line).split(" ") if run]


def _harmless(text: str) -> str:
    """Text that no spreadsheet calculates; numbers stay.

    >>> _harmless("=1+1"), _harmless("-0.5"), _harmless("t1ce")
    ("'=1+1", '-0.5', 't1ce')
    """
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.startswith(FORMULA) else text
    return text


def _ranking(ranking: Any) -> dict[str, Any]:
    return {
        "orders": [[repeat, fold, [line.modality for line in lines]] for repeat, fold, lines in ranking.orders],
        "kendall_w": ranking.agreement.kendall_w,
        "mean_rank": dict(ranking.agreement.mean_rank),
        "came_first": dict(ranking.agreement.first),
        "frequency": dict(ranking.frequency),
        "probability": dict(ranking.probability),
    }
