"""Teach a starting policy from scripted demonstrations, from nothing, in minutes on a CPU.

The one here is the demo's; game_policy.py has that of the text games.

A Qwen3 of 0.6M parameters learns by cross-entropy on the assistant's tokens (and, with a small weight, on what it is
shown). Muon updates the matrices and AdamW the rest; the learning rate warms up, holds and decays linearly. The last
part of the demonstrations is noisier, so that the policy that reinforcement learning starts from still explores.
"""

import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from aem_swe.agents.chat import ChatFormat, Tokenizer
from aem_swe.agents.definition import load_agent
from aem_swe.engines.local.demo_tokenizer import build_tokenizer
from aem_swe.tasks.demo import make_problem
from aem_swe.tasks.demonstrations import demonstrate

MAX_TURNS = 8
"""Longer demonstrations are cut here."""


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Settings of the shipped policy; the defaults are the ones that made it."""

    steps: int = 1500
    seed: int = 0
    batch_tokens: int = 4096
    """Padded tokens of one batch."""
    muon_lr: float = 0.02
    adamw_lr: float = 3e-3
    observation_weight: float = 0.1
    """Loss weight of the tokens that the policy is shown; 1 for those that it says."""
    noise: float = 0.3
    last_noise: float = 0.6
    last_share: float = 0.25
    """Share of the steps that use `last_noise`."""


def new_network(vocabulary: int, seed: int, positions: int = 1024) -> Qwen3ForCausalLM:
    """Return a randomly initialised Qwen3: 4 layers of 128, 4 query heads and 1 key/value head of 32, tied
    embeddings."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,
        intermediate_size=256,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    return Qwen3ForCausalLM(config)


@dataclass(frozen=True, slots=True)
class Example:
    ids: list[int]
    sampled: list[bool]


Encode = Callable[[int, random.Random, PreTrainedTokenizerFast, ChatFormat, float], Example]
"""(seed, stream, tokenizer, chat, noise) -> one demonstration, exactly as an episode would be."""


def encode_demonstration(
    seed: int, stream: random.Random, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat, noise: float
) -> Example:
    """Encode one demonstration exactly as an episode of the demo agent would."""
    problem = make_problem("train", seed)
    definition = load_agent("demo")
    prompt = chat.first_prompt(definition.system, definition.task.replace("{statement}", problem.issue))
    steps = itertools.islice(demonstrate(problem, stream, noise=noise), MAX_TURNS)
    return encode_turns(prompt, steps, tokenizer, chat)


def encode_turns(
    prompt: Sequence[int], steps: Iterable[tuple[str, str]], tokenizer: PreTrainedTokenizerFast, chat: ChatFormat
) -> Example:
    """Lay out (response, observation) after the first prompt; an empty observation ends the episode."""
    ids = list(prompt)
    sampled = [False] * len(ids)
    for text, observation in steps:
        response = [*tokenizer.encode(text, add_special_tokens=False), chat.end_id]
        ids += response
        sampled += [True] * len(response)
        if observation:
            ids = list(chat.extend(ids, observation))
            sampled += [False] * (len(ids) - len(sampled))
    return Example(ids, sampled)


@dataclass(frozen=True, slots=True)
class Teaching:
    """What a policy is taught."""

    tokenizer: Callable[[], PreTrainedTokenizerFast]
    encode: Encode
    positions: int
    """The longest row that the network is made for."""


DEMO = Teaching(build_tokenizer, encode_demonstration, 1024)


def _batches(
    settings: WarmStart,
    encode: Encode,
    tokenizer: PreTrainedTokenizerFast,
    chat: ChatFormat,
    noise: Callable[[], float],
) -> Iterator[list[Example]]:
    """Endless batches of examples of similar length, at most `batch_tokens` padded tokens each."""
    stream = random.Random(settings.seed)
    seed = 10_000_000  # far from the training tasks of the recipes
    while True:
        level = noise()
        examples = [encode(seed + i, stream, tokenizer, chat, level) for i in range(512)]
        seed += len(examples)
        examples.sort(key=lambda example: len(example.ids))
        batches: list[list[Example]] = [[]]
        for example in examples:
            if (len(batches[-1]) + 1) * len(example.ids) > settings.batch_tokens:
                batches.append([])
            batches[-1].append(example)
        stream.shuffle(batches)
        yield from batches


def _tensors(batch: list[Example], observation_weight: float) -> tuple[Tensor, Tensor]:
    """Return right-padded ids (B, T) and loss weights (B, T), 0 on padding."""
    longest = max(len(example.ids) for example in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    weights = torch.zeros(len(batch), longest)
    for row, example in enumerate(batch):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        weights[row, : len(example.ids)] = torch.tensor(
            [1.0 if said else observation_weight for said in example.sampled]
        )
    return ids, weights


def train_policy(settings: WarmStart, out: Path, teaching: Teaching = DEMO) -> Iterator[tuple[int, float]]:
    """Train the policy, yielding (step, loss), and save it in `out` (fp16 safetensors, tokenizer, generation
    config)."""
    tokenizer = teaching.tokenizer()
    chat = ChatFormat.of(cast(Tokenizer, tokenizer))  # its signature is wider than the protocol's
    network = new_network(len(tokenizer), settings.seed, teaching.positions)
    matrices = [p for name, p in network.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in network.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=settings.muon_lr, weight_decay=0.0),
        torch.optim.AdamW(others, lr=settings.adamw_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    rates = [settings.muon_lr, settings.adamw_lr]
    step = 0

    def noise() -> float:
        return settings.last_noise if step > (1 - settings.last_share) * settings.steps else settings.noise

    batches = _batches(settings, teaching.encode, tokenizer, chat, noise)
    for step in range(1, settings.steps + 1):
        ids, weights = _tensors(next(batches), settings.observation_weight)
        logits = network(input_ids=ids, use_cache=False).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        loss = (losses * weights[:, 1:]).sum() / weights[:, 1:].sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotation
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        scale = min(1.0, step / 20) * min(1.0, (1 - (step - 1) / settings.steps) / 0.4)
        for optimizer, rate in zip(optimizers, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        yield step, loss.item()
    out.mkdir(parents=True, exist_ok=True)
    network.generation_config.update(do_sample=True, temperature=1.0, eos_token_id=chat.end_id, pad_token_id=0)  # type: ignore[no-untyped-call]  # transformers'
    network.half().save_pretrained(out)  # type: ignore[no-untyped-call]  # torch's
    _save_tokenizer(tokenizer, out)


def _save_tokenizer(tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Save with the chat template inside tokenizer_config.json and the class name that transformers 4 knows as well."""
    tokenizer.save_pretrained(out, save_jinja_files=False)
    path = out / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("backend", None)
    path.write_text(json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")
