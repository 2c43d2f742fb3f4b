"""How old the policies are that gave the responses of a batch: what fully asynchronous training has to watch."""

from collections.abc import Mapping

from aem_swe.algorithms.aem import Modulation


def staleness_metrics(modulation: Modulation, ages: Mapping[int, int]) -> dict[str, float]:
    """The ages of the responses in G, in weight versions, and the mean alpha by age.

    ages: response id -> age; a response of which the rollout did not say it is left out. AEM's entropies are those of
    the policy that made the old log-probs, the newest one, whatever the age of a response.
    """
    inside_R = modulation.group_R >= 0
    ids_R, alpha_R = modulation.responses.id_R[inside_R].tolist(), modulation.alpha_R[inside_R].tolist()
    by_age: dict[int, list[float]] = {}
    for number, alpha in zip(ids_R, alpha_R, strict=True):
        if number in ages:
            by_age.setdefault(ages[number], []).append(alpha)
    known = sum(len(alphas) for alphas in by_age.values())
    if not known:
        return {}
    metrics = {
        "staleness/mean": sum(age * len(alphas) for age, alphas in by_age.items()) / known,
        "staleness/max": float(max(by_age)),
    }
    return metrics | {f"aem/alpha_mean/staleness_{age}": sum(a) / len(a) for age, a in sorted(by_age.items())}
