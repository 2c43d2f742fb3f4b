"""The paper's reward of a game: 10 for winning, 0 otherwise, less 0.1 for every invalid action."""

import json
from dataclasses import dataclass

from aem_swe.sandboxes.base import Sandbox
from aem_swe.types import Graded, Task


@dataclass(frozen=True, slots=True)
class GameGrader:
    """Reads the record that GameSandbox.diff returns.

    The record is written by our own game process, in which nothing of the agent's runs, so there is nothing to play
    again. An action is invalid where the game did not admit it or the response had none. Held-out games are graded by
    winning alone (HELD_OUT), so that pass@1 is a share.
    """

    success: float = 10.0
    invalid: float = 0.1

    def grade_patch(self, task: Task, diff: bytes) -> Graded:
        """Judge a record. Its reason is `won` or `not_won`, its output says how many moves there were."""
        record = json.loads(diff)
        wrong = sum(not move["valid"] for move in record["moves"])
        reward = (self.success if record["won"] else 0.0) - self.invalid * wrong
        said = f"{len(record['moves'])} moves, {wrong} of them invalid"
        return Graded(reward, "won" if record["won"] else "not_won", output=said)

    def grade(self, task: Task, diff: bytes, sandbox: Sandbox) -> Graded:
        return self.grade_patch(task, diff)


HELD_OUT = GameGrader(success=1.0, invalid=0.0)
