"""A trajectory as one line of trajectories/*.jsonl, on either engine."""

from typing import Any

from aem_swe.types import FormatError, Trajectory

Json = dict[str, Any]  # JSON values


def _turns(trajectory: Trajectory, per_turn: dict[int, Json]) -> list[Json]:
    rows = []
    for number, turn in enumerate(trajectory.turns):
        action: Json = (
            {"error": turn.action.message}
            if isinstance(turn.action, FormatError)
            else {"name": turn.action.name, "arguments": dict(turn.action.arguments)}
        )
        rows.append(
            {
                "text": turn.text,
                "action": action,
                "observation": turn.observation,
                "tokens": len(turn.response_ids),
                "entropy": None,
                "alpha": None,
                **per_turn.get(number, {}),
            }
        )
    return rows


def trajectory_json(
    trajectory: Trajectory, per_turn: dict[int, Json] | None = None, **extra: Any
) -> Json:  # JSON values
    """Return a trajectory as one line of trajectories/*.jsonl."""
    return {
        "task_id": trajectory.task_id,
        "group": trajectory.group,
        "rollout": trajectory.rollout,
        "reward": trajectory.reward,
        "reason": trajectory.reward_reason,
        "termination": str(trajectory.termination),
        **extra,
        "turns": _turns(trajectory, per_turn or {}),
        "diff": trajectory.diff.decode("utf-8", "backslashreplace"),
        "retries": list(trajectory.retries),
    }
