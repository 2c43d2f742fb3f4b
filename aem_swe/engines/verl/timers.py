"""verl's timers as spans: its trainers, and rLLM's backend, time their stages by a function that is a global name.

    with marked_timer("old_log_prob", timing_raw): ...        # verl's own line; in metrics.jsonl it is timing_s/...

While `recorded` is open that name is ours: it times as before, into the same dictionary, and is a span under the name
that the stage has on the embedded engine. verl's step is shorter than ours, which goes on to where the next one
begins: there verl makes metrics and logs them, and fetches data.

Not covered: what a worker does inside `old_log_prob` and `update_actor` (the driver sees the whole call), and trainers
whose fit() is a coroutine. What comes before the first step, an evaluation included, is `startup`.
"""

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FunctionType
from typing import Any, Final  # Any: verl has no types

from aem_swe.engines.loop_spans import LoopSpans
from aem_swe.errors import ConfigError
from aem_swe.profiling import recording, span

STAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "step": (),
    "gen": ("rollout", "generate"),
    "old_log_probs": ("old_log_prob",),
    "ref": ("ref_log_prob",),
    "adv": ("advantage",),
    "update_actor": ("update", "update/actor"),
    "update_weights": ("weight_sync",),
    "timing_s/param_sync": ("weight_sync",),
    "save_checkpoint": ("checkpoint",),
    "testing": ("evaluation",),
    "dump_rollout_generations": ("record",),
}
"""Timer -> spans, the outer one first; a name that is not here is its own. `generate` and `update/actor` are all that
the driver knows of a rollout and of an update."""
BEGINNINGS: Final = ("start_profile", "step")
"""The first timer of a step is one of these."""
AFTER: Final[Mapping[str, str]] = {
    "start_profile": "batch",
    "step begins": "batch",
    "gen": "batch",
    "step": "record",
    "testing": "record",
    "stop_profile": "record",
}
"""Timer -> what verl does from its end to the next one. Rows are made before and after the rollout; metrics, logging
and the next batch of data come last."""
_TIMER: Final = "marked_timer"
Timer = Callable[..., Any]  # a function that makes a context manager


def timed(timer: Timer, watch: "Watch | None" = None) -> Timer:
    """Return a timer that does the same, and makes spans. What verl writes into the dictionary inside them (of the
    agent loops, say) becomes their attributes."""

    @contextmanager
    def time_stage(name: str, timing_raw: dict[str, float], *arguments: Any, **named: Any) -> Iterator[None]:
        if watch is not None:
            watch.enters(name, timing_raw)
        before = set(timing_raw)
        with ExitStack() as spans:
            opened = [
                spans.enter_context(span(stage, **({"phase": stage} if stage in ("rollout", "evaluation") else {})))
                for stage in STAGES.get(name, (name,))
            ]
            with timer(name, timing_raw, *arguments, **named):
                yield
            if opened:
                opened[-1].set(**{key: float(timing_raw[key]) for key in timing_raw.keys() - before - {name}})
        if watch is not None:
            watch.leaves(name)

    return time_stage


class Watch:
    """Tells from the order of verl's timers where steps begin and what lies between."""

    def __init__(self, loop: LoopSpans, step: Callable[[], int]) -> None:
        """step: the number of the step that the trainer is in."""
        self._loop, self._step = loop, step
        self._timings: dict[str, float] | None = None
        self._last = ""

    def enters(self, name: str, timings: dict[str, float]) -> None:
        between = AFTER.get(self._last)
        if name in BEGINNINGS and timings is not self._timings:  # each step has a new dictionary
            self._timings = timings
            self._loop.begin(self._step(), between)
        else:
            self._loop.passed(between)
        if name == "step":
            self._last = "step begins"
            self._loop.mark()

    def leaves(self, name: str) -> None:
        self._last = name
        self._loop.mark()


@contextmanager
def recorded(trainer: Any, folder: str | None, began: float) -> Iterator[None]:
    """Record the steps of trainer.fit() in folder/spans.jsonl; None: change nothing.

    began: time.perf_counter() at the trainer's making.
    """
    if folder is None:
        yield
        return
    places = {
        id(function.__globals__): function.__globals__
        for base in type(trainer).__mro__
        for function in vars(base).values()
        if isinstance(function, FunctionType) and _TIMER in function.__globals__
    }
    originals = [(place, place[_TIMER]) for place in places.values()]
    loop = LoopSpans(began)
    watch = Watch(loop, lambda: int(trainer.global_steps))
    with recording(Path(folder) / "spans.jsonl"):
        for place, original in originals:
            place[_TIMER] = timed(original, watch)
        try:
            yield
        finally:
            for place, original in originals:
                place[_TIMER] = original
            loop.close()


def require_recordable(trainer: type, folder: str | None) -> float:
    """Return time.perf_counter(). Raises ConfigError where spans cannot be written, or fit() is a coroutine."""
    began = time.perf_counter()
    if folder is None:
        return began
    if inspect.iscoroutinefunction(getattr(trainer, "fit", None)):
        raise ConfigError(
            f"aem.profile cannot record {trainer.__name__}, whose fit() is a coroutine; leave aem.profile out"
        )
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "spans.jsonl").open("ab").close()
    except OSError as error:
        raise ConfigError(
            f"aem.profile {folder!r} cannot be written ({error.strerror}); choose another folder"
        ) from error
    return began
