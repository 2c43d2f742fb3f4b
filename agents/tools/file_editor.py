"""View and edit files. Reads {"arguments": {...}, "options": {...}} as JSON from stdin and prints the observation.

Runs INSIDE a sandbox with whatever Python is there (3.6 or newer), and imports nothing but the standard library.
Options: line_numbers (default true: `cat -n` form), echo (default true: an edit shows the lines around it).
Exit code 0: done; 1: the request could not be carried out and the output says why.
Bytes that are not UTF-8 and carriage returns survive an edit. Lines end at a newline and nowhere else (str.splitlines
would also cut at form feeds, and the numbers would not be those of Python, grep and editors).
"""
import ast
import hashlib
import json
import os
import sys
import warnings

CLIP = 10000
CONDENSE_ABOVE = 110
UNDO = os.path.join(os.environ.get("TMPDIR", "/tmp"), ".file_editor_undo")


class Refused(Exception):
    """The request cannot be carried out; the text goes to the agent."""


def native(path):
    """The path as this Python names files: in a C locale, Python 3.6 refuses what is not ASCII."""
    return path.encode("utf-8", "surrogateescape").decode(sys.getfilesystemencoding(), "surrogateescape")


def split_lines(text):
    """The lines of `text` without their ends."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line[:-1] if line.endswith("\r") else line for line in lines]


def with_ends_of(text, value):
    """`value` with the line ends of `text`: a file that has only "\\r\\n" is shown, and so quoted, without the "\\r"."""
    ends = text.count("\r\n")
    return value.replace("\n", "\r\n") if ends and ends == text.count("\n") and "\r" not in value else value


def numbered(lines, first):
    return "".join("%6d\t%s\n" % (first + i, line) for i, line in enumerate(lines))


def clip(text):
    if len(text) <= CLIP:
        return text
    return text[:CLIP] + "\n<output clipped: %d of %d characters shown>\n" % (CLIP, len(text))


def condensed(text):
    """Signatures only: bodies of functions longer than 3 lines become one marker line."""
    if "\r" in text.replace("\r\n", ""):
        raise ValueError("Python counts a carriage return as a line")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the file's code: invalid escapes
        tree = ast.parse(text)
    lines = split_lines(text)
    hidden = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            last = max(getattr(child, "end_lineno", getattr(child, "lineno", 0)) for child in ast.walk(node))
            first = max(node.body[0].lineno, node.lineno + 1)
            if last - first >= 3:
                hidden.update(range(first, last + 1))
    out, number = [], 1
    while number <= len(lines):
        if number in hidden:
            start = number
            while number in hidden:
                number += 1
            out.append("      \t... lines %d-%d hidden ...\n" % (start, number - 1))
        else:
            out.append("%6d\t%s\n" % (number, lines[number - 1]))
            number += 1
    return "".join(out)


def read(path):
    if not os.path.isfile(path):
        raise Refused("ERROR: %s is not a file" % path)
    with open(path, "rb") as file:
        return file.read().decode("utf-8", "surrogateescape")


def write(path, text, keep):
    """Write `text`; `keep` (the old text, or None for a new file) is put on the undo stack first."""
    content = text.encode("utf-8", "surrogateescape")
    stack = os.path.join(UNDO, hashlib.sha256(os.path.abspath(path).encode("utf-8", "surrogateescape")).hexdigest())
    os.makedirs(stack, exist_ok=True)
    entry = os.path.join(stack, "%06d" % len(os.listdir(stack)))
    with open(entry, "wb") as file:
        file.write(b"-" if keep is None else b"+" + keep.encode("utf-8", "surrogateescape"))
    try:
        parent = os.path.dirname(path)
        if parent:
            os.makedirs(parent, exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    except OSError:
        os.remove(entry)
        raise


def undo(path):
    stack = os.path.join(UNDO, hashlib.sha256(os.path.abspath(path).encode("utf-8", "surrogateescape")).hexdigest())
    entries = sorted(os.listdir(stack)) if os.path.isdir(stack) else []
    if not entries:
        raise Refused("ERROR: no edit of %s to undo" % path)
    entry = os.path.join(stack, entries[-1])
    with open(entry, "rb") as file:
        kept = file.read()
    if kept[:1] == b"-":
        os.remove(path)
    else:
        with open(path, "wb") as file:
            file.write(kept[1:])
    os.remove(entry)
    return "The last edit of %s was undone.\n" % path


def line_range(value, count):
    """Parse "[first, last]" (1-based, last may be -1) into a pair inside 1..count."""
    try:
        first, last = json.loads(value)
        first, last = int(first), int(last)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise Refused("ERROR: view_range must look like [1, 40]")
    last = count if last == -1 else last
    if not 1 <= first <= last <= max(count, 1):
        raise Refused("ERROR: view_range %s is outside 1..%d" % (value, count))
    return first, last


def view(path, arguments, options):
    if os.path.isdir(path):
        names = sorted(name + ("/" if os.path.isdir(os.path.join(path, name)) else "") for name in os.listdir(path))
        return clip("".join(name + "\n" for name in names if not name.startswith(".")))
    text = read(path)
    lines = split_lines(text)
    if not options.get("line_numbers", True) and not arguments.get("view_range"):
        return clip("".join(line + "\n" for line in lines))
    head = "Here is the result of running `cat -n` on %s:\n" % path
    if arguments.get("view_range"):
        first, last = line_range(arguments["view_range"], len(lines))
        return clip(head + numbered(lines[first - 1 : last], first))
    wants = str(arguments.get("concise", "")).lower()
    long = path.endswith(".py") and len(lines) > CONDENSE_ABOVE and wants != "false"
    if long or wants == "true":
        try:
            return clip("Condensed view of %s (pass view_range for the hidden lines):\n" % path + condensed(text))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass  # not parseable by this Python: fall back to the plain view
    return clip(head + numbered(lines, 1))


def edited(path, new_text, first, count, options):
    """The confirmation of an edit; with `echo`, the changed lines and 4 around them."""
    message = "The file %s was edited.\n" % path
    if not options.get("echo", True):
        return message
    lines = split_lines(new_text)
    start, stop = max(0, first - 4), min(len(lines), first + count + 4)
    return clip(message + "Here is `cat -n` of the lines around the edit:\n" + numbered(lines[start:stop], start + 1))


def need(arguments, name):
    if name not in arguments:
        raise Refused("ERROR: parameter %s is missing for command %s" % (name, arguments["command"]))
    return arguments[name]


def run(arguments, options):
    command, path = arguments["command"], native(arguments["path"])
    if "\0" in path:
        raise Refused("ERROR: path holds a NUL character")
    if command == "view":
        return view(path, arguments, options)
    if command == "undo_edit":
        return undo(path)
    if command == "create":
        if os.path.exists(path):
            raise Refused("ERROR: %s exists already; use str_replace" % path)
        write(path, need(arguments, "file_text"), None)
        return "The file %s was created.\n" % path
    text = read(path)
    if command == "str_replace":
        old, new = with_ends_of(text, need(arguments, "old_str")), with_ends_of(text, arguments.get("new_str", ""))
        count = text.count(old) if old else 0
        if count != 1:
            found = "no match" if count == 0 else "%d matches" % count
            raise Refused("ERROR: %s for old_str in %s" % (found, path))
        changed = text.replace(old, new)
        write(path, changed, text)
        return edited(path, changed, text[: text.index(old)].count("\n"), new.count("\n") + 1, options)
    if command == "insert":
        lines = [line + "\n" for line in text.split("\n")]
        lines[-1] = lines[-1][:-1]
        if not lines[-1]:
            lines.pop()
        try:
            after = int(need(arguments, "insert_line"))
        except ValueError:
            raise Refused("ERROR: insert_line must be a number")
        if not 0 <= after <= len(lines):
            raise Refused("ERROR: insert_line %d is outside 0..%d" % (after, len(lines)))
        end = with_ends_of(text, "\n")
        if after and not lines[after - 1].endswith("\n"):
            lines[after - 1] += end
        new = with_ends_of(text, need(arguments, "new_str"))
        new += "" if new.endswith("\n") else end
        changed = "".join(lines[:after]) + new + "".join(lines[after:])
        write(path, changed, text)
        return edited(path, changed, after, new.count("\n"), options)
    raise Refused("ERROR: unknown command %s" % command)


def main():
    request = json.loads(sys.stdin.read())
    code = 0
    try:
        output = run(request["arguments"], request.get("options", {}))
    except Refused as refusal:
        output, code = str(refusal) + "\n", 1
    except OSError as error:
        output, code = "ERROR: %s\n" % error, 1
    except UnicodeError:
        output, code = "ERROR: the request holds half of a surrogate pair, which is no character\n", 1
    sys.stdout.buffer.write(output.encode("utf-8", "surrogateescape"))
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
