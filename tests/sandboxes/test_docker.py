"""Containers: confinement, limits, preparation of images, and distinct errors for distinct failures."""

import gc
import os
import threading
import time
import uuid
from collections.abc import Iterator

import docker
import pytest
from docker.errors import APIError
from engines import containers_of, no_engine
from test_local_limits import BOMB, FORK_BOMB, IN_PROCESSES, SLOWLY

from aem_swe.errors import EngineUnreachable, ImageMissing, SandboxError, SandboxGone, TaskError
from aem_swe.sandboxes import DockerSettings, Sandbox, SandboxLimits, open_sandboxes, unavailable_reason
from aem_swe.sandboxes.docker import DockerSandboxes
from aem_swe.types import Task

pytestmark = pytest.mark.docker
LIMITS = SandboxLimits(memory_mb=128, processes=32, disk_mb=16, command_timeout_s=10.0)
TASK = Task(id="task-1", statement=(), files=(("src/a.py", b"x = 1\n"),))
RUN = uuid.uuid4().hex
GIT_REPOSITORY = """
git init -q . && git config user.email a@b && git config user.name a
echo tracked > kept.o; echo '*.o' > .gitignore; echo 1 > code.py; git add -f kept.o code.py .gitignore
git commit -qm one; echo dirty > code.py; echo secret > hidden; rm hidden; mkdir -p .venv; echo v > .venv/x
mkdir -p sub && git init -q sub && echo s > sub/file
"""


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[DockerSandboxes]:
    if reason := no_engine():
        pytest.skip(reason)
    programs = {"/opt/aem/tools/hello.py": "import json\nprint(json.dumps('hello'))\n"}
    with DockerSandboxes(limits=LIMITS, programs=programs, run=RUN, settings=DockerSettings(warm=2)) as opened:
        yield opened
    assert containers_of(RUN) == []


@pytest.fixture
def sandbox(sandboxes: DockerSandboxes) -> Iterator[Sandbox]:
    with sandboxes.open(TASK) as opened:
        yield opened
        assert opened.run(["echo", "still here"]).stdout == b"still here\n"


# --- confinement


def test_there_is_no_network_and_no_capability_worth_having(sandbox: Sandbox) -> None:
    assert sandbox.run("ls /sys/class/net").stdout == b"lo\n"
    status = sandbox.run("grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status").stdout.decode()
    capabilities = int(status.split("CapEff:")[1].split()[0], 16)
    assert capabilities == (1 << 0) | (1 << 1) | (1 << 3) | (1 << 5)  # chown, dac_override, fowner, kill
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    for command in ("mount -t tmpfs none /mnt", "chroot / true", "unshare -m true", "mknod /tmp/sda b 8 0"):
        assert sandbox.run(command).exit_code != 0


def test_the_guest_can_be_neither_read_nor_written_nor_killed(sandbox: Sandbox) -> None:
    for path in ("/proc/1/fd/4", "/proc/1/mem", "/proc/1/environ", "/proc/1/maps"):
        result = sandbox.run(f"cat {path} || echo no")
        assert result.stdout == b"no\n", path
    assert sandbox.run("echo forged > /proc/1/fd/5").exit_code != 0
    for path in ("/opt/aem/guest/server.py", "/opt/aem-python/shared/ld.so", "/opt/aem/tools/hello.py"):
        assert sandbox.run(f"echo x >> {path}").exit_code != 0
    sandbox.run("setsid sleep 1000 &")
    every = "for s in $(seq 1 64); do kill -$s 1 2>/dev/null; done"
    assert sandbox.run(f"{every}; kill -9 -1; echo after").stdout == b"after\n"
    assert sandbox.run(["python3", "-c", "import os\nfor s in range(1, 65): os.kill(1, s)"]).exit_code == 0
    assert b"sleep" not in sandbox.run("cat /proc/[0-9]*/comm").stdout
    assert sandbox.run(["python3", "/opt/aem/tools/hello.py"]).stdout == b'"hello"\n'


def test_orphans_are_reaped(sandbox: Sandbox) -> None:
    sandbox.run("for i in 1 2 3 4 5; do (setsid true &) ; done; sleep 0.1")
    assert b"Z" not in sandbox.run("cat /proc/[0-9]*/stat | cut -d' ' -f3 | sort -u").stdout


def test_the_environment_of_a_task_reaches_every_command(sandboxes: DockerSandboxes) -> None:
    with sandboxes.open(Task(id="env", statement=(), env=(("ONE", "1 2"), ("PATH", "/x:/usr/bin:/bin")))) as opened:
        assert opened.run('echo "$ONE" "$PATH"').stdout == b"1 2 /x:/usr/bin:/bin\n"


# --- limits


@pytest.mark.parametrize("source", [BOMB, SLOWLY, IN_PROCESSES], ids=["at once", "slowly", "in processes"])
def test_a_memory_bomb_is_reported_and_killed(sandbox: Sandbox, source: str) -> None:
    result = sandbox.run(["python3", "-c", source], timeout=8)
    assert result.out_of_memory
    assert not result.timed_out


def test_a_fork_bomb_ends_with_its_command(sandbox: Sandbox) -> None:
    result = sandbox.run(["python3", "-c", FORK_BOMB], timeout=1)
    assert result.timed_out or result.out_of_memory or result.exit_code == -9
    assert len(sandbox.run("ls -d /proc/[0-9]*").stdout.split()) <= 3
    assert sandbox.diff() == b""


def test_a_gigabyte_of_output_stays_inside(sandbox: Sandbox) -> None:
    started = time.monotonic()
    result = sandbox.run("head -c 1000000000 /dev/zero", timeout=30)
    assert (result.exit_code, result.truncated, len(result.stdout)) == (0, True, LIMITS.max_output)
    assert time.monotonic() - started < 20


def test_writable_space_that_is_used_up_is_the_commands_failure(sandbox: Sandbox) -> None:
    assert b"No space left" in sandbox.run("for i in 1 2; do head -c 15000000 /dev/zero > /tmp/$i; done").stderr
    assert sandbox.run("head -c 100000000 /dev/zero > /testbed/big").exit_code != 0  # one file: disk_mb
    assert int(sandbox.run("stat -c %s /testbed/big").stdout) <= LIMITS.disk_mb << 20
    with pytest.raises(OSError, match="No space"):
        sandbox.write("/tmp/more", bytes(1 << 20))
    with pytest.raises(OSError, match="bytes"):
        sandbox.diff()
    sandbox.run("rm big; echo 'x = 2' > src/a.py")
    assert b"+x = 2" in sandbox.diff()


def test_a_command_that_ignores_term_ends_at_its_limit(sandbox: Sandbox) -> None:
    started = time.monotonic()
    source = "import signal, time\nfor s in (1, 2, 3, 15):\n    signal.signal(s, signal.SIG_IGN)\ntime.sleep(1000)"
    assert sandbox.run(["python3", "-c", source], timeout=0.5).timed_out
    assert time.monotonic() - started < 4


# --- preparation


def test_the_setup_runs_once_and_what_it_leaves_is_the_baseline(sandboxes: DockerSandboxes) -> None:
    mark = uuid.uuid4().hex
    task = Task(id="git", statement=(), setup=f"{GIT_REPOSITORY}\ndate +%N > /root/stamp-{mark}")
    with sandboxes.open(task) as first, sandboxes.open(task, purpose="grading") as second:
        stamp = f"/root/stamp-{mark}"
        assert first.read(stamp) == second.read(stamp) != b""
        assert first.diff() == b""
        assert first.run("cat code.py").stdout == b"dirty\n"
        first.run(
            "echo more >> kept.o; echo 1 > other.o; echo 2 > sub/file; rm code.py; echo 1 > .venv/y; echo n > new"
        )
        patch = first.diff().decode()
        files = [line.split(" b/")[1] for line in patch.splitlines() if line.startswith("diff --git")]
        assert files == ["code.py", "kept.o", "new", "sub/file"]
        assert second.run(["git", "apply", "-p1", "-"], stdin=patch.encode()).exit_code == 0
        assert second.diff().decode() == patch


def test_a_setup_that_fails_is_a_task_error_with_its_last_words(sandboxes: DockerSandboxes) -> None:
    with pytest.raises(TaskError, match=r"(?s)bad-setup: the setup of image .* failed with exit code 3: no such thing"):
        sandboxes.open(Task(id="bad-setup", statement=(), setup="echo no such thing >&2; exit 3"))


def test_an_image_without_git_is_a_task_error(sandboxes: DockerSandboxes) -> None:
    with pytest.raises(TaskError, match=r"no-git: .*has no git"):
        sandboxes.open(Task(id="no-git", statement=(), setup="rm -f $(command -v git)"))


def test_a_setup_that_failed_is_not_run_again(sandboxes: DockerSandboxes) -> None:
    task = Task(id="slow-and-bad", statement=(), setup="sleep 3; exit 1")
    started = time.monotonic()
    for _ in range(4):
        with pytest.raises(TaskError, match="failed with exit code 1"):
            sandboxes.open(task)
    assert time.monotonic() - started < 9


# --- the end


def test_closing_does_not_wait_for_a_setup_and_lets_those_go_who_wait() -> None:
    if reason := no_engine():
        pytest.skip(reason)
    run = uuid.uuid4().hex
    task = Task(id="long", statement=(), setup=f"sleep 100; echo {run}")
    errors: list[BaseException] = []

    def take(made: DockerSandboxes) -> None:
        try:
            made.open(task)
        except SandboxError as error:
            errors.append(error)

    with DockerSandboxes(limits=LIMITS, run=run, settings=DockerSettings(warm=4)) as made:
        made.expect([task] * 8)
        takers = [threading.Thread(target=take, args=(made,)) for _ in range(4)]
        for taker in takers:
            taker.start()
        while not containers_of(run):
            time.sleep(0.1)
        time.sleep(1.0)
        started = time.monotonic()
    assert time.monotonic() - started < 10
    for taker in takers:
        taker.join(10)
        assert not taker.is_alive()
    assert len(errors) == 4
    assert containers_of(run) == []


def test_a_sandbox_ends_with_its_maker_and_may_be_closed_after_it() -> None:
    if reason := no_engine():
        pytest.skip(reason)
    with DockerSandboxes(limits=LIMITS, settings=DockerSettings(warm=0)) as made:
        sandbox = made.open(TASK)
    with pytest.raises(SandboxGone):
        sandbox.run(["true"])
    sandbox.close()
    with pytest.raises(SandboxError):
        made.open(TASK)


# --- errors


def test_a_missing_image_says_which_and_how_to_get_it(sandboxes: DockerSandboxes) -> None:
    with pytest.raises(ImageMissing, match=r"image 'nobody/nothing:1' is not on engine .*docker pull nobody/nothing:1"):
        sandboxes.open(Task(id="no-image", statement=(), image="nobody/nothing:1"))


@pytest.fixture
def collected() -> Iterator[None]:
    yield
    gc.collect()


# the SDK leaves a socket to the garbage collector where it cannot connect
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_engine_that_does_not_answer_says_how_to_start_one(collected: None) -> None:
    settings = DockerSettings(engines=("unix:///nowhere/docker.sock",))
    with pytest.raises(EngineUnreachable, match=r"unix:///nowhere/docker.sock cannot be reached .*start it"):
        open_sandboxes("docker", limits=LIMITS, docker=settings).__enter__()
    assert "cannot be reached" in (unavailable_reason("docker", settings) or "")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_engine_that_answers_is_enough(collected: None) -> None:
    if reason := no_engine():
        pytest.skip(reason)
    good = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    settings = DockerSettings(engines=("unix:///nowhere/docker.sock", good), warm=0)
    with open_sandboxes("docker", limits=LIMITS, docker=settings) as opened, opened.open(TASK) as sandbox:
        assert sandbox.run(["true"]).exit_code == 0


@pytest.mark.parametrize("how", ["kill", "remove"])
def test_a_container_that_vanishes_mid_command_is_gone_at_once(sandboxes: DockerSandboxes, how: str) -> None:
    client = docker.from_env()
    with sandboxes.open(TASK) as sandbox:
        identity = next(i for i, (_, s) in sandboxes._live.items() if s is sandbox)
        end = client.api.kill if how == "kill" else lambda name: client.api.remove_container(name, force=True)
        timer = threading.Timer(0.3, end, (identity,))
        timer.start()
        started = time.monotonic()
        with pytest.raises(SandboxGone, match="exit code 137" if how == "kill" else "was removed|ended with exit code"):
            sandbox.run("sleep 100", timeout=60)
        assert time.monotonic() - started < 10
        timer.join()
        with pytest.raises(SandboxError):
            sandbox.run(["true"])
    client.close()


def test_a_paused_container_reaches_the_hosts_deadline(
    sandboxes: DockerSandboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aem_swe.sandboxes._guest_sandbox.GRACE_S", 0.5)
    client = docker.from_env()
    with sandboxes.open(TASK) as sandbox:
        identity = next(i for i, (_, s) in sandboxes._live.items() if s is sandbox)
        try:
            client.api.pause(identity)
        except APIError as error:
            pytest.skip(f"this engine cannot pause a container: {error.explanation}")
        finally:
            client.close()
        started = time.monotonic()
        with pytest.raises(SandboxError, match="no answer within"):
            sandbox.run(["true"], timeout=0.5)
        assert time.monotonic() - started < 5


def test_expected_sandboxes_are_ready_before_they_are_opened(sandboxes: DockerSandboxes) -> None:
    sandboxes.expect([TASK, TASK])
    deadline = time.monotonic() + 20
    while len(sandboxes._pool._ready) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    before = time.perf_counter()
    with sandboxes.open(TASK) as sandbox:
        assert sandbox.events[0].started_at < before  # created earlier
        assert sandbox.run(["cat", "src/a.py"]).stdout == b"x = 1\n"
    sandboxes.expect([])
