"""Policies whose responses can all be written down: one choice, a tree of tokens, a small network, several turns.

A family maps parameters to the log-probabilities of all outcomes. It takes complex parameters too, which gives exact
derivatives (calculus.scores) without a line of calculus. Leading dimensions are a batch of parameter vectors.

Shapes: D parameter, K outcome (response), P prefix, V vocabulary, I input, H hidden unit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[Any]
"""Float64 or complex128, as the caller's parameters are."""
Family = Callable[[Numbers], Numbers]
"""Parameters [..., D] -> log-probabilities [..., K]."""

END: Final = 0
"""The token that ends a response."""


def log_softmax(logits: Numbers) -> Numbers:
    """Over the last axis; holomorphic, so complex logits are fine as long as their imaginary part is tiny."""
    shifted = logits - logits.real.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def entropy(logprobs: Floats) -> Floats:
    """Of every distribution along the last axis, in nats."""
    return np.asarray(-(np.exp(logprobs) * logprobs).sum(axis=-1))


@dataclass(frozen=True, slots=True, eq=False)
class ResponseTree:
    """All responses over a vocabulary: each ends with the end token, or is cut off at the longest length."""

    prefixes: tuple[tuple[int, ...], ...]
    """Where a token is sampled; the empty one first."""
    responses: tuple[tuple[int, ...], ...]
    takes_KPV: Floats
    """1 where response k samples token v after prefix p."""

    @property
    def visits_KP(self) -> Floats:
        return np.asarray(self.takes_KPV.sum(axis=-1))

    @property
    def length_K(self) -> Floats:
        return np.asarray(self.visits_KP.sum(axis=-1))

    def response_logprobs(self, token_logprobs: Numbers) -> Numbers:
        """[..., P, V] -> [..., K]: the sum over the tokens that a response samples."""
        return np.asarray(np.einsum("...pv,kpv->...k", token_logprobs, self.takes_KPV))

    def tabular(self, theta: Numbers) -> Numbers:
        """The family with a logit of its own for every prefix and token: D = P * V."""
        _, count, vocabulary = self.takes_KPV.shape
        return self.response_logprobs(log_softmax(theta.reshape(*theta.shape[:-1], count, vocabulary)))


def response_tree(vocabulary: int, longest: int) -> ResponseTree:
    """The tree of `vocabulary` tokens, the end token included, and at most `longest` tokens."""
    going_on = [token for token in range(vocabulary) if token != END]
    prefixes = tuple(prefix for length in range(longest) for prefix in product(going_on, repeat=length))
    responses = tuple((*prefix, END) for prefix in prefixes) + tuple(
        (*prefix, token) for prefix in prefixes if len(prefix) == longest - 1 for token in going_on
    )
    takes_KPV = np.zeros((len(responses), len(prefixes), vocabulary))
    for row, response in enumerate(responses):
        for at, token in enumerate(response):
            takes_KPV[row, prefixes.index(response[:at]), token] = 1.0
    return ResponseTree(prefixes, responses, takes_KPV)


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """logits(p) = gain * (base(p) + head @ tanh(hidden @ input(p))): an adapter on frozen logits, one for all prefixes.

    The hidden weights are always trained, the gain and the head only if said so; what is not trained is a constant
    (gain 1). Parameters come in the order hidden, gain, head. Without the frozen base a linear head alone could scale
    all logits of one prefix, which is the very condition of C.5.1.
    """

    inputs_PI: Floats
    base_PV: Floats
    head_VH: Floats
    train_gain: bool = False
    train_head: bool = False

    @property
    def hidden_size(self) -> int:
        return int(self.head_VH.shape[1] * self.inputs_PI.shape[1])

    @property
    def size(self) -> int:
        """D."""
        return self.hidden_size + self.train_gain + self.train_head * self.head_VH.size

    def token_logprobs(self, theta: Numbers) -> Numbers:
        """[..., D] -> [..., P, V]."""
        vocabulary, units = self.head_VH.shape
        at, batch = self.hidden_size, theta.shape[:-1]
        hidden = np.tanh(np.einsum("...hi,pi->...ph", theta[..., :at].reshape(*batch, units, -1), self.inputs_PI))
        gain = theta[..., at, None, None] if self.train_gain else 1.0
        at += self.train_gain
        head = theta[..., at:].reshape(*batch, vocabulary, units) if self.train_head else self.head_VH
        return log_softmax(gain * (self.base_PV + np.einsum("...vh,...ph->...pv", head, hidden)))

    def choice(self, theta: Numbers) -> Numbers:
        """The family of a single choice: the distribution after the first prefix."""
        return np.asarray(self.token_logprobs(theta)[..., 0, :])


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """A state of a trajectory: the policy there, and what the environment answers to each response."""

    tree: ResponseTree
    token_logprobs_PV: Floats
    answers_K: tuple[tuple[tuple[float, "Turn | None"], ...], ...]
    """Per response: (probability, next state); None ends the trajectory."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One complete trajectory: log-probabilities, and the entropies of the distributions that it passed through."""

    policy_logprob: float = 0.0
    environment_logprob: float = 0.0
    response_entropies: float = 0.0
    environment_entropies: float = 0.0


def trajectories(turn: Turn | None, so_far: Trajectory | None = None) -> Iterator[Trajectory]:
    """Every trajectory from a state on. Two different ones never meet again, so each is an outcome of its own."""
    passed = so_far or Trajectory()
    if turn is None:
        yield passed
        return
    logprobs_K = turn.tree.response_logprobs(turn.token_logprobs_PV)
    here = float(entropy(logprobs_K))
    for logprob, answers in zip(logprobs_K, turn.answers_K, strict=True):
        world = float(entropy(np.log([chance for chance, _ in answers])))
        for chance, following in answers:
            yield from trajectories(
                following,
                Trajectory(
                    passed.policy_logprob + float(logprob),
                    passed.environment_logprob + float(np.log(chance)),
                    passed.response_entropies + here,
                    passed.environment_entropies + world,
                ),
            )
