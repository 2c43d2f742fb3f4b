"""Recorded episodes: the rewards of an evaluation, and one episode to read. Files are streamed, never held in memory.

Every value in these files comes from a policy or a sandbox. It is data of any type: what has not the expected type is
left out here, and the report escapes what is kept.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aem_swe.eval.jsonl import Row, number, read_rows
from aem_swe.eval.runs import Run

LAST_FILES = 8  # how many training files are searched for a solved episode


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The held-out episodes after one step."""

    step: int
    rewards: Mapping[str, float]
    """Mean reward of the graded episodes, by task id."""
    episodes: int
    ungraded: int
    """Episodes without a reward: the infrastructure failed, so they count for nobody."""
    unreadable_lines: int


def read_evaluation(path: Path, step: int) -> Evaluation:
    """Stream one file of held-out episodes; an episode that was written twice counts once, with its last reward."""
    rewards: dict[tuple[str, str], float | None] = {}
    unreadable = 0
    for index, row in enumerate(read_rows(path)):
        if row is None or "task_id" not in row:
            unreadable += 1
        else:
            rewards[str(row["task_id"]), str(row.get("rollout", f"line {index}"))] = number(row.get("reward"))
    graded: dict[str, list[float]] = {}
    for (task, _), reward in rewards.items():
        if reward is not None:
            graded.setdefault(task, []).append(reward)
    means = {task: sum(values) / len(values) for task, values in sorted(graded.items())}
    ungraded = sum(reward is None for reward in rewards.values())
    return Evaluation(step, means, len(rewards), ungraded, unreadable)


@dataclass(frozen=True, slots=True)
class EpisodeTurn:
    thought: str
    """The text before the action when the action was understood, else all of it."""
    text: str
    action: str | None
    arguments: tuple[tuple[str, str], ...]
    error: str | None
    observation: str | None
    tokens: int | None
    entropy: float | None
    alpha: float | None


@dataclass(frozen=True, slots=True)
class Episode:
    """One training episode, ready to be shown."""

    step: int
    task_id: str | None
    reward: float | None
    termination: str | None
    verdict: str | None
    advantage: float | None
    diff: str | None
    retries: tuple[str, ...]
    turns: tuple[EpisodeTurn, ...]


def pick_episode(run: Run) -> Episode | None:
    """The first solved episode of the newest step that has one (of the last 8), else the last episode of all."""
    last: tuple[int, Row] | None = None
    files = sorted(run.training_files().items(), reverse=True)[:LAST_FILES]
    for step, path in files:
        newest: Row | None = None
        for row in read_rows(path):
            if row is None:
                continue
            newest = row
            if (number(row.get("reward")) or 0.0) > 0.0:
                return read_episode(row, step)
        if last is None and newest is not None:
            last = step, newest
    return read_episode(last[1], last[0]) if last else None


def read_episode(row: Row, step: int) -> Episode:
    turns = row.get("turns")
    retries = row.get("retries")
    return Episode(
        step=step,
        task_id=text_of(row.get("task_id")),
        reward=number(row.get("reward")),
        termination=text_of(row.get("termination")),
        verdict=text_of(row.get("verdict")),
        advantage=number(row.get("advantage")),
        diff=text_of(row.get("diff")),
        retries=tuple(text_of(retry) or "" for retry in retries) if isinstance(retries, list) else (),
        turns=tuple(_turn(turn) for turn in turns if isinstance(turn, dict)) if isinstance(turns, list) else (),
    )


def _turn(turn: Row) -> EpisodeTurn:
    action = turn.get("action")
    action = action if isinstance(action, dict) else {}
    name, error = text_of(action.get("name")), text_of(action.get("error"))
    arguments = action.get("arguments")
    tokens, text = number(turn.get("tokens")), text_of(turn.get("text")) or ""
    return EpisodeTurn(
        thought=text if error is not None or name is None else before_call(text),
        text=text,
        action=name,
        arguments=tuple((str(key), text_of(value) or "") for key, value in arguments.items())
        if isinstance(arguments, dict)
        else (),
        error=error,
        observation=text_of(turn.get("observation")),
        tokens=None if tokens is None else int(tokens),
        entropy=number(turn.get("entropy")),
        alpha=number(turn.get("alpha")),
    )


def before_call(text: str) -> str:
    borders = [found for marker in ("<function", "<tool_call") if (found := text.find(marker)) >= 0]
    return text[: min(borders, default=len(text))].strip()


def text_of(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
