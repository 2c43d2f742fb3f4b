"""The result file of `aem-swe verify dynamics`: every batch, and all that follows from the batches.

Verdicts, tables and the figure are worked out again whenever the file is read; what it says of them is not believed.
A confirmation is one only with the registered setting and seeds, and with every batch that these ask for.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from aem_swe.errors import ConfigError
from aem_swe.eval import preregistered
from aem_swe.eval.dynamics import TEST, Row, judge_claims, positive_share
from aem_swe.eval.dynamics_rules import rule_effects
from aem_swe.eval.dynamics_table import drift_correlations, estimator_errors
from aem_swe.eval.result_files import read_file, require_plain

Json = dict[str, Any]  # JSON values
ABOUT: Final = ("aem_swe", "commit", "command", "date", "confirmatory", "setting", "policies")
BATCHES: Final = "batches"
_READ: Final = (
    "policy", "regime", "batch", "positive", "negative",
    "change", "permuted", "permuted_deviation", "weight_token_mean", "drift_correlation", "surprise_correlation",
)  # fmt: skip


def make_result(about: Json, rows: Sequence[Row]) -> Json:
    """`about` has the keys ABOUT; the claims, rules and errors are computed from the rows."""
    verdicts = judge_claims(rows, confirmatory=about["confirmatory"])
    regimes = dict.fromkeys(row["regime"] for row in rows)
    return {
        **{key: about[key] for key in ABOUT},
        "test": TEST,
        "positive_share": {regime: positive_share(rows, regime) for regime in regimes},
        "claims": [verdict.as_json() for verdict in verdicts],
        "rules": rule_effects(rows),
        "drift": drift_correlations(rows),
        "estimator": estimator_errors(rows),
        BATCHES: list(rows),
    }


def without_batches(result: Json) -> Json:
    return {key: value for key, value in result.items() if key != BATCHES}


def to_text(result: Json) -> str:
    """The file: one line per batch."""
    lines = ",\n  ".join(json.dumps(row, allow_nan=False) for row in result[BATCHES])
    rest = json.dumps(without_batches(result), indent=1, allow_nan=False).removesuffix("\n}")
    return f'{rest},\n "{BATCHES}": [\n  {lines}\n ]\n}}\n'


def read_result(path: Path, option: str = "--from") -> Json:
    """Read a result file and work it out again. Raises ConfigError for anything else."""
    return read_file(path, option, "aem-swe verify dynamics", _parse)


def _parse(found: Json) -> Json:
    rows = found[BATCHES]
    lacking = [key for row in rows for key in _READ if key not in row]
    if lacking or not rows:
        raise ValueError(f"a batch lacks {lacking[0]!r}" if lacking else "it has no batches")
    require_plain(aem_swe=found["aem_swe"], command=found["command"], date=found["date"])
    if found.get("commit") is not None:
        require_plain(commit=found["commit"])
    _require_own_batches(found["policies"], rows)
    _require_same_rules(found["setting"], rows)
    if not isinstance(found["confirmatory"], bool):
        raise ValueError(f"confirmatory is {found['confirmatory']!r}, neither true nor false")
    if found["confirmatory"]:
        _require_registered(found["setting"], found["policies"], rows)
    return make_result({"commit": None, **found}, rows)  # files of before it was recorded have none


def _require_own_batches(policies: Sequence[Json], rows: Sequence[Row]) -> None:
    """Raises ValueError for a batch that is there twice, or that is of no policy of the result."""
    for one in policies:
        require_plain(name=one["name"])
    for what, named in (("name", [one["name"] for one in policies]), ("seed", [one["seed"] for one in policies])):
        if twice := [value for value, count in Counter(named).items() if count > 1]:
            raise ValueError(f"two policies have the {what} {twice[0]!r}")
    names = {one["name"] for one in policies}
    seen = set()
    for row in rows:
        key = row["policy"], row["regime"], row["batch"]
        if row["policy"] not in names:
            raise ValueError(f"a batch is of policy {row['policy']!r}, which is not among the policies")
        if row["regime"] not in ("early", "late"):
            raise ValueError(f"a batch has the regime {row['regime']!r}")
        if key in seen:
            raise ValueError(f"batch {row['batch']} of {row['policy']}, {row['regime']}, is there twice")
        seen.add(key)


def _require_same_rules(setting: Json, rows: Sequence[Row]) -> None:
    """Raises ValueError where a batch has other rules than the first, or lacks one of the setting's."""
    rules = set(rows[0]["change"])
    for rule in rules:
        require_plain(name=rule)
    for row in rows:
        controlled = rules - {"base"}
        for key, wanted in (("change", rules), ("weight_token_mean", rules), ("permuted", controlled),
                            ("permuted_deviation", controlled)):  # fmt: skip
            if different := sorted(wanted ^ set(row[key])):
                raise ValueError(f"batch {row['batch']} of {row['policy']} has another set of rules ({different[0]!r})")
        if min(row["positive"], row["negative"], *row["permuted_deviation"].values()) < 0:
            raise ValueError(f"batch {row['batch']} of {row['policy']} has a count or a deviation below 0")
    asked = {"base", "inverted", "rise", "fall", f"aem_{setting['lam']:g}", *(f"aem_{x:g}" for x in setting["lambdas"])}
    if lacking := sorted(asked - rules):
        raise ValueError(f"rule {lacking[0]!r} of its setting was not measured")


def _require_registered(setting: Json, policies: Sequence[Json], rows: Sequence[Row]) -> None:
    """Raises ValueError for a confirmation of anything but eval/preregistered.yaml, or of a part of it."""
    try:
        registered = preregistered.read_preregistration(preregistered.preregistered_file())
        preregistered.require_registered(registered, setting, [one["seed"] for one in policies])
    except ConfigError as error:
        said = str(error).removeprefix("--confirm: ").partition("; ")[0]
        raise ValueError(f"it is no confirmation: {said}") from error
    if lacking := sorted(registered.setting.keys() - setting.keys()):
        raise ValueError(f"it is no confirmation: the setting lacks {lacking[0]!r}")
    found = Counter((row["policy"], row["regime"]) for row in rows)
    wanted = setting["batches"]
    for one in policies:
        for regime in ("early", "late") if setting["late_steps"] else ("early",):
            count = found[one["name"], regime]
            if count != wanted:
                raise ValueError(f"it is no confirmation: {one['name']}, {regime}, has {count} of {wanted} batches")
