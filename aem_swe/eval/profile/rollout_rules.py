"""Rules of advice about the rollout: what episodes wait for. One function each: a threshold, the keys, the figure.

A threshold is a share of the wall time on the critical path. At it a rule is silent, above it it speaks.
"""

from aem_swe.eval.profile.evidence import Case, Finding, amount
from aem_swe.eval.profile.measures import amount as number_of
from aem_swe.eval.profile.wording import seconds_text, short_name

STARTS_ABOVE = 0.05
"""A container that was started ahead is there at once, so nearly all of it can go."""
QUEUE_ABOVE = 0.05
"""Nothing is done in a queue, so all of it can go."""
TOOL_ABOVE = REWARDS_ABOVE = 0.05
"""Tools and rewards are to hide behind generation: a tenth of a step at most, together."""
TAIL_ABOVE = 0.10
"""In the tail at most a tenth of the rows is busy, so nine tenths of that time are idle."""
PREFILL_ABOVE = 0.15
"""With a cache every prompt token is read once, and many at a time: much less than what decoding takes."""
DECODE_ABOVE = 0.50
"""Half of the step, in the one stage that can take more rows at a time for less than that many times the cost."""

STARTS = ("sandbox/create", "sandbox/start", "sandbox/prepare")


def sandbox_starts(case: Case) -> Finding | None:
    share = case.share(*STARTS)
    if share <= STARTS_ABOVE:
        return None
    if case.settings.docker:
        says = f"Episodes wait for sandboxes to start: start more ahead, raise {case.keys('sandbox.warm')};"
        says += f" where the machine has cores to spare, {case.keys('sandbox.starts')} too."
    elif case.local:
        says = f"Episodes wait for sandboxes to start: start more at a time, raise {case.keys('sandbox.workers')}."
    else:
        says = f"Episodes wait for sandboxes to start: use a faster {case.keys('sandbox.backend')}."
    return Finding(share, says, case.figure(*STARTS))


def worker_threads(case: Case) -> Finding | None:
    share = case.share("sandbox/queue")
    if share <= QUEUE_ABOVE:
        return None
    says = "Episodes wait for a sandbox or for a thread that runs its tools: "
    if case.local:
        says += f"raise {case.keys('sandbox.workers')}, or use a machine with more cores."
    else:
        says += (
            f"spread containers over more machines with {case.keys('sandbox.engines')}."
            if case.settings.docker
            else f"use a {case.keys('sandbox.backend')} with more room."
        )
    return Finding(share, says, case.figure("sandbox/queue"))


def one_tool(case: Case) -> Finding | None:
    tools = case.members("tool")
    if not tools or tools[0].share <= TOOL_ABOVE:
        return None
    tool = tools[0]
    says = f"Episodes wait for {short_name(tool.stage)}: look at its slowest calls, then lower their limit,"
    says += f" {case.keys('sandbox.command_timeout_s')}"
    says += f", or give a container more cores with {case.keys('sandbox.cpus')}." if case.settings.docker else "."
    figure = f"{short_name(tool.stage)}: {amount(tool.share, tool.path_s)}; of {tool.count:,} calls one in twenty took"
    return Finding(tool.share, says, f"{figure} {seconds_text(tool.p95)} or more, the longest {seconds_text(tool.max)}")


def rewards(case: Case) -> Finding | None:
    share = case.share("reward")
    if share <= REWARDS_ABOVE:
        return None
    says = "Steps wait for rewards: "
    if case.members("reward")[0].stage == "reward/start" and case.settings.docker:
        says += f"most of it is the start of sandboxes to grade in, so raise {case.keys('sandbox.warm')}."
    elif case.local:
        says += f"grade more episodes at a time, raise {case.keys('sandbox.workers')}."
    elif case.settings.docker:
        says += f"give a container more cores, {case.keys('sandbox.cpus')}, or add {case.keys('sandbox.engines')}."
    else:
        says += f"use a faster {case.keys('sandbox.backend')}."
    return Finding(share, says, case.figure("reward"))


def stragglers(case: Case) -> Finding | None:
    steps = case.profile.steps
    tail_s = sum(step.straggler.tail_s for step in steps if step.straggler) / len(steps)
    share = tail_s * len(steps) / case.profile.wall_s if case.profile.wall_s else 0.0
    if share <= TAIL_ABOVE:
        return None
    limits = case.keys("agent.max_steps", "agent.response_budget", "agent.trajectory_timeout_s")
    says = f"A few episodes end long after the others: bound them with {limits}"
    if not case.local and case.settings.value("cluster.mode") != "fully_async":
        says += ", or train while they go on, with cluster.mode=fully_async"
    figure = f"rollout time after 90% of the episodes had ended: {amount(share, tail_s)}"
    slowest = case.growth.slowest
    if len(slowest) > 1:
        figure += f"; an episode takes {seconds_text(slowest[0].seconds)} on average, the slowest of"
        figure += f" {slowest[-1].episodes} takes {seconds_text(slowest[-1].seconds)}"
    return Finding(share, f"{says}.", figure)


def prefill(case: Case) -> Finding | None:
    share = case.share("policy/prefill")
    if share <= PREFILL_ABOVE:
        return None
    says = f"Reading prompts takes long: let tools say less, {case.keys('sandbox.max_output')}, or bound the episodes,"
    return Finding(share, f"{says} {case.keys('agent.response_budget')}.", case.figure("policy/prefill"))


def decode(case: Case) -> Finding | None:
    names = ("policy/decode",) if case.local else ("policy/decode", "policy/request")
    share = case.share(*names)
    if share <= DECODE_ABOVE:
        return None
    if case.local:
        says = "Sampling bounds the step, and a forward pass of twice the rows costs less than two: use more"
        says += f" {case.keys('sampling.rollouts')}"
        if case.settings.value("sampling.cohorts") != 1:
            says += f", or, as long as tools and rewards stay hidden, fewer {case.keys('sampling.cohorts')}"
    else:
        says = "Sampling bounds the step: serve more replicas, with more"
        says += f" {case.keys('cluster.nodes', 'cluster.gpus_per_node')}"
        if case.settings.value("cluster.tensor_parallel") != 1:
            says += f" or less {case.keys('cluster.tensor_parallel')}"
        says += f", and give them more rows at a time, {case.keys('cluster.gpu_memory_utilization')}"
    return Finding(share, f"{says}.", "; ".join((case.figure(*names), *_sampling(case))))


def _sampling(case: Case) -> list[str]:
    """Rows of a forward pass, and the time of a token by the length of a turn."""
    shown = {step.step: step for step in (case.profile.slowest, case.profile.median)}
    passes = [
        rows
        for step in shown.values()
        for span in step.spans
        if span.stage == "policy/decode" and not span.episode and (rows := number_of(span, "rows")) is not None
    ]
    said = []
    if passes:
        steps = " and ".join(f"step {step}" for step in sorted(shown))
        said.append(f"{sum(passes) / len(passes):.1f} rows together on average ({steps})")
    bins = case.growth.tokens
    for one in dict.fromkeys((*bins[:1], *bins[-1:])):
        said.append(f"{seconds_text(one.p50)} a token in turns of {one.low} to {one.high} tokens")
    return said
