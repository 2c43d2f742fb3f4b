"""Entry point: `python -I -S -B _guest <control fd>`, with the settings as JSON on stdin.

The folder becomes the package `aem_guest`, so that its files can import one another although aem_swe is not importable
here. The standard modules that preloaded programs need are imported before ours: whatever comes later is ours and is
removed from sys.modules when a program runs (programs.py).
"""

import ast
import importlib
import json
import os
import sys
import types

settings = json.loads(sys.stdin.buffer.read())
for source in settings["programs"].values():
    for node in ast.parse(source).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
        for name in names:
            if name.partition(".")[0] in sys.stdlib_module_names:
                importlib.import_module(name)
for name in ("json", "re", "ast", "traceback"):
    importlib.import_module(name)
preloaded = frozenset(sys.modules)

package = types.ModuleType("aem_guest")
package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
sys.modules["aem_guest"] = package
sys.path[:] = [entry for entry in sys.path if entry not in package.__path__]
importlib.import_module("aem_guest.zygote").main(settings, preloaded, int(sys.argv[1]))
