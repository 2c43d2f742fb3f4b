"""eval/training.yaml: what it holds, and every mistake in such a file in one line."""

from pathlib import Path
from typing import Any

import pytest
from training_scene import PLAN, make_plan, write_plan

from aem_swe.errors import ConfigError
from aem_swe.eval.training_plan import read_plan


def test_the_shipped_plan_pairs_each_algorithm_with_its_recipe_one_line_apart() -> None:
    plan = read_plan(None)
    assert len(plan.seeds) >= 5
    pairs = [one for name, one in plan.contrasts.items() if name.startswith("aem_")]
    assert len(pairs) == 4
    for one in pairs:
        with_aem, without = (plan.recipe(arm, 1, Path("runs")) for arm in (one.arm, one.against))
        assert with_aem.aem.enabled and not without.aem.enabled
        same = {"recipe", "run_dir", "aem"}
        assert with_aem.model_dump(exclude=same) == without.model_dump(exclude=same)
    filters = [plan.recipe(f"tight_{name}", 1, Path("x")).algorithm.filter for name in ("off", "mask", "drop")]
    assert filters == ["off", "mask", "drop"]
    assert [plan.recipe(f"demo_{name}", 1, Path("x")).aem.analysis for name in ("rise", "fall")] == ["rise", "fall"]
    strengths = [plan.recipe(f"lambda_{name}", 1, Path("x")).aem.lam for name in ("half", "2", "4")]
    assert strengths == [0.5, 2.0, 4.0]
    assert plan.family() == {"held_out": 9, "reward": 6, "truncation": 2, "entropy": 5}


def test_a_run_is_its_arm_its_seed_and_its_folder(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    assert plan.words("drop", 3, Path("o")) == [
        "demo", "trainer.steps=16", "trainer.eval_every=16", "algorithm.filter=drop", "seed=3", "run_dir=o/drop_seed3",
    ]  # fmt: skip
    recipe = plan.recipe("drop", 3, Path("o"))
    assert (recipe.seed, recipe.algorithm.filter, recipe.trainer.steps) == (3, "drop", 16)


def test_restricted_keeps_the_contrasts_among_the_arms_and_the_family_stays_the_whole_plans(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    some = plan.restricted(["aem", "plain"], [7])
    assert (list(some.arms), list(some.contrasts), some.seeds) == (["plain", "aem"], ["aem_plain"], (7,))
    assert plan.family() == {"held_out": 2, "reward": 1, "entropy": 1, "truncation": 1}
    assert plan.restricted([], []) == plan
    with pytest.raises(ConfigError, match=r"--only 'drip' is no arm; did you mean 'drop'\?"):
        plan.restricted(["drip"], [])
    with pytest.raises(ConfigError, match="--seed: 2 is given twice"):
        plan.restricted([], [2, 1, 2])


ARMS, CONTRASTS = PLAN["arms"], PLAN["contrasts"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [1]}, r"seeds \[1\] give no spread between runs; give at least 2"),
        ({"seeds": [1, 2, 1]}, "seeds: 1 is given twice"),
        ({"seeds": [1, "two"]}, r"seeds.1 'two' is not usable"),
        ({"seeds": [1, -2]}, r"seeds.1 -2 is not usable"),
        ({"seeds": []}, "seeds .* is not usable"),
        ({"arms": {}}, "arms .* is not usable"),
        ({"arms": {**ARMS, "x": []}}, "arms.x .* is not usable"),
        ({"arms": {**ARMS, "x": ["demos"]}}, r"arm 'x': recipe 'demos' is unknown; did you mean 'demo'\?"),
        ({"arms": {**ARMS, "x": ["demo", "trainer.stepz=1"]}}, "arm 'x': key 'trainer.stepz' is unknown"),
        ({"arms": {**ARMS, "x": ["demo", "aem.analysis=rise"]}}, "arm 'x': .*add aem.enabled=true"),
        ({"arms": {**ARMS, "x": ["demo", "seed=3"]}}, "override 'seed=3' is set for every run by the command"),
        ({"overrides": ["run_dir=x"]}, "override 'run_dir=x' is set for every run by the command"),
        ({"arms": {**ARMS, "../x": ["demo"]}}, r"arms.*\.\./x.* is not usable"),
        (
            {"contrasts": {"c": {"arm": "aen", "against": "plain", "of": ["reward"]}}},
            "names arm 'aen', which is unknown",
        ),
        ({"contrasts": {"c": {"arm": "aem", "against": "aem", "of": ["reward"]}}}, "sets arm 'aem' against itself"),
        ({"contrasts": {"c": {"arm": "aem", "against": "plain", "of": ["luck"]}}}, r"contrasts.c.of.0 'luck' is not"),
        ({"contrasts": {"c": {"arm": "aem", "against": "plain", "of": ["reward"] * 2}}}, "'c' has reward of .* twice;"),
        (
            {"contrasts": {**CONTRASTS, "z": CONTRASTS["aem_plain"]}},
            "'z' has held_out of .* after 'aem_plain'; list it",
        ),
        ({"contrasts": {"c": 5}}, "contrasts.c 5 is not usable: it is a section$"),
        ({"arms": {**ARMS, "x" * 101: ["demo"]}}, "at most 100 characters"),
        ({"contrasts": {"c": {"arm": "aem", "against": "plain", "of": []}}}, r"contrasts.c.of .* is not usable"),
        ({"contrasts": {"c": {**CONTRASTS["aem_plain"], "paper": "up"}}}, r"contrasts.c.paper 'up' is not usable"),
        ({"armz": 1}, "key 'armz' is unknown; did you mean 'arms'"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_plan(tmp_path / "plan.yaml", **changes)
    with pytest.raises(ConfigError, match=message) as caught:
        read_plan(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["seeds: [1", "- 1", ""])
def test_what_is_no_plan_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_plan(tmp_path / "plan.yaml")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_plan(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["oh #1", "${oc.env:HOME}", "a: b", "{", "'quoted'"])
def test_a_folder_that_yaml_reads_as_something_else_is_refused(tmp_path: Path, name: str) -> None:
    plan = make_plan(tmp_path)
    with pytest.raises(ConfigError) as caught:
        plan.require_plain(Path(name))
    assert str(caught.value) == f"--out {name!r} cannot be a run_dir; choose a plainer name"


@pytest.mark.parametrize("name", ["runs/training", "/tmp/a b", "1", "null", "."])
def test_a_plain_folder_is_none(tmp_path: Path, name: str) -> None:
    plan = make_plan(tmp_path)
    plan.require_plain(Path(name))
    assert plan.recipe("aem", 1, Path(name)).run_dir == str(Path(name) / "aem_seed1")
