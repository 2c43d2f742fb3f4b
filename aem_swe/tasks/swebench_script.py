"""The script with which SWE-bench's harness tests an instance, for rows that do not bring theirs.

Between two marks it runs pytest on the files of the test patch, which are taken from the base commit before and after.
"""

import hashlib
import shlex
from collections.abc import Sequence

from aem_swe.tasks.swebench_grading import changed_paths
from aem_swe.tasks.swebench_rows import ENVIRONMENT


def eval_script(base: str, test_patch: str, files: Sequence[str] = ()) -> str:
    """The script that SWE-bench's harness runs after the patch of a model. files: what pytest gets; default: all that
    the test patch changes."""
    paths = changed_paths(test_patch.encode("utf-8", "surrogateescape"))
    restored, tested = shlex.join(paths), shlex.join(files or paths)
    end = f"EOF_{hashlib.sha256(test_patch.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"
    lines = [
        "#!/bin/bash",
        "set -uxo pipefail",
        f"source {ENVIRONMENT.removesuffix('/envs/testbed')}/bin/activate",
        "conda activate testbed",
        "cd /testbed",
        "git config --global --add safe.directory /testbed",
        "git status",
        f"git -c core.fileMode=false diff {base}",
        f"git checkout {base} {restored}",
        f"git apply -v - <<'{end}'",
        test_patch.rstrip("\n"),
        end,
        ": '>>>>> Start Test Output'",
        f"pytest -rA {tested}",
        ": '>>>>> End Test Output'",
        f"git checkout {base} {restored}",
    ]
    return "\n".join(lines) + "\n"
