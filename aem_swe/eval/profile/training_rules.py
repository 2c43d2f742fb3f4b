"""Rules of advice about what is not the rollout: scoring, the update, what is kept, and what was not recorded.

As in rollout_rules.py: at its threshold, a share of the wall time on the critical path, a rule is silent.
"""

from aem_swe.eval.profile.evidence import Case, Finding, amount

RESIDUAL_ABOVE = 0.02
"""A recording is meant to stay below; shares smaller than the residual cannot be trusted."""
OLD_LOG_PROB_ABOVE = 0.20
"""16.8 percent of the paper's steps (Figure 4); a fifth is more than that by more than what rounding can make."""
UPDATE_ABOVE = 0.45
"""36.0 percent of the paper's steps; this is a quarter more."""
CHECKPOINT_ABOVE = WEIGHT_SYNC_ABOVE = 0.05
"""Neither trains nor samples; both can be rarer."""
EVALUATION_ABOVE = 0.20
"""A fifth of the time that does not train."""
RECORD_ABOVE = 0.02
"""A few numbers per token and a few megabytes: far less than that of any real step."""
AEM_ABOVE = 0.005
"""A few passes over one number per token: what AEM has to stay below."""


def residual(case: Case) -> Finding | None:
    share = case.profile.residual_share
    if share <= RESIDUAL_ABOVE:
        return None
    says = "No span explains a part of the step: the recording lacks something. Do not trust shares smaller than that."
    figure = f"not attributed: {amount(share, case.profile.residual_s / len(case.profile.steps))}"
    return Finding(share, says, figure)


def old_log_probs(case: Case) -> Finding | None:
    share, raised = case.share("old_log_prob", "ref_log_prob"), _more_rows(case, 1.0)
    if share <= OLD_LOG_PROB_ABOVE or not raised:
        return None
    says = f"Scoring the batch takes long: score more rows in a forward pass, {raised}."
    return Finding(share, says, case.figure("old_log_prob", "ref_log_prob"))


def update(case: Case) -> Finding | None:
    share = case.share("update")
    if share <= UPDATE_ABOVE:
        return None
    raised = _more_rows(case, case.settings.number("trainer.minibatches"))
    found = [f"put more rows in a micro-batch, {raised}"] if raised else []
    if case.settings.value("model.gradient_checkpointing") is True:
        found.append("if the memory allows it, set model.gradient_checkpointing=false")
    if not case.local and case.settings.value("cluster.offload") is True:
        found.append("if the memory allows it, set cluster.offload=false")
    return Finding(share, f"The update bounds the step: {'; '.join(found)}.", case.figure("update")) if found else None


def _more_rows(case: Case, minibatches: float | None) -> str:
    """What makes a forward pass take more rows; empty where one takes all rows that there are already."""
    if not case.local:
        return f"raise {case.keys('cluster.tokens_per_gpu')}"
    size, prompts, rollouts = map(
        case.settings.number, ("trainer.micro_batch", "sampling.prompts", "sampling.rollouts")
    )
    unknown = None in (size, prompts, rollouts, minibatches) or case.settings.value("algorithm.layout") == "turn"
    all_of_them = not unknown and (size or 0.0) * (minibatches or 0.0) >= (prompts or 0.0) * (rollouts or 0.0)
    return "" if all_of_them else f"raise {case.keys('trainer.micro_batch')}"


def checkpoint(case: Case) -> Finding | None:
    share = case.share("checkpoint")
    if share <= CHECKPOINT_ABOVE or not _before_the_last(case, "trainer.save_every", "checkpoint"):
        return None
    says = f"Checkpoints take long: save less often, raise {case.keys('trainer.save_every')}."
    return Finding(share, says, case.figure("checkpoint"))


def evaluation(case: Case) -> Finding | None:
    share = case.share("evaluation")
    if share <= EVALUATION_ABOVE:
        return None
    counts = [key for key in ("trainer.eval_tasks", "trainer.eval_rollouts") if case.settings.number(key) != 1.0]
    fewer = [f"lower {case.keys(*counts)}"] if counts else []
    if _before_the_last(case, "trainer.eval_every", "evaluation"):
        rarer = f"raise {case.keys('trainer.eval_every')}"
        says = f"Evaluations take long: {', or '.join([rarer, *fewer])}."
    elif fewer:
        says = f"The last step evaluates in any case, which takes long: {fewer[0]}."
    else:
        return None
    return Finding(share, says, case.figure("evaluation"))


def _before_the_last(case: Case, key: str, stage: str) -> bool:
    """Whether some of it would go if `key` were raised: the last step of a run evaluates and saves whatever it is."""
    steps = case.profile.steps
    last = case.settings.number("trainer.steps") or float(steps[-1].step)
    every = case.settings.number(key)
    if every is not None and not 0 < every < last:
        return False
    most = max(step.path_s.get(stage, 0.0) for step in steps)
    # a step that does not save still looks for old checkpoints, which takes next to nothing
    return any(step.step < last and step.path_s.get(stage, 0.0) > most / 10 for step in steps)


def records(case: Case) -> Finding | None:
    share = case.share("record")
    if share <= RECORD_ABOVE:
        return None
    told = "" if case.local else f" ({case.keys('cluster.logger')})"
    says = "Records take long: computing metrics and a line for each trajectory, writing them to run_dir, and whatever"
    says += f" is told of each step's metrics{told}. Time these one by one."
    return Finding(share, says, case.figure("record"))


def weight_sync(case: Case) -> Finding | None:
    share = case.share("weight_sync")
    if case.local or share <= WEIGHT_SYNC_ABOVE:  # the embedded engine samples with the weights that it trains
        return None
    if case.settings.value("cluster.mode") == "fully_async":
        says = f"New weights take long to arrive: send them less often, raise {case.keys('cluster.trigger_step')}."
    elif not case.settings.may_stream:
        return None
    else:
        says = "New weights take long to arrive: send them while others train, with cluster.mode=fully_async."
    return Finding(share, says, case.figure("weight_sync"))


def aem(case: Case) -> Finding | None:
    share = case.share("aem")
    if share <= AEM_ABOVE:
        return None
    says = "AEM takes more than its half percent, which is unexpected: see whether these steps were tiny or the machine"
    return Finding(share, f"{says} busy, and run with aem.enabled=false beside it.", case.figure("aem"))
