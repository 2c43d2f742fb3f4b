"""Judging a patch for a SWE-bench row: the tests run here, the verdict is the swebench package's.

`HardenedSweBench` runs the row's pytest command under the trusted parent. `OfficialSweBench` runs the row's eval_script
as the official harness does, after the same patch policy; it is for rows that are not tested with pytest, and for the
reward `swebench`. A patch can forge the result of the latter, apart from extra output markers.
"""

import importlib
import json
import re
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # the swebench package has no types

from aem_swe.errors import ConfigError
from aem_swe.sandboxes.base import Sandbox
from aem_swe.tasks.patch_policy import Patch, excluded, prepare
from aem_swe.tasks.trusted_run import FixedCommand, run_tests
from aem_swe.types import Graded, Task

_MAX_LOG = 64 << 20
_SHOWN = 3000
_CHANGED = re.compile(r'^diff --git "?a/.* "?b/(.+?)"?$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Oracle:
    """Which tests decide, and how a log is read."""

    instance_id: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    log_parser: str
    """A name in the swebench package's registry."""
    eval_type: str = "pass_and_fail"

    def judge(self, summary: str) -> str | None:
        """None if the summary resolves the instance, else what is missing."""
        grading, registry = harness("grading"), harness("log_parsers").PARSER_REGISTRY
        statuses = registry[self.log_parser](summary, None)
        lists = {"FAIL_TO_PASS": list(self.fail_to_pass), "PASS_TO_PASS": list(self.pass_to_pass)}
        kind = harness("constants").EvalType(self.eval_type)
        report = grading.get_eval_tests_report(statuses, {"instance_id": self.instance_id, **lists}, eval_type=kind)
        full = harness("constants").ResolvedStatus.FULL.value
        return None if grading.get_resolution_status(report) == full else _missing(report)


@dataclass(frozen=True, slots=True)
class HardenedSweBench:
    """Judges a patch with a fixed pytest command."""

    oracle: Oracle
    test_patch: bytes
    run: FixedCommand
    timeout_s: float

    def grade(self, task: Task, diff: bytes, sandbox: Sandbox) -> Graded:
        patches = [Patch(diff, tuple(excluded(changed_paths(self.test_patch)))), Patch(self.test_patch)]
        prepared = prepare(task, sandbox, patches, files={}, stem=f".aem-{secrets.token_hex(8)}-")
        if isinstance(prepared, Graded):
            return prepared
        summary = run_tests(task, sandbox, self.run, prepared, self.timeout_s)
        if isinstance(summary, Graded):
            return summary
        differs = self.oracle.judge(summary.text)
        if differs is None:
            return Graded(1.0, "tests_passed")
        return Graded(0.0, "tests_failed", output=f"{differs}\n{summary.shown}")


@dataclass(frozen=True, slots=True)
class OfficialSweBench:
    """Judges a patch with the eval_script of the row, as the official harness does."""

    row: str
    """JSON of what swebench's make_test_spec reads."""
    base_commit: str
    test_patch: bytes
    timeout_s: float
    trusting: bool = False
    """Without the patch policy, and whatever marks the log has: for an audit of the two rewards, never for training."""

    def grade(self, task: Task, diff: bytes, sandbox: Sandbox) -> Graded:
        constants, row = harness("constants"), json.loads(self.row)
        spec = harness("utils").make_test_spec(row)
        # the only commit that the image still has is the one of its tree
        script = spec.eval_script.replace(self.base_commit, "HEAD") if self.base_commit else spec.eval_script
        place = f"/tmp/.aem-{secrets.token_hex(8)}.sh"
        patches = [Patch(diff, () if self.trusting else tuple(excluded(changed_paths(self.test_patch))))]
        prepared = prepare(task, sandbox, patches, files={place: script.encode("utf-8", "surrogateescape")})
        if isinstance(prepared, Graded):
            return prepared
        together, offline = ["bash", "-c", 'exec bash "$0" 2>&1', place], {"PIP_NO_INDEX": "1"}
        result = sandbox.run(together, env=offline, timeout=self.timeout_s, max_output=_MAX_LOG)
        if result.timed_out:
            return Graded(0.0, "tests_timeout", output=f"the tests were still running after {self.timeout_s:g} s")
        log = result.stdout.decode("utf-8", "replace")
        marks = {mark: log.count(mark) for mark in (constants.START_TEST_OUTPUT, constants.END_TEST_OUTPUT)}
        if not self.trusting and any(count > 1 for count in marks.values()):
            return Graded(0.0, "forged", output=f"the log has more marks than the script makes: {marks}")
        return _official_verdict(spec, log)


def harness(module: str) -> Any:
    """A module of swebench.harness. Raises ConfigError where the package is missing: it is an optional extra."""
    try:
        return importlib.import_module(f"swebench.harness.{module}")
    except ImportError as error:
        raise ConfigError(
            f"SWE-bench's tasks are judged by the swebench package, which cannot be imported ({error}); "
            "install it with: pip install 'aem-swe[swebench]'"
        ) from error


def changed_paths(patch: bytes) -> list[str]:
    """The files that a patch changes, by their names after it."""
    return _CHANGED.findall(patch.decode("utf-8", "surrogateescape"))


def _official_verdict(spec: Any, log: str) -> Graded:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "test_output.txt")
        file.write_text(log, encoding="utf-8")
        prediction = {"instance_id": spec.instance_id, "model_patch": "", "model_name_or_path": "aem-swe"}
        report = harness("grading").get_eval_report(spec, prediction, str(file), True)[spec.instance_id]
    if report["resolved"]:
        return Graded(1.0, "tests_passed")
    status = report.get("tests_status")
    said = _missing(status) if status else "the log holds no results that the harness accepts"
    return Graded(0.0, "tests_failed", output=f"{said}\n{log[-_SHOWN:]}")


def _missing(report: Mapping[str, Any]) -> str:
    failed = [*report["FAIL_TO_PASS"]["failure"], *report["PASS_TO_PASS"]["failure"]]
    total = sum(len(report[name][side]) for name in ("FAIL_TO_PASS", "PASS_TO_PASS") for side in ("success", "failure"))
    return f"{len(failed)} of {total} tests did not pass, first {failed[0]!r}" if failed else "the harness says no"
