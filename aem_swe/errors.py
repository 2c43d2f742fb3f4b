"""The exception tree. A failure belongs to exactly one boundary; only rollout.py and cli.py catch.

AemSweError
├── ConfigError           the user's mistake: what, value, remedy (exit code 2)
├── TaskError             a task row or a grader is malformed; names the task
├── SandboxError          the world that the agent works in failed; never an observation, never a reward of 0
│   ├── SandboxUnavailable  this machine cannot make such a sandbox; the message lists the remedies
│   │   ├── EngineUnreachable  no container engine answers
│   │   └── ImageMissing       no engine has the image that the task needs
│   ├── SandboxGone         it died or was killed while in use
│   │   └── SandboxOutOfMemory  by the kernel, for lack of memory
│   ├── SandboxTimeout      the host-side deadline passed without an answer
│   └── ReplayDiffers       an action that was carried out again in a new sandbox did something else
├── PolicyError           the policy (model or endpoint) gave no usable response
│   ├── ContextExceeded     the conversation no longer fits into the model's context
│   └── UnusableAnswer      it answered, but with something that is no response; another try may give one
├── RunError              a run folder or a checkpoint is missing, broken or cannot be written
├── ClusterError          a process of a run on a cluster died or failed; names it
└── EvaluationStopped     nothing but infrastructure errors came back any more

Every class keeps one message as its only argument, so all of them pickle.
"""


class AemSweError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(AemSweError):
    """A recipe, key or value that the user has to change."""


class TaskError(AemSweError):
    """A task that cannot be run as it is written; the message starts with its id."""


class SandboxError(AemSweError):
    """The sandbox failed, not the agent."""


class SandboxUnavailable(SandboxError):
    """No sandbox of this kind can be made on this machine."""


class EngineUnreachable(SandboxUnavailable):
    """No container engine answered."""


class ImageMissing(SandboxUnavailable):
    """No engine holds the container image of a task."""


class SandboxGone(SandboxError):
    """The sandbox ended while it was in use."""


class SandboxOutOfMemory(SandboxGone):
    """The kernel ended the whole sandbox for lack of memory."""


class SandboxTimeout(SandboxError):
    """The sandbox did not answer within the host-side deadline."""


class ReplayDiffers(SandboxError):
    """A new sandbox cannot be brought to where the old one was."""


class PolicyError(AemSweError):
    """The policy did not produce a usable response."""


class ContextExceeded(PolicyError):
    """The prompt is longer than the model's context; only where nobody here can count its tokens."""


class UnusableAnswer(PolicyError):
    """An answer came, and it is malformed, too long or not what was asked for."""

    usage: tuple[int, int] = (0, 0)
    """Prompt and completion tokens that it cost, as far as it says so."""


class RunError(AemSweError):
    """A run folder or checkpoint is missing, broken or not writable."""


class EvaluationStopped(AemSweError):
    """An evaluation that would only have gone through its instances without playing them."""


class ClusterError(AemSweError):
    """A run on a cluster ended because of one of its processes."""
