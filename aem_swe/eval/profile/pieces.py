"""Pieces of a lane, and how those that are too narrow to be seen are drawn together."""

from collections.abc import Sequence
from typing import NamedTuple

from aem_swe.eval.profile.spans import Span


class Piece(NamedTuple):
    """Seconds since the step began."""

    begin: float
    end: float
    stage: str | None
    """None: nothing is recorded; "": not attributed."""
    span: Span | None
    merged: int = 1
    """How many were drawn together in this one."""


def merge(pieces: Sequence[Piece], least: float) -> list[Piece]:
    """Join runs of pieces that are each shorter than `least`, until such a run is that long."""
    merged: list[Piece] = []
    run: list[Piece] = []
    for piece in (*pieces, None):
        if piece is not None and piece.end - piece.begin < least:
            run.append(piece)
        if run and (piece is None or run[-1] is not piece or piece.end - run[0].begin >= least):
            merged.append(_joined(run))
            run = []
        if piece is not None and piece.end - piece.begin >= least:
            merged.append(piece)
    return merged


def _joined(run: Sequence[Piece]) -> Piece:
    """One piece of what took longest in the run."""
    if len(run) == 1:
        return run[0]
    seconds: dict[str, float] = {}
    for one in run:
        if one.stage is not None:
            seconds[one.stage] = seconds.get(one.stage, 0.0) + one.end - one.begin
    stage = max(seconds, key=lambda stage: (seconds[stage], stage), default=None)
    same = [one for one in run if one.stage == stage]
    longest = max(same, key=lambda one: one.end - one.begin)
    count = sum(one.merged for one in run if one.stage is not None)
    return Piece(run[0].begin, run[-1].end, stage, longest.span, max(1, count))
