"""An instance that was played, before it is graded, and the file that keeps it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # JSON values

from aem_swe.errors import RunError
from aem_swe.eval.swebench.journal import Journal
from aem_swe.metrics import write_atomically
from aem_swe.rollout import Setting
from aem_swe.tasks.grading import Problem
from aem_swe.types import FormatError, Termination, Trajectory, Turn

FORMAT = "mini-swe-agent-1.1"


@dataclass(frozen=True, slots=True)
class Played:
    """What became of an instance before it is graded. `patch` is None where the world failed in every attempt."""

    patch: str | None
    termination: str
    reason: str
    attempts: int
    turns: int
    prompt_tokens: int
    completion_tokens: int
    lost_prompt_tokens: int
    lost_completion_tokens: int
    lost_requests: int
    seconds: dict[str, float]


def finished(trajectory: Trajectory, journal: Journal, seconds: dict[str, float]) -> Played:
    """Of an episode that came to its own end."""
    spent = journal.spent
    return Played(
        patch=trajectory.diff.decode("utf-8", "replace"),
        termination=str(trajectory.termination),
        reason="" if trajectory.reward_reason == "not_graded" else trajectory.reward_reason,
        attempts=journal.attempt,
        turns=len(trajectory.turns),
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
        lost_prompt_tokens=journal.lost.prompt_tokens,
        lost_completion_tokens=journal.lost.completion_tokens,
        lost_requests=journal.lost_requests,
        seconds={"policy": spent.policy_seconds, **seconds},
    )


def failed(journal: Journal, seconds: dict[str, float]) -> Played:
    """Of an instance whose every attempt was ended by the world."""
    return Played(
        patch=None,
        termination=str(Termination.INFRASTRUCTURE_ERROR),
        reason=journal.failures[-1],
        attempts=len(journal.failures),
        turns=0,
        prompt_tokens=0,
        completion_tokens=0,
        lost_prompt_tokens=journal.lost.prompt_tokens,
        lost_completion_tokens=journal.lost.completion_tokens,
        lost_requests=journal.lost_requests,
        seconds=seconds,
    )


def write_trajectory(
    place: Path, trajectory: Trajectory, journal: Journal, setting: Setting, problem: Problem, played: Played
) -> None:
    """Write ID.traj.json in mini-swe-agent's form; what that form has no place for is under `extra` and `aem_swe`."""
    definition = setting.definition
    messages: list[dict[str, Any]] = []
    if definition.system:
        messages.append({"role": "system", "content": definition.system})
    messages.append({"role": "user", "content": definition.first_message(problem.task)})
    for number, turn in enumerate(trajectory.turns):
        messages.append({"role": "assistant", "content": turn.text, "extra": _extra(turn, number, journal)})
        if turn.observation:
            messages.append({"role": "user", "content": turn.observation})
    document = {
        "trajectory_format": FORMAT,
        "instance_id": problem.task.id,
        "info": {
            "exit_status": played.termination,
            "submission": played.patch,
            "model_stats": {"instance_cost": 0.0, "api_calls": played.turns},
            "config": {"agent": definition.name, "history": setting.history},
        },
        "messages": messages,
        "aem_swe": {
            "attempt": played.attempts,
            "failures": journal.failures,
            "retries": list(trajectory.retries),
            "lost_tokens": [played.lost_prompt_tokens, played.lost_completion_tokens],
            "lost_requests": played.lost_requests,
            "seconds": played.seconds,
            "reason": played.reason,
        },
    }
    write_atomically(trajectory_path(place), json.dumps(document, indent=1).encode())


def trajectory_path(place: Path) -> Path:
    return place / f"{place.name}.traj.json"


def read_played(place: Path) -> Played | None:
    """What an instance came to in an earlier process, from its trajectory; None where it was not played to an end.

    Raises RunError for a file that is no trajectory of ours.
    """
    path = trajectory_path(place)
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_bytes())
        info, ours = document["info"], document["aem_swe"]
        said = [message["extra"] for message in document["messages"] if message["role"] == "assistant"]
        return Played(
            patch=info["submission"],
            termination=info["exit_status"],
            reason=ours["reason"],
            attempts=ours["attempt"],
            turns=len(said),
            prompt_tokens=sum(extra["prompt_tokens"] for extra in said),
            completion_tokens=sum(extra["completion_tokens"] for extra in said),
            lost_prompt_tokens=ours["lost_tokens"][0],
            lost_completion_tokens=ours["lost_tokens"][1],
            lost_requests=ours["lost_requests"],
            seconds=ours["seconds"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is no trajectory of ours ({error}); delete it to play the instance again") from error


def _extra(turn: Turn, number: int, journal: Journal) -> dict[str, Any]:
    action: dict[str, Any] = (
        {"error": turn.action.message}
        if isinstance(turn.action, FormatError)
        else {"name": turn.action.name, "arguments": dict(turn.action.arguments)}
    )
    answer = journal.answers[number]
    return {
        "action": action,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "seconds": round(answer.seconds, 3),
        "finish_reason": turn.finish_reason,
        "entropy": None,
        "alpha": None,
    }
