"""What every kind of sandbox does. `from contract import *` in a test file with a fixture `sandboxes`.

The machine that it assumes inside: python3, bash, git, coreutils, and a writable workdir /testbed.
"""

import hashlib
import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from aem_swe.errors import SandboxGone, TaskError
from aem_swe.sandboxes import GIT_APPLY, Sandbox, Sandboxes
from aem_swe.types import Task

FILES = (
    ("src/a.py", b"x = 1\n"),
    ("data.bin", b"\0\xff\r\n"),
    ("crlf", b"a\r\nb\r\n"),
    ("gone", b"1\n"),
    ("d", b"a file\n"),
    ("e/f", b"in a folder\n"),
    ("no newline", b"x"),
    ('caf\u00e9 "q"', b"y\n"),
    (".gitignore", b"*.o\n"),
    ("tracked.o", b"1\n"),
)
TASK = Task(id="contract-1", statement=(), files=FILES)


@pytest.fixture
def sandbox(sandboxes: Sandboxes) -> Iterator[Sandbox]:
    with sandboxes.open(TASK) as opened:
        yield opened


def test_a_command_reports_its_exit_code_and_both_outputs(sandbox: Sandbox) -> None:
    result = sandbox.run("echo out; echo err >&2; exit 3")
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    assert (result.truncated, result.timed_out, result.out_of_memory) == (False, False, False)
    assert 0 < result.seconds < 10


def test_a_signal_is_a_negative_exit_code(sandbox: Sandbox) -> None:
    assert sandbox.run("kill -TERM $$").exit_code == -15


def test_an_argv_is_not_read_by_a_shell(sandbox: Sandbox) -> None:
    assert sandbox.run(["printf", "%s|", "$HOME", "a b", ";"]).stdout == b"$HOME|a b|;|"


def test_commands_start_in_the_workdir_with_the_files_of_the_task(sandbox: Sandbox) -> None:
    assert sandbox.run("pwd; cat src/a.py").stdout == b"/testbed\nx = 1\n"
    assert sandbox.run(["pwd"], cwd="src").stdout == b"/testbed/src\n"
    assert sandbox.run(["pwd"], cwd="/").stdout == b"/\n"
    for path, content in FILES:
        assert sandbox.read(path) == content


def test_the_environment_is_the_given_one_only(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEM_CANARY", "secret")
    result = sandbox.run(["env"], env={"A": "b c"})
    assert b"A=b c\n" in result.stdout
    assert b"secret" not in result.stdout


def test_stdin_is_what_is_given_and_then_ends(sandbox: Sandbox) -> None:
    assert sandbox.run(["cat"], stdin=b"\0\xff\n").stdout == b"\0\xff\n"
    assert sandbox.run(["cat"]).stdout == b""
    megabyte = bytes(range(256)) * 4096
    assert sandbox.run(["sha1sum"], stdin=megabyte).stdout[:40] == b"ecfc8e86fdd83811f9cc9bf500993b63069923be"
    assert sandbox.run(["true"], stdin=megabyte).exit_code == 0


def test_a_missing_program_or_folder_is_the_command_s_failure(sandbox: Sandbox) -> None:
    assert sandbox.run(["no-such-program"]).exit_code == 127
    assert sandbox.run(["/etc/passwd"]).exit_code == 126
    assert sandbox.run(["true"], cwd="/no/such").exit_code in (126, 127)
    assert sandbox.run(["ec\0ho"]).exit_code in (126, 127)
    assert sandbox.run(["echo", "\ud800"]).exit_code in (0, 126, 127)
    assert sandbox.alive()


def test_output_is_cut_at_its_cap_and_the_rest_thrown_away(sandbox: Sandbox) -> None:
    result = sandbox.run("head -c 5000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 4", max_output=1000)
    assert (len(result.stdout), len(result.stderr), result.truncated, result.exit_code) == (1000, 1000, True, 4)
    assert not sandbox.run("head -c 1000 /dev/zero", max_output=1000).truncated


def test_output_and_names_need_not_be_text(sandbox: Sandbox) -> None:
    assert sandbox.run(r"printf '\xff\xfe\x00'").stdout == b"\xff\xfe\0"
    sandbox.run(r"printf x > $'bad\xff\xfename'")
    assert b"bad" in sandbox.diff()


def test_a_time_limit_ends_the_command_and_all_that_it_started(sandbox: Sandbox) -> None:
    started = time.monotonic()
    result = sandbox.run("trap '' TERM; echo before; setsid sleep 1000 & sleep 1000", timeout=0.3)
    assert (result.timed_out, result.stdout, result.exit_code) == (True, b"before\n", -9)
    assert time.monotonic() - started < 5
    assert b"sleep" not in sandbox.run("cat /proc/[0-9]*/comm").stdout


def test_a_daemon_does_not_keep_its_command_open(sandbox: Sandbox) -> None:
    started = time.monotonic()
    assert sandbox.run("setsid sleep 1000 & sleep 0.2; echo done").stdout == b"done\n"
    assert time.monotonic() - started < 3
    assert b"sleep" in sandbox.run("cat /proc/[0-9]*/comm").stdout
    sandbox.kill_all()
    assert b"sleep" not in sandbox.run("cat /proc/[0-9]*/comm").stdout


def test_files_are_bytes(sandbox: Sandbox) -> None:
    sandbox.write("new/deep/file", b"\0\r\n\xff")
    assert sandbox.read("new/deep/file") == b"\0\r\n\xff"
    assert sandbox.read("/testbed/new/deep/file", max_bytes=2) == b"\0\r"
    sandbox.write("/tmp/elsewhere", b"1")
    assert sandbox.run(["cat", "/tmp/elsewhere"]).stdout == b"1"


def test_reading_what_is_no_file_is_file_not_found(sandbox: Sandbox) -> None:
    sandbox.run("mkfifo fifo; mkdir folder; ln -s nowhere dangling; ln -s loop loop; echo > secret; chmod 0 secret")
    for path in (
        "missing",
        "a\0b",
        "\ud800",
        "fifo",
        "folder",
        "dangling",
        "loop",
        "src/a.py/below",
        "/dev/zero",
        "/proc/self/environ",
    ):
        with pytest.raises(FileNotFoundError):
            sandbox.read(path)


def test_writing_where_the_agent_is_in_the_way_is_an_os_error(sandbox: Sandbox) -> None:
    sandbox.run("mkfifo fifo; mkdir folder; echo > file")
    for path in ("fifo", "folder", "file/below", "/proc/x", "a\0b", "\ud800"):
        with pytest.raises(OSError):
            sandbox.write(path, b"1")
    assert sandbox.alive()


def test_an_untouched_tree_has_an_empty_diff(sandbox: Sandbox) -> None:
    assert sandbox.diff() == b""
    sandbox.run("touch src/a.py; cp crlf x; rm x; mkdir empty")
    assert sandbox.diff() == b""


CHANGES = """
rm gone d; mkdir d; echo q > d/x; rm -r e; echo e > e; echo 2 > tracked.o; echo o > new.o
printf 'a\\r\\nc\\r\\n' > crlf; printf '\\0\\1' >> data.bin; printf xy > 'no newline'; echo z >> 'caf\u00e9 "q"'
ln -s /etc/passwd link; chmod +x src/a.py; : > empty; printf '\\0b' > binary
printf 'tab' > "$(printf 'a\\tb\\nc')"; mkdir -p p/q/r; echo deep > p/q/r/s
"""


def test_a_diff_makes_a_fresh_sandbox_the_same(sandboxes: Sandboxes, sandbox: Sandbox) -> None:
    assert sandbox.run(CHANGES).exit_code == 0
    patch = sandbox.diff()
    with sandboxes.open(TASK, purpose="grading") as fresh:
        assert fresh.run(GIT_APPLY, stdin=patch).exit_code == 0
        assert fresh.diff() == patch
        assert fresh.read("crlf") == b"a\r\nc\r\n"
        assert fresh.read("data.bin") == b"\0\xff\r\n\0\1"
        assert fresh.run("readlink link; test -x src/a.py && cat p/q/r/s; ls new.o gone d").stdout.split() == [
            b"/etc/passwd", b"deep", b"d:", b"x",
        ]  # fmt: skip


def test_a_diff_without_new_files_is_the_same_as_with_one(sandboxes: Sandboxes, sandbox: Sandbox) -> None:
    changed = "rm gone crlf; rm data.bin; ln -s /etc/passwd data.bin; chmod +x src/a.py; echo 2 > tracked.o"
    assert sandbox.run(changed).exit_code == 0
    patch = sandbox.diff()
    with sandboxes.open(TASK, purpose="grading") as fresh:
        assert fresh.run(GIT_APPLY, stdin=patch).exit_code == 0
        assert fresh.diff() == patch
    sandbox.write("zzz", b"last\n")
    longer = sandbox.diff()
    assert longer.startswith(patch) and b"zzz" in longer[len(patch) :]


def test_the_diff_has_git_prefixes_and_full_hashes(sandbox: Sandbox) -> None:
    sandbox.write("src/a.py", b"x = 2\n")
    old, new = (hashlib.sha1(b"blob 6\0x = %d\n" % value).hexdigest().encode() for value in (1, 2))
    assert sandbox.diff() == (
        b"diff --git a/src/a.py b/src/a.py\nindex " + old + b".." + new + b" 100644\n"
        b"--- a/src/a.py\n+++ b/src/a.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"
    )


def test_what_the_agent_does_to_git_does_not_reach_the_diff(sandbox: Sandbox) -> None:
    sandbox.run(
        "git init -q . && git config core.fsmonitor 'touch /testbed/owned' && git config diff.external /bin/false;"
        "git config user.name a; git config user.email b; printf '#!/bin/sh\\nsleep 1000' > .git/hooks/pre-commit;"
        "echo '*.py filter=x diff=x text eol=crlf ident working-tree-encoding=UTF-16' > .gitattributes;"
        "git add -A; git -c core.hooksPath=/dev/null commit -qm x; rm -f /tmp/*; echo broken > .git/index;"
        "echo 'x = 3' > src/a.py; mkdir .GIT sub; git init -q sub; echo n > sub/n; rm -f owned"
    )
    patch = sandbox.diff()
    assert b"+x = 3\n" in patch
    assert b"b/sub/n\n" in patch
    assert b"owned" not in patch
    assert b"hooks" not in patch


def test_a_diff_of_too_much_is_an_os_error(sandbox: Sandbox) -> None:
    sandbox.run("truncate -s 11M big")
    with pytest.raises(OSError, match="bytes"):
        sandbox.diff()
    sandbox.run("rm big")
    assert sandbox.diff() == b""


def test_a_diff_ends_what_still_runs(sandbox: Sandbox) -> None:
    sandbox.run("setsid bash -c 'while :; do date +%N > changing; done' & sleep 0.1")
    assert b"changing" in sandbox.diff()
    assert sandbox.diff() == sandbox.diff()


def test_two_sandboxes_share_nothing(sandboxes: Sandboxes, sandbox: Sandbox) -> None:
    sandbox.run("echo 1 > /tmp/mark; echo 1 > mark; echo 1 > /dev/shm/mark; setsid sleep 1000 &")
    with sandboxes.open(TASK, purpose="grading") as other:
        assert other.run("ls /tmp/mark mark /dev/shm/mark; cat /proc/[0-9]*/comm | grep sleep").stdout == b""


def test_many_sandboxes_open_at_once_from_many_threads(sandboxes: Sandboxes) -> None:
    def work(index: int) -> bytes:
        with sandboxes.open(TASK) as opened:
            return opened.run(["sh", "-c", "sleep 0.01; echo $0", str(index)]).stdout

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(24))) == [b"%d\n" % index for index in range(24)]


def test_a_closed_sandbox_is_gone(sandboxes: Sandboxes) -> None:
    with sandboxes.open(TASK) as opened:
        assert opened.alive()
    assert not opened.alive()
    with pytest.raises(SandboxGone):
        opened.run(["true"])
    opened.close()


def test_stages_are_recorded_in_order(sandboxes: Sandboxes) -> None:
    before = time.perf_counter()
    with sandboxes.open(TASK) as opened:
        pass
    names = [event.name for event in opened.events]
    assert [name for name in names if name not in ("image", "queue")] == ["create", "start", "prepare", "close"]
    assert before <= opened.events[0].started_at
    assert all(event.seconds >= 0 for event in opened.events)
    assert pickle.loads(pickle.dumps(opened.events)) == opened.events


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "", "a//b", "./a", "a/.", "a\0b"])
def test_a_task_with_a_path_that_leaves_its_workdir_is_refused(sandboxes: Sandboxes, path: str) -> None:
    with pytest.raises(TaskError, match="bad-task"):
        sandboxes.open(Task(id="bad-task", statement=(), files=((path, b""),)))


def test_a_task_whose_files_collide_or_do_not_fit_is_refused(sandboxes: Sandboxes) -> None:
    for files in ((("a", b"1"), ("a", b"2")), (("a", b"1"), ("a/b", b"2"))):
        with pytest.raises(TaskError, match="bad-task"):
            sandboxes.open(Task(id="bad-task", statement=(), files=files))
