"""`aem-swe data pull`: rows and their manifest, from a local copy and from a hub on this machine."""

import hashlib
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Ended
from hub_server import SHA, hub
from r2e_rows import make_row

from aem_swe.tasks.hub import DATA_SETS
from aem_swe.tasks.pull import pull as bring
from aem_swe.tasks.rows import read_rows
from aem_swe.tasks.source import Source, load

SWE_ROW = {
    "instance_id": "psf__requests-1", "repo": "psf/requests", "base_commit": "0" * 40, "version": "1.0",
    "problem_statement": "It is broken.", "hints_text": "", "FAIL_TO_PASS": '["tests/test_a.py::test_a"]',
    "PASS_TO_PASS": "[]",
    "patch": "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+y\n",
    "test_patch": "diff --git a/tests/test_a.py b/tests/test_a.py\n--- a/tests/test_a.py\n+++ b/tests/test_a.py\n"
    "@@ -1 +1 @@\n-x\n+y\n",
}  # fmt: skip


def rows(*repositories: str) -> list[dict[str, Any]]:
    return [make_row(repo_name=name, commit_hash=f"{number:040d}") for number, name in enumerate(repositories)]


def write(folder: Path, content: list[Any], name: str = "copy.jsonl") -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        arrow = pytest.importorskip("pyarrow", reason="pyarrow is missing: pip install 'aem-swe[parquet]'")
        from pyarrow import parquet

        parquet.write_table(arrow.Table.from_pylist(content), path)
    else:
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in content))
    return path


def manifest(folder: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return about


@pytest.fixture
def pull(invoke: Callable[..., Ended]) -> Callable[..., Ended]:
    return lambda *words: invoke("data", "pull", *map(str, words))


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@pytest.mark.parametrize("name", ["copy.jsonl", "copy.parquet"])
def test_rows_come_out_as_they_went_in_and_a_recipe_can_read_them(
    pull: Callable[..., Ended], tmp_path: Path, form: str, name: str
) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is missing: pip install 'aem-swe[parquet]'")
    given = rows("tiny", "small")
    ended = pull("r2e-gym", "--from", write(tmp_path, given, name), "--out", tmp_path / "out", "--format", form)
    assert (ended.code, ended.err) == (0, "")
    path = tmp_path / "out" / f"rows.{form}"
    assert list(read_rows(path)) == given
    assert [problem.task.id for problem in load(Source(str(path))).problems] == [
        "tiny__000000000000",
        "small__000000000000",
    ]
    assert f"wrote 2 rows: data.source={path}" in ended.out
    about = manifest(tmp_path / "out")
    assert about["rows"] == {
        "read": 2, "unusable": 0, "usable": 2, "without_repositories_of_verified": 2, "written": 2
    }  # fmt: skip
    assert about["columns"] == list(given[0])
    assert about["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    copy = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert about["source"] == {"file": name, "sha256": copy}
    assert about["licence"].startswith("not stated")
    assert sorted(item.name for item in (tmp_path / "out").iterdir()) == ["manifest.json", f"rows.{form}"]


def test_the_default_folder_is_the_one_that_the_recipes_name(pull: Callable[..., Ended], tmp_path: Path) -> None:
    from aem_swe.config import load_recipe

    pytest.importorskip("pyarrow", reason="pyarrow is missing: pip install 'aem-swe[parquet]'")
    assert pull("r2e-gym", "--from", write(tmp_path, rows("tiny"))).code == 0
    assert pull("swe-bench-verified", "--from", write(tmp_path, [SWE_ROW], "swe.jsonl")).code == 0
    recipe = load_recipe("deepswe")
    assert (tmp_path / recipe.data.source).is_file() and (tmp_path / recipe.data.held_out).is_file()
    assert load(Source(recipe.data.held_out)).problems[0].task.id == "psf__requests-1"


def test_deepswes_filter_is_counted_always_and_applied_on_request(pull: Callable[..., Ended], tmp_path: Path) -> None:
    copy = write(tmp_path, rows("tiny", "sympy", "requests", "Sympy", "numpy"))
    for extra, written in (([], 5), (["--leave-out-verified"], 2)):
        out = tmp_path / f"out{written}"
        assert pull("r2e-gym", "--from", copy, "--out", out, "--format", "jsonl", *extra).code == 0
        about = manifest(out)
        assert about["rows"]["without_repositories_of_verified"] == 2
        assert about["rows"]["written"] == written == len(list(read_rows(out / "rows.jsonl")))
        assert about["repositories_of_verified"] == {"Sympy": 1, "requests": 1, "sympy": 1}
        assert about["verified_left_out"] is bool(extra)


def test_rows_that_are_no_tasks_are_named_and_left_out(pull: Callable[..., Ended], tmp_path: Path) -> None:
    good = rows("tiny")[0]
    broken = make_row(commit_hash="1" * 40, expected_output_json="{")
    copy = write(tmp_path, [good, "no json", broken, good, "[1]"])
    ended = pull("r2e-gym", "--from", copy, "--out", tmp_path / "out", "--format", "jsonl")
    about = manifest(tmp_path / "out")
    assert (about["rows"]["read"], about["rows"]["unusable"], about["rows"]["written"]) == (5, 4, 1)
    names = [bad["id"] for bad in about["unusable"]]
    assert names == ["copy.jsonl:2", "1" * 40, "tiny__000000000000", "copy.jsonl:5"]
    assert "left out copy.jsonl:2: the line is no JSON" in ended.out
    assert about["unusable"][2]["reason"] == "another row before it has the same id"


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ([SWE_ROW], ["r2e-gym"], "none of 1 rows is a task of r2e-gym; the first: psf__requests-1: column 'repo_name'"),
        ([], ["r2e-gym"], "none of 0 rows is a task of r2e-gym; name its own rows"),
        (rows("sympy"), ["r2e-gym", "--leave-out-verified"], "all 1 tasks are of repositories of SWE-bench Verified"),
        (rows("tiny"), ["r2e-gym", "--revision", "main"], "--revision 'main' is of the hub and --from names a local"),
        ([*rows("tiny"), make_row(commit_hash="9" * 40, prompt=3)], ["r2e-gym"], "do not make one type"),
    ],
)
def test_a_failure_is_one_line_and_leaves_nothing(
    pull: Callable[..., Ended], tmp_path: Path, content: list[Any], words: list[str], message: str
) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is missing: pip install 'aem-swe[parquet]'")
    ended = pull(*words, "--from", write(tmp_path, content), "--out", tmp_path / "a" / "out")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert message in ended.err
    assert not (tmp_path / "a").exists() or list((tmp_path / "a").iterdir()) == []


def test_a_copy_that_is_not_there_is_one_line(pull: Callable[..., Ended], tmp_path: Path) -> None:
    ended = pull("r2e-gym", "--from", tmp_path / "nowhere.parquet")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "are not there" in ended.err
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").iterdir())


def test_nothing_is_overwritten(pull: Callable[..., Ended], tmp_path: Path) -> None:
    copy = write(tmp_path, rows("tiny"))
    (tmp_path / "out").mkdir()
    assert pull("r2e-gym", "--from", copy, "--out", tmp_path / "out", "--format", "jsonl").code == 0  # it was empty
    before = (tmp_path / "out" / "rows.jsonl").stat()
    for taken in (tmp_path / "out", copy):
        ended = pull("r2e-gym", "--from", copy, "--out", taken, "--format", "jsonl")
        assert ended.code == 2 and "is there already and is not overwritten" in ended.err
    assert (tmp_path / "out" / "rows.jsonl").stat() == before


def test_a_link_to_a_free_place_stays_and_leads_to_the_rows(pull: Callable[..., Ended], tmp_path: Path) -> None:
    copy = write(tmp_path, rows("tiny"))
    (tmp_path / "empty").mkdir()
    for name, target in (("a", "empty"), ("b", "not/there")):
        (tmp_path / name).symlink_to(target)
        assert pull("r2e-gym", "--from", copy, "--out", tmp_path / name, "--format", "jsonl").code == 0
        assert (tmp_path / name).is_symlink() and (tmp_path / target / "rows.jsonl").is_file()
    assert (tmp_path / "not" / "there").stat().st_mode == (tmp_path / "not").stat().st_mode


def test_what_cannot_be_written_is_told_before_the_fetch(
    pull: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aem_swe.tasks.pull.fetch", lambda *_, **__: pytest.fail("fetched for nothing"))
    (tmp_path / "file").write_text("")
    (tmp_path / "here").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path / "here")
    for out in ("../file", "../file/x", "x" * 300, "x/" + "y" * 300, ".", "../loop", "/proc/none/x"):
        ended = pull("r2e-gym", "--out", out)
        assert (ended.code, ended.err.count("\n")) == (2, 1), out
        assert f"--out {out!r} " in ended.err
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize(
    "value", ["12345678901234567890", '"\\ud800"', "{}"], ids=["a large number", "half a character", "no fields"]
)
def test_what_parquet_has_no_type_for_is_one_line_and_json_takes_it(
    pull: Callable[..., Ended], tmp_path: Path, value: str
) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is missing: pip install 'aem-swe[parquet]'")
    row = json.dumps(make_row(extra="HERE")).replace('"HERE"', value)
    copy = write(tmp_path, [row])
    ended = pull("r2e-gym", "--from", copy, "--out", tmp_path / "out")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "do not make one type that parquet has" in ended.err and "use --format jsonl" in ended.err
    assert [item.name for item in tmp_path.iterdir()] == ["copy.jsonl"]
    assert pull("r2e-gym", "--from", copy, "--out", tmp_path / "out", "--format", "jsonl").code == 0
    assert list(read_rows(tmp_path / "out" / "rows.jsonl")) == [json.loads(row)]


def test_rows_that_cannot_be_read_are_one_line(pull: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jsonl").symlink_to("/proc/self/mem")  # its first byte is an error
    for source in ("folder", "folder/a.jsonl", "x" * 300 + ".jsonl"):
        ended = pull("r2e-gym", "--from", source, "--out", "out")
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert ended.err.startswith(f"aem-swe: rows '{source}"), ended.err
    assert [item.name for item in tmp_path.iterdir()] == ["folder"]


def test_ctrl_c_leaves_nothing(start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path) -> None:
    row = json.dumps(make_row())
    copy = tmp_path / "large.jsonl"
    copy.write_text("".join(row.replace("0123456789abcdef", f"{number:016d}") + "\n" for number in range(30_000)))
    process = start("data", "pull", "r2e-gym", "--from", str(copy), "--out", str(tmp_path / "out"), "--format", "jsonl")
    begun = time.monotonic()
    while not list(tmp_path.glob(".out.*.partial/out/rows.jsonl")):
        assert process.poll() is None and time.monotonic() - begun < 60
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert [item.name for item in tmp_path.iterdir()] == ["large.jsonl"]


@pytest.mark.parametrize("licence", ["mit", None])
def test_the_hub_is_asked_for_the_split_and_named_with_its_revision(
    run: Callable[..., Ended], tmp_path: Path, licence: str | None
) -> None:
    parts = {
        f"data/train-0000{number}-of-00002.parquet": write(tmp_path, rows(name), f"{name}.parquet").read_bytes()
        for number, name in enumerate(("tiny", "small"))
    }
    files = {**parts, "data/test-00000-of-00001.parquet": b"not asked for", "README.md": b""}
    with hub("R2E-Gym/R2E-Gym-Subset", files, licence=licence) as address:
        home = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        ended = run("data", "pull", "r2e-gym", "--out", "out", "--revision", "main", env=home)
    assert (ended.code, ended.err) == (0, "")
    assert f"R2E-Gym/R2E-Gym-Subset@{SHA[:8]}: data/train-00000-of-00002.parquet" in ended.out
    about = manifest(tmp_path / "out")
    assert about["source"] == {"hub": "R2E-Gym/R2E-Gym-Subset", "revision": SHA, "split": "train"}
    assert about["licence"] == (licence or "not stated; see the data set's page")
    assert [row["repo_name"] for row in read_rows(tmp_path / "out/rows.parquet") if isinstance(row, dict)] == [
        "tiny",
        "small",
    ]


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "with another data set"])
def test_a_hub_that_does_not_have_it_or_does_not_answer_is_one_line(
    run: Callable[..., Ended], tmp_path: Path, address: str
) -> None:
    with hub("somebody/else", {}, licence=None) as other:
        home = {"HF_ENDPOINT": address if address.startswith("http") else other, "HF_HOME": str(tmp_path / "home")}
        ended = run("data", "pull", "swe-bench-verified", env=home | {"HF_HUB_OFFLINE": "0"})
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "SWE-bench/SWE-bench_Verified cannot be fetched from the Hugging Face hub" in ended.err
    assert ended.err.rstrip().endswith("give a copy of its rows with --from FILE")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("address", ["http://[::1", "http://a:b"])
def test_an_address_of_the_hub_that_is_none_is_one_line(
    run: Callable[..., Ended], tmp_path: Path, address: str
) -> None:
    home = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    ended = run("data", "pull", "r2e-gym", env=home)
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
    assert not (tmp_path / "data").exists()


def test_a_data_set_without_files_of_the_split_is_one_line(tmp_path: Path, run: Callable[..., Ended]) -> None:
    with hub("R2E-Gym/R2E-Gym-Subset", {"README.md": b""}, licence="mit") as address:
        home = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        ended = run("data", "pull", "r2e-gym", env=home)
    assert ended.code == 2 and "has no parquet files of its split 'train'" in ended.err


def test_other_data_sets_are_refused_with_the_list(pull: Callable[..., Ended]) -> None:
    ended = pull("gsm8k")
    assert ended.code == 2 and "'r2e-gym', 'swe-bench-verified'" in ended.err


def test_a_date_survives_as_text(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is missing: pip install 'aem-swe[parquet]'")
    import datetime

    from pyarrow import parquet

    dated = [make_row(when=datetime.datetime(2025, 7, 1, 12, 30), raw=b"\xff")]
    parquet.write_table(arrow.Table.from_pylist([{**dated[0], "raw": None}]), tmp_path / "a.parquet")
    bring(DATA_SETS["r2e-gym"], tmp_path / "out", source=tmp_path / "a.parquet", form="jsonl")
    (row,) = read_rows(tmp_path / "out" / "rows.jsonl")
    assert isinstance(row, dict) and row["when"] == "2025-07-01T12:30:00"
    parquet.write_table(arrow.Table.from_pylist(dated), tmp_path / "b.parquet")
    from aem_swe.errors import ConfigError

    with pytest.raises(ConfigError, match=r"row 1 is no JSON \(a bytes\); use --format parquet"):
        bring(DATA_SETS["r2e-gym"], tmp_path / "out2", source=tmp_path / "b.parquet", form="jsonl")
    assert not (tmp_path / "out2").exists()
