"""Results of `aem-swe verify dynamics` and `verify training` with chosen numbers: nothing is measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training_scene import make_plan, write_run

from aem_swe.eval.dynamics_result import make_result
from aem_swe.eval.training_result import About, Result, sort_into_arms
from aem_swe.eval.training_result import make_result as make_training
from aem_swe.eval.training_runs import find_runs

Json = dict[str, Any]  # JSON values
UNIT = 1e-6
RULES = ("aem_0.5", "aem_1", "aem_2", "inverted", "surprisal", "batch", "sum", "rise", "fall", "token")
ABOUT: Json = {
    "aem_swe": "0", "commit": "abcdef0", "command": "aem-swe verify dynamics", "date": "2026-01-02",
    "confirmatory": False,
}  # fmt: skip


def batch(
    policy: int, regime: str, number: int = 0, deviation: float = 0.5, positive: int = 2, **effects: float
) -> Json:
    """A batch in which each rule is 1, or what `effects` says, above its permuted control; all in 1e-6 nat."""
    rules = tuple(dict.fromkeys((*RULES, *effects)))
    above = {rule: effects.get(rule, 1.0) * UNIT for rule in rules}
    return {
        "policy": f"seed_{policy}", "regime": regime, "batch": number, "positive": positive,
        "negative": 10 - positive,
        "change": {"base": 5 * UNIT, **{rule: 7 * UNIT + value for rule, value in above.items()}},
        "permuted": dict.fromkeys(rules, 7 * UNIT),
        "permuted_deviation": dict.fromkeys(rules, deviation * UNIT),
        "weight_token_mean": dict.fromkeys(("base", *rules), 1.0),
        "drift_correlation": 0.5, "surprise_correlation": None,
    }  # fmt: skip


def dynamics_of(rows: Sequence[Json]) -> Json:
    policies = [{"name": name, "seed": number} for number, name in enumerate(sorted({row["policy"] for row in rows}))]
    return make_result({**ABOUT, "setting": {"lam": 1.0, "lambdas": [0.5, 1.0, 2.0]}, "policies": policies}, rows)


def three_policies() -> Json:
    """Early. AEM: 1, 2, 3 above permuted; surprisal 1.5, 2.5, 5; both with a deviation of 0.5."""
    values = ((1.0, 1.5), (2.0, 2.5), (3.0, 5.0))
    return dynamics_of([batch(i, "early", aem_1=aem, surprisal=other) for i, (aem, other) in enumerate(values)])


FILTERS: Json = {
    "off": ["demo", "agent.max_steps=6"],
    "masked": ["demo", "agent.max_steps=6", "algorithm.filter=mask"],
    "dropped": ["demo", "agent.max_steps=6", "algorithm.filter=drop"],
    "aem": ["demo_aem", "agent.max_steps=6"],
    "strong": ["demo_aem", "agent.max_steps=6", "aem.lambda=2"],
}
CONTRASTS: Json = {
    "filter_mask": {"arm": "masked", "against": "off", "of": ["held_out", "truncation"]},
    "filter_drop": {"arm": "dropped", "against": "off", "of": ["held_out", "truncation"]},
    "aem_plain": {"arm": "aem", "against": "off", "of": ["held_out"], "paper": "higher"},
    "lambda_0": {"arm": "off", "against": "aem", "of": ["entropy"]},
    "lambda_2": {"arm": "strong", "against": "aem", "of": ["held_out", "entropy"]},
}


def training_of(folder: Path, seeds: Sequence[int] = (1, 2, 3)) -> Result:
    """Off never truncates; drop truncates all of the last 8 steps but one part in 10 x seed. Held-out 0.25 -> 0.5.

    Of aem there is no run; strong's last 8 steps have an entropy of seed / 10.
    """
    plan = make_plan(folder, seeds=[1, 2, 3], arms=FILTERS, contrasts=CONTRASTS)
    for seed in seeds:
        steady = [0.125] * 8
        write_run(plan, folder, "off", seed, reward=[*steady, *[0.1 * seed] * 8])
        write_run(plan, folder, "masked", seed, truncation=[0.25] * 16, held_out=0.25)
        write_run(plan, folder, "strong", seed, entropy=[*steady, *[0.1 * seed] * 8])
        write_run(plan, folder, "dropped", seed, truncation=[*steady, *[1 - 0.1 * seed] * 8], held_out=0.0)
    about = About(aem_swe="0", command="aem-swe verify training", date="2026-01-02")
    return make_training(about, plan, sort_into_arms(plan, find_runs(plan, folder), folder), plan.family())
