"""The trusted parent with real children, and what is believed of its reply."""

import ast
import base64
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from folder_sandbox import FolderSandbox, make_environment
from r2e_rows import make_project, open_project

from aem_swe.errors import SandboxError
from aem_swe.tasks import pytest_child, trusted_run
from aem_swe.tasks.hardened import fixed_command
from aem_swe.tasks.hidden_tests import HiddenTests, seal_key, unseal
from aem_swe.tasks.patch_policy import Prepared
from aem_swe.tasks.trusted_run import FixedCommand, Summary, believe, run_tests
from aem_swe.types import Graded, Task

HEAD = "=" * 27 + " short test summary info " + "=" * 28
GOOD = f"x.py .F\n{HEAD}\nPASSED x.py::a\nFAILED x.py::b - no\nERROR y.py - z\n"
GOOD += "=== 1 failed, 1 passed, 1 error in 0.10s ===\n"
COUNTS = {"passed": 1, "failed": 1, "error": 1}


def packed(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode())).decode()


def reply(output: str = GOOD, *, code: int = 1, told: object = "", **changes: Any) -> dict[str, Any]:
    said = json.dumps({"code": code, "counts": COUNTS}) if told == "" else told
    whole = {"started": None, "exit_code": code, "told": said, "truncated": False, "stderr": packed("")}
    return {**whole, "stdout": packed(output), **changes}


def reason(verdict: Summary | Graded) -> str:
    return "believed" if isinstance(verdict, Summary) else f"{verdict.reason}: {verdict.output.splitlines()[0]}"


def test_an_honest_run_is_believed() -> None:
    summary = believe(reply(), has_counts=True)
    assert isinstance(summary, Summary)
    assert summary.text.startswith(HEAD) and "x.py .F" not in summary.text and summary.exit_code == 1


NOTHING = "=== no tests ran in 0.01s ===\n"


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (reply(told=None), "forged: the tests' process ended with 1 before pytest had returned"),
        (reply(told="{"), "forged: the tests' process ended with 1 before pytest had returned"),
        (reply(told="[1]"), "forged: the tests' process ended with 1 before pytest had returned"),
        (reply(told='{"code": "0", "counts": null}'), "forged: the tests' process ended with 1 before pytest had"),
        (reply(exit_code=0), "forged: pytest returned 1, and its process ended with 0"),
        (reply(truncated=True), "forged: the tests printed more than"),
        (reply(GOOD + GOOD), "forged: 2 summaries instead of one"),
        (reply("short test summary info\n" + GOOD), "forged: 2 summaries instead of one"),
        (reply(GOOD.replace("\n===", "\nx===", 1)), "forged: 1 summaries instead of one"),
        (reply("1 passed\n"), "forged: 0 summaries instead of one"),
        (reply(GOOD.replace("PASSED", "PASSED x.py::c\nPASSED")), "forged: the summary lists {'PASSED': 2"),
        (reply(GOOD.replace("FAILED x.py::b - no\n", "")), "forged: the summary lists {'PASSED': 1, 'FAILED': 0"),
        (reply(code=0), "forged: the summary lists {'PASSED': 1, 'FAILED': 1, 'ERROR': 1}, and the exit code is 0"),
        (reply(NOTHING, code=2), "tests_failed: the tests were interrupted"),
        (reply(NOTHING, code=5), "tests_failed: the tests could not be run (pytest's exit code 5)"),
        (reply(code=3), "tests_failed: the tests could not be run (pytest's exit code 3)"),
    ],
)
def test_anything_else_is_not_believed(made: dict[str, Any], verdict: str) -> None:
    said = reason(believe(made, has_counts=True))
    assert said.startswith(verdict)


def test_all_passed_with_exit_code_1_is_forged_and_with_0_it_is_not() -> None:
    output = f"{HEAD}\nPASSED x.py::a\n=== 1 passed in 0.10s ===\n"
    counts = {"passed": 1, "failed": 0, "error": 0}
    for code, verdict in ((0, "believed"), (1, "forged")):
        told = json.dumps({"code": code, "counts": counts})
        assert reason(believe(reply(output, code=code, told=told), has_counts=True)).startswith(verdict)


@pytest.mark.parametrize(
    ("last", "verdict"),
    [
        ("=== 1 failed, 1 error, 1 passed in 0.10s ===", "believed"),
        ("1 failed, 1 errors, 1 passed, 7 warnings in 0.10s (0:00:01)", "believed"),
        ("=== 1 failed, 2 passed in 0.10s ===", "forged"),
        ("=== 1 failed, 1 error, 1 passed in 0.10s ===\n=== no tests ran in 0.01s ===", "forged"),
        ("", "forged"),
    ],
)
def test_a_program_without_counts_is_held_to_its_last_line(last: str, verdict: str) -> None:
    output = "\n".join([HEAD, "PASSED x::a", "FAILED x::b", "ERROR y::z", last, ""])
    told = json.dumps({"code": 1, "counts": None})
    assert reason(believe(reply(output, told=told), has_counts=False)).startswith(verdict)
    assert reason(believe(reply(output, told=told), has_counts=True)).startswith("forged")


# --- real children ---


def run_child(sandbox: FolderSandbox, command: FixedCommand, names: tuple[str, ...] = ("tiny",)) -> Summary | Graded:
    (sandbox.workdir / "x.ini").write_text("[pytest]\n")
    prepared = Prepared(("x.ini",), names, ())
    return run_tests(Task("tiny", (), workdir=str(sandbox.workdir)), sandbox, command, prepared, 30.0)


def test_an_image_without_its_python_is_an_error_of_the_sandbox(tmp_path: Path) -> None:
    sandbox = open_project(tmp_path)
    with pytest.raises(SandboxError, match=r"tiny: the image cannot start its tests: .venv/bin/nothing: No such file"):
        run_child(sandbox, FixedCommand(".venv/bin/nothing"))


def test_a_process_left_behind_does_not_hold_up_the_verdict(tmp_path: Path) -> None:
    sandbox = open_project(tmp_path)
    code = "import os, time\nif os.fork() == 0:\n    time.sleep(20)\n    os._exit(0)\ndef test(): pass\n"
    (sandbox.workdir / "test_it.py").write_text(code)
    verdict = run_child(sandbox, FixedCommand(".venv/bin/python", ("-rA", "test_it.py")))
    assert reason(verdict) == "believed"


def test_the_parent_cannot_be_read_by_what_it_runs(tmp_path: Path) -> None:
    sandbox = open_project(tmp_path)
    code = "import os\ndef test():\n    assert os.stat(f'/proc/{os.getppid()}/environ').st_uid == 0\n"
    code += "    try:\n        os.listdir(f'/proc/{os.getppid()}/fd')\n    except PermissionError:\n        return\n"
    code += "    assert os.geteuid() == 0, 'root with all capabilities may look; others may not'\n"
    (sandbox.workdir / "test_it.py").write_text(code)
    assert reason(run_child(sandbox, FixedCommand(".venv/bin/python", ("-rA", "test_it.py")))) == "believed"


def test_a_unittest_program_of_the_row_is_run_as_a_script(tmp_path: Path) -> None:
    sandbox = open_project(tmp_path)
    folder = sandbox.workdir / "r2e_tests"
    folder.mkdir()
    (folder / "test_1.py").write_text(
        "import unittest\nfrom tiny.core import double, triple\nclass T(unittest.TestCase):\n"
        "    def test_double(self): self.assertEqual(double(2), 4)\n"
        "    def test_triple(self): self.assertEqual(triple(2), 6)\n"
    )
    (folder / "unittest_custom_runner.py").write_text(RUNNER)
    command = fixed_command("pillow", ("test_1.py", "unittest_custom_runner.py"))
    summary = run_child(sandbox, command)
    assert isinstance(summary, Summary), summary
    assert "FAILED test_1::T::test_double" in summary.text and "PASSED test_1::T::test_triple" in summary.text


RUNNER = """import sys, unittest

class Result(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.rows = []
    def addSuccess(self, test):
        self.rows.append(("PASSED", test))
    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.rows.append(("FAILED", test))

result = Result()
unittest.TestLoader().discover("r2e_tests")(result)
print("==== short test summary info ====")
for status, test in result.rows:
    print(status, "::".join([type(test).__module__, type(test).__name__, test._testMethodName]))
failed = len(result.failures)
print("=== %d failed, %d passed in 0.00s ===" % (failed, len(result.rows) - failed))
sys.exit(not result.wasSuccessful())
"""


def test_commands_of_repositories() -> None:
    assert fixed_command("pandas", ("test_1.py",)).arguments == ("-rA", "r2e_tests")
    assert fixed_command("orange3", ("test_1.py",)).wrapper == ("xvfb-run", "--auto-servernum")
    assert fixed_command("tornado", ("test_1.py", "tornado_unittest_runner.py")).script == (
        "r2e_tests/tornado_unittest_runner.py"
    )


def test_a_wrapper_that_mixes_its_streams_does_not_hide_the_summary(tmp_path: Path) -> None:
    sandbox = open_project(tmp_path)
    wrapper = tmp_path / "xvfb-run"
    wrapper.write_text('#!/bin/sh\necho noise\nDISPLAY=:1 "$@" 2>&1\n')
    wrapper.chmod(0o755)
    (sandbox.workdir / "test_it.py").write_text("def test(): pass\n")
    command = FixedCommand(".venv/bin/python", ("-rA", "test_it.py"), wrapper=(str(wrapper),))
    assert reason(run_child(sandbox, command)) == "believed"


def test_names_of_the_tree_from_before_come_before_packages_of_the_site(tmp_path: Path) -> None:
    sandbox = open_project(tmp_path)
    site = next((sandbox.workdir / ".venv").glob("lib/*/site-packages"))
    for name in ("helpers", "added", "docs"):
        (site / name).mkdir()
        (site / name / "__init__.py").write_text("WHERE = 'site'\n")
        (sandbox.workdir / name).mkdir()
    for name in ("helpers", "added"):
        (sandbox.workdir / name / "__init__.py").write_text("WHERE = 'tree'\n")
    code = "import added, docs, helpers\n"
    code += "def test(): assert (helpers.WHERE, added.WHERE, docs.WHERE) == ('tree', 'site', 'site')\n"
    (sandbox.workdir / "test_it.py").write_text(code)
    command = FixedCommand(".venv/bin/python", ("-rA", "test_it.py"))
    summary = run_child(sandbox, command, names=("helpers", "docs", "setup.py", "sys", "README.md"))
    assert isinstance(summary, Summary) and summary.exit_code == 0, summary


def test_a_project_that_a_plugin_of_pytest_needs_can_be_tested(tmp_path: Path) -> None:
    """As coverage is: the plugin of the site imports the repository's own package."""
    sandbox = open_project(tmp_path)
    site = next((sandbox.workdir / ".venv").glob("lib/*/site-packages"))
    (site / "plug.py").write_text("import tiny.core\n")
    (site / "plug-1.0.dist-info").mkdir()
    (site / "plug-1.0.dist-info/entry_points.txt").write_text("[pytest11]\nplug = plug\n")
    (site / "plug-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (site / "tree.pth").write_text(f"{sandbox.workdir}\n")
    (sandbox.workdir / "test_it.py").write_text("import plug\ndef test(): pass\n")
    summary = run_child(sandbox, FixedCommand(".venv/bin/python", ("-rA", "test_it.py")))
    assert isinstance(summary, Summary) and summary.exit_code == 0, summary


def test_tests_may_start_processes_of_their_own(tmp_path: Path) -> None:
    sandbox = open_project(tmp_path)
    code = "import multiprocessing, subprocess, sys\nfrom tiny.core import triple\n\ndef test_spawn():\n"
    code += "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
    code += "        assert pool.map(triple, [1, 2]) == [3, 6]\n\ndef test_program():\n"
    code += (
        "    said = subprocess.run([sys.executable, '-c', 'import tiny, pytest; print(1)'], stdout=subprocess.PIPE)\n"
    )
    code += "    assert said.stdout == b'1\\n'\n"
    (sandbox.workdir / "test_it.py").write_text(code)
    summary = run_child(sandbox, FixedCommand(".venv/bin/python", ("-rA", "test_it.py")))
    assert isinstance(summary, Summary) and summary.exit_code == 0, summary


def test_without_pytest_in_the_image_the_trees_own_is_not_taken(tmp_path: Path) -> None:
    sandbox = open_project(tmp_path)
    site = next((sandbox.workdir / ".venv").glob("lib/*/site-packages"))
    (site / "pytest").unlink()
    (sandbox.workdir / "pytest.py").write_text("print('evil')\n")
    verdict = run_child(sandbox, FixedCommand(".venv/bin/python", ("-rA", "x.py")), names=("pytest.py",))
    assert isinstance(verdict, Graded) and "evil" not in verdict.output and "No module named 'pytest'" in verdict.output


@pytest.mark.parametrize("version", ["3.6", "3.7", "3.8", "3.9", "3.10", "3.12", "3.13"])
def test_the_child_is_written_for_old_and_new_pythons(version: str) -> None:
    beside = sorted(Path(sys.base_prefix).parent.glob(f"{version}.*/bin/python"))  # as pyenv keeps them
    found = [str(path) for path in beside] or [path for path in [shutil.which(f"python{version}")] if path]
    if not found or subprocess.run([found[0], "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"no Python {version} here; install one, for example with pyenv")
    code = "import sys; compile(open(sys.argv[1]).read(), 'child', 'exec')"
    subprocess.run([found[0], "-I", "-c", code, pytest_child.__file__], check=True)


# --- hidden tests ---


def test_what_is_sealed_needs_the_rows_own_tests() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("r2e_tests/a.py", "run_tests.sh", "r2e_tests/../../etc/passwd", "other"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    key = seal_key("tests")
    stream = hashlib.shake_256(bytes.fromhex(key)).digest(len(out.getvalue()))
    sealed = bytes(a ^ b for a, b in zip(out.getvalue(), stream, strict=True))
    assert unseal(sealed, key) == {"r2e_tests/a.py": b"x", "run_tests.sh": b"x"}
    with pytest.raises(tarfile.TarError):
        unseal(sealed, seal_key("other tests"))


def test_the_rows_tests_win_over_the_images(tmp_path: Path) -> None:
    sandbox = FolderSandbox(make_project(tmp_path), {})
    hidden = HiddenTests((("r2e_tests/test_1.py", b"row"),), "00", sealed_at="nowhere")
    assert hidden.collect(Task("t", ()), sandbox) == {"r2e_tests/test_1.py": b"row"}
    (sandbox.workdir / "sealed").write_bytes(b"garbage" * 200)
    with pytest.raises(SandboxError, match="t: the hidden tests that its image keeps cannot be read"):
        HiddenTests((), "00", sealed_at="sealed").collect(Task("t", ()), sandbox)


def test_every_program_is_the_standard_library_alone() -> None:
    sources = [*trusted_run.programs().values(), Path(pytest_child.__file__).read_text()]
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or "?"] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_the_environment_for_tests_is_complete(tmp_path: Path) -> None:
    python = make_environment(tmp_path)
    done = subprocess.run([python, "-I", "-c", "import pytest"], check=False)
    assert done.returncode == 0
