"""When truncation deserves a warning: an episode that never finishes earns nothing, and a policy can drift there.

Measured on the demo: with the filter `drop` nothing pushes against not finishing, and truncation went to 94% while the
reward went to 0.06. This is the only place that says how much is too much.
"""

from aem_swe.eval.statistics import WINDOW, Floats

CEILING = 0.30
RISE = 0.15


def truncation_warning(rates: Floats) -> str | None:
    """Why the rate of truncated episodes (one value per training step, a fraction) is worrying, or None."""
    if rates.size == 0:
        return None
    first, last = float(rates[:WINDOW].mean()), float(rates[-WINDOW:].mean())
    window = min(WINDOW, rates.size)
    if last > CEILING:
        steps = "only step" if window == 1 else f"last {window} steps"
        return f"{last:.0%} of the episodes of the {steps} were truncated (the limit is {CEILING:.0%})"
    if last > first + RISE:
        return (
            f"truncation rose from {first:.0%} to {last:.0%} (first and last {window} steps; "
            f"a rise of {100 * RISE:.0f} points is the limit)"
        )
    return None
