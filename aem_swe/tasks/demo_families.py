"""The families of the demo tasks: what a function should do, the expression that does it, three that do not."""

import random
from dataclasses import dataclass

Value = int | bool | str | list[int] | list[str]


@dataclass(frozen=True, slots=True)
class Variant:
    """One concrete function: `spec` completes "NAME should ...", `cases` are argument tuples that tell good from
    bad."""

    family: str
    spec: str
    arguments: tuple[str, ...]
    good: str
    bugs: tuple[str, ...]
    cases: tuple[tuple[Value, ...], ...]


_NUMBERS, _LETTERS = list(range(12)), list("abcdefghijklm")
_PAIRS = "1,5 7,3"
_TIES = "1,5 7,3 4,4"

# family: (spec, good, bugs, cases). A, B are variable names, K and J two different digits. One argument, or two if the
# good expression uses B.
_FAMILIES: dict[str, tuple[str, str, tuple[str, str, str], str]] = {
    "add_k": ("add K to A", "A + K", ("A - K", "A * K", "A + J"), "1 5 11"),
    "sub_k": ("subtract K from A", "A - K", ("A + K", "K - A", "A - J"), "1 5 12"),
    "mul_k": ("multiply A by K", "A * K", ("A + K", "A // K", "A * J"), "1 5 11"),
    "mod_k": ("give the remainder of A by K", "A % K", ("A // K", "A * K", "A % J"), "13 29 100 37"),
    "div_k": ("divide A by K rounding down", "A // K", ("A % K", "A * K", "A // J"), "13 97 300"),
    "add": ("add A and B", "A + B", ("A - B", "A * B", "A + A"), _PAIRS),
    "sub": ("subtract B from A", "A - B", ("B - A", "A + B", "A - A"), _PAIRS),
    "mul": ("multiply A and B", "A * B", ("A + B", "A - B", "A * A"), _PAIRS),
    "larger": ("give the larger of A and B", "max(A, B)", ("min(A, B)", "max(A, A)", "sum(A, B)"), _PAIRS),
    "smaller": ("give the smaller of A and B", "min(A, B)", ("max(A, B)", "min(A, A)", "len(A, B)"), _PAIRS),
    "distance": ("give the distance of A and B", "abs(A - B)", ("abs(A + B)", "A - B", "abs(A * B)"), _PAIRS),
    "below": ("tell if A is below B", "A < B", ("A > B", "A <= B", "B < A"), _TIES),
    "at_least": ("tell if A is at least B", "A >= B", ("A > B", "A <= B", "A < B"), _TIES),
    "first_k": ("give the first K items of A", "A[:K]", ("A[K:]", "A[:J]", "A[:-K]"), "numbers letters"),
    "drop_k": ("drop the first K items of A", "A[K:]", ("A[:K]", "A[J:]", "A[-K:]"), "numbers letters"),
    "last_k": ("give the last K items of A", "A[-K:]", ("A[K:]", "A[-J:]", "A[:-K]"), "numbers letters"),
    "count_up": (
        "list the numbers from 1 to A",
        "list(range(1, A + 1))",
        ("list(range(1, A))", "list(range(A + 1))", "list(range(1, A - 1))"),
        "3 6",
    ),
    "size": ("give the number of items of A", "len(A)", ("max(A)", "sum(A)", "len(A) - 1"), "4.4.9 1.8.2.9"),
    "total": ("give the sum of A", "sum(A)", ("len(A)", "max(A)", "sum(A[1:])"), "4.4.9 1.8.2.9"),
    "top": ("give the largest item of A", "max(A)", ("min(A)", "sum(A)", "max(A[1:])"), "9.4.4 8.1.2"),
    "repeat": ("repeat A K times", "[A] * K", ("[A] * J", "A * K", "[A] + K"), "3 6"),
    "both": ("tell if A and B are true", "A and B", ("A or B", "not B", "A and not B"), "T,F T,T F,F"),
    "either": ("tell if A or B is true", "A or B", ("A and B", "not A", "not A or B"), "T,F T,T F,F"),
    "limit": ("limit A to B at most", "min(A, B)", ("max(A, B)", "A", "B"), _PAIRS),
}
FAMILIES = tuple(_FAMILIES)
_VARIABLES = ["a", "b", "c", "d", "n", "m", "p", "q", "r", "s", "t", "u", "v", "w", "x", "y", "z"]


def _value(text: str) -> Value:
    """Read one argument of a case: numbers, letters, T or F, 4.4.9 for a list, else a number."""
    named: dict[str, Value] = {"numbers": _NUMBERS, "letters": _LETTERS, "T": True, "F": False}
    if text in named:
        return named[text]
    return [int(item) for item in text.split(".")] if "." in text else int(text)


def draw_variant(stream: random.Random) -> Variant:
    """Draw a family, two variable names and two digits."""
    family = stream.choice(FAMILIES)
    spec, good, bugs, cases = _FAMILIES[family]
    first, second = stream.sample(_VARIABLES, 2)
    k = stream.randint(2, 9)
    j = stream.choice([digit for digit in range(2, 10) if digit != k])
    table = str.maketrans({"A": first, "B": second, "K": str(k), "J": str(j)})
    return Variant(
        family=family,
        spec=spec.translate(table),
        arguments=(first, second) if "B" in good else (first,),
        good=good.translate(table),
        bugs=(bugs[0].translate(table), bugs[1].translate(table), bugs[2].translate(table)),
        cases=tuple(tuple(_value(item) for item in case.split(",")) for case in cases.split()),
    )
