"""Container engines for tests: the machine's own, and private ones that a test may stop."""

import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker
from docker.errors import DockerException, ImageNotFound

from aem_swe.errors import SandboxError
from aem_swe.sandboxes.images import BASE_TAG, build_base
from aem_swe.sandboxes.reaper import LABEL


@functools.cache
def no_engine() -> str | None:
    """None where an engine answers and has the base image (built now), else why not."""
    try:
        with contextlib.closing(docker.from_env(timeout=120)) as client:
            build_base(client)
    except (DockerException, SandboxError) as error:
        return f"no container engine: {str(error)[:200]}; start one (dockerd) to run these tests"
    return None


def containers_of(run: str, url: str = "") -> list[str]:
    """Ids of all containers, running or not, that carry this run's label."""
    with contextlib.closing(docker.DockerClient(base_url=url) if url else docker.from_env()) as client:
        return [c["Id"] for c in client.api.containers(all=True, filters={"label": f"{LABEL}.run={run}"})]


class PrivateEngine:
    """A dockerd of a test's own, with the base image in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"unix://{folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        places = {"--data-root": "data", "--exec-root": "exec", "--pidfile": "pid"}
        # a network namespace of its own: it would take the bridge of the machine's engine away
        command = ["unshare", "-n", "dockerd", "-H", self.url, "--bridge=none", "--iptables=false", "--ip-masq=false"]
        command += [f"{option}={self._folder / name}" for option, name in places.items()]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline, (self._folder / "log").read_text()[
                -2000:
            ]
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with contextlib.closing(docker.DockerClient(base_url=self.url, timeout=2)) as client:
                return bool(client.ping())
        except DockerException:
            return False

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def copy_base(self) -> None:
        """Bring the base image over from the machine's own engine."""
        with contextlib.closing(docker.DockerClient(base_url=self.url, timeout=120)) as mine:
            try:
                mine.images.get(BASE_TAG)
            except ImageNotFound:
                with contextlib.closing(docker.from_env(timeout=120)) as theirs:
                    mine.images.load(theirs.images.get(BASE_TAG).save(named=True))


@contextlib.contextmanager
def private_engine() -> Iterator[PrivateEngine]:
    folder = Path(tempfile.mkdtemp(prefix="aem-"))  # short: a socket's path has at most 107 bytes
    engine = PrivateEngine(folder)
    engine.start()
    try:
        engine.copy_base()
        yield engine
    finally:
        engine.stop()
        subprocess.run(["umount", "-R", "-l", str(folder / "data"), str(folder / "exec")], stderr=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)


def can_start_engines() -> bool:
    return os.geteuid() == 0 and shutil.which("dockerd") is not None
