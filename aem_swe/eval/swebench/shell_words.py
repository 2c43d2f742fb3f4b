"""The simple commands in a line of shell, as far as they can be seen without running it.

    timeout 9 bash -c 'cd /x && git log' | head      ->      cd /x      git log      head

Written by a policy, so anything may be in it: quotes that never close, a megabyte of one word. Reading takes time in
proportion to the text, and never fails. Not seen: variables, aliases, functions, scripts in files, encoded text,
quotes inside a substitution that is itself inside double quotes.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

LONGEST = 1_000_000
"""Characters of a text that are read."""
MOST_COMMANDS = 20_000
_DEEPEST = 12
_BUDGET = 4 * LONGEST
"""Characters that are read with all that is nested; a text that is quoted again and again has no end."""
_TOKEN = re.compile(
    r"""
    (?P<space>(?:[ \t\r]|\\\n)++)
  | (?P<here><<<)
  | (?P<heredoc><<-?[ \t]*+(?P<tag>'[^'\n]*+'?|"[^"\n]*+"?|[^\s'"<>;&|()`]*+))
  | (?P<redirect>(?:\d{0,3}|&)(?:>>|>\||>&|<&|<>|>|<))
  | (?P<break>\n|[;&|()`]{1,2})
  | (?P<comment>\#[^\n]*+)
  | (?P<part>'[^']*+'?|"(?:[^"\\]++|\\.)*+"?|\\.|[^\s'"\\;&|()<>`]++|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_INSIDE_QUOTES = re.compile(r"\$\(([^()]*+)|`([^`]*+)")
_ASSIGNMENT = re.compile(r"\w+\+?=")
_KEYWORDS = frozenset({"if", "then", "else", "elif", "do", "while", "until", "!", "{", "time"})
_SHELLS = frozenset({"bash", "sh", "dash", "zsh", "ksh", "ash"})
# Programs that run another one, and those of their options that take a word of their own.
_WRAPPERS = {
    "sudo": {"-u", "-g", "-C"},
    "env": {"-u", "-C", "--unset", "--chdir"},
    "timeout": {"-k", "-s", "--kill-after", "--signal"},
    "nice": {"-n"},
    "ionice": {"-c", "-n"},
    "stdbuf": {"-i", "-o", "-e"},
    "xargs": {"-n", "-I", "-P", "-d", "-L", "-a", "-E", "-s"},
    "nohup": set(),
    "setsid": set(),
    "exec": {"-a"},
    "builtin": set(),
    "command": set(),
    "uv": set(),
    "chroot": set(),
    "strace": {"-o", "-e"},
}
_FIRST_IS_A_VALUE = frozenset({"timeout", "chroot"})
PYTHON = re.compile(r"(?:python|pypy)[\d.]*|ipython3?")


@dataclass(frozen=True, slots=True)
class Command:
    """One simple command without what wraps it; the first word is the program's name without its folder."""

    words: tuple[str, ...]
    stdin: str = ""
    """What a here-document or here-string gives it."""
    writes: tuple[str, ...] = ()
    """Files that its output goes to."""
    reads: tuple[str, ...] = ()
    """Files that its input comes from."""

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def code(self) -> str:
        """Python source that it runs, as far as the command holds it."""
        if not self.words or not PYTHON.fullmatch(self.words[0]):
            return ""
        return _after_option(self.words, "c") or self.stdin

    @property
    def written(self) -> str:
        """Text that it may write to a file."""
        return self.stdin or (self.text if self.words[:1] in (("echo",), ("printf",)) else "")


def commands(text: str) -> Iterator[Command]:
    """Every simple command in `text`, the ones inside others too, at most MOST_COMMANDS."""
    for count, command in enumerate(_commands(text[:LONGEST], 0, [_BUDGET])):
        if count == MOST_COMMANDS:
            return
        yield command


def _commands(text: str, depth: int, left: list[int]) -> Iterator[Command]:
    """left: characters that may still be read, in one place for all that is nested."""
    left[0] -= len(text)
    if depth > _DEEPEST or left[0] < 0:
        return
    words, writes, reads, inner = list[str](), list[str](), list[str](), list[str]()
    stdin = ""
    for kind, value in _tokens(text):
        if kind == "word":
            words.append(value)
        elif kind == "write":
            writes.append(value)
        elif kind == "read":
            reads.append(value)
        elif kind == "stdin":
            stdin = value
        elif kind == "inner":
            inner.append(value)
        elif words or writes or reads:
            yield from _seen(Command(tuple(words), stdin, tuple(writes), tuple(reads)), depth, left)
            words, writes, reads, stdin = [], [], [], ""
    for piece in inner:
        yield from _commands(piece, depth + 1, left)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """("word" | "write" | "read" | "stdin" | "inner" | "end", text), where "end" is the end of a simple command."""
    position, tags, word, target = 0, list[str](), list[str](), ""
    while position < len(text):
        found = _TOKEN.match(text, position)
        assert found is not None  # the last alternative takes any character
        position, kind = found.end(), found.lastgroup if found["tag"] is None else "heredoc"
        if kind == "comment" and word:  # a sharp inside a word is a character
            kind, position = "part", found.start() + 1
            word.append("#")
            continue
        if kind == "part":
            piece = found["part"]
            word.append(_plain(piece))
            if piece[0] == '"':
                yield from (("inner", one or other) for one, other in _INSIDE_QUOTES.findall(piece))
            continue
        if word:
            yield target or "word", "".join(word)
            word, target = [], ""
        if kind == "redirect":
            target = "write" if ">" in found["redirect"] else "read"
        elif kind == "here":
            target = "stdin"
        elif kind == "heredoc" and len(tags) < 8:
            tags.append(_plain(found["tag"]))
        elif kind == "break":
            target = ""
            while found["break"] == "\n" and tags:
                body, position = _until(text, position, tags.pop(0))
                yield "stdin", body
            yield "end", ""
    if word:
        yield target or "word", "".join(word)
    yield "end", ""


def _plain(piece: str) -> str:
    """A piece of a word without its quotes."""
    if piece[:1] == "'":
        return piece[1:].removesuffix("'")
    if piece[:1] == '"':
        return re.sub(r'\\([$`"\\\n])', r"\1", piece[1:].removesuffix('"'))
    return piece[1:] if piece[:1] == "\\" else piece


def _until(text: str, position: int, tag: str) -> tuple[str, int]:
    """The lines up to one that is `tag`, and where the text goes on."""
    start = position
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        if text[position:end].strip() == tag:
            return text[start:position], end + 1
        position = end + 1
    return text[start:], len(text)


def _seen(command: Command, depth: int, left: list[int]) -> Iterator[Command]:
    """The command without its wrappers, then the commands that it runs."""
    words = _unwrapped(command.words) or (":",)  # redirections alone, as behind `exec`
    program = words[0].rsplit("/", 1)[-1]
    bare = replace(command, words=(program, *words[1:]))
    yield bare
    if program in _SHELLS:
        yield from _commands(_after_option(bare.words, "c") or bare.stdin, depth + 1, left)
    elif program == "eval":
        yield from _commands(" ".join(words[1:]), depth + 1, left)
    elif program == "find":
        for index, word in enumerate(words):
            if word in ("-exec", "-execdir", "-ok") and depth < _DEEPEST:
                yield from _seen(Command(words[index + 1 :]), depth + 1, left)
                return
    elif PYTHON.fullmatch(program) and words[1:3] == ("-m", "pip"):
        yield Command(("pip", *words[3:]))


def _unwrapped(words: Sequence[str]) -> tuple[str, ...]:
    position = 0
    while position < len(words):
        word = words[position].rsplit("/", 1)[-1]
        if _ASSIGNMENT.match(word) or word in _KEYWORDS:
            position += 1
            continue
        following = words[position + 1] if position + 1 < len(words) else ""
        if word not in _WRAPPERS or (word == "uv" and following != "pip"):
            break
        if word == "command" and following in ("-v", "-V"):
            return ()  # looks for a program and runs none
        position = _past_options(words, position + 1, _WRAPPERS[word]) + (word in _FIRST_IS_A_VALUE)
    return tuple(words[position:])


def _past_options(words: Sequence[str], position: int, with_value: set[str]) -> int:
    while position < len(words) and words[position].startswith("-"):
        position += 2 if words[position] in with_value else 1
    return position


def _after_option(words: Sequence[str], letter: str) -> str:
    """The word after the first option that holds `letter`, as in `-c` and `-lc`; empty without one."""
    for index, word in enumerate(words[1:-1], 1):
        if word.startswith("-") and not word.startswith("--") and letter in word:
            return words[index + 1]
        if not word.startswith("-"):
            return ""
    return ""
