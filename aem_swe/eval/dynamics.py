"""The paper's claims about entropy, and the verdict on each from the rows of `aem-swe verify dynamics`.

The unit is the independently warm-started policy: batches of one policy are averaged first, because they share its
weights. Each claim is a contrast of two rules with a direction, tested one-sided by a t test over policies; the claims
are one family and Holm-corrected. AEM and the masks are compared with their own weights permuted, never with the base
rule: a mask makes a shorter step, and where the base rule lowers entropy any shorter step lowers it less.
Not covered: claims about whole training runs. A step is an SGD step; Adam rescales the same gradient.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from scipy import stats  # type: ignore[import-untyped, unused-ignore]  # scipy ships no types; stubs may be installed

from aem_swe.eval.statistics import POWER, Floats, holm, t_interval
from aem_swe.eval.wording import counted

Row = Mapping[str, Any]  # JSON values
Regime = Literal["early", "late"]
Status = Literal["confirmed", "contradicted", "undecided"]

FEWEST_POLICIES: Final = 5
"""Below this nothing is decided, however small its p-value."""
ALPHA: Final = 0.05
TEST: Final = "one-sided t test over policies, Holm-corrected over the claims"
_LAMBDA: Final = 1.0


@dataclass(frozen=True, slots=True)
class Claim:
    """`contrast` of a row is positive if the claim's left side has the larger entropy change: nats per unit of lr."""

    name: str
    text: str
    regime: Regime
    direction: Literal[1, -1]
    """The sign that the literature gives the contrast."""
    contrast: Callable[[Row], float]


def minus_permuted(rule: str) -> Callable[[Row], float]:
    """The contrast of a rule with alphas and its own permuted control."""
    return lambda row: float(row["change"][rule]) - float(row["permuted"][rule])


def minus_base(rule: str) -> Callable[[Row], float]:
    """The contrast of a rule and the base rule."""
    return lambda row: float(row["change"][rule]) - float(row["change"]["base"])


def slope_over_lambda(row: Row) -> float:
    """Least-squares slope of (AEM - permuted) over lambda, lambda = 0 with its exact 0 included."""
    rules = [rule for rule in row["permuted"] if rule.startswith("aem_")]
    lambdas = np.array([0.0, *(float(rule.removeprefix("aem_")) for rule in rules)])
    effects = np.array([0.0, *(minus_permuted(rule)(row) for rule in rules)])
    centred = lambdas - lambdas.mean()
    return float((centred * effects).sum() / (centred**2).sum())


AEM: Final = f"aem_{_LAMBDA:g}"
RISE: Final = minus_permuted("rise")
"""The same number as permuted minus 'fall': in each cell one mask is the complement of the other."""
CLAIMS: Final = (
    Claim("early", "early, AEM leaves more entropy than its permuted alpha", "early", 1, minus_permuted(AEM)),
    Claim("late", "late, AEM leaves less entropy than its permuted alpha", "late", -1, minus_permuted(AEM)),
    Claim("masks", "Analysis A: rise leaves more, and fall less, than their permuted masks", "early", 1, RISE),
    Claim("inverted", "early, inverted alpha leaves less than permuted", "early", -1, minus_permuted("inverted")),
    Claim("lambda", "early, AEM minus permuted grows with lambda (slope)", "early", 1, slope_over_lambda),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the data say about a claim. Contrasts are in nats per unit of SGD learning rate; None: too few policies."""

    claim: Claim
    status: Status
    reason: str
    policies: int
    agreeing: int
    """Policies whose own mean has the claim's direction."""
    batches: int
    mean: float | None
    low: float | None
    """95% t interval over policies, two-sided."""
    high: float | None
    p_value: float | None
    """One-sided, in the claim's direction, before and after Holm."""
    p_holm: float | None
    batch_deviation: float | None
    """Standard deviation of the contrast between the batches of a policy."""

    @property
    def batches_needed(self) -> int | None:
        """Batches of ONE policy with which its own contrast would be found with 80% power at the strictest Holm level.

        It plans a run; it says nothing about the spread between policies. None where it cannot be estimated.
        """
        if not self.mean or not self.batch_deviation:
            return None
        quantiles = float(stats.norm.ppf([1 - ALPHA / len(CLAIMS), POWER]).sum())
        return math.ceil((quantiles * self.batch_deviation / self.mean) ** 2)

    @property
    def said(self) -> str:
        return f"{self.status} ({self.reason})" if self.reason else self.status

    @property
    def figure(self) -> str:
        """The numbers in one line, with n, interval and test."""
        units = f"n = {counted(self.policies, 'policy', 'policies')} ({self.agreeing} in the claimed direction)"
        units += f", {self.batches} batches"
        if self.mean is None:
            return units
        text = f"{self.mean:+.2g} nat per unit of learning rate"
        if self.low is not None and self.high is not None:
            text += f" (95% t interval {self.low:+.2g} to {self.high:+.2g})"
        return f"{text}, {units}" + ("" if self.p_holm is None else f", {TEST}: p = {self.p_holm:.2g}")

    def as_json(self) -> dict[str, Any]:  # JSON values
        named = ("claim", "status", "reason", "policies")
        own = {key: getattr(self, key) for key in self.__slots__ if key not in named}
        claim = self.claim
        return {
            "id": claim.name,
            "text": claim.text,
            "regime": claim.regime,
            "direction": claim.direction,
            "verdict": self.said,
            "n": self.policies,
            **own,
            "batches_needed": self.batches_needed,
            "figure": self.figure,
        }


def judge_claims(rows: Sequence[Row], claims: Sequence[Claim] = CLAIMS, *, confirmatory: bool) -> list[Verdict]:
    """Return a verdict per claim.

    confirmed: the Holm-corrected p-value is at most 5%. contradicted: the same test in the other direction is, and the
    interval excludes 0 there. Both need five policies and the regime that the claim is about. What is not
    `confirmatory` decides nothing, because its setting was free to be chosen by its result.
    """
    values = [policy_values(rows, claim) for claim in claims]
    forward = [_one_sided(value, claim.direction) for value, claim in zip(values, claims, strict=True)]
    backward = [_one_sided(value, -claim.direction) for value, claim in zip(values, claims, strict=True)]
    corrected, against = holm(forward), holm(backward)
    verdicts = [
        _verdict(rows, claim, value, forward[i], corrected[i], against[i])
        for i, (claim, value) in enumerate(zip(claims, values, strict=True))
    ]
    return verdicts if confirmatory else [_explored(verdict) for verdict in verdicts]


def _explored(verdict: Verdict) -> Verdict:
    if verdict.status == "undecided":
        return verdict
    return replace(verdict, status="undecided", reason=f"exploratory; would be {verdict.status}")


def policy_values(rows: Sequence[Row], claim: Claim) -> Floats:
    """The claim's contrast per policy, averaged over its batches; policies in the order of their names."""
    found = _by_policy(rows, claim)
    return np.array([np.mean(found[policy]) for policy in sorted(found)], dtype=np.float64)


def _by_policy(rows: Sequence[Row], claim: Claim) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["regime"] == claim.regime:
            found.setdefault(str(row["policy"]), []).append(claim.contrast(row))
    return found


def _one_sided(values: Floats, direction: int) -> float | None:
    """p-value of a mean at most 0 in `direction`; None where nothing can be tested."""
    if values.size < 2 or np.ptp(values) == 0.0:
        return None
    return float(stats.ttest_1samp(direction * values, 0.0, alternative="greater").pvalue)


def _verdict(
    rows: Sequence[Row], claim: Claim, values: Floats, p: float | None, p_holm: float | None, p_against: float | None
) -> Verdict:
    groups = list(_by_policy(rows, claim).values())
    mean = float(values.mean()) if values.size else None
    interval = t_interval(values)
    low, high = (interval.low, interval.high) if interval else (None, None)
    status: Status = "undecided"
    reason = _not_reached(rows, claim.regime)
    if values.size < FEWEST_POLICIES:
        reason = f"{counted(values.size, 'policy', 'policies')}, {FEWEST_POLICIES} needed"
    elif not reason and p_holm is not None and p_against is not None:
        assert low is not None and high is not None
        if p_holm <= ALPHA:
            status = "confirmed"
        elif p_against <= ALPHA and (high < 0 if claim.direction > 0 else low > 0):
            status = "contradicted"
        else:
            reason = "the interval allows both"
    spread = [float(np.var(group, ddof=1)) for group in groups if len(group) > 1]
    return Verdict(
        claim=claim,
        status=status,
        reason=reason,
        policies=values.size,
        agreeing=int((values * claim.direction > 0).sum()),
        batches=sum(len(group) for group in groups),
        mean=mean,
        low=low,
        high=high,
        p_value=p,
        p_holm=p_holm,
        batch_deviation=float(np.mean(spread)) ** 0.5 if spread else None,
    )


def positive_share(rows: Sequence[Row], regime: Regime) -> float | None:
    """Share of responses with A > 0 among those with an advantage; None without any."""
    positive = sum(int(row["positive"]) for row in rows if row["regime"] == regime)
    negative = sum(int(row["negative"]) for row in rows if row["regime"] == regime)
    return positive / (positive + negative) if positive + negative else None


def _not_reached(rows: Sequence[Row], regime: Regime) -> str:
    """Why rows of a regime do not speak about it: negatives must dominate early, positives late."""
    share = positive_share(rows, regime)
    if share is not None and (share < 0.5) != (regime == "early"):
        return f"regime not reached: {share:.0%} of the responses have A > 0"
    return ""
