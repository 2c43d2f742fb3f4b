"""A git patch from two sets of files, made by git in a sandbox of its own.

The agent's tree is never shown to a git process as it is: its files come here as data and are written into a fresh
sandbox, so a full disk, a .git folder, hooks, file modes or leftover processes of the agent cannot touch the patch.
.gitignore files count, as in `git add -A`; attributes that would rewrite contents are overruled.
"""

import errno
import hashlib
from collections.abc import Callable, Mapping, Sequence

from aem_swe.errors import SandboxError
from aem_swe.sandboxes._guest_sandbox import GuestSandbox
from aem_swe.sandboxes._tree import Entry, unpack_changes
from aem_swe.sandboxes.base import MAX_DIFF, Sandbox

_TIMEOUT_S = 60.0
_MAX_LISTING = 8 << 20
_ENVIRONMENT = {
    "GIT_DIR": "git",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
}
_REPOSITORY = {
    "git/HEAD": b"ref: refs/heads/main\n",
    "git/info/attributes": b"* -text -eol -ident -filter -working-tree-encoding !diff\n",
    "git/config": b"[core]\nrepositoryformatversion=0\nbare=false\nfilemode=true\nautocrlf=false\n"
    b"protectNTFS=false\nprotectHFS=false\nlooseCompression=0\n",
}
_SCRIPT = """set -e
patch() {
    exec git --work-tree=new --no-pager diff --binary --full-index --no-renames --no-ext-diff --no-textconv \\
        --no-color --src-prefix=a/ --dst-prefix=b/ "$@"
}
git --work-tree=old add -A -f .
[ "$1" -gt 0 ] || patch
tree=$(git write-tree)
git --work-tree=new add -A .
patch --cached "$tree"
"""
"""In a workdir that holds the folders old, new and git. $1: how many files old does not have.

With any, .gitignore has to be asked, and a file may have become a folder; without, the index of old is all that git
needs, in half the processes.
"""


def diff_of_contents(
    sandbox: GuestSandbox, workdir: str, before: Mapping[str, bytes], scratch: Callable[[], GuestSandbox]
) -> bytes:
    """The patch from the files `before` to what `workdir` of `sandbox` holds now, made in a sandbox of `scratch`."""
    baseline = {path: (len(data), hashlib.sha256(data).hexdigest()) for path, data in before.items()}
    header = {"op": "changes", "root": workdir, "baseline": baseline, "max_bytes": MAX_DIFF}
    changes = unpack_changes(sandbox.request(header, max_header=_MAX_LISTING, max_body=MAX_DIFF))
    if not changes:
        return b""
    with scratch() as other:
        other.write_all(changed_files(before, changes))
        return make_patch(other, new=sum(entry.path not in before for entry in changes))


def changed_files(before: Mapping[str, bytes], after: Sequence[Entry]) -> list[Entry]:
    """What git has to compare: the two versions of each changed file below old/ and new/, and every .gitignore.

    With the few files of an empty repository below git/, which spares running git init.
    """
    changed = {entry.path for entry in after}
    ignores = [path for path in before if path not in changed and path.rpartition("/")[2] == ".gitignore"]
    old = [Entry(f"old/{path}", "file", before[path]) for path in (*ignores, *changed) if path in before]
    new = [Entry(f"new/{entry.path}", entry.kind, entry.content) for entry in after if entry.kind != "gone"]
    new += [Entry(f"new/{path}", "file", before[path]) for path in ignores]
    folders = [Entry(name, "folder", b"") for name in ("old", "new", "git/objects", "git/refs")]
    return [*folders, *old, *new, *(Entry(path, "file", content) for path, content in _REPOSITORY.items())]


def make_patch(scratch: Sandbox, *, new: int) -> bytes:
    """The patch from old/ to new/, of which `new` files are not in old/, in the workdir of `scratch`.

    OSError where the agent's files are too much for git.
    """
    command = ["sh", "-c", _SCRIPT, "sh", str(new)]
    result = scratch.run(command, env=_ENVIRONMENT, timeout=_TIMEOUT_S, max_output=MAX_DIFF)
    if result.truncated or result.timed_out or result.out_of_memory:
        raise OSError(errno.EFBIG, f"the diff of the agent's tree has more than {MAX_DIFF} bytes")
    if result.exit_code == 127:
        raise SandboxError("sandboxes need git below /usr and found none; install it (for example: apt install git)")
    if result.exit_code != 0:
        message = result.stderr[-300:].decode(errors="replace").strip()
        raise OSError(errno.EINVAL, f"git could not compare the agent's tree: {message}")
    return result.stdout
