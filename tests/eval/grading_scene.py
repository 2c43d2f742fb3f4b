"""Instances in SWE-bench's form with real images, patches of every kind for them, and how to grade in a process."""

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import docker
from command_line import environment
from docker.errors import DockerException

from aem_swe.errors import SandboxError
from aem_swe.sandboxes.reaper import LABEL
from aem_swe.tasks.r2e_build import build as build_r2e
from aem_swe.tasks.r2e_build_sources import load_source
from aem_swe.tasks.swebench_build import build

NAMES = ("boltons", "isodate", "natsort", "semver", "toolz", "demo-train-1", "inflection")
Row = dict[str, Any]


@functools.cache
def no_rows() -> str | None:
    """None where the instances could be made, else why not."""
    try:
        demo_rows()
    except (DockerException, SandboxError) as error:
        return f"no container engine: {str(error)[:200]}; start one (dockerd) to run these tests"
    return None


@functools.cache
def demo_rows() -> dict[str, Row]:
    """Seven of the project's own instances, by id; images that the engine has are kept."""
    with contextlib.closing(docker.from_env(timeout=120)) as client, tempfile.TemporaryDirectory() as folder:
        rows = build(client, build_r2e(client, Path(folder, "r2e"), NAMES), Path(folder, "swebench"), NAMES)
        read = [json.loads(line) for line in rows.read_text().splitlines()]
    return {row["instance_id"]: row for row in read}


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_predictions(path: Path, patches: dict[str, str], model: str = "org/m") -> Path:
    """In SWE-bench's form."""
    rows = [{"instance_id": name, "model_name_or_path": model, "model_patch": one} for name, one in patches.items()]
    return write_rows(path, rows)


def new_file(path: str, content: str) -> str:
    """A patch that adds a text file."""
    lines = content.splitlines()
    head = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n"
    return f"{head}@@ -0,0 +1,{len(lines)} @@\n" + "".join(f"+{line}\n" for line in lines)


NOTHING = new_file("notes.txt", "nothing is repaired\n")
BROKEN = NOTHING.replace("@@ -0,0 +1,1 @@", "@@ -7,9 +1,1 @@").replace("new file mode 100644\n", "")
PASSING_CONFTEST = new_file(
    "conftest.py",
    "import pytest\n\n\n@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtest_makereport(item, call):\n"
    "    report = (yield).get_result()\n    report.outcome = 'passed'\n",
)
NO_DAEMON = new_file(
    "conftest.py",
    "import os\nfor number in range(1, 30):\n    try:\n"
    "        os.write(number, b'Error response from daemon: Cannot connect to the Docker daemon')\n"
    "    except OSError:\n        pass\nos._exit(3)\n",
)
"""Its log is what the harness calls a broken environment."""


def prints_and_exits(row: Row) -> str:
    """The module that the gold patch repairs prints what the tests should say, and ends the process, at its import."""
    names = [*json.loads(row["FAIL_TO_PASS"]), *json.loads(row["PASS_TO_PASS"])]
    path = next(line for line in row["patch"].split("\n") if line.startswith("+++ b/")).removeprefix("+++ b/")
    project = load_source(row["instance_id"].partition("__")[0]).project
    first = dict(project.buggy)[path].decode().split("\n")[0]
    log = "".join(f"PASSED {name}\n" for name in names)
    code = ["import os", "for number in range(1, 30):", "    try:", f"        os.write(number, {log.encode()!r})"]
    code += ["    except OSError:", "        pass", "os._exit(0)"]
    head = f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1,1 +1,{len(code) + 1} @@\n"
    return head + "".join(f"+{line}\n" for line in code) + f" {first}\n"


def in_process(command: str, *arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    """`aem-swe grade` or `aem-swe audit`, running."""
    code = f"import sys, typer\nfrom aem_swe.cli_grade import {command}\ntyper.run({command})"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def containers(run: str) -> list[str]:
    """Names of all containers, running or not, whose run label begins so."""
    with contextlib.closing(docker.from_env()) as client:
        found = client.api.containers(all=True, filters={"label": f"{LABEL}=container"})
        return [one["Names"][0] for one in found if (one["Labels"].get(f"{LABEL}.run") or "").startswith(run)]


def children(pid: int) -> list[int]:
    """Processes whose parent this is."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(folder.name))
    return found


def lives(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return os.path.exists(f"/proc/{pid}")
