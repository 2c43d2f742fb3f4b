"""The command line as a user sees it: help, versions, mistakes, and what is printed where."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import REPOSITORY, Ended, environment

from aem_swe import __version__, cli
from aem_swe.errors import ConfigError
from aem_swe.resources import resource

Run = Callable[..., Ended]
COMMANDS = ["train", "compare", "warm-start", "doctor"]
TINY = (
    "sampling.prompts=2", "sampling.rollouts=2", "data.pool=2", "trainer.steps=1", "trainer.eval_every=0",
    "agent.max_steps=1",
)  # fmt: skip


def test_the_help_page_tells_a_newcomer_what_to_type(run: Run) -> None:
    ended = run("--help")
    assert ended.code == 0
    assert ended.err == ""
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", ended.out)
    for example in ("aem-swe doctor", "aem-swe train demo", "aem-swe train demo_aem", "aem-swe compare"):
        assert example in ended.out
    assert "Exit codes: 0 done, 1 failed, 2 a mistake" in " ".join(ended.out.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_page_with_a_help_for_every_option(run: Run, command: str) -> None:
    ended = run(command, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert f"{command} [OPTIONS]" in ended.out
    assert len(ended.out.splitlines()) > 8
    options = re.findall(r"^\W*(--[a-z-]+ .*)", ended.out, re.MULTILINE)
    assert options
    assert all(len(option.split()) > 4 for option in options), options


def test_the_pages_say_how_a_cluster_run_begins(run: Run) -> None:
    assert "aem-swe train deepswe_aem --dry-run" in " ".join(run("train", "--help").out.split())
    assert "aem-swe data pull r2e-gym makes data/r2e-gym" in " ".join(run("data", "--help").out.split())


def test_the_version(run: Run) -> None:
    assert run("--version") == Ended(0, f"aem-swe {__version__}\n", "")


def test_no_command_shows_the_page(run: Run) -> None:
    ended = run()
    assert ended.code == 2
    assert "Usage" in ended.out
    assert ended.err == "aem-swe: name a command; the page above says which\n"


MISTAKES = {
    "a command": (["trian"], "No such command 'trian'. Did you mean 'train'?"),
    "an option": (["train", "--resum"], "No such option: --resum"),
    "a recipe": (["train", "dmo"], "recipe 'dmo' is unknown; did you mean 'demo'?"),
    "a recipe file": (["train", "none.yaml"], "recipe 'none.yaml' is unknown; choose one of"),
    "a key": (["train", "demo", "aem.lamda=2"], "key 'aem.lamda' is unknown; did you mean 'aem.lambda'?"),
    "lambda": (["train", "demo_aem", "aem.lambda=-0.5"], "aem.lambda -0.5 is not usable: input should be greater"),
    "a group of one": (["train", "demo", "sampling.rollouts=1"], "leaves leave_one_out without a baseline; use 2 or"),
    "a value": (["train", "demo", "trainer.steps"], "override 'trainer.steps' has no value; write key=value"),
    "a type": (["train", "demo", "trainer.steps=many"], "trainer.steps 'many' is not usable: input should be a valid"),
    "runs": (["compare"], "Missing argument"),
    "a run": (["compare", "nowhere"], "run folder 'nowhere' does not exist; give a folder that `aem-swe train` wrote"),
    "a doctor's recipe": (["doctor", "dem"], "recipe 'dem' is unknown; did you mean 'demo'?"),
    "a number of threads": (["warm-start", "--threads", "0"], "Invalid value for '--threads'"),
    "a number of episodes": (["warm-start", "--episodes", "0"], "Invalid value for '--episodes'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(run: Run, tmp_path: Path, mistake: str) -> None:
    arguments, message = MISTAKES[mistake]
    ended = run(*arguments)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("aem-swe: ")
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_tokenizer_is_one_line_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    shutil.copytree(resource("agents", "demo/policy"), tmp_path / "policy")
    (tmp_path / "policy" / "tokenizer.json").unlink()
    ended = run("train", "demo", "model.path=policy")
    assert ended.code == 2
    expected = (
        "aem-swe: model.path 'policy' has no tokenizer; save one there with tokenizer.save_pretrained('policy')\n"
    )
    assert (ended.out, ended.err) == ("", expected)
    assert os.listdir(tmp_path) == ["policy"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.path=nowhere", "model.path 'nowhere' is not a folder; give a Hugging Face checkpoint folder or one of"),
        ("agent.definition=dmo", "agent.definition 'dmo' is unknown; choose one of ["),
    ],
)
def test_a_name_that_leads_nowhere_is_one_line(invoke: Run, tmp_path: Path, override: str, message: str) -> None:
    ended = invoke("train", "demo", *TINY, override)
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["used", "used/file", "/proc/none"])
def test_warm_start_says_before_it_trains_that_its_folder_cannot_be_used(invoke: Run, tmp_path: Path, out: str) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("")
    ended = invoke("warm-start", "--out", out)
    assert ended.code == 2
    assert ended.out == ""
    assert re.fullmatch(
        rf"aem-swe: --out '{out}' (is not empty|cannot be made \(.*\)); choose a new folder\n", ended.err
    )


def test_a_message_of_several_lines_is_one(invoke: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ConfigError("what\n- a remedy\n\tand more")

    monkeypatch.setattr(cli, "load_recipe", fail)
    assert invoke("train", "demo").err == "aem-swe: what; a remedy and more\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_fetch_is_not_told_to_resume_and_cleans_up(
    start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path, number: int
) -> None:
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("these tests run under nohup, and so would the command")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.jsonl").write_text("{}\n" * 2_000_000)
    process = start("data", "pull", "r2e-gym", "--from", "rows", "--out", "new/out", "--format", "jsonl")
    begun = time.monotonic()
    while not list(tmp_path.glob("new/.out.*.partial/out/rows.jsonl")):
        assert process.poll() is None and time.monotonic() - begun < 60
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "aem-swe: interrupted\n")
    assert not (tmp_path / "new").exists()


def test_an_interrupt_inside_generated_code_has_the_usual_exit_code(tmp_path: Path) -> None:
    (tmp_path / "generated.py").write_text(
        "import os, signal\n"
        "from aem_swe import cli\n"
        "cli.app = lambda **_: exec('os.kill(os.getpid(), signal.SIGINT)\\nfor _ in range(9): pass')\n"
        "cli.main()\n"
    )
    command = [sys.executable, "-m", "generated"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (130, "aem-swe: interrupted\n")


def test_plain_lines_where_nobody_looks(run: Run, tmp_path: Path) -> None:
    ended = run("train", "demo_aem", *TINY, "run_dir=a run")
    assert ended.code == 0, ended.err
    assert ended.err == ""
    first, last = ended.out.splitlines()
    assert re.fullmatch(
        r"a run step 1/1  reward \d\.\d{3}  entropy \d\.\d{3}  truncated \d+%(  alpha \S+ \S+)?  \d+\.\d s", first
    )
    assert last == "done: a run (metrics.jsonl, trajectories, checkpoints)"
    assert "\x1b" not in ended.out


def on_a_terminal(*arguments: str, folder: Path) -> tuple[int, str]:
    """Run the command on a terminal of its own; returns the exit code and what was drawn."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "aem_swe.cli", *arguments]
    process = subprocess.Popen(
        command, cwd=folder, env=environment() | {"TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    drawn = b""
    while select.select([ours], [], [], 120)[0]:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the last writer has gone
            break
        drawn += data
    os.close(ours)
    return process.wait(60), drawn.decode(errors="replace")


@pytest.mark.slow
def test_a_terminal_gets_a_table_that_is_redrawn_unless_plain_is_asked_for(tmp_path: Path) -> None:
    code, drawn = on_a_terminal("train", "demo_aem", *TINY, "run_dir=a", folder=tmp_path)
    assert code == 0, drawn
    assert "\x1b[" in drawn
    assert "held-out" in drawn
    assert "step 1/1" in drawn
    assert drawn.rstrip().endswith("done: a (metrics.jsonl, trajectories, checkpoints)")
    code, drawn = on_a_terminal("train", "demo_aem", *TINY, "run_dir=b", "--plain", folder=tmp_path)
    assert code == 0, drawn
    assert "\x1b[" not in drawn
    assert drawn.startswith("b step 1/1  reward ")


@pytest.mark.slow
def test_a_reader_that_leaves_early_meets_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m aem_swe.cli train demo {' '.join(TINY)} trainer.steps=3 | head -n 1"
    ended = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.stdout.startswith("demo step 1/3")
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_warm_start_makes_a_policy_that_trains(run: Run, tmp_path: Path) -> None:
    made = run("warm-start", "--out", "policy", "--steps", "3", "--threads", "1", "--episodes", "4")
    assert made.code == 0, made.err
    assert "held-out success 0.000" in made.out
    trained = run("train", "demo", *TINY, "model.path=policy", "run_dir=run")
    assert trained.code == 0, trained.err


def test_the_installed_script_is_this_command() -> None:
    assert 'aem-swe = "aem_swe.cli:main"' in (REPOSITORY / "pyproject.toml").read_text()
