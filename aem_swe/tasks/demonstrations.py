"""Scripted, noisy demonstrations of the demo tasks: what the starting policy is taught from.

The demonstrator knows the fix and gets it wrong on purpose: with probability `noise` its first edit is a wrong
expression, another function, or a replacement that does not match. So the policy learns the form of every action and a
fair idea of the content, and leaves the rest to reinforcement learning. Observations are simulated here, character for
character as the sandbox would answer (a test compares the two), because warm start needs tens of thousands of episodes.
"""

import random
from collections.abc import Iterator

from aem_swe.tasks.demo import TEST_COMMAND, DemoProblem, evaluate

_THOUGHTS = {
    "search": ("find it", "where is it", "look for it"),
    "view": ("open it", "read the file", "see the code"),
    "edit": ("fix it", "this is wrong", "change the line", "repair it"),
    "test": ("check", "run the tests", "verify"),
    "finish": ("done", "all good", "submit"),
}
Steps = Iterator[tuple[str, str]]
"""(response text, observation); the observation of the last step is empty."""


def call(tool: str, **parameters: str) -> str:
    """Write an XML call as the scaffold's parser reads it."""
    return (
        f"<function={tool}>" + "".join(f"<parameter={k}>{v}</parameter>" for k, v in parameters.items()) + "</function>"
    )


class _Project:
    """The files of one task in memory, with the observations that the demo scaffold's tools give on them."""

    def __init__(self, problem: DemoProblem) -> None:
        self.problem = problem
        self.files = problem.files()

    def search(self, term: str) -> str:
        rows = [
            f"{name}:{number}:{line}"
            for name in sorted(self.files)
            for number, line in enumerate(self.files[name].splitlines(), 1)
            if term in line
        ]
        return "\n".join(rows) or "No match"

    def view(self, name: str) -> str:
        return self.files[name].rstrip("\n")

    def replace(self, name: str, old: str, new: str) -> str:
        count = self.files[name].count(old)
        if count != 1:
            return f"ERROR: {'no match' if count == 0 else f'{count} matches'} for old_str in {name}"
        self.files[name] = self.files[name].replace(old, new)
        return f"The file {name} was edited."

    def test(self) -> str:
        failed = []
        for function in self.problem.functions:
            lines = self.files[f"{function.module}.py"].splitlines()
            position = next(i for i, line in enumerate(lines) if line.startswith(f"def {function.name}("))
            expression = lines[position + 1].removeprefix("    return ")
            variant = function.variant
            expected = evaluate(variant.good, variant.arguments, variant.cases[0])
            got = evaluate(expression, variant.arguments, variant.cases[0])
            if got != expected:
                failed.append(f"{function.name} {got if got == 'TypeError' else 'AssertionError'}")
        return f"{len(failed)} failed {failed[0]}" if failed else f"{len(self.problem.functions)} passed"


class _Demonstrator:
    """Plays one episode. Every choice comes from `stream`."""

    def __init__(self, problem: DemoProblem, stream: random.Random, noise: float) -> None:
        self.problem, self.stream, self.noise = problem, stream, noise
        self.project = _Project(problem)
        self.file = f"{problem.target.module}.py"
        self.current = f"return {problem.bug}"
        self.edits = 0

    def chance(self, probability: float) -> bool:
        return self.stream.random() < probability

    def _say(self, kind: str, action: str) -> str:
        return f"{self.stream.choice(_THOUGHTS[kind])}\n{action}"

    def search(self) -> tuple[str, str]:
        name = self.problem.target.name
        return self._say("search", call("search", search_term=name)), self.project.search(name)

    def view(self) -> tuple[str, str]:
        return self._say("view", call("file_editor", command="view", path=self.file)), self.project.view(self.file)

    def test(self) -> tuple[str, str]:
        return self._say("test", call("execute_bash", cmd=TEST_COMMAND)), self.project.test()

    def edit(self) -> tuple[str, str]:
        old, new = self._choose_edit()
        self.edits += 1
        action = call("file_editor", command="str_replace", path=self.file, old_str=old, new_str=new)
        observation = self.project.replace(self.file, old, new)
        if old == self.current and not observation.startswith("ERROR"):
            self.current = new
        return self._say("edit", action), observation

    def _choose_edit(self) -> tuple[str, str]:
        variant = self.problem.target.variant
        good = f"return {variant.good}"
        if not self.chance(self.noise if self.edits == 0 else 0.7 * self.noise):
            return self.current, good
        kind = self.stream.random()
        if kind < 0.75:
            return self.current, self.stream.choice(
                [f"return {b}" for b in variant.bugs if f"return {b}" != self.current]
            )
        if kind < 0.9:
            others = [
                f for f in self.problem.functions if f.module == self.problem.target.module and f != self.problem.target
            ]
            return f"return {others[0].variant.good}", f"return {self.stream.choice(others[0].variant.bugs)}"
        return good, good  # text that is not in the file, unless it is right already


def demonstrate(problem: DemoProblem, stream: random.Random, *, noise: float) -> Steps:
    """Play one episode: search, view, maybe test, edit, maybe test, edit again after a failure, finish."""
    expert = _Demonstrator(problem, stream, noise)
    if expert.chance(0.85):
        yield expert.search()
        if expert.chance(0.1):
            yield expert.test()
    yield expert.view()
    if expert.chance(0.15):
        yield expert.test()
    while True:
        yield expert.edit()
        if not expert.chance(0.6):
            break
        text, observation = expert.test()
        yield text, observation
        if "failed" not in observation or expert.edits >= 3 or expert.chance(0.5):
            break
        if expert.chance(0.3):
            yield expert.view()
    yield expert._say("finish", call("finish", command="submit")), ""
