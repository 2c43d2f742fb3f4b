"""The run folder: whole files or none, torn lines, rewinding, and the manifest."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aem_swe.errors import RunError
from aem_swe.metrics import RunFolder, hash_files, manifest, read_rows, write_atomically
from aem_swe.progress import line
from aem_swe.resources import resource


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    made = RunFolder(tmp_path / "run")
    with made.locked():
        made.create("seed: 1\n", {"seed": 1})
        yield made


def test_a_folder_belongs_to_one_process_at_a_time(folder: RunFolder) -> None:
    with pytest.raises(RunError, match="is in use by another process"), RunFolder(folder.path).locked():
        pass


def test_a_folder_is_started_with_its_first_row(folder: RunFolder) -> None:
    assert (folder.path / "config.yaml").read_text() == "seed: 1\n"
    assert json.loads((folder.path / "manifest.json").read_text()) == {"seed": 1}
    assert not folder.started
    assert folder.last_step() == 0
    folder.append({"step": 0})
    folder.append({"step": 1, "critic/rewards/mean": 0.25})
    assert folder.started
    assert folder.last_step() == 1
    assert (folder.path / "metrics.jsonl").read_text() == '{"step": 0}\n{"step": 1, "critic/rewards/mean": 0.25}\n'


def test_writing_replaces_a_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["file"]


def test_what_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"missing/file cannot be written \(No such file or directory\); free space or"):
        write_atomically(tmp_path / "missing" / "file", b"")
    (tmp_path / "there").mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        write_atomically(tmp_path / "there", b"")
    assert os.listdir(tmp_path) == ["there"]


def test_a_row_for_a_full_disk_is_one_line(folder: RunFolder) -> None:
    (folder.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"metrics.jsonl cannot be written \(No space left on device\); free space, the"):
        folder.append({"step": 1})


def test_a_row_without_a_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"metrics.jsonl cannot be written \(No such file"):
        RunFolder(tmp_path / "none").append({"step": 1})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_know_is_never_written(folder: RunFolder, bad: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.append({"step": 1, "loss": bad})
    assert read_rows(folder.path / "metrics.jsonl") == []


ROWS = st.lists(st.dictionaries(st.text(max_size=3), st.integers() | st.floats(allow_nan=False, allow_infinity=False)))


@given(rows=ROWS, cut=st.integers(0, 40))
def test_a_torn_end_loses_the_torn_row_only(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, float]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    path.write_bytes(data[: len(data) - cut] if cut else data)
    whole = data[: len(data) - cut].count(b"\n") if cut else len(rows)
    got = read_rows(path)
    assert got[:whole] == rows[:whole]
    assert len(got) - whole in (0, 1)  # without its newline a last row may still be whole


def test_rewinding_forgets_what_came_later(folder: RunFolder) -> None:
    for step in range(4):
        folder.append({"step": step})
        folder.write_trajectories(f"step_{step:06d}", [{"task_id": "t"}])
    folder.write_trajectories("eval_000002", [])
    folder.write_trajectories("eval_000003", [])
    folder.rewind(2)
    assert [row["step"] for row in read_rows(folder.path / "metrics.jsonl")] == [0, 1, 2]
    assert sorted(path.stem for path in (folder.path / "trajectories").iterdir()) == [
        "eval_000002", "step_000000", "step_000001", "step_000002",
    ]  # fmt: skip
    folder.rewind(-1)
    assert read_rows(folder.path / "metrics.jsonl") == []
    assert list((folder.path / "trajectories").iterdir()) == []


def test_trajectories_stay_ascii_so_that_no_terminal_obeys_them(folder: RunFolder) -> None:
    folder.write_trajectories("step_000001", [{"text": "\x1b[31mred\u202e\N{SNOWMAN}"}])
    data = (folder.path / "trajectories" / "step_000001.jsonl").read_bytes()
    assert data.isascii()
    assert b"\x1b" not in data
    assert json.loads(data)["text"] == "\x1b[31mred\u202e\N{SNOWMAN}"


def test_hashes_follow_contents_and_names_not_places(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for place in (one, other):
        place.mkdir()
        (place / "a").write_bytes(b"1")
        (place / "b").write_bytes(b"2")
    same = hash_files(one.iterdir())
    assert hash_files(sorted(other.iterdir(), reverse=True)) == same
    (other / "b").write_bytes(b"3")
    assert hash_files(other.iterdir()) != same


def test_the_manifest_names_versions_hashes_and_the_seed() -> None:
    policy, agent = resource("agents", "demo/policy"), resource("agents", "demo")
    made = manifest(recipe="demo", seed=3, model_folder=policy, agent_folder=agent)
    assert (made["recipe"], made["seed"]) == ("demo", 3)
    assert made["versions"]["torch"]
    assert made == manifest(recipe="demo", seed=3, model_folder=policy, agent_folder=agent)
    assert len({made["model_sha256"], made["tokenizer_sha256"], made["agent_sha256"]}) == 3


def test_one_plain_line_a_step() -> None:
    row = {
        "step": 3, "critic/rewards/mean": 0.25, "actor/entropy": 0.5, "rollout/truncation_rate": 0.125,
        "aem/alpha_positive_mean": 1.02, "aem/alpha_negative_mean": 0.9, "val/pass@1": 0.5, "timing_s/step": 2.25,
    }  # fmt: skip
    assert line(Path("runs/x"), 40, row) == (
        "x step 3/40  reward 0.250  entropy 0.500  truncated 12%  alpha +1.020 -0.900  held-out 0.500  2.2 s"
    )
    assert line(Path("x"), 4, {"step": 1}) == "x step 1/4  reward -  entropy -  truncated -  - s"
    assert line(Path("x"), 4, {"step": 0, "val/pass@1": 0.25, "val/episodes": 8}) == (
        "x step 0/4 held-out 0.250 (8 episodes)"
    )
