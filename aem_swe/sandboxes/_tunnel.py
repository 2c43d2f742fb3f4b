"""A remote engine over ssh: the engine's socket, forwarded by the ssh program to a socket of this user's own."""

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from aem_swe.errors import EngineUnreachable

_WAIT_S = 20.0
_REMOTE_SOCKET = "/var/run/docker.sock"


@contextlib.contextmanager
def open_tunnel(url: str) -> Iterator[str]:
    """Yield the local unix:// address of ssh://user@host[:port][/path/of/socket]. EngineUnreachable where ssh fails."""
    host, _, path = url.removeprefix("ssh://").partition("/")
    with tempfile.TemporaryDirectory(prefix="aem-swe-ssh-") as folder:
        address = Path(folder) / "engine.sock"
        forward = f"{address}:{'/' + path if path else _REMOTE_SOCKET}"
        options = ["-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=15"]
        command = ["ssh", "-N", "-T", *options, "-L", forward, f"ssh://{host}"]
        try:
            tunnel = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        except FileNotFoundError as error:
            raise EngineUnreachable(f"engine {url} needs the ssh program; install it (openssh-client)") from error
        try:
            deadline = time.monotonic() + _WAIT_S
            while not address.exists():
                if tunnel.poll() is not None or time.monotonic() > deadline:
                    tunnel.kill()
                    assert tunnel.stderr
                    said = tunnel.stderr.read()[-300:].decode(errors="replace").strip()
                    raise EngineUnreachable(f"engine {url} cannot be reached by ssh ({said}); try: ssh {host} true")
                time.sleep(0.05)
            yield f"unix://{address}"
        finally:
            tunnel.terminate()
            tunnel.wait()
            if tunnel.stderr:
                tunnel.stderr.close()
