"""Demo problems: pure functions of (split, seed), apart between the splits, and right about their own bug and fix."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from aem_swe.errors import TaskError
from aem_swe.tasks.demo import DemoProblem, Split, make_problem
from aem_swe.tasks.demo_families import FAMILIES
from aem_swe.tasks.demo_runner import encode

MANY = 2000


@pytest.fixture(scope="module")
def problems() -> dict[Split, list[DemoProblem]]:
    return {split: [make_problem(split, seed) for seed in range(MANY)] for split in ("train", "test")}  # type: ignore[misc]  # the two literals


def signature(problem: DemoProblem) -> tuple[str, str, str]:
    return problem.target.variant.spec, problem.target.variant.good, problem.bug


def outcomes(problem: DemoProblem, files: dict[str, str]) -> tuple[str, ...]:
    """Run the sources themselves on every case, by another way than the package does."""
    modules: dict[str, dict[str, object]] = {name.removesuffix(".py"): {} for name in files}
    for name, source in files.items():
        exec(source, modules[name.removesuffix(".py")])
    found = []
    for function in problem.functions:
        for case in function.variant.cases:
            code = modules[function.module][function.name]
            try:
                found.append(encode(code(*case)))  # type: ignore[operator]  # a function that exec defined
            except Exception as error:
                found.append(f"raised {type(error).__name__}")
    return tuple(found)


def fixed(problem: DemoProblem) -> dict[str, str]:
    files = problem.files()
    name = f"{problem.target.module}.py"
    files[name] = files[name].replace(f"return {problem.bug}\n", f"return {problem.target.variant.good}\n")
    return files


def test_a_problem_is_a_function_of_split_and_seed_in_every_process(problems: dict[Split, list[DemoProblem]]) -> None:
    program = (
        "from aem_swe.tasks.demo import make_problem\n"
        "print([make_problem(split, seed) for split in ('train', 'test') for seed in range(20)])"
    )
    path = {"PYTHONPATH": str(Path(__file__).parents[2])}
    for hash_seed in ("1", "2"):
        environment = {**os.environ, **path, "PYTHONHASHSEED": hash_seed}
        printed = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)
        assert printed.stdout.decode().strip() == repr(problems["train"][:20] + problems["test"][:20])


def test_the_splits_never_share_a_signature(problems: dict[Split, list[DemoProblem]]) -> None:
    train, test = ({signature(problem) for problem in problems[split]} for split in ("train", "test"))
    assert not train & test
    assert len(train) > 1000
    assert len(test) > 200


def test_ids_are_unique_and_name_the_split(problems: dict[Split, list[DemoProblem]]) -> None:
    ids = [problem.id for both in problems.values() for problem in both]
    assert len(set(ids)) == 2 * MANY
    assert problems["test"][7].id == problems["test"][7].task().id == "demo-test-7"


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_family_occurs(problems: dict[Split, list[DemoProblem]], split: Split) -> None:
    assert {problem.target.variant.family for problem in problems[split]} == set(FAMILIES)


def test_the_bug_fails_its_own_cases_and_the_fix_passes_them_all(problems: dict[Split, list[DemoProblem]]) -> None:
    for problem in problems["train"][:400] + problems["test"][:400]:
        calls, expected = problem.grader().calls, problem.grader().expected
        assert outcomes(problem, fixed(problem)) == expected, problem.id
        broken = outcomes(problem, problem.files())
        wrong = [call for call, got, wanted in zip(calls, broken, expected, strict=True) if got != wanted]
        assert wrong, problem.id
        assert {name for _, name, _ in wrong} == {problem.target.name}, problem.id


def test_the_buggy_line_occurs_once_so_that_it_can_be_replaced(problems: dict[Split, list[DemoProblem]]) -> None:
    for problem in problems["train"] + problems["test"]:
        assert problem.files()[f"{problem.target.module}.py"].count(f"return {problem.bug}") == 1, problem.id


def test_file_names_do_not_hide_the_standard_library(problems: dict[Split, list[DemoProblem]]) -> None:
    modules = {function.module for problem in problems["train"] for function in problem.functions}
    assert not modules & sys.stdlib_module_names


def test_a_task_holds_the_issue_the_files_and_a_case_of_each_function(problems: dict[Split, list[DemoProblem]]) -> None:
    for problem in problems["train"][:200]:
        task = problem.task()
        files = {name: content.decode() for name, content in task.files}
        assert task.text == f"{problem.target.name} should {problem.target.variant.spec}"
        assert {name: files[name] for name in problem.files()} == problem.files()
        rows = [line for line in files.pop("run_tests.sh").splitlines() if line.startswith("    (")]
        assert [eval(row.rstrip(","))[:3] for row in rows] == [
            (function.module, function.name, function.variant.cases[0]) for function in problem.functions
        ]
        assert len(files) == 2


def test_tasks_and_graders_pickle_and_the_task_does_not_carry_the_grader() -> None:
    problem = make_problem("train", 5)
    assert pickle.loads(pickle.dumps(problem.task())) == problem.task()
    assert pickle.loads(pickle.dumps(problem.grader())) == problem.grader()
    assert b"Grader" not in pickle.dumps(problem.task())


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(TaskError, match=r"demo split 'dev' is unknown; choose one of \['test', 'train'\]"):
        make_problem("dev", 0)  # type: ignore[arg-type]  # that is the point


# --- encodings: equal exactly if type and value are


class AlwaysEqual:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]  # as Python does for such classes


class Number(int):
    def __repr__(self) -> str:
        return "5"


class Text(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


class Sly(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]  # a liar about its name
        return "int 5"


class Liar(metaclass=Sly):
    pass


DIFFERENT = [
    *(0, 1, 5, -5, False, True, 0.0, -0.0, 1.0, 5.0, float("inf"), None, "", "1", "5", "None", "a", b"", b"1", b"a"),
    *([], (), {}, [1], (1,), [True], [1.0], [[1]], [(1,)], [1, 2], ["1, 2"], ["1", "2"], [1, [2]]),
    *({1: 2}, {"1": 2}, {2: 1}, {1: 2, 3: 4}, [None], ["a,b"], ["a", "b"], ["int 1"], "int 1", [""], [[]]),
]


def test_values_have_the_same_encoding_only_if_type_and_value_are_the_same() -> None:
    codes = [encode(value) for value in DIFFERENT]
    assert len(set(codes)) == len(DIFFERENT)
    assert [encode(pickle.loads(pickle.dumps(value))) for value in DIFFERENT] == codes


LIARS = [AlwaysEqual(), Number(5), Text("5"), Liar(), [Number(5)], (Text("5"),), {1: AlwaysEqual()}, Number, len]


@pytest.mark.parametrize("liar", LIARS)
def test_objects_that_claim_to_be_right_have_the_encoding_of_nothing(liar: object) -> None:
    assert "object of type" in encode(liar)
    assert encode(liar) not in {encode(value) for value in DIFFERENT}


def test_encodings_end_for_values_that_do_not() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert encode(endless) == "list[" * 5 + "too deep" + "]" * 5
    assert len(encode("x" * 10**6)) <= 10_000
    assert len(encode(["x" * 10**6] * 3)) <= 10_000
