"""Entry point. The folder becomes the package `aem_guest`, so that its files can import one another although aem_swe is
not importable here.

    python -I -S -B _guest zygote FD              control socket; the settings come as JSON on stdin
    python -I -S -B guest container M P F         limits: bytes of memory, processes, bytes of a file; the programs lie
                                                  beside the folder, as _bundle.py packed them

The standard modules that preloaded programs need are imported before ours: whatever comes later is ours and is removed
from sys.modules when a program runs (programs.py).
"""

import importlib
import json
import marshal
import os
import sys
import types

here = os.path.dirname(os.path.abspath(__file__))
kind, *arguments = sys.argv[1:]
if kind == "zygote":
    settings = json.loads(sys.stdin.buffer.read())
else:
    with open(os.path.join(here, "..", "settings.json")) as file:
        settings = json.load(file)
for name in ("json", "re", "ast", "traceback", *settings["modules"]):
    importlib.import_module(name)
preloaded = frozenset(sys.modules)

package = types.ModuleType("aem_guest")
package.__path__ = [here]
sys.modules["aem_guest"] = package
sys.path[:] = [entry for entry in sys.path if entry != here]
if kind == "zygote":
    importlib.import_module("aem_guest.zygote").main(settings, preloaded, *map(int, arguments))
else:
    with open(os.path.join(here, "..", "programs.marshal"), "rb") as compiled:
        codes = marshal.loads(compiled.read())  # the trainer's own, made by this very interpreter
    importlib.import_module("aem_guest.container").main(codes, preloaded, *map(int, arguments))
