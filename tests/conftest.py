"""Shared by all tests: the command line, run in a process of its own and in this one."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from command_line import Ended, environment
from hypothesis import settings

from aem_swe import cli

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a background job; what tests start would ignore Ctrl-C too
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("untimed", deadline=None)  # a busy machine must not fail a test
settings.load_profile("untimed")
cli._quiet()  # before any test imports transformers, as main() does it before the command does


@pytest.fixture(scope="session")
def container_engine() -> None:
    """Skips where there is none; for pytest.mark.usefixtures."""
    import docker  # slow to import, and most tests need none

    try:
        with contextlib.closing(docker.from_env()) as client:
            client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no container engine ({error}); start one (dockerd) to run these tests")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """start("train", "demo", ...) -> the running command, in a session of its own, with tmp_path as its folder."""
    running: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "aem_swe.cli", *arguments]
        everything = environment() | dict(env or {})
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, cwd=tmp_path, env=everything, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def run(start: Callable[..., "subprocess.Popen[str]"]) -> Callable[..., Ended]:
    """run("train", "demo", ...) -> how the command ended, as a user sees it."""

    def to_the_end(*arguments: str, env: Mapping[str, str] | None = None) -> Ended:
        process = start(*arguments, env=env)
        out, err = process.communicate(timeout=300)
        return Ended(process.returncode, out, err)

    return to_the_end


@pytest.fixture
def invoke(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., Ended]]:
    """invoke("train", "demo", ...) -> the same without a new process: saves the seconds that importing torch takes."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["aem-swe", *arguments])
        capsys.readouterr()
        code: object = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        said = capsys.readouterr()
        assert isinstance(code, int)
        return Ended(code, said.out, said.err)

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)
