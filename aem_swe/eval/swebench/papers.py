"""The harness's papers of a run: a folder of logs per instance, which must be those of the patch that was graded.

The harness takes a report.json that is there for the answer, whatever patch it is asked about. So a folder is cleared
before an instance is graded, and filled from the cache where a verdict is known already.
"""

import json
import shutil
from pathlib import Path

from aem_swe.errors import ConfigError
from aem_swe.eval.swebench.verdicts import Graded

_REPORT, _PATCH, _OUTPUT = "report.json", "patch.diff", "test_output.txt"


class Papers:
    """Of one model in one run."""

    def __init__(self, folder: Path, model: str, run_id: str) -> None:
        self._folder = folder / "logs/run_evaluation" / run_id / model.replace("/", "__")

    def clear(self, instance_id: str) -> None:
        """Take all papers of an instance away."""
        shutil.rmtree(self._folder / instance_id, ignore_errors=True)

    def test_output(self, instance_id: str) -> str:
        """What its tests printed; empty where they did not run."""
        return _text(self._folder / instance_id / _OUTPUT) or ""

    def restore(self, instance_id: str, patch: str, known: Graded | None) -> None:
        """Let the papers be those of this patch, or none where it has no verdict."""
        place = self._folder / instance_id
        report = None
        if known is not None:
            report = None if known.report is None else json.dumps({instance_id: known.report}, indent=4)
            if _text(place / _PATCH) == patch and _text(place / _REPORT) == report:
                return
        if known is None and _text(place / _PATCH) == patch:
            return  # its verdict cannot be looked up now (another image, no engine), and these are its papers
        self.clear(instance_id)
        if known is None:
            return
        place.mkdir(parents=True)
        (place / _PATCH).write_text(patch, "utf-8", "replace")
        (place / _OUTPUT).write_text(known.test_output, "utf-8", "replace")
        if report is not None:
            (place / _REPORT).write_text(report, "utf-8")


def require_file_name(model: str) -> None:
    """Raise ConfigError where a model's name cannot be part of file names."""
    if model.strip(".") == "" or len(model) > 200 or not model.isprintable():
        raise ConfigError(f"model name {model[:80]!r} is part of file names; give a shorter, printable one")


def _text(path: Path) -> str | None:
    return path.read_text("utf-8", "replace") if path.is_file() else None
