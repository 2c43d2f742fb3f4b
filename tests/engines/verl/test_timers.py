"""verl's timers as spans, on loops that are built as verl's are: a global timer, a new dictionary per step. No verl."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aem_swe.engines.loop_spans import LoopSpans
from aem_swe.engines.verl.settings import read_settings
from aem_swe.engines.verl.timers import recorded, require_recordable
from aem_swe.errors import ConfigError
from aem_swe.eval.profile.profile import load_profile
from aem_swe.profiling import recording, span


@contextmanager
def marked_timer(name: str, timing_raw: dict[str, float], color: str = "") -> Iterator[None]:
    """As verl's: the time is in the dictionary afterwards."""
    began = time.perf_counter()
    yield
    timing_raw[name] = time.perf_counter() - began


original = marked_timer


class RayShaped:
    """The order of RayPPOTrainer.fit()."""

    global_steps = 1
    timings: list[dict[str, float]]

    def fit(self, steps: int = 2, breaks_in: int = 0) -> None:
        self.timings = []
        for self.global_steps in range(1, steps + 1):
            timing_raw: dict[str, float] = {}
            self.timings.append(timing_raw)
            with marked_timer("start_profile", timing_raw):
                pass
            time.sleep(0.02)  # rows of the batch
            with marked_timer("step", timing_raw):
                with marked_timer("gen", timing_raw, color="red"):
                    time.sleep(0.05)
                    timing_raw["agent_loop/tool_calls/mean"] = 2
                time.sleep(0.02)  # rows of the answers
                with marked_timer("old_log_prob", timing_raw, color="blue"):
                    time.sleep(0.02)
                with marked_timer("ref", timing_raw), marked_timer("something_new", timing_raw):
                    time.sleep(0.02)
                if self.global_steps == breaks_in:
                    raise ValueError("a worker died")
                with marked_timer("adv", timing_raw):
                    time.sleep(0.01)
                with marked_timer("update_actor", timing_raw):
                    with span("aem"):
                        time.sleep(0.01)
                    time.sleep(0.02)
                with marked_timer("save_checkpoint", timing_raw):
                    time.sleep(0.01)
                with marked_timer("update_weights", timing_raw):
                    time.sleep(0.01)
            with marked_timer("testing", timing_raw):
                time.sleep(0.02)
            with marked_timer("stop_profile", timing_raw):
                pass
            time.sleep(0.03)  # metrics, logging, the next batch


class V1Shaped:
    """The order of PPOTrainer.fit() of V1: no timer before `step`, and one dictionary as an attribute."""

    global_steps = 1

    def fit(self) -> None:
        for self.global_steps in (1, 2):
            self.timing_raw: dict[str, float] = {}
            with marked_timer("step", self.timing_raw):
                time.sleep(0.02)  # prompts are handed to the rollout
                with marked_timer("gen", self.timing_raw):
                    time.sleep(0.03)
                with marked_timer("update_weights", self.timing_raw):
                    time.sleep(0.02)
            time.sleep(0.02)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "spans.jsonl").read_text().splitlines()]


def run(folder: Path, trainer: Any, **named: Any) -> None:
    with recorded(trainer, str(folder), require_recordable(type(trainer), str(folder))):
        trainer.fit(**named)


def test_the_steps_of_verls_loop_lie_end_to_end_and_are_explained(tmp_path: Path) -> None:
    trainer = RayShaped()
    run(tmp_path, trainer)
    profile = load_profile(tmp_path)
    assert [step.step for step in profile.steps] == [1, 2]
    first, second = profile.steps
    assert first.start + first.wall_s == pytest.approx(second.start, abs=0.01)
    slept = {
        "batch": 0.04, "generate": 0.05, "old_log_prob": 0.02, "something_new": 0.02, "advantage": 0.01,
        "update/actor": 0.02, "aem": 0.01, "checkpoint": 0.01, "weight_sync": 0.01, "evaluation": 0.02, "record": 0.03,
    }  # fmt: skip
    for step in profile.steps:
        assert step.residual_s <= 0.02 * step.wall_s
        assert sum(step.path_s.values()) + step.residual_s == pytest.approx(step.wall_s)
        for stage, seconds in slept.items():
            assert step.path_s[stage] >= seconds, stage
        assert set(step.path_s) - set(slept) == {"ref_log_prob", "start_profile", "stop_profile"}
    assert profile.startup_s is not None and profile.outside_spans == 0


def test_verls_own_dictionary_is_as_before_and_what_it_adds_is_told_by_the_span(tmp_path: Path) -> None:
    trainer = RayShaped()
    run(tmp_path, trainer, steps=1)
    (timings,) = trainer.timings
    assert {"step", "gen", "old_log_prob", "something_new", "update_actor"} <= timings.keys()
    spans = {row["stage"]: row for row in rows(tmp_path)}
    assert spans["generate"]["agent_loop/tool_calls/mean"] == 2
    assert spans["generate"]["phase"] == spans["rollout"]["phase"] == "rollout"
    assert spans["generate"]["seconds"] == pytest.approx(timings["gen"], abs=0.01)
    assert spans["update/actor"]["parent"] == spans["update"]["id"]
    assert spans["aem"]["parent"] == spans["update/actor"]["id"]
    assert marked_timer is original, "the name is verl's again"


def test_the_loop_of_v1_is_read_as_well(tmp_path: Path) -> None:
    run(tmp_path, V1Shaped())
    profile = load_profile(tmp_path)
    assert [step.step for step in profile.steps] == [1, 2]
    for step in profile.steps:
        assert step.residual_s <= 0.02 * step.wall_s
        assert set(step.path_s) == {"batch", "generate", "weight_sync", "record"}
        assert step.path_s["batch"] >= 0.02 and step.path_s["record"] >= 0.02


def test_a_loop_that_breaks_leaves_its_spans_marked_and_gives_the_name_back(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a worker died"):
        run(tmp_path, RayShaped(), breaks_in=2)
    failed = [row["stage"] for row in rows(tmp_path) if row.get("failed")]
    assert failed == ["step"]
    profile = load_profile(tmp_path)
    assert [step.step for step in profile.steps] == [1] and profile.incomplete_steps == (2,)
    assert marked_timer is original


def test_without_a_folder_nothing_changes(tmp_path: Path) -> None:
    trainer = RayShaped()
    with recorded(trainer, None, require_recordable(RayShaped, None)):
        assert marked_timer is original
        trainer.fit(steps=1)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_recorded_is_refused_with_the_remedy(tmp_path: Path) -> None:
    class Asynchronous:
        async def fit(self) -> None: ...

    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"whose fit\(\) is a coroutine; leave aem.profile out"):
        require_recordable(Asynchronous, str(tmp_path))
    with pytest.raises(ConfigError, match=r"cannot be written .* choose another folder"):
        require_recordable(RayShaped, str(tmp_path / "file"))
    for wrong in ("runs/profile", True):
        with pytest.raises(ConfigError, match=r"must be a folder, from the root"):
            read_settings({"aem": {"profile": wrong}})
    assert read_settings({"aem": {"profile": str(tmp_path)}}).profile == str(tmp_path)


def test_hooks_give_steps_evaluations_and_what_lies_between_them(tmp_path: Path) -> None:
    """As rLLM calls its backend: an evaluation before training, one after a batch, and none that anybody ends."""
    with recording(tmp_path / "spans.jsonl"):
        loop = LoopSpans(time.perf_counter())
        loop.begin_evaluation()
        loop.end_evaluation()
        for step in (1, 2):
            loop.begin(step)
            with span("update"), span("update/actor"):
                pass
            loop.mark()
            time.sleep(0.01)
            loop.passed("filter" if step == 1 else None)
            loop.note(gpu_peak_mb=7)
            loop.mark()
            time.sleep(0.01)
        loop.begin_evaluation()
        loop.close()
        loop.close()
    spans = [SimpleNamespace(**{"phase": "", "step": None, **row}) for row in rows(tmp_path)]
    assert [(one.stage, one.step) for one in spans] == [
        ("startup", None), ("record", 0), ("evaluation", 0), ("step", 0), ("record", 1),
        ("update/actor", 1), ("update", 1), ("filter", 1), ("record", 1), ("step", 1), ("record", 2),
        ("update/actor", 2), ("update", 2), ("record", 2), ("evaluation", 2), ("step", 2),
    ]  # fmt: skip
    assert all((one.phase == "evaluation") == (one.stage == "evaluation") for one in spans)
    assert spans[9].gpu_peak_mb == 7
    assert all(spans[place].seconds >= 0.01 for place in (7, 8, 13))
