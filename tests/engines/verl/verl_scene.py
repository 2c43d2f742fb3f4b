"""A tiny model, verl's configuration for it, real FSDP2 workers on the CPU, and a batch with every difficulty."""

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

PROMPT, RESPONSE = 6, 10
LAMBDA = 1.0


def make_model(folder: Path) -> Path:
    """A random Qwen3 whose entropies differ from token to token."""
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=16, max_position_embeddings=64, tie_word_embeddings=False,
            eos_token_id=2, pad_token_id=0, bos_token_id=None,
        )
    )  # fmt: skip
    with torch.no_grad():
        model.lm_head.weight.mul_(8.0)
    model.save_pretrained(folder)
    return folder


def make_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{number}": number for number in range(64)}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocab=words, unk_token="w1")), eos_token="w2", pad_token="w0"
    )
    fast.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    fast.save_pretrained(folder)


def verl_config(model: Path, *overrides: str) -> Any:
    """Two prompts with four rollouts in one update; two rows per forward pass of a rank."""
    import verl
    from hydra import compose, initialize_config_dir

    given = [
        f"actor_rollout_ref.model.path={model}",
        "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
        "actor_rollout_ref.model.use_remove_padding=True",
        "actor_rollout_ref.model.enable_gradient_checkpointing=False",
        "actor_rollout_ref.actor.strategy=fsdp2",
        "actor_rollout_ref.actor.fsdp_config.use_torch_compile=False",
        "actor_rollout_ref.actor.use_torch_compile=False",
        "actor_rollout_ref.actor.fsdp_config.model_dtype=fp32",
        "+actor_rollout_ref.actor.fsdp_config.mixed_precision={param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=2",
        "actor_rollout_ref.rollout.temperature=1.0",
        "actor_rollout_ref.actor.optim.lr=1e-2",
        "actor_rollout_ref.actor.optim.total_training_steps=10",
        "actor_rollout_ref.rollout.name=vllm",
        "trainer.device=cpu",
        *overrides,
    ]
    folder = Path(verl.__file__).parent / "trainer" / "config"
    with initialize_config_dir(config_dir=str(folder), version_base=None):
        return compose("ppo_trainer", overrides=given)


def make_workers(config: Any, *, ranks: int = 2, use_gpu: bool = False, watched: bool = True) -> Any:
    """Real ActorRolloutRefWorkers (role actor) as Ray actors, one per data-parallel rank."""
    import ray
    from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup
    from verl.single_controller.ray.base import create_colocated_worker_cls
    from verl_worker import WatchedWorker

    pool = RayResourcePool([ranks], use_gpu=use_gpu, max_colocate_count=1, name_prefix=f"w-{uuid.uuid4().hex[:8]}-")
    remote = ray.remote(WatchedWorker)
    arguments = RayClassWithInitArgs(cls=remote, config=config.actor_rollout_ref, role="actor")
    together = create_colocated_worker_cls({"actor": arguments})
    device = "cuda" if use_gpu else "cpu"
    group = RayWorkerGroup(resource_pool=pool, ray_cls_with_init=together, device_name=device).spawn({"actor"})["actor"]
    group.init_model()
    if watched:
        group.watch(freeze=True)
    return group


TURNS: Sequence[Sequence[tuple[int, int]]] = (
    ((0, 3), (5, 9)),  # two turns with an observation between them
    ((0, 10),),  # one long turn, cut off at the end
    ((0, 2), (3, 5), (7, 8)),
    (),  # a masked trajectory
    ((0, 4),),
    ((0, 6), (7, 10)),
    ((0, 4), (4, 9)),  # two turns that touch
    ((1, 3), (3, 10)),  # touching, and cut off at the end
)
"""Per row: [start, end) of its turns among the response tokens. Two prompts, four rollouts each, interleaved."""
PROMPTS = ("a", "b", "a", "b", "a", "b", "a", "b")
REWARDS = (1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.5, 0.0)
LENGTHS = [[end - start for start, end in turns] for turns in TURNS[:7]] + [[2, 25]]
"""What an agent loop says about its turns: the last one wrote more than verl's row holds."""


def make_batch() -> Any:
    """verl's padded form: prompts padded on the left, responses on the right."""
    from verl import DataProto

    generator = torch.Generator().manual_seed(1)
    rows = len(TURNS)
    ids = torch.randint(3, 64, (rows, PROMPT + RESPONSE), generator=generator)
    attention = torch.ones_like(ids)
    mask = torch.zeros(rows, RESPONSE, dtype=torch.long)
    for row, turns in enumerate(TURNS):
        attention[row, : row % 3] = 0  # prompts of different lengths
        end = max((end for _, end in turns), default=4)
        attention[row, PROMPT + end :] = 0
        for start, stop in turns:
            mask[row, start:stop] = 1
    ids[attention == 0] = 0
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    scores = torch.zeros(rows, RESPONSE)
    for row, reward in enumerate(REWARDS):
        scores[row, attention[row, PROMPT:].sum() - 1] = reward
    lengths = np.empty(rows, dtype=object)
    lengths[:] = list(LENGTHS)
    return DataProto.from_dict(
        tensors={
            "input_ids": ids, "attention_mask": attention, "position_ids": positions, "prompts": ids[:, :PROMPT],
            "responses": ids[:, PROMPT:], "response_mask": mask, "token_level_rewards": scores,
            "token_level_scores": scores,
        },
        non_tensors={"uid": np.array(PROMPTS, dtype=object), "row": np.arange(rows), "turn_lengths": lengths},
        meta_info={"temperature": 1.0, "global_token_num": attention.sum(-1).tolist()},
    )  # fmt: skip


def runs(turns: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is left of turns where only the mask is known: touching ones are one."""
    found: list[tuple[int, int]] = []
    for start, end in turns:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def expected_advantages(
    model: Path, rows: Sequence[int] = range(len(TURNS)), *, touching: str = "apart", lam: float = LAMBDA
) -> dict[int, torch.Tensor]:
    """Leave-one-out times alpha of every response token, by Hugging Face's forward pass and plain loops: eq. 13-15,
    nothing of ours. 0 outside the turns; float64."""
    network = Qwen3ForCausalLM.from_pretrained(model, attn_implementation="sdpa").eval()
    tensors = make_batch().batch
    entropies: dict[tuple[int, int, int], float] = {}
    for row in rows:
        kept = tensors["attention_mask"][row].bool()
        first = int((~kept[:PROMPT]).sum())
        with torch.no_grad():
            logits = network(tensors["input_ids"][row][kept][None]).logits[0].double()
        logprobs = torch.log_softmax(logits, -1)
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        for start, stop in TURNS[row] if touching == "apart" else runs(TURNS[row]):
            places = [PROMPT - first + token - 1 for token in range(start, stop)]  # the logits before each token
            entropies[row, start, stop] = float(entropy[places].mean())
    advantages = {row: torch.zeros(RESPONSE, dtype=torch.float64) for row in rows}
    for prompt in sorted(set(PROMPTS)):
        members = [row for row in rows if PROMPTS[row] == prompt]
        group = {key: value for key, value in entropies.items() if key[0] in members}
        low, high = min(group.values()), max(group.values())
        weights = {key: np.exp(-lam * (value - low) / (high - low)) for key, value in group.items()}
        mean = sum(weights.values()) / len(weights)
        for (row, start, stop), weight in weights.items():
            others = [REWARDS[other] for other in members if other != row]
            advantages[row][start:stop] = (REWARDS[row] - sum(others) / len(others)) * weight / mean
    return advantages
