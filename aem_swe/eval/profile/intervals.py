"""Sets of moments as sorted, disjoint (begin, end) pairs in seconds."""

from collections.abc import Iterable, Sequence

Interval = tuple[float, float]


def union(intervals: Iterable[Interval], begin: float, end: float) -> list[Interval]:
    """All moments between `begin` and `end` that lie in any of the intervals."""
    joined: list[Interval] = []
    for start, stop in sorted(intervals):
        start, stop = max(start, begin), min(stop, end)
        if start >= stop:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop))
        else:
            joined.append((start, stop))
    return joined


def length(intervals: Sequence[Interval]) -> float:
    """Seconds in a union."""
    return sum(stop - start for start, stop in intervals)


def overlap(one: Sequence[Interval], other: Sequence[Interval]) -> float:
    """Seconds that lie in both of two unions."""
    seconds, left, right = 0.0, 0, 0
    while left < len(one) and right < len(other):
        seconds += max(0.0, min(one[left][1], other[right][1]) - max(one[left][0], other[right][0]))
        if one[left][1] < other[right][1]:
            left += 1
        else:
            right += 1
    return seconds


def inside(intervals: Sequence[Interval], moment: float) -> bool:
    """Whether a moment lies in a union; its end does not."""
    low, high = 0, len(intervals)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if intervals[middle][0] <= moment else (low, middle)
    return low > 0 and moment < intervals[low - 1][1]
