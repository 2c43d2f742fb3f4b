"""What is done inside an ExecSandbox beside the agent's commands: scripts for bash, and an archive of files."""

import io
import tarfile
from collections.abc import Sequence

PYTHONS = (
    "/usr/local/bin/python3",
    "/usr/bin/python3",
    "/opt/miniconda3/bin/python3",
    "python3",
    "python",
    ".venv/bin/python",
)
"""Where a Python for preloaded programs may be. Those outside the project first: an agent may break its project's."""
FIND_PYTHON = """for python; do
    "$python" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 6))' && command -v "$python" && exit
done 2> /dev/null"""
READ = '[ -f "$1" ] && [ -n "$(find -L "$1" -maxdepth 0 -perm /444)" ] && exec head -c "$2" -- "$1"; exit 3'
"""Arguments: path, bytes. Exit code 3 where there is no file that can be read; root could read all of them."""
WRITE = '[ ! -e "$1" ] || [ -f "$1" ] || exit 3; mkdir -p -- "$(dirname -- "$1")" && cat > "$1"'
"""Argument: path; the content on stdin."""


def packed(files: Sequence[tuple[str, bytes]]) -> bytes:
    """A tar of (path, content)."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, content in files:
            header = tarfile.TarInfo(path)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return archive.getvalue()
