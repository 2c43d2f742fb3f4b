"""Weights of the rules and of their permuted controls, against slow loops over all permutations. R response."""

from itertools import permutations, product

import pytest
import torch
from torch import Tensor
from written_by_hand import trajectory

from aem_swe.engines.batch import build_batch
from aem_swe.engines.local.dynamics.rules import (
    cell_mean,
    make_cells,
    make_rules,
    permutation_deviation,
    permute_within,
)
from aem_swe.engines.update import Prepared, judge, prepare, trajectory_advantages
from aem_swe.schema import Aem, Algorithm

GROUP_R = torch.tensor([0, 0, 0, 0, 1, 1, 1, 0])
ADVANTAGE_R = torch.tensor([0.5, -0.5, -0.5, 0.5, -1.0, -1.0, -1.0, -0.5])
CELLS = ([0, 3], [1, 2, 7], [4, 5, 6])


def all_permutations(values_R: Tensor) -> list[Tensor]:
    """Every arrangement of values within CELLS, one after another."""
    found = []
    for orders in product(*(list(permutations(cell)) for cell in CELLS)):
        mixed_R = values_R.clone()
        for cell, order in zip(CELLS, orders, strict=True):
            mixed_R[cell] = values_R[list(order)]
        found.append(mixed_R)
    return found


def numbers(seed: int) -> Tensor:
    return torch.rand(8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_cells_are_pairs_of_group_and_sign() -> None:
    cell_R = make_cells(GROUP_R, ADVANTAGE_R)
    assert sorted((cell_R == cell).nonzero()[:, 0].tolist() for cell in range(3)) == sorted(CELLS)
    assert int(cell_R.max()) == 2


def test_a_permutation_keeps_the_multiset_of_every_cell_and_moves_something() -> None:
    alpha_R, cell_R = numbers(1), make_cells(GROUP_R, ADVANTAGE_R)
    seen = set()
    for seed in range(20):
        mixed_R = permute_within(alpha_R, cell_R, torch.Generator().manual_seed(seed))
        for cell in CELLS:
            assert sorted(mixed_R[cell].tolist()) == sorted(alpha_R[cell].tolist())
        seen.add(tuple(mixed_R.tolist()))
    assert len(seen) > 10


def test_the_same_seed_permutes_alike() -> None:
    alpha_R, cell_R = numbers(1), make_cells(GROUP_R, ADVANTAGE_R)
    one, other = (permute_within(alpha_R, cell_R, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, other)


def test_the_mean_over_all_permutations_is_the_mean_of_the_cell() -> None:
    alpha_R = numbers(2)
    average_R = torch.stack(all_permutations(alpha_R)).mean(0)
    torch.testing.assert_close(cell_mean(alpha_R, make_cells(GROUP_R, ADVANTAGE_R)), average_R)


def test_the_deviation_over_permutations_is_that_of_all_of_them() -> None:
    alpha_R, effect_R = numbers(3), numbers(4)
    totals = torch.stack([(mixed_R * effect_R).sum() for mixed_R in all_permutations(alpha_R)])
    expected = float(totals.std(correction=0))
    assert permutation_deviation(alpha_R, effect_R, make_cells(GROUP_R, ADVANTAGE_R)) == pytest.approx(expected)


def prepared_of(responses: list[list[int]], logprobs: list[list[float]], groups: list[int]) -> Prepared:
    """One response per trajectory, of those tokens; rewards 1, 1, 0, 0 in every group."""
    trajectories = [
        trajectory(([3], tokens), group=group, rollout=i % 4, reward=float(i % 4 < 2))
        for i, (tokens, group) in enumerate(zip(responses, groups, strict=True))
    ]
    algorithm, batch = Algorithm(filter="off"), build_batch(trajectories, layout="trajectory")
    verdict = judge(trajectories, algorithm, drop_uniform_groups=False)
    advantages_N = trajectory_advantages(trajectories, batch, verdict, algorithm, budget=10)
    nothing_BT = torch.zeros(batch.tokens_BT.shape)
    return prepare(batch, verdict, advantages_N, over(logprobs), nothing_BT, algorithm, Aem(enabled=False))


def over(values: list[list[float]]) -> Tensor:
    """The values of the sampled tokens, after a prompt of one token and before padding: [B, T]."""
    width = max(map(len, values))
    return torch.tensor([[0.0, *row, *[0.0] * (width - len(row))] for row in values])


def test_weights_of_a_batch_computed_by_hand() -> None:
    prepared = prepared_of([[4, 5]] * 4, [[0.0, 0.0]] * 4, [0] * 4)
    entropy_BT = over([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.5, 0.5]])  # h = 0, 1, 0, 1/2
    rules, _ = make_rules(prepared, entropy_BT, lam=1.0, lambdas=(1.0, 2.0))
    h_R = torch.tensor([0.0, 1.0, 0.0, 0.5], dtype=torch.float64)
    for name, strength in (("aem_1", -1.0), ("aem_2", -2.0), ("inverted", 1.0)):
        torch.testing.assert_close(rules.weights[name], normalised(strength * h_R))
    # alpha at lambda 1 is 1.38, 0.51, 1.38, 0.84 for A > 0, A > 0, A < 0, A < 0
    assert rules.weights["rise"].tolist() == [0, 1, 1, 0]
    assert rules.weights["fall"].tolist() == [1, 0, 0, 1]
    assert rules.weights["base"].tolist() == [1, 1, 1, 1]
    assert rules.controlled == ("aem_1", "aem_2", "inverted", "surprisal", "batch", "sum", "rise", "fall")


def normalised(exponent_U: Tensor) -> Tensor:
    """exp(x) over its mean."""
    return exponent_U.exp() / exponent_U.exp().mean()


def test_variants_computed_by_hand() -> None:
    """Two groups of four; in the first the third response has two tokens."""
    tokens = [[4], [4], [4, 5], [4], [4], [4], [4], [4]]
    entropies = [[0.0], [0.4], [0.1, 0.3], [0.1], [0.8], [0.6], [0.4], [0.2]]
    logprobs = [[-1.0], [0.0], [-0.2, -0.8], [-0.25], [0.0], [-0.5], [-1.0], [-2.0]]
    prepared = prepared_of(tokens, logprobs, [0] * 4 + [1] * 4)
    rules, by_token = make_rules(prepared, over(entropies), lam=1.0, lambdas=(1.0,))
    expected = {
        "aem_1": ([0, 1, 0.5, 0.25], [1, 2 / 3, 1 / 3, 0]),
        "surprisal": ([1, 0, 0.5, 0.25], [0, 0.25, 0.5, 1]),
        "sum": ([0, 1, 1, 0.25], [1, 2 / 3, 1 / 3, 0]),
    }
    for name, groups in expected.items():
        weight_R = torch.cat([normalised(-torch.tensor(h, dtype=torch.float64)) for h in groups])
        torch.testing.assert_close(rules.weights[name], weight_R, atol=1e-6, rtol=1e-6)
    h_R = torch.tensor([0, 0.5, 0.25, 0.125, 1, 0.75, 0.5, 0.25], dtype=torch.float64)
    torch.testing.assert_close(rules.weights["batch"], normalised(-h_R), atol=1e-6, rtol=1e-6)
    groups = ([0, 1, 0.25, 0.75, 0.25], [1, 2 / 3, 1 / 3, 0])
    weight_U = torch.cat([normalised(-torch.tensor(h, dtype=torch.float64)) for h in groups])
    assert list(by_token.weights) == ["token"]
    torch.testing.assert_close(by_token.weights["token"], weight_U, atol=1e-6, rtol=1e-6)
    assert by_token.modulation.responses.row_R.tolist() == [0, 1, 2, 2, 3, 4, 5, 6, 7]
    assert by_token.cell_U.tolist() == [1, 1, 0, 0, 0, 3, 3, 2, 2]
