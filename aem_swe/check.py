"""One finding of `aem-swe doctor`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    passed: bool
    finding: str
    remedy: str = ""
