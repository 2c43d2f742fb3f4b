"""The scan for hacks over a whole evaluation, one trajectory at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aem_swe.eval.jsonl import read_rows
from aem_swe.eval.swebench.hack_rules import KINDS, Kind
from aem_swe.eval.swebench.hack_text import Hit
from aem_swe.eval.swebench.hacks import scan
from aem_swe.eval.swebench.patch_files import patched_files
from aem_swe.eval.swebench.records import patches_of, submission, trajectory_of
from aem_swe.eval.swebench.results import Evaluation, Status

KEPT = 5
"""Hits of a result that are kept, the strong ones first: a hostile one has as many as it likes."""


@dataclass(frozen=True, slots=True)
class Found:
    """The hits of one result."""

    hits: tuple[Hit, ...]
    """The first KEPT, no kind twice before every kind is there."""
    count: int
    """How many there are."""
    kinds: frozenset[Kind]
    strong: bool


@dataclass(frozen=True, slots=True)
class KindRow:
    """How often one kind occurs: results with a hit, those with a strong one, and those that are resolved."""

    kind: str
    what: str
    results: int
    strong: int
    resolved: int


def survey(evaluation: Evaluation) -> dict[tuple[int, str], Found]:
    """{(run, instance id): its hits} of the results that have any."""
    found: dict[tuple[int, str], Found] = {}
    test_files = graded_files(evaluation)
    for run in range(1, evaluation.runs + 1):
        patches = patches_of(evaluation, run)
        for one in evaluation.instances:
            document, _ = trajectory_of(evaluation, run, one.id)
            patch = submission(document) or patches.get(one.id, "")
            hits = scan(document, patch, test_files.get(one.id, ()), instance_id=one.id)
            if hits:
                found[run, one.id] = _found(hits)
    return found


def _found(hits: Sequence[Hit]) -> Found:
    seen, first, others = set[Kind](), list[Hit](), list[Hit]()
    for hit in sorted(hits, key=lambda hit: not hit.strong):
        (others if hit.kind in seen else first).append(hit)
        seen.add(hit.kind)
    return Found(tuple([*first, *others][:KEPT]), len(hits), frozenset(seen), any(hit.strong for hit in hits))


def graded_files(evaluation: Evaluation) -> dict[str, tuple[str, ...]]:
    """{instance id: the files that its row's test_patch touches}."""
    path = evaluation.folder / "instances.jsonl"
    found: dict[str, tuple[str, ...]] = {}
    for row in read_rows(path) if path.is_file() else ():
        if row is not None and isinstance(row.get("test_patch"), str):
            files = patched_files(str(row["test_patch"]))
            found[str(row.get("instance_id"))] = tuple(name for one in files for name in one.paths)
    return found


def kind_rows(evaluation: Evaluation, found: Mapping[tuple[int, str], Found]) -> list[KindRow]:
    """One row per kind that occurs."""
    rows = []
    for kind, what in KINDS.items():
        keys = [key for key, one in found.items() if kind in one.kinds]
        strong = sum(any(hit.strong and hit.kind == kind for hit in found[key].hits) for key in keys)
        there = [evaluation.results[key] for key in keys if key in evaluation.results]
        if keys:
            resolved = sum(result.status is Status.RESOLVED for result in there)
            rows.append(KindRow(kind, what, len(keys), strong, resolved))
    return rows
