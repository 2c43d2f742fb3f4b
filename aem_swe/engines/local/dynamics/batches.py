"""One batch of the probe: play it, ask every rule what it would do to the entropy, write one row.

Shapes: B row, T token, R response.
"""

from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats  # type: ignore[import-untyped, unused-ignore]  # scipy ships no types; stubs may be installed
from torch import Tensor

from aem_swe.algorithms import Modulation
from aem_swe.engines.batch import TrainingBatch, build_batch
from aem_swe.engines.local import records
from aem_swe.engines.local.dynamics.linear import (
    Slope,
    entropy_slope,
    inner,
    norm,
    real_step,
    response_sums,
    rule_gradient,
    slope_of_logprobs,
    token_weights,
)
from aem_swe.engines.local.dynamics.rules import (
    Rules,
    aem_rule,
    cell_mean,
    make_rules,
    permutation_deviation,
    permute_within,
)
from aem_swe.engines.local.dynamics.setting import Setting
from aem_swe.engines.local.model import Scores
from aem_swe.engines.local.rounds import play_rounds
from aem_swe.engines.local.session import Session, play
from aem_swe.engines.local.step import score_batch
from aem_swe.engines.update import Prepared, judge, prepare, trajectory_advantages
from aem_swe.profiling import Stopwatch
from aem_swe.schema import Aem
from aem_swe.tasks.grading import Problem

PROBE = 2
"""First word of an episode's seed, beside session's TRAINING and EVALUATION."""
Row = dict[str, Any]  # JSON values


@dataclass(frozen=True, slots=True, eq=False)
class FixedStates:
    """The states on which entropy is measured, the same for all rules and batches of a policy."""

    batch: TrainingBatch
    slope: Slope


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """What every rule would do, for one batch. Changes of entropy are in nats per token and unit of lr."""

    levels: tuple[tuple[Rules, Tensor], ...]
    """Rules of responses, then of tokens, each with the change by every unit under the base rule: float64 [U]. A rule's
    change is the sum of weight * effect."""
    drift_R: Tensor
    """Float64. sum u_t (S_t - H_t): what Theorem 3.2.2 predicts of a response from itself alone, up to a factor."""
    surprise_R: Tensor
    """Float64. sum (S_t - H_t), without the advantage; likewise `slope_R`, sum j_t."""
    slope_R: Tensor


def draw_states(session: Session, pool: list[Problem], setting: Setting) -> FixedStates:
    """Play the probe's episodes, one or more of every task of the pool in turn, and take their slope."""
    problems = [pool[i % len(pool)] for i in range(setting.probe_episodes)]
    trajectories = play(session, problems, 1, seed=(PROBE,), version=0, stopwatch=Stopwatch())
    batch = build_batch(trajectories, layout=session.recipe.algorithm.layout)
    return FixedStates(batch, entropy_slope(session.model, batch, session.recipe))


def measure_batch(session: Session, pool: list[Problem], states: FixedStates, number: int, setting: Setting) -> Row:
    """Play training batch `number` (from 0) and return its row."""
    recipe, model = session.recipe, session.model
    played = play_rounds(session, pool, number + 1, Stopwatch())
    trajectories = played.trajectories
    batch = build_batch(trajectories, layout=recipe.algorithm.layout)
    scores = score_batch(model, batch, recipe)
    verdict = judge(
        trajectories,
        recipe.algorithm,
        drop_uniform_groups=recipe.sampling.drop_uniform_groups,
        most_groups=recipe.sampling.prompts,
    )
    advantages_N = trajectory_advantages(
        trajectories, batch, verdict, recipe.algorithm, budget=recipe.agent.response_budget
    )
    off = Aem(enabled=False)
    prepared = prepare(batch, verdict, advantages_N, scores.logprobs_BT, scores.entropy_BT, recipe.algorithm, off)
    slope_BT = slope_of_logprobs(model, batch, states.slope, recipe)
    effects = rule_effects(prepared, scores, slope_BT, token_weights(prepared, recipe), setting)
    about = records.rollout_metrics(trajectories, batch, scores)
    kept = ("critic/rewards/mean", "actor/entropy", "rollout/truncation_rate", "response/length_mean")
    row = {"batch": number, **{key: about[key] for key in kept}, **summary(effects)}
    if number < setting.checked_batches:
        row["check"] = _check(session, prepared, states, effects, setting, number)
    return row


def rule_effects(prepared: Prepared, scores: Scores, slope_BT: Tensor, weight_BT: Tensor, setting: Setting) -> Effects:
    """Sum what the tokens of each response do."""
    levels = make_rules(prepared, scores.entropy_BT, lam=setting.lam, lambdas=setting.lambdas)
    responses = levels[0].modulation.responses
    surprise_BT = -scores.logprobs_BT.double() - scores.entropy_BT.double()
    return Effects(
        levels=tuple((rules, response_sums(weight_BT * slope_BT, rules.modulation.responses)) for rules in levels),
        drift_R=response_sums(weight_BT * surprise_BT, responses),
        surprise_R=response_sums(surprise_BT, responses),
        slope_R=response_sums(slope_BT, responses),
    )


def summary(effects: Effects) -> Row:
    """The entropy change of every rule, and of its permuted control where it has one."""
    row: Row = {"change": {}, "permuted": {}, "permuted_deviation": {}, "weight_token_mean": {}}
    for rules, effect_U in effects.levels:
        for rule, weight_U in rules.weights.items():
            row["change"][rule] = float((weight_U * effect_U).sum())
            row["weight_token_mean"][rule] = _token_mean(weight_U, rules.modulation)
        for rule in rules.controlled:
            weight_U = rules.weights[rule]
            row["permuted"][rule] = float((cell_mean(weight_U, rules.cell_U) * effect_U).sum())
            row["permuted_deviation"][rule] = permutation_deviation(weight_U, effect_U, rules.cell_U)
    (rules, effect_R), _ = effects.levels
    advantage_R = rules.modulation.advantage_R
    taught_R = advantage_R != 0
    return row | {
        "responses": len(effect_R),
        "positive": int((advantage_R > 0).sum()),
        "negative": int((advantage_R < 0).sum()),
        "drift_correlation": _rank_correlation(effect_R[taught_R], effects.drift_R[taught_R]),
        "surprise_correlation": _rank_correlation(effects.slope_R, effects.surprise_R),
    }


def _token_mean(weight_U: Tensor, units: Modulation) -> float | None:
    """Mean weight over the tokens that have an advantage: aem/alpha_token_mean for AEM. None where there are none."""
    tokens_U = units.responses.length_R * (units.advantage_R != 0)
    return float((weight_U * tokens_U).sum() / tokens_U.sum()) if tokens_U.any() else None


def _rank_correlation(one_R: Tensor, other_R: Tensor) -> float | None:
    """Spearman's; None where there is nothing to rank."""
    if len(one_R) < 3 or any((x_R == x_R[0]).all() for x_R in (one_R, other_R)):
        return None
    return float(stats.spearmanr(one_R.numpy(), other_R.numpy()).statistic)


def _check(
    session: Session, prepared: Prepared, states: FixedStates, effects: Effects, setting: Setting, number: int
) -> Row:
    """Real SGD steps of every rule and of one permutation, of full and of half length, beside the linear prediction.

    `exact` is the linear change from backpropagation alone, <gradient of the rule, grad H>.
    """
    lr, generator = setting.check_lr, torch.Generator().manual_seed(number)
    before = real_step(session.model, states.batch, states.slope.gradient, 0.0, session.recipe)
    found: Row = {"entropy": before, "lr": lr, "rules": {}}
    for rules, effect_U in effects.levels:
        weights = dict(rules.weights)
        strongest = weights.get(aem_rule(max(setting.lambdas)))
        if strongest is not None:
            weights["one_permutation"] = permute_within(strongest, rules.cell_U, generator)
        for rule, weight_U in weights.items():
            units = rules.modulation.responses
            gradient = rule_gradient(session.model, prepared, units, weight_U, session.recipe)
            whole, half = (
                real_step(session.model, states.batch, gradient, length, session.recipe) - before
                for length in (lr, lr / 2)
            )
            found["rules"][rule] = {
                "linear": lr * float((weight_U * effect_U).sum()),
                "exact": lr * inner(gradient, states.slope.gradient),
                "measured": whole,
                "measured_half": half,
                "gradient_norm": norm(gradient),
            }
    return found
