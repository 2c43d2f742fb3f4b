"""Where a run on a cluster can go on, and what its end says. No rllm needed."""

from pathlib import Path

import pytest

from aem_swe.engines.rllm.outcome import in_one_line, last_checkpoint
from aem_swe.engines.rllm.twins import require_first
from aem_swe.errors import ClusterError, ConfigError, RunError
from aem_swe.metrics import RunFolder


def folder_with(tmp_path: Path, *steps: int, note: bytes | None = None) -> RunFolder:
    for step in steps:
        (tmp_path / "checkpoints" / f"global_step_{step}").mkdir(parents=True)
    if note is not None:
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_bytes(note)
    return RunFolder(tmp_path)


def test_the_note_says_where_a_run_goes_on(tmp_path: Path) -> None:
    assert last_checkpoint(folder_with(tmp_path, 10, 20, note=b"10\n")) == 10


def test_a_run_without_a_checkpoint_starts_over(tmp_path: Path) -> None:
    assert last_checkpoint(folder_with(tmp_path)) == 0


@pytest.mark.parametrize("note", [b"30", b"", b"abc", b"-1", b"\xff\xfe", b"9" * 6000, "²".encode()])
def test_a_note_of_nothing_that_is_there_is_refused(tmp_path: Path, note: bytes) -> None:
    with pytest.raises(RunError, match="which is not there; restore it") as raised:
        last_checkpoint(folder_with(tmp_path, 10, note=note))
    assert "\n" not in str(raised.value)


def test_a_lost_note_does_not_start_a_run_over(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is missing and global_step_7 is there"):
        last_checkpoint(folder_with(tmp_path, 7))


def test_what_failed_far_away_is_our_own_line_or_names_the_process() -> None:
    class Wrapped(RunError):
        """As Ray makes them: of the class of what they wrap, with a traceback for a message."""

        def __init__(self, cause: Exception) -> None:
            super().__init__("\x1b[36mray::run()\n  File x\n")
            self.cause = cause

    ours = in_one_line(Wrapped(RunError("no episode could be played; mend that")))
    assert type(ours) is RunError and str(ours) == "no episode could be played; mend that"
    theirs = in_one_line(RuntimeError("The actor died.\n\tclass_name: WorkerDict\n\tpid: 7"))
    assert isinstance(theirs, ClusterError)
    assert "RuntimeError: The actor died. class_name: WorkerDict pid: 7" in str(theirs) and "\n" not in str(theirs)


@pytest.mark.parametrize(
    "key", ["aem.enabled", "+aem.foo", "~aem", "trainer.default_local_dir", "+model.name", "+ray_init.address"]
)
def test_what_is_the_recipes_to_set_cannot_be_set_behind_its_back(key: str) -> None:
    with pytest.raises(ConfigError, match="which is the recipe's own to set; use "):
        require_first({key: 1})
    require_first({"+ray_init.num_cpus": 8, "trainer.nnodes": 2})
