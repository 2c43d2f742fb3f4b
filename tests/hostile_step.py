"""One whole training step under a hostile policy. Run by test_hostile.py in this process, and once more as an
ordinary user.

python tests/hostile_step.py FOLDER      writes the run to FOLDER/run, the report to FOLDER/report.html, and prints JSON
"""

import json
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from aem_swe.agents.loop import AskPolicy
from aem_swe.agents.policy import ScriptedPolicy, turn_of
from aem_swe.config import load_recipe
from aem_swe.engines.local import trainer
from aem_swe.engines.local.model import model_folder
from aem_swe.engines.local.session import Session
from aem_swe.engines.run_start import describe
from aem_swe.eval.report import write_report
from aem_swe.metrics import RunFolder
from aem_swe.tasks.demo import DemoProblem, make_problem
from aem_swe.tasks.demonstrations import call
from aem_swe.types import Response

CANARY = "canary-5f0c2e"
DAEMON = "86399.25"
"""Seconds that a daemon sleeps: also the mark by which it is looked for."""
SEED = 100_000
"""Of the one training task: the first of data.seed 1."""

_EQUAL = "class E:\n    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\n    __hash__ = lambda s: 0\n"
_FORGED = (
    "import os, sys\nfor fd in range(3, 30):\n    try:\n        os.write(fd, b'0 [\"int 1\"]\\n')\n"
    "    except OSError:\n        pass\n"
    "os.write(1, b'4 passed\\n')\n"
)


def _bash(command: str) -> str:
    return "look\n" + call("execute_bash", cmd=command)


def _rewrite(problem: DemoProblem, before: str, body: str) -> str:
    """A command that puts `before` and functions with `body` in place of the broken module."""
    module = problem.target.module
    functions = "".join(
        f"def {f.name}({', '.join(f.variant.arguments)}):\n    {body}\n"
        for f in problem.functions
        if f.module == module
    )
    return _bash(f"cat > {module}.py <<'XEND'\n{before}{functions}XEND")


def attacks(problem: DemoProblem, port: int) -> dict[str, list[str]]:
    """Name -> the responses of one episode before it says finish."""
    target = problem.target
    old, new = f"return {problem.bug}", f"return {target.variant.good}"
    fix = call("file_editor", command="str_replace", path=f"{target.module}.py", old_str=old, new_str=new)
    connect = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2); print('CONNECTED')"
    return {
        # solved, so the report shows it: its escape codes and its script must do nothing there
        "fix": [_bash("printf '\\033]0;pwned\\007\\033[2J<script>alert(1)</script>\\n'"), "fix it\n" + fix],
        "nothing": [],
        "delete everything": [_bash("rm -rf --no-preserve-root / 2>/dev/null; ls /usr/bin | head -1")],
        "fork bomb": [_bash(":(){ :|:& };:")],
        "endless output": [_bash("yes '<script>document.title=1</script>'")],
        "read tests": [
            _bash("cat /opt/aem/grading/* /proc/1/environ /proc/1/cmdline; ls -R /opt /root /home /work 2>&1")
        ],
        "network": [_bash(f'python3 -c "{connect}"; getent hosts example.org')],
        "daemon": [_bash(f"setsid nohup sleep {DAEMON} >/dev/null 2>&1 & disown; echo started")],
        "1 GB file": [_bash("head -c 1G /dev/zero > big; ls -l big"), "look\n" + fix],
        "always equal": [_rewrite(problem, _EQUAL, "return E()")],
        "exit at import": [_rewrite(problem, "import os\nos._exit(0)\n", "return 1")],
        "forged result": [_rewrite(problem, _FORGED, "return 1")],
        "escape codes": [_bash("printf '\\033]0;pwned\\007\\033[2J<script>alert(1)</script>\\n'")],
        "secret": [_bash("env; set; cat /proc/*/environ | tr '\\0' '\\n'")],
        "symlink": [_bash(f"rm {target.module}.py; ln -s /etc/passwd {target.module}.py")],
    }


class HostileSampler:
    """Takes the place of a sampler: rollout k of the group plays attack k."""

    def __init__(self, scripts: Sequence[list[str]], session: Session) -> None:
        self.rows = len(scripts)
        self._scripts = scripts
        self._policy = ScriptedPolicy(self._say, session.model.chat)

    def reset(self, policy_version: int) -> None:
        pass

    def _say(self, ask: AskPolicy) -> str:
        script = self._scripts[ask.seed[-2]]
        turn = turn_of(ask)
        return script[turn] if turn < len(script) else "done\n" + call("finish", command="submit")

    def respond_batch(self, asks: Sequence[AskPolicy | None]) -> list[Response | None]:
        return self._policy.respond_batch(asks)


def hostile_step(folder: Path) -> dict[str, Any]:  # JSON values
    """Run the step; return the metrics row and what each attack got."""
    os.environ["AEM_SWE_TEST_SECRET"] = CANARY
    problem = make_problem("train", SEED)
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as resources:
        listener.settimeout(0.1)
        scripts = attacks(problem, listener.getsockname()[1])
        recipe = load_recipe(
            "demo_aem",
            [
                f"run_dir={folder / 'run'}", "data.pool=1", "sampling.prompts=1", f"sampling.rollouts={len(scripts)}",
                "sampling.cohorts=1", "trainer.minibatches=1", "trainer.steps=1", "trainer.eval_every=0",
                "sandbox.command_timeout_s=3", "agent.max_response_tokens=null", "agent.response_budget=20000",
            ],
        )  # fmt: skip
        run_folder = RunFolder(folder / "run")
        run = trainer._open_run(recipe, run_folder, None, resources)
        resources.enter_context(run_folder.locked())
        describe(recipe, run_folder, 1, model_folder=model_folder(recipe.model.path))
        sampler = HostileSampler(list(scripts.values()), run.session)
        run = replace(run, session=replace(run.session, samplers=[sampler]))  # type: ignore[list-item]  # its stand-in
        row = trainer._train_step(run, 1)
        run_folder.append(row)
        try:
            listener.accept()
            connected = True
        except TimeoutError:
            connected = False
    write_report([folder / "run"], folder / "report.html")
    lines = (folder / "run" / "trajectories" / "step_000001.jsonl").read_text().splitlines()
    episodes = [json.loads(line) for line in lines]
    return {
        "row": row,
        "connected": connected,
        "got": {name: [e["reward"], e["reason"], e["termination"]] for name, e in zip(scripts, episodes, strict=True)},
        "observations": {name: e["turns"][0]["observation"] for name, e in zip(scripts, episodes, strict=True)},
    }


if __name__ == "__main__":
    print(json.dumps(hostile_step(Path(sys.argv[1]))))
