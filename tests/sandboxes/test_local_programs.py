"""Preloaded programs: the same as an interpreter would do, only faster."""

from collections.abc import Iterator

import pytest
from scene import LIMITS, TASK

from aem_swe.errors import SandboxUnavailable
from aem_swe.sandboxes import Sandbox
from aem_swe.sandboxes.local import LocalSandboxes

ECHO, FAIL, LEAVE, LATE = (f"/opt/aem/tools/{name}.py" for name in ("echo", "fail", "leave", "late"))
BOMB = "blocks = []\nwhile True:\n    blocks.append(bytearray(1 << 20))\n"


@pytest.fixture
def sandbox(auto: LocalSandboxes) -> Iterator[Sandbox]:
    with auto.open(TASK) as opened:
        yield opened


@pytest.mark.parametrize("program", [ECHO, FAIL, LEAVE, LATE, "/opt/aem/tools/modules.py"])
def test_a_preloaded_program_does_what_an_interpreter_does(sandbox: Sandbox, program: str) -> None:
    loaded = sandbox.run(["python3", program, "a b", "c"], cwd="src", env={"A": "1"}, stdin=b"\xffin")
    fresh = sandbox.run(["env", "python3", "-I", "-S", program, "a b", "c"], cwd="src", env={"A": "1"}, stdin=b"\xffin")
    assert (loaded.exit_code, loaded.stdout, loaded.stderr) == (fresh.exit_code, fresh.stdout, fresh.stderr)
    assert loaded.stdout or loaded.stderr


def test_a_preloaded_program_sees_nothing_but_the_standard_library(sandbox: Sandbox) -> None:
    assert sandbox.run(["python3", "/opt/aem/tools/modules.py"]).stdout == b"[] []\n"


def test_a_preloaded_program_can_import_what_the_agent_wrote(sandbox: Sandbox) -> None:
    sandbox.write("candidate.py", b"import struct\nVALUE = struct.VALUE\n")
    sandbox.write("struct.py", b"VALUE = 2\n")  # PID 1 has imported the real one, which must not show
    assert sandbox.run(["python3", "/opt/aem/tools/candidate.py"]).stdout == b"2\n"


def test_a_preloaded_program_obeys_its_limits(works: None) -> None:
    programs = {"/opt/aem/bomb.py": BOMB, "/opt/aem/loop.py": "print('x', flush=True)\nwhile True: pass\n"}
    with LocalSandboxes(limits=LIMITS, programs=programs) as fresh, fresh.open(TASK) as sandbox:
        assert sandbox.run(["python3", "/opt/aem/bomb.py"]).out_of_memory
        result = sandbox.run(["python3", "/opt/aem/loop.py"], timeout=0.3)
        assert (result.timed_out, result.stdout) == (True, b"x\n")


def test_a_program_that_is_no_python_is_refused_at_the_start(works: None) -> None:
    sandboxes = LocalSandboxes(limits=LIMITS, programs={"/opt/x.py": "x ="})
    with pytest.raises(SandboxUnavailable, match="invalid syntax"), sandboxes:
        pass
