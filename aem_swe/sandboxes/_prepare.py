"""From a task's image to what an agent may see: run its set-up, and record the tree that patches are compared with."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from aem_swe.errors import TaskError
from aem_swe.sandboxes._engine import Container
from aem_swe.sandboxes._git import take_baseline
from aem_swe.sandboxes._guest_sandbox import GuestSandbox
from aem_swe.sandboxes.base import SandboxLimits

PREPARING = SandboxLimits(memory_mb=4096, processes=512, disk_mb=4096, command_timeout_s=1200.0)


@dataclass(frozen=True, slots=True)
class Key:
    """Sandboxes with the same key start from the same prepared image."""

    image: str
    setup: str
    workdir: str

    @property
    def digest(self) -> str:
        return hashlib.sha256("\0".join((self.image, self.setup, self.workdir)).encode()).hexdigest()[:20]


def record_tree(container: Container, key: Key, image_environment: Mapping[str, str]) -> str:
    """Run the set-up in a fresh container; return the id of the tree. Raises TaskError where either fails."""
    sandbox = GuestSandbox(
        container.channel,
        workdir=key.workdir,
        limits=PREPARING,
        environment=environment_of(image_environment),
        kill=lambda: None,
        closed=lambda: None,
        take_diff=lambda _: b"",
        explain=container.explain,
        linger_s=0.0,
    )
    sandbox.run(["mkdir", "-p", key.workdir], cwd="/")
    _set_up(sandbox, key)
    try:
        tree = take_baseline(sandbox)
    except TaskError as error:
        raise TaskError(f"image {key.image!r} cannot be used: {error}") from error
    sandbox.kill_all()
    return tree


def _set_up(sandbox: GuestSandbox, key: Key) -> None:
    if not key.setup:
        return
    result = sandbox.run(["bash", "-c", key.setup])
    if result.exit_code != 0:
        last = (result.stderr or result.stdout)[-500:].decode(errors="replace").strip()
        what = "reached its time limit" if result.timed_out else f"failed with exit code {result.exit_code}"
        raise TaskError(f"the setup of image {key.image!r} {what}: {last}")


def environment_of(image: Mapping[str, str]) -> dict[str, str]:
    """The image's own, with what every command should find; nothing is taken from the trainer's."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "HOME": "/root", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", **image}
