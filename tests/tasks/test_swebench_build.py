"""Offline tasks in SWE-bench's form: what a row says, and on an engine that harness and rewards can use the images."""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException

from aem_swe.errors import SandboxError
from aem_swe.sandboxes import SandboxLimits, open_sandboxes
from aem_swe.sandboxes.images import Client, make_commits, run_once, swebench_tag
from aem_swe.tasks.r2e_build import build as build_r2e
from aem_swe.tasks.r2e_build_sources import load_source
from aem_swe.tasks.source import Source, grading_programs, load
from aem_swe.tasks.swebench_build import build, instance_id, make_repository, make_row, without_tests
from aem_swe.tasks.swebench_script import eval_script

NAME = "demo-train-0"
TESTS = '''"""Head."""
import pytest


@pytest.mark.parametrize("x", [1])
def test_a(x):
    assert x


class TestB:
    def test_b(self):
        pass

    @pytest.mark.skip
    def test_c(self):
        pass


class TestD:
    def test_d(self):
        pass


def test_e():
    pass
'''


def test_tests_can_be_taken_out_of_a_file() -> None:
    left = without_tests(TESTS, {"test_a[1]", "TestB.test_c", "TestD.test_d"})
    kept = ["class TestB:\n    def test_b(self):\n        pass\n", "def test_e():\n    pass\n"]
    assert left == "\n\n".join(['"""Head."""\nimport pytest\n', *kept])
    assert without_tests(TESTS, set()) == TESTS


def test_ids_are_of_swe_benchs_form() -> None:
    assert (instance_id("boltons"), instance_id("demo-train-3")) == ("boltons__boltons-1", "aem-swe__demo-3")


def test_two_patches_lead_from_the_base_to_the_fix_and_to_the_new_tests(tmp_path: Path) -> None:
    repository = make_repository(load_source(NAME), set())
    commits, again = make_commits(repository), make_commits(repository)
    assert (commits.base, commits.fix, commits.tests) == (again.base, again.fix, again.tests)
    for path, content in repository.base:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    for path, content in commits.git:
        (tmp_path / ".git" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / ".git" / path).write_bytes(content)
    (tmp_path / ".git/refs/tags").mkdir(parents=True)

    def git(*arguments: str, given: bytes = b"") -> str:
        done = subprocess.run(["git", *arguments], cwd=tmp_path, input=given, capture_output=True, check=True)
        return done.stdout.decode().strip()

    assert git("rev-parse", "HEAD") == commits.base and git("status", "--porcelain") == ""
    assert git("rev-list", "--all", "--count") == "1"
    git("apply", "-", given=commits.fix)
    assert all((tmp_path / path).read_bytes() == content for path, content in load_source(NAME).project.fixed)
    assert commits.tests == b""  # none of its tests was named as failing


def test_the_script_restores_the_tests_around_the_run() -> None:
    patch = "diff --git a/tests/a b.py b/tests/a b.py\n--- a/tests/a b.py\n+++ b/tests/a b.py\n@@ -1 +1 @@\n-x\n+y\n"
    lines = eval_script("c0ffee", patch).split("\n")
    assert lines.count("git checkout c0ffee 'tests/a b.py'") == 2 and "pytest -rA 'tests/a b.py'" in lines
    assert [line for line in lines if ">>>>>" in line] == [
        ": '>>>>> Start Test Output'", ": '>>>>> End Test Output'"
    ]  # fmt: skip


def test_a_row_has_the_columns_of_swebench_5() -> None:
    source = load_source(NAME)
    repository = make_repository(source, set())
    row = make_row(NAME, source, swebench_tag(repository), make_commits(repository))
    assert (row["repo"], row["hints_text"], row["version"]) == ("aem-swe/demo", "", "1")
    assert "[ISSUE]" not in row["problem_statement"] and row["image"].startswith("aem-swe/swebench-demo-train-0:")
    assert (row["log_parser"], row["eval_type"]) == ("parse_log_pytest", "pass_and_fail")


# --- on an engine ---


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    try:
        connected = docker.from_env(timeout=120)
        connected.ping()
    except DockerException as error:
        pytest.skip(f"no container engine: {error}; start one (dockerd) to run these tests")
    with contextlib.closing(connected):
        yield connected


@pytest.fixture(scope="module")
def rows(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    try:
        r2e = build_r2e(client, folder / "r2e", [NAME])
    except SandboxError as error:
        pytest.skip(str(error))
    return build(client, r2e, folder / "swebench", [NAME])


@pytest.mark.docker
def test_the_image_is_what_the_harness_and_its_scripts_expect(client: Client, rows: Path) -> None:
    row = json.loads(rows.read_text())
    image = client.images.get(row["image"])
    assert not image.attrs["Config"].get("Entrypoint")
    script = """
        set -e
        cd /testbed; git rev-parse HEAD; git status --porcelain; git log --all --format=%s
        source /opt/miniconda3/bin/activate; conda activate testbed
        which pytest python | xargs dirname | uniq
        cd /; python -c 'import pytest, sys; print(sys.prefix)'
        for program in bash git patch tail kill; do command -v $program > /dev/null; done
    """
    code, said = run_once(client, row["image"], script)
    assert (code, said.split("\n")) == (
        0, [row["base_commit"], "Import demo-train-0", "/opt/miniconda3/envs/testbed/bin", "/usr/local", ""],
    )  # fmt: skip


@pytest.mark.docker
@pytest.mark.parametrize("reward", ["hardened", "swebench"])
def test_both_rewards_tell_the_fix_from_nothing(rows: Path, reward: str) -> None:
    pytest.importorskip("swebench", reason="needs swebench: pip install 'aem-swe[swebench]'")
    [problem] = load(Source(str(rows), reward)).problems  # type: ignore[arg-type]  # parametrized
    limits = SandboxLimits(memory_mb=512)
    with open_sandboxes("docker", limits=limits, programs=grading_programs()) as sandboxes:
        for patch, wanted in ((problem.gold, 1.0), (b"", 0.0)):
            with sandboxes.open(problem.task, purpose="grading") as sandbox:
                graded = problem.grader.grade(problem.task, patch, sandbox)
            assert graded.reward == wanted, graded.output


@pytest.mark.docker
def test_a_second_build_runs_nothing_and_changes_nothing(client: Client, rows: Path, tmp_path: Path) -> None:
    shutil.copytree(rows.parents[1], tmp_path / "again")
    said: list[str] = []
    again = build(client, tmp_path / "again/r2e/rows.jsonl", tmp_path / "again/swebench", [NAME], said.append)
    assert again.read_bytes() == rows.read_bytes()
    assert said == [f"1/1 {json.loads(rows.read_text())['image']}: aem-swe__demo-0, kept"]
