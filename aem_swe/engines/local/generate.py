"""The embedded engine's sampling loop: a fixed cohort of rows, one KV cache, the model's own Hugging Face forward.

Every call is one turn of every live episode of the cohort: the new part of each prompt is prefilled at once, then all
rows decode together until the last one has ended. The batch always has the same rows, and what a row samples depends on
its own seed and on the cohort's other rows only through the shape of the batch, never on timing: the same seed gives
the same run on the same machine.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache

from aem_swe.agents.loop import AskPolicy
from aem_swe.engines.device_time import device_span
from aem_swe.engines.local.model import LocalModel
from aem_swe.errors import PolicyError
from aem_swe.types import FinishReason, Response

_STRIDE = 32
"""The attended part of the cache grows in steps of this many positions, so few shapes occur."""
_MASK_AT_ONCE = 1 << 30
"""Elements of one attention mask (row, new token, position), 1 GiB: longer prompts are prefilled part by part."""


class RowCache(Cache):
    """Keys and values (row, head, position, dim) of every layer, written at each row's own positions.

    transformers' caches write all rows at the same position; episodes differ in length. The last position is where
    rows that have nothing to say write.
    """

    def __init__(self, rows: int, length: int) -> None:
        super().__init__(layers=[])
        self.rows, self.length = rows, length
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.width = 0
        self.where_BT = torch.zeros(rows, 1, dtype=torch.long)

    def update(  # what an attention layer calls: store, and return all that may be attended to
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,  # Any: base class's signature
    ) -> tuple[Tensor, Tensor]:
        if layer_idx == len(self.keys):
            shape = (self.rows, key_states.shape[1], self.length + 1, key_states.shape[3])
            self.keys.append(key_states.new_zeros(shape))
            self.values.append(value_states.new_zeros(shape))
        row = torch.arange(self.rows, device=key_states.device)[:, None]
        self.keys[layer_idx][row, :, self.where_BT] = key_states.transpose(1, 2)
        self.values[layer_idx][row, :, self.where_BT] = value_states.transpose(1, 2)
        return self.keys[layer_idx][:, :, : self.width], self.values[layer_idx][:, :, : self.width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0  # positions are always given explicitly


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    limit = min(len(a), len(b))
    return next((i for i in range(limit) if a[i] != b[i]), limit)


@dataclass(slots=True)
class _Row:
    """What a row has said so far in this turn."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended_at: float = 0.0
    """time.perf_counter() of its last token."""


class Sampler:
    """A BatchPolicy over a LocalModel. temperature 0 is greedy."""

    def __init__(self, model: LocalModel, *, rows: int, context: int, temperature: float, seed: int) -> None:
        self.model, self.rows, self.context = model, rows, context
        self.temperature, self.seed = temperature, seed
        self.policy_version = 0
        self._cache = RowCache(rows, context)
        self._cached: list[list[int]] = [[] for _ in range(rows)]
        """Ids per row whose keys and values are in the cache."""

    def reset(self, policy_version: int) -> None:
        """Forget the cache: the weights have changed, or other episodes begin."""
        self._cached = [[] for _ in range(self.rows)]
        self.policy_version = policy_version

    def respond(self, ask: AskPolicy) -> Response:
        """Answer a single request in row 0."""
        response = self.respond_batch([ask])[0]
        assert response is not None
        return response

    @torch.inference_mode()
    def respond_batch(self, asks: Sequence[AskPolicy | None]) -> list[Response | None]:
        """Answer one turn of a cohort; missing rows at the end are rows that are over."""
        given = len(asks)
        asks = [*asks, *[None] * (self.rows - given)]
        live = [i for i, ask in enumerate(asks) if ask is not None]
        if not live:
            return [None] * given
        prompts = [list(ask.prompt_ids) if ask is not None else [] for ask in asks]
        room = [
            min(ask.max_tokens, self.context - len(prompts[i])) if ask is not None else 0 for i, ask in enumerate(asks)
        ]
        assert all(room[i] > 0 for i in live), "the context is shorter than prompt + response budget"
        seeds = [ask.seed if ask is not None else () for ask in asks]
        uniforms = [np.random.default_rng([self.seed, *seeds[i]]).random(room[i]) for i in range(self.rows)]
        asked = time.perf_counter()
        with device_span("policy/prefill", self.model.device, rows=len(live)) as prefilling:
            logits_BV, new_tokens = self._prefill(prompts)
            prefilling.set(tokens=new_tokens)
        first = time.perf_counter()
        with device_span("policy/decode", self.model.device, rows=len(live)) as decoding:
            rows = self._generate(logits_BV, live, room, uniforms)
            decoding.set(tokens=sum(len(row.ids) for row in rows))
            return [
                self._response(row, (first - asked, row.ended_at - first)) if ask is not None else None
                for ask, row in zip(asks[:given], rows[:given], strict=True)
            ]

    def _generate(
        self, logits_BV: Tensor, live: list[int], room: list[int], uniforms: Sequence[NDArray[np.float64]]
    ) -> list[_Row]:
        """Decode until every live row has ended or used its room."""
        rows = [_Row() for _ in range(self.rows)]
        active = live
        while active:
            draws = [0.0] * self.rows
            for i in active:
                draws[i] = float(uniforms[i][len(rows[i].ids)])
            ids_B, logprobs_B = self._sample(logits_BV, draws)
            now = time.perf_counter()
            for i in active:
                rows[i].ids.append(ids_B[i])
                rows[i].logprobs.append(logprobs_B[i])
                rows[i].ended_at = now
            active = [i for i in active if rows[i].ids[-1] != self.model.chat.end_id and len(rows[i].ids) < room[i]]
            if active:
                logits_BV = self._decode(active, rows)
        return rows

    def _response(self, row: _Row, seconds: tuple[float, float]) -> Response:
        finish: FinishReason = "stop" if row.ids[-1] == self.model.chat.end_id else "length"
        ids = tuple(row.ids)
        text = self.model.chat.text(row.ids)
        return Response(text, ids, tuple(row.logprobs), finish, self.policy_version, seconds=seconds)

    def _prefill(self, prompts: list[list[int]]) -> tuple[Tensor, int]:
        """Bring every row's cache up to its prompt; return the logits behind each prompt's last token, (B, V), and how
        many tokens were new."""
        chunks, starts = [], []
        for i, prompt in enumerate(prompts):
            kept = min(_common_prefix(self._cached[i], prompt), len(prompt) - 1) if prompt else 0
            starts.append(kept)
            chunks.append(prompt[kept:])
            if prompt:
                self._cached[i] = prompt[:]
        width = max(len(chunk) for chunk in chunks)
        ids = torch.tensor([chunk + [0] * (width - len(chunk)) for chunk in chunks])
        offsets = torch.arange(width)[None]
        lengths = torch.tensor([len(chunk) for chunk in chunks])[:, None]
        where = torch.where(offsets < lengths, torch.tensor(starts)[:, None] + offsets, self.context)
        last = (lengths[:, 0] - 1).clamp(min=0)
        size = max(1, _MASK_AT_ONCE // (self.rows * self.context))
        logits_BV = self._forward(ids[:, :size], where[:, :size], last.clamp(max=size - 1))
        for start in range(size, width, size):
            part = slice(start, start + size)
            later_BV = self._forward(ids[:, part], where[:, part], (last - start).clamp(0, size - 1))
            logits_BV = torch.where((last >= start)[:, None].to(later_BV.device), later_BV, logits_BV)
        return logits_BV, sum(len(chunk) for chunk in chunks)

    def _decode(self, active: list[int], rows: Sequence[_Row]) -> Tensor:
        """Feed the token that each active row sampled last."""
        ids, where = [0] * self.rows, [self.context] * self.rows
        for i in active:
            ids[i], where[i] = rows[i].ids[-1], len(self._cached[i])
            self._cached[i].append(ids[i])
        return self._forward(
            torch.tensor(ids)[:, None], torch.tensor(where)[:, None], torch.zeros(self.rows, dtype=torch.long)
        )

    def _forward(self, ids_BT: Tensor, where_BT: Tensor, last_B: Tensor) -> Tensor:
        device = self.model.device
        used = max((len(ids) for ids in self._cached), default=1)
        cache = self._cache
        cache.width = min(-(-used // _STRIDE) * _STRIDE, self.context)
        cache.where_BT = where_BT.to(device)
        position_BT = where_BT.clamp(max=self.context - 1).to(device)
        mask_B1TW = torch.arange(cache.width, device=device)[None, None, None] <= position_BT[:, None, :, None]
        rows = torch.arange(self.rows, device=device)
        with self.model.precision():
            hidden_BTD = self.model.network.base_model(
                input_ids=ids_BT.to(device),
                attention_mask=mask_B1TW,
                position_ids=position_BT,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            logits_BV: Tensor = self.model.network.get_output_embeddings()(hidden_BTD[rows, last_B.to(device)])
        return logits_BV.float()

    def _sample(self, logits_BV: Tensor, draws: list[float]) -> tuple[list[int], list[float]]:
        """Draw one token per row by inverting the distribution function at `draws` (uniform in [0, 1))."""
        logprobs_BV = torch.log_softmax(logits_BV / self.temperature if self.temperature > 0 else logits_BV, dim=-1)
        if logprobs_BV.isnan().any():
            raise PolicyError("the policy's logits are not numbers: training has diverged; choose a lower optimizer.lr")
        if self.temperature == 0:
            ids_B = logprobs_BV.argmax(-1)
        else:
            cumulative_BV = logprobs_BV.double().exp().cumsum(-1)
            points_B1 = (
                torch.tensor(draws, dtype=torch.float64, device=logits_BV.device)[:, None] * cumulative_BV[:, -1:]
            )
            ids_B = torch.searchsorted(cumulative_BV, points_B1, right=True)[:, 0]
        chosen_B = logprobs_BV.gather(1, ids_B[:, None])[:, 0]
        return ids_B.tolist(), chosen_B.tolist()


class OneAtATime:
    """A Policy over a LocalModel for threads that each ask for themselves, as in an evaluation."""

    def __init__(self, model: LocalModel, *, context: int, temperature: float, seed: int) -> None:
        self._sampler = Sampler(model, rows=1, context=context, temperature=temperature, seed=seed)
        self._turn = threading.Lock()

    def respond(self, ask: AskPolicy) -> Response:
        with self._turn:
            return self._sampler.respond(ask)
