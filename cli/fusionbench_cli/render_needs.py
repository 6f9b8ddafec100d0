"""What the commands print of needs: what a run will cost, where its time went, what a store can do without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fusionbench.costs.amounts import sized
from fusionbench_cli.render import print_table, say

if TYPE_CHECKING:
    from fusionbench.costs.budget import Budget
    from fusionbench.profiling import Profile
    from fusionbench.upkeep import Waste


def budget(needs: Budget) -> None:
    """What the methods of a study need, and the disk."""
    print_table("What training needs", needs.header, needs.rows(), right=(1, 2, 4, 5, 6, 7))
    for note in needs.notes():
        say(f"  {note}")


def profile(times: Profile) -> None:
    """Where the time of a run went."""
    print_table("\nWhere the time went", times.header, times.rows(), right=range(1, len(times.header)))
    for note in times.notes():
        say(f"  {note}")


def waste(found: Sequence[Waste], freed: int | None, cached: int) -> None:
    """What of a store was removed, or would be if nothing was freed yet."""
    by_reason: dict[str, list[int]] = {}
    for one in found:
        by_reason.setdefault(one.why, []).append(one.size)
    for why, sizes in by_reason.items():
        say(f"{why}: {len(sizes)}, {sized(sum(sizes))}")
    say(f"{sized(sum(one.size for one in found))} can go." if freed is None else f"{sized(freed)} freed.")
    if cached:
        say(f"Caches of volumes and features hold {sized(cached)}: delete them at will, they are made again.")
