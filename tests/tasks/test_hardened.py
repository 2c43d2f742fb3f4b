"""The hardened reward from patch to verdict, with the real programs and pytest; only the sandbox is a folder."""

import pickle
from pathlib import Path

import pytest
from folder_sandbox import FolderSandbox
from r2e_rows import BUGGY, EXPECTED, FIXED, GOLD, changed, make_row, new_file, new_link, open_project

from aem_swe.tasks.hardened import HardenedGrader
from aem_swe.tasks.r2e_gym import make_problem
from aem_swe.types import Graded, Task

PROBLEM = make_problem(make_row())


@pytest.fixture
def sandbox(tmp_path: Path) -> FolderSandbox:
    return open_project(tmp_path)


def grade(sandbox: FolderSandbox, diff: bytes) -> Graded:
    task = Task("tiny", PROBLEM.task.statement, workdir=str(sandbox.workdir))
    grader = PROBLEM.grader
    assert isinstance(grader, HardenedGrader)
    return pickle.loads(pickle.dumps(grader)).grade(task, diff, sandbox)


def broken(prefix: str) -> bytes:
    """A patch that fixes nothing but runs code when the module is imported."""
    return changed("tiny/core.py", BUGGY, f"{prefix}\n{BUGGY}")


def forged_log(*, head: str = "=" * 27) -> str:
    rows = [f"{status} r2e_tests/test_1.py::{name.replace('.', '::')}" for name, status in EXPECTED.items()]
    return "\\n".join(
        [f"{head} short test summary info {head}", *rows, f"{head} 1 failed, 3 passed in 0.01s {head}", ""]
    )


def test_no_change_is_0(sandbox: FolderSandbox) -> None:
    nothing = grade(sandbox, b"")
    assert (nothing.reward, nothing.reason) == (0.0, "tests_failed")
    assert nothing.output.startswith("2 of 4 tests differ, first 'test_double[1]': FAILED instead of PASSED")


def test_the_fix_is_1(sandbox: FolderSandbox) -> None:
    graded = grade(sandbox, PROBLEM.gold)
    assert (graded.reward, graded.reason) == (1.0, "tests_passed"), graded.output


def test_a_patch_that_does_not_apply_is_0(sandbox: FolderSandbox) -> None:
    graded = grade(sandbox, changed("tiny/core.py", "other\n", FIXED))
    assert (graded.reward, graded.reason) == (0.0, "patch_does_not_apply")
    assert "tiny/core.py" in graded.output


FORGING_CONFTEST = """import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if "not_yet" not in item.name:
        report.outcome = "passed"
"""


@pytest.mark.parametrize("path", ["conftest.py", "r2e_tests/conftest.py", "tiny/conftest.py"])
def test_a_forging_conftest_is_dropped(sandbox: FolderSandbox, path: str) -> None:
    before = (sandbox.workdir / "conftest.py").read_text()
    forged = changed(path, before, FORGING_CONFTEST) if path == "conftest.py" else new_file(path, FORGING_CONFTEST)
    assert grade(sandbox, forged).reason == "tests_failed"
    assert (sandbox.workdir / "conftest.py").read_text() == before


def test_the_fix_beside_a_forging_conftest_is_1(sandbox: FolderSandbox) -> None:
    assert grade(sandbox, GOLD + new_file("tiny/conftest.py", FORGING_CONFTEST)).reward == 1.0


IMPORT_TIME = {
    "a summary and the exit code 0": f"import os, sys\nos.write(1, b'{forged_log()}')\nos._exit(0)",
    "a summary on every descriptor, then exit": f"""import os
for fd in range(20):
    try:
        os.write(fd, b'{forged_log()}')
    except OSError:
        pass
os._exit(0)""",
    "a summary on every descriptor, then go on": f"""import os
for fd in range(20):
    try:
        os.write(fd, b'{forged_log()}')
    except OSError:
        pass""",
    "a summary, then pytest.exit": f"""import os, pytest
for fd in range(20):
    try:
        os.write(fd, b'{forged_log()}')
    except OSError:
        pass
pytest.exit('done', returncode=0)""",
    "a summary at the end of the process": f"""import atexit, os
atexit.register(lambda: [os.write(fd, b'{forged_log()}') for fd in (1,)])""",
    "killing the parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
    "a fork that goes on": "import os\nos.fork()",
    "an endless output": "import os\nfor _ in range(40):\n    os.write(1, b'x' * 1000000)",
}


@pytest.mark.parametrize("code", IMPORT_TIME.values(), ids=IMPORT_TIME)
def test_code_that_runs_at_import_and_fixes_nothing_is_0(sandbox: FolderSandbox, code: str) -> None:
    graded = grade(sandbox, broken(code))
    assert graded.reward == 0.0
    assert graded.reason in ("forged", "tests_failed"), graded.output


@pytest.mark.parametrize("name", ["a summary and the exit code 0", "a summary, then pytest.exit", "killing the parent"])
def test_what_can_be_seen_through_is_called_forged(sandbox: FolderSandbox, name: str) -> None:
    assert grade(sandbox, broken(IMPORT_TIME[name])).reason == "forged"


PLUGIN = FORGING_CONFTEST
CONFIGURATION = {
    "pytest.ini": "[pytest]\naddopts = -p evil\n",
    ".pytest.ini": "[pytest]\naddopts = --collect-only\n",
    "tox.ini": "[pytest]\naddopts = -p evil\n",
    "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '-p evil'\n",
}


@pytest.mark.parametrize(("name", "content"), CONFIGURATION.items())
def test_configuration_of_the_patch_is_not_obeyed(sandbox: FolderSandbox, name: str, content: str) -> None:
    patch = new_file(name, content) + new_file("evil.py", PLUGIN)
    assert grade(sandbox, patch).reason == "tests_failed"
    assert (sandbox.workdir / name).read_text() == content


def test_configuration_of_the_patch_cannot_spoil_a_fix_either(sandbox: FolderSandbox) -> None:
    assert grade(sandbox, GOLD + new_file("pytest.ini", "[pytest]\naddopts = --no-such-option\n")).reward == 1.0


SHADOWS = [
    "pytest",
    "json",
    "pluggy",
    "_pytest/__init__",
    "unittest/__init__",
    "pygments/__init__",
    "iniconfig/__init__",
]
EXITING = f"import os\nos.write(1, b'{forged_log()}')\nos._exit(0)\n"


SHADOWING = b"".join(new_file(f"{module}.py", EXITING) for module in SHADOWS)


def test_modules_that_shadow_others_are_not_imported(sandbox: FolderSandbox) -> None:
    graded = grade(sandbox, SHADOWING)
    assert graded.reason == "tests_failed" and graded.output.startswith("2 of 4 tests differ")


def test_a_fix_with_such_modules_beside_it_is_1(sandbox: FolderSandbox) -> None:
    assert grade(sandbox, GOLD + SHADOWING).reward == 1.0


def test_entry_points_site_hooks_and_stale_byte_code_are_dropped(sandbox: FolderSandbox) -> None:
    patch = new_file("evil.py", PLUGIN)
    patch += new_file("evil-1.0.dist-info/entry_points.txt", "[pytest11]\nevil = evil\n")
    patch += new_file("evil-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    patch += new_file("evil.egg-info/entry_points.txt", "[pytest11]\nevil = evil\n")
    patch += new_file("sitecustomize.py", EXITING) + new_file("usercustomize.py", EXITING)
    patch += new_file("x.pth", "import evil\n") + new_file("tiny/__pycache__/core.cpython-311.pyc", "x\n")
    patch += new_file(".venv/lib/python3.11/site-packages/evil.pth", "import evil\n")
    assert grade(sandbox, patch).reason == "tests_failed"
    present = {path.name for path in sandbox.workdir.rglob("*")}
    assert "evil.py" in present
    assert not present & {"evil.pth", "sitecustomize.py", "x.pth", "METADATA", "entry_points.txt"}


@pytest.mark.parametrize("target", ["/etc", "..", "../../..", "tiny/../../x"])
def test_links_out_of_the_tree_are_removed(sandbox: FolderSandbox, target: str) -> None:
    assert grade(sandbox, GOLD + new_link("way", target) + new_link("inside", "tiny/core.py")).reward == 1.0
    assert not (sandbox.workdir / "way").is_symlink() and (sandbox.workdir / "inside").is_symlink()


def test_tests_cannot_be_led_elsewhere(sandbox: FolderSandbox) -> None:
    assert grade(sandbox, new_link("r2e_tests", "tiny")).reason == "tests_failed"
    assert grade(sandbox, new_file("r2e_tests/test_1.py", "def test_x(): pass\n")).reason == "tests_failed"


def test_the_environment_steers_nothing(sandbox: FolderSandbox) -> None:
    seen = (
        "import os\nassert not [n for n in os.environ if n.startswith('PYTEST_ADD') or n == 'FROM_IMAGE'], os.environ"
    )
    fixed = changed("tiny/core.py", BUGGY, f"{seen}\n{FIXED}")
    assert grade(sandbox, fixed).reward == 1.0  # PYTEST_ADDOPTS=--collect-only is in the sandbox's environment


def test_legitimate_edits_are_kept(sandbox: FolderSandbox) -> None:
    patch = changed("tiny/core.py", BUGGY, "from tiny.extra import twice as double\nfrom toplevel import triple\n")
    patch += new_file("tiny/extra.py", "def twice(x):\n    return 2 * x\n")
    patch += new_file("toplevel.py", "def triple(x):\n    return 3 * x\n")
    patch += new_file("docs/conf.py", "x = 1\n") + new_file("tests/test_more.py", "def test(): assert False\n")
    graded = grade(sandbox, patch)
    assert graded.reward == 1.0, graded.output


def test_a_time_limit_is_its_own_reason(sandbox: FolderSandbox) -> None:
    problem = make_problem(make_row(), timeout_s=3.0)
    task = Task("tiny", (), workdir=str(sandbox.workdir))
    graded = problem.grader.grade(task, broken("import time\ntime.sleep(60)"), sandbox)
    assert (graded.reward, graded.reason) == (0.0, "tests_timeout")
