"""Rows from files: good ones, bad ones beside them, and files that are no rows at all."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from aem_swe.errors import ConfigError, TaskError
from aem_swe.tasks.rows import VERIFIED_REPOSITORIES, BadRow, decoded, leave_out, read_rows, text

SHARED = Path(__file__).resolve().parents[3] / "shared/data"


def test_lines_and_lists_and_folders(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    (tmp_path / "a.json").write_text('[{"a": 0}]')
    (tmp_path / "README.md").write_text("not rows")
    assert list(read_rows(tmp_path / "b.jsonl")) == [{"a": 1}, {"a": 2}]
    assert list(read_rows(str(tmp_path))) == [{"a": 0}, {"a": 1}, {"a": 2}]


def test_a_bad_line_is_reported_with_its_place_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n{"a": \n[1]\n\xff\n' + b"[" * 100_000 + b'\n{"a": 2}\n')
    first, broken, listed, binary, deep, last = read_rows(tmp_path / "x.jsonl")
    assert (first, last) == ({"a": 1}, {"a": 2})
    assert isinstance(broken, BadRow) and broken.id == "x.jsonl:2" and broken.reason.startswith("the line is no JSON")
    assert listed == BadRow("x.jsonl:3", "the line holds no JSON object")
    assert isinstance(binary, BadRow) and isinstance(deep, BadRow)


def test_entries_of_a_list_that_are_no_rows_are_bad(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('[{"a": 1}, 3]')
    assert list(read_rows(tmp_path / "x.json")) == [{"a": 1}, BadRow("x.json[1]", "the entry is no JSON object")]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.json", "{", "cannot be read as JSON"),
        ("x.json", '{"a": 1}', "should hold a list of rows and holds a dict"),
        ("x.csv", "a", "the name has to end in one of"),
        ("none/x.json", None, "are not there"),
    ],
)
def test_files_that_are_no_rows(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=said):
        list(read_rows(tmp_path / name))


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no rows"):
        list(read_rows(tmp_path))


def test_parquet_without_its_reader_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"needs pyarrow; install it with: pip install 'aem-swe\[parquet\]'"):
        list(read_rows(tmp_path / "x.parquet"))


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow: pip install 'aem-swe[parquet]'")
def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"a": list(range(200)), "b": ["x"] * 200, "c": [[1]] * 200})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet", row_group_size=70)
    rows = list(read_rows(tmp_path / "x.parquet", columns=["a", "c", "not there"]))
    assert rows == [{"a": number, "c": [1]} for number in range(200)]
    (tmp_path / "y.parquet").write_bytes(b"no parquet")
    with pytest.raises(ConfigError, match="cannot be read as parquet"):
        list(read_rows(tmp_path / "y.parquet"))


def test_repositories_can_be_left_out_by_either_name() -> None:
    rows = [{"repo_name": "sympy"}, {"repo_name": "pandas"}, {"repo": "sympy/sympy"}, {"repo": "a/b"}, BadRow("x", "y")]
    kept = [{"repo_name": "pandas"}, {"repo": "a/b"}, BadRow("x", "y")]
    assert list(leave_out(rows, VERIFIED_REPOSITORIES)) == kept
    assert list(leave_out(rows, ["sympy"])) == kept
    assert list(leave_out(rows, [])) == rows


def test_the_repositories_of_verified_are_those_of_its_instances() -> None:
    listed = SHARED / "swe_bench_verified_ids.json"
    if not listed.is_file():
        pytest.skip(f"needs {listed}")
    names = {identity.rpartition("-")[0].replace("__", "/") for identity in json.loads(listed.read_text())}
    assert names == VERIFIED_REPOSITORIES


def test_columns_say_what_is_wrong_with_them() -> None:
    row = {"a": "x", "empty": " ", "number": 3, "json": "[1]", "list": [1], "broken": "{", "deep": "[" * 100_000}
    assert text(row, "a") == "x" and decoded(row, "json", list) == decoded(row, "list", list) == [1]
    for column in ("empty", "number"):
        with pytest.raises(TaskError, match=f"column '{column}' is empty or no text"):
            text(row, column)
    with pytest.raises(TaskError, match="column 'none' is missing"):
        text(row, "none")
    with pytest.raises(TaskError, match="column 'none' should hold a JSON dict and is missing"):
        decoded(row, "none", dict)
    with pytest.raises(TaskError, match="column 'json' should hold a JSON dict and is a list"):
        decoded(row, "json", dict)
    for column in ("broken", "deep"):
        with pytest.raises(TaskError, match=f"column '{column}' is no JSON"):
            decoded(row, column, dict)
