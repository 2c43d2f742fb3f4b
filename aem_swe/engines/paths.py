"""Which policies ship with the package, and where a recipe's model is."""

from aem_swe.resources import resource

BUILTIN = {"builtin/demo-policy": ("agents", "demo/policy")}
"""Starting policies that ship with the package: name -> resource."""


def model_path(path: str) -> str:
    """For programs that take a folder or a name on the Hugging Face hub."""
    return str(resource(*BUILTIN[path])) if path in BUILTIN else path
