"""Rules of advice about what episodes wait for before a tool can run: one per cause, as each has its own remedy.

As in rollout_rules.py: at its threshold, a share of the wall time on the critical path, a rule is silent.
"""

from aem_swe.eval.profile.evidence import Case, Finding, amount

QUEUE_ABOVE = 0.05
"""Nothing is done in a queue, so all of it can go."""
STARTS_ABOVE = 0.05
"""A container that was started ahead is there at once, so nearly all of it can go."""
OPENING_ABOVE = 0.05
"""What of opening a sandbox is none of its stages should be next to nothing."""
IMAGES_ABOVE = 0.05
"""Once per task and engine; in a long run that is next to nothing."""

STARTS = ("sandbox/create", "sandbox/start")


def more_room(case: Case) -> str:
    """Where sandboxes get more cores than they have, by the kind of sandbox."""
    if case.settings.docker:
        return f"spread containers over more machines with {case.keys('sandbox.engines')}"
    if case.settings.value("sandbox.kind") in ("rllm", "r2egym"):
        return f"use a {case.keys('sandbox.backend')} with more room"
    return "use a machine with more cores"


def more_threads(case: Case) -> str:
    """Threads of the embedded engine, which are no cores."""
    says = f"raise {case.keys('sandbox.workers')}, if cores are free meanwhile: what is bound by the processor gains"
    return f"{says} nothing from more threads than cores; otherwise {more_room(case)}"


def worker_threads(case: Case) -> Finding | None:
    share = case.share("worker/queue")
    if share <= QUEUE_ABOVE or not case.local:  # the cluster engine has a thread for every episode
        return None
    says = f"Episodes wait for a thread that runs their tools: {more_threads(case)}."
    return Finding(share, says, case.figure("worker/queue"))


def start_slots(case: Case) -> Finding | None:
    share = case.share("sandbox/queue")
    if share <= QUEUE_ABOVE or not case.settings.docker:
        return None
    says = f"Episodes wait for their turn to start a container: raise {case.keys('sandbox.starts')} up to about twice"
    return Finding(share, f"{says} the engine's cores; beyond that, {more_room(case)}.", case.figure("sandbox/queue"))


def sandbox_starts(case: Case) -> Finding | None:
    share = case.share(*STARTS)
    if share <= STARTS_ABOVE:
        return None
    says = "Episodes wait for sandboxes to start: "
    if case.settings.docker and _could_be_warmer(case):
        says += f"start more of them ahead, raise {case.keys('sandbox.warm')}"
    elif case.local and not case.settings.docker:
        says += more_threads(case)
    else:
        says += more_room(case)
    return Finding(share, f"{says}.", case.figure(*STARTS))


def _could_be_warmer(case: Case) -> bool:
    """Each episode takes two containers at most, its own and the one that it is graded in."""
    warm, prompts, rollouts = map(case.settings.number, ("sandbox.warm", "sampling.prompts", "sampling.rollouts"))
    return warm is None or prompts is None or rollouts is None or warm < 2 * prompts * rollouts


def images(case: Case) -> Finding | None:
    """Setting up an image is for its first container, so the first step may wait for it."""
    later = [step for step in case.profile.steps[1:] if step.wall_s > 0.0]
    waited_s = sum(step.path_s.get("sandbox/image", 0.0) for step in later)
    share = waited_s / sum(step.wall_s for step in later) if later else 0.0
    if share <= IMAGES_ABOVE or not case.settings.docker:
        return None
    says = "Images are still pulled or set up after the first step, each once: fetch them before the run with"
    says += " `aem-swe sandbox pull`, and see whether `aem-swe sandbox gc --images` or the engine removes them."
    figure = f"sandbox/image after step {case.profile.steps[0].step}: {amount(share, waited_s / len(later))}"
    return Finding(share, says, figure)


def opening(case: Case) -> Finding | None:
    share = case.share("sandbox/open")
    if share <= OPENING_ABOVE:
        return None
    says = "Opening a sandbox takes long without making one: starts that failed and were tried again. Look for"
    says += " retries in trajectories/ and at the engine's own log."
    found = case.shown("sandbox/open")
    failed = sum(span.attributes.get("failed") is True for span in found)
    return Finding(share, says, f"{case.figure('sandbox/open')}; {failed} of {len(found)} failed in {case.shown_steps}")
