"""Random policies for the checks: sizes, logits, weights and worlds, all from one generator.

Logits are normal with a deviation of at most 1.5, which keeps the probabilities of tokens above some 1e-4: finite
differences in float64 resolve 1e-7 there. Networks whose scores are close to dependent are drawn again, likewise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from aem_swe.theory.calculus import RANK, scores
from aem_swe.theory.policies import Family, Floats, Network, Numbers, ResponseTree, Turn, log_softmax, response_tree

Random = np.random.Generator
TREES: Final = tuple(response_tree(*size) for size in ((2, 2), (3, 2), (2, 4), (4, 2), (3, 3), (4, 3)))
"""(vocabulary, longest response): 3 to 40 responses."""
SMALL: Final = 3
"""How many of them serve in trajectories, whose number is a power of theirs."""
CONDITION: Final = 100.0
"""Of the scores of a network; a larger one is drawn again."""


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """A family at some parameters."""

    family: Family
    theta: Floats

    @property
    def logprobs_K(self) -> Floats:
        return np.asarray(self.family(self.theta))


@dataclass(frozen=True, slots=True, eq=False)
class Responses(Policy):
    """The same where outcomes are responses and the tokens matter."""

    tree: ResponseTree
    token_family: Family
    """[..., D] -> [..., P, V]."""

    @property
    def token_logprobs_PV(self) -> Floats:
        return np.asarray(self.token_family(self.theta))


Drawn = TypeVar("Drawn", bound=Policy)


def logits(draw: Random, count: int) -> Floats:
    return np.asarray(draw.normal(size=count) * draw.uniform(0.2, 1.5))


def choice(draw: Random) -> Policy:
    """A bandit of 3 to 9 actions with a logit for each."""
    return Policy(log_softmax, logits(draw, int(draw.integers(3, 10))))


def tabular(draw: Random, trees: int = len(TREES)) -> Responses:
    """Responses with logits of their own at every prefix."""
    tree = TREES[int(draw.integers(trees))]
    _, prefixes, vocabulary = tree.takes_KPV.shape

    def tokens(theta: Numbers) -> Numbers:
        return log_softmax(theta.reshape(*theta.shape[:-1], prefixes, vocabulary))

    theta = np.concatenate([logits(draw, vocabulary) for _ in range(prefixes)])
    return Responses(tree.tabular, theta, tree, tokens)


def rich_network(draw: Random) -> Policy:
    """A bandit of 4 to 6 actions behind a network whose head is trained: more parameters than logits."""
    return _settled(lambda: _bandit(draw, (1, 3), (int(draw.integers(4, 7)), 3), train_head=True))


def poor_network(draw: Random) -> Policy:
    """A bandit of 5 to 8 actions behind an adapter with two parameters."""
    return _settled(lambda: _bandit(draw, (1, 1), (int(draw.integers(5, 9)), 2)))


def gain_network(draw: Random) -> Policy:
    """The poor network with one parameter more, the scale of all logits."""
    return _settled(lambda: _bandit(draw, (1, 1), (int(draw.integers(5, 9)), 2), train_gain=True))


def shared_network(draw: Random) -> Responses:
    """Responses whose prefixes share one adapter with a trained gain: 5 parameters for 12 to 39 free logits."""
    return _settled(lambda: _shared(draw))


def _bandit(draw: Random, inputs: tuple[int, int], head: tuple[int, int], **train: bool) -> Policy:
    network, theta = _network(draw, inputs, head, **train)
    return Policy(network.choice, theta)


def _shared(draw: Random) -> Responses:
    tree = TREES[int(draw.integers(SMALL, len(TREES)))]
    _, prefixes, vocabulary = tree.takes_KPV.shape
    network, theta = _network(draw, (prefixes, 2), (vocabulary, 2), train_gain=True)

    def family(points: Numbers) -> Numbers:
        return tree.response_logprobs(network.token_logprobs(points))

    return Responses(family, theta, tree, network.token_logprobs)


def _network(draw: Random, inputs: tuple[int, int], head: tuple[int, int], **train: bool) -> tuple[Network, Floats]:
    base_PV = draw.normal(size=(inputs[0], head[0]))
    network = Network(draw.normal(size=inputs), base_PV, draw.normal(size=head), **train)
    theta = draw.normal(size=network.size)
    if network.train_gain:
        theta[network.hidden_size] = draw.uniform(0.5, 1.5)
    return network, theta


def _settled(one: Callable[[], Drawn]) -> Drawn:
    """The first whose scores are far from dependent. All of it is drawn again: an input next to 0 stays bad."""
    while True:
        given = one()
        weighted_KD = np.exp(0.5 * given.logprobs_K)[:, None] * scores(given.family, given.theta)
        sizes = np.linalg.svd(weighted_KD, compute_uv=False)
        if sizes[sizes > RANK * sizes[0]].min() * CONDITION > sizes[0]:
            return given


def world(draw: Random, *, stochastic: bool, turns: int = 3) -> Turn:
    """Up to three turns: after a response the environment ends the trajectory or shows the next state, drawn from two
    if it is stochastic."""
    given = tabular(draw, SMALL)

    def following() -> Turn | None:
        ends = turns == 1 or draw.random() < 0.3
        return None if ends else world(draw, stochastic=stochastic, turns=turns - 1)

    def answers() -> tuple[tuple[float, Turn | None], ...]:
        chance = float(draw.uniform(0.1, 0.9))
        chances = (chance, 1.0 - chance) if stochastic else (1.0,)
        return tuple((one, following()) for one in chances)

    return Turn(given.tree, given.token_logprobs_PV, tuple(answers() for _ in given.tree.responses))
