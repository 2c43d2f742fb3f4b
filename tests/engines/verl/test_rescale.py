"""AEM on a verl batch, by hand; and the section `aem` of a verl configuration."""

import math

import pytest
import torch

from aem_swe.engines.verl.rescale import rescale
from aem_swe.engines.verl.settings import AemSettings, read_settings, require_trained_group
from aem_swe.errors import ConfigError

MASK = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
ENTROPY = torch.tensor([[1.0, 3.0, 9.0, 4.0], [1.0, 9.0, 9.0, 9.0], [9.0] * 4, [5.0] * 4])
PROMPTS = ["a", "a", "a", "b"]


def test_each_response_gets_its_alpha_within_its_prompt() -> None:
    advantages = torch.tensor([[2.0] * 4, [-1.0] * 4, [0.5] * 4, [3.0] * 4])
    done = rescale(advantages, ENTROPY, MASK, PROMPTS, AemSettings())
    # prompt a: H = 2, 4 and 1, so h = 1/3, 1 and 0; prompt b has one response, alpha 1
    weights = [math.exp(-1 / 3), math.exp(-1), 1.0]
    alpha = [weight / (sum(weights) / 3) for weight in weights]
    expected = torch.tensor(
        [
            [2 * alpha[0], 2 * alpha[0], 2.0, 2 * alpha[1]],
            [-alpha[2], -1.0, -1.0, -1.0],
            [0.5] * 4,
            [3.0] * 4,
        ]
    )
    torch.testing.assert_close(done.advantages_BT, expected)
    assert done.metrics["aem/responses"] == 4
    assert done.metrics["aem/groups"] == 2
    assert done.metrics["aem/borders_from_mask"] == 1


def test_rows_in_any_order_give_the_same_and_returns_keep_their_values() -> None:
    returns = advantages = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    before = returns.clone()
    done = rescale(advantages, ENTROPY, MASK, PROMPTS, AemSettings())
    order = torch.tensor([3, 1, 0, 2])
    again = rescale(advantages[order], ENTROPY[order], MASK[order], [PROMPTS[index] for index in order], AemSettings())
    assert torch.equal(again.advantages_BT, done.advantages_BT[order])
    assert torch.equal(returns, before)


@pytest.mark.parametrize("settings", [AemSettings(lam=0.0), AemSettings(enabled=False)])
def test_lambda_0_and_off_change_no_bit(settings: AemSettings) -> None:
    advantages = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(rescale(advantages, ENTROPY, MASK, PROMPTS, settings).advantages_BT, advantages)


def test_exact_borders_split_turns_that_touch() -> None:
    advantages, mask = torch.ones(1, 4), torch.ones(1, 4, dtype=torch.long)
    entropy = torch.tensor([[1.0, 1.0, 3.0, 3.0]])
    merged = rescale(advantages, entropy, mask, ["a"], AemSettings())
    exact = rescale(advantages, entropy, mask, ["a"], AemSettings(), response_id_BT=torch.tensor([[0, 0, 1, 1]]))
    assert torch.equal(merged.advantages_BT, advantages)
    low, high = 2 / (1 + math.exp(-1)), 2 * math.exp(-1) / (1 + math.exp(-1))
    torch.testing.assert_close(exact.advantages_BT, torch.tensor([[low, low, high, high]]))
    assert exact.metrics["aem/borders_from_mask"] == 0


def test_a_response_keeps_its_untrained_tokens_in_its_entropy_and_leaves_g_with_its_last_trained_one() -> None:
    sampled = torch.tensor([[0, 0, 1, 2], [3, 3, -1, -1]])
    entropy = torch.tensor([[1.0, 3.0, 5.0, 7.0], [2.0, 9.0, 0.0, 0.0]])
    trained = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0]])  # of response 0 one token, of 2 and 3 none
    done = rescale(torch.ones(2, 4), entropy, trained, ["a", "a"], AemSettings(), response_id_BT=sampled)
    assert done.metrics["aem/responses"] == 2
    assert done.metrics["aem/response_entropy_mean"] == (2 + 5) / 2
    low, high = 2 / (1 + math.exp(-1)), 2 * math.exp(-1) / (1 + math.exp(-1))
    torch.testing.assert_close(done.advantages_BT, torch.tensor([[low, low, high, 1.0], [1.0] * 4]))


def test_what_lies_outside_the_mask_may_be_anything_and_inside_must_be_finite() -> None:
    entropy = ENTROPY.clone()
    entropy[MASK == 0] = math.nan
    rescale(torch.ones(4, 4), entropy, MASK, PROMPTS, AemSettings())
    entropy[0, 0] = math.inf
    with pytest.raises(ValueError, match=r"finite"):
        rescale(torch.ones(4, 4), entropy, MASK, PROMPTS, AemSettings())


def test_the_settings_of_a_configuration() -> None:
    assert read_settings({}) == AemSettings()
    assert read_settings({"aem": {"lambda": 2, "entropy_source": "surprisal"}}) == AemSettings(True, 2.0, "surprisal")
    assert read_settings({"aem": {"enabled": False}}) == AemSettings(enabled=False)
    assert read_settings({"aem": {"group": "all"}}).group == "all"


def test_group_all_is_refused_only_where_aem_is_on() -> None:
    require_trained_group(AemSettings(enabled=False, group="all"))
    require_trained_group(AemSettings())
    with pytest.raises(ConfigError, match=r"aem.group is 'all', but verl's .* use aem.group=trained"):
        require_trained_group(AemSettings(group="all"))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"lam": 1}, r"aem.lam is unknown; the keys are aem.enabled, aem.lambda, aem.group, aem."),
        ({"lambda": -1}, "aem.lambda is -1; it must be a number, not negative"),
        ({"lambda": math.nan}, "aem.lambda is nan"),
        ({"lambda": "1"}, "aem.lambda is '1'"),
        ({"enabled": "no"}, "aem.enabled is 'no'; it must be true or false"),
        ({"group": "some"}, r"aem.group is 'some'; choose one of \['trained', 'all'\]"),
        ({"entropy_source": "guess"}, r"aem.entropy_source is 'guess'; choose one of \['policy', 'surprisal'\]"),
    ],
)
def test_a_wrong_setting_is_one_line(section: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings({"aem": section})
