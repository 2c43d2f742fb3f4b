"""The ledger of claims: what a paper says, how it was checked, what came out; docs/reproduction.md is made of it.

Claims stand in eval/claims.yaml, figures in result files. A verdict is worked out here from the two, so that none can
be typed by hand. Nothing is called confirmed on fewer than five seeds or policies.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final  # Any: JSON and YAML values

import yaml

from aem_swe.errors import ConfigError
from aem_swe.eval.dynamics import FEWEST_POLICIES as FEWEST
from aem_swe.resources import resource

Json = Mapping[str, Any]
NOT_RUN: Final = "not run"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check says of a claim."""

    status: str
    """holds, fails, measured, confirmed, contradicted, undecided, tested, not run; why, in brackets."""
    figure: str
    command: str
    date: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    claim: str
    source: str
    finding: Finding


class Results:
    """A folder of result files, each read once."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigError(f"--results {str(folder)!r} is no folder; name benchmarks/results of a checkout")
        self._folder = folder
        self._read: dict[str, Json | None] = {}

    def get(self, name: str) -> Json | None:
        """The file's content; None where there is none. Raises ConfigError for one that is not JSON."""
        if name not in self._read:
            path = self._folder / f"{name}.json"
            try:
                self._read[name] = json.loads(path.read_text()) if path.is_file() else None
            except ValueError as error:
                raise ConfigError(f"{path} is not JSON ({error}); make it again") from error
        return self._read[name]


def load_claims() -> Json:
    """eval/claims.yaml."""
    claims: Json = yaml.safe_load(resource("eval", "claims.yaml").read_text())
    return claims


def make_ledger(claims: Json, results: Results) -> list[Entry]:
    """One entry per claim, in their order. Raises ConfigError for a kind of check that is not known."""
    return [Entry(one["claim"], one["source"], _find(one["check"], results)) for one in claims["claims"]]


def _find(check: Json, results: Results) -> Finding:
    (kind, what), *more = check.items()
    if kind not in CHECKS or more:
        raise ConfigError(f"check {dict(check)} in eval/claims.yaml is not known; use one of {sorted(CHECKS)}")
    return CHECKS[kind](what, results)


def _theory(start: str, results: Results) -> Finding:
    command = "aem-swe verify theory"
    file = results.get("theory")
    rows = [row for row in (file or {"checks": ()})["checks"] if start in row["claim"].split()]
    if not rows or file is None:
        return Finding(NOT_RUN, "", command)
    statements = [row for row in rows if row["kind"] == "statement"]
    controls = len(rows) - len(statements)
    worst = max(row["max_error"] for row in statements)
    count = sum(row["instances"] for row in statements)
    beside = f"; wrong versions of it that fail, as they must: {controls}" if controls else ""
    figure = f"largest error {worst:.0e} over n = {count} random policies (bound {statements[0]['bound']:.0e}){beside}"
    return Finding("holds" if all(row["passed"] for row in rows) else "fails", figure, command, file.get("date", ""))


def _dynamics(name: str, results: Results) -> Finding:
    command = "aem-swe verify dynamics"
    file = results.get("dynamics")
    found = next((one for one in (file or {"claims": ()})["claims"] if one["id"] == name), None)
    if file is None or found is None:
        return Finding(NOT_RUN, "", command)
    verdict, n = str(found["verdict"]), int(found["n"])
    if n < FEWEST and verdict.partition(" ")[0] == "confirmed":
        raise ConfigError(f"dynamics.json calls {name!r} confirmed with n = {n}; {FEWEST} policies are the fewest")
    return Finding(verdict, str(found["figure"]), file.get("command", command), file.get("date", ""))


def _ratio(where: list[str], results: Results) -> Finding:
    name, what, reference = where
    command = f"python benchmarks/{name}.py"
    file = results.get(name)
    rows = (file or {"ratios": ()})["ratios"]
    found = next((row for row in rows if (row["name"], row["reference"]) == (what, reference)), None)
    if file is None or found is None:
        return Finding(NOT_RUN, "", command)
    figure = (
        f"{found['value']:.3%} of {reference} (95% interval {found['low']:.3%} to {found['high']:.3%},"
        f" n = {found['repeats']} steps) with a model of 0.6M parameters on a CPU"
    )
    return Finding("measured", figure, file["command"], file.get("date", ""))


def _training(name: str, results: Results) -> Finding:
    """By the first measure of the contrast, against what the paper says of it."""
    command = "aem-swe verify training"
    file = results.get("training")
    found = next((one for one in (file or {"contrasts": ()})["contrasts"] if one["name"] == name), None)
    if file is None or found is None or not found["n"]:
        return Finding(NOT_RUN, "", command)
    verdict, paper, n = str(found["verdict"]), found["paper"], int(found["n"])
    status = verdict
    if verdict in ("higher", "lower"):
        status = "measured" if paper is None else "confirmed" if verdict == paper else "contradicted"
        if n < FEWEST:
            raise ConfigError(f"training.json calls {name!r} {verdict} with n = {n}; {FEWEST} seeds are the fewest")
    elif not verdict.startswith("undecided"):
        status = f"undecided ({verdict})"
    return Finding(status, str(found["figure"]), file["command"], file["date"])


def _tests(command: str, _: Results) -> Finding:
    return Finding("tested", "as long as CI passes", command)


def _hardware(needs: Json, _: Results) -> Finding:
    total = needs["devices"] * needs["hours"] * needs["runs"]
    figure = (
        f"needs {needs['devices']} {needs['device']} for {needs['hours']} hours, {needs['runs']} times:"
        f" {total:,} GPU hours for training alone"
    )
    return Finding(NOT_RUN, figure, "\n".join(needs["commands"]))


CHECKS: Final[dict[str, Callable[[Any, Results], Finding]]] = {
    "theory": _theory,
    "dynamics": _dynamics,
    "ratio": _ratio,
    "training": _training,
    "tests": _tests,
    "hardware": _hardware,
}


def counts(entries: list[Entry]) -> list[str]:
    """How many claims have which status, in the order in which they first come."""
    words = [entry.finding.status.partition(" (")[0] for entry in entries]
    return [f"{words.count(word)} {word}" for word in dict.fromkeys(words)]
