"""Search for a term. Reads {"arguments": {...}, "options": {...}} as JSON from stdin and prints the observation.

Runs INSIDE a sandbox with whatever Python is there (3.6 or newer), and imports nothing but the standard library.
Over a folder: the .py files that hold the term, with counts (option lines=true: the matching lines, grep -n form).
Over a file: its matching lines with their numbers. More than 100 files: asks for a narrower term. Lines end at a
newline and nowhere else, as in grep.
"""
import json
import os
import sys

MAX_FILES = 100
CLIP = 10000


def native(path):
    """The path as this Python names files: in a C locale, Python 3.6 refuses what is not ASCII."""
    return path.encode("utf-8", "surrogateescape").decode(sys.getfilesystemencoding(), "surrogateescape")


def python_files(path):
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith("."):
                yield os.path.join(folder, name)


def matches(path, term):
    """[(1-based line number, line)] of the lines of `path` that contain `term`."""
    try:
        with open(path, "rb") as file:
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if term in line]


def show(path):
    return path[2:] if path.startswith("./") else path


def run(arguments, options):
    term, path = arguments["search_term"], native(arguments.get("path", "."))
    if not term:
        return "ERROR: search_term is empty\n", 1
    if "\0" in path:
        return "ERROR: path holds a NUL character\n", 1
    if os.path.isfile(path):
        found = matches(path, term)
        if not found:
            return "No match in %s\n" % path, 0
        return "".join("%d:%s\n" % row for row in found), 0
    if not os.path.isdir(path):
        return "ERROR: %s does not exist\n" % path, 1
    hits = [(show(file), found) for file, found in ((f, matches(f, term)) for f in python_files(path)) if found]
    if not hits:
        return "No match\n", 0
    if len(hits) > MAX_FILES:
        return "%d files match (more than %d): use a narrower term\n" % (len(hits), MAX_FILES), 0
    if options.get("lines", False):
        return "".join("%s:%d:%s\n" % (file, number, line) for file, found in hits for number, line in found), 0
    return "Matches per file:\n" + "".join("%s: %d\n" % (file, len(found)) for file, found in hits), 0


def main():
    request = json.loads(sys.stdin.read())
    try:
        output, code = run(request["arguments"], request.get("options", {}))
    except UnicodeError:
        output, code = "ERROR: the request holds half of a surrogate pair, which is no character\n", 1
    if len(output) > CLIP:
        output = output[:CLIP] + "\n<output clipped>\n"
    sys.stdout.buffer.write(output.encode("utf-8", "surrogateescape"))
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
