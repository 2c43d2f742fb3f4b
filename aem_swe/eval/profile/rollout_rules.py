"""Rules of advice about the rollout: tools, rewards, stragglers. One function each: a threshold, the keys, the figure.

A threshold is a share of the wall time on the critical path. At it a rule is silent, above it it speaks.
"""

from aem_swe.eval.profile.evidence import Case, Finding, amount
from aem_swe.eval.profile.sandbox_rules import more_room, more_threads
from aem_swe.eval.profile.wording import seconds_text, short_name

TOOL_ABOVE = REWARDS_ABOVE = 0.05
"""Tools and rewards are to hide behind generation: a tenth of a step at most, together."""
TAIL_ABOVE = 0.10
"""In the tail at most a tenth of the rows is busy, so nine tenths of that time are idle."""


def one_tool(case: Case) -> Finding | None:
    tools = case.members("tool")
    if not tools or tools[0].share <= TOOL_ABOVE:
        return None
    tool, limit = tools[0], case.settings.number("sandbox.command_timeout_s")
    says = f"Episodes wait for {short_name(tool.stage)}: look at its slowest calls"
    if limit is None or tool.max > limit / 2:  # a limit far above all calls is not what they take so long for
        says += f", then lower their limit, {case.keys('sandbox.command_timeout_s')}"
    says += f"; {_more_cores(case)}."
    figure = f"{short_name(tool.stage)}: {amount(tool.share, tool.path_s)}; of {tool.count:,} calls one in twenty took"
    return Finding(tool.share, says, f"{figure} {seconds_text(tool.p95)} or more, the longest {seconds_text(tool.max)}")


def _more_cores(case: Case) -> str:
    """For what runs inside a sandbox. sandbox.cpus 0 is all cores already."""
    if case.settings.docker and case.settings.number("sandbox.cpus") != 0.0:
        return f"give a container more cores, {case.keys('sandbox.cpus')}, or {more_room(case)}"
    return more_room(case)


def rewards(case: Case) -> Finding | None:
    share = case.share("reward")
    if share <= REWARDS_ABOVE:
        return None
    figure = case.figure("reward")
    largest = case.members("reward")[0].stage
    if case.local and case.share("reward/queue") > share / 2:
        says = f"Steps wait for rewards, most of it for a thread to grade in: {more_threads(case)}"
    elif largest == "reward/start" and case.settings.docker:
        says = "Steps wait for rewards, most of it for a sandbox to grade in to start: start more ahead, raise"
        says += f" {case.keys('sandbox.warm')}"
    else:
        says = "Steps wait for rewards. Nothing can hide the last episode's, so what helps is fewer or faster tests, or"
        says += f" more cores: {_more_cores(case)}"
        figure += _longest_tests(case)
    return Finding(share, f"{says}.", figure)


def _longest_tests(case: Case) -> str:
    tests = [span for span in case.shown("reward/tests") if span.task]
    if not tests:
        return ""
    longest = max(tests, key=lambda span: (span.seconds, span.task))
    return f"; the longest tests, of {short_name(longest.task)}: {seconds_text(longest.seconds)} ({case.shown_steps})"


def stragglers(case: Case) -> Finding | None:
    steps = case.profile.steps
    tail_s = sum(step.straggler.tail_s for step in steps if step.straggler) / len(steps)
    share = tail_s * len(steps) / case.profile.wall_s if case.profile.wall_s else 0.0
    if share <= TAIL_ABOVE:
        return None
    limits = case.keys("agent.max_steps", "agent.response_budget", "agent.trajectory_timeout_s")
    says = f"A few episodes play on long after the others: bound them with {limits}"
    if case.settings.may_stream and case.settings.value("cluster.mode") != "fully_async":
        says += ", or train while they go on, with cluster.mode=fully_async"
    figure = f"from when 90% of the episodes had ended to the last's end, rewards left out: {amount(share, tail_s)}"
    slowest = case.growth.slowest
    if len(slowest) > 1:
        figure += f"; with its reward an episode takes {seconds_text(slowest[0].seconds)} on average, the slowest of"
        figure += f" {slowest[-1].episodes} takes {seconds_text(slowest[-1].seconds)}"
    return Finding(share, f"{says}.", figure)
