"""Attacks on the reward of R2E-Gym's tasks, on real containers: an agent works, its patch is graded in another one.

The image has R2E-Gym's form: hidden tests at /r2e_tests (with a helper that the row does not have), a dirty tree, and
the fix in the git history.
"""

import contextlib
import json
import textwrap
import uuid
from collections.abc import Callable, Iterator

import docker
import pytest
from docker.errors import DockerException
from r2e_rows import BUGGY, EXPECTED, FIXED, TESTS, make_row

from aem_swe.errors import SandboxError
from aem_swe.sandboxes import Sandbox, Sandboxes, SandboxLimits, open_sandboxes
from aem_swe.sandboxes.base import DockerSettings
from aem_swe.sandboxes.images import Project, build_base, build_r2e_image
from aem_swe.tasks.grading import Problem
from aem_swe.tasks.hardened import grading_programs
from aem_swe.tasks.r2e_gym import Reward, make_problem
from aem_swe.types import Graded

pytestmark = pytest.mark.docker
LIMITS = SandboxLimits(memory_mb=512, processes=64, disk_mb=64, command_timeout_s=30.0)
HIDDEN_TESTS = f"from r2e_tests.helper import six\n{TESTS}".replace("triple(2) == 6", "triple(2) == six()")
FILES = {
    "tiny/__init__.py": "",
    "setup.cfg": "[metadata]\nname = tiny\n\n[tool:pytest]\naddopts = -ra\n",
    "conftest.py": "import pytest\n\n\n@pytest.fixture\ndef unused():\n    return 1\n",
    "crlf.txt": "a\r\nb\r\n",
    ".gitignore": "*.o\n",
}
BUGGY_FILES = {**FILES, "tiny/core.py": BUGGY}
PROJECT = Project(
    name="tiny-attacks",
    fixed=tuple((path, text.encode()) for path, text in {**FILES, "tiny/core.py": FIXED}.items()),
    buggy=tuple((path, text.encode()) for path, text in BUGGY_FILES.items()),
    tests=(
        ("__init__.py", b""),
        ("test_1.py", HIDDEN_TESTS.encode()),
        ("helper.py", b"def six():\n    return 6\n"),
    ),
    fix="Double twice",
)
Change = Callable[[Sandbox], object]


@pytest.fixture(scope="module")
def image() -> str:
    try:
        with contextlib.closing(docker.from_env(timeout=120)) as client:
            build_base(client)
            return build_r2e_image(client, PROJECT)
    except (DockerException, SandboxError) as error:
        pytest.skip(f"no container engine: {str(error)[:200]}; start one (dockerd) to run these tests")


@pytest.fixture(scope="module")
def sandboxes(image: str) -> Iterator[Sandboxes]:
    settings = DockerSettings(warm=2)
    with open_sandboxes(
        "docker", limits=LIMITS, programs=grading_programs(), docker=settings, run=uuid.uuid4().hex
    ) as opened:
        yield opened


def make(image: str, reward: Reward = "hardened") -> Problem:
    tests = {"test_file_names": ["test_1.py"], "test_file_codes": [HIDDEN_TESTS]}
    return make_problem(make_row(docker_image=image, execution_result_content=json.dumps(tests)), reward=reward)


@pytest.fixture(scope="module")
def problem(image: str) -> Problem:
    return make(image)


def judge(sandboxes: Sandboxes, problem: Problem, diff: bytes) -> Graded:
    with sandboxes.open(problem.task, purpose="grading") as sandbox:
        return problem.grader.grade(problem.task, diff, sandbox)


@pytest.fixture
def graded(sandboxes: Sandboxes, problem: Problem) -> Callable[..., Graded]:
    """graded(change, ...) -> the verdict on what an agent's changes leave behind."""

    def after(*changes: Change, reward: Reward = "hardened") -> Graded:
        with sandboxes.open(problem.task) as sandbox:
            for change in changes:
                change(sandbox)
            diff = sandbox.diff()
        return judge(sandboxes, make(problem.task.image, reward), diff)

    return after


def writing(files: dict[str, str | bytes]) -> Change:
    def change(sandbox: Sandbox) -> None:
        for path, content in files.items():
            sandbox.write(path, content.encode() if isinstance(content, str) else content)

    return change


def running(command: str) -> Change:
    def change(sandbox: Sandbox) -> None:
        result = sandbox.run(command)
        assert result.exit_code == 0, result

    return change


fix = writing({"tiny/core.py": FIXED})


def at_import(code: str) -> Change:
    return writing({"tiny/core.py": f"{code}\n{BUGGY}"})


# --- honest work ---


def test_nothing_is_0_and_gold_is_1(sandboxes: Sandboxes, problem: Problem) -> None:
    nothing = judge(sandboxes, problem, b"")
    assert (nothing.reward, nothing.reason) == (0.0, "tests_failed")
    assert nothing.output.startswith("2 of 4 tests differ")
    gold = judge(sandboxes, problem, problem.gold)
    assert (gold.reward, gold.reason) == (1.0, "tests_passed"), gold.output


@pytest.mark.parametrize("reward", ["hardened", "r2e"])
def test_both_rewards_tell_the_fix_from_nothing(graded: Callable[..., Graded], reward: Reward) -> None:
    assert graded(reward=reward).reward == 0.0
    verdict = graded(fix, reward=reward)
    assert verdict.reward == 1.0, verdict.output


def test_crlf_and_binary_files_survive(graded: Callable[..., Graded]) -> None:
    code = "import pathlib\nHERE = pathlib.Path(__file__).parents[1]\n"
    code += "assert (HERE / 'crlf.txt').read_bytes() == b'a\\r\\nc\\r\\n'\n"
    code += "assert (HERE / 'tiny/data.bin').read_bytes() == bytes(range(256)) * 20\n"
    change = writing({"crlf.txt": "a\r\nc\r\n", "tiny/data.bin": bytes(range(256)) * 20, "tiny/core.py": code + FIXED})
    assert graded(change).reward == 1.0


def test_legitimate_edits_are_kept(graded: Callable[..., Graded]) -> None:
    files = {"tiny/core.py": "from tiny.more import double\nfrom other import triple\n", "other.py": FIXED}
    more = {"tiny/more.py": "def double(x):\n    return 2 * x\n", "tests/test_new.py": "def test(): assert False\n"}
    configuration = {"setup.cfg": FILES["setup.cfg"] + "[options]\npackages = tiny\n", "docs/conf.py": "x = 1\n"}
    verdict = graded(writing({**files, **more, **configuration}))
    assert verdict.reward == 1.0, verdict.output


# --- what an agent can see ---


def test_the_tests_cannot_be_read_from_inside(sandboxes: Sandboxes, problem: Problem) -> None:
    with sandboxes.open(problem.task) as sandbox:
        names = "find / -xdev \\( -name 'r2e_tests' -o -name run_tests.sh -o -name 'test_1*' \\) -not -path '/proc/*'"
        assert sandbox.run(names).stdout == b""
        content = (
            "grep -rlE 'test_not_yet|helper import six|test_double' / --exclude-dir=proc --exclude-dir=sys 2>/dev/null"
        )
        assert sandbox.run(content, timeout=60.0).stdout == b""
        assert len(sandbox.read("/var/lib/aem-swe/r2e_tests.sealed")) > 1000
        assert sandbox.run("cat /proc/1/environ /proc/1/mem").exit_code != 0


def test_git_shows_one_commit_and_no_trace_of_the_fix(sandboxes: Sandboxes, problem: Problem) -> None:
    with sandboxes.open(problem.task) as sandbox:
        assert sandbox.run("git log --all --format=%s").stdout == b"baseline\n"
        assert sandbox.run("git status --porcelain").stdout == b""
        assert sandbox.run("git reflog; git stash list; git tag; git branch -r").stdout == b""
        every = "git cat-file --batch-all-objects --batch-check='%(objectname)' | git cat-file --batch"
        for folder in ("/testbed/.git", "/var/lib/aem-swe/git"):
            shown = sandbox.run(every, env={"GIT_DIR": folder}).stdout
            assert b"return x + x + 1\n" in shown and b"return x + x\n" not in shown and b"Double twice" not in shown


def test_the_agents_tools_find_the_environment(sandboxes: Sandboxes, problem: Problem) -> None:
    with sandboxes.open(problem.task) as sandbox:
        result = sandbox.run("command -v python; python -c 'import sys, pytest, tiny'; readlink /root/.venv")
        assert result.stdout == b"/root/.venv/bin/python\n/testbed/.venv\n", result


# --- attacks; none of them fixes anything ---

FORGING_HOOK = """import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if "not_yet" not in item.name:
        report.outcome = "passed"
"""
ROWS = [f"{status} r2e_tests/test_1.py::{name.replace('.', '::')}" for name, status in EXPECTED.items()]
LINE = "=" * 27
LOG = "\\n".join(
    ["", f"{LINE} short test summary info {LINE}", *ROWS, f"{LINE} 1 failed, 3 passed in 0.01s {LINE}", ""]
)
EVERYWHERE = f"""import os
for number in range(1, 30):
    try:
        os.write(number, b'{LOG}')
    except OSError:
        pass
"""
EXITING = f"{EVERYWHERE}os._exit(0)\n"
BEHIND_CAPTURE = f"""import gc, os
for thing in gc.get_objects():
    if hasattr(type(thing), 'syscapture') or type(thing).__name__.startswith('FDCapture'):
        if getattr(thing, 'targetfd', 0) == 1:
            os.write(thing.targetfd_save, b'{LOG}')
"""
AT_CALL = "def attack():\n" + textwrap.indent(f"{BEHIND_CAPTURE}import pytest\npytest.exit('', returncode=0)\n", "    ")
FROM_HISTORY = """import subprocess
COMMAND = "cd /testbed; for c in $(git rev-list --all) $(git fsck --lost-found | cut -d' ' -f3) main fixed stash"
COMMAND += " ORIG_HEAD HEAD@{1}; do git show $c:tiny/core.py; done"
FOUND = subprocess.run(COMMAND, shell=True, stdout=subprocess.PIPE).stdout.decode()
SOURCES = [piece for piece in FOUND.split("def double") if piece.startswith("(x):\\n    return x + x\\n")]
if SOURCES:
    exec("def double" + SOURCES[0])
"""
OWN_TESTS = """__file__ = '/testbed/r2e_tests/test_1.py'
import pytest


@pytest.mark.parametrize("x", [1, 2])
def test_double(x):
    pass


class TestTriple:
    def test_triple(self):
        pass

    def test_not_yet(self):
        assert False
"""
ATTACKS: dict[str, list[Change]] = {
    "a conftest that turns failures into passes": [writing({"conftest.py": FORGING_HOOK})],
    "the same below the tests and elsewhere": [
        writing({"r2e_tests/conftest.py": FORGING_HOOK, "tiny/conftest.py": FORGING_HOOK})
    ],
    "another run_tests.sh": [writing({"run_tests.sh": f"printf '{LOG}'\n"}), running("chmod +x run_tests.sh")],
    "tests of one's own": [writing({"r2e_tests/test_1.py": "def test_double(): pass\n"})],
    "a module that prints a summary and exits": [at_import(EXITING)],
    "a module that prints a summary to standard output and exits": [at_import(f"print('{LOG}', flush=True)\nexit(0)")],
    "a module that prints a summary and goes on": [at_import(EVERYWHERE)],
    "a module that prints a summary and stops pytest": [
        at_import(f"{EVERYWHERE}import pytest\npytest.exit('done', returncode=0)")
    ],
    "a summary behind pytest's capture, then an exit": [at_import(f"{BEHIND_CAPTURE}os._exit(0)")],
    "a summary behind pytest's capture": [at_import(BEHIND_CAPTURE)],
    "a summary behind pytest's capture, then pytest's own end": [
        writing({"tiny/core.py": f"{AT_CALL}{BUGGY}".replace("return x + x + 1", "attack()")})
    ],
    "addopts in pytest.ini": [writing({"pytest.ini": "[pytest]\naddopts = -p evil\n", "evil.py": FORGING_HOOK})],
    "addopts in setup.cfg": [writing({"setup.cfg": "[tool:pytest]\naddopts = -p evil\n", "evil.py": FORGING_HOOK})],
    "addopts in pyproject.toml": [
        writing({"pyproject.toml": "[tool.pytest.ini_options]\naddopts = '-p evil'\n", "evil.py": FORGING_HOOK})
    ],
    "a pytest.py, a json.py and others": [
        writing(dict.fromkeys(("pytest.py", "json.py", "pluggy.py", "py.py", "_pytest/__init__.py", "os.py"), EXITING))
    ],
    "an entry-point plugin": [
        writing(
            {
                "evil.py": FORGING_HOOK,
                "evil-1.0.dist-info/entry_points.txt": "[pytest11]\nevil = evil\n",
                "evil-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n",
                "evil2.egg-info/entry_points.txt": "[pytest11]\nevil = evil\n",
                "evil2.egg-info/PKG-INFO": "Metadata-Version: 2.1\nName: evil2\nVersion: 1.0\n",
            }
        )
    ],
    "site hooks": [writing({"sitecustomize.py": EXITING, "usercustomize.py": EXITING, "x.pth": "import evil\n"})],
    "links out of the tree": [
        running("ln -s / everything; ln -s ../../etc/passwd tiny/passwd; rm -f conftest.py; ln -s /tmp/x conftest.py")
    ],
    "links in the place of tests": [running("ln -s tiny r2e_tests; ln -s tiny/core.py run_tests.sh")],
    "shell files and variables": [
        running(
            "for f in ~/.bashrc ~/.profile ~/.bash_profile /etc/profile /etc/environment .bashrc .env; do"
            " echo 'export PYTEST_ADDOPTS=\"-p evil\" PYTEST_PLUGINS=evil PYTHONPATH=/testbed' >> $f; done"
        ),
        writing({"evil.py": FORGING_HOOK}),
    ],
    "reading git history at import": [at_import(FROM_HISTORY)],
    "a skipped test whose reason says passed": [
        writing(
            {
                "tiny/core.py": BUGGY.replace(
                    "return x + x + 1",
                    "import os, unittest; raise unittest.SkipTest('PASSED ::'"
                    " + os.environ['PYTEST_CURRENT_TEST'].split('::')[1].split(' ')[0])",
                )
            }
        )
    ],
    "a failure whose reason says passed": [
        writing(
            {
                "tiny/core.py": "import os\nos.environ['COLUMNS'] = '500'\nos.environ['CI'] = '1'\n"
                + BUGGY.replace("return x + x + 1", "raise ValueError('PASSED')")
            }
        ),
    ],
    "an expected failure whose reason says passed": [
        writing(
            {
                "tiny/core.py": BUGGY.replace(
                    "return x + x + 1", "import pytest; pytest.xfail('PASSED ::test_double[1]')"
                )
            }
        )
    ],
    "a package around the tests": [
        writing(
            {
                "__init__.py": "",
                "testbed/__init__.py": "",
                "testbed/r2e_tests/__init__.py": "",
                "testbed/r2e_tests/test_1.py": OWN_TESTS,
            }
        )
    ],
    "a package in the place of conftest.py": [
        writing({"conftest/__init__.py": f"__file__ = '/testbed/conftest.py'\n{FORGING_HOOK}"})
    ],
    "killing what runs it": [at_import("import os, signal\nos.kill(os.getppid(), 9)")],
    "killing everything": [at_import("import os\nos.kill(-1, 9)")],
    "reading what the parent knows": [
        at_import(
            "import os\nfor place in ('fd/0', 'fd/1', 'fd/3', 'environ', 'mem'):\n    try:\n"
            f"        open(f'/proc/{{os.getppid()}}/{{place}}', 'r+b', buffering=0).write(b'{LOG}')\n"
            "    except OSError:\n        pass\n"
        )
    ],
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_without_a_fix_is_0(graded: Callable[..., Graded], name: str) -> None:
    verdict = graded(*ATTACKS[name])
    assert verdict.reward == 0.0
    assert verdict.reason in ("tests_failed", "forged"), verdict.output


COMPILE = "import py_compile as p; p.compile('tiny/core.py', invalidation_mode=p.PycInvalidationMode.UNCHECKED_HASH)"
BY_HAND: dict[str, tuple[bytes, list[Change]]] = {
    "stale byte code": (
        b"tiny/__pycache__/core.",
        [
            fix,
            running(f'.venv/bin/python -c "{COMPILE}" && cp tiny/__pycache__/core.*.pyc core.pyc'),
            writing({"tiny/core.py": BUGGY}),
        ],
    ),
    "a plugin in the virtual environment": (
        b"site-packages/evil.pth",
        [writing({".venv/lib/python3.11/site-packages/evil.pth": "import evil\n", "evil.py": FORGING_HOOK})],
    ),
    "another Python in the virtual environment": (
        b".venv/bin/python",
        [
            running("rm .venv/bin/python"),
            writing({".venv/bin/python": f"#!/bin/sh\nprintf '{LOG}'\n"}),
            running("chmod +x .venv/bin/python"),
        ],
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_patch_that_was_not_made_by_us_does_not_get_around_the_policy(
    sandboxes: Sandboxes, problem: Problem, name: str
) -> None:
    """Sandboxes leave these files out of their patches; one from a file of predictions may have them."""
    mark, changes = BY_HAND[name]
    with sandboxes.open(problem.task) as sandbox:
        for change in changes:
            change(sandbox)
        made = sandbox.run("git add -A -f . && git diff --cached --binary --no-renames HEAD", max_output=1 << 22)
    assert made.exit_code == 0 and mark in made.stdout
    verdict = judge(sandboxes, problem, made.stdout)
    assert (verdict.reward, verdict.reason) == (0.0, "tests_failed"), verdict.output


HARMLESS = ["a conftest that turns failures into passes", "another run_tests.sh", "an entry-point plugin", "site hooks"]
HARMLESS += ["a pytest.py, a json.py and others", "addopts in pytest.ini", "links in the place of tests"]


@pytest.mark.parametrize("name", HARMLESS)
def test_what_the_policy_drops_or_ignores_does_not_spoil_a_fix(graded: Callable[..., Graded], name: str) -> None:
    verdict = graded(*ATTACKS[name], fix)
    assert verdict.reward == 1.0, verdict.output


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a module that prints a summary and exits", "the tests' process ended with 0 before pytest had returned"),
        ("a summary behind pytest's capture, then an exit", "the tests' process ended with 0 before pytest had"),
        ("a summary behind pytest's capture", "2 summaries instead of one"),
        ("a summary behind pytest's capture, then pytest's own end", "the summary lists {'PASSED': 3, 'FAILED': 1"),
        ("killing what runs it", "the trusted parent of the tests was ended or gave no answer"),
    ],
)
def test_a_forged_summary_is_called_forged(graded: Callable[..., Graded], name: str, why: str) -> None:
    verdict = graded(*ATTACKS[name])
    assert (verdict.reward, verdict.reason) == (0.0, "forged")
    assert verdict.output.startswith(why)


def test_the_same_summaries_are_believed_by_the_original_reward(graded: Callable[..., Graded]) -> None:
    """So they are attacks."""
    for name in ("a summary behind pytest's capture, then an exit", "a summary behind pytest's capture"):
        assert graded(*ATTACKS[name], reward="r2e").reward == 1.0


def test_the_original_reward_falls_for_a_conftest(graded: Callable[..., Graded]) -> None:
    """The flaw that `r2e` keeps, so that runs can be compared with DeepSWE's."""
    assert graded(writing({"conftest.py": FORGING_HOOK}), reward="r2e").reward == 1.0


def test_a_patch_that_renames_what_it_may_not_touch_is_refused(sandboxes: Sandboxes, problem: Problem) -> None:
    patch = b"diff --git a/.venv/bin/python b/python\nsimilarity index 100%\n"
    patch += b"rename from .venv/bin/python\nrename to python\n"
    verdict = judge(sandboxes, problem, patch)
    assert (verdict.reward, verdict.reason) == (0.0, "patch_does_not_apply")
    assert "renames or copies .venv/bin/python" in verdict.output


@pytest.mark.parametrize(
    "command",
    [
        "rm -f /dev/null",
        "printf 'echo No space left on device >&2; exit 1' > $(command -v git)",
        "rm -rf /usr/bin /bin; true",
        "python3 -c 'import ctypes; l = ctypes.CDLL(None); [l.shmget(i, 1 << 22, 0o1600) for i in range(1, 999)]'",
    ],
)
def test_what_an_agent_breaks_is_its_own_failure_and_not_the_infrastructures(
    sandboxes: Sandboxes, problem: Problem, command: str
) -> None:
    with sandboxes.open(problem.task) as sandbox:
        sandbox.run(command)
        assert sandbox.run("cat; echo still").exit_code in (0, 1, 127)
        sandbox.write("/testbed/big", bytes(8 << 20))
        try:
            diff = sandbox.diff()
        except OSError:
            return  # reward 0, no_patch
    assert judge(sandboxes, problem, diff).reward == 0.0
