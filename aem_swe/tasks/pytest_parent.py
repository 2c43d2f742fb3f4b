"""The trusted parent of a test run. Runs inside a grading sandbox, in the sandbox's own interpreter.

stdin: {"marker", "argv", "source", "settings", "environment", "keep", "workdir", "max_output"}. stdout: one line, the
marker and a JSON object: "started" (why it could not be, else null), "exit_code", "told" (what the child handed back
with its nonce, or null), "stdout" and "stderr" (base64, the latter only its end), "truncated".

The process is not dumpable, so nothing that runs in the sandbox can read its memory or its descriptors. The child gets
two pipes beside its output: one in which a nonce waits, one to hand it back. What a child says without the nonce does
not count. The time limit is the sandbox's.
"""

import base64
import ctypes
import json
import os
import secrets
import selectors
import subprocess
import sys
import zlib

_SET_DUMPABLE = 4
_STDERR_END = 8192
_MAX_TOLD = 65536


def hide() -> None:
    """Make this process undumpable, where the interpreter can call prctl."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    except (OSError, AttributeError):
        return


class Collected:
    """What came out of one pipe, up to a limit."""

    def __init__(self, limit: int, *, end: bool = False) -> None:
        self.data, self.limit, self.end, self.more = bytearray(), limit, end, False

    def add(self, data: bytes) -> None:
        self.data += data
        if len(self.data) > self.limit:
            self.more = True
            if self.end:
                del self.data[: -self.limit]
            else:
                del self.data[self.limit :]


def collect(child: "subprocess.Popen[bytes]", pipes: dict[int, Collected]) -> int:
    """Read the pipes until the child has ended and what it left in them is read; its exit code.

    Not until they are closed: a process that the child left behind may hold them.
    """
    ended = os.pidfd_open(child.pid)
    with selectors.DefaultSelector() as selector:
        selector.register(ended, selectors.EVENT_READ)
        for pipe in pipes:
            os.set_blocking(pipe, False)
            selector.register(pipe, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            for pipe in ready - {ended}:
                if not _read(pipe, pipes[pipe]):
                    selector.unregister(pipe)
            if ended in ready:
                for pipe in pipes:
                    while _read(pipe, pipes[pipe], once=True):
                        pass
                return child.wait()


def _read(pipe: int, collected: Collected, *, once: bool = False) -> bool:
    """Read what is there; False at the end of the pipe, and with `once` also where nothing is there now."""
    try:
        data = os.read(pipe, 1 << 16)
    except BlockingIOError:
        return not once
    # what still comes after the end is limited, or a process left behind could keep us busy
    collected.add(data)
    return bool(data) and not (once and collected.more)


def run(request: dict[str, object]) -> dict[str, object]:
    argv, keep = request["argv"], request["keep"]
    assert isinstance(argv, list) and isinstance(keep, list) and isinstance(request["environment"], dict)
    environment = {name: value for name, value in os.environ.items() if _kept(name, keep)}
    environment.update(request["environment"])
    nonce = secrets.token_hex(16).encode()
    hand, hand_in = os.pipe()
    back_out, back = os.pipe()
    out_read, out = os.pipe()
    err_read, err = os.pipe()
    os.write(hand_in, nonce)
    os.close(hand_in)
    command = [*argv, "-c", request["source"], json.dumps(request["settings"]), str(hand), str(back), str(out)]
    try:
        child = subprocess.Popen(
            command, cwd=str(request["workdir"]), env=environment, stdin=subprocess.DEVNULL, stdout=err, stderr=err,
            pass_fds=(hand, back, out), start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return {"started": f"{argv[0]}: {error.strerror}"}
    for descriptor in (hand, back, out, err):
        os.close(descriptor)
    limit = request["max_output"]
    assert isinstance(limit, int)
    stdout, stderr, told = Collected(limit), Collected(_STDERR_END, end=True), Collected(_MAX_TOLD)
    exit_code = collect(child, {out_read: stdout, err_read: stderr, back_out: told})
    head, _, said = bytes(told.data).partition(b" ")
    return {
        "started": None,
        "exit_code": exit_code,
        "told": said.decode("utf-8", "replace") if head == nonce and not told.more else None,
        "stdout": base64.b64encode(zlib.compress(bytes(stdout.data), 1)).decode(),
        "stderr": base64.b64encode(zlib.compress(bytes(stderr.data), 1)).decode(),
        "truncated": stdout.more,
    }


def _kept(name: str, keep: list[str]) -> bool:
    """Whether the child may see a variable: by its name, or by its beginning where the entry ends with *."""
    return any(name == entry or (entry.endswith("*") and name.startswith(entry[:-1])) for entry in keep)


def main() -> None:
    hide()
    request = json.loads(sys.stdin.read())
    reply = run(request)
    sys.stdout.write(f"{request['marker']} {json.dumps(reply)}\n")


if __name__ == "__main__":
    main()
