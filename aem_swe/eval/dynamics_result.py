"""The result file of `aem-swe verify dynamics`: every batch, and all that follows from the batches.

Verdicts, tables and the figure are worked out again whenever the file is read; what it says of them is not believed.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from aem_swe.errors import ConfigError
from aem_swe.eval.dynamics import TEST, Row, judge_claims, positive_share
from aem_swe.eval.dynamics_rules import rule_effects
from aem_swe.eval.dynamics_table import drift_correlations, estimator_errors

Json = dict[str, Any]  # JSON values
ABOUT: Final = ("aem_swe", "command", "date", "confirmatory", "setting", "policies")
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
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = found[BATCHES]
        lacking = [key for row in rows for key in _READ if key not in row]
        if lacking or not rows:
            raise ValueError(f"a batch lacks {lacking[0]!r}" if lacking else "it has no batches")
        return make_result(found, rows)
    except OSError as error:
        raise ConfigError(f"{option} {str(path)!r} cannot be read ({error.strerror}); name a file of --json") from error
    except KeyError as error:
        said = f"{error} is missing"
    except (ValueError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())
    raise ConfigError(f"{option} {str(path)!r} is no result of `aem-swe verify dynamics` ({said}); make it again")
