"""Rows of a data set from local files: parquet, jsonl, json, or a folder of them.

A row that cannot be used becomes a `BadRow` with its id and the reason, and the others go on. A file that cannot be
read at all is the user's mistake (ConfigError). Not covered: names of data sets on a hub.
"""

import importlib
import json
import os.path
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias  # Any: a row is whatever its file holds

from aem_swe.errors import ConfigError, TaskError

Row: TypeAlias = Mapping[str, Any]
SUFFIXES = (".parquet", ".jsonl", ".json")
VERIFIED_REPOSITORIES = frozenset(
    {
        "astropy/astropy",
        "django/django",
        "matplotlib/matplotlib",
        "mwaskom/seaborn",
        "pallets/flask",
        "psf/requests",
        "pydata/xarray",
        "pylint-dev/pylint",
        "pytest-dev/pytest",
        "scikit-learn/scikit-learn",
        "sphinx-doc/sphinx",
        "sympy/sympy",
    }
)
"""The repositories of SWE-bench Verified, which DeepSWE left out of its training tasks."""
_BATCH = 64


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no task: its id (or file:line where it has none) and why, in one line."""

    id: str
    reason: str


def read_rows(path: Path | str, *, columns: Sequence[str] | None = None) -> Iterator[Row | BadRow]:
    """Yield the rows of a file, or of all files of a folder in the order of their names.

    columns: of a parquet file only these are read, where it has them. Raises ConfigError for an unreadable file.
    """
    path = Path(path)
    if os.path.isdir(path):  # unlike Path.is_dir, it says no to a name that is too long
        with readable(path):
            files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and os.path.isfile(file))
        if not files:
            raise ConfigError(f"folder {str(path)!r} has no rows; put files there that end in one of {list(SUFFIXES)}")
    elif not os.path.isfile(path):
        raise ConfigError(
            f"rows {str(path)!r} are not there; name a file or a folder of files ending in {list(SUFFIXES)}"
        )
    elif path.suffix not in SUFFIXES:
        raise ConfigError(f"rows {str(path)!r} cannot be read; the name has to end in one of {list(SUFFIXES)}")
    else:
        files = [path]
    for file in files:
        if file.suffix == ".parquet":
            yield from _parquet(file, columns)
        elif file.suffix == ".jsonl":
            yield from _json_lines(file)
        else:
            yield from _json(file)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise ConfigError where the block cannot read `path`."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise ConfigError(f"rows {str(path)!r} cannot be read ({why}); name other rows, or mend these") from error


def leave_out(rows: Iterable[Row | BadRow], repositories: Iterable[str]) -> Iterator[Row | BadRow]:
    """Drop the rows of these repositories. `sympy` and `sympy/sympy` are the same one; bad rows stay."""
    names = {name.rpartition("/")[2].lower() for name in repositories}
    for row in rows:
        if isinstance(row, BadRow) or repository(row).rpartition("/")[2].lower() not in names:
            yield row


def repository(row: Row) -> str:
    """`repo_name` of an R2E-Gym row, `repo` of a SWE-bench row, else nothing."""
    return str(row.get("repo_name") or row.get("repo") or "")


def text(row: Row, column: str) -> str:
    """The text in a column. Raises TaskError where there is none."""
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise TaskError(f"column {column!r} is {'missing' if value is None else 'empty or no text'}")
    if not _is_encodable(value):
        raise TaskError(f"column {column!r} holds half a character (a lone surrogate), which no file can have")
    return value


def _is_encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def decoded(row: Row, column: str, kind: type) -> Any:
    """The JSON in a column, of type `kind`; a column that is of that type already is fine. Raises TaskError."""
    value = row.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise TaskError(f"column {column!r} is no JSON: {error}") from error
    if not isinstance(value, kind):
        found = "missing" if value is None else f"a {type(value).__name__}"
        raise TaskError(f"column {column!r} should hold a JSON {kind.__name__} and is {found}")
    return value


def _parquet(file: Path, columns: Sequence[str] | None) -> Iterator[Row | BadRow]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError(
            f"reading {str(file)!r} needs pyarrow; install it with: pip install 'aem-swe[parquet]'"
        ) from error
    try:
        with parquet.ParquetFile(file) as opened:
            known = opened.schema_arrow.names
            wanted = None if columns is None else [name for name in columns if name in known]
            for batch in opened.iter_batches(batch_size=_BATCH, columns=wanted):
                yield from batch.to_pylist()
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's own errors are of these kinds too
        why = " ".join(str(error).split())[:200]
        raise ConfigError(f"{str(file)!r} cannot be read as parquet: {why}") from error


def _json_lines(file: Path) -> Iterator[Row | BadRow]:
    with readable(file), file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _row(line, f"{file.name}:{number}")


def _row(line: bytes, place: str) -> Row | BadRow:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadRow(place, f"the line is no JSON: {error}")
    return row if isinstance(row, dict) else BadRow(place, "the line holds no JSON object")


def _json(file: Path) -> Iterator[Row | BadRow]:
    try:
        with readable(file):
            content = file.read_bytes()
        rows = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{str(file)!r} cannot be read as JSON: {error}") from error
    if not isinstance(rows, list):
        raise ConfigError(f"{str(file)!r} should hold a list of rows and holds a {type(rows).__name__}")
    for number, row in enumerate(rows):
        yield row if isinstance(row, dict) else BadRow(f"{file.name}[{number}]", "the entry is no JSON object")
