"""The patch of a container's tree, made by git inside it.

The trees of real tasks are too large to be compared on the host, so git compares them where they are, against an index
of our own outside the tree (`GIT_DIR`), taken before the agent came. What the agent does to the project's .git folder
(hooks, filters, attributes, a broken index) does not matter then. What it does to git itself, or to our index, spoils
nobody's patch but its own: a patch is untrusted bytes that only ever meet a fresh sandbox.
"""

import errno
import secrets

from aem_swe.errors import SandboxError, TaskError
from aem_swe.sandboxes.base import MAX_DIFF, Sandbox
from aem_swe.types import Task

GIT_DIR = "/var/lib/aem-swe/git"
_TIMEOUT_S = 120.0
_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "LC_ALL": "C",
}
_TOO_LARGE = 27
_NO_DISK = ("No space left", "Input/output error", "Read-only file system", "Disk quota exceeded")

_START = """set -e
command -v git > /dev/null || { echo 'the image has no git' >&2; exit 1; }
rm -rf "$GIT_DIR"
mkdir -p "$GIT_DIR/objects" "$GIT_DIR/refs" "$GIT_DIR/info"
echo 'ref: refs/heads/main' > "$GIT_DIR/HEAD"
echo '* -text -eol -ident -filter -working-tree-encoding !diff' > "$GIT_DIR/info/attributes"
printf '/.venv\\n__pycache__/\\n*.pyc\\n' > "$GIT_DIR/info/exclude"
git config core.bare false
git config core.autocrlf false
git config core.protectNTFS false
git config core.protectHFS false
git config core.filemode true
git config core.looseCompression 1
git config gc.auto 0
"""
_BASELINE = """set -e
find . -iname .git ! -path ./.git -prune -exec rm -rf {} +
if [ -d .git ]; then
    env -u GIT_DIR git -c safe.directory='*' ls-files -z > /tmp/.aem-listed || : > /tmp/.aem-listed
    xargs -0 -r -a /tmp/.aem-listed sh -c 'for f; do [ -e "$f" ] || [ -L "$f" ] && printf "%s\\0" "$f"; done; :' sh \\
        > /tmp/.aem-there
    [ ! -s /tmp/.aem-there ] || git --work-tree=. add -f --pathspec-from-file=/tmp/.aem-there --pathspec-file-nul
    rm -f /tmp/.aem-listed /tmp/.aem-there
fi
git --work-tree=. add -A .
git write-tree
"""
_DIFF = f"""set -e
find . -iname .git ! -path ./.git -prune -exec rm -rf {{}} +
size=$(git --work-tree=. ls-files -z -m -o --exclude-standard | sort -zu | xargs -0 -r stat -c %s -- 2>/dev/null \\
    | awk '{{ sum += $1 }} END {{ printf "%d", sum }}') || true
[ "${{size:-0}}" -le {MAX_DIFF} ] || exit {_TOO_LARGE}
git --work-tree=. add -A .
exec git --no-pager diff --cached --binary --full-index --no-renames --no-ext-diff --no-textconv --no-color \\
    --src-prefix=a/ --dst-prefix=b/ "$1"
"""


def take_baseline(sandbox: Sandbox, *, git_dir: str = GIT_DIR) -> str:
    """Make the index anew and return the id of the tree that patches will be compared with.

    Files that git tracks or that the task brings count even where they are ignored; caches and /.venv never do.
    """
    _script(sandbox, _START, git_dir, timeout=_TIMEOUT_S)
    return _script(sandbox, _BASELINE, git_dir, timeout=1200.0).decode().strip()


def add_files(sandbox: Sandbox, task: Task, *, git_dir: str = GIT_DIR) -> str:
    """Add the task's files, which have been written, to the index; return the id of the new tree."""
    listed = b"".join(path.encode() + b"\0" for path, _ in task.files)
    script = "git --work-tree=. add -f --pathspec-from-file=- --pathspec-file-nul && git write-tree"
    return _script(sandbox, script, git_dir, stdin=listed, timeout=_TIMEOUT_S).decode().strip()


def diff_in_place(sandbox: Sandbox, tree: str, *, git_dir: str = GIT_DIR) -> bytes:
    """The patch from `tree` to the sandbox's workdir as it is now. OSError where the agent's files prevent it."""
    environment = {**_ENVIRONMENT, "GIT_DIR": git_dir}
    result = sandbox.run(["sh", "-c", _DIFF, "sh", tree], env=environment, timeout=_TIMEOUT_S, max_output=MAX_DIFF)
    if result.exit_code == _TOO_LARGE or result.truncated:
        raise OSError(errno.EFBIG, f"the diff of the agent's tree, or what it changed, has more than {MAX_DIFF} bytes")
    if result.timed_out or result.out_of_memory:
        limit = f"{_TIMEOUT_S:.0f} s" if result.timed_out else "its memory limit"
        raise OSError(errno.EFBIG, f"the agent's tree is too much for git, which reached {limit}")
    if result.exit_code != 0:
        message = result.stderr[-300:].decode(errors="replace").strip()
        if any(sign in message for sign in _NO_DISK):
            _require_disk_of(sandbox)
        raise OSError(errno.EINVAL, f"git could not compare the agent's tree: {message}")
    return result.stdout


def _require_disk_of(sandbox: Sandbox) -> None:
    """What git says may be an agent's git that says it. Raise SandboxError if the disk is really full."""
    try:
        sandbox.write(f"/.aem-swe-{secrets.token_hex(8)}", bytes(1 << 16))
    except OSError as error:
        _require_disk(str(error))


def _require_disk(message: str) -> None:
    """The engine's disk is nobody's patch: raise SandboxError where it is full or broken."""
    if any(sign in message for sign in _NO_DISK):
        raise SandboxError(f"the engine's disk is full or broken ({message}); free space there (aem-swe sandbox gc)")


def _script(sandbox: Sandbox, script: str, git_dir: str, *, stdin: bytes = b"", timeout: float) -> bytes:
    environment = {**_ENVIRONMENT, "GIT_DIR": git_dir}
    result = sandbox.run(["sh", "-c", script], env=environment, stdin=stdin, timeout=timeout)
    if result.timed_out or result.out_of_memory:
        raise SandboxError("the state before the agent could not be recorded with git within the limits")
    if result.exit_code != 0:
        reason = result.stderr[-300:].decode(errors="replace").strip() or f"exit code {result.exit_code}"
        _require_disk(reason)
        raise TaskError(f"the state before the agent could not be recorded with git: {reason}")
    return result.stdout
