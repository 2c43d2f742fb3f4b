"""Find the top-level content folders: beside the package in a checkout, inside it in a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource(folder: str, name: str = "") -> Path:
    """Return the path of `name` in agents, sandboxes, configs or eval: resource("configs", "demo.yaml"). It need not
    exist."""
    bundled = _PACKAGE / "resources" / folder
    root = bundled if bundled.is_dir() else _PACKAGE.parent / folder
    return root / name if name else root


def names(folder: str, suffix: str = "") -> list[str]:
    """Return the sorted names in a content folder that end with `suffix`, without it."""
    root = resource(folder)
    return sorted(path.name.removesuffix(suffix) for path in root.glob(f"*{suffix}")) if root.is_dir() else []
