"""Child processes that end with the process that started them, even when that one is killed."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)


def ended_with_parent() -> Callable[[], None]:
    """A preexec_fn for Popen: the child gets SIGTERM when the thread that started it ends. Elsewhere than Linux: no."""
    parent = os.getpid()

    def prepare() -> None:
        if sys.platform == "linux":
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until exec, a handler of the parent's would take it
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # killed before the call
                os.kill(os.getpid(), signal.SIGTERM)

    return prepare
