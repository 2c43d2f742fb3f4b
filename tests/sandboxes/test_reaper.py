"""Which containers may be removed, judged by their labels alone."""

import json
import subprocess
import sys
import time

import pytest

from aem_swe.sandboxes.reaper import LABEL, is_stale, labels_of_this_process


def test_a_container_of_a_living_process_stays_until_it_expires() -> None:
    labels = labels_of_this_process("run", 100.0)
    assert not is_stale(labels, now=time.time())
    assert is_stale(labels, now=time.time() + 101)


def test_a_container_whose_owner_has_ended_is_stale() -> None:
    code = (
        "import json; from aem_swe.sandboxes.reaper import labels_of_this_process as l; print(json.dumps(l('r', 1e6)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    labels = json.loads(ended.stdout)
    assert is_stale(labels, now=time.time())


def test_a_new_process_with_the_old_pid_is_not_the_owner() -> None:
    labels = labels_of_this_process("run", 100.0)
    machine, pid, started = labels[f"{LABEL}.owner"].split(":")
    assert is_stale(labels | {f"{LABEL}.owner": f"{machine}:{pid}:{int(started) + 1}"}, now=time.time())


def test_a_container_of_another_machine_stays_until_it_expires() -> None:
    labels = labels_of_this_process("run", 100.0)
    _, pid, started = labels[f"{LABEL}.owner"].split(":")
    elsewhere = labels | {f"{LABEL}.owner": f"other:{pid}:{int(started) + 1}"}
    assert not is_stale(elsewhere, now=time.time())
    assert is_stale(elsewhere, now=time.time() + 101)


def test_what_is_not_ours_is_never_stale() -> None:
    for labels in ({}, {LABEL: "volume"}, {LABEL: "container"}, {LABEL: "container", f"{LABEL}.expires": "soon"}):
        assert not is_stale(labels, now=1e12)


def test_where_another_users_processes_are_hidden_a_running_pid_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = labels_of_this_process("run", 100.0)
    machine, pid, started = labels[f"{LABEL}.owner"].split(":")
    monkeypatch.setattr("aem_swe.sandboxes.reaper._owner", lambda pid: f"{machine}:{pid}:")

    def refused(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr("aem_swe.sandboxes.reaper.os.kill", refused)
    assert not is_stale(labels, now=time.time())
    monkeypatch.undo()
    assert pid and started and not is_stale(labels, now=time.time())
