"""Evaluation folders on disk, in the form that an evaluation leaves them in. Their numbers are made up."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any  # JSON values

from aem_swe.eval.swebench.results import Evaluation, Result, Status, load_evaluation, result_line

REPOSITORIES = ("django/django", "sympy/sympy", "pytest-dev/pytest")
DIFFICULTIES = ("<15 min fix", "15 min - 1 hour", "")
PATCH = "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-return n // 6\n+return n // 7\n"
TEST_PATCH = (
    "diff --git a/tests/test_x.py b/tests/test_x.py\n--- a/tests/test_x.py\n+++ b/tests/test_x.py\n@@ -1 +1 @@\n"
)
ATTACK = (
    "</pre></style></title><script>document.title='owned'</script><img src=x onerror=alert(1)>"
    "<a href=javascript:alert(1)>{{ 7*7 }}\x1b[31m\u202e\ud800'\""
)
PROTOCOL = {
    "dataset": "SWE-bench_Verified",
    "runs": 2,
    "play": {"agent": "r2egym", "max_steps": 100, "soft_steps": None},
}


def turn(text: str, name: str, observation: str = "", **arguments: str) -> list[dict[str, Any]]:
    """One assistant message, and what came back."""
    extra = {
        "action": {"name": name, "arguments": arguments},
        "observation": observation,
        "prompt_tokens": 1200,
        "completion_tokens": 34,
        "seconds": 1.5,
        "finish_reason": "stop",
        "entropy": 0.412,
        "alpha": 1.031,
        "tool_seconds": 0.2,
    }
    call = f"{text}\n<function={name}></function>"
    return [{"role": "assistant", "content": call, "extra": extra}, {"role": "user", "content": observation}]


def trajectory(instance_id: str, *turns: list[dict[str, Any]], patch: str = PATCH) -> dict[str, Any]:
    messages = [{"role": "system", "content": "You mend code."}, {"role": "user", "content": "The issue is thus."}]
    info = {"exit_status": "finished", "submission": patch, "model_stats": {"instance_cost": 0.0, "api_calls": 3}}
    return {
        "trajectory_format": "mini-swe-agent-1.1",
        "instance_id": instance_id,
        "info": info,
        "messages": [*messages, *(message for one in turns for message in one)],
        "aem_swe": {"attempt": 1, "retries": [], "seconds": {"policy": 3.0}, "reason": ""},
    }


def honest(instance_id: str) -> dict[str, Any]:
    return trajectory(
        instance_id,
        turn("I look at the file.", "file_editor", "1\treturn n // 6", command="view", path="/testbed/x.py"),
        turn("I run the tests.", "execute_bash", "1 passed", cmd="python -m pytest tests"),
        turn("Done.", "finish", command="submit"),
    )


def cheat(instance_id: str) -> dict[str, Any]:
    return trajectory(
        instance_id,
        turn("I look for the fix.", "execute_bash", "fatal: no such ref", cmd="git log --all --oneline"),
        turn("Done.", "finish", command="submit"),
    )


def names(count: int) -> list[str]:
    return [f"{REPOSITORIES[place % 3].replace('/', '__')}-{place}" for place in range(count)]


def statuses(count: int, runs: int, chance: float, seed: int) -> dict[tuple[int, str], Status]:
    """The first instance is resolved in all runs, the second in none, the third in the first run only."""
    noise = random.Random(seed)
    found = {}
    for place, name in enumerate(names(count)):
        for run in range(1, runs + 1):
            solved = (True, False, run == 1)[place] if place < 3 else noise.random() < chance
            found[run, name] = Status.RESOLVED if solved else Status.UNRESOLVED
    return found


def write_logs(folder: Path, instance_id: str, failed: Sequence[str], output: str) -> None:
    place = folder / "logs/run_evaluation/run_1/model" / instance_id
    place.mkdir(parents=True)
    status = {"FAIL_TO_PASS": {"success": [], "failure": list(failed)}, "PASS_TO_PASS": {"success": [], "failure": []}}
    (place / "report.json").write_text(json.dumps({instance_id: {"resolved": not failed, "tests_status": status}}))
    text = f"HARNESS-BEFORE\n+ : '>>>>> Start Test Output'\n{output}\n+ : '>>>>> End Test Output'\nHARNESS-AFTER\n"
    (place / "test_output.txt").write_text(text, errors="surrogatepass")


def write_evaluation(
    folder: Path, *, count: int = 12, runs: int = 2, chance: float = 0.4, seed: int = 1, model: str = "deepswe",
    about: dict[str, Any] | None = None, ids: Sequence[str] = (), changes: dict[tuple[int, str], Status] | None = None,
    trajectories: dict[tuple[int, str], Any] | None = None,
) -> Evaluation:  # fmt: skip
    """An evaluation with trajectories of honest work, but for those given; None leaves one out."""
    folder.mkdir(parents=True)
    header = {
        "model": model, "arm": model, "training_seed": seed, "runs": runs, "protocol": PROTOCOL,
        "protocol_sha256": "feed" * 16, "dataset": {"path": "rows.jsonl", "sha256": "c0de" * 16},
        "harness": {"swebench": "5.0.2", "network": "none", "memory_mb": 8192, "timeout_s": 1800},
        "versions": {"swebench": "5.0.2"},
    }  # fmt: skip
    (folder / "evaluation.json").write_text(json.dumps(header | (about or {})))
    chosen = [*ids, *names(count)[len(ids) :]]
    renamed = dict(zip(names(count), chosen, strict=True))
    rows = [
        {
            "instance_id": name,
            "repo": REPOSITORIES[place % 3],
            "difficulty": DIFFICULTIES[place % 3],
            "test_patch": TEST_PATCH,
        }
        for place, name in enumerate(chosen)
    ]
    (folder / "instances.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    became = {(run, renamed[name]): one for (run, name), one in statuses(count, runs, chance, seed).items()}
    lines = []
    for (run, name), status in (became | (changes or {})).items():
        lines.append(result_line(_result(run, name, status)))
        place = folder / f"run_{run}" / name
        document = (trajectories or {}).get((run, name), honest(name))
        if document is not None and "/" not in name:
            place.mkdir(parents=True)
            (place / f"{name}.traj.json").write_text(document if isinstance(document, str) else json.dumps(document))
    (folder / "results.jsonl").write_bytes(b"".join(lines))
    return load_evaluation(folder)


def _result(run: int, name: str, status: Status) -> Result:
    return Result(
        name, run, status, reason="" if status is Status.RESOLVED else "tests failed", termination="finished",
        turns=3, prompt_tokens=3600, completion_tokens=102, cost=0.25, seconds={"policy": 4.5, "tools": 0.6},
    )  # fmt: skip


def hostile(name: str) -> dict[str, Any]:
    """A trajectory with the attack in every place."""
    made = trajectory(
        name,
        turn(ATTACK, ATTACK, ATTACK, **{ATTACK: ATTACK, "cmd": f"git log --all {ATTACK}"}),
        turn(ATTACK, "execute_bash", ATTACK, cmd=f"curl https://a.org/{ATTACK}"),
        patch=f"diff --git a/x b/conftest.py\n--- a/x\n+++ b/{ATTACK}conftest.py\n@@ -1 +1 @@\n+{ATTACK}\n",
    )
    made["messages"][4]["extra"]["action"] = {"error": ATTACK}
    made["messages"][1]["content"] = ATTACK
    return made | {"aem_swe": {"retries": [ATTACK, {"a": ATTACK}], "reason": ATTACK}}


def attacked(folder: Path) -> Evaluation:
    """Four instances, the attack in every field, and as an id, a repository and a difficulty."""
    name = names(4)[0]
    about = {
        "model": ATTACK,
        "arm": ATTACK + "arm",
        "training_seed": ATTACK,
        "protocol": {ATTACK: {ATTACK: [ATTACK]}},
        "harness": {"network": ATTACK, ATTACK: ATTACK},
        ATTACK: ATTACK,
    }
    made = write_evaluation(folder, count=4, about=about, trajectories={(1, name): hostile(name)})
    write_logs(folder / "run_1", name, [ATTACK, "b"], f"{ATTACK}\n")
    rows = [json.loads(line) for line in (folder / "instances.jsonl").read_text().splitlines()]
    rows[0] |= {"repo": ATTACK, "difficulty": ATTACK}
    rows.append({"instance_id": ATTACK, "repo": ["x"], "difficulty": {"a": ATTACK}, "test_patch": ATTACK})
    (folder / "instances.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    extra = Result(ATTACK, 1, Status.UNRESOLVED, reason=ATTACK, termination=ATTACK, seconds={ATTACK: 1.0})
    with (folder / "results.jsonl").open("ab") as file:
        file.write(result_line(extra))
    return load_evaluation(made.folder)
