"""Build tasks in R2E-Gym's form without any registry: their images, and a rows.jsonl with exactly R2E-Gym's columns.

The expected results of a row are not written by hand: the hidden tests really run in the image, before and after the
fix, and a task whose tests do not tell the two apart is refused. Building again makes only what is missing or changed.

    build(docker.from_env(), Path("data/r2e-demo"))     # data/r2e-demo/rows.jsonl
"""

import json
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aem_swe.errors import TaskError
from aem_swe.sandboxes.images import Client, build_base, build_r2e_image, make_history, run_once
from aem_swe.tasks.r2e_build_commit import Commit, Json
from aem_swe.tasks.r2e_build_sources import Source, load_source, source_names
from aem_swe.tasks.status_map import read_status_map

ROWS = "rows.jsonl"
_RUN = """
ln -s /r2e_tests r2e_tests
bash run_tests.sh 2>&1; echo "{mark} $?"
git apply --whitespace=nowarn /tmp/fix.patch || exit 99
bash run_tests.sh 2>&1; echo "{mark} $?"
"""


@dataclass(frozen=True, slots=True)
class HiddenRun:
    """What the hidden tests printed, and their exit code."""

    code: int
    output: str

    def statuses(self) -> dict[str, str]:
        """Return {test: PASSED, FAILED or ERROR} as R2E-Gym reads it."""
        return read_status_map(self.output)


def build(
    client: Client, out: Path, names: Sequence[str] | None = None, progress: Callable[[str], None] | None = None
) -> Path:
    """Build base image, task images and rows of `names` (all tasks by default); return the path of the rows.

    Rows of other tasks that the file has already are kept. Raises ConfigError for an unknown name, TaskError for a
    task that its tests cannot judge, SandboxUnavailable where this machine, pip or the engine cannot do it.
    """
    say = progress or (lambda text: None)
    build_base(client, progress=progress)
    out.mkdir(parents=True, exist_ok=True)
    rows = rows_by_commit(out / ROWS)
    wanted = list(names) if names is not None else source_names()
    for number, name in enumerate(wanted, 1):
        source = load_source(name)
        tag = build_r2e_image(client, source.project)
        key = (source.repo_name, source.commit_hash)
        kept = key in rows and rows[key]["docker_image"] == tag
        before, after = runs_of(rows[key]) if kept else _run_tests(client, tag, name, source)
        rows[key] = make_row(source, tag, before, after)
        write_rows(out / ROWS, list(rows.values()))
        say(f"{number}/{len(wanted)} {tag}: {len(after.statuses())} tests, {'kept' if kept else 'run'}")
    return out / ROWS


def make_row(source: Source, image: str, before: HiddenRun, after: HiddenRun) -> Json:
    """Return one row. Raises TaskError unless the fix repairs something and leaves nothing broken."""
    old, new = before.statuses(), after.statuses()
    if not new or set(new.values()) != {"PASSED"} or old == new:
        raise TaskError(f"{source.project.name}: the hidden tests say {old} before the fix and {new} after it")
    commit = _commit(source)
    paths = commit.paths
    entities = commit.edited_entities()
    return {
        "repo_name": source.repo_name,
        "docker_image": image,
        "commit_hash": source.commit_hash,
        "parsed_commit_content": json.dumps(commit.parsed()),
        "execution_result_content": json.dumps(_execution(source, before, after)),
        "modified_files": paths,
        "modified_entity_summaries": entities,
        "relevant_files": [path for path in paths if path.endswith(".py")],
        "num_non_test_files": len(paths),
        "num_non_test_func_methods": sum(entity["type"] != "method" for entity in entities),
        "num_non_test_lines": commit.edited_lines,
        "prompt": f"Write the issue that this commit resolves.\n\n{commit.subject}\n\n{commit.diff}",
        "problem_statement": source.statement,
        "expected_output_json": json.dumps(new, indent=4),
    }


def _commit(source: Source) -> Commit:
    project = source.project
    diff = make_history(project).diff.decode()
    touched = {line[6:] for line in diff.splitlines() if line.startswith(("--- a/", "+++ b/"))}
    before = {path: content.decode() for path, content in project.buggy if path in touched}
    after = {path: content.decode() for path, content in project.fixed if path in touched}
    return Commit(source.commit_hash, project.fix, diff, before, after)


def _execution(source: Source, before: HiddenRun, after: HiddenRun) -> Json:
    tests = source.project.tests
    return {
        "repo_name": source.repo_name,
        "new_commit_hash": source.commit_hash,
        "test_file_codes": [content.decode() for _, content in tests],
        "test_file_names": [name for name, _ in tests],
        "setup_res_code": 0,
        "setup_res_stdout": "",
        "setup_res_stderr": "",
        "new_commit_res_code": after.code,
        "new_commit_res_stdout": after.output,
        "new_commit_res_stderr": "",
        "old_commit_res_code": before.code,
        "old_commit_res_stdout": before.output,
        "old_commit_res_stderr": "",
    }


def _run_tests(client: Client, tag: str, name: str, source: Source) -> tuple[HiddenRun, HiddenRun]:
    """Run the hidden tests in the image before and after the fix."""
    mark = secrets.token_hex(16)
    patch = make_history(source.project).diff
    code, output = run_once(client, tag, _RUN.format(mark=mark), [("fix.patch", patch)])
    parts = output.split(mark)
    if code != 0 or len(parts) != 3:
        raise TaskError(f"{name}: the hidden tests could not be run in {tag}: {output[-500:].strip()}")
    codes = [int(part.lstrip().partition("\n")[0]) for part in parts[1:]]
    return HiddenRun(codes[0], parts[0]), HiddenRun(codes[1], parts[1].partition("\n")[2])


def runs_of(row: Json) -> tuple[HiddenRun, HiddenRun]:
    """The hidden tests' runs before and after the fix, from a row."""
    said = json.loads(row["execution_result_content"])
    return (
        HiddenRun(said["old_commit_res_code"], said["old_commit_res_stdout"]),
        HiddenRun(said["new_commit_res_code"], said["new_commit_res_stdout"]),
    )


def rows_by_commit(path: Path) -> dict[tuple[str, str], Json]:
    """{(repo_name, commit_hash): row} of a file that `build` wrote; empty where there is none."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["repo_name"], row["commit_hash"]): row for row in rows}


def write_rows(path: Path, rows: Sequence[Json]) -> None:
    """Replace the file as a whole, so that an interrupted build leaves the rows that it had."""
    new = path.with_suffix(".new")
    new.write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.replace(new, path)
