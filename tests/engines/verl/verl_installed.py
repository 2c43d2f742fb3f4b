"""Which verl is installed. Not by find_spec: it takes the folder of these tests, tests/engines/verl, for a package."""

from importlib.metadata import distributions

VERL = next((found.version for found in distributions(name="verl")), "")
"""Its version; empty: none."""
