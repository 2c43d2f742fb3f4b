"""The pandas of docs/profiling.md, run as it stands, against what `aem-swe profile` says of the same file."""

import ast
import re
from pathlib import Path
from typing import Any  # what the document's code leaves behind

import pytest
from command_line import REPOSITORY

from aem_swe.eval.profile.figure4 import measure_figure4
from aem_swe.eval.profile.growth import measure_growth
from aem_swe.eval.profile.profile import Profile


def assert_agrees(folder: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch, *, rounding: float = 1e-9) -> None:
    """`rounding`: by how many seconds the starts and durations of spans may be off."""
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "profiling.md").read_text(), re.S)
    assert len(blocks) == 4
    for block in blocks:
        assert sum(not isinstance(one, ast.Import | ast.ImportFrom) for one in ast.parse(block).body) <= 10
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec("\n".join(blocks[:3]), names)  # the project's own document
    residual = names["steps"].seconds.mean() - names["path"].sum()
    path, summed, percentiles = (names[name].to_dict() for name in ("path", "summed", "percentiles"))
    assert set(path) | set(summed) | {stage for stage, _ in percentiles} == set(profile.stages)
    for stage, shown in profile.stages.items():
        assert path.get(stage, 0.0) == pytest.approx(shown.path_s, abs=rounding), stage
        assert summed.get(stage, 0.0) == pytest.approx(shown.work_s, abs=rounding), stage
        found = [percentiles.get((stage, share), 0.0) for share in (0.5, 0.95, 0.99, 1.0)]
        assert found == pytest.approx([shown.p50, shown.p95, shown.p99, shown.max], rel=1e-6, abs=1e-9), stage
    assert residual == pytest.approx(profile.residual_s / len(profile.steps), abs=10 * rounding)
    if not any(step.episodes for step in profile.steps):
        return
    exec(blocks[3], names)
    _assert_the_rest_agrees(profile, names, rounding)


def _assert_the_rest_agrees(profile: Profile, names: dict[str, Any], rounding: float) -> None:
    near = {"abs": 10 * rounding}
    for row in measure_figure4(profile).rows:
        assert names["figure4"].get(row.stage, 0.0) == pytest.approx(row.seconds, **near), row.stage
    for step in profile.steps:
        if step.straggler is not None:
            found = names["stragglers"].loc[step.step]
            assert (found.episode, found.task) == (step.straggler.episode, step.straggler.task)
            assert found.seconds == pytest.approx(step.straggler.seconds, **near)
    growth = measure_growth(profile)
    for stage, turns in growth.turns.items():
        for turn in turns if stage != "tool" else ():
            assert names["by_turn"][stage, turn.turn] == pytest.approx(turn.p50, **near), (stage, turn)
    for one in growth.tokens:
        if one.high >= 2 * one.low - 1:
            assert names["per_token"][one.low] == pytest.approx(one.p50, **near), one
    for slowest in growth.slowest:
        assert names["slowest_of"](slowest.episodes) == pytest.approx(slowest.seconds, **near), slowest
