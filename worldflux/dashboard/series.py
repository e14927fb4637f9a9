"""A metric's history in bounded memory that keeps every peak and dip.

Points are gathered in buckets of equal width; a bucket remembers only its lowest and its highest
point. When there are too many buckets, neighbours merge and the width doubles. A chart as wide as
the buckets are many then looks exactly like one of all points.
"""

from __future__ import annotations

from typing import NamedTuple


class Point(NamedTuple):
    """One logged value. `value` is None where the log held NaN or an infinity."""

    step: int
    env_steps: int | None
    wall_s: float | None
    value: float | None


Bucket = tuple[Point, Point]  # lowest, highest


class Series:
    """The points of one metric, decimated to at most `2 * capacity` plus the first and last."""

    def __init__(self, capacity: int = 512) -> None:
        assert capacity % 2 == 0, capacity
        self.count = 0
        self.first: Point | None = None
        self.last: Point | None = None
        self._capacity = capacity
        self._buckets: list[Bucket] = []
        self._width = 1
        self._filled = 0

    def add(self, point: Point) -> None:
        """Append a point; its step must not lie before that of the last one (see `rewind`)."""
        self.count += 1
        if self.first is None:
            self.first = point
        self.last = point
        if self._buckets and self._filled < self._width:
            self._buckets[-1] = _merge(self._buckets[-1], (point, point))
            self._filled += 1
            return
        if len(self._buckets) == self._capacity:
            pairs = zip(self._buckets[::2], self._buckets[1::2], strict=True)
            self._buckets = [_merge(early, late) for early, late in pairs]
            self._width *= 2
        self._buckets.append((point, point))
        self._filled = 1

    def rewind(self, step: int) -> None:
        """Forget the points at or after `step`: a resumed run writes them again."""
        kept: list[Bucket] = []
        for bucket in self._buckets:
            inside = [point for point in bucket if point.step < step]
            if inside:
                kept.append((inside[0], inside[-1]))
        self._buckets = kept
        self._filled = self._width
        self.last = max(kept[-1], key=lambda point: point.step) if kept else None
        if not kept:
            self.first = None

    def points(self, limit: int) -> list[Point]:
        """The history in order, in about `limit` points, its first and last one included."""
        if self.first is None or self.last is None:
            return []
        group = max(1, -(-2 * len(self._buckets) // limit))
        points = [self.first]
        for start in range(0, len(self._buckets), group):
            merged = self._buckets[start]
            for bucket in self._buckets[start + 1 : start + group]:
                merged = _merge(merged, bucket)
            points += sorted(set(merged), key=lambda point: point.step)
        if points[0] == points[1]:
            del points[0]
        if points[-1] != self.last:
            points.append(self.last)
        return points


def _merge(early: Bucket, late: Bucket) -> Bucket:
    low, high = early
    if low.value is None:
        return late
    assert high.value is not None
    if late[0].value is None or late[1].value is None:
        return early
    return (
        late[0] if late[0].value < low.value else low,
        late[1] if late[1].value > high.value else high,
    )
