"""`aem-swe doctor` for a cluster: one line per need, each failure with its remedy."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ended, environment

from aem_swe.check import Check
from aem_swe.config import load_recipe
from aem_swe.engines.rllm import doctor
from aem_swe.engines.rllm.doctor import Machines, examine_cluster, machines_of
from aem_swe.engines.rllm.versions import INSTALL, folder_of

GIB = 2**30
NAMES = ["versions", "model", "Ray", "GPUs", "update memory", "rollout memory", "node memory", "disk"]


def checks(monkeypatch: pytest.MonkeyPatch, machines: Machines, *overrides: str) -> dict[str, Check]:
    monkeypatch.setattr(doctor, "_machines", lambda cluster: machines)
    found = examine_cluster(load_recipe("deepswe", overrides))
    assert all(check.finding and (check.passed or check.remedy) for check in found)
    assert not [check for check in found if "\n" in check.finding + check.remedy]
    return {check.name: check for check in found}


CLUSTER = machines_of(
    [{"GPU": 8.0, "CPU": 96.0, "memory": 0.7 * 1000 * GIB, "accelerator_type:H100": 1.0}] * 8, "Ray at x", 8
)


def test_rays_resources_say_what_the_machines_are() -> None:
    assert Machines(64, 8, 79.0, pytest.approx(1000.0), "Ray at x") == CLUSTER
    mixed = machines_of([{"GPU": 8.0, "memory": 7 * GIB, "accelerator_type:H200": 1.0}, {"memory": 0.7 * GIB}], "y", 8)
    assert mixed == Machines(8, 1, 140.0, pytest.approx(1.0), "y")
    assert machines_of([], "z", 8) == Machines(0, 0, None, 0.0, "z")


def test_a_cluster_like_the_published_one_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checks(monkeypatch, CLUSTER)
    assert list(found) == NAMES
    assert all(found[name].passed for name in ("Ray", "GPUs", "update memory", "rollout memory", "node memory"))
    assert found["update memory"].finding.startswith("about 28 GiB of 79 GiB: states 7.6")
    assert "33.6 whole rows; it gets 8 at a time" in found["rollout memory"].finding


def test_a_small_cluster_fails_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    two = machines_of([{"GPU": 8.0, "memory": 7 * GIB, "accelerator_type:A10G": 1.0}] * 2, "Ray at x", 8)
    found = checks(monkeypatch, two)
    assert {name for name, check in found.items() if not check.passed} >= {
        "Ray",
        "GPUs",
        "update memory",
        "node memory",
    }
    assert found["Ray"].remedy == "add nodes until there are 8"
    assert "more cluster.sequence_parallel" in found["update memory"].remedy


def test_a_cluster_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checks(monkeypatch, Machines(0, 0, None, 0.0, "Ray at 1.2.3.4:6379", "no route"))
    assert found["Ray"].finding == "Ray at 1.2.3.4:6379 does not answer (no route)"
    assert "ray start --head" in found["Ray"].remedy


def test_several_nodes_need_an_address_and_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Machines(8, 1, 140.0, 2000.0, "this machine")
    assert not checks(monkeypatch, here)["Ray"].passed
    one = checks(monkeypatch, here, "cluster.nodes=1")
    assert one["Ray"].passed and one["GPUs"].passed


def test_too_little_for_the_servers_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not checks(monkeypatch, CLUSTER, "cluster.tensor_parallel=1")["rollout memory"].passed
    crowded = checks(monkeypatch, CLUSTER, "cluster.gpu_memory_utilization=0.98")["rollout memory"]
    assert not crowded.passed and "about 80 GiB of 79 GiB" in crowded.finding


def test_a_model_is_a_folder_or_in_the_cache_or_has_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "try_to_load_from_cache", lambda *_: None)
    found = checks(monkeypatch, CLUSTER)["model"]
    assert (found.passed, found.remedy) == (False, "hf download Qwen/Qwen3-32B")
    shape = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 16,
        "vocab_size": 9,
    }
    (tmp_path / "config.json").write_text(json.dumps(shape))
    found = checks(monkeypatch, CLUSTER, f"model.path={tmp_path}")["model"]
    assert not found.passed and "0 files of weights" in found.finding
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert checks(monkeypatch, CLUSTER, f"model.path={tmp_path}")["model"].passed
    monkeypatch.setattr(doctor, "try_to_load_from_cache", lambda *_: str(tmp_path / "config.json"))
    assert checks(monkeypatch, CLUSTER)["model"].passed
    (tmp_path / "config.json").write_text("{")
    broken = checks(monkeypatch, CLUSTER)
    assert list(broken) == NAMES[:4] and not broken["model"].passed


def test_a_model_of_unknown_shape_is_not_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checks(monkeypatch, CLUSTER, "model.path=/nowhere/model")
    assert list(found) == NAMES[:4]
    assert found["model"].remedy == "name a checkpoint folder"


def test_a_model_that_cannot_be_says_what_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text("[]")  # of no model, and not what an empty name means
    (tmp_path / "folder").mkdir()
    for path, finding in (
        ("''", "model.path is empty"),
        ("folder", "folder folder has no config.json"),
        (str(tmp_path), f"{tmp_path}/config.json: config.json holds no settings but a list"),
        ("x" * 300, f"{'x' * 300} is neither a folder nor in the hub's cache"),
    ):
        found = checks(monkeypatch, CLUSTER, f"model.path={path}")
        assert list(found) == NAMES[:4]
        assert (found["model"].passed, found["model"].finding) == (False, finding)


@pytest.mark.parametrize(
    ("run_dir", "problem"),
    [("x" * 300, "where no name"), ("a/" + "x" * 300, "where no name"), ("file/x", "no folder")],
)
def test_a_run_folder_that_cannot_be_made_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run_dir: str, problem: str
) -> None:
    (tmp_path / "file").write_text("")
    found = checks(monkeypatch, CLUSTER, f"run_dir={tmp_path}/{run_dir}", "trainer.save_every=0")["disk"]
    assert not found.passed and f", {problem}" in found.finding


def test_checkpoints_need_room_on_the_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1400 * GIB))
    full = checks(monkeypatch, CLUSTER, f"run_dir={tmp_path / 'a' / 'b'}")["disk"]
    assert full.finding == f"1400 GiB free at {tmp_path}, 1465 GiB for 3 checkpoints; all nodes have to see it"
    assert not full.passed and "trainer.keep_checkpoints" in full.remedy
    assert checks(monkeypatch, CLUSTER, f"run_dir={tmp_path}", "trainer.keep_checkpoints=1")["disk"].passed


@pytest.mark.skipif(folder_of("rllm") is not None, reason="rllm is installed here")
def test_the_command_says_all_that_is_missing_and_exits_1(invoke: Callable[..., Ended]) -> None:
    ended = invoke("doctor", "deepswe_aem")
    assert (ended.code, ended.err) == (1, "")
    names = [row[6:].split(":")[0] for row in ended.out.splitlines()]
    assert names[:3] == ["platform", "memory", "git"] and names[3:11] == NAMES
    assert INSTALL in ended.out
    rows = ended.out.splitlines()
    for name, known in (("tasks", "r2e-gym"), ("held-out tasks", "swe-bench-verified")):
        missing = f"FAIL  {name}: rows 'data/{known}/rows.parquet' are not there; bring them here: aem-swe data pull"
        assert f"{missing} {known}" in rows


@pytest.mark.parametrize(
    ("content", "finding", "remedy"),
    [
        (None, "'data/r2e-demo/rows.jsonl' are not there; bring them here: aem-swe sandbox build", True),
        ("{}", "'data/r2e-demo/rows.jsonl' holds no usable task", False),
    ],
)
def test_only_tasks_that_are_not_there_have_a_command_that_makes_them(
    invoke: Callable[..., Ended], tmp_path: Path, content: str | None, finding: str, remedy: bool
) -> None:
    if content is not None:
        (tmp_path / "data/r2e-demo").mkdir(parents=True)
        (tmp_path / "data/r2e-demo/rows.jsonl").write_text(content)
    ended = invoke("doctor", "deepswe_smoke_1gpu")
    (said,) = (row for row in ended.out.splitlines() if row[6:].startswith("tasks:"))
    assert finding in said and ("bring them here" in said) is remedy


@pytest.mark.parametrize("source", ["mem.jsonl", "x" * 300, "bad.parquet"])
def test_tasks_that_cannot_be_read_are_one_line_that_fails(
    invoke: Callable[..., Ended], tmp_path: Path, source: str
) -> None:
    (tmp_path / "mem.jsonl").symlink_to("/proc/self/mem")  # its first byte is an error
    (tmp_path / "bad.parquet").write_text("PAR1 is not all")
    ended = invoke("doctor", "deepswe_smoke_1gpu", f"data.source={source}")
    assert (ended.code, ended.err) == (1, "")
    assert [row for row in ended.out.splitlines() if row.startswith("FAIL  tasks: ") and source in row]


def test_an_address_where_nobody_listens_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray is missing: pip install 'ray[default]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        begun = time.monotonic()
        found = {c.name: c for c in examine_cluster(load_recipe("deepswe", [f"cluster.ray_address={address}"]))}
    assert time.monotonic() - begun < 30
    assert found["Ray"].finding.startswith(f"Ray at {address} does not answer")


@pytest.mark.rllm
def test_a_real_ray_is_asked_for_its_nodes() -> None:
    ray = pytest.importorskip("ray", reason="ray is missing: pip install 'ray[default]'")
    ray.init(num_cpus=1, num_gpus=8, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        address = ray.get_runtime_context().gcs_address
        ended = subprocess.run(
            [sys.executable, "-m", "aem_swe.cli", "doctor", "deepswe_1node", f"cluster.ray_address={address}"],
            env=environment(), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    finally:
        ray.shutdown()
    assert f"ok    Ray: Ray at {address}: 1 nodes with 8 GPUs or more" in ended.stdout, ended.stderr
