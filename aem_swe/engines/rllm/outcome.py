"""What became of a run on a cluster: how far it is saved, and why it ended."""

from aem_swe.errors import AemSweError, ClusterError, RunError
from aem_swe.metrics import RunFolder

_LAST = "latest_checkpointed_iteration.txt"
"""verl's note of its last whole checkpoint."""


def last_checkpoint(folder: RunFolder) -> int:
    """The step of verl's last whole checkpoint, 0 where there is none. Raises RunError where that cannot be told."""
    path = folder.path / "checkpoints" / _LAST
    if not path.is_file():
        if saved := sorted(found.name for found in path.parent.glob("global_step_*")):
            raise RunError(
                f"{path} is missing and {saved[-1]} is there; write its number into that file if it is whole, or remove"
                " it to start over"
            )
        return 0
    text = path.read_text(errors="replace").strip()[:12]
    if not (text.isascii() and text.isdecimal() and (path.parent / f"global_step_{text}").is_dir()):
        raise RunError(f"{path} names step {text!r}, which is not there; restore it or choose another run_dir")
    return int(text)


def in_one_line(error: Exception) -> AemSweError:
    """What failed on the cluster: our own error where it was one, else Ray's, which names the process that died."""
    cause: BaseException = error
    while (inner := getattr(cause, "cause", None) or cause.__cause__) is not None and inner is not cause:
        cause = inner  # Ray's errors are also of the class of what they wrap, with a traceback for a message
    if isinstance(cause, AemSweError):
        return cause
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return ClusterError(
        f"the run ended on the cluster with {type(cause).__name__}: {' '.join(lines)[:600] or 'no message'};"
        " see the lines above and Ray's logs, then use --resume"
    )
