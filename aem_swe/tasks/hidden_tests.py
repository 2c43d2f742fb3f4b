"""The hidden tests of an R2E-Gym row: what the row holds, and what only its image holds, kept there under a seal.

The row has the code of the test files. Some images have more beside them (Pillow's helper.py, Pyramid's fixtures) and
all have run_tests.sh. The image's set-up packs that into one archive, encrypts it with a key that is made from the row,
and removes the files (sandboxes/r2e_setup.sh); the grader reads it back here, on the host. Where both have a file, the
row's wins.
"""

import hashlib
import io
import tarfile
from dataclasses import dataclass

from aem_swe.errors import SandboxError
from aem_swe.sandboxes.base import Sandbox
from aem_swe.types import Task

FOLDER = "r2e_tests"
SEALED_AT = "/var/lib/aem-swe/r2e_tests.sealed"
_MAX_BYTES = 64 << 20

Files = tuple[tuple[str, bytes], ...]
"""((path relative to the repository, content), ...)"""


def seal_key(row_tests: str) -> str:
    """The key of an image's archive, in hex: whoever has the row's tests can read the image's."""
    return hashlib.sha256(b"aem-swe hidden tests\0" + row_tests.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class HiddenTests:
    """The tests of one row. Never part of a Task."""

    files: Files
    """Below r2e_tests/."""
    key: str
    sealed_at: str = SEALED_AT

    def collect(self, task: Task, sandbox: Sandbox) -> dict[str, bytes]:
        """{path relative to the repository: content} from the row and from a sandbox in which nothing ran yet."""
        return {**self._sealed(task, sandbox), **dict(self.files)}

    def _sealed(self, task: Task, sandbox: Sandbox) -> dict[str, bytes]:
        try:
            sealed = sandbox.read(self.sealed_at, max_bytes=_MAX_BYTES)
        except FileNotFoundError:
            return {}
        try:
            return unseal(sealed, self.key)
        except (tarfile.TarError, OSError) as error:
            raise SandboxError(f"{task.id}: the hidden tests that its image keeps cannot be read: {error}") from error


def unseal(sealed: bytes, key: str) -> dict[str, bytes]:
    """Decrypt the archive that r2e_setup.sh made. Raises TarError with another key."""
    stream = hashlib.shake_256(bytes.fromhex(key)).digest(len(sealed))
    plain = (int.from_bytes(sealed) ^ int.from_bytes(stream)).to_bytes(len(sealed))
    files = {}
    with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as tar:
        for member in tar:
            path = member.name.removeprefix("./")
            if member.isfile() and (path == "run_tests.sh" or path.startswith(f"{FOLDER}/")) and ".." not in path:
                content = tar.extractfile(member)
                assert content is not None, "a regular file has content"
                files[path] = content.read()
    return files
