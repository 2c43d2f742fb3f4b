"""The shell text that carries one command into a sandbox whose only door is `exec(text) -> text`, and its answer back.

What a command prints is bytes, may have no end, and may be held open by a process that it left behind; what the door
returns is the decoded output of a script that must end. So the script gives the command two named pipes, copies each
into a file of limited size, writes a mark of its own behind what the command wrote (until that has arrived, output is
missing), and prints exit code and files as base64.

Needs bash 4, the few programs of TOOLS, and /proc. The script finds and kills processes without starting any, so a
fork bomb does not stop it.
"""

import base64
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("base64", "bash", "cat", "env", "grep", "head", "mkfifo", "mktemp", "rm", "tar", "tr")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a script reported of its command."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class Belonging:
    """Which processes are the sandbox's own: all but `spared`, or, where that is not safe, those that carry `mark`."""

    spared: str = ""
    """pid:start time of each process that was there before, between spaces."""
    mark: str = ""
    """NAME=VALUE in the environment of every command."""


_PRELUDE = r"""exec 2> /dev/null 9<> <(:)
look() {
    local stat=
    IFS= read -r -d '' stat < "/proc/$1/stat"
    [ -n "$stat" ] || return 1
    set -- ${stat##*) }
    state=$1 parent=$2 began=${20}
}
kill_rest() {
    local mine=' ' pid=$BASHPID again entry marked round
    while [ "${pid:-0}" -gt 0 ] && look "$pid"; do mine+="$pid " pid=$parent; done
    for round in {1..300}; do
        again=
        for pid in /proc/[0-9]*; do
            pid=${pid#/proc/}
            [[ $mine == *" $pid "* ]] && continue
            look "$pid" || continue
            [[ $state == [ZX] || $spared == *" $pid:$began "* ]] && continue
            if [ -n "$mark" ]; then
                marked=
                while IFS= read -r -d '' entry; do [ "$entry" = "$mark" ] && marked=1; done < "/proc/$pid/environ"
                [ -n "$marked" ] || continue
            fi
            kill -9 "$pid" && again=1
        done
        [ -n "$again" ] || return 0
        read -r -t 0.01 -u 9
    done
}
"""
_RUN = r"""
for base in /dev/shm /tmp /var/tmp; do
    place=$(mktemp -d "$base/.aem-$name-XXXXXXXX") || continue
    mkfifo "$place/1" "$place/2" && printf '%65536s' '' > "$place/out" && printf %s "$stdin" | base64 -d > "$place/in" \
        && [ "${PIPESTATUS[1]}" = 0 ] && break
    rm -rf "$place"
    place=
done
[ -n "$place" ] || { printf '%s full\n' "$nonce"; exit 0; }
trap 'rm -rf "$place"' EXIT
collect() {
    (trap '' XFSZ; ulimit -f $(((cap + 64) / 1024 + 1)); exec cat)
    : > "$1.full"
    exec cat > /dev/null
}
arrived() { [ -e "$2.full" ] || LC_ALL=C grep -qF -- "$nonce" "$1"; }
collect "$place/1" < "$place/1" > "$place/out" &
collect "$place/2" < "$place/2" > "$place/err" &
exec 7<> "$place/1" 8<> "$place/2"
set -m
(exec 7>&- 8>&- 9>&-; cd -- "$folder" || exit 126; exec env @ENV@ @ARGV@) < "$place/in" > "$place/1" 2> "$place/2" &
pid=$!
set +m
(
    exec 7>&- 8>&- > /dev/null
    read -r -t "$limit" -u 9
    look "$BASHPID" && [ "$parent" = "$$" ] || exit  # an orphan would kill whoever has that pid by now
    : > "$place/late"
    kill -9 -- "-$pid"
    kill -9 "$pid"
) &
timer=$!
wait "$pid"
code=$?
kill -9 "$timer"
late=
if [ -e "$place/late" ]; then
    late=late
    read -r -t 0.1 -u 9
    kill_rest
else
    printf %s "$nonce" >&7
    printf %s "$nonce" >&8
    for round in {1..200}; do
        arrived "$place/out" "$place/1" && arrived "$place/err" "$place/2" && break
        read -r -t 0.01 -u 9
    done
fi
printf '%s %s %s\n' "$nonce" "$code" "$late"
head -c $((cap + ${#nonce})) "$place/out" | base64
printf '%s\n' "$nonce"
head -c $((cap + ${#nonce})) "$place/err" | base64
printf '%s\n' "$nonce"
"""
_KILL = 'kill_rest\nprintf "%s 0 \\n%s\\n%s\\n" "$nonce" "$nonce" "$nonce"\n'
_LIST = """for pid in /proc/[0-9]*; do
    pid=${pid#/proc/}
    [ "$pid" = "$BASHPID" ] || { look "$pid" && printf '%s:%s ' "$pid" "$began"; }
done
"""


def new_nonce() -> str:
    """Contains a character that base64 never has."""
    return f"%aem-{secrets.token_hex(16)}%"


def run_script(
    nonce: str,
    argv: Sequence[bytes],
    *,
    name: str,
    folder: bytes,
    env: Mapping[str, str],
    only_env: bool,
    stdin: bytes,
    limit: float,
    cap: int,
    belonging: Belonging,
) -> bytes:
    """The script that runs `argv`. name: of its temporary files, `.aem-NAME-*`, which `clean_script` removes.
    only_env: nothing of the door's own environment is passed on."""
    entries = [f"{name}={value}".encode("utf-8", "surrogateescape") for name, value in env.items()]
    entries += [belonging.mark.encode()] if belonging.mark else []
    text = _RUN.encode().replace(b"@ENV@", b" ".join([b"-i"] * only_env + [quote(entry) for entry in entries]))
    text = text.replace(b"@ARGV@", b" ".join(quote(word) for word in argv))
    values = [
        b"cap=%d limit=%.3f name=%s" % (cap, limit, name.encode()),
        b"folder=" + quote(folder),
        b"stdin=" + base64.b64encode(stdin),
    ]
    return _start(nonce, belonging) + b"\n".join(values) + text


def kill_script(nonce: str, belonging: Belonging) -> bytes:
    """The script that kills everything which belongs to the sandbox."""
    return _start(nonce, belonging) + _KILL.encode()


def clean_script(nonce: str, belonging: Belonging, name: str) -> bytes:
    """The script that kills everything which belongs to the sandbox and removes its temporary files."""
    return _start(nonce, belonging) + f"kill_rest\nrm -rf {{/dev/shm,/tmp,/var/tmp}}/.aem-{name}-*\n".encode()


def list_script(nonce: str) -> bytes:
    """The script that lists all processes as `Belonging.spared` holds them."""
    listed = f'printf "%s " "$nonce"\n{_LIST}printf "%s\\n" "$nonce"\n'
    return _start(nonce, Belonging()) + listed.encode()


def hello_script(nonce: str) -> bytes:
    """The script that reports where the sandbox's processes live, as `this_place` does, and which of TOOLS it lacks."""
    text = f"""missing=
for tool in {" ".join(TOOLS)}; do command -v "$tool" > /dev/null || missing+=" $tool"; done
read -r boot < /proc/sys/kernel/random/boot_id
printf '%s %s/%s %s %s\\n' "$nonce" "$boot" "$(readlink /proc/self/ns/pid)" "$missing" "$nonce"
"""
    return f"nonce='{nonce}'\n{text}".encode()


def this_place() -> str:
    """The PID namespace that this process is in, as no other machine names it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.readlink('/proc/self/ns/pid')}"


def text_between(nonce: str, said: str) -> str | None:
    """What stands between the first two nonces; None where they are not there."""
    pieces = said.split(nonce)
    return pieces[1].strip() if len(pieces) >= 3 else None


def read_answer(nonce: str, said: str, cap: int) -> Answer | None:
    """What a run or kill script printed; None where the script did not come to its end."""
    if re.search(rf"{nonce} full$", said, re.MULTILINE):
        return Answer(126, b"", b"no room for the command's output: /dev/shm, /tmp and /var/tmp are full\n")
    found = re.search(rf"{nonce} (\d+) (late)?\n([\w+/=\s]*){nonce}\n([\w+/=\s]*){nonce}", said)
    if found is None:
        return None
    code, late = int(found[1]), bool(found[2])
    (stdout, more), (stderr, even_more) = (_output(found[group], nonce, cap, late) for group in (3, 4))
    code = 128 - code if 128 < code <= 192 else code  # a shell cannot tell a signal from an exit code above 128
    return Answer(-9 if late else code, stdout, stderr, more or even_more, late)


def _output(encoded: str, nonce: str, cap: int, late: bool) -> tuple[bytes, bool]:
    """One stream without the mark, and whether there was more of it."""
    data = base64.b64decode(encoded)
    kept, mark, _ = data.partition(nonce.encode())
    return kept[:cap], len(kept) > cap or not (mark or late)


def quote(word: bytes) -> bytes:
    return b"'" + word.replace(b"'", b"'\\''") + b"'"


def _start(nonce: str, belonging: Belonging) -> bytes:
    values = f"nonce='{nonce}' spared=' {belonging.spared} ' mark='{belonging.mark}'\n"
    return values.encode() + _PRELUDE.encode()
