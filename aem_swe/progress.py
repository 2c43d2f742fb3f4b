"""Show a training run while it runs: a live table on a terminal, plain lines elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

Row = Mapping[str, Any]  # JSON values
_SHOWN = 12
"""Steps in the live table."""


def _number(row: Row, key: str, form: str = ".3f") -> str:
    return format(row[key], form) if key in row else "-"


def line(run_dir: Path, steps: int, row: Row) -> str:
    """Return one metrics row as one plain line."""
    if row["step"] == 0:
        return (
            f"{run_dir.name} step 0/{steps} held-out {_number(row, 'val/pass@1')} ({row.get('val/episodes')} episodes)"
        )
    parts = [
        f"{run_dir.name} step {row['step']}/{steps}",
        f"reward {_number(row, 'critic/rewards/mean')}",
        f"entropy {_number(row, 'actor/entropy')}",
        f"truncated {_number(row, 'rollout/truncation_rate', '.0%')}",
    ]
    if "aem/alpha_positive_mean" in row or "aem/alpha_negative_mean" in row:
        parts.append(f"alpha +{_number(row, 'aem/alpha_positive_mean')} -{_number(row, 'aem/alpha_negative_mean')}")
    if "val/pass@1" in row:
        parts.append(f"held-out {_number(row, 'val/pass@1')}")
    return "  ".join([*parts, f"{_number(row, 'timing_s/step', '.1f')} s"])


class LiveProgress:
    """The last steps as a table that is redrawn in place."""

    def __init__(self, console: Console, run_dir: Path, steps: int) -> None:
        self._run_dir, self._steps = run_dir, steps
        self._rows: list[Row] = []
        self._live = Live(self._table(), console=console, refresh_per_second=4)

    def __enter__(self) -> "LiveProgress":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def observe(self, row: Row) -> None:
        self._rows.append(row)
        self._live.update(self._table())

    def _table(self) -> Table:
        done = self._rows[-1]["step"] if self._rows else 0
        table = Table(title=f"{self._run_dir}  step {done}/{self._steps}", title_justify="left")
        for name in ("step", "reward", "held-out", "entropy", "truncated", "alpha + / -", "trained", "seconds"):
            table.add_column(name, justify="right")
        for row in self._rows[-_SHOWN:]:
            table.add_row(
                str(row["step"]),
                _number(row, "critic/rewards/mean"),
                _number(row, "val/pass@1"),
                _number(row, "actor/entropy"),
                _number(row, "rollout/truncation_rate", ".0%"),
                f"{_number(row, 'aem/alpha_positive_mean')} / {_number(row, 'aem/alpha_negative_mean')}",
                _number(row, "filter/kept", "d"),
                _number(row, "timing_s/step", ".1f"),
            )
        return table
