"""The ledger of claims: what a paper says, how it was checked, what came out; docs/reproduction.md is made of it.

Claims stand in eval/claims.yaml, figures in result files. A verdict is worked out from the two, for dynamics and whole
training runs from the values of every batch and run, so that none can be typed by hand. Nothing is decided on fewer
than five seeds or policies: dynamics.py and training.py see to it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar  # Any: JSON and YAML values

import yaml

from aem_swe.errors import ConfigError
from aem_swe.eval import dynamics_result, training_result
from aem_swe.eval.dynamics import CLAIMS
from aem_swe.eval.result_files import read_file
from aem_swe.eval.training import Judgement
from aem_swe.eval.training_plan import read_plan
from aem_swe.resources import resource

Json = Mapping[str, Any]
File = TypeVar("File")
NOT_RUN: Final = "not run"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check says of a claim."""

    status: str
    """holds, fails, measured, confirmed, contradicted, agrees or disagrees with the paper, undecided, tested, not run;
    why, in brackets."""
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
        self._found: dict[str, Any] = {}  # by name, what its reader makes of it

    def get(self, name: str) -> Json | None:
        """The file's content; None where there is none. Raises ConfigError for one that is not JSON."""
        return self._once(name, _read_json)

    def dynamics(self) -> Json | None:
        """dynamics.json, judged again. Raises ConfigError for another file."""
        return self._once("dynamics", lambda path: dynamics_result.read_result(path, "--results"))

    def training(self) -> training_result.Result | None:
        """training.json, judged again. Raises ConfigError for another file, and for another plan than the shipped."""
        return self._once("training", _read_training)

    def _once(self, name: str, read: Callable[[Path], File]) -> File | None:
        if name not in self._found:
            path = self._folder / f"{name}.json"
            self._found[name] = read(path) if path.is_file() else None
        found: File | None = self._found[name]
        return found


def _read_json(path: Path) -> Json:
    return read_file(path, "--results", "verify or of a benchmark", dict)


def _read_training(path: Path) -> training_result.Result:
    result, shipped = training_result.read_result(path, "--results"), read_plan(None)
    made, wanted = result.plan.model_dump(), shipped.model_dump()
    different = [key for key in wanted if made[key] != wanted[key]]
    if dict(result.family) != shipped.family():
        different.append("numbers of contrasts")
    if different:
        raise ConfigError(
            f"{path.name} was made with another plan than eval/training.yaml ({', '.join(different)} differ);"
            " make it again"
        )
    return result


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
    try:
        return CHECKS[kind](what, results)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"the result file of check {dict(check)} cannot be used ({error!r}); make it again"
        ) from error


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
    if name not in {claim.name for claim in CLAIMS}:
        raise ConfigError(
            f"check {{'dynamics': {name!r}}} in eval/claims.yaml is no claim of verify dynamics; correct it"
        )
    file = results.dynamics()
    if file is None:
        return Finding(NOT_RUN, "", "aem-swe verify dynamics")
    found = next(one for one in file["claims"] if one["id"] == name)
    return Finding(str(found["verdict"]), str(found["figure"]), str(file["command"]), str(file["date"]))


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
    result = results.training()
    if result is None:
        return Finding(NOT_RUN, "", "aem-swe verify training")
    found = next((one for one in result.judgements if one.name == name), None)
    if found is None:
        raise ConfigError(f"check {{'training': {name!r}}} in eval/claims.yaml is no contrast of eval/training.yaml")
    if not found.n:
        return Finding(NOT_RUN, "", "aem-swe verify training")
    return Finding(_against_paper(found), found.figure, result.about.command, result.about.date)


def _against_paper(one: Judgement) -> str:
    """Of whole runs nothing was registered before they were made: they confirm and contradict nothing."""
    verdict, paper = one.verdict, one.contrast.paper
    if verdict.startswith("undecided"):
        return verdict
    if paper is None:
        return "measured"
    if verdict not in ("higher", "lower"):
        return f"undecided ({verdict})"
    return "agrees with the paper" if verdict == paper else "disagrees with the paper"


def _tests(command: str, _: Results) -> Finding:
    return Finding("tested", "as long as CI passes", command)


def _hardware(needs: Json, _: Results) -> Finding:
    where, runs = f"{needs['devices']} {needs['device']}", needs["runs"]
    if needs["hours"] is None:
        figure = f"needs {where}, {runs} times; nobody has timed a run"
    else:
        total = needs["devices"] * needs["hours"] * runs
        figure = f"needs {where} for {needs['hours']} hours, {runs} times: {total:,} GPU hours for training alone"
    return Finding(NOT_RUN, figure, "\n".join(needs["commands"]))


def _absent(why: str, _: Results) -> Finding:
    return Finding(NOT_RUN, why, "")


CHECKS: Final[dict[str, Callable[[Any, Results], Finding]]] = {
    "theory": _theory,
    "dynamics": _dynamics,
    "ratio": _ratio,
    "training": _training,
    "tests": _tests,
    "hardware": _hardware,
    "absent": _absent,
}


def counts(entries: list[Entry]) -> list[str]:
    """How many claims have which status, in the order in which they first come."""
    words = [entry.finding.status.partition(" (")[0] for entry in entries]
    return [f"{words.count(word)} {word}" for word in dict.fromkeys(words)]
