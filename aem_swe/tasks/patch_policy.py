"""What of a patch is kept before it is graded (the policy is written down in docs/grading.md).

Dropped is what a test run would obey without anybody importing it, and what the grader restores anyway. All else is
kept: sources, data, documentation, packaging, new tests, and configuration files (the run uses a copy from before).
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aem_swe.errors import SandboxError
from aem_swe.sandboxes.base import Sandbox
from aem_swe.tasks import prepare_tree
from aem_swe.types import Graded, Task

PREPARE_AT = "/opt/aem/grading/prepare_tree.py"
_TIMEOUT_S = 300.0
_NAMES = (
    "conftest.py",
    "conftest.so",
    "conftest.*.so",
    "sitecustomize.*",
    "usercustomize.*",
    "*.pth",
    "*.pyc",
    "*.pyo",
    "*.egg-link",
)
"""Files of these names anywhere."""
_FOLDERS = (
    "__pycache__", "*.dist-info", "*.egg-info", "conftest", "sitecustomize", "usercustomize", ".pytest_cache",
)  # fmt: skip
"""Folders (or links) of these names anywhere, with all in them."""
_AT_THE_TOP = (".venv", ".git", "r2e_tests")
"""Folders of the repository itself."""


def excluded(restored: Iterable[str] = ()) -> list[str]:
    """Patterns of `git apply --exclude`, in which * matches slashes too. restored: paths that the grader brings."""
    anywhere = [*_NAMES, *_FOLDERS, *(f"{folder}/*" for folder in _FOLDERS)]
    patterns = [form for pattern in anywhere for form in (pattern, f"*/{pattern}")]
    patterns += [form for folder in _AT_THE_TOP for form in (folder, f"{folder}/*")]
    return patterns + [re.sub(r"([\\*?\[])", r"\\\1", path) for path in restored]


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch and the patterns of paths in it that are left out."""

    content: bytes
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A tree that is ready for its tests."""

    configurations: tuple[str, ...]
    """Copies of pytest's configuration files from before the patch, in the order in which pytest looks for them."""
    names: tuple[str, ...]
    """What the top folder could be asked to import before the patch."""
    removed: tuple[str, ...]
    """Links of the patch that led out of the tree."""


def prepare(
    task: Task,
    sandbox: Sandbox,
    patches: Sequence[Patch],
    *,
    files: Mapping[str, bytes],
    clear: Sequence[str] = (),
    stem: str = "",
) -> Prepared | Graded:
    """Copy the configuration, apply patches, put trusted files in place: in a fresh sandbox, before anything runs.

    files, clear: paths relative to the workdir, or absolute; `clear` is removed first.
    stem: how the names of the copies begin; without one no copies are made.
    Returns a reward of 0 where a patch does not apply. Raises SandboxError where the sandbox cannot do it.
    """
    request = {
        "workdir": task.workdir,
        "patches": [[_text(patch.content), list(patch.exclude)] for patch in patches],
        "files": {path: _text(content) for path, content in files.items()},
        "clear": list(clear),
        "stem": stem,
    }
    result = sandbox.run(
        ["python3", PREPARE_AT], cwd="/", stdin=json.dumps(request).encode(), timeout=_TIMEOUT_S, max_output=1 << 20
    )
    if result.out_of_memory or result.timed_out:
        limit = "its time limit" if result.timed_out else "the memory limit"
        return Graded(0.0, "patch_does_not_apply", output=f"applying the patch reached {limit}")
    if result.exit_code != 0:
        said = result.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise SandboxError(f"{task.id}: the tree could not be prepared for grading: {said or result.exit_code}")
    reply = json.loads(result.stdout)
    if reply["refused"] is not None:
        return Graded(0.0, "patch_does_not_apply", output=reply["refused"])
    return Prepared(tuple(reply["configurations"]), tuple(reply["names"]), tuple(reply["removed"]))


def programs() -> dict[str, str]:
    """{path in a sandbox: source} of the program that `prepare` runs."""
    with open(prepare_tree.__file__, encoding="utf-8") as file:
        return {PREPARE_AT: file.read()}


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
