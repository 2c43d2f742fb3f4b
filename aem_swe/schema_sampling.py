"""The section `sampling` of a recipe: how much a training step plays."""

from aem_swe.section import Count, Positive, Section


class Sampling(Section):
    prompts: Count = 4
    rollouts: Count = 8
    """Rollouts per prompt: the group size."""
    cohorts: Count = 2
    """Batches that take turns: while one generates, the tools of the others run."""
    temperature: Positive = 1.0
    drop_uniform_groups: bool = False
    """Leave groups without contrast (all rewards equal) out of loss and denominator."""
    max_rounds: Count = 1
    """DAPO's dynamic sampling: play further rounds of prompts until `prompts` groups have contrast; 1: no refill."""


def sampling_problem(s: Sampling, *, advantage: str, minibatches: int, pool: int, local: bool) -> str:
    """What of a sampling section does not fit together, in one line, or nothing. local: of the embedded engine."""
    episodes, most = s.prompts * s.rollouts, s.prompts * s.max_rounds
    if s.rollouts < 2:
        return f"sampling.rollouts {s.rollouts} leaves {advantage} without a baseline; use 2 or more (DeepSWE: 8)"
    if local and episodes % s.cohorts:
        return f"sampling.cohorts {s.cohorts} does not divide prompts x rollouts = {episodes}; choose a divisor"
    if s.prompts % minibatches:
        return f"trainer.minibatches {minibatches} does not divide sampling.prompts {s.prompts}; choose a divisor"
    if s.prompts > pool:
        return f"sampling.prompts {s.prompts} is more than data.pool {pool}; raise data.pool"
    if s.max_rounds > 1 and not s.drop_uniform_groups:
        return f"sampling.max_rounds {s.max_rounds} needs sampling.drop_uniform_groups=true; give both, or neither"
    if most > pool:
        return (
            f"sampling.prompts {s.prompts} x max_rounds {s.max_rounds} = {most} is more than data.pool {pool};"
            " raise data.pool, or use fewer rounds"
        )
    return ""
