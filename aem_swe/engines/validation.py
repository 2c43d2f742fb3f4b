"""What an evaluation in the middle of training says, on either engine."""

from collections import Counter
from collections.abc import Sequence
from typing import Any  # JSON values

import numpy as np

from aem_swe.eval.statistics import mean_interval
from aem_swe.types import Termination, Trajectory


def validation_metrics(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """For the row of a step: `val/pass@1` (mean over the graded episodes of a task, then over tasks) with its 95%
    interval over tasks, and counts of endings and verdicts."""
    graded = [one for one in trajectories if one.reward is not None]
    by_task: dict[str, list[float]] = {}
    for one in graded:
        by_task.setdefault(one.task_id, []).append(one.reward or 0.0)
    metrics: dict[str, Any] = {
        "val/episodes": len(graded),
        "val/infrastructure_error": len(trajectories) - len(graded),
    }
    if graded:
        means = [sum(rewards) / len(rewards) for rewards in by_task.values()]
        metrics["val/pass@1"] = sum(means) / len(means)
        metrics["val/unfinished_rate"] = sum(one.termination is not Termination.FINISHED for one in graded) / len(
            graded
        )
        if len(means) > 1:
            found = mean_interval(np.array(means))
            metrics |= {"val/pass@1_low": found.low, "val/pass@1_high": found.high}
    metrics |= {f"val/exit/{name}": count for name, count in Counter(str(t.termination) for t in trajectories).items()}
    metrics |= {f"val/reason/{name}": count for name, count in Counter(t.reward_reason for t in trajectories).items()}
    return metrics
