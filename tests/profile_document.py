"""The pandas of docs/profiling.md, run as it stands, against what `aem-swe profile` says of the same file."""

import re
from pathlib import Path
from typing import Any  # what the document's code leaves behind

import pytest
from command_line import REPOSITORY

from aem_swe.eval.profile.profile import Profile


def assert_agrees(folder: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch, *, rounding: float = 1e-9) -> None:
    """`rounding`: by how many seconds the starts and durations of spans may be off."""
    code = re.search(r"```python\n(.*?)```", (REPOSITORY / "docs" / "profiling.md").read_text(), re.S)
    assert code
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code[1], names)  # the project's own document
    path, summed, percentiles = (names[name].to_dict() for name in ("path", "summed", "percentiles"))
    assert set(path) | set(summed) | {stage for stage, _ in percentiles} == set(profile.stages)
    for stage, shown in profile.stages.items():
        assert path.get(stage, 0.0) == pytest.approx(shown.path_s, abs=rounding), stage
        assert summed.get(stage, 0.0) == pytest.approx(shown.work_s, abs=rounding), stage
        found = [percentiles.get((stage, share), 0.0) for share in (0.5, 0.95, 0.99, 1.0)]
        assert found == pytest.approx([shown.p50, shown.p95, shown.p99, shown.max], rel=1e-6, abs=1e-9), stage
    assert names["residual"] == pytest.approx(profile.residual_s / len(profile.steps), abs=10 * rounding)
