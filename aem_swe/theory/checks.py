"""The table of checks: which statement on which random policies, and which wrong version of it has to fail."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from aem_swe.theory import controls, instances, statements
from aem_swe.theory.instances import Policy, Random, Responses
from aem_swe.theory.policies import Floats, ResponseTree
from aem_swe.theory.statements import Sides

Instance = Callable[[Random], Sides]
"""Draws one random instance and computes both sides."""
Kind = Literal["statement", "control"]


@dataclass(frozen=True, slots=True)
class Check:
    claim: str
    """Its number in the paper."""
    compared: str
    instance: Instance
    kind: Kind = "statement"
    instances: int = 500


def sample(draw: Random, policy: Policy) -> tuple[int, float]:
    """An outcome, every one as often as any other, and its advantage."""
    return int(draw.integers(len(policy.logprobs_K))), float(draw.normal())


def sampled(policy: Callable[[Random], Policy], compare: Callable[..., Sides] = statements.sampled_drift) -> Instance:
    def instance(draw: Random) -> Sides:
        given = policy(draw)
        return compare(given.family, given.theta, *sample(draw, given))

    return instance


def on_simplex(policy: Callable[[Random], Policy]) -> Instance:
    def instance(draw: Random) -> Sides:
        given = policy(draw)
        return statements.simplex_drift(given.logprobs_K, *sample(draw, given))

    return instance


def expected(policy: Callable[[Random], Policy]) -> Instance:
    def instance(draw: Random) -> Sides:
        given = policy(draw)
        return statements.expected_drift(given.family, given.theta, draw.normal(size=len(given.logprobs_K)))

    return instance


def regularised(policy: Callable[[Random], Policy]) -> Instance:
    def instance(draw: Random) -> Sides:
        given = policy(draw)
        bonus, penalty = draw.uniform(0.0, 0.5, size=2)
        return statements.regularised_drift(
            given.family, given.theta, *sample(draw, given), bonus=bonus, penalty=penalty,
            reference_K=_reference(draw, given),
        )  # fmt: skip

    return instance


def on_tree(compare: Callable[[ResponseTree, Floats], Sides]) -> Instance:
    def instance(draw: Random) -> Sides:
        given = instances.tabular(draw)
        return compare(given.tree, given.token_logprobs_PV)

    return instance


def along(policy: Callable[[Random], Policy]) -> Instance:
    def instance(draw: Random) -> Sides:
        given = policy(draw)
        return statements.drift_along(given.family, given.theta, draw.normal(size=len(given.theta)))

    return instance


def _shared(draw: Random) -> Sides:
    given: Responses = instances.shared_network(draw)
    return statements.shared_drift(given.tree, given.token_family, given.theta, *sample(draw, given))


def _token_terms(draw: Random) -> Sides:
    given = instances.tabular(draw)
    return controls.token_terms(given.tree, given.theta, given.token_logprobs_PV, *sample(draw, given))


def _plain(draw: Random) -> Sides:
    given = instances.choice(draw)
    return controls.plain_gradient(given.family, given.theta)


def _forward_kl(draw: Random) -> Sides:
    given = instances.choice(draw)
    reference_K = _reference(draw, given)
    return controls.forward_kl(
        given.family, given.theta, *sample(draw, given), penalty=0.5, reference_K=reference_K
    )  # fmt: skip


def _reference(draw: Random, policy: Policy) -> Floats:
    """The same family at other logits."""
    return statements.as_floats(policy.family(instances.logits(draw, len(policy.theta))))


CHECKS: Final = (
    Check("3.2.1", "H(response) = E[sum of its token entropies]", on_tree(statements.response_entropy)),
    Check(
        "3.2.1", "H(trajectory) = E[sum of response entropies], deterministic environment",
        lambda draw: statements.trajectory_entropy(instances.world(draw, stochastic=False)), instances=100,
    ),
    Check(
        "3.2.1", "policy's part of H(trajectory) = E[sum of response entropies], stochastic environment",
        lambda draw: statements.policy_entropy(instances.world(draw, stochastic=True)), instances=100,
    ),
    Check(
        "3.2.1", "H(trajectory) = that + E[sum of the environment's entropies]",
        lambda draw: statements.trajectory_entropy(instances.world(draw, stochastic=True)), instances=100,
    ),
    Check(
        "3.2.1", "E[mean token entropy] x E[length] in place of the sum", on_tree(controls.mean_times_length), "control"
    ),
    Check(
        "3.2.1", "H(trajectory) without the environment's entropies",
        lambda draw: statements.trajectory_entropy(instances.world(draw, stochastic=True), environment=False),
        "control", 100,
    ),
    Check("3.2.2", "dH = A (S - H): bandit, natural gradient on logits", sampled(instances.choice)),
    Check("3.2.2", "dH = A (S - H): bandit, flow on the simplex", on_simplex(instances.choice)),
    Check("3.2.2", "dH = A (S - H): response, natural gradient on all logits", sampled(instances.tabular)),
    Check("3.2.2", "dH = A (S - H): response, flow on the simplex of responses", on_simplex(instances.tabular)),
    Check("3.2.2", "expected dH = Cov(A, S): bandit", expected(instances.choice)),
    Check("3.2.2", "expected dH = Cov(A, S): response", expected(instances.tabular)),
    Check("3.2.2", "plain gradient on logits, at the best step size", _plain, "control"),
    Check(
        "3.2.2", "Euclidean gradient on the simplex, at the best step size",
        lambda draw: controls.plain_simplex_gradient(instances.choice(draw).logprobs_K), "control",
    ),
    Check("3.2.2", "sum of the tokens' A (S - H) in place of the response's", _token_terms, "control"),
    Check("C.3.1", "dH with entropy bonus and KL to a reference: bandit", regularised(instances.choice)),
    Check("C.3.1", "dH with entropy bonus and KL to a reference: response", regularised(instances.tabular)),
    Check("C.3.1", "KL(reference, policy) in place of KL(policy, reference)", _forward_kl, "control"),
    Check("C.4.1", "E[token surprisal - entropy | prefix] = 0 at every prefix", on_tree(statements.conditional_means)),
    Check("C.4.1", "E[martingale at the end | prefix] = martingale there", on_tree(statements.stopped_martingale)),
    Check("C.4.1", "E[surprisal] = E[predictable part] = H(response)", on_tree(statements.total_expectation)),
    Check("C.4.1", "Var(martingale) = E[sum of token variances]", on_tree(statements.martingale_variance)),
    Check(
        "C.4.1", "surprisal of the likeliest token in place of the entropy", on_tree(controls.mode_as_compensator),
        "control",
    ),
    Check("C.5.1", "dH = <grad H, v>, any direction: rich network", along(instances.rich_network)),
    Check("C.5.1", "dH = <grad H, v>, any direction: poor network", along(instances.poor_network)),
    Check("C.5.1", "dH = <grad H, v>, any direction: shared network, responses", along(instances.shared_network)),
    Check("C.5.1", "dH = A (S - H), natural gradient: rich network", sampled(instances.rich_network)),
    Check("C.5.1", "dH = A (S - H), natural gradient: poor network with a gain", sampled(instances.gain_network)),
    Check(
        "C.5.1", "dH = A x projection of S - H on the scores: poor network",
        sampled(instances.poor_network, statements.projected_drift),
    ),
    Check(
        "C.5.1", "dH = A x projection of S - H on the scores: shared network, responses",
        sampled(instances.shared_network, statements.projected_drift),
    ),
    Check("C.5.1", "dH = A (martingale + projection of the rest): shared network, responses", _shared),
    Check("C.5.1", "dH = A (S - H) unconditionally: poor network", sampled(instances.poor_network), "control"),
    Check("C.5.1", "dH = A (S - H) unconditionally: shared network", sampled(instances.shared_network), "control"),
)  # fmt: skip
