"""Images that need no registry: a base image made of this machine's own files, and others on top of it.

`docker pull` is not possible everywhere, and a demo should not need it. The base has bash, git, the usual small
programs, Python with its standard library, and pytest: about 100 MB in about 10 seconds. It is handed to the engine as
a tar over its API, so a remote engine or Podman's socket will do. Not covered: systems without glibc.

    client = docker.from_env()
    build_base(client)                       # docker run -it --network none aem-swe/base bash
    build_r2e_image(client, project)         # the same with a project in R2E-Gym's form
"""

import contextlib
import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from typing import IO

import docker
import requests
from docker.errors import APIError, BuildError, ImageNotFound

from aem_swe.errors import SandboxTimeout, SandboxUnavailable
from aem_swe.sandboxes import _image_host as host
from aem_swe.sandboxes import _image_python as python
from aem_swe.sandboxes._image_layer import Layer
from aem_swe.sandboxes._image_python import download_wheel
from aem_swe.sandboxes._image_r2e import Files, History, Project, apply_patch, environment, make_history, project_layer
from aem_swe.sandboxes._image_swebench import Commits, Repository, make_commits, swebench_layer
from aem_swe.sandboxes.reaper import LABEL, labels_of_this_process

__all__ = [
    "BASE_TAG",
    "Client",
    "Commits",
    "Files",
    "History",
    "Project",
    "Repository",
    "apply_patch",
    "build_base",
    "build_r2e_image",
    "build_swebench_image",
    "download_wheel",
    "make_commits",
    "make_history",
    "r2e_tag",
    "run_once",
    "swebench_tag",
]
BASE_TAG = "aem-swe/base:latest"
DIGEST_LABEL = f"{LABEL}.digest"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FORMAT = "2"
"""Raise it when the same host files shall make another image."""
_LIFETIME_S = 600.0
_PASSWD = b"root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/bin/false\n"
_GROUP = b"root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"
_NSSWITCH = b"passwd: files\ngroup: files\nhosts: files dns\n"
_FOLDERS = {"tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700}
_EMPTY = ("dev", "home", "opt", "proc", "run", "sys", "testbed", "usr/local/lib", "var/log")
Client = docker.DockerClient
Progress = Callable[[str], None]


def recipe_digest() -> str:
    """Hash what the base image is meant to hold, the same on every machine."""
    return hashlib.sha256(json.dumps([_FORMAT, host.PROGRAMS, python.requirements()]).encode()).hexdigest()


def build_base(client: Client, tag: str = BASE_TAG, progress: Progress | None = None) -> str:
    """Make the base image unless the engine has it with the same content; return its tag. Raises SandboxUnavailable
    that says what this machine lacks."""
    programs = host.find_programs()
    interpreter = python.host_python()
    layer = Layer()
    host.add_programs(layer, programs)
    interpreter.add(layer)
    host.add_libraries(layer, [*programs.values(), *interpreter.extensions()], interpreter.own_libraries())
    _add_system(layer)
    digest = layer.digest(recipe_digest(), interpreter.version, interpreter.packages)
    if image_label(client, tag, DIGEST_LABEL) == digest:
        return tag
    if progress:
        progress(f"making {tag} of this machine's own programs")
    python.add_pytest(layer, interpreter)
    python.add_byte_code(layer, interpreter)
    before = client.images.list(tag)
    with tempfile.TemporaryFile() as file:
        layer.save(file)
        file.seek(0)
        _import(client, file, tag, {LABEL: "image", DIGEST_LABEL: digest})
    for image in before:  # it has lost its name now
        with contextlib.suppress(APIError):  # still in use: it goes with what uses it
            client.images.remove(str(image.id))
    return tag


def r2e_tag(project: Project) -> str:
    """Return the name of a project's image, which says what is in it."""
    digest = hashlib.sha256(f"{recipe_digest()} {project.digest()}".encode()).hexdigest()
    return f"aem-swe/r2e-{project.name}:{digest[:16]}"


def build_r2e_image(client: Client, project: Project) -> str:
    """Make a project's image unless the engine has it; return its tag. The base image must be there."""
    tag = r2e_tag(project)
    if image_label(client, tag, LABEL) is None:
        build_on_base(client, tag, project_layer(project), environment())
    return tag


def swebench_tag(repository: Repository) -> str:
    """Return the name of a repository's image in SWE-bench's form, which says what is in it."""
    digest = hashlib.sha256(f"{recipe_digest()} {repository.digest()}".encode()).hexdigest()
    return f"aem-swe/swebench-{repository.name}:{digest[:16]}"


def build_swebench_image(client: Client, repository: Repository) -> str:
    """Make a repository's image unless the engine has it; return its tag. The base image must be there."""
    tag = swebench_tag(repository)
    if image_label(client, tag, LABEL) is None:
        build_on_base(client, tag, swebench_layer(repository, python.host_python().packages), {})
    return tag


def build_on_base(client: Client, tag: str, layer: Layer, env: dict[str, str]) -> str:
    """Make the image `tag`: the base image with a layer of files on top. The base image must be there."""
    lines = [f"FROM {BASE_TAG}", "ADD layer.tar /", f"LABEL {LABEL}=image"]
    lines += [f"ENV {name}={json.dumps(value)}" for name, value in env.items()]
    with tempfile.TemporaryFile() as inner, tempfile.TemporaryFile() as context:
        layer.save(inner)
        _pack(context, [("Dockerfile", io.BytesIO("\n".join(lines).encode() + b"\n")), ("layer.tar", inner)])
        try:
            client.images.build(fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True)
        except (BuildError, APIError) as error:
            raise SandboxUnavailable(f"image {tag} cannot be built on {BASE_TAG}: {error}") from error
    return tag


def image_label(client: Client, tag: str, name: str) -> str | None:
    """Return a label of an image, "" if the image has no such label, None if the engine has no such image."""
    try:
        labels = client.images.get(tag).labels
    except ImageNotFound:
        return None
    return str(labels.get(name, ""))


def run_once(client: Client, tag: str, script: str, files: Iterable[tuple[str, bytes]] = ()) -> tuple[int, str]:
    """Run a bash script of ours in a throw-away container without network; return its exit code and output. `files`
    are put into /tmp first. Not for code that an agent wrote: nothing but the network and the time is limited."""
    labels = labels_of_this_process("", _LIFETIME_S)
    container = client.containers.create(tag, ["bash", "-c", script], network_mode="none", labels=labels)
    try:
        with io.BytesIO() as packed:
            _pack(packed, [(name, io.BytesIO(content)) for name, content in files])
            container.put_archive("/tmp", packed.getvalue())
        container.start()
        code = int(container.wait(timeout=_LIFETIME_S)["StatusCode"])
        return code, container.logs().decode("utf-8", "replace")
    except requests.exceptions.RequestException as error:
        raise SandboxTimeout(f"a script in {tag} did not end within {_LIFETIME_S:g} s, or its engine went") from error
    finally:
        container.remove(force=True)


def _add_system(layer: Layer) -> None:
    layer.write("etc/passwd", _PASSWD)
    layer.write("etc/group", _GROUP)
    layer.write("etc/nsswitch.conf", _NSSWITCH)
    for path in _EMPTY:
        layer.folder(path)
    for path, mode in _FOLDERS.items():
        layer.folder(path, mode)
    layer.links_into_usr()


def _import(client: Client, file: IO[bytes], tag: str, labels: dict[str, str]) -> None:
    """Stream a tar to the engine as the whole content of an image."""
    repository, _, version = tag.rpartition(":")
    changes = [f"ENV PATH={PATH}", "ENV LANG=C.UTF-8", "WORKDIR /testbed", 'CMD ["/bin/bash"]']
    changes += [f"LABEL {name}={value}" for name, value in labels.items()]
    try:
        said = client.api.import_image_from_data(file, repository, version, changes)
    except APIError as error:
        raise SandboxUnavailable(f"the engine refused the image {tag}: {error}") from error
    if "errorDetail" in said:
        raise SandboxUnavailable(f"the engine could not import the image {tag}: {said.strip().splitlines()[-1]}")


def _pack(to: IO[bytes], files: Iterable[tuple[str, IO[bytes]]]) -> None:
    """Write a small tar and go back to its start."""
    with tarfile.open(fileobj=to, mode="w") as tar:
        for name, content in files:
            header = tarfile.TarInfo(name)
            header.size = content.seek(0, io.SEEK_END)
            content.seek(0)
            tar.addfile(header, content)
    to.seek(0)
