"""AEM's choices, one changed at a time, and the filter's semantics: put together from two results.

Nothing is measured here. `aem-swe verify dynamics` measured what one step of every variant does to the entropy,
`aem-swe verify training` whole runs under each lambda and each filter. Not covered: whole runs of the other variants.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from aem_swe.eval.dynamics import Regime, Row
from aem_swe.eval.dynamics_rules import standardised, summary, values_of, with_spread
from aem_swe.eval.training import Judgement
from aem_swe.eval.training_result import Result
from aem_swe.eval.training_table import filter_arms, lambda_arms

Json = dict[str, Any]  # JSON values
Kind = Literal["lambda", "proxy", "G", "length", "level", "sign"]
REGIMES: Final[tuple[Regime, ...]] = ("early", "late")
_VARIANTS: Final[tuple[tuple[Kind, str, str], ...]] = (
    ("proxy", "sampled surprisal", "surprisal"),
    ("G", "whole batch", "batch"),
    ("length", "sum over tokens", "sum"),
    ("level", "token", "token"),
    ("sign", "inverted, exp(+h)", "inverted"),
)
"""What is changed, to what, and the rule of the dynamics that measures it."""
_BY_TOKEN: Final = "token"
"""It permutes tokens, the others responses: deviations over so many more units are no common scale."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean over n policies with its 95% t interval, None for one policy."""

    n: int
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Effect:
    """A rule in one regime; None: its weights are equal, or nothing can be compared."""

    minus_permuted: Summary | None
    """The entropy change minus that of the permuted control, nats per unit of SGD learning rate."""
    standardised: Summary | None
    """The same in standard deviations over all permutations of the rule's weights: how well these are aligned."""
    minus_aem: Summary | None
    """`standardised` minus AEM's, batch by batch, averaged by policy; None for AEM itself and for `token`."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One row: AEM with one choice changed."""

    kind: Kind
    setting: str
    rule: str | None
    """None for lambda 0, the base algorithm, whose effect is 0 by construction."""
    effects: Mapping[Regime, Effect]
    """The regimes in which the rule was measured."""


def choices(dynamics: Json) -> list[Choice]:
    """Every lambda from 0 on, then the variants at AEM's lambda; dynamics is what `dynamics_result.read_result` gives.

    The masks of Analysis A are no choice of AEM and left out.
    """
    measured = {(one["regime"], one["rule"]): one for one in dynamics["rules"]}
    strengths = {float(rule.removeprefix("aem_")) for _, rule in measured if rule.startswith("aem_")}
    rows: list[tuple[Kind, str, str | None]] = [("lambda", "0 (the base algorithm)", None)]
    for strength in sorted(strengths):
        ours = " (AEM)" if aem_of(dynamics) == f"aem_{strength:g}" else ""
        rows.append(("lambda", f"{strength:g}{ours}", f"aem_{strength:g}"))
    found = []
    for kind, setting, rule in (*rows, *_VARIANTS):
        inside = [regime for regime in REGIMES if (regime, rule) in measured]
        effects = {regime: _effect(dynamics, regime, measured[regime, rule]) for regime in inside}
        found.append(Choice(kind, setting, rule, effects))
    return found


def aem_of(dynamics: Json) -> str:
    """The rule that is AEM: the lambda of the variants."""
    return f"aem_{dynamics['setting']['lam']:g}"


def _effect(dynamics: Json, regime: Regime, found: Json) -> Effect:
    rule, aem = found["rule"], aem_of(dynamics)
    comparable = rule not in (aem, _BY_TOKEN) and any(
        (one["regime"], one["rule"]) == (regime, aem) for one in dynamics["rules"]
    )
    minus_aem = _minus_aem(dynamics["batches"], regime, rule, aem) if comparable else None
    return Effect(_summary(found["minus_permuted"]), _summary(found["standardised"]), _summary(minus_aem))


def _minus_aem(rows: Sequence[Row], regime: Regime, rule: str, aem: str) -> Json | None:
    """Over the batches of the regime in which permuting changes something under both rules."""
    inside = [row for row in rows if row["regime"] == regime]
    both = with_spread(with_spread(inside, rule), aem)
    return summary(values_of(both, regime, lambda row: standardised(rule)(row) - standardised(aem)(row)))


def _summary(found: Json | None) -> Summary | None:
    return None if found is None else Summary(**found)


def whole_run_arms(result: Result) -> list[str]:
    """Arms of whole runs that differ in lambda or in the filter."""
    return list(dict.fromkeys([*lambda_arms(result), *filter_arms(result)]))


def contrasts_among(result: Result, arms: Sequence[str]) -> list[Judgement]:
    return [one for one in result.judgements if {one.contrast.arm, one.contrast.against} <= set(arms)]


def as_json(dynamics: Json | None, training: Result | None, notes: list[str]) -> Json:
    """Everything that the tables show; None for a half whose file is missing."""
    return {
        "notes": notes,
        "dynamics": dynamics and _dynamics_json(dynamics),
        "training": training and _training_json(training),
    }


def _dynamics_json(dynamics: Json) -> Json:
    about = ("aem_swe", "command", "date", "confirmatory", "setting", "policies", "positive_share")
    return {**{key: dynamics[key] for key in about}, "choices": [asdict(one) for one in choices(dynamics)]}


def _training_json(result: Result) -> Json:
    arms = whole_run_arms(result)
    runs = {arm: [run.model_dump(exclude={"series", "step_seconds"}) for run in result.arms[arm].runs] for arm in arms}
    named = [contrasts_among(result, among) for among in (lambda_arms(result), filter_arms(result))]
    inside = [*named[0], *(one for one in named[1] if one not in named[0])]
    return {
        **result.about.model_dump(),
        "settings": {arm: result.arms[arm].settings for arm in arms},
        "arms": runs,
        "failed": [one.model_dump() for one in result.failed if one.arm in arms],
        "unfinished": [one.model_dump() for one in result.unfinished if one.arm in arms],
        "contrasts": [one.as_json() for one in inside],
    }
