"""The verdict of a Harbor task's tests/test.sh on a patch, in a fresh sandbox (harbor.py says what can be forged)."""

import json
import math
from dataclasses import dataclass

from aem_swe.sandboxes.base import CommandResult, Sandbox
from aem_swe.tasks import patch_policy
from aem_swe.tasks._harbor_settings import Env
from aem_swe.tasks.patch_policy import Patch, excluded, prepare
from aem_swe.types import Graded, Task

REWARDS = ("/tmp/rllm/reward.json", "/logs/verifier/reward.json", "/logs/verifier/reward.txt")
"""Where a test script leaves its reward; the first that is there counts. The first one is rLLM's own."""
_LOGS = ("/logs/verifier", "/logs/agent", "/logs/artifacts", "/tmp/rllm")


@dataclass(frozen=True, slots=True)
class HarborGrader:
    """Judges a patch by a task folder's tests/test.sh."""

    folder: str
    """Where the task lies on this machine; `solve` takes it."""
    tests: tuple[tuple[str, bytes], ...]
    """(path below /tests, content)."""
    timeout_s: float
    env: Env
    whole_patch: bool = False

    def grade(self, task: Task, diff: bytes, sandbox: Sandbox) -> Graded:
        files = {f"/tests/{path}": content for path, content in self.tests}
        patch = Patch(diff, () if self.whole_patch else tuple(excluded()))
        prepared = prepare(task, sandbox, [patch], files=files, clear=["/tests", *_LOGS])
        if isinstance(prepared, Graded):
            return prepared
        sandbox.run(["mkdir", "-p", *_LOGS])
        script = "chmod -R a+rx /tests && exec /tests/test.sh 2>&1"
        result = sandbox.run(["bash", "-c", script], env=dict(self.env), timeout=self.timeout_s)
        if result.timed_out:
            return Graded(0.0, "tests_timeout", output=f"the tests were still running after {self.timeout_s:g} s")
        sandbox.kill_all()  # nothing may write a reward while it is read
        return self._verdict(result, {path: _read(sandbox, path) for path in REWARDS})

    def _verdict(self, result: CommandResult, left: dict[str, bytes | None]) -> Graded:
        known, output = self._known(), tail(result)
        written = {path: content for path, content in left.items() if content is not None}
        if strange := [path for path in written if path not in known]:
            return Graded(0.0, "forged", output=f"{strange[0]} was written, which the tests do not know\n{output}")
        for path, content in written.items():
            value = _reward(path, content)
            if value is None:
                return Graded(0.0, "forged", output=f"{path} holds no reward: {content[:100]!r}\n{output}")
            reason = "tests_passed" if value >= 1 else "tests_failed"
            return Graded(float(value >= 1), reason, output=f"reward {value:g}\n{output}")
        if result.exit_code != 0:
            return Graded(0.0, "tests_failed", output=f"exit code {result.exit_code}, no reward file\n{output}")
        if known != REWARDS:
            return Graded(0.0, "forged", output=f"test.sh ended well and without the reward that it writes\n{output}")
        return Graded(1.0, "tests_passed", output=output)

    def _known(self) -> tuple[str, ...]:
        """The reward files that the tests name; all of them where they name none, and leave that to a program."""
        text = b"\n".join(content for _, content in self.tests)
        named = [path for path in REWARDS if path.rpartition("/")[2].encode() in text]
        if b"/tmp/rllm" not in text:
            named = [path for path in named if not path.startswith("/tmp/rllm")]
        return tuple(named) or REWARDS


def grading_programs() -> dict[str, str]:
    """{path in a sandbox: source} of the programs that have to be preloaded for this grader."""
    return patch_policy.programs()


def _read(sandbox: Sandbox, path: str) -> bytes | None:
    try:
        return sandbox.read(path, max_bytes=1 << 16)
    except FileNotFoundError:
        return None


def _reward(path: str, content: bytes) -> float | None:
    """The number in reward.txt; in reward.json a number, or of an object `reward`, the mean of `rewards`, or its only
    entry."""
    try:
        value = json.loads(content) if path.endswith(".json") else float(content)
        if isinstance(value, dict):
            several = value["rewards"] if isinstance(value.get("rewards"), dict) else {}
            values = [value["reward"]] if "reward" in value else list((several or value).values())
            values = values if several or len(values) == 1 else []
        else:
            values = [value]
        numbers = [float(item) for item in values if isinstance(item, int | float)]
    except (ValueError, OverflowError, RecursionError):
        return None
    sure = numbers and len(numbers) == len(values) and all(map(math.isfinite, numbers))
    return sum(numbers) / len(numbers) if sure else None


def tail(result: CommandResult) -> str:
    """The end of what a command printed."""
    return (result.stdout + result.stderr)[-3000:].decode("utf-8", "replace")
