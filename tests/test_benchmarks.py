"""The arithmetic of benchmarks/: ratios, what has moved since a stored run, and what became of every benchmark."""

import json
import sys
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from command_line import REPOSITORY, environment

sys.path.append(str(REPOSITORY / "benchmarks"))  # not a package: content beside aem_swe

import all as benchmarks
from baseline import compare, differences
from demo_step import TapedSampler, replay
from ratios import Ratio, Result, divided, in_turns, interval, report

from aem_swe.agents.loop import AskPolicy
from aem_swe.engines.local.model import load_model


def ratio(value: float, spread: float | None = 0.05, *, benchmark: str = "aem", name: str = "AEM") -> Ratio:
    low, high = (None, None) if spread is None else (value - spread, value + spread)
    return Ratio(benchmark, name, "a clip", value, low, high, 1 if spread is None else 9)


def verdict(before: Ratio, after: Ratio) -> str:
    [change] = compare([before], [after], {}).values()
    return change.verdict


def test_a_ratio_is_the_median_of_its_pairs_and_not_the_ratio_of_medians() -> None:
    made = divided("aem", "AEM", "a clip", [1.0, 10.0, 9.0], [2.0, 10.0, 3.0], bound=1.5)
    assert (made.value, made.low, made.high, made.repeats) == (1.0, 0.5, 3.0, 3)  # 0.5, 1, 3
    assert made.key == "aem: AEM / a clip"
    assert divided("aem", "AEM", "a clip", [1.0], [4.0]).low is None


@pytest.mark.parametrize(
    ("repeats", "cut"),
    [(2, 0), (5, 0), (8, 0), (9, 1), (11, 1), (12, 2), (50, 17)],  # tables of the sign test, 95%
)
def test_the_interval_of_a_median_leaves_out_what_the_sign_test_does(repeats: int, cut: int) -> None:
    values = [float(value) for value in range(repeats)]
    assert interval(values[::-1]) == (values[cut], values[-1 - cut])


def test_actions_take_turns_and_every_other_turn_goes_the_other_way_round() -> None:
    called: list[str] = []
    seconds = in_turns({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 3)
    assert called == ["a", "b", "b", "a", "a", "b"]
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_a_bound_is_missed_above_it_and_not_claimed_for_a_quick_run(tmp_path: Path) -> None:
    result = Result("aem", (replace(ratio(2.01), bound=2.0),))
    assert report(result, Namespace(quick=False, json=tmp_path / "full")) == 1
    assert report(result, Namespace(quick=True, json=tmp_path / "quick")) == 0
    assert json.loads((tmp_path / "quick").read_text())["ratios"][0]["bound"] is None
    assert not replace(ratio(2.0), bound=2.0).missed
    assert replace(ratio(float("nan")), bound=2.0).missed


def test_a_ratio_moved_where_it_left_the_tolerance_and_its_interval() -> None:
    assert verdict(ratio(1.0), ratio(1.3)) == "worse"
    assert verdict(ratio(1.0), ratio(0.7)) == "better"


def test_a_ratio_within_the_tolerance_did_not_move_however_narrow_the_intervals() -> None:
    assert verdict(ratio(1.0, 0.0), ratio(1.24, 0.0)) == "same"
    assert verdict(ratio(1.0, 0.0), ratio(0.81, 0.0)) == "same"


def test_a_ratio_beyond_the_tolerance_with_overlapping_intervals_is_unclear() -> None:
    assert verdict(ratio(1.0, 0.2), ratio(1.4, 0.2)) == "unclear"
    assert verdict(ratio(1.0, 0.1), ratio(1.4, 0.2)) == "worse"


def test_without_intervals_the_tolerance_decides() -> None:
    assert verdict(ratio(1.0, None), ratio(1.4)) == "worse"
    assert verdict(ratio(1.0), ratio(1.1, None)) == "same"


def test_a_ratio_of_one_side_alone_is_new_gone_or_not_run_with_the_reason() -> None:
    before = [ratio(1.0, name="old"), ratio(1.0, benchmark="sandbox")]
    changes = compare(before, [ratio(2.0, name="fresh")], {"sandbox": "needs a container engine"})
    assert {key: (change.verdict, change.reason) for key, change in changes.items()} == {
        "aem: old / a clip": ("gone", ""),
        "sandbox: AEM / a clip": ("not run", "needs a container engine"),
        "aem: fresh / a clip": ("new", ""),
    }


def test_the_lines_name_what_moved_what_is_gone_and_what_was_not_run() -> None:
    collected = benchmarks.Collected(ratios=[ratio(1.5)], not_run={"gpu": "needs one CUDA GPU"})
    before = [ratio(1.0), ratio(1.0, name="old"), ratio(1.0, benchmark="gpu"), ratio(2.0, benchmark="gpu", name="b")]
    shown = benchmarks.lines(collected, compare(before, collected.ratios, collected.not_run))
    assert shown[1].startswith("aem: AEM / a clip") and shown[1].endswith("was 1, +50%: worse")
    assert shown[2:] == [
        "not run: gpu, needs one CUDA GPU",
        "gone: aem: old / a clip, was 1: gone",
        "not compared: 2 of gpu (needs one CUDA GPU)",
        "MOVED: aem: AEM / a clip, was 1, +50%: worse",
    ]


def test_the_exit_status_is_1_for_a_missed_bound_or_with_strict_for_what_got_worse_and_2_for_what_broke() -> None:
    fine, worse = benchmarks.Collected(ratios=[ratio(1.5)]), compare([ratio(1.0)], [ratio(1.5)], {})
    assert benchmarks.status(fine, {}, strict=True) == 0
    assert benchmarks.status(fine, worse, strict=False) == 0
    assert benchmarks.status(fine, worse, strict=True) == 1
    assert benchmarks.status(fine, compare([ratio(2.5)], [ratio(1.5)], {}), strict=True) == 0
    assert benchmarks.status(benchmarks.Collected(ratios=[replace(ratio(1.5), bound=1.0)]), {}, strict=False) == 1
    assert benchmarks.status(benchmarks.Collected(broken={"aem": "Traceback"}), {}, strict=False) == 2


def test_what_is_not_the_same_about_two_machines_is_named() -> None:
    one = {"machine": "A", "cores": 2, "python": "3.11.2", "torch": "2.13.0", "date": "2026-01-01"}
    assert differences(one, one | {"cores": 8, "date": "2026-02-02"}) == ["cores: 2 -> 8"]


def test_a_benchmark_without_a_result_is_broken_and_a_skipped_one_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aem.py").write_text("raise SystemExit('no such tensor')")
    skipped = {"skipped": "needs one CUDA GPU", "ratios": [], "details": {}}
    (tmp_path / "gpu.py").write_text(f"import sys; open(sys.argv[2], 'w').write({json.dumps(skipped)!r})")
    monkeypatch.setattr(benchmarks, "HERE", tmp_path)
    collected = benchmarks.Collected()
    for name in ("aem", "gpu"):
        benchmarks.run(name, tmp_path, quick=False, collected=collected)
    assert collected.broken == {"aem": "no such tensor"}
    assert collected.not_run == {"gpu": "needs one CUDA GPU"}


def test_one_command_measures_compares_and_writes_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    baseline, written = tmp_path / "baseline.json", tmp_path / "written.json"
    before = Ratio("aem", "AEM", "an elementwise PPO clip", 1e-3, 0.9e-3, 1.1e-3, 9)
    baseline.write_text(json.dumps({"about": {"quick": True, "cores": 0}, "ratios": [asdict(before)]}))
    command = ["--only", "aem", "--quick", "--strict", "--baseline", str(baseline)]
    assert benchmarks.main([*command, "--json", str(written), "--out", str(tmp_path)]) == 1
    found = json.loads(written.read_text())
    assert found["about"].keys() >= {"machine", "cores", "python", "torch", "date", "commit", "quick"}
    assert [item["benchmark"] for item in found["ratios"]] == ["aem"] * 3
    assert sorted(change["verdict"] for change in found["changes"]) == ["new", "new", "worse"]
    assert json.loads((tmp_path / "aem.json").read_text())["ratios"] == found["ratios"]
    out = capsys.readouterr().out
    assert "another machine than the baseline's: cores: 0 ->" in out
    assert out.count("MOVED") == 1 and "was 0.001" in out


def test_a_baseline_that_is_missing_or_of_other_sizes_is_refused_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    with pytest.raises(SystemExit, match="does not exist"):
        benchmarks.main(["--baseline", str(path)])
    path.write_text(json.dumps({"about": {"quick": False}, "ratios": []}))
    with pytest.raises(SystemExit, match="without --quick"):
        benchmarks.main(["--quick", "--baseline", str(path)])


def test_a_replay_says_what_was_said_whatever_it_samples_itself() -> None:
    model = load_model("builtin/demo-policy", device="cpu")
    prompts = [model.chat.first_prompt("", task) for task in ("mend it", "mend the other one as well")]
    sampler = TapedSampler(model, rows=2, context=200, temperature=1.0, seed=1)
    sampler.reset(0)
    first = sampler.respond_batch([AskPolicy((), prompt, 24, (row,)) for row, prompt in enumerate(prompts)])
    assert first[0] is not None
    longer = model.chat.extend((*prompts[0], *first[0].response_ids), "done")
    sampler.respond_batch([AskPolicy((), longer, 24, (7,)), None])
    cached, TapedSampler.others = [list(ids) for ids in sampler._cached], 0
    sampler.seed = 2  # so that it samples others; replay() itself asserts that it says the same
    replay()
    assert TapedSampler.others > 0 and TapedSampler.tape == []
    assert sampler._cached == cached
