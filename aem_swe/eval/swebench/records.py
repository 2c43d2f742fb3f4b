"""What is on disk of one instance in one run, ready to be shown: its turns, its patch, and what its tests said.

All of it is hostile: values of any type, files of any size, names that lead elsewhere. What has not the expected type
is left out; a file that is no plain file inside the evaluation's folder, or too large, is not read. One at a time.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # JSON values

from aem_swe.eval.jsonl import number, read_rows
from aem_swe.eval.swebench.hack_text import Hit
from aem_swe.eval.swebench.hacks import scan
from aem_swe.eval.swebench.results import Evaluation, Result
from aem_swe.eval.trajectories import before_call, text_of

LARGEST_FILE = 64 << 20
FIRST_TURNS, LAST_TURNS = 30, 20
MOST_NAMES = 20
MOST_OUTPUT = 6_000
_OUTPUT_READ = 1 << 20
_BEGIN, _END = ">>>>> Start Test Output", ">>>>> End Test Output"


@dataclass(frozen=True, slots=True)
class Turn:
    number: int
    thought: str
    text: str
    action: str | None
    arguments: tuple[tuple[str, str], ...]
    error: str | None
    observation: str | None
    prompt_tokens: int | None
    tokens: int | None
    seconds: float | None
    tool_seconds: float | None
    entropy: float | None
    alpha: float | None
    cut: bool
    """The response ended at the limit of its tokens."""
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Tests:
    """What the harness left."""

    failed: tuple[tuple[str, tuple[str, ...], int], ...]
    """(FAIL_TO_PASS or PASS_TO_PASS, the first tests of it that failed, how many failed)."""
    output: str
    """The end of it."""
    left_out: int
    """Bytes or characters before that."""


@dataclass(frozen=True, slots=True)
class Record:
    """One instance in one run."""

    run: int
    instance_id: str
    result: Result | None
    trouble: str
    """Why there are no turns, in our words; empty where there are."""
    task: str
    turns: tuple[Turn, ...]
    """The first, the last, and every one with a hit."""
    all_turns: int
    retries: tuple[str, ...]
    patch: str | None
    patch_hits: tuple[Hit, ...]
    tests: Tests | None


def trajectory_of(evaluation: Evaluation, run: int, instance_id: str) -> tuple[dict[str, Any] | None, str]:
    """What is in ID.traj.json, and why there is nothing."""
    path = evaluation.trajectory_file(run, instance_id) if is_file_name(instance_id) else None
    if path is None or not _inside(evaluation.folder, path):
        return None, "no trajectory is recorded"
    if path.stat().st_size > LARGEST_FILE:
        return None, f"its trajectory file is larger than {LARGEST_FILE >> 20} MB"
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None, "its trajectory file is no JSON"
    return (document, "") if isinstance(document, dict) else (None, "its trajectory file holds no object")


def is_file_name(name: str) -> bool:
    """Only of such a one a path is made."""
    return name not in ("", ".", "..") and len(name) <= 200 and "/" not in name and name.isprintable()


def _inside(folder: Path, path: Path) -> bool:
    try:
        return path.is_file() and path.resolve().is_relative_to(folder.resolve())
    except OSError:
        return False


def patches_of(evaluation: Evaluation, run: int) -> dict[str, str]:
    """{instance id: patch} of preds.jsonl; empty where there is none."""
    path = evaluation.run_folder(run) / "preds.jsonl"
    found: dict[str, str] = {}
    for row in read_rows(path) if _inside(evaluation.folder, path) else ():
        name, patch = (row.get("instance_id"), row.get("model_patch")) if row is not None else (None, None)
        if isinstance(name, str) and isinstance(patch, str):
            found[name] = patch
    return found


def submission(document: Mapping[str, Any] | None) -> str | None:
    """The patch in a trajectory."""
    info = document.get("info") if document is not None else None
    patch = info.get("submission") if isinstance(info, dict) else None
    return patch if isinstance(patch, str) else None


def read_record(
    evaluation: Evaluation, run: int, instance_id: str, patch: str | None, test_files: Sequence[str]
) -> Record:
    """patch: for the case that the trajectory has none. test_files: what the row's test_patch touches."""
    document, trouble = trajectory_of(evaluation, run, instance_id)
    patch = patch if submission(document) is None else submission(document)
    hits = scan(document, patch or "", test_files, instance_id=instance_id)
    messages = document.get("messages") if document is not None else None
    rows = [row for row in messages if isinstance(row, dict)] if isinstance(messages, list) else []
    turns = list(_turns(rows, hits))
    shown = tuple(
        turn for turn in turns if turn.number <= FIRST_TURNS or turn.number > len(turns) - LAST_TURNS or turn.hits
    )
    ours = document.get("aem_swe") if document is not None else None
    retries = ours.get("retries") if isinstance(ours, dict) else None
    return Record(
        run=run,
        instance_id=instance_id,
        result=evaluation.results.get((run, instance_id)),
        trouble=trouble or ("" if turns else "its trajectory file has no turns"),
        task=next((text_of(row.get("content")) or "" for row in rows if row.get("role") == "user"), ""),
        turns=shown,
        all_turns=len(turns),
        retries=tuple(text_of(one) or "" for one in retries) if isinstance(retries, list) else (),
        patch=patch,
        patch_hits=tuple(hit for hit in hits if hit.where == "patch"),
        tests=_tests(evaluation, run, instance_id),
    )


def _turns(rows: Sequence[Mapping[str, Any]], hits: Sequence[Hit]) -> Iterator[Turn]:
    count = 0
    for place, row in enumerate(rows):
        if row.get("role") != "assistant":
            continue
        count += 1
        following = rows[place + 1] if place + 1 < len(rows) else {}
        answer = following.get("content") if following.get("role") == "user" else None
        yield _turn(row, count, answer, tuple(hit for hit in hits if hit.where == count))


def _turn(row: Mapping[str, Any], count: int, answer: object, hits: tuple[Hit, ...]) -> Turn:
    extra = row.get("extra")
    extra = extra if isinstance(extra, dict) else {}
    action = extra.get("action")
    action = action if isinstance(action, dict) else {}
    name, error, arguments = text_of(action.get("name")), text_of(action.get("error")), action.get("arguments")
    text = text_of(row.get("content")) or ""
    return Turn(
        number=count,
        thought=text if error is not None or name is None else before_call(text),
        text=text,
        action=name,
        arguments=tuple((str(key), text_of(value) or "") for key, value in arguments.items())
        if isinstance(arguments, dict)
        else (),
        error=error,
        observation=text_of(extra.get("observation", answer)),
        prompt_tokens=_whole(extra.get("prompt_tokens")),
        tokens=_whole(extra.get("completion_tokens")),
        seconds=number(extra.get("seconds")),
        tool_seconds=number(extra.get("tool_seconds")),
        entropy=number(extra.get("entropy")),
        alpha=number(extra.get("alpha")),
        cut=extra.get("finish_reason") == "length",
        hits=hits,
    )


def _whole(value: object) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def _tests(evaluation: Evaluation, run: int, instance_id: str) -> Tests | None:
    """From logs/run_evaluation/RUN ID/MODEL/INSTANCE; None where the harness left nothing."""
    if not is_file_name(instance_id):
        return None
    logs = evaluation.run_folder(run) / "logs" / "run_evaluation"
    for folder in sorted(logs.glob("*/*")):
        report, output = folder / instance_id / "report.json", folder / instance_id / "test_output.txt"
        if _inside(evaluation.folder, report) or _inside(evaluation.folder, output):
            failed = _failed(report, instance_id) if _inside(evaluation.folder, report) else ()
            text, left_out = _end_of(output) if _inside(evaluation.folder, output) else ("", 0)
            return Tests(failed, text, left_out)
    return None


def _failed(path: Path, instance_id: str) -> tuple[tuple[str, tuple[str, ...], int], ...]:
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size <= LARGEST_FILE else None
    except (OSError, ValueError, RecursionError):
        return ()
    for key in (instance_id, "tests_status"):
        found = found.get(key) if isinstance(found, dict) else None
    lists = []
    for kind in ("FAIL_TO_PASS", "PASS_TO_PASS"):
        one = found.get(kind) if isinstance(found, dict) else None
        failures = one.get("failure") if isinstance(one, dict) else None
        if isinstance(failures, list) and failures:
            lists.append((kind, tuple(text_of(name) or "" for name in failures[:MOST_NAMES]), len(failures)))
    return tuple(lists)


def _end_of(path: Path) -> tuple[str, int]:
    """The last characters between the harness's marks, and how many bytes or characters are before them."""
    with path.open("rb") as file:
        skipped = max(path.stat().st_size - _OUTPUT_READ, 0)
        file.seek(skipped)
        text = file.read(_OUTPUT_READ).decode("utf-8", "replace")
    if (begin := text.find(_BEGIN)) >= 0:
        text, skipped = text[begin + len(_BEGIN) :].lstrip("'\n"), 0
    text = text.split(_END, 1)[0].rstrip("\n +:'")
    return text[-MOST_OUTPUT:], skipped + max(len(text) - MOST_OUTPUT, 0)
