"""A training step of the demo, end to end, against a replay of what its policy said: what all the rest costs.

    rollout     as the trainer plays it (tools, tests and the policy)   / the replay of it (bound 1.25)
    waits       of a step, its critical path's for tools and rewards    / the step (bound 0.1)
    AEM         of a step                                               / the step (bound 0.005)
    step        rollout, old log-probs, advantages, AEM and update      / the replay
    packed      the processor time of a rollout, spread over all cores  / the replay: no order of work is faster

`aem-swe train demo_aem` runs in this process, at a learning rate that moves no weight. After each step its samplers
answer the same requests once more, in the order and the cohorts in which they came, from empty caches: the same
prefill, the same decode steps, the same sampling; only what is sampled is replaced by what was said. There is no tool
to wait for. The first step is not counted. The waits cannot be 0: nothing can be generated while the last rewards are
computed.

    python benchmarks/demo_step.py --json benchmarks/results/demo_step.json
"""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar
from unittest.mock import patch

from ratios import Ratio, Result, divided, parse, report, timed
from torch import Tensor

from aem_swe.agents.loop import AskPolicy
from aem_swe.config import load_recipe
from aem_swe.engines.local import session
from aem_swe.engines.local.generate import Sampler
from aem_swe.engines.local.trainer import train
from aem_swe.errors import SandboxUnavailable
from aem_swe.eval.profile.profile import load_profile
from aem_swe.profiling import recording
from aem_swe.schema import Recipe
from aem_swe.types import Response, Trajectory

MAX_ROLLOUT, MAX_WAITS, MAX_AEM, MAX_RESIDUAL = 1.25, 0.1, 0.005, 0.02
REPLAY, STEP = "a replay of its tokens", "the step"
SIZES = {"repeats": (9, 2), "prompts": (4, 2), "rollouts": (8, 4)}
OVERRIDES = ["optimizer.lr=1e-30", "trainer.eval_every=0", "trainer.save_every=0"]
HIDDEN = ("sandbox/", "tool", "diff", "reward/")
"""Stages that generation is to hide, by how their names begin."""


class TapedSampler(Sampler):
    """A Sampler that remembers what it did, and does it again when the tape is played."""

    tape: ClassVar[list[Callable[[], None]]] = []
    """Of all samplers, in order."""
    others: ClassVar[int] = 0
    """Tokens of replays that would have been others, had they been left as they were sampled."""
    _said: Sequence[Sequence[int]] | None = None
    _token = 0

    def reset(self, policy_version: int) -> None:
        super().reset(policy_version)
        self.tape.append(partial(super().reset, policy_version))

    def respond_batch(self, asks: Sequence[AskPolicy | None]) -> list[Response | None]:
        responses = super().respond_batch(asks)
        self.tape.append(partial(self._again, list(asks), responses))
        return responses

    def _again(self, asks: Sequence[AskPolicy | None], responses: Sequence[Response | None]) -> None:
        self._said, self._token = [one.response_ids if one else () for one in responses], 0
        again = super().respond_batch(asks)
        self._said = None
        assert [one and one.response_ids for one in again] == [one and one.response_ids for one in responses]

    def _sample(self, logits_BV: Tensor, draws: list[float]) -> tuple[list[int], list[float]]:
        ids, logprobs = super()._sample(logits_BV, draws)
        if self._said is not None:
            for row, said in enumerate(self._said):
                if self._token < len(said):
                    TapedSampler.others += ids[row] != said[self._token]
                    ids[row] = said[self._token]
            self._token += 1
        return ids, logprobs


def busy_s() -> float:
    """Processor time of the whole machine so far, in seconds: sandboxes are no children of this process."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def replay() -> None:
    """Play the tape once, and empty it."""
    with recording(None):
        for act in TapedSampler.tape:
            act()
    TapedSampler.tape.clear()


def train_and_replay(recipe: Recipe) -> dict[str, list[float]]:
    """Seconds of every step but the first, and of its replay."""
    names = ("rollout", "rollout_policy", "packed", "replay", "aem", "step")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    run_cohorts = session.run_cohorts

    def measured(*given: Any, **options: Any) -> list[Trajectory]:
        before = busy_s()
        trajectories = run_cohorts(*given, **options)
        seconds["packed"].append((busy_s() - before) / (os.cpu_count() or 1))
        return trajectories

    def observe(row: dict[str, Any]) -> None:  # Any: JSON values
        replay_s = timed(replay)
        if row["step"] > 1:
            seconds["replay"].append(replay_s)
            seconds["step"].append(row["timing_s/step"] - row.get("timing_s/checkpoint", 0.0))
            for name in ("rollout", "rollout_policy", "aem"):
                seconds[name].append(row[f"timing_s/{name}"])

    with patch.object(session, "Sampler", TapedSampler), patch.object(session, "run_cohorts", measured):
        train(recipe, resume=False, observe=observe)
    del seconds["packed"][0]
    assert len(seconds["replay"]) == recipe.trainer.steps - 1
    return seconds


def waits(run_dir: Path) -> tuple[Ratio, ...]:
    """What each step waited for tools and rewards, of its critical path less "record", in which the replays were."""
    profile = load_profile(run_dir)
    if profile.residual_share > MAX_RESIDUAL:
        print(f"waits: not measured, the profile explains all but {profile.residual_share:.0%} of the steps")
        return ()
    hidden, whole = [], []
    for step in profile.steps[1:]:
        hidden.append(sum(seconds for stage, seconds in step.path_s.items() if stage.startswith(HIDDEN)))
        whole.append(step.wall_s - step.path_s.get("record", 0.0))
    return (divided("demo_step", "waits for tools and rewards", STEP, hidden, whole, MAX_WAITS),)


def main() -> int:
    arguments = parse(__doc__, SIZES)
    sizes = [f"sampling.{name}={getattr(arguments, name)}" for name in ("prompts", "rollouts")]
    with TemporaryDirectory() as folder:
        run_dir = Path(folder, "run")
        settings = [*OVERRIDES, *sizes, f"trainer.steps={arguments.repeats + 1}", f"run_dir={run_dir}"]
        try:
            seconds = train_and_replay(load_recipe("demo_aem", settings))
        except SandboxUnavailable as error:
            return report(Result("demo_step", skipped=str(error)), arguments)
        waited = waits(run_dir)
    ratios = (
        divided("demo_step", "rollout", REPLAY, seconds["rollout"], seconds["replay"], MAX_ROLLOUT),
        *waited,
        divided("demo_step", "AEM", STEP, seconds["aem"], seconds["step"], MAX_AEM),
        divided("demo_step", "step", REPLAY, seconds["step"], seconds["replay"]),
        divided("demo_step", "packed", REPLAY, seconds["packed"], seconds["replay"]),
    )
    for name, values in seconds.items():
        print(f"{name:<15}" + " ".join(f"{value:8.3f}" for value in values) + " s")
    details = {
        "episodes": arguments.prompts * arguments.rollouts,
        "seconds": seconds,
        "tokens replaced": TapedSampler.others,
    }
    return report(Result("demo_step", ratios, details), arguments)


if __name__ == "__main__":
    sys.exit(main())
