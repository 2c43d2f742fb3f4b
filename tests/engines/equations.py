"""The algorithm once more, from the equations and one token at a time: slow, obvious, and none of the package's code.

DESIGN's table of filters, leave-one-out, GRPO and the mean baseline, AEM eq. 13-15, PPO's clip, GSPO's ratio, k3.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from aem_swe.schema import Recipe
from aem_swe.types import Trajectory, Turn

TRUNCATED = ("max_steps", "token_budget", "timeout")
Key = tuple[int, int]
"""(trajectory, turn)"""


def in_baseline(made: Sequence[Trajectory], recipe: Recipe) -> list[int]:
    alive = [i for i, t in enumerate(made) if t.termination != "infrastructure_error"]
    if recipe.algorithm.filter == "drop":
        alive = [i for i in alive if made[i].termination not in TRUNCATED]
    return [i for i in alive if sum(made[j].group == made[i].group for j in alive) >= 2]


def trained(made: Sequence[Trajectory], recipe: Recipe) -> list[int]:
    masked = TRUNCATED if recipe.algorithm.filter == "mask" else ()
    return [i for i in in_baseline(made, recipe) if made[i].termination not in masked]


def base_advantage(made: Sequence[Trajectory], index: int, recipe: Recipe) -> float:
    mates = [i for i in in_baseline(made, recipe) if made[i].group == made[index].group]
    rewards, own = [made[i].reward or 0.0 for i in mates], made[index].reward or 0.0
    mean = sum(rewards) / len(rewards)
    if recipe.algorithm.advantage == "leave_one_out":
        return own - (sum(rewards) - own) / (len(rewards) - 1)
    if recipe.algorithm.advantage == "grpo":
        return (own - mean) / (math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1)) + 1e-6)
    return own - mean


def alphas(made: Sequence[Trajectory], entropies: Mapping[Key, Sequence[float]], recipe: Recipe) -> dict[Key, float]:
    """alpha of every response in G, eq. 13-15."""
    if not recipe.aem.enabled:
        return dict.fromkeys(entropies, 1.0)
    members = trained(made, recipe) if recipe.aem.group == "trained" else in_baseline(made, recipe)
    result: dict[Key, float] = {}
    for group in {made[i].group for i in members}:
        mean = {k: sum(h) / len(h) for k, h in entropies.items() if k[0] in members and made[k[0]].group == group}
        low, high = min(mean.values()), max(mean.values())
        weight = {k: math.exp(-recipe.aem.lam * (h - low) / (high - low)) for k, h in mean.items()}
        result |= {k: w / (sum(weight.values()) / len(weight)) for k, w in weight.items()}
    return result


def plain_advantages(
    made: Sequence[Trajectory], entropies: Mapping[Key, Sequence[float]], recipe: Recipe
) -> dict[Key, float]:
    """The advantage of all tokens of each trained response."""
    alpha, chosen = alphas(made, entropies, recipe), trained(made, recipe)
    return {k: base_advantage(made, k[0], recipe) * alpha[k] for k in entropies if k[0] in chosen}


def said(network: Any, turn: Turn, temperature: float) -> tuple[Tensor, Tensor]:  # Any: a transformers model
    """Log-probs and entropies of one response, from one plain forward pass over prompt and response."""
    ids = torch.tensor([[*turn.prompt_ids, *turn.response_ids]])
    start = len(turn.prompt_ids)
    log_TV = torch.log_softmax(network(input_ids=ids).logits[0].float() / temperature, dim=-1)[start - 1 : -1]
    return log_TV.gather(1, ids[0, start:, None])[:, 0], -(log_TV.exp() * log_TV).sum(1)


def plain_loss(network: Any, old: Any, reference: Any, made: Sequence[Trajectory], recipe: Recipe) -> Tensor:
    """The loss of one update over all groups."""
    a, temperature = recipe.algorithm, recipe.sampling.temperature
    keys = [(i, n) for i in in_baseline(made, recipe) for n in range(len(made[i].turns))]
    turns = {k: made[k[0]].turns[k[1]] for k in keys}
    with torch.no_grad():
        before = {k: said(old, turns[k], temperature) for k in keys}
        anchor = {k: said(reference, turns[k], temperature)[0] for k in keys} if reference else {}
    after = {k: said(network, turns[k], temperature)[0] for k in keys}
    advantage = plain_advantages(made, {k: before[k][1].tolist() for k in keys}, recipe)
    total = torch.zeros(())
    tokens, by_response = 0, a.loss == "gspo" and a.gspo_unit == "response"
    for k in advantage:
        sequence = [k] if by_response else [other for other in advantage if other[0] == k[0]]
        one = torch.zeros(())
        change = after[k] - before[k][0]
        if a.loss == "gspo":
            mean = torch.cat([after[other] - before[other][0] for other in sequence]).mean()
            change = mean.detach() + change - change.detach()
        for t in range(len(change)):
            ratio = change[t].exp()
            clipped = ratio.clamp(1 - a.clip_low, 1 + a.clip_high)
            one = one - torch.minimum(ratio * advantage[k], clipped * advantage[k])
            if reference:
                d = anchor[k][t] - after[k][t]
                one = one + a.kl_coefficient * (d.exp() - d - 1)
            tokens += 1
        mean_of = sum(len(after[other]) for other in sequence) if a.aggregation == "seq-mean-token-mean" else 1
        total = total + one / mean_of
    if a.aggregation == "token-mean":
        return total / tokens
    if a.aggregation == "seq-mean-token-mean":
        return total / (len(keys) if by_response else len(in_baseline(made, recipe)))
    return total / (recipe.agent.response_budget * len(in_baseline(made, recipe)))
