"""Which keys of a configuration are read: recorded in processes of their own, for there is no way back."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from command_line import environment

from aem_swe.engines.rllm.reads import collect, is_read, write_list


def recorded(folder: Path, code: str) -> set[str]:
    """What a process that runs `code`, with `c` a configuration, read of it."""
    start = f"""
    import pickle
    from pathlib import Path
    from omegaconf import OmegaConf
    from aem_swe.engines.rllm.reads import record_into
    c = OmegaConf.create({{"a": {{"b": 1, "n": None, "d": {{"e": 2, "f": 3}}}}, "g": "${{a.b}}", "h": {{}}}})
    record_into(Path({str(folder)!r}))
    """
    text = textwrap.dedent(start) + textwrap.dedent(code)
    subprocess.run([sys.executable, "-c", text], env=environment(), check=True, timeout=60)
    return collect(folder, [])


@pytest.mark.parametrize(
    ("code", "keys"),
    [
        ("c.a.b", {"a", "a.b"}),
        ("c['a']['b']", {"a", "a.b"}),
        ("c.a.get('n', 3)", {"a", "a.n"}),
        ("c.get('nowhere')", {"nowhere"}),
        ("OmegaConf.select(c, 'a.d.e')", {"a.d.e"}),
        ("for key, value in c.a.d.items(): pass", {"a", "a.d", "a.d.e", "a.d.f"}),
        ("dict(**c.a.d)", {"a", "a.d", "a.d.e", "a.d.f"}),
        ("pickle.loads(pickle.dumps(c.a)).d.e", {"a", "a.d", "a.d.e"}),
        ("OmegaConf.to_container(c.a.d)", {"a", "a.d", "a.d.*"}),
    ],
)
def test_what_code_looks_at_is_written_down(tmp_path: Path, code: str, keys: set[str]) -> None:
    assert recorded(tmp_path, code) == keys


@pytest.mark.parametrize(
    "code", ["OmegaConf.to_container(c)", "OmegaConf.resolve(c)", "OmegaConf.to_yaml(c)", "str(c)"]
)
def test_printing_the_whole_is_not_reading(tmp_path: Path, code: str) -> None:
    assert recorded(tmp_path, code) == set()


def test_a_process_that_is_killed_leaves_what_it_read(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        recorded(tmp_path, "c.a.d.f\nimport os; os.kill(os.getpid(), 9)")
    assert collect(tmp_path, []) == {"a", "a.d", "a.d.f"}


def test_objects_are_found_by_the_class_that_they_were_made_into(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text("verl.workers.config.optimizer.FSDPOptimizerConfig:clip_grad\nx.y\n")
    config = {"actor": {"optim": {"_target_": "verl.workers.config.FSDPOptimizerConfig", "lr": 1}}, "other": {"lr": 2}}
    assert collect(tmp_path, [config]) == {"x.y", "actor.optim.clip_grad"}


def test_the_list_grows_by_runs_and_starts_again_with_other_versions(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_list(path, {"b", "a"}, versions={"verl": "1"}, run="sync")
    write_list(path, {"c"}, versions={"verl": "1"}, run="async")
    assert json.loads(path.read_text()) == {
        "versions": {"verl": "1"},
        "runs": ["async", "sync"],
        "read": ["a", "b", "c"],
    }
    write_list(path, {"d"}, versions={"verl": "2"}, run="sync")
    assert json.loads(path.read_text()) == {"versions": {"verl": "2"}, "runs": ["sync"], "read": ["d"]}


@pytest.mark.parametrize(
    ("key", "read"), [("a.b", True), ("a", True), ("a.b.c", False), ("s.x.y", True), ("s", True), ("sx", False)]
)
def test_a_converted_section_is_read_with_all_below_it(key: str, read: bool) -> None:
    assert is_read(key, frozenset({"a", "a.b", "s.*"})) is read
