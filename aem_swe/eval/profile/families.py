"""Stages as families, each of which has one colour on the page."""

from collections.abc import Mapping

from aem_swe.eval.profile.path import NOT_ATTRIBUTED, RESIDUAL
from aem_swe.eval.profile.profile import Profile
from aem_swe.eval.profile.step import StepProfile

FAMILIES = {
    "policy": "policy: sampling",
    "tool": "tools",
    "sandbox": "sandboxes and worker threads",
    "reward": "rewards",
    "score": "log-probs: old and reference",
    "update": "update",
    "evaluation": "evaluation",
    "other": "other",
    "residual": NOT_ATTRIBUTED,
}
"""In the order in which they are stacked; with what the legend calls them."""
WAIT = "wait"
"""The step's thread while it waits for episodes: no family, because what it waits for is one."""
_OF_STAGE = {
    "old_log_prob": "score", "ref_log_prob": "score", "generate": "policy", "worker/queue": "sandbox",
    RESIDUAL: "residual", WAIT: WAIT,
}  # fmt: skip
_CONTAINERS = {"step", "rollout"}


def family_of(stage: str) -> str:
    """The family of a stage, of "" (the residual) too. A span that only holds others is residual."""
    first = stage.partition("/")[0]
    if stage in _OF_STAGE:
        return _OF_STAGE[stage]
    if stage in _CONTAINERS:
        return "residual"
    return first if first in FAMILIES and first not in ("other", "residual", "score") else "other"


def is_queue(stage: str) -> bool:
    """Drawn paler: nothing is done in it."""
    return stage.endswith("/queue")


def by_family(path_s: Mapping[str, float], residual_s: float) -> dict[str, float]:
    """Path seconds of every family, those included that took none."""
    seconds = dict.fromkeys(FAMILIES, 0.0)
    for stage, value in path_s.items():
        seconds[family_of(stage)] += value
    seconds["residual"] += residual_s
    return seconds


def step_families(step: StepProfile) -> dict[str, float]:
    return by_family(step.path_s, step.residual_s)


def mean_families(profile: Profile) -> dict[str, float]:
    """Mean seconds per step."""
    path_s = {stage.stage: stage.path_s for stage in profile.stages.values()}
    return by_family(path_s, profile.residual_s / len(profile.steps))
