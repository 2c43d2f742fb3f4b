"""Show an evaluation while it runs: a table that is redrawn in place on a terminal, one line an instance elsewhere.

Both may be called from any thread. Instance ids, terminations and reasons are data that others wrote: each is made
visible before it is shown, and none is read as rich's markup.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aem_swe.eval.swebench.results import Result, Status
from aem_swe.eval.visible import visible_line

_SHOWN = 8
"""Running instances in the table, the oldest first."""
_NO_EPISODE = "no episode"
"""Shown for a result without a termination: somebody else made its patch."""


def line(result: Result, done: int, total: int) -> str:
    """One finished instance as one plain line; `done` of `total` counts it."""
    parts = [
        f"{done}/{total}",
        f"run {result.run}",
        visible_line(result.instance_id),
        str(result.status),
    ]
    if result.termination:
        parts += [
            f"ended by {visible_line(result.termination, 40)}",
            f"{result.turns} turns",
            f"{_tokens(result)} tokens",
        ]
    if result.cost is not None:
        parts.append(f"cost {result.cost:.2f}")
    if result.seconds:
        parts.append(f"{sum(result.seconds.values()):.0f} s")
    if result.attempts > 1:
        parts.append(f"attempt {result.attempts}")
    if result.status is not Status.RESOLVED and result.reason:
        parts.append(f"({visible_line(result.reason, 120)})")
    return "  ".join(parts)


def _tokens(result: Result) -> str:
    return short(result.prompt_tokens + result.completion_tokens + result.lost_tokens)


def short(count: int) -> str:
    """1,234 as '1.2k', 5,600,000 as '5.6M'."""
    if count < 1_000:
        return str(count)
    return f"{count / 1_000:.1f}k" if count < 1_000_000 else f"{count / 1_000_000:.1f}M"


def duration(seconds: float) -> str:
    """61 as '1m 01s', 7300 as '2h 01m'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m {whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h {whole // 60 % 60:02d}m"


class PlainProgress:
    """One line for each finished instance, given to `say`."""

    def __init__(self, say: Callable[[str], None], *, total: int, already: int = 0) -> None:
        self._say, self._total, self._done = say, total, already
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def started(self, run: int, instance_id: str) -> None:
        """Nothing is printed for it."""

    def turned(self, run: int, instance_id: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Nothing is printed for it."""

    def finished(self, result: Result) -> None:
        with self._lock:
            self._done += 1
            self._say(line(result, self._done, self._total))


@dataclass(slots=True)
class _Running:
    since: float
    turns: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class LiveEvaluation:
    """Counts, what is running, tokens, cost, throughput and time left, redrawn four times a second."""

    def __init__(
        self, console: Console, *, title: str, total: int, already: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._title, self._total, self._already, self._clock = title, total, already, clock
        self._lock = threading.Lock()
        self._running: dict[tuple[int, str], _Running] = {}
        self._finished = 0
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self._prompt_tokens = self._completion_tokens = self._lost_tokens = 0
        self._cost: float | None = None
        self._begun = clock()
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self.table)

    def __enter__(self) -> Self:
        self._begun = self._clock()
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def started(self, run: int, instance_id: str) -> None:
        """An episode begins; a second time for the same instance is a new attempt, which begins at no turns."""
        with self._lock:
            self._running[run, instance_id] = _Running(self._clock())

    def turned(self, run: int, instance_id: str, prompt_tokens: int, completion_tokens: int) -> None:
        """A running episode made a turn, of so many tokens."""
        with self._lock:
            one = self._running.setdefault((run, instance_id), _Running(self._clock()))
            one.turns += 1
            one.prompt_tokens += prompt_tokens
            one.completion_tokens += completion_tokens

    def finished(self, result: Result) -> None:
        """The result replaces what the running episode had counted."""
        with self._lock:
            self._running.pop((result.run, result.instance_id), None)
            self._finished += 1
            self._outcomes[result.status, result.termination or _NO_EPISODE] += 1
            self._prompt_tokens += result.prompt_tokens
            self._completion_tokens += result.completion_tokens
            self._lost_tokens += result.lost_tokens
            if result.cost is not None:
                self._cost = (self._cost or 0.0) + result.cost

    def table(self) -> Group:
        """What is shown now."""
        with self._lock:
            done = self._already + self._finished
            title = Text(
                f"{visible_line(self._title)}  {done}/{self._total} done ({done / max(self._total, 1):.0%})",
                style="bold",
            )
            parts: list[Text | Table] = [title, Text(self._pace(done)), Text(self._spent()), self._outcome_table()]
            if self._running:
                parts.append(self._running_table())
        return Group(*parts)

    def _pace(self, done: int) -> str:
        seconds = self._clock() - self._begun
        text = f"elapsed {duration(seconds)}"
        if self._already:
            text += f"  {self._already} were done before"
        if not self._finished or seconds <= 0.0:
            return text
        left = max(self._total - done, 0) * seconds / self._finished
        return f"{text}  {60.0 * self._finished / seconds:.1f} instances/min  about {duration(left)} left"

    def _spent(self) -> str:
        prompt = self._prompt_tokens + sum(one.prompt_tokens for one in self._running.values())
        completion = self._completion_tokens + sum(one.completion_tokens for one in self._running.values())
        text = f"tokens {short(prompt)} in, {short(completion)} out"
        if self._lost_tokens:
            text += f", {short(self._lost_tokens)} lost"
        return text if self._cost is None else f"{text}  cost {self._cost:.2f}"

    def _outcome_table(self) -> Table:
        """Rows: how episodes ended. Columns: what became of the instance."""
        table = Table("ended by", *(str(status) for status in Status), "all", title_justify="left")
        endings = sorted({ending for _, ending in self._outcomes})
        for ending in endings:
            counts = [self._outcomes[status, ending] for status in Status]
            table.add_row(Text(visible_line(ending, 40)), *(str(count or "") for count in counts), str(sum(counts)))
        counts = [sum(self._outcomes[status, ending] for ending in endings) for status in Status]
        table.add_row("all", *(str(count) for count in counts), str(sum(counts)), style="bold")
        return table

    def _running_table(self) -> Table:
        now = self._clock()
        table = Table("running", "run", "turns", "tokens", "time")
        oldest = sorted(self._running.items(), key=lambda item: item[1].since)
        for (run, instance_id), one in oldest[:_SHOWN]:
            tokens = short(one.prompt_tokens + one.completion_tokens)
            name = Text(visible_line(instance_id, 60))
            table.add_row(name, str(run), str(one.turns), tokens, duration(now - one.since))
        if len(oldest) > _SHOWN:
            table.add_row(f"and {len(oldest) - _SHOWN} more", "", "", "", "")
        return table
