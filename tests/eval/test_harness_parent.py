"""What an official grading means, the cache of verdicts, and the harness's papers; nothing here starts a container."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from aem_swe.errors import ConfigError
from aem_swe.eval.swebench.harness import OfficialGrader
from aem_swe.eval.swebench.papers import Papers
from aem_swe.eval.swebench.results import Status
from aem_swe.eval.swebench.verdicts import GradeCache, Graded, Judged, give_up, judge, key_of, patch_digest
from aem_swe.sandboxes.grading_engine import ContainerLimits, capped

DONE = {"kind": "graded", "container": "running", "answers": True, "testing": True, "works": True}
TESTS = {
    "FAIL_TO_PASS": {"success": ["a"], "failure": ["b"]},
    "PASS_TO_PASS": {"success": [], "failure": ["c"]},
}


def judged(**said: Any) -> Judged:
    return judge({**DONE, **said})


# --- what happened, and whose fault it is ---


def test_the_harness_decides_what_is_resolved() -> None:
    assert judged(report={"resolved": True}).status is Status.RESOLVED
    verdict = judged(report={"resolved": False, "tests_status": TESTS})
    assert (verdict.status, verdict.reason) == (Status.UNRESOLVED, "2 of 3 tests did not pass, first 'b'")


def test_a_log_that_looks_like_a_broken_machine_is_a_remark_and_no_more() -> None:
    report = {"resolved": False, "infra_failure": True, "infra_failure_reason": "container_unavailable"}
    verdict = judged(report=report)
    assert (verdict.status, verdict.note) == (Status.UNRESOLVED, "container_unavailable")


@pytest.mark.parametrize("container", ["ended", "gone", "unknown", None])
def test_a_report_is_not_believed_where_the_container_did_not_last(container: str | None) -> None:
    for report in ({"resolved": True}, {"resolved": False}):
        assert judged(report=report, container=container).status is None


def test_a_log_that_stops_where_the_container_did_is_no_verdict() -> None:
    """An engine calls a container that is just going away running, and answers an exec with a text."""
    assert judged(report={"resolved": False}, works=False).status is None
    assert judged(report={"resolved": False, "tests_status": TESTS}, works=False).status is Status.UNRESOLVED


def test_what_the_patch_is_to_blame_for_is_an_error() -> None:
    verdict = judged(kind="does_not_apply", detail="patch:\n garbage", testing=False)
    assert (verdict.status, verdict.reason) == (Status.ERROR, "the patch does not apply: patch: garbage")
    assert judged(kind="timeout").status is Status.ERROR and judged(kind="timeout").timed_out
    assert judged(kind="harness", detail="UnicodeDecodeError: x").reason.endswith("finish: UnicodeDecodeError: x")


ENDED = [
    {"kind": "does_not_apply", "container": "ended"},
    {"kind": "timeout", "container": "gone"},
    {"kind": "harness", "container": None},
    {"kind": "world", "container": "ended"},
    {"kind": "graded", "container": "gone"},
    {"kind": "world", "detail": "exec failed"},
]
"""Where tests had begun, and the engine answers."""
WORLD = [
    {"kind": "does_not_apply", "works": False, "testing": False},
    {"kind": "world", "testing": False},
    {"kind": "world", "answers": False},
    {"kind": "graded", "container": "gone", "answers": False},
]


@pytest.mark.parametrize("said", [*ENDED, *WORLD])
def test_what_may_be_the_machines_fault_is_tried_again_and_is_never_wrong(said: dict[str, Any]) -> None:
    verdict = judged(**said)
    assert verdict.status is None
    machine = judged(kind="world", testing=False)
    assert give_up([verdict, machine, verdict]).status is Status.INFRASTRUCTURE


@pytest.mark.parametrize("said", WORLD)
def test_what_the_machine_does_every_time_is_excluded(said: dict[str, Any]) -> None:
    assert give_up([judged(**said)] * 3).status is Status.INFRASTRUCTURE


@pytest.mark.parametrize("said", ENDED)
def test_a_patch_that_ends_its_own_container_every_time_is_an_error_and_not_excluded(said: dict[str, Any]) -> None:
    assert give_up([judged(**said)] * 3).status is Status.ERROR


# --- keys and cache ---

ROW = {"instance_id": "a__a-1", "eval_script": "x", "FAIL_TO_PASS": ["t"], "log_parser": "p", "patch": "gold"}
LIMITS = ContainerLimits()


def key(row: dict[str, Any] = ROW, **changes: Any) -> str:
    said: dict[str, Any] = {
        "image_id": "sha256:1",
        "patch": "p",
        "swebench": "5.0.2",
        "timeout_s": 60.0,
        "limits": LIMITS,
    }
    said |= changes
    return key_of(row, said.pop("image_id"), said.pop("patch"), **said)


def test_whatever_can_change_a_verdict_changes_its_key() -> None:
    others = [
        key(patch="q"), key(image_id="sha256:2"), key(swebench="5.0.3"), key(timeout_s=61.0),
        key({**ROW, "eval_script": "y"}), key({**ROW, "FAIL_TO_PASS": ["u"]}),
        key(limits=ContainerLimits(network="bridge")),
        key(limits=ContainerLimits(memory_mb=1)), key(limits=ContainerLimits(cpus=1.0)),
    ]  # fmt: skip
    assert len({key(), *others}) == 10


def test_what_cannot_change_a_verdict_does_not_change_its_key() -> None:
    assert key({**ROW, "patch": "other", "hints_text": "h"}) == key()
    assert key(limits=ContainerLimits(lifetime_s=1.0)) == key()


KEPT = Graded(Status.ERROR, "why", "", 1.5, {"resolved": False, "ä": [1]}, "out\udc80")


def test_the_cache_gives_back_what_it_got(tmp_path: Path) -> None:
    cache = GradeCache(tmp_path / "grades")
    assert cache.get("k") is None
    cache.put("k", KEPT)
    assert GradeCache(tmp_path / "grades").get("k") == KEPT
    assert os.listdir(tmp_path / "grades") == ["k.json"]


@pytest.mark.parametrize(
    "broken", [b"", b"{", b"[]", b"null", b'{"check": "", "kept": {}}', b"\xff\xfe", b"[" * 100_000]
)
def test_a_broken_entry_is_no_entry_and_is_replaced(tmp_path: Path, broken: bytes) -> None:
    cache = GradeCache(tmp_path)
    (tmp_path / "k.json").write_bytes(broken)
    assert cache.get("k") is None
    cache.put("k", KEPT)
    assert cache.get("k") == KEPT


def test_an_entry_that_was_changed_is_no_entry(tmp_path: Path) -> None:
    cache = GradeCache(tmp_path)
    cache.put("k", KEPT)
    said = json.loads((tmp_path / "k.json").read_text())
    said["kept"]["status"] = "resolved"
    (tmp_path / "k.json").write_text(json.dumps(said))
    assert cache.get("k") is None


def test_what_the_machine_is_to_blame_for_is_never_kept(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        GradeCache(tmp_path).put("k", dataclasses.replace(KEPT, status=Status.INFRASTRUCTURE))


def test_patches_have_digests_and_no_patch_has_none() -> None:
    assert patch_digest("") == "" and len(patch_digest("\udc80")) == 16 and patch_digest("a") != patch_digest("b")


# --- papers ---


def test_papers_of_another_patch_are_replaced_and_those_of_none_go(tmp_path: Path) -> None:
    papers, place = Papers(tmp_path, "org/m", "r"), tmp_path / "logs/run_evaluation/r/org__m/a__a-1"
    place.mkdir(parents=True)
    (place / "report.json").write_text('{"a__a-1": {"resolved": true}}')
    (place / "patch.diff").write_text("old")
    papers.restore("a__a-1", "new", Graded(Status.UNRESOLVED, "", "", 1.0, {"resolved": False}, "log"))
    assert json.loads((place / "report.json").read_text()) == {"a__a-1": {"resolved": False}}
    assert (place / "patch.diff").read_text() == "new" and papers.test_output("a__a-1") == "log"
    papers.restore("a__a-1", "new", Graded(Status.ERROR, "", "", 1.0, None, ""))
    assert not (place / "report.json").exists()
    papers.restore("a__a-1", "new", None)
    assert (place / "patch.diff").exists(), "a verdict that cannot be looked up now does not take its papers away"
    papers.restore("a__a-1", "newer", None)
    assert not place.exists()


def test_papers_of_the_same_patch_stay_as_the_harness_wrote_them(tmp_path: Path) -> None:
    papers, place = Papers(tmp_path, "m", "r"), tmp_path / "logs/run_evaluation/r/m/a__a-1"
    place.mkdir(parents=True)
    (place / "report.json").write_text(json.dumps({"a__a-1": {"resolved": False}}, indent=4))
    (place / "patch.diff").write_text("new")
    (place / "run_instance.log").write_text("the harness's own")
    papers.restore("a__a-1", "new", Graded(Status.UNRESOLVED, "", "", 1.0, {"resolved": False}, "log"))
    assert (place / "run_instance.log").exists()


# --- output, names ---


def test_a_log_ends_at_the_limit_and_comes_in_large_pieces() -> None:
    def exec_start(number: str, stream: bool = False) -> Any:
        return (b"x" * 1000 for _ in range(5000)) if stream else b"whole"

    pieces = list(capped(exec_start, 3_000_500)("1", stream=True))
    assert b"".join(pieces) == b"x" * 3_000_500 and len(pieces) <= 4
    assert b"".join(capped(exec_start, 10**9)("1", stream=True)) == b"x" * 5_000_000
    assert capped(exec_start, 1)("1") == b"whole"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run_id": "../x"}, "run id '../x' is part of file names"),
        ({"run_id": ""}, "run id '' is part of file names"),
        ({"model": ".."}, r"model name '\.\.' is part of file names"),
        ({"model": "a\nb"}, "is part of file names"),
    ],
)
def test_names_that_cannot_be_file_names_get_one_line(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    names = {"model": "m", "run_id": "r", **changes}
    with pytest.raises(ConfigError, match=said):
        OfficialGrader(tmp_path, {}, **names, workers=1, timeout_s=1.0, cache=tmp_path)
