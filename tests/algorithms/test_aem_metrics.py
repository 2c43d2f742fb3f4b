"""What a step logs about AEM, and the masks of Analysis A. R response, B row, T token."""

import math

import pytest
import torch

from aem_swe.algorithms import Modulation, aem_metrics, analysis_mask, modulate


def example() -> Modulation:
    """Group 0: H = 1 (three tokens, A > 0), 3 (one token, A < 0), 2 (A = 0). Group 1 is flat, row 4 is outside."""
    entropy_BT = torch.tensor([[1.0, 1.0, 1.0], [3.0, 0.0, 0.0], [2.0, 0.0, 0.0], [5.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    id_BT = torch.tensor([[0, 0, 0], [1, -1, -1], [2, -1, -1], [3, -1, -1], [4, -1, -1]])
    advantages_BT = torch.tensor([0.5, -0.5, 0.0, -2.0, 7.0]).unsqueeze(1).expand(5, 3)
    return modulate(advantages_BT, entropy_BT, id_BT, torch.tensor([0, 0, 0, 1, -1]), lam=1.0)


def test_metrics_by_hand() -> None:
    weights = [1.0, math.exp(-1.0), math.exp(-0.5)]
    low, high, middle = (3 * weight / sum(weights) for weight in weights)
    expected = {
        "aem/responses": 4.0,
        "aem/groups": 2.0,
        "aem/flat_groups": 1.0,
        "aem/alpha_min": high,
        "aem/alpha_max": low,
        "aem/alpha_token_mean": (3 * low + high + middle + 1) / 6,
        "aem/response_entropy_mean": (1 + 3 + 2 + 5) / 4,
        "aem/alpha_positive_mean": low,
        "aem/alpha_negative_mean": (high + 1) / 2,
    }
    assert aem_metrics(example()) == pytest.approx(expected, rel=1e-12)


def test_metrics_of_nothing_are_counts_only() -> None:
    empty = modulate(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([[0, 0]]), torch.tensor([-1]), lam=1.0)
    assert aem_metrics(empty) == {"aem/responses": 0.0, "aem/groups": 0.0, "aem/flat_groups": 0.0}


def test_analysis_masks_drop_the_pairs_of_the_paper() -> None:
    advantage_R = torch.tensor([1.0, 1.0, -1.0, -1.0, 0.0, 1.0])
    alpha_R = torch.tensor([1.2, 0.8, 1.2, 0.8, 1.2, 1.0])
    assert analysis_mask(advantage_R, alpha_R, keep="rise").tolist() == [False, True, True, False, True, True]
    assert analysis_mask(advantage_R, alpha_R, keep="fall").tolist() == [True, False, False, True, True, True]
    with pytest.raises(ValueError, match="choose 'rise' or 'fall'"):
        analysis_mask(advantage_R, alpha_R, keep="both")  # type: ignore[arg-type]  # the mistake under test
