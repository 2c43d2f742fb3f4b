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
"""A few megabytes of records are written in far less of any real step."""
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
    share = case.share("old_log_prob", "ref_log_prob")
    if share <= OLD_LOG_PROB_ABOVE:
        return None
    says = "Scoring the batch takes long: score more rows in a forward pass,"
    key = "trainer.micro_batch" if case.local else "cluster.tokens_per_gpu"
    return Finding(share, f"{says} raise {case.keys(key)}.", case.figure("old_log_prob", "ref_log_prob"))


def update(case: Case) -> Finding | None:
    share = case.share("update")
    if share <= UPDATE_ABOVE:
        return None
    key = "trainer.micro_batch" if case.local else "cluster.tokens_per_gpu"
    says = f"The update bounds the step: put more rows in a micro-batch, raise {case.keys(key)}"
    if case.settings.value("model.gradient_checkpointing") is True:
        says += "; if the memory allows it, set model.gradient_checkpointing=false"
    if not case.local and case.settings.value("cluster.offload") is True:
        says += "; if the memory allows it, set cluster.offload=false"
    return Finding(share, f"{says}.", case.figure("update"))


def checkpoint(case: Case) -> Finding | None:
    share = case.share("checkpoint")
    if share <= CHECKPOINT_ABOVE:
        return None
    says = f"Checkpoints take long: save less often, raise {case.keys('trainer.save_every')}."
    return Finding(share, says, case.figure("checkpoint"))


def evaluation(case: Case) -> Finding | None:
    share = case.share("evaluation")
    if share <= EVALUATION_ABOVE:
        return None
    says = f"Evaluations take long: raise {case.keys('trainer.eval_every')}, or lower"
    says += f" {case.keys('trainer.eval_tasks', 'trainer.eval_rollouts')}."
    return Finding(share, says, case.figure("evaluation"))


def records(case: Case) -> Finding | None:
    share = case.share("record")
    if share <= RECORD_ABOVE:
        return None
    says = "Writing records takes longer than it should: put run_dir on a faster disk."
    return Finding(share, says, case.figure("record"))


def weight_sync(case: Case) -> Finding | None:
    share = case.share("weight_sync")
    if case.local or share <= WEIGHT_SYNC_ABOVE:  # the embedded engine samples with the weights that it trains
        return None
    if case.settings.value("cluster.mode") == "fully_async":
        says = f"New weights take long to arrive: send them less often, raise {case.keys('cluster.trigger_step')}."
    else:
        says = "New weights take long to arrive: send them while others train, with cluster.mode=fully_async."
    return Finding(share, says, case.figure("weight_sync"))


def aem(case: Case) -> Finding | None:
    share = case.share("aem")
    if share <= AEM_ABOVE:
        return None
    says = "AEM takes more than its half percent, which is unexpected: see whether these steps were tiny or the machine"
    return Finding(share, f"{says} busy, and run with aem.enabled=false beside it.", case.figure("aem"))
