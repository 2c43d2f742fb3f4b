"""Evaluation folders sorted into arms: the checkpoints of one method, and what they do not share with the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aem_swe.errors import ConfigError
from aem_swe.eval.swebench.results import Evaluation, Status, load_evaluations
from aem_swe.eval.visible import visible_line
from aem_swe.eval.wording import counted

VERSUS = "vs"


@dataclass(frozen=True, slots=True)
class Arm:
    """One method: its checkpoints, each evaluated in a folder of its own."""

    label: str
    evaluations: tuple[Evaluation, ...]

    @property
    def seeds_differ(self) -> bool:
        """True where the checkpoints are independent training runs: one, or every seed recorded and none twice."""
        return len(self.evaluations) == 1 or _all_different(self.evaluations)

    @property
    def runs(self) -> tuple[int, ...]:
        """Evaluation runs of every checkpoint."""
        return tuple(evaluation.runs for evaluation in self.evaluations)


def _all_different(evaluations: Sequence[Evaluation]) -> bool:
    seeds = [evaluation.training_seed for evaluation in evaluations]
    return None not in seeds and len({str(seed) for seed in seeds}) == len(seeds)


def parse_arms(words: Sequence[str]) -> tuple[Arm, ...]:
    """Load `A1 A2 vs B1 B2`, the reference first; the word vs separates arms.

    Without it, folders are pooled by `Evaluation.arm` where that gives at least two arms, each with a different
    training seed in every folder; else every folder is an arm of its own. Raises ConfigError for folders that make no
    arms, RunError for one that cannot be read.
    """
    sides: list[list[Path]] = [[]]
    for word in words:
        if word == VERSUS:
            sides.append([])
        else:
            sides[-1].append(Path(word))
    if not all(sides):
        side = "no evaluation folder is given" if not words else f"there is no folder on one side of {VERSUS!r}"
        raise ConfigError(f"{side}; name folders that `aem-swe eval` wrote: A1 A2 {VERSUS} B1 B2")
    _no_folder_twice([folder for side in sides for folder in side])
    loaded = [load_evaluations(side) for side in sides]
    return make_arms(loaded if len(loaded) > 1 else _sorted_by_name(loaded[0]))


def _no_folder_twice(folders: Sequence[Path]) -> None:
    resolved = [folder.resolve() for folder in folders]
    if twice := sorted({str(folder) for folder in resolved if resolved.count(folder) > 1}):
        raise ConfigError(
            f"evaluation folder {twice[0]!r} is given more than once; a checkpoint cannot be compared with itself"
        )


def _sorted_by_name(evaluations: Sequence[Evaluation]) -> list[list[Evaluation]]:
    groups: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        groups.setdefault(evaluation.arm, []).append(evaluation)
    if len(groups) > 1 and all(len(group) == 1 or _all_different(group) for group in groups.values()):
        return list(groups.values())
    return [[evaluation] for evaluation in evaluations]


def make_arms(groups: Sequence[Sequence[Evaluation]]) -> tuple[Arm, ...]:
    """Arms of these evaluations, named after their methods; where two share a name, the folders are added."""
    names = [" + ".join(dict.fromkeys(evaluation.arm for evaluation in group)) for group in groups]
    labels: list[str] = []
    for name, group in zip(names, groups, strict=True):
        folders = ", ".join(evaluation.folder.name for evaluation in group)
        label = visible_line(f"{name} ({folders})" if names.count(name) > 1 else name, 120)
        labels.append(label if label not in labels else f"{label} #{len(labels) + 1}")
    return tuple(Arm(label, tuple(group)) for label, group in zip(labels, groups, strict=True))


def protocol_warnings(evaluations: Sequence[Evaluation]) -> list[str]:
    """What makes the scores of these evaluations incomparable, loudest first."""
    return [
        *_differing(evaluations, "protocol", lambda about: about.get("protocol_sha256")),
        *_differing(evaluations, "data set", lambda about: _inside(about, "dataset", "sha256")),
        *_differing(evaluations, "harness (swebench version)", lambda about: _inside(about, "versions", "swebench")),
        *_differing(evaluations, "network of grading", lambda about: _inside(about, "harness", "network")),
        *_differing(evaluations, "time limit of tests", lambda about: _inside(about, "harness", "timeout_s")),
        *_differing(evaluations, "memory of grading", lambda about: _inside(about, "harness", "memory_mb")),
        *_differing(evaluations, "way to ask the model", lambda about: _inside(about, "identity", "mode")),
    ]


def _inside(about: Mapping[str, object], outer: str, inner: str) -> object:
    found = about.get(outer)
    return found.get(inner) if isinstance(found, Mapping) else None


def _differing(
    evaluations: Sequence[Evaluation], what: str, read: Callable[[Mapping[str, object]], object]
) -> list[str]:
    values = {str(evaluation.folder): read(evaluation.about) for evaluation in evaluations}
    known = sorted({str(value)[:16] for value in values.values() if value is not None})
    if len({str(value) for value in values.values() if value is not None}) > 1:
        pairs = ", ".join(
            f"{folder}: {'not recorded' if value is None else str(value)[:16]}" for folder, value in values.items()
        )
        return [f"the evaluations do not share their {what} ({pairs}); their scores are not comparable"]
    silent = [folder for folder, value in values.items() if value is None]
    if known and silent:
        return [f"the {what} is not recorded for {', '.join(silent)}; whether the scores are comparable is not known"]
    return []


def evaluation_notes(arm: Arm) -> list[str]:
    """What is missing in the evaluations of one arm."""
    notes = []
    for evaluation in arm.evaluations:
        name, wanted = evaluation.folder, evaluation.runs * len(evaluation.instances)
        if not evaluation.complete:
            notes.append(f"{name} is incomplete: {len(evaluation.results)} of {wanted} results are there")
        failed = evaluation.count()[Status.INFRASTRUCTURE]
        if failed:
            notes.append(f"{name}: {counted(failed, 'result')} lost to the infrastructure, in no mean")
        if len({one.id for one in evaluation.instances}) < len(evaluation.instances):
            notes.append(f"{name}: an instance id occurs twice; it counts once")
        if evaluation.unreadable_lines:
            notes.append(f"{name}: {evaluation.unreadable_lines} unreadable (torn) line(s) of results.jsonl skipped")
    if len(methods := sorted({evaluation.arm for evaluation in arm.evaluations})) > 1:
        notes.append(f"{arm.label}: pools the checkpoints of {len(methods)} methods, {', '.join(methods)}")
    if not arm.seeds_differ:
        notes.append(
            f"{arm.label}: its checkpoints do not all have a different training seed on record, so no claim about the "
            "method is made"
        )
    return notes
