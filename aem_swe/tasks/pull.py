"""Bring a data set of tasks to this machine as one file of rows, with a manifest that says what it is.

    data/r2e-gym/rows.parquet     what data.source reads; every column, of the type that its values agree on
                 manifest.json    source, revision, licence, counts, checksum, rows that cannot be used and why

The folder appears when everything in it is whole; after a failure or Ctrl-C there is none.
"""

import datetime
import hashlib
import importlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal  # Any: a row is whatever its file holds

from aem_swe import __version__
from aem_swe.errors import ConfigError, TaskError
from aem_swe.tasks.hub import UNSTATED, DataSet, fetch
from aem_swe.tasks.rows import VERIFIED_REPOSITORIES, BadRow, Row, read_rows, readable, repository

Format = Literal["parquet", "jsonl"]
_BATCH = 64
_VERIFIED = frozenset(name.rpartition("/")[2].lower() for name in VERIFIED_REPOSITORIES)


@dataclass
class Counted:
    """What was found on the way."""

    read: int = 0
    written: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows of each repository that SWE-bench Verified has too."""
    unusable: list[BadRow] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)
    """In the order in which they were met."""

    @property
    def usable(self) -> int:
        return self.read - len(self.unusable)


def pull(
    data_set: DataSet,
    out: Path,
    *,
    source: Path | None = None,
    revision: str | None = None,
    leave_out_verified: bool = False,
    form: Format = "parquet",
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write `out` and return its manifest. source: a local file or folder of rows, instead of the hub.

    Raises ConfigError, with nothing left behind.
    """
    if source is not None and revision is not None:
        raise ConfigError(f"--revision {revision!r} is of the hub and --from names a local file; leave one out")
    write = {"parquet": _write_parquet, "jsonl": _write_json_lines}[form]
    with _folder_at_once(out) as folder:  # before the fetch, which should not be for nothing
        files: Sequence[Path]
        if source is None:
            fetched = fetch(data_set, revision=revision, say=say)
            files, licence = fetched.files, fetched.licence
            origin = {"hub": data_set.repository, "revision": fetched.revision, "split": data_set.split}
        else:
            files, licence = [source], UNSTATED
            with readable(source):
                origin = {
                    "file": source.name, "sha256": _sha256(source) if os.path.isfile(source) else "a folder"
                }  # fmt: skip
        counted = Counted()
        rows = folder / f"rows.{form}"
        write(rows, lambda count: _kept(data_set, files, count, leave_out_verified), counted)
        if not counted.written:
            raise ConfigError(_nothing(data_set, counted))
        about = _manifest(data_set, counted, rows, {"source": origin, "licence": licence})
        about["verified_left_out"] = leave_out_verified
        (folder / "manifest.json").write_text(json.dumps(about, indent=1) + "\n")
    return about


def _kept(
    data_set: DataSet, files: Sequence[Path], counted: Counted, leave_out_verified: bool
) -> Iterator[dict[str, Any]]:
    """The rows to write: those that make a task, once each."""
    seen: set[str] = set()
    for row in (row for file in files for row in read_rows(file)):
        counted.read += 1
        reason = row if isinstance(row, BadRow) else _why_not(data_set, row, seen, counted.read)
        if isinstance(reason, BadRow):
            counted.unusable.append(reason)
            continue
        assert not isinstance(row, BadRow), "it has no reason"
        name = repository(row)
        verified = name.rpartition("/")[2].lower() in _VERIFIED
        counted.left_out[name] += verified
        if verified and leave_out_verified:
            continue
        counted.written += 1
        counted.columns |= dict.fromkeys(row)
        yield dict(row)


def _why_not(data_set: DataSet, row: Row, seen: set[str], number: int) -> BadRow | None:
    try:
        task = data_set.make_problem(row).task
    except TaskError as error:
        name = str(row.get("instance_id") or row.get("commit_hash") or f"row {number}")
        return BadRow(name[:80], str(error))
    if task.id in seen:
        return BadRow(task.id, "another row before it has the same id")
    seen.add(task.id)
    return None


def _nothing(data_set: DataSet, counted: Counted) -> str:
    if counted.usable:
        return f"all {counted.usable} tasks are of repositories of SWE-bench Verified; leave out --leave-out-verified"
    why = f"; the first: {counted.unusable[0].id}: {counted.unusable[0].reason}" if counted.unusable else ""
    return f"none of {counted.read} rows is a task of {data_set.name}{why}; name its own rows with --from"


def _manifest(data_set: DataSet, counted: Counted, rows: Path, origin: dict[str, Any]) -> dict[str, Any]:
    left_out = {name: count for name, count in sorted(counted.left_out.items()) if count}
    return {
        "data_set": data_set.name,
        **origin,
        "rows": {
            "read": counted.read,
            "unusable": len(counted.unusable),
            "usable": counted.usable,
            "without_repositories_of_verified": counted.usable - sum(left_out.values()),
            "written": counted.written,
        },
        "repositories_of_verified": left_out,
        "columns": list(counted.columns),
        "unusable": [{"id": row.id, "reason": row.reason} for row in counted.unusable],
        "file": rows.name,
        "sha256": _sha256(rows),
        "made_by": f"aem-swe {__version__}",
    }


@contextmanager
def _folder_at_once(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` when the block has ended well, and goes away with all in it when it has not."""
    place = Path(os.path.realpath(out))  # a link stays, and leads to the rows
    above = [folder for folder in place.parents if not os.path.exists(folder)]
    partial: Path | None = None
    try:
        _require_free(out, place)
        place.parent.mkdir(parents=True, exist_ok=True)
        # no other run has this name, also not one in another container that has the same process id
        partial = Path(tempfile.mkdtemp(prefix=f".{place.name[:40]}.", suffix=".partial", dir=place.parent))
        inner = partial / place.name  # mkdtemp's own folder is for its owner only
        inner.mkdir()
        yield inner
        os.replace(inner, place)  # an empty `out` gives way
    except OSError as error:
        raise ConfigError(
            f"--out {str(out)!r} cannot be written ({error.strerror or error}); choose another"
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):  # until one that is not empty
            for folder in above:
                folder.rmdir()


def _require_free(out: Path, place: Path) -> None:
    """Refuse what a new folder cannot replace."""
    if os.path.lexists(place) and (not os.path.isdir(place) or any(place.iterdir())):
        raise ConfigError(f"--out {str(out)!r} is there already and is not overwritten; choose another, or remove it")
    if str(place) == os.path.realpath(".") or os.path.ismount(place):
        raise ConfigError(f"--out {str(out)!r} is the current folder, or a mount; name a new folder inside it")


Rows = Callable[[Counted], Iterator[dict[str, Any]]]


def _write_json_lines(path: Path, rows: Rows, counted: Counted) -> None:
    with path.open("w") as file:
        for row in rows(counted):
            try:
                file.write(json.dumps(row, default=_plain) + "\n")
            except TypeError as error:
                raise ConfigError(f"row {counted.read} is no JSON ({error}); use --format parquet") from error


def _plain(value: object) -> str:
    if isinstance(value, datetime.date):  # a datetime too
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__}")


def _write_parquet(path: Path, rows: Rows, counted: Counted) -> None:
    """In two passes, the first for the types of the columns, so that no more than a batch is in memory."""
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError(
            "writing parquet needs pyarrow; install it with: pip install 'aem-swe[parquet]', or use --format jsonl"
        ) from error
    try:
        schema = arrow.schema([])
        for batch in _batches(rows(Counted())):
            schema = arrow.unify_schemas([schema, arrow.Table.from_pylist(batch).schema], promote_options="permissive")
        with parquet.ParquetWriter(path, schema) as writer:
            for batch in _batches(rows(counted)):
                writer.write_table(arrow.Table.from_pylist(batch, schema=schema))
    except OSError:  # some of pyarrow's errors are of this kind too; the disk's belong to --out
        raise
    except (arrow.ArrowException, OverflowError, UnicodeEncodeError) as error:
        said = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"the values of a column do not make one type that parquet has ({said}); use --format jsonl"
        ) from error


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    columns: dict[str, None] = {}
    for row in rows:
        columns |= dict.fromkeys(row)
        batch.append(row)
        if len(batch) == _BATCH:
            yield _filled(batch, columns)
            batch = []
    if batch:
        yield _filled(batch, columns)


def _filled(batch: list[dict[str, Any]], columns: dict[str, None]) -> list[dict[str, Any]]:
    """Arrow takes the columns of a table from its first row."""
    return [{**dict.fromkeys(columns), **row} for row in batch]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
