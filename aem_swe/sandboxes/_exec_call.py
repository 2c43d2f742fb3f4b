"""How a script travels through a door that may quote, translate or limit the text of a call: as base64."""

import base64
from collections.abc import Sequence

MAX_TEXT = 60_000
"""Characters of one call; Modal takes 64 KiB of arguments, Linux 128 KiB in one of them."""


def in_line(script: bytes) -> str:
    """A call that runs a script of moderate length."""
    return f"bash -c \"$(printf %s '{_encode(script)}' | tr -- -_ +/ | base64 -d)\""


def in_pieces(script: bytes, name: str) -> list[str]:
    """Calls that put a long script into a file piece by piece, and run and remove it."""
    encoded = _encode(script)
    where = f"f=/dev/shm/{name}; [ -w /dev/shm ] || f=/tmp/{name}; "
    pieces = [encoded[start : start + MAX_TEXT] for start in range(0, len(encoded), MAX_TEXT)]
    calls = [f"{where}printf %s '{piece}' >> $f || {{ rm -f $f; false; }}" for piece in pieces]
    calls.append(f"{where}tr -- -_ +/ < $f | base64 -d > $f.sh; rm -f $f; bash $f.sh; c=$?; rm -f $f.sh; (exit $c)")
    return calls


def encoded(words: Sequence[str]) -> list[bytes] | None:
    """The words as a program gets them; None where one cannot be an argument."""
    try:
        found = [word.encode("utf-8", "surrogateescape") for word in words]
    except UnicodeEncodeError:
        return None
    return None if any(b"\0" in word for word in found) else found


def _encode(script: bytes) -> str:
    """base64 without a slash: rLLM's local backend rewrites what looks like its paths."""
    return base64.urlsafe_b64encode(script).decode()
