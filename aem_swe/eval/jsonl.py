"""JSON lines of a run that may have been killed while it wrote: a torn line is counted by the reader, never fatal."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from aem_swe.errors import RunError

Row = dict[str, object]


def read_rows(path: Path) -> Iterator[Row | None]:
    """Yield one object a line, and None for a line that is torn or that is not a JSON object.

    Raises RunError if the file cannot be opened or read.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.strip():
                    yield _parse(line)
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); check that the run folder is complete") from error


def _parse(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # a torn line, or brackets nested deeper than the parser goes
        return None
    return row if isinstance(row, dict) else None


def number(value: object) -> float | None:
    """A finite number, or None for whatever else a row holds there."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        converted = float(value)
    except OverflowError:  # JSON integers have no bound
        return None
    return converted if math.isfinite(converted) else None
