"""Runs that end in the middle: killed, interrupted, out of disk, or with a broken folder; and what --resume makes of
them."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import Ended
from processes import alive, descendants, within
from small_runs import SMALL, metrics, same_weights, train, weights

from aem_swe.errors import ConfigError, RunError
from aem_swe.metrics import RunFolder

Start = Callable[..., "subprocess.Popen[str]"]
QUICK = ("agent.max_steps=1", "trainer.eval_every=0")
"""One turn an episode: nothing is learnt, for tests that are not about learning."""


def resumed_equals(run_dir: Path, whole: Path, *overrides: str) -> None:
    train(run_dir, *overrides, resume=True)
    assert metrics(run_dir) == metrics(whole)
    assert same_weights(run_dir, whole)
    for path in sorted((whole / "trajectories").iterdir()):
        assert (run_dir / "trajectories" / path.name).read_bytes() == path.read_bytes()


def kill_after(start: Start, run_dir: Path, line: str, delay: float, *overrides: str) -> set[int]:
    """Start a run, wait for a line that starts like `line`, and kill the trainer alone, as the kernel would."""
    process = start("train", "demo", *SMALL, f"run_dir={run_dir}", *overrides)
    assert process.stdout
    while not process.stdout.readline().startswith(line):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
    time.sleep(delay)
    below = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return below


def test_kill_9_in_the_middle_of_a_step_and_resume_equal_an_undisturbed_run(
    start: Start, tmp_path: Path, whole: Path
) -> None:
    below = kill_after(start, tmp_path / "run", "run step 1/2", 0.3)
    assert below  # the sandboxes
    assert within(10, lambda: not any(alive(pid) for pid in below))
    assert [row["step"] for row in metrics(tmp_path / "run")] == [0, 1]
    resumed_equals(tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.7, 1.5])
def test_kill_9_at_other_moments(start: Start, tmp_path: Path, whole: Path, delay: float) -> None:
    kill_after(start, tmp_path / "run", "run step 1/2", delay)
    resumed_equals(tmp_path / "run", whole)


@pytest.mark.slow
def test_kill_9_before_the_first_checkpoint_starts_over(start: Start, tmp_path: Path, whole: Path) -> None:
    kill_after(start, tmp_path / "run", "run step 0/2", 0.3)
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    resumed_equals(tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [1, 2])
def test_a_run_that_died_between_its_checkpoint_and_its_row_loses_no_row(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    run_dir, append = tmp_path / "run", RunFolder.append

    def die(folder: RunFolder, row: dict[str, object]) -> None:
        if row["step"] == 2:
            raise KeyboardInterrupt
        append(folder, row)

    monkeypatch.setattr(RunFolder, "append", die)
    with pytest.raises(KeyboardInterrupt):
        train(run_dir, f"trainer.keep_checkpoints={keep}")
    monkeypatch.undo()
    assert (run_dir / "checkpoints" / "step_000002").is_dir()
    train(run_dir, f"trainer.keep_checkpoints={keep}", resume=True)
    assert metrics(run_dir) == metrics(whole)
    assert same_weights(run_dir, whole)


def test_a_torn_last_row_is_written_again(tmp_path: Path, whole: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    torn = (run_dir / "metrics.jsonl").read_bytes()
    (run_dir / "metrics.jsonl").write_bytes(torn[:-30])
    resumed_equals(run_dir, whole)


def test_half_written_checkpoints_are_removed_and_never_loaded(tmp_path: Path, whole: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    (run_dir / "checkpoints" / ".step_000003.tmp").mkdir()
    (run_dir / "checkpoints" / ".step_000003.tmp" / "model.safetensors").write_bytes(b"half")
    train(run_dir, resume=True)
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["step_000001", "step_000002"]


def test_a_finished_run_resumes_to_nothing(tmp_path: Path, whole: Path, invoke: Callable[..., Ended]) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    ended = invoke("train", "demo", *SMALL, f"run_dir={run_dir}", "--resume")
    assert (ended.code, ended.err) == (0, "")
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


def test_more_steps_continue_a_finished_run(tmp_path: Path, whole: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    train(run_dir, "trainer.steps=3", resume=True)
    assert metrics(run_dir)[:3] == metrics(whole)
    assert [row["step"] for row in metrics(run_dir)] == [0, 1, 2, 3]
    assert not all((weights(run_dir, 3)[key] == value).all() for key, value in weights(run_dir, 2).items())


@pytest.mark.parametrize(
    "change",
    ["seed=2", "aem.enabled=true", "aem.lambda=2", "optimizer.lr=1e-3", "model.path=elsewhere", "data.seed=16"],
)
def test_a_run_resumes_with_its_own_settings_only(tmp_path: Path, whole: Path, change: str) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    before = (run_dir / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"was started with other settings than .*; resume without them or"):
        train(run_dir, change, resume=True)
    assert (run_dir / "metrics.jsonl").read_bytes() == before


def test_a_run_dir_in_use_is_left_alone(tmp_path: Path, whole: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    before = (run_dir / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"holds a run already; continue it with --resume or choose another run_dir"):
        train(run_dir)
    assert (run_dir / "metrics.jsonl").read_bytes() == before


def test_resume_of_a_run_that_never_started_starts_it(tmp_path: Path) -> None:
    train(tmp_path / "run", *QUICK, "trainer.steps=1", resume=True)
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1]


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("name", ["trainer_state.json", "trainer_state.pt", "model.safetensors", "config.json"])
@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_broken_checkpoint_is_one_line_that_names_it(
    tmp_path: Path, whole: Path, invoke: Callable[..., Ended], name: str, damage: Callable[[Path], object]
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    damage(run_dir / "checkpoints" / "step_000002" / name)
    ended = invoke("train", "demo", *SMALL, "trainer.steps=3", f"run_dir={run_dir}", "--resume")
    assert ended.code == 2
    assert "checkpoints/step_000002" in ended.err
    assert ended.err.count("\n") == 1


def test_without_its_newest_checkpoint_a_run_resumes_from_the_one_before(tmp_path: Path, whole: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    shutil.rmtree(run_dir / "checkpoints" / "step_000002")
    resumed_equals(run_dir, whole)


@pytest.mark.parametrize("damage", [Path.unlink, lambda p: p.write_bytes(b"\xff\0"), lambda p: p.write_text("a: [1")])
def test_a_run_without_its_config_is_one_line(
    tmp_path: Path, whole: Path, invoke: Callable[..., Ended], damage: Callable[[Path], object]
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    damage(run_dir / "config.yaml")
    ended = invoke("train", "demo", *SMALL, f"run_dir={run_dir}", "--resume")
    assert ended.code == 2
    assert "config.yaml cannot be used" in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_leaves_no_process_and_no_temporary_folder(
    start: Start, tmp_path: Path, sent: signal.Signals
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    overrides = ("run_dir=run", "trainer.steps=40", "trainer.eval_every=0")
    process = start("train", "demo_aem", *SMALL, *overrides, env={"TMPDIR": str(temporary)})
    assert process.stdout
    assert process.stdout.readline().startswith("run step 1/40")
    time.sleep(0.2)
    below = descendants(process.pid)
    assert below
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "aem-swe: interrupted; continue a training run with --resume\n"
    assert not [pid for pid in below if alive(pid)]
    assert list(temporary.iterdir()) == []
    assert metrics(tmp_path / "run")[0]["step"] == 1


def torch_is_loading(pid: int) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def a_process_was_started(pid: int) -> bool:
    return bool(descendants(pid))


@pytest.mark.slow
@pytest.mark.parametrize("later", [0.0, 0.4])
@pytest.mark.parametrize("moment", [torch_is_loading, a_process_was_started])
def test_an_interrupt_at_any_moment_leaves_nothing(
    start: Start, tmp_path: Path, moment: Callable[[int], bool], later: float
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = start("train", "demo", *SMALL, "run_dir=run", "trainer.steps=40", env={"TMPDIR": str(temporary)})
    assert within(120, lambda: moment(process.pid))
    time.sleep(later)
    below = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (130, "aem-swe: interrupted; continue a training run with --resume\n")
    assert not [pid for pid in below if alive(pid)]
    assert list(temporary.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """small_disk("1m") -> a folder on a file system of that size; a second call makes it larger."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: str) -> Path:
        options = f"size={size}" + (",remount" if place.is_mount() else "")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True)
        if done.returncode:
            pytest.skip(f"needs to mount a small tmpfs: run as root ({done.stderr.decode().strip()})")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(
    ("size", "what"),
    [
        ("4k", "manifest.json"),
        ("8k", "trajectories"),
        ("1m", "checkpoint"),
        ("4m", "checkpoint"),  # room for the weights, not for the optimiser
    ],
)
def test_a_full_disk_is_one_line(
    small_disk: Callable[[str], Path], invoke: Callable[..., Ended], size: str, what: str
) -> None:
    ended = invoke("train", "demo", *SMALL, "trainer.eval_every=0", f"run_dir={small_disk(size) / 'run'}")
    assert ended.code == 2
    assert what in ended.err
    assert "free space" in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.slow
def test_once_there_is_room_a_run_goes_on_as_if_the_disk_had_never_been_full(
    small_disk: Callable[[str], Path], whole: Path
) -> None:
    run_dir = small_disk("4m") / "run"
    with pytest.raises(RunError, match=r"checkpoint .* cannot be written"):
        train(run_dir)
    small_disk("64m")
    resumed_equals(run_dir, whole)


@pytest.mark.parametrize("place", ["a file", "/proc/none"])
def test_a_run_dir_that_cannot_be_made_is_one_line(tmp_path: Path, invoke: Callable[..., Ended], place: str) -> None:
    (tmp_path / "a file").write_text("")
    ended = invoke("train", "demo", *SMALL, *QUICK, f"run_dir={place}")
    assert ended.code == 2
    assert ended.err.startswith(f"aem-swe: run_dir {place!r} cannot be made (")
    assert ended.err.count("\n") == 1
