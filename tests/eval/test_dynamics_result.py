"""Result files of verify dynamics: judged again; refused where they contradict themselves or what was registered."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ablations_scene import three_policies
from dynamics_scene import confirmation, write

from aem_swe.errors import ConfigError
from aem_swe.eval.dynamics_result import read_result, to_text

Json = dict[str, Any]  # JSON values


@pytest.fixture(scope="module")
def confirmed() -> Json:
    return confirmation()


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_result(path, "--results")
    said = str(caught.value)
    assert said.startswith(f"--results {str(path)!r} is no result of `aem-swe verify dynamics` (") and "\n" not in said
    return said


def test_a_file_gives_the_same_file_again(confirmed: Json, tmp_path: Path) -> None:
    for result in (confirmed, three_policies()):
        path = tmp_path / "d.json"
        path.write_text(to_text(result))
        assert to_text(read_result(path)) == path.read_text()


def test_what_a_file_says_of_its_verdicts_is_not_believed(tmp_path: Path) -> None:
    result = three_policies()
    claims = [{**one, "verdict": "confirmed", "n": 5, "figure": "+1"} for one in result["claims"]]
    found = read_result(write(tmp_path / "d.json", result, claims=claims))
    assert found["claims"] == result["claims"] != claims


def test_a_file_of_before_the_commit_was_recorded_has_none(tmp_path: Path) -> None:
    data = json.loads(to_text(three_policies()))
    del data["commit"]
    (tmp_path / "d.json").write_text(json.dumps(data))
    assert read_result(tmp_path / "d.json")["commit"] is None


def _twice(data: Json) -> None:
    data["batches"].append(dict(data["batches"][0]))


def _of_another(data: Json) -> None:
    data["batches"][1]["policy"] = "seed_9"


def _one_seed(data: Json) -> None:
    data["policies"][1]["seed"] = data["policies"][0]["seed"]


def _one_name(data: Json) -> None:
    data["policies"][1]["name"] = data["policies"][0]["name"]


def _no_regime(data: Json) -> None:
    data["batches"][0]["regime"] = "middle"


def _word(data: Json) -> None:
    data["confirmatory"] = "false"


def _nan(data: Json) -> None:
    data["batches"][0]["change"]["aem_1"] = float("nan")


def _infinite(data: Json) -> None:
    data["batches"][0]["permuted"]["aem_1"] = float("-inf")


def _unlike(data: Json) -> None:
    for of_rules in ("change", "permuted", "permuted_deviation", "weight_token_mean"):
        del data["batches"][1][of_rules]["sum"]


def _no_largest_lambda(data: Json) -> None:
    for row in data["batches"]:
        for of_rules in ("change", "permuted", "permuted_deviation", "weight_token_mean"):
            del row[of_rules]["aem_2"]


def _escape(data: Json) -> None:
    data["command"] = "aem-swe \x1b[2J"


def _fence(data: Json) -> None:
    data["date"] = "```"


def _no_commit(data: Json) -> None:
    data["commit"] = "main | x"


def _below(data: Json) -> None:
    data["batches"][0]["positive"] = -50


def _no_lambda(data: Json) -> None:
    data["setting"] = {}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (_unlike, "has another set of rules ('sum')"),
        (_no_largest_lambda, "rule 'aem_2' of its setting was not measured"),
        (_escape, "command is 'aem-swe \\x1b[2J'"),
        (_fence, "date is '```'"),
        (_no_commit, "commit is 'main | x'"),
        (_below, "has a count or a deviation below 0"),
        (_twice, "batch 0 of seed_0, early, is there twice"),
        (_of_another, "policy 'seed_9', which is not among the policies"),
        (_one_seed, "two policies have the seed 0"),
        (_one_name, "two policies have the name 'seed_0'"),
        (_no_regime, "a batch has the regime 'middle'"),
        (_word, "confirmatory is 'false', neither true nor false"),
        (_nan, "NaN is no number"),
        (_infinite, "-Infinity is no number"),
        (_no_lambda, "'lam' is missing"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, edit: Callable[[Json], None], said: str) -> None:
    data = json.loads(to_text(three_policies()))
    edit(data)
    (tmp_path / "d.json").write_text(json.dumps(data))
    assert said in refused(tmp_path / "d.json")


def test_a_confirmation_is_of_what_was_registered_and_of_all_of_it(confirmed: Json, tmp_path: Path) -> None:
    path, setting, rows = tmp_path / "d.json", confirmed["setting"], confirmed["batches"]
    other = {**setting, "lam": 2.0}
    assert "(it is no confirmation: lam is 2.0, registered is 1.0);" in refused(write(path, confirmed, setting=other))
    less = {key: value for key, value in setting.items() if key != "checked_batches"}
    assert "the setting lacks 'checked_batches'" in refused(write(path, confirmed, setting=less))
    four = confirmed["policies"][1:]
    named = [row for row in rows if row["policy"] != "seed_100"]
    assert "seeds are [101, 102, 103, 104]" in refused(write(path, confirmed, policies=four, batches=named))
    assert f"seed_100, early, has 0 of {setting['batches']} batches" in refused(write(path, confirmed, batches=named))
    assert "seed_100, early, has 31 of 32 batches" in refused(write(path, confirmed, batches=rows[1:]))
    explored = read_result(write(path, confirmed, setting=other, batches=rows[1:], confirmatory=False))
    assert explored["claims"][0]["verdict"] == "undecided (exploratory; would be confirmed)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"batches": 1e400}', "1e400 is no number"),
        ('{"batches": ' + "9" * 400 + "}", "is no number"),
        ("5", "not subscriptable"),
    ],
)
def test_json_of_other_things_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "d.json").write_text(text)
    assert said in refused(tmp_path / "d.json")
