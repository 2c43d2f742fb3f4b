"""`aem-swe verify training` as a user runs it: judging what is there, mistakes, runs that fail or are stopped."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ended
from training_scene import change_rows, make_plan, result_of, write_all, write_plan, write_run

from aem_swe.eval.training_plan import read_plan, shipped_plan
from aem_swe.eval.training_result import to_text
from aem_swe.eval.training_table import MARKS

Invoke = Callable[..., Ended]
SHIPPED = str(shipped_plan())
Start = Callable[..., "subprocess.Popen[str]"]


def test_what_is_there_is_judged_and_a_result_makes_the_same_again(invoke: Invoke, tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    write_all(plan, tmp_path / "out")
    (tmp_path / "page.md").write_text(f"{MARKS.begin}\n{MARKS.end}\n")
    made = ("--json", "t.json", "--plot", "t.svg", "--markdown", "page.md")
    ended = invoke("verify", "training", "--plan", "plan.yaml", "--no-run", "--out", "out", *made)
    assert (ended.code, ended.err) == (0, "")
    assert "+10.6 (+9.9 to +11.3)" in ended.out and "15 of 15 runs" in ended.out
    files = {name: (tmp_path / name).read_bytes() for name in ("t.json", "t.svg", "page.md")}
    assert json.loads(files["t.json"])["command"] == "aem-swe verify training --plan plan.yaml"
    again = invoke("verify", "training", "--from", "t.json", *made)  # the one file that may be read and written
    assert (again.code, again.out) == (0, ended.out)
    assert {name: (tmp_path / name).read_bytes() for name in files} == files


def test_runs_of_several_machines_make_one_result(invoke: Invoke, tmp_path: Path) -> None:
    """Two halves, measured apart, give what one folder gives; a run that both have is the folder's."""
    plan = make_plan(tmp_path)
    write_all(plan, tmp_path / "out")
    judge = ("verify", "training", "--plan", "plan.yaml", "--no-run")
    whole = invoke(*judge, "--out", "out")
    assert invoke(*judge, "--out", "out", "--seed", "1", "--seed", "2", "--json", "there.json").code == 0
    shutil.rmtree(tmp_path / "out" / "plain_seed1")
    shutil.rmtree(tmp_path / "out" / "drop_seed2")
    write_run(plan, tmp_path / "elsewhere", "aem", 1, held_out=0.99)  # not what the folder has
    assert invoke(*judge, "--out", "elsewhere", "--only", "aem", "--seed", "1", "--json", "other.json").code == 0
    both = invoke(*judge, "--out", "out", "--with", "other.json", "--with", "there.json", "--json", "both.json")
    apart = "note: aem seed 1 of other.json is left out: it is there already, with other values\n"
    said = f"0 runs taken from other.json\n{apart}2 runs taken from there.json\n"
    assert (both.code, both.out) == (0, said + whole.out + "written: both.json\n")
    assert json.loads((tmp_path / "both.json").read_text())["command"] == "aem-swe verify training --plan plan.yaml"


def test_files_alone_are_enough_and_a_run_that_is_taken_is_not_trained_again(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(tmp_path)
    write_all(plan, tmp_path / "out")
    whole = invoke("verify", "training", "--plan", "plan.yaml", "--no-run", "--out", "out", "--json", "there.json")
    monkeypatch.setattr("aem_swe.eval.training_jobs._start", None)  # would break if it was called
    for how in (("--no-run",), ("--out", "new"), ()):
        ended = invoke("verify", "training", "--plan", "plan.yaml", "--with", "there.json", *how)
        assert (ended.code, ended.out) == (0, "15 runs taken from there.json\n" + whole.out.partition("written")[0])
    assert not (tmp_path / "runs").exists() and not (tmp_path / "new").exists()


def test_a_run_that_failed_elsewhere_is_no_missing_seed(invoke: Invoke, tmp_path: Path) -> None:
    """Unless it is there meanwhile, from a folder or from another file."""
    plan = make_plan(tmp_path)
    write_all(plan, tmp_path / "out")
    judge = ("verify", "training", "--plan", "plan.yaml", "--no-run")
    assert invoke(*judge, "--out", "out", "--json", "whole.json").code == 0
    data = json.loads((tmp_path / "whole.json").read_text())
    for arm, key in (("aem", "failed"), ("drop", "unfinished")):
        data["arms"][arm]["runs"].pop(1)
        data[key] = [{"arm": arm, "seed": 2}]
    (tmp_path / "less.json").write_text(json.dumps(data))
    page = f"{MARKS.begin}\nold\n{MARKS.end}\n"
    (tmp_path / "page.md").write_text(page)
    ended = invoke(*judge, "--with", "less.json", "--with", "less.json", "--markdown", "page.md", "--json", "new.json")
    assert ended.code == 1 and (tmp_path / "page.md").read_text() == page
    assert "13 of 15 runs" in ended.out and "; 1 FAILED: aem seed 2; 1 not finished: drop seed 2." in ended.out
    made = json.loads((tmp_path / "new.json").read_text())
    assert (made["failed"], made["unfinished"]) == (data["failed"], data["unfinished"])
    for more in (("--out", "out"), ("--with", "whole.json")):
        again = invoke(*judge, "--with", "less.json", *more, "--markdown", "page.md")
        assert again.code == 0 and "15 of 15 runs" in again.out and "FAILED" not in again.out
        assert "note: aem seed 2 failed where a file of --with was made; the values that are there count\n" in again.out


def test_runs_made_with_other_settings_are_not_taken(invoke: Invoke, tmp_path: Path) -> None:
    """Another override of every arm, or of one; an arm that the plan does not have is of no interest."""
    plan = make_plan(tmp_path)
    write_all(plan, tmp_path / "out")
    judge = ("verify", "training", "--plan", "plan.yaml", "--no-run", "--out", "out")
    assert invoke(*judge, "--json", "there.json").code == 0
    (tmp_path / "none").mkdir()
    alone = {"contrasts": {}, "arms": {"drop": ["demo", "algorithm.filter=mask"]}}
    for changes, arm in (({"overrides": ["trainer.steps=17", "trainer.eval_every=17"]}, ""), (alone, "'drop'")):
        write_plan(tmp_path / "plan.yaml", **changes)
        ended = invoke(*judge[:-1], "none", "--with", "there.json")
        assert ended.code == 2 and ended.out == ""
        assert f"--with 'there.json': arm {arm}" in ended.err and "was made with other settings" in ended.err
    write_plan(tmp_path / "plan.yaml", contrasts={}, arms={"other": ["demo"]})
    ended = invoke(*judge[:-1], "none", "--with", "there.json")
    assert ended.code == 0 and ended.out.startswith("0 runs taken from there.json\n")


def test_what_is_missing_or_unfinished_is_said_and_no_error(invoke: Invoke, tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    for seed in (1, 2):
        write_run(plan, tmp_path / "out", "plain", seed)
        write_run(plan, tmp_path / "out", "aem", seed)
    change_rows(tmp_path / "out" / "aem_seed2", lambda rows: rows.__delitem__(slice(5, None)))
    some = ("--only", "plain", "--only", "aem", "--seed", "1", "--seed", "2")
    ended = invoke("verify", "training", "--plan", "plan.yaml", "--no-run", "--out", "out", *some)
    assert (ended.code, ended.err) == (0, "")
    assert "note: aem seed 2 stopped after step 4; it is left out" in ended.out
    assert "undecided (1 seed, 5 needed)" in ended.out
    assert "3 of 4 runs" in ended.out and "; 1 not finished: aem seed 2." in ended.out
    (tmp_path / "empty").mkdir()
    whole = invoke("verify", "training", "--plan", "plan.yaml", "--no-run", "--out", "empty")
    assert whole.code == 0
    assert whole.out.count("not run") == 11  # three arms, five contrasts, one algorithm and its two sides


@pytest.mark.parametrize("made", [("--json", "made.json"), ("--plot", "made.svg"), ("--markdown", "page.md")])
def test_of_no_finished_run_nothing_is_written(invoke: Invoke, tmp_path: Path, made: tuple[str, str]) -> None:
    plan = make_plan(tmp_path)
    page = f"{MARKS.begin}\nold\n{MARKS.end}\n"
    (tmp_path / "page.md").write_text(page)
    (tmp_path / "out").mkdir()
    (tmp_path / "none.json").write_text(to_text(result_of(plan, {})))
    for words in (("--plan", "plan.yaml", "--no-run", "--out", "out"), ("--from", "none.json")):
        ended = invoke("verify", "training", *words, *made)
        assert ended.code == 2
        assert f"no run is finished in {words[-1]}; nothing was written" in ended.err
    assert not list(tmp_path.glob("made.*")) and (tmp_path / "page.md").read_text() == page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "demos"), "--only 'demos' is no arm; did you mean 'demo'?"),
        (("--seed", "1", "--seed", "1"), "--seed: 1 is given twice; a seed counts once"),
        (("--jobs", "0"), "Invalid value for '--jobs'"),
        (("--plot", "x.pdf"), "--plot 'x.pdf' is neither .png nor .svg"),
        (("--json", "x.svg", "--plot", "./x.svg"), "--plot 'x.svg' is --json's file as well; choose another --plot"),
        (("--markdown", "none.md"), "--markdown 'none.md' cannot be read"),
        (("--plan", "none.yaml"), "none.yaml"),
        (("--from", "none.json"), "--from 'none.json' cannot be read"),
        (("--from", "none.json", "--no-run"), "leave --only, --seed, --out, --no-run, --plan and --with out"),
        (("--from", "none.json", "--with", "a.json"), "leave --only, --seed, --out, --no-run, --plan and --with out"),
        (("--with", "none.json"), "--with 'none.json' cannot be read"),
        (("--with", "a", "--json", "a", "--seed", "1"), "--json 'a' is --with's file as well; choose another --json"),
        (("--with", "a.svg", "--plot", "a.svg"), "--plot 'a.svg' is --with's file as well; choose another --plot"),
        (
            ("--no-run", "--out", "nowhere"),
            "--out 'nowhere' is no folder; leave --no-run out, or name the folder of the",
        ),
        (("--no-run", "--out", "plan.yaml"), "--out 'plan.yaml' is no folder"),
        (("--out", "oh #1"), "--out 'oh #1' cannot be a run_dir; choose a plainer name"),
        (("--plan", "plan.yaml", "--json", "./plan.yaml"), "--json 'plan.yaml' is --plan's file as well; choose"),
        (("--json", SHIPPED), f"--json '{SHIPPED}' is --plan's file as well; choose another --json"),
        (("--from", "a.svg", "--plot", "a.svg"), "--plot 'a.svg' is --from's file as well; choose another --plot"),
        (("--from", "a.md", "--markdown", "a.md"), "--markdown 'a.md' is --from's file as well"),
        (("--out", "out"), "was made with other settings: trainer.steps is 16, not 24; choose another --out"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)  # would break if it was called
    shipped = read_plan(None)
    overrides = [word for word in shipped.overrides if not word.startswith("trainer.steps")]
    write_run(make_plan(tmp_path, overrides=[*overrides, "trainer.steps=16"], arms={"demo": ["demo"]}, contrasts={}),
              tmp_path / "out", "demo", 1)  # fmt: skip
    before = sorted(tmp_path.rglob("*"))
    ended = invoke("verify", "training", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err and ended.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_failed_is_named_and_the_page_stays(invoke: Invoke, tmp_path: Path) -> None:
    write_all(make_plan(tmp_path), tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "aem_seed2")
    (tmp_path / "out" / "aem_seed2").symlink_to("aem_seed2")  # cannot be read, and nothing can be made there
    page = f"{MARKS.begin}\nold\n{MARKS.end}\n"
    (tmp_path / "page.md").write_text(page)
    words = ("--plan", "plan.yaml", "--out", "out", "--jobs", "1")
    ended = invoke("verify", "training", *words, "--json", "t.json", "--plot", "t.svg", "--markdown", "page.md")
    assert ended.code == 1 and "aem seed 2 FAILED: " in ended.err
    assert "14 of 15 runs; " in ended.out and "; 1 FAILED: aem seed 2." in ended.out
    assert "not written: page.md, because 1 run failed; the same command tries again\n" in ended.out
    assert (tmp_path / "page.md").read_text() == page and (tmp_path / "t.svg").is_file()
    assert json.loads((tmp_path / "t.json").read_text())["failed"] == [{"arm": "aem", "seed": 2}]
    alone = invoke("verify", "training", *words, "--only", "aem", "--seed", "2", "--json", "none.json")
    assert alone.code == 1 and alone.out.endswith("no run is finished in out; nothing was written\n")
    assert not (tmp_path / "none.json").exists()
    again = invoke("verify", "training", "--from", "t.json", "--markdown", "page.md")
    assert again.code == 1 and "not written: page.md" in again.out
    assert (tmp_path / "page.md").read_text() == page


TINY = (
    "sampling.prompts=2", "sampling.rollouts=4", "data.pool=2", "data.seed=15", "optimizer.warmup_steps=0",
    "agent.max_steps=8", "trainer.steps=2", "trainer.eval_every=2", "trainer.eval_tasks=4", "trainer.save_every=1",
)  # fmt: skip


def alive_below(folder: Path) -> list[int]:
    """Processes that train into `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        if b"train" in words and any(str(folder).encode() in word for word in words):
            found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_killed_and_started_again_it_ends_like_an_undisturbed_one(start: Start, run: Invoke, tmp_path: Path) -> None:
    arms = {"plain": ["demo"], "aem": ["demo_aem"]}
    contrasts = {"aem_plain": {"arm": "aem", "against": "plain", "of": ["held_out", "entropy"], "paper": "higher"}}
    write_plan(tmp_path / "plan.yaml", seeds=[1, 2], overrides=list(TINY), arms=arms, contrasts=contrasts)
    out = tmp_path / "out"
    command = ("verify", "training", "--plan", "plan.yaml", "--out", str(out), "--jobs")
    process = start(*command, "1")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("plain seed 1: held-out success ")
    second = out / "aem_seed1" / "metrics.jsonl"
    while not second.is_file() or '"step": 1,' not in second.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    assert len(alive_below(out)) == 1
    os.kill(process.pid, signal.SIGTERM)
    assert (process.wait(60), alive_below(out)) == (130, [])
    assert "interrupted" in process.stderr.read()
    kept = (out / "plain_seed1" / "metrics.jsonl").stat()
    left = (out / "aem_seed1" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in left] == [0, 1]

    (out / "aem_seed2").write_text("no folder")
    failed = run(*command, "2", "--json", "failed.json")
    assert failed.code == 1
    assert "aem seed 2 FAILED: exit 2: run_dir" in failed.err and "3 of 4 runs" in failed.out
    assert (tmp_path / "failed.json").is_file()
    (out / "aem_seed2").unlink()
    ended = run(*command, "2", "--json", "t.json")
    assert ended.code == 0, ended.err
    assert ended.err.startswith("aem seed 2: held-out success ") and ended.err.endswith("(4 of 4 runs)\n")
    assert (out / "plain_seed1" / "metrics.jsonl").stat() == kept
    assert '"resumed"' in (out / "aem_seed1" / "manifest.json").read_text()
    data = json.loads((tmp_path / "t.json").read_text())
    assert {one["verdict"] for one in data["contrasts"]} == {"undecided (2 seeds, 5 needed)"}

    undisturbed = run("train", "demo_aem", *TINY, "seed=1", f"run_dir={tmp_path / 'whole'}")
    assert undisturbed.code == 0
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    aem = data["arms"]["aem"]["runs"][0]
    assert aem["series"]["entropy"] == [round(row["actor/entropy"], 4) for row in rows[1:]]
    assert aem["held_out"] == rows[-1]["val/pass@1"]
