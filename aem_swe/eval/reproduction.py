"""docs/reproduction.md: what the published figures can mean, and the ledger of claims."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final  # Any: YAML values

from jinja2 import Environment, StrictUndefined
from scipy import stats  # type: ignore[import-untyped, unused-ignore]  # scipy ships no types; stubs may be installed

from aem_swe.eval.ledger import Entry, counts
from aem_swe.eval.swebench.power import Plan, method_power, run_error, runs_for_power, seeds_for_power

SPREADS: Final = (0.0, 1.0)
"""Points between training seeds that the power is shown for."""
RUNS: Final = (1, 16)
_TEMPLATE = Path(__file__).with_name("reproduction.md.jinja")


def page(claims: Mapping[str, Any], entries: list[Entry]) -> str:
    """The whole document, in Markdown."""
    template = Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(_TEMPLATE.read_text())
    return template.render(entries=entries, counts=counts(entries), **_published(claims["published"]))


def _published(given: Mapping[str, Any]) -> dict[str, Any]:
    base, aem, seeds = given["base"], given["aem"], given["seeds"]
    points = aem["score"] - base["score"]
    plan = Plan(rate=base["score"] / 100, difference=points / 100, seed_spread=0.0, runs=1, seeds=seeds)
    again, freedom = 100 * math.sqrt(plan.task_variance / plan.tasks), seeds - 1
    below = [float(stats.chi2.cdf(freedom * (one["spread"] / again) ** 2, freedom)) for one in (base, aem)]
    plans = [replace(plan, seed_spread=spread / 100, runs=runs) for spread in SPREADS for runs in RUNS]
    return {
        **given,
        "plan": plan,
        "difference": points,
        "drawn": 100 * run_error(plan.rate, plan.tasks),
        "again": again,
        "small": math.prod(below),
        "needed": math.ceil((again / base["spread"]) ** 2 / seeds),
        "runs": runs_for_power(plan),
        "powers": [
            {
                "spread": f"{100 * one.seed_spread:g}",
                "runs": one.runs,
                "power": method_power(one, seeds),
                "seeds": seeds_for_power(one),
            }
            for one in plans
        ],
    }
