"""What to change in a recipe, where the critical path of a run says it.

The rules are in the files *_rules.py. A rule names keys of the recipe that the run's engine has, and the figure it
rests on. It cannot know what the change will bring: what was hidden behind a stage surfaces when that stage shrinks. So
change one thing, profile again, and look at both with `aem-swe profile RUN RUN2`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aem_swe.eval.profile import generation_rules, rollout_rules, sandbox_rules, training_rules
from aem_swe.eval.profile.evidence import Case, Finding
from aem_swe.eval.profile.growth import Growth
from aem_swe.eval.profile.profile import Profile
from aem_swe.eval.profile.settings import read_settings

RESIDUAL = "residual"
RULES: Mapping[str, Callable[[Case], Finding | None]] = {
    RESIDUAL: training_rules.residual,
    "worker threads": sandbox_rules.worker_threads,
    "start slots": sandbox_rules.start_slots,
    "sandbox starts": sandbox_rules.sandbox_starts,
    "images": sandbox_rules.images,
    "opening": sandbox_rules.opening,
    "one tool": rollout_rules.one_tool,
    "rewards": rollout_rules.rewards,
    "stragglers": rollout_rules.stragglers,
    "prefill": generation_rules.prefill,
    "decode": generation_rules.decode,
    "old log-probs": training_rules.old_log_probs,
    "update": training_rules.update,
    "weight sync": training_rules.weight_sync,
    "checkpoint": training_rules.checkpoint,
    "evaluation": training_rules.evaluation,
    "records": training_rules.records,
    "aem": training_rules.aem,
}
"""By the name that the advice bears."""


@dataclass(frozen=True, slots=True)
class Advice:
    rule: str
    says: str
    """What to change, by the keys of the recipe. One printable line, as is the figure."""
    figure: str
    """What it rests on."""


def advise(profile: Profile, growth: Growth) -> tuple[Advice, ...]:
    """What every rule that fires says, the residual first and then the largest share; empty if nothing stands out.

    A share below the residual says nothing: what no span explains could be the opposite.
    """
    case = Case(profile, growth, read_settings(profile))
    found = [
        (name, finding)
        for name, rule in RULES.items()
        if (finding := rule(case)) and finding.share >= profile.residual_share
    ]
    found.sort(key=lambda pair: (pair[0] != RESIDUAL, -pair[1].share))
    return tuple(Advice(name, finding.says, finding.figure) for name, finding in found)
