"""Actions that are carried out a second time: what was recorded of the first, and whether they did the same."""

import re
from typing import Protocol

from aem_swe.agents.tools import ToolResult


class Memory(Protocol):
    """What an episode that was begun in another process has done already; actions are counted from 0."""

    def recorded(self, action: int) -> ToolResult | None:
        """The result of an action that the policy has read, or None."""

    def record(self, action: int, result: ToolResult) -> None:
        """Keep the result of an action."""


_VOLATILE = re.compile(r"0x[0-9a-f]+|[0-9]+")


def alike(again: ToolResult, first: ToolResult) -> bool:
    """Whether a replayed action did the same: times, process ids and addresses may differ, words may not."""
    texts = [_VOLATILE.sub("0", result.observation) for result in (again, first)]
    return texts[0] == texts[1] and again.timed_out == first.timed_out
