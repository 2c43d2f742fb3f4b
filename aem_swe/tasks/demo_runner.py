"""Run the calls of a demo task and print their encoded results. Runs INSIDE a grading sandbox, Python 3.6 or newer.

stdin: {"marker", "workdir", "calls": [[module, function, [argument, ...]], ...]}. stdout: one line, the marker and a
JSON
list of encodings. The candidate's own output goes to /dev/null. This process belongs to the candidate as soon as its
module is imported; that is why the expected values are not here.
"""

import importlib
import json
import os
import sys

MAX_TEXT = 10000


def encode(value: object, depth: int = 0) -> str:
    """Return a text that two values share exactly if they have the same built-in type and value.

    Exact types only (`type(value) is int`): a subclass, or an object that claims to equal everything, is encoded as its
    type's name and so never equals a number.
    """
    kind = type(value)
    if depth > 4:
        return "too deep"
    if kind in (int, float, bool, str, bytes, type(None)):
        return (kind.__name__ + " " + repr(value))[:MAX_TEXT]
    if type(value) is list or type(value) is tuple:
        return (kind.__name__ + "[" + ",".join([encode(item, depth + 1) for item in value]) + "]")[:MAX_TEXT]
    if type(value) is dict:
        items = [encode(k, depth + 1) + ":" + encode(v, depth + 1) for k, v in value.items()]
        return ("dict{" + ",".join(items) + "}")[:MAX_TEXT]
    return "object of type " + str(kind.__name__)[:100]


def outcome(module: str, function: str, arguments: list) -> str:  # type: ignore[type-arg]  # list[...] is 3.9
    """Call one function; an exception is an outcome as well."""
    try:
        return encode(getattr(importlib.import_module(module), function)(*arguments))
    except Exception as error:  # whatever the candidate raises is its answer to this call
        return "raised " + type(error).__name__


def main() -> None:
    request = json.loads(sys.stdin.read())
    result = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.chdir(request["workdir"])
    sys.dont_write_bytecode = True
    sys.path.insert(0, request["workdir"])
    outcomes = [outcome(module, function, arguments) for module, function, arguments in request["calls"]]
    os.write(result, (request["marker"] + " " + json.dumps(outcomes) + "\n").encode())


if __name__ == "__main__":
    main()
