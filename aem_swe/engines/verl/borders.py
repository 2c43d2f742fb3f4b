"""Where one turn ends and the next begins in a verl row.

verl marks the policy's tokens in `response_mask` and knows no borders: two turns without an observation token between
them look like one run of ones. An agent loop that knows better says so in its output:

    AgentLoopOutput(..., extra_fields={"turn_lengths": [12, 7, 30]})    # sampled tokens of each turn, in order

Rows without it fall back to the runs of the mask, and `aem/borders_from_mask` counts that.

Shapes: B row, T response token.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from aem_swe.algorithms.spans import response_ids_from_mask

FIELD: Final = "turn_lengths"


def find_borders(sampled_BT: Tensor, turn_lengths_B: Sequence[Sequence[int] | None]) -> tuple[Tensor, bool]:
    """Return the response id of every sampled token (B, T; -1 elsewhere), and whether all of them are exact.

    sampled_BT: 1 where the policy wrote the token. turn_lengths_B: per row its turns' numbers of sampled tokens, None
    where nobody knows. verl cuts rows at its response length, so turns may be longer in total than the row; a masked
    row has none left. Raises ValueError where they are shorter.
    """
    ids_BT = response_ids_from_mask(sampled_BT)
    free, exact = int(ids_BT.max()) + 1, True
    for row, lengths in enumerate(turn_lengths_B):
        columns = sampled_BT[row].nonzero().flatten()
        if not len(columns):
            continue
        if lengths is None:
            exact = False
            continue
        turn = torch.arange(len(lengths)).repeat_interleave(torch.tensor(list(lengths), dtype=torch.long))
        if len(turn) < len(columns):
            raise ValueError(
                f"row {row} has {len(columns)} sampled tokens and {FIELD} {list(lengths)} of only {len(turn)}; an agent"
                " loop must list every turn, in tokens"
            )
        ids_BT[row, columns] = turn[: len(columns)].to(ids_BT) + free
        free += len(lengths)
    return ids_BT, exact
