"""Spans of a training loop that is not ours, of which only some places can be seen: hooks, or timers.

The steps are laid end to end: one begins where the loop comes round, and thereby ends the one before. What passes
between two places of which both are known has a name, as if it was a stage; anything else in a step is in no span,
and a profile calls it the residual. All calls come from the thread, or the task, in which the loop runs.
"""

import sys
import time

from aem_swe.profiling import Span, Value, flush, record, span


class LoopSpans:
    """The open step, the evaluation in it, and since when the loop does what we do not see."""

    def __init__(self, began: float) -> None:
        """began: time.perf_counter() from which on the stage `startup` counts."""
        self._began: float | None = began
        self._step: Span | None = None
        self._evaluation: Span | None = None
        self._alone = False
        self._mark: float | None = None

    def mark(self) -> None:
        """From here on it is the loop's own doing."""
        self._mark = time.perf_counter()

    def passed(self, stage: str | None) -> None:
        """What the loop has done since the last mark was `stage`; None: that cannot be said."""
        if self._mark is not None and stage:
            record(stage, self._mark, time.perf_counter() - self._mark)
        self._mark = None

    def begin(self, step: int, between: str | None = "record") -> None:
        """The loop came round. between: what it did since the last mark, for the step that ends here."""
        self.passed(between)
        self._end_step()
        if self._began is not None:
            record("startup", self._began, time.perf_counter() - self._began)
            self._began = None
        self._step = span("step", step=step).__enter__()
        with span("record"):
            flush()  # a run that is killed leaves all steps that ended

    def begin_evaluation(self, between: str | None = "record") -> None:
        """An evaluation begins: of the step that is open, else in a step 0 of its own (before training)."""
        self.passed(between)
        if self._step is None:
            self.begin(0)
            self._alone = True
        self._evaluation = span("evaluation", phase="evaluation").__enter__()

    def end_evaluation(self) -> None:
        self._end_evaluation()
        if self._alone:
            self._end_step()
        else:
            self.mark()

    def note(self, **attributes: Value) -> None:
        """Give the open step attributes."""
        if self._step is not None:
            self._step.set(**attributes)

    def close(self) -> None:
        """The loop is over. Where it is an error that is being handled, the spans that it left open have failed."""
        self.passed("record" if sys.exc_info()[0] is None else None)
        self._end_evaluation()
        self._end_step()
        flush()

    def _end_evaluation(self) -> None:
        if self._evaluation is not None:
            self._evaluation.__exit__(*sys.exc_info())
            self._evaluation = None

    def _end_step(self) -> None:
        self._alone = False
        if self._step is not None:
            self._step.__exit__(*sys.exc_info())
            self._step = None
