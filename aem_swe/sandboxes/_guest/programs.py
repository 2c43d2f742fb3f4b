"""Python programs that are already compiled: a forked child executes them where another one would start an interpreter.

What a program sees is what `python3 -I -S program.py` gives it: its own __main__, sys.argv, the environment and the
working directory of the command, the standard library and nothing else in sys.modules. Its folder is not put on
sys.path. Exit codes, SystemExit and tracebacks are the interpreter's.
"""

import atexit
import builtins
import os
import signal
import sys
import types
from collections.abc import Mapping, Sequence
from types import CodeType
from typing import NoReturn


class Programs:
    """path -> compiled program. Made once, before any fork; what can be done there no fork has to do again."""

    def __init__(self, codes: Mapping[str, CodeType]) -> None:
        self._codes = codes
        self._interpreters = frozenset({"python3", "python", sys.executable})
        self._environment: dict[str, str] | None = None

    def find(self, argv: Sequence[str]) -> CodeType | None:
        if len(argv) >= 2 and argv[0] in self._interpreters:
            return self._codes.get(argv[1])
        return None

    def set_environment(self, environment: Mapping[str, str]) -> None:
        """Before the fork: the environment is nearly always that of the command before."""
        if environment != self._environment:
            self._environment = None  # if what follows fails
            os.environ.clear()
            os.environ.update(environment)
            self._environment = dict(environment)

    def execute(self, code: CodeType, argv: Sequence[str]) -> NoReturn:
        """End this process, a fresh fork whose descriptors, folder and environment are already the command's."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = list(argv[1:])
        main = types.ModuleType("__main__")
        main.__dict__.update(__file__=argv[1], __builtins__=builtins, __cached__=None)
        sys.modules["__main__"] = main
        os._exit(_finish(_run(code, main.__dict__)))


def compiled(sources: Mapping[str, str]) -> dict[str, CodeType]:
    """path -> code of path -> source."""
    return {path: compile(source, path, "exec", dont_inherit=True) for path, source in sources.items()}


def hide_modules(shown: frozenset[str]) -> list[types.ModuleType]:
    """Take out of sys.modules what no fresh interpreter would have there, and return it to be kept alive."""
    return [sys.modules.pop(name) for name in list(sys.modules) if name not in shown]


def _run(code: CodeType, namespace: dict[str, object]) -> int:
    try:
        exec(code, namespace)
    except SystemExit as error:
        return _exit_code(error.code)
    except BaseException as error:  # the program's, whatever it is: report it as the interpreter would
        trace = error.__traceback__.tb_next if error.__traceback__ else None  # without this function's own frame
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return 1
    return 0


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _finish(exit_code: int) -> int:
    """What an interpreter does at its end: wait for threads, call atexit functions, flush."""
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()  # not in the stubs; concurrent.futures relies on it as well
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # a closed pipe; a stream that the program closed or removed
            exit_code = exit_code or 120
    return exit_code
