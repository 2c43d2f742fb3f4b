"""Recipes: every key, every mistake, and the way there and back."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aem_swe.config import KEYS, dump_recipe, load_recipe, validate_recipe
from aem_swe.errors import ConfigError
from aem_swe.resources import names, resource
from aem_swe.schema import Recipe

RECIPES = names("configs", ".yaml")


def complaint(*overrides: str, recipe: str = "demo") -> str:
    with pytest.raises(ConfigError) as raised:
        load_recipe(recipe, overrides)
    message = str(raised.value)
    assert "\n" not in message
    return message


def write(folder: Path, text: str | bytes) -> str:
    path = folder / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{dotted key: value}"""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return flat


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_loads_and_has_at_most_sixty_keys(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.run_dir == f"runs/{name}"
    assert len(leaves(yaml.safe_load(resource("configs", f"{name}.yaml").read_text()))) <= 60


@pytest.mark.parametrize("name", RECIPES)
def test_the_first_lines_of_a_recipe_say_what_it_is_what_it_needs_how_long_and_the_command(name: str) -> None:
    text = resource("configs", f"{name}.yaml").read_text()
    head = text[: re.search(r"^[^#]", text, re.MULTILINE).start()]  # type: ignore[union-attr]  # a recipe has keys
    assert f"aem-swe train {name}" in head
    assert "Needs" in head
    assert re.search(r"Takes|minutes|hours|days", head)
    assert 3 <= head.count("\n") <= 12


def test_keys_are_the_leaves_of_the_whole_recipe() -> None:
    assert set(KEYS) == leaves(Recipe().model_dump(by_alias=True)).keys()
    assert "aem.lambda" in KEYS
    assert len(KEYS) == len(set(KEYS))


@pytest.mark.parametrize("key", KEYS)
def test_every_key_can_be_given_on_the_command_line(key: str) -> None:
    value = leaves(load_recipe("demo").model_dump(by_alias=True))[key]
    override = yaml.safe_dump([value], default_flow_style=True, width=1000).strip()[1:-1]
    loaded = load_recipe("demo", [f"{key}={override}"])
    assert leaves(loaded.model_dump(by_alias=True))[key] == value


def test_overrides_replace_the_recipe_and_the_last_one_counts() -> None:
    recipe = load_recipe("demo_aem", ["trainer.steps=3", "seed=7", "aem.lambda=2.5", "seed=8", "run_dir=runs/x"])
    assert (recipe.trainer.steps, recipe.seed, recipe.aem.lam, recipe.run_dir) == (3, 8, 2.5, "runs/x")
    assert recipe.aem.enabled
    assert recipe.sampling == load_recipe("demo").sampling


def test_a_path_is_a_recipe_and_names_the_run(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "trainer: {steps: 4}"))
    assert recipe.trainer.steps == 4
    assert recipe.run_dir == "runs/mine"
    assert recipe.recipe == "mine"
    assert recipe.model_copy(update={"run_dir": "", "recipe": ""}) == Recipe.model_validate({"trainer": {"steps": 4}})


@pytest.mark.parametrize(("recipe", "suggestion"), [("dmo", "demo"), ("demo-aem", "demo_aem"), ("demo.yaml", "demo")])
def test_an_unknown_recipe_gets_a_suggestion(recipe: str, suggestion: str) -> None:
    assert complaint(recipe=recipe) == f"recipe {recipe!r} is unknown; did you mean {suggestion!r}?"


@pytest.mark.parametrize("recipe", ["zzz", "", "/etc", "x" * 5000, "\0"])
def test_a_recipe_like_no_other_gets_the_list(recipe: str) -> None:
    assert f"choose one of {RECIPES}" in complaint(recipe=recipe)


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("aem.lamda=2", "aem.lambda"),
        ("lambda=2", "aem.lambda"),
        ("aem.lam=2", "aem.lambda"),
        ("trainer.step=2", "trainer.steps"),
        ("sampling.rolouts=4", "sampling.rollouts"),
        ("Seed=2", "seed"),
    ],
)
def test_an_unknown_key_gets_a_suggestion(override: str, suggestion: str) -> None:
    assert complaint(override) == f"key {override.partition('=')[0]!r} is unknown; did you mean {suggestion!r}?"


def test_a_key_like_no_other_gets_the_sections() -> None:
    assert complaint("zzzz=1") == f"key 'zzzz' is unknown; known are {', '.join(Recipe.model_fields)}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("aem.lambda=-1", "aem.lambda -1 is not usable: input should be greater than or equal to 0"),
        ("aem.lambda=.nan", "aem.lambda nan is not usable: input should be a finite number"),
        ("aem.lambda=nan", "aem.lambda 'nan' is not usable: input should be a valid number"),
        ("optimizer.lr=.inf", "optimizer.lr inf is not usable: input should be a finite number"),
        ("optimizer.lr=1e999", "optimizer.lr inf is not usable: input should be a finite number"),
        ("optimizer.lr=0", "optimizer.lr 0 is not usable: input should be greater than 0"),
        ("optimizer.lr=abc", "optimizer.lr 'abc' is not usable: input should be a valid number"),
        ("optimizer.beta1=1", "optimizer.beta1 1 is not usable: input should be less than 1"),
        ("trainer.steps=0", "trainer.steps 0 is not usable: input should be greater than or equal to 1"),
        ("trainer.steps=2.5", "trainer.steps 2.5 is not usable: input should be a valid integer"),
        ("trainer.steps=true", "trainer.steps True is not usable: input should be a valid integer"),
        ("trainer.steps=", "trainer.steps None is not usable: input should be a valid integer"),
        ("aem.enabled=perhaps", "aem.enabled 'perhaps' is not usable: input should be a valid boolean"),
        ("aem.analysis=rise", "aem.analysis rise chooses responses by AEM's alpha; add aem.enabled=true"),
        ("aem.group=some", "aem.group 'some' is not usable: input should be 'trained' or 'all'"),
        ("algorithm.filter=on", "algorithm.filter"),
        (
            "sandbox.kind=podmann",
            "sandbox.kind 'podmann' is not usable: input should be 'local', 'docker', 'rllm' or 'r2egym'",
        ),
        ("model=big", "model is a section and cannot be 'big'; set one of its keys, for example model.path=..."),
        ("seed=-1", "seed -1 is not usable: input should be greater than or equal to 0"),
        ("sampling.rollouts=1", "sampling.rollouts 1 leaves leave_one_out without a baseline; use 2 or more"),
        ("sampling.cohorts=5", "sampling.cohorts 5 does not divide prompts x rollouts = 32; choose a divisor"),
        ("trainer.minibatches=3", "trainer.minibatches 3 does not divide sampling.prompts 4; choose a divisor"),
        ("data.pool=3", "sampling.prompts 4 is more than data.pool 3; raise data.pool"),
        (
            "sampling.max_rounds=2",
            "sampling.max_rounds 2 needs sampling.drop_uniform_groups=true; give both, or neither",
        ),
        ("agent.history=strip_thinking", "makes no growing row; use algorithm.layout=turn"),
        ("algorithm.overlong_buffer=99999", r"overlong_buffer 99999 is more than agent\.response_budget \d+; use less"),
        ("trainer.steps", "override 'trainer.steps' has no value; write key=value, for example trainer.steps=3"),
        ("seed=???", "override seed=??? has no value; leave it out, or give one"),
        ("model.path='???'", "override model.path=??? has no value"),
        ("cluster.logger=['???']", "override cluster.logger=??? has no value"),
        ("seed=${nope}", r"overrides \['seed=\$\{nope\}'\] cannot be read \(Interpolation key 'nope' not found"),
        ("seed=[1", r"overrides \['seed=\[1'\] cannot be read \(.*line 1"),
        ("trainer=[1]", r"overrides \['trainer=\[1\]'\] cannot be read"),
    ],
)
def test_a_wrong_value_is_one_line_with_key_value_and_what_would_do(override: str, message: str) -> None:
    said = complaint(override)
    assert said.startswith(message) or re.search(message, said)


@pytest.mark.parametrize(
    "values", [{"run_dir": "\ud800"}, {"model": {"path": "a\udfffb"}}, {"cluster": {"logger": ["\udc80"]}}]
)
def test_half_a_character_is_refused_wherever_it_stands(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"holds half a character \(a lone surrogate\)") as raised:
        validate_recipe(values)
    assert str(raised.value).isascii() and "\n" not in str(raised.value)


def test_half_a_character_in_a_file_is_one_line(tmp_path: Path) -> None:
    complaint(recipe=write(tmp_path, 'run_dir: "\\ud800"'))  # by one of YAML's readers, else by ours


def test_rounds_that_would_play_a_task_twice_are_refused() -> None:
    said = complaint("sampling.drop_uniform_groups=true", "sampling.max_rounds=5")
    assert said.startswith("sampling.prompts 4 x max_rounds 5 = 20 is more than data.pool 16; raise data.pool, or use")


@pytest.mark.parametrize("name", ["demo", "demo_grpo", "demo_dapo", "demo_gspo"])
def test_with_and_without_aem_is_one_line(name: str) -> None:
    one, other = (resource("configs", f"{file}.yaml").read_text().splitlines() for file in (name, f"{name}_aem"))
    differing = [pair for pair in zip(one, other, strict=True) if pair[0] != pair[1]]
    assert differing == [("  enabled: false", "  enabled: true")]
    plain, aem = load_recipe(name, ["run_dir=x"]), load_recipe(f"{name}_aem", ["run_dir=x"])
    assert (plain.aem.enabled, aem.aem.enabled) == (False, True)
    assert aem == plain.model_copy(update={"aem": aem.aem, "recipe": aem.recipe})


@pytest.mark.parametrize(
    ("name", "differing"),
    [
        ("demo_grpo", {"advantage", "clip_high", "aggregation", "kl_coefficient"}),
        ("demo_dapo", {"advantage", "aggregation", "overlong_buffer", "drop_uniform_groups", "max_rounds"}),
        ("demo_gspo", {"advantage", "loss", "clip_low", "clip_high", "aggregation"}),
    ],
)
def test_the_other_algorithms_are_the_demo_but_for_the_algorithm(name: str, differing: set[str]) -> None:
    demo, other = (leaves(load_recipe(file, ["run_dir=x"]).model_dump(by_alias=True)) for file in ("demo", name))
    changed = {key for key in demo if demo[key] != other[key]} - {"recipe"}
    assert {key.rpartition(".")[2] for key in changed} == differing
    assert {key.partition(".")[0] for key in changed} <= {"algorithm", "sampling"}


def test_a_group_of_one_is_refused_for_every_advantage() -> None:
    for advantage in ("leave_one_out", "grpo", "mean_baseline"):
        assert "without a baseline" in complaint("sampling.rollouts=1", f"algorithm.advantage={advantage}")


@pytest.mark.parametrize("word", ["off", "'off'", "mask", "drop"])
def test_the_filter_words_mean_what_they_say_also_where_yaml_reads_off_as_false(tmp_path: Path, word: str) -> None:
    assert load_recipe("demo", [f"algorithm.filter={word}"]).algorithm.filter == word.strip("'")
    assert load_recipe(write(tmp_path, f"algorithm: {{filter: {word}}}")).algorithm.filter == word.strip("'")


@pytest.mark.parametrize("word", ["off", "'off'", "rise", "fall"])
def test_the_masks_of_analysis_a_can_be_turned_off_by_a_bare_off(tmp_path: Path, word: str) -> None:
    assert load_recipe("demo_aem", [f"aem.analysis={word}"]).aem.analysis == word.strip("'")
    written = write(tmp_path, f"aem: {{enabled: true, analysis: {word}}}")
    assert load_recipe(written).aem.analysis == word.strip("'")


@pytest.mark.parametrize(
    "values",
    [
        {"model": {"device": "x" * 300_000}}, {"model": [1] * 300_000}, {"x" * 300_000: 1},
        {"cluster": {"logger": "x" * 300_000}}, {"aem": {"analysis": ["x" * 300_000]}},
    ],
)  # fmt: skip
def test_a_message_is_short_whatever_the_value(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as raised:
        validate_recipe(values)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    "text",
    [
        "a: [1", "- 1\n- 2", "3", "? [1]\n: 2", "1: 2", "\ta: b", "a: b: c", "trainer: {steps: 3", "a: &a [*a]",
        "a: !!python/object/apply:os.system ['true']", b"\xff\xfe", b"\0", "seed: 1\nseed: 2", "model: {path: ${x}}",
    ],
)  # fmt: skip
def test_a_broken_file_is_one_line_that_names_it(tmp_path: Path, text: str | bytes) -> None:
    path = write(tmp_path, text)
    message = complaint(recipe=path)
    assert path in message or "is not usable" in message


TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="$\\"), min_size=1, max_size=20)
COUNT = st.integers(1, 10**6)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Any recipe that is allowed, as far as its keys are independent."""
    prompts, rollouts = draw(st.integers(1, 16)), draw(st.integers(2, 16))
    positive = st.floats(1e-12, 1e6, allow_nan=False)
    return Recipe.model_validate(
        {
            "run_dir": draw(TEXT),
            "seed": draw(st.integers(0, 2**63)),
            "model": {"path": draw(TEXT), "device": draw(st.sampled_from(["auto", "cpu", "cuda"]))},
            "data": {"pool": draw(st.integers(prompts, 500)), "seed": draw(st.none() | st.integers(0, 99))},
            "agent": {"max_response_tokens": draw(st.none() | COUNT), "response_budget": draw(COUNT)},
            "sampling": {"prompts": prompts, "rollouts": rollouts, "temperature": draw(positive)},
            "algorithm": {"filter": draw(st.sampled_from(["mask", "drop", "off"])), "clip_high": draw(positive)},
            "aem": {"enabled": draw(st.booleans()), "lambda": draw(st.floats(0, 100))},
            "optimizer": {"lr": draw(positive), "beta1": draw(st.floats(0, 1, exclude_max=True))},
        }
        if prompts * rollouts % 2 == 0
        else {
            "sampling": {"prompts": prompts, "rollouts": rollouts, "cohorts": 1},
            "data": {"pool": 99},
            "run_dir": "x",
        }
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipes())
def test_a_dumped_recipe_loads_as_itself(tmp_path: Path, recipe: Recipe) -> None:
    assert load_recipe(write(tmp_path, dump_recipe(recipe))) == recipe


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from([*KEYS, "aem", "", "x.y", "seed[0]", "a.b.c"]).flatmap(
            lambda key: st.sampled_from(["=", "", "=="]).flatmap(
                lambda sign: (TEXT | st.sampled_from(["[", "${", "null", "{a: b}", "-1", "!!x", "*", "'"])).map(
                    lambda value: key + sign + value
                )
            )
        ),
        max_size=3,
    )
)
def test_whatever_is_typed_gives_a_recipe_or_one_line(overrides: list[str]) -> None:
    said = ""
    try:
        load_recipe("demo", overrides)
    except ConfigError as error:
        said = str(error)
    assert "\n" not in said


def test_what_a_run_wrote_is_a_recipe_of_the_same_run(tmp_path: Path) -> None:
    recipe = load_recipe("demo_aem", ["run_dir=runs/x", "optimizer.lr=1e-6"])
    text = dump_recipe(recipe)
    assert leaves(yaml.safe_load(text)).keys() == set(KEYS)
    assert load_recipe(write(tmp_path, text)) == recipe
