"""The algorithms are usable with torch alone."""

import subprocess
import sys

SCRIPT = """
import sys

class OnlyTorch:
    blocked = {"transformers", "tokenizers", "pydantic", "omegaconf", "hydra", "rich", "typer", "docker", "openai",
               "scipy", "ray", "verl", "vllm", "rllm", "matplotlib", "datasets", "swebench", "safetensors"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.blocked:
            raise ModuleNotFoundError(name)
        return None

sys.meta_path.insert(0, OnlyTorch())
import torch
before = {name.partition(".")[0] for name in sys.modules}
from aem_swe.algorithms import modulate, leave_one_out, response_ids
roots = {name.partition(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names)
ours = {name for name in sys.modules if name.startswith("aem_swe.") and not name.startswith("aem_swe.algorithms")}
print(sorted(roots), sorted(ours))
"""


def test_importing_the_algorithms_needs_torch_and_nothing_of_ours() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout.strip(), done.returncode) == ("['aem_swe'] []", 0), done.stderr
