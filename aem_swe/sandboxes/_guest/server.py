"""PID 1 of a sandbox after it is confined: answers one request at a time until the host hangs up.

A message is two lengths (4 bytes each, big-endian), a JSON object, and raw bytes. The host believes nothing of what it
gets; here the host is trusted.
"""

import errno
import json
import os
import struct
from collections.abc import Callable
from typing import Any  # a request is JSON of the host's making

from . import files
from .command import Command, Host, Runner

Reply = tuple[dict[str, object], bytes]


def serve(host: Host, runner: Runner) -> None:
    """Answer until the host hangs up."""
    operations: dict[str, Callable[[dict[str, Any], bytes], Reply]] = {
        "ping": lambda request, body: ({}, b""),
        "run": lambda request, body: _run(runner, request, body),
        "read": lambda request, body: ({}, files.read(request["path"], request["max_bytes"])),
        "write": _write,
        "changes": _changes,
        "kill_all": lambda request, body: _kill_all(runner),
    }
    while True:
        runner.idle()
        message = _receive(host)
        if message is None:
            return
        request, body = message
        try:
            reply, content = operations[request["op"]](request, body)
        except OSError as error:
            reply, content = refusal(error), b""
        except ValueError as error:  # a path that no file can have
            reply, content = {"errno": errno.EINVAL, "message": str(error)}, b""
        send(host, reply, content)


def refusal(error: OSError) -> dict[str, object]:
    """The reply that becomes this error on the host's side."""
    return {"errno": error.errno or 0, "message": error.strerror or str(error)}


def send(host: Host, reply: dict[str, object], content: bytes = b"") -> None:
    header = json.dumps(reply).encode()
    host.sendall(b"".join((struct.pack(">II", len(header), len(content)), header, content)))


def _receive(host: Host) -> tuple[dict[str, Any], bytes] | None:
    lengths = _exactly(host, 8)
    if lengths is None:
        return None
    header_size, body_size = struct.unpack(">II", lengths)
    header, body = _exactly(host, header_size), _exactly(host, body_size)
    if header is None or body is None:
        return None
    return json.loads(header), body


def _exactly(host: Host, size: int) -> bytes | None:
    received = bytearray(size)
    view = memoryview(received)
    while view:
        count = host.recv_into(view)
        if count == 0:
            return None
        view = view[count:]
    return bytes(received)


def _run(runner: Runner, request: dict[str, Any], body: bytes) -> Reply:
    outcome = runner.run(
        Command(
            argv=request["argv"],
            cwd=request["cwd"],
            env=request["env"],
            stdin=body,
            timeout=request["timeout"],
            max_output=request["max_output"],
        )
    )
    return {
        "exit_code": outcome.exit_code,
        "stdout_size": len(outcome.stdout),
        "truncated": outcome.truncated,
        "timed_out": outcome.ending == "timed_out",
        "out_of_memory": outcome.ending == "out_of_memory",
    }, outcome.stdout + outcome.stderr


def _write(request: dict[str, Any], body: bytes) -> Reply:
    entries: list[files.Entry] = []
    start = 0
    for path, kind, size in request["entries"]:
        entries.append((path, kind, body[start : start + size]))
        start += size
    files.write(request["root"], entries)
    return {}, b""


def _changes(request: dict[str, Any], body: bytes) -> Reply:
    baseline = {path: files.Known(size, digest) for path, (size, digest) in request["baseline"].items()}
    found = files.changes(request["root"], baseline, request["max_bytes"])
    entries = [(path, kind, len(content)) for path, kind, content in found]
    return {"entries": entries}, b"".join(content for _, _, content in found)


def _kill_all(runner: Runner) -> Reply:
    runner.kill_all()
    return {}, b""


def end(runner: Runner) -> None:
    """Leave nothing running, then end PID 1 and with it the sandbox."""
    runner.kill_all()
    os._exit(0)
