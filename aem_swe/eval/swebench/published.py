"""Published outcomes of SWE-bench Verified as evaluations, so that two systems are compared as two checkpoints are.

The data is one JSON object, submission -> ids of the instances that it resolved. It does not say which instances were
attempted: only for a full run is an absent instance an unresolved one. Which submissions are full runs is committed in
eval/published_full_runs.yaml, with how many instances each resolved; any other is refused with the reason given there.
Not covered: how often a system was run. One outcome per instance is published, and it counts as one run.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml  # type: ignore[import-untyped, unused-ignore]  # PyYAML ships no types

from aem_swe.errors import ConfigError
from aem_swe.eval.swebench.results import Evaluation, Instance, Result, Status
from aem_swe.resources import resource

LIST = "published_full_runs.yaml"
IDS = "swe_bench_verified_ids.json"
CAVEAT = "published systems differ in more than their model and protocols are not recorded: this is about whole systems"


@dataclass(frozen=True, slots=True)
class FullRuns:
    """The committed list."""

    resolved: Mapping[str, int]
    """By submission: how many of the 500 it resolved."""
    refused: Mapping[str, str]
    """By submission: why it is not used."""


def full_runs() -> FullRuns:
    content = yaml.safe_load(resource("eval", LIST).read_text(encoding="utf-8"))
    refused = {name: str(group["reason"]) for group in content["refused"] for name in group["names"]}
    return FullRuns(content["full_runs"], refused)


def read_published(data: Path, names: Sequence[str], ids: Path | None = None) -> list[Evaluation]:
    """The named submissions; all full runs in the data where none is named.

    `ids` is the JSON list of all instances; without it, swe_bench_verified_ids.json beside the data. Raises ConfigError
    for a file of another form and for a submission that is no full run.
    """
    resolved = _resolved(data)
    every = _instances(ids or data.parent / IDS)
    listed = full_runs()
    chosen = list(names) or [name for name in resolved if name in listed.resolved]
    return [_evaluation(name, _chosen(name, resolved, listed, data), every, data) for name in chosen]


def _read(path: Path, form: str) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); give {form}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no JSON ({error}); give {form}") from error


def _resolved(path: Path) -> dict[str, list[str]]:
    form = "a JSON object: submission -> list of the ids that it resolved"
    content = _read(path, form)
    if not isinstance(content, dict) or not content or not all(map(_texts, content.values())):
        raise ConfigError(f"{path} has another form; give {form}")
    return content


def _instances(path: Path) -> tuple[Instance, ...]:
    form = "--ids, the JSON list of the instance ids of SWE-bench Verified"
    content = _read(path, form)
    if not isinstance(content, list) or not content or not _texts(content) or len(set(content)) < len(content):
        raise ConfigError(f"{path} is no list of different ids; give {form}")
    return tuple(Instance(one, _repository(one), "") for one in content)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _repository(instance_id: str) -> str:
    """ "django/django" of "django__django-11099"."""
    return instance_id.rsplit("-", 1)[0].replace("__", "/", 1)


def _chosen(name: str, resolved: Mapping[str, list[str]], listed: FullRuns, data: Path) -> set[str]:
    """What the submission resolved. Raises ConfigError where an absent instance may be one that it never tried."""
    if name not in resolved:
        near = difflib.get_close_matches(name, resolved, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else "give no name to list those that can be compared"
        raise ConfigError(f"submission {name!r} is not in {data}; {remedy}")
    if name not in listed.resolved:
        reason = listed.refused.get(name, "not known to be a full run")
        raise ConfigError(f"submission {name!r} cannot be compared: {reason}; give no name to list those that can")
    found = set(resolved[name])
    if len(found) != listed.resolved[name]:
        raise ConfigError(
            f"submission {name!r} resolves {len(found)} instances in {data}, but its full run {listed.resolved[name]}; "
            "use data that holds the outcomes of that one run"
        )
    return found


def _evaluation(name: str, resolved: set[str], every: tuple[Instance, ...], data: Path) -> Evaluation:
    if stray := sorted(resolved - {one.id for one in every}):
        raise ConfigError(
            f"submission {name!r} resolves {stray[0]!r}, which is no instance of the ids given; give --ids"
        )
    statuses = {one.id: Status.RESOLVED if one.id in resolved else Status.UNRESOLVED for one in every}
    results = {(1, one): Result(one, 1, status) for one, status in statuses.items()}
    about = {"model": name, "runs": 1, "source": str(data)}
    return Evaluation(Path(name), about, every, results)
