"""The pandas of docs/profiling.md against the profile, on lines that a short real run does not have."""

import json
from pathlib import Path

import pytest
from profile_document import assert_agrees
from profile_spans import episode, one_step, run_lines, span, write_spans

from aem_swe.eval.profile.profile import load_profile


def test_the_documents_pandas_bear_what_a_killed_and_resumed_run_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed = episode("0/0", span("tool/bash", 1.0, 2.0, parent="a", replay=True), span("agent", 0.0, 4.0, id="a"))
    queued = episode("0/0", span("worker/queue", 4.0, 1.0, latency=True))
    ahead = span("sandbox/create", -1.0, 3.0, background=True, parent="b")
    inside = (*replayed, *queued, ahead, span("batch", 5.0, 2.0, id="b"), span("wait", 0.0, 5.0, waits_for="0/0"))
    killed = [line | {"process": "0"} for line in one_step(3, 9.0, span("batch", 0.0, 8.0), start=80.0, ended=False)]
    *failed, own = one_step(4, 9.0, span("batch", 0.0, 9.0), start=300.0)
    lines = [*run_lines((0.0, 2.0)), *killed, "{torn", *one_step(3, 8.0, *inside, start=200.0), *failed]
    lines += [span("sandbox/close", 207.0, 0.5, step=3, thread="pool"), json.dumps(own | {"failed": True})]
    folder = write_spans(tmp_path, [*lines, '{"stage": "tool/se'])
    profile = load_profile(folder)
    assert [step.step for step in profile.steps] == [1, 2, 3] and profile.late_spans == 2
    assert_agrees(folder, profile, monkeypatch)


def test_the_documents_pandas_bear_a_run_without_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_spans(tmp_path, one_step(1, 3.0, span("batch", 0.0, 2.0)))
    assert_agrees(folder, load_profile(folder), monkeypatch)
