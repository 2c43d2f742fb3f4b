"""What the guest has to import before it can run preloaded programs in a fork."""

import ast
import sys
from collections.abc import Iterable


def standard_modules(sources: Iterable[str]) -> list[str]:
    """The standard modules that the programs import at their top, in order. Whoever compiles a program that does not
    parse reports it."""
    found: dict[str, None] = {}
    for source in sources:
        try:
            body = ast.parse(source).body
        except SyntaxError:
            continue
        for node in body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            found.update(dict.fromkeys(name for name in names if name.partition(".")[0] in sys.stdlib_module_names))
    return list(found)
