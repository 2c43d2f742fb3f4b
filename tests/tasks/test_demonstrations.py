"""Demonstrations: what they claim to see is what a real sandbox shows, and the parser reads their actions."""

import random

from aem_swe.agents.definition import load_agent
from aem_swe.agents.parser import parse_xml
from aem_swe.agents.tools import run_tool
from aem_swe.sandboxes import Sandboxes
from aem_swe.tasks.demo import make_problem
from aem_swe.tasks.demonstrations import demonstrate
from aem_swe.types import ToolCall

AGENT = load_agent("demo")


def action_of(text: str) -> ToolCall:
    action = parse_xml(text, AGENT.tools)
    assert isinstance(action, ToolCall), action
    return action


def test_simulated_observations_are_those_of_a_real_sandbox(sandboxes: Sandboxes) -> None:
    seen = set()
    for seed in range(40):
        problem = make_problem("train", seed)
        task = problem.task()
        with sandboxes.open(task) as sandbox:
            for text, simulated in demonstrate(problem, random.Random(seed), noise=0.7):
                action = action_of(text)
                if AGENT.tools[action.name].finish:
                    assert simulated == ""
                    continue
                real = run_tool(action, AGENT, sandbox, workdir=task.workdir)
                assert simulated == real.observation, (problem.id, text)
                seen.add((action.name, " ".join(simulated.split()[:2]) if simulated[:1].isdigit() else simulated[:5]))
    assert ("execute_bash", "4 passed") in seen
    assert ("execute_bash", "1 failed") in seen
    assert ("file_editor", "ERROR") in seen
    assert ("file_editor", "The f") in seen


def test_without_noise_the_demonstrator_solves_every_task(sandboxes: Sandboxes) -> None:
    for seed in range(8):
        problem = make_problem("test", seed)
        task = problem.task()
        with sandboxes.open(task) as sandbox:
            actions = [action_of(text) for text, _ in demonstrate(problem, random.Random(seed), noise=0.0)]
            for action in actions[:-1]:
                run_tool(action, AGENT, sandbox, workdir=task.workdir)
            diff = sandbox.diff()
        assert AGENT.tools[actions[-1].name].finish
        with sandboxes.open(task, purpose="grading") as sandbox:
            assert problem.grader().grade(task, diff, sandbox).reward == 1.0


def test_demonstrations_are_functions_of_their_random_stream() -> None:
    problem = make_problem("train", 3)
    first, again = (list(demonstrate(problem, random.Random(9), noise=0.5)) for _ in range(2))
    assert first == again
    assert len({len(list(demonstrate(problem, random.Random(seed), noise=0.5))) for seed in range(30)}) > 2


def test_noise_is_the_share_of_wrong_first_edits() -> None:
    def first_edit_is_right(seed: int, noise: float) -> bool:
        problem = make_problem("train", seed)
        actions = (action_of(text) for text, _ in demonstrate(problem, random.Random(seed), noise=noise))
        edit = next(a for a in actions if a.arguments.get("command") == "str_replace")
        wanted = (f"return {problem.bug}", f"return {problem.target.variant.good}")
        return (edit.arguments["old_str"], edit.arguments["new_str"]) == wanted

    right = sum(first_edit_is_right(seed, 0.4) for seed in range(1000))
    assert 540 <= right <= 660, "600 expected, 15.5 the standard deviation"
    assert all(first_edit_is_right(seed, 0.0) for seed in range(100))
