"""How old the policies are that gave the responses of a batch: what fully asynchronous training has to watch."""

from collections.abc import Mapping

from aem_swe.algorithms.aem import Modulation


def staleness_metrics(modulation: Modulation, versions: Mapping[int, int | None], now: int) -> dict[str, float]:
    """How old the policies are that gave the responses in G, in weight versions, and the mean alpha by age.

    versions: response id -> version of the weights that sampled it, None where nobody said. AEM's entropies are those
    of the policy that made the old log-probs, the newest one, whatever the age of a response.
    """
    inside_R = modulation.group_R >= 0
    ids_R, alpha_R = modulation.responses.id_R[inside_R].tolist(), modulation.alpha_R[inside_R].tolist()
    ages: dict[int, list[float]] = {}
    for number, alpha in zip(ids_R, alpha_R, strict=True):
        if (version := versions.get(number)) is not None:
            ages.setdefault(max(0, now - version), []).append(alpha)
    known = sum(len(alphas) for alphas in ages.values())
    if not known:
        return {}
    metrics = {
        "staleness/mean": sum(age * len(alphas) for age, alphas in ages.items()) / known,
        "staleness/max": float(max(ages)),
    }
    return metrics | {f"aem/alpha_mean/staleness_{age}": sum(a) / len(a) for age, a in sorted(ages.items())}
