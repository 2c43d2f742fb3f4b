"""The same offline tasks in SWE-bench's form: images as its harness expects them, and rows as swebench 5 reads them.

A row's tests are cut in two: those that pass before the fix are in the repository at the base commit, where an agent
may run them, and the test patch brings the others. FAIL_TO_PASS and PASS_TO_PASS come from really running the row's
eval_script in the image, before and after the fix.

    build(docker.from_env(), Path("data/r2e-demo/rows.jsonl"), Path("data/swe-bench-demo"))
"""

import ast
import json
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from aem_swe.errors import TaskError
from aem_swe.resources import resource
from aem_swe.sandboxes.images import (
    Client,
    Commits,
    Repository,
    build_swebench_image,
    make_commits,
    run_once,
    swebench_tag,
)
from aem_swe.tasks.r2e_build import ROWS, rows_by_commit, runs_of, write_rows
from aem_swe.tasks.r2e_build_commit import Json
from aem_swe.tasks.r2e_build_sources import Source, load_source, package_names, read_package, source_names
from aem_swe.tasks.swebench_script import eval_script

DEMO_REPOSITORY = "aem-swe/demo"
_CREATED = "2024-01-01T00:00:00Z"
_PARSER = "parse_log_pytest"
_STATUS = re.compile(r"^(PASSED|FAILED|ERROR) (\S+)", re.MULTILINE)
"""As swebench's parser names a test: up to the first blank."""
_BETWEEN = re.compile(r">>>>> Start Test Output'?\n(.*)\n[^\n]*>>>>> End Test Output", re.DOTALL)
_RUN = """
bash /tmp/eval.sh 2>&1
echo "{mark}"
git apply --whitespace=nowarn /tmp/fix.patch || exit 99
bash /tmp/eval.sh 2>&1
git apply --whitespace=nowarn --reverse --check /tmp/fix.patch || exit 98
"""


def build(
    client: Client,
    r2e_rows: Path,
    out: Path,
    names: Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Build images and rows of `names` (all tasks by default) from what r2e_build made; return the path of the rows.

    Rows of other tasks that the file has already are kept. Raises ConfigError for an unknown name, TaskError for a
    task that its tests cannot judge, SandboxUnavailable where the engine cannot do it.
    """
    say = progress or (lambda text: None)
    made = rows_by_commit(r2e_rows)
    out.mkdir(parents=True, exist_ok=True)
    rows = {row["instance_id"]: row for row in _read(out / ROWS)}
    wanted = list(names) if names is not None else source_names()
    for number, name in enumerate(wanted, 1):
        source = load_source(name)
        before, _ = runs_of(made[source.repo_name, source.commit_hash])
        repository = make_repository(source, {test for test, status in before.statuses().items() if status != "PASSED"})
        identity = instance_id(name)
        old = rows.get(identity, {})
        tag = swebench_tag(repository)
        build_swebench_image(client, repository)
        row = make_row(name, source, tag, make_commits(repository))
        kept = all(old.get(key) == row[key] for key in row)
        row |= {key: old[key] for key in ("FAIL_TO_PASS", "PASS_TO_PASS")} if kept else _run(client, row)
        rows[identity] = row
        write_rows(out / ROWS, list(rows.values()))
        say(f"{number}/{len(wanted)} {tag}: {identity}, {'kept' if kept else 'run'}")
    return out / ROWS


def instance_id(name: str) -> str:
    """boltons__boltons-1, aem-swe__demo-3."""
    kind, _, number = name.rpartition("-")
    return f"{DEMO_REPOSITORY.replace('/', '__')}-{number}" if kind == "demo-train" else f"{name}__{name}-1"


def make_repository(source: Source, failing: set[str]) -> Repository:
    """The repository at its base commit. failing: the tests that fail there, as R2E-Gym names them."""
    project = source.project
    buggy, place = dict(project.buggy), f"tests/test_{project.name.replace('-', '_')}"
    tests = tuple((f"{place}{path.removeprefix('test_1')}", content) for path, content in project.tests)
    old = tuple((path, without_tests(content.decode(), failing).encode()) for path, content in tests)
    fixed = dict(project.fixed)
    return Repository(
        name=project.name,
        base=tuple(sorted((*project.buggy, *old))),
        fixed=tuple((path, content) for path, content in project.fixed if buggy.get(path) != content),
        removed=tuple(path for path in buggy if path not in fixed),
        tests=tests,
        programs=project.programs,
    )


def without_tests(source: str, names: set[str]) -> str:
    """A test file without the tests of these names (`test_x`, `TestY.test_x`, either with [parameters])."""
    plain = {name.partition("[")[0] for name in names}
    lines: list[str | None] = list(source.splitlines(keepends=True))

    def drop(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        lines[first - 1 : node.end_lineno] = [None] * ((node.end_lineno or first) - first + 1)

    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in plain:
            drop(node)
        elif isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
            going = [method for method in methods if f"{node.name}.{method.name}" in plain]
            for gone in [node] if going and len(going) == len(methods) else going:
                drop(gone)
    return re.sub(r"\n{4,}", "\n\n\n", "".join(line for line in lines if line is not None)).rstrip("\n") + "\n"


def make_row(name: str, source: Source, image: str, commits: Commits) -> Json:
    """One row without the two lists of tests."""
    repository, _, _ = instance_id(name).rpartition("-")
    folder = resource("sandboxes", "packages") / name
    return {
        "instance_id": instance_id(name),
        "repo": repository.replace("__", "/"),
        "base_commit": commits.base,
        "patch": commits.fix.decode(),
        "test_patch": commits.tests.decode(),
        "problem_statement": source.statement.replace("[ISSUE]", "").replace("[/ISSUE]", "").strip() + "\n",
        "hints_text": "",
        "version": read_package(folder).version if name in package_names() else "1",
        "created_at": _CREATED,
        "difficulty": "<15 min fix",
        "image": image,
        "eval_script": eval_script(commits.base, commits.tests.decode()),
        "log_parser": _PARSER,
        "eval_type": "pass_and_fail",
    }


def _run(client: Client, row: Json) -> Json:
    """The two lists of tests, from running the script before and after the fix."""
    mark = secrets.token_hex(16)
    files = [("eval.sh", row["eval_script"].encode()), ("fix.patch", row["patch"].encode())]
    code, output = run_once(client, row["image"], _RUN.format(mark=mark), files)
    parts = output.split(mark)
    found = [_BETWEEN.search(part) for part in parts]
    if code != 0 or len(parts) != 2 or not found[0] or not found[1]:
        raise TaskError(f"{row['instance_id']}: its tests could not be run in {row['image']}: {output[-500:].strip()}")
    before, after = ({test: status for status, test in _STATUS.findall(log[1])} for log in found if log)
    repaired = [test for test in after if before.get(test) != "PASSED"]
    if not repaired or set(after.values()) != {"PASSED"}:
        raise TaskError(f"{row['instance_id']}: the tests say {before} before the fix and {after} after it")
    stay = [test for test in after if before.get(test) == "PASSED"]
    return {"FAIL_TO_PASS": json.dumps(repaired), "PASS_TO_PASS": json.dumps(stay)}


def _read(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
