"""Bring a fresh grading sandbox's tree into the state in which it is tested. Runs inside, before any untrusted code.

stdin: {"workdir", "patches": [[base64, [pattern, ...]], ...], "files": {path: base64}, "clear": [path, ...], "stem"}.
stdout: {"refused": why a patch does not apply or null, "configurations", "names", "removed"}.
In this order: copies of pytest's configuration files are made; the patches are applied without what their patterns
exclude; links that they brought and that lead out of the tree are removed; conftest.py files are put back; `clear` is
removed and `files` are written. git works with a repository of its own, so nothing in the tree steers it.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

_CONFIGURATIONS = (
    ("pytest.ini", b""),
    (".pytest.ini", b""),
    ("pyproject.toml", rb"(?m)^\s*\[\s*tool\s*\.\s*pytest\b"),
    ("tox.ini", rb"(?m)^\[pytest\]"),
    ("setup.cfg", rb"(?m)^\[tool:pytest\]"),
)
"""In pytest's order; a file counts if it holds its pattern."""
_ENVIRONMENT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1", "LC_ALL": "C"}
_UNTOUCHABLE = (".venv", ".git", "r2e_tests")
_MAY_BRING_LINKS = (b"120000", b"\nrename to ", b"\ncopy to ")


def copy_configurations(workdir: str, stem: str) -> list[str]:
    """Copy what pytest would obey now under names that nobody knows; the last one is empty and always there."""
    names: list[str] = []
    for name, pattern in _CONFIGURATIONS:
        source = os.path.join(workdir, name)
        if os.path.isfile(source):
            with open(source, "rb") as file:
                content = file.read()
            if re.search(pattern, content):
                names.append(f"{stem}{len(names)}{os.path.splitext(name)[1]}")
                write(os.path.join(workdir, names[-1]), content)
    names.append(f"{stem}{len(names)}.ini")
    write(os.path.join(workdir, names[-1]), b"[pytest]\n")
    return names


def walk(workdir: str) -> tuple[dict[str, bytes], dict[str, str]]:
    """({path: content} of the conftest.py files, {path: target} of the links) in the tree."""
    conftests: dict[str, bytes] = {}
    links: dict[str, str] = {}
    for folder, folders, names in os.walk(workdir):
        if folder == workdir:
            folders[:] = [name for name in folders if name not in (".git", ".venv")]
        for name in (*folders, *names):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                links[path] = os.readlink(path)
            elif name == "conftest.py" and os.path.isfile(path):
                with open(path, "rb") as file:
                    conftests[path] = file.read()
    return conftests, links


def apply(workdir: str, repository: str, patch: bytes, exclude: list[str]) -> str | None:
    """None if the patch was applied, else what git said."""
    command = ["git", "apply", "-p1", "--whitespace=nowarn", *(f"--exclude={pattern}" for pattern in exclude), "-"]
    place = {"GIT_DIR": repository, "GIT_WORK_TREE": workdir, "GIT_CEILING_DIRECTORIES": "/"}
    done = subprocess.run(
        command, cwd=workdir, env={**os.environ, **_ENVIRONMENT, **place}, input=patch, capture_output=True, check=False
    )
    return None if done.returncode == 0 else done.stderr.decode("utf-8", "replace")


def takes_untouchable(patch: bytes) -> str | None:
    """Why a patch that renames or copies is refused: git's --exclude looks at the new names only."""
    for line in re.findall(rb"(?m)^(?:rename|copy) from (.*)$", patch):
        path = line.decode("utf-8", "replace")
        if path.strip('"').split("/")[0] in _UNTOUCHABLE:
            return f"renames or copies {path}, which a patch may not touch"
    return None


def make_repository(folder: str) -> str:
    """An empty repository that takes every file as the bytes it has."""
    for name in ("objects", "refs", "info"):
        os.mkdir(os.path.join(folder, name))
    write(os.path.join(folder, "HEAD"), b"ref: refs/heads/main\n")
    write(os.path.join(folder, "info/attributes"), b"* -text -eol -ident -filter -working-tree-encoding !diff\n")
    settings = b"[core]\nrepositoryformatversion = 0\nbare = false\nautocrlf = false\nprotectNTFS = false\n"
    write(os.path.join(folder, "config"), settings + b"protectHFS = false\nfilemode = true\n")
    return folder


def remove_links(workdir: str, before: dict[str, str]) -> list[str]:
    """Remove links that are new or changed and lead out of the tree."""
    inside = os.path.realpath(workdir)
    removed = []
    for path, target in walk(workdir)[1].items():
        leads_to = os.path.realpath(path)
        if before.get(path) != target and leads_to != inside and not leads_to.startswith(inside + os.sep):
            os.unlink(path)
            removed.append(os.path.relpath(path, workdir))
    return removed


def write(path: str, content: bytes) -> None:
    """Write a regular file, whatever is in its place now: never through a link."""
    parents = os.path.dirname(path)
    while not os.path.isdir(parents) and not os.path.lexists(parents):
        parents = os.path.dirname(parents)
    if not os.path.isdir(parents):
        os.unlink(parents)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    clear(path)
    with open(path, "wb") as file:
        file.write(content)


def clear(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def main() -> None:
    request = json.loads(sys.stdin.read())
    workdir = request["workdir"]
    names = sorted(os.listdir(workdir))
    configurations = copy_configurations(workdir, request["stem"]) if request["stem"] else []
    conftests, links = walk(workdir)
    refused, removed = None, []
    with tempfile.TemporaryDirectory() as scratch:
        repository = make_repository(scratch)
        for encoded, exclude in request["patches"]:
            patch = base64.b64decode(encoded)
            if patch and refused is None:
                refused = takes_untouchable(patch) or apply(workdir, repository, patch, exclude)
                if any(word in patch for word in _MAY_BRING_LINKS):
                    removed += remove_links(workdir, links)
    if "__init__.py" not in names:  # a new one would make the tests part of a package that the patch brings
        clear(os.path.join(workdir, "__init__.py"))
    for path, content in conftests.items():
        if not os.path.isfile(path) or os.path.islink(path):
            write(path, content)
    for path in request["clear"]:
        clear(os.path.join(workdir, path))
    for path, encoded in request["files"].items():
        write(os.path.join(workdir, path), base64.b64decode(encoded))
    reply = {"refused": refused, "configurations": configurations, "names": names, "removed": removed}
    sys.stdout.write(json.dumps(reply))


if __name__ == "__main__":
    main()
