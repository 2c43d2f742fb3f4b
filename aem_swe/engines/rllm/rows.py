"""Where the responses of rLLM's trajectories lie in the rows that rLLM makes of them. Torch and our algorithms only.

rLLM puts the steps of a trajectory into one growing row as long as each prompt starts with everything before it, and
begins another row where one does not (rllm/trainer/verl/transform.py, `_process_trajectory`). The borders between turns
are lost there: two actions with no observation token between them look like one in the response mask. So the same rule
is applied here to the steps themselves, and the result is checked against the mask that rLLM made.

Shapes: B row, P prompt column, T response column, R response (one model turn).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any  # rLLM's objects have no types

import torch
from torch import Tensor

from aem_swe.algorithms.spans import response_ids, response_ids_from_mask
from aem_swe.errors import RunError


@dataclass(frozen=True, slots=True)
class RowPlan:
    """One row of a trajectory: how long its parts are, and which response tokens belong to which step."""

    prompt_tokens: int
    response_tokens: int
    """All after the first prompt, observations included."""
    spans: tuple[tuple[int, int, int], ...]
    """(start, end, index of the step), start and end counted from the end of the row's prompt."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What rLLM's batch does not say about its rows, in the order in which the batch was made."""

    response_id_BT: Tensor
    """Long, unique in the batch, -1 outside responses."""
    group_B: Tensor
    """Long. Index of the trajectory group, -1 for trajectories that are in none (rLLM has dropped them)."""
    trained_B: Tensor
    """Bool. False for rows of no group, and for trajectories that the filter masks."""
    step_of_response: Mapping[int, tuple[str, int]]
    """response id -> (uid of the trajectory, index of the step)."""
    rows_by_mask: int
    """Rows whose borders had to be guessed from the mask, because rLLM's rule is not ours any more."""


def plan_rows(steps: Iterable[Any]) -> list[RowPlan]:
    """The rows that rLLM makes of the steps of one trajectory."""
    rows: list[tuple[int, list[tuple[int, int, int]]]] = []
    seen: list[int] = []
    for index, step in enumerate(steps):
        output = step.model_output
        if output is None or output.prompt_ids is None or output.completion_ids is None:
            continue
        prompt, action = list(output.prompt_ids), list(output.completion_ids)
        if not rows or prompt[: len(seen)] != seen:
            rows.append((len(prompt), []))
        first = rows[-1][0]
        rows[-1][1].append((len(prompt) - first, len(prompt) - first + len(action), index))
        seen = prompt + action
    return [RowPlan(prompt, spans[-1][1], tuple(spans)) for prompt, spans in rows]


def lay_out(
    uid_of_row_B: Sequence[str],
    plans: Mapping[str, Sequence[RowPlan]],
    groups: Sequence[Sequence[str]],
    masked: Iterable[str],
    mask_BT: Tensor,
) -> tuple[Layout, list[RowPlan | None]]:
    """Match rLLM's rows to the plans of their trajectories.

    uid_of_row_B: the trajectory of each row; rows of one trajectory come in order. plans: {uid: its rows}. groups: the
    uids of each trajectory group. masked: uids that the filter masks. Returns the layout and the plan of each row (None
    where a row has none).
    """
    left = {uid: list(rows) for uid, rows in plans.items()}
    plan_B = [left[uid].pop(0) if left.get(uid) else None for uid in uid_of_row_B]
    spans = [
        (row, *span)
        for row, plan in enumerate(plan_B)
        if plan is not None and plan.response_tokens <= mask_BT.shape[1]
        for span in plan.spans
    ]
    columns = torch.tensor([span[:3] for span in spans], dtype=torch.long).reshape(-1, 3)
    id_BT = response_ids(columns[:, 0], columns[:, 1], columns[:, 2], shape=(mask_BT.shape[0], mask_BT.shape[1]))
    unlike_B = ((id_BT >= 0) != mask_BT.bool()).any(dim=1)
    if unlike_B.any():
        guessed_BT = response_ids_from_mask(mask_BT)
        id_BT = torch.where(unlike_B[:, None], torch.where(guessed_BT < 0, -1, guessed_BT + len(spans)), id_BT)
    group_of = {uid: number for number, uids in enumerate(groups) for uid in uids}
    out = set(masked)
    group_B = torch.tensor([group_of.get(uid, -1) for uid in uid_of_row_B], dtype=torch.long)
    trained_B = torch.tensor([uid in group_of and uid not in out for uid in uid_of_row_B], dtype=torch.bool)
    steps = {number: (uid_of_row_B[row], step) for number, (row, _, _, step) in enumerate(spans)}
    return Layout(id_BT, group_B, trained_B, steps, int(unlike_B.sum())), plan_B


def attention_by_length(plan_B: Sequence[RowPlan | None], attention_mask_BL: Tensor, *, prompt_columns: int) -> Tensor:
    """The attention mask [B, P + T] that the lengths of the rows give: prompts end, and responses begin, at column P.

    rLLM takes `ids != pad_token_id` instead, so a pad token that the policy sampled vanishes from the actor's input.
    Raises RunError for a row that was cut: its log-probs would belong to other tokens.
    """
    mask_BL = attention_mask_BL.clone()
    room = attention_mask_BL.shape[1] - prompt_columns
    for row, plan in enumerate(plan_B):
        if plan is None:
            continue
        if plan.prompt_tokens > prompt_columns:
            raise RunError(
                f"a prompt of {plan.prompt_tokens} tokens was cut to {prompt_columns}, and its row would be trained on "
                "the wrong tokens; raise cluster.max_prompt_tokens"
            )
        if plan.response_tokens > room:
            raise RunError(
                f"an episode of {plan.response_tokens} tokens after its prompt was cut to {room}; raise "
                "agent.response_budget"
            )
        mask_BL[row] = 0
        mask_BL[row, prompt_columns - plan.prompt_tokens : prompt_columns + plan.response_tokens] = 1
    return mask_BL
