"""Reads a long list by windows of ids, several requests at once, and hands the rows over in id order.

Memory holds no more pages than requests may be in flight. The width of a window follows how densely the ids were
populated lately; one that is fuller than a page is continued by id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from mautic_sync.errors import StopError

Row = TypeVar("Row")

FILL = 0.9  # of a page: how full a window is meant to be where ids have gaps
WIDEST_STEP = 8  # times wider than the last window, at most
WIDEST = 2**40


def in_windows(
    fetch: Callable[[int, int], list[Row]],
    after: int,
    end: int,
    limit: int,
    concurrency: int,
    density: float,
    row_id: Callable[[Row], int],
) -> Iterator[tuple[int, int, list[Row]]]:
    """`(low, high, rows)` for everything with `after < id <= end`, in order: `rows` are all there is in `low < id <= high`.

    `fetch(low, high)` returns at most `limit` rows of that window, the lowest ids first; `density` is rows per id.
    """
    width = _width(limit, density)
    low = after
    in_flight: deque[tuple[int, int, Future[list[Row]]]] = deque()
    pool = ThreadPoolExecutor(max_workers=max(concurrency, 1), thread_name_prefix="read")
    try:
        while low < end or in_flight:
            while low < end and len(in_flight) < max(concurrency, 1):
                high = min(end, low + width)
                in_flight.append((low, high, pool.submit(fetch, low, high)))
                low = high
            start, high, future = in_flight.popleft()
            rows = future.result()
            last = max((row_id(row) for row in rows), default=start)
            if len(rows) >= limit and last <= start:
                raise StopError("Mautic answered with a full page of rows that have no ids above those asked for.")
            if len(rows) >= limit and last < high:
                in_flight.appendleft((last, high, pool.submit(fetch, last, high)))
                width = max(1, _width(limit, len(rows) / (last - start)))
                yield start, last, rows
                continue
            seen = len(rows) / (high - start)
            width = min(_width(limit, seen), width * WIDEST_STEP)
            yield start, high, rows
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _width(limit: int, density: float) -> int:
    """Ids per window: exactly a page where none are missing, else a little less than would fill one."""
    if density >= 1:
        return limit
    if density <= limit * FILL / WIDEST:
        return WIDEST
    return max(limit, int(limit * FILL / density))
