"""The estimate of memory, against numbers that were computed by hand."""

import pytest

from aem_swe.config import load_recipe
from aem_swe.engines.rllm.memory import GIB, QWEN3, RESERVE_GIB, Shape, estimate, shape_of
from aem_swe.errors import ConfigError

TINY = Shape(
    hidden=8, layers=2, heads=4, kv_heads=2, head_dim=4, intermediate=16, vocabulary=100, tied=True
)  # fmt: skip
CONFIG = {
    "hidden_size": 5120, "num_hidden_layers": 64, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128,
    "intermediate_size": 25600, "vocab_size": 151936, "tie_word_embeddings": False,
}  # fmt: skip


def test_parameters_are_counted_as_the_model_has_them() -> None:
    # attention 8*16 + 2*(8*8) + 16*8 = 384; MLP 3*8*16 = 384; norms 2*8 + 2*4 = 24
    assert TINY.layer == 384 + 384 + 24
    assert TINY.parameters == 2 * 792 + 100 * 8 + 8
    assert QWEN3["Qwen3-32B"].parameters == 32_762_123_264  # as its model card says: 32.8B
    assert QWEN3["Qwen3-0.6B"].parameters == 596_049_920


def test_the_count_is_what_transformers_makes() -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=4,
        intermediate_size=16, vocab_size=100, tie_word_embeddings=True,
    )  # fmt: skip
    assert sum(p.numel() for p in Qwen3ForCausalLM(config).parameters()) == TINY.parameters
    assert shape_of(config.to_dict()) == TINY


def test_a_shape_is_read_from_config_json() -> None:
    assert shape_of(CONFIG) == QWEN3["Qwen3-32B"]
    older = {key: value for key, value in CONFIG.items() if key not in ("head_dim", "num_key_value_heads")}
    assert (shape_of(older).head_dim, shape_of(older).kv_heads) == (80, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_experts": 8}, "mixture of experts"), ({"hidden_size": None}, "config.json"), ({"hidden_size": "x"}, "'x'")],
)
def test_what_is_no_dense_decoder_is_one_line(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        shape_of(CONFIG | change)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("config", [[], None, 3, "x"])
def test_a_config_that_is_no_object_is_one_line(config: object) -> None:
    with pytest.raises(ConfigError, match="holds no settings but a"):
        shape_of(config)


@pytest.mark.parametrize("value", [0, -1, float("inf"), 10**400])
@pytest.mark.parametrize("key", ["num_attention_heads", "num_hidden_layers", "vocab_size", "head_dim"])
def test_a_size_that_no_model_has_is_one_line(key: str, value: float) -> None:
    if (key, value) == ("head_dim", 0):  # as good as none
        assert shape_of(CONFIG | {key: value}).head_dim == 80
        return
    changed = {name: size for name, size in CONFIG.items() if name != "head_dim"} | {key: value}
    with pytest.raises(ConfigError, match=r"config\.json has ") as raised:
        shape_of(changed)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 200


def test_deepswe_on_64_gpus_by_hand() -> None:
    got = estimate(load_recipe("deepswe"), QWEN3["Qwen3-32B"])
    shard = 32_762_123_264 / 64
    assert got.states == pytest.approx(16 * shard / GIB)  # 7.63, offloaded or not
    # 36864 / 8 = 4608 tokens; 2 * 4608 * 5120 * 64 + 2 * 4608 * (4*5120 + 2*8192 + 2*1024 + 4*25600)
    assert got.activations == pytest.approx((3_019_898_880 + 1_302_331_392) / GIB)
    assert got.logits == pytest.approx(8 * 4608 * 151936 / GIB)
    # 2 * (2 * 487.6M + 777.9M) + 4 * 487.6M
    assert got.gathered == pytest.approx((2 * (2 * 487_598_336 + 777_912_320) + 4 * 487_598_336) / GIB)
    parts = got.states + got.gathered + got.activations + got.logits
    assert got.training == pytest.approx(parts + RESERVE_GIB)
    assert got.resting == 0
    assert got.server_weights == pytest.approx(2 * 32_762_123_264 / 8 / GIB)
    # a token: 4 bytes x 64 layers x 1024 / 8 GPUs = 32768 bytes on each GPU
    assert got.cache_tokens(80, 0.6) == int((48 - got.server_weights - 2) * 32768)
    assert got.node_cpu == pytest.approx(8 * 12 * shard / GIB)
    assert got.checkpoint == pytest.approx(16 * 32_762_123_264 / GIB)


def test_without_offload_adam_stays_and_takes_the_servers_room() -> None:
    kept = estimate(load_recipe("deepswe", ["cluster.offload=false"]), QWEN3["Qwen3-32B"])
    assert kept.states == kept.resting
    assert kept.node_cpu == 0
    assert kept.generating(80, 0.6) == pytest.approx(48 + kept.resting + RESERVE_GIB / 2)
    apart = estimate(load_recipe("deepswe", ["cluster.offload=false", "cluster.mode=fully_async"]), QWEN3["Qwen3-32B"])
    assert apart.resting == 0
    assert apart.states == pytest.approx(2 * kept.states)  # half of the GPUs hold the model


def test_a_kl_loss_takes_the_weights_of_a_reference() -> None:
    shape, reference = QWEN3["Qwen3-32B"], 4 * 32_762_123_264 / 64 / GIB
    for offload in ("true", "false"):
        place = f"cluster.offload={offload}"
        base = estimate(load_recipe("deepswe", [place]), shape)
        grpo = estimate(load_recipe("deepswe_grpo", [place]), shape)
        more = reference * (offload == "false")
        assert (grpo.states - base.states, grpo.resting - base.resting) == pytest.approx((more, more))
        assert grpo.node_cpu - base.node_cpu == pytest.approx(0 if more else 8 * reference)


def test_deepswe_on_one_node_is_mostly_states() -> None:
    got = estimate(load_recipe("deepswe_1node"), QWEN3["Qwen3-32B"])
    assert got.states == pytest.approx(61.02, abs=0.01)
    assert got.training == pytest.approx(81.4, abs=0.1)


def test_more_tokens_cost_in_proportion_and_no_checkpointing_costs_every_layer() -> None:
    one, two = (
        estimate(load_recipe("deepswe", [f"cluster.tokens_per_gpu={tokens}"]), QWEN3["Qwen3-32B"])
        for tokens in (4608, 9216)
    )
    assert (two.activations, two.logits) == pytest.approx((2 * one.activations, 2 * one.logits))
    assert (two.states, two.gathered) == (one.states, one.gathered)
    whole = estimate(load_recipe("deepswe", ["model.gradient_checkpointing=false"]), QWEN3["Qwen3-32B"])
    assert whole.activations == pytest.approx(64 * 1_302_331_392 / GIB)


def test_a_server_without_room_for_its_weights_has_no_cache() -> None:
    got = estimate(load_recipe("deepswe", ["cluster.tensor_parallel=1"]), QWEN3["Qwen3-32B"])
    assert got.cache_tokens(80, 0.6) < 0
