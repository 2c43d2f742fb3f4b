"""A sandbox whose PID 1 was taken over can answer anything; the host believes none of it."""

import json
import socket
import struct
import threading
import time

import pytest
from scene import TASK

from aem_swe.errors import SandboxGone, SandboxTimeout
from aem_swe.sandboxes._channel import Channel
from aem_swe.sandboxes._tree import unpack_changes
from aem_swe.sandboxes.local import LocalSandboxes


def message(reply: object, body: bytes = b"", *, lie: int = 0) -> bytes:
    header = json.dumps(reply).encode()
    return struct.pack(">II", len(header), len(body) + lie) + header + body


GOOD = {"exit_code": 0, "stdout_size": 0, "truncated": False, "timed_out": False, "out_of_memory": False}
FORGED = {
    "nothing": b"",
    "half a header": b"\0\0",
    "no json": struct.pack(">II", 3, 0) + b"xyz",
    "no object": message([1]),
    "deep json": struct.pack(">II", 60000, 0) + b"[" * 60000,
    "huge header": struct.pack(">II", 0xFFFF_FFFF, 0),
    "huge body": struct.pack(">II", 2, 0xFFFF_FFFF) + b"{}",
    "body over the cap": message(GOOD, bytes(300_000)),
    "a body that never comes": message(GOOD, b"", lie=5),
    "missing field": message({key: GOOD[key] for key in GOOD if key != "timed_out"}),
    "bool for int": message({**GOOD, "exit_code": True}),
    "int for bool": message({**GOOD, "timed_out": 0}),
    "impossible code": message({**GOOD, "exit_code": 10**9}),
    "negative size": message({**GOOD, "stdout_size": -1}),
    "size beyond the body": message({**GOOD, "stdout_size": 5}, b"abc"),
    "error without text": message({"errno": 2}),
    "an error of a kind": message({"errno": 13, "message": "no"}),
}


@pytest.mark.parametrize("reply", FORGED.values(), ids=FORGED)
def test_a_forged_result_ends_the_sandbox(auto: LocalSandboxes, reply: bytes) -> None:
    with auto.open(TASK) as sandbox:
        ours, theirs = socket.socketpair()
        sandbox._channel.close()
        sandbox._channel = Channel(ours)
        threading.Thread(target=_answer_once, args=(theirs, reply)).start()
        with pytest.raises(SandboxGone):
            sandbox.run(["true"])
        assert not sandbox.alive()


def _answer_once(peer: socket.socket, reply: bytes) -> None:
    with peer:
        peer.recv(1 << 16)
        peer.sendall(reply)


CHANGE_LISTS: dict[str, object] = {
    "a path outside": [["../x", "file", 0]],
    "an absolute path": [["/etc/passwd", "file", 0]],
    "no list": {"a": 1},
    "a short item": [["a", "file"]],
    "an unknown kind": [["a", "device", 0]],
    "a negative size": [["a", "file", -1]],
    "twice the same": [["a", "file", 0], ["a", "file", 0]],
    "more than there is": [["a", "file", 100]],
    "less than there is": [["a", "file", 1]],
}


@pytest.mark.parametrize("entries", CHANGE_LISTS.values(), ids=CHANGE_LISTS)
def test_a_forged_list_of_changes_is_refused(entries: object) -> None:
    ours, theirs = socket.socketpair()
    threading.Thread(target=_answer_once, args=(theirs, message({"entries": entries}, b"xyz"))).start()
    with pytest.raises(SandboxGone), ours:
        unpack_changes(Channel(ours).request({"op": "changes"}, timeout=5, max_body=10))


def test_a_reply_that_drips_meets_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def drip() -> None:
        with theirs:
            theirs.sendall(struct.pack(">II", 1000, 0))
            while not stop.wait(0.05):
                theirs.sendall(b" ")

    thread = threading.Thread(target=drip)
    thread.start()
    started = time.monotonic()
    with pytest.raises(SandboxTimeout):
        Channel(ours).request({}, timeout=0.4)
    assert time.monotonic() - started < 2
    stop.set()
    thread.join()
    ours.close()
