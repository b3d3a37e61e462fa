"""Reads a long list by windows of ids, several requests at once, and hands the rows over in id order.

While a page is worked on, the requests for the next ones are already under way, and one more waits for the first of
them to end, so memory holds two pages more than requests may be in flight. The width of a window follows how densely
the ids were populated lately; one that is fuller than a page is continued by id. A server whose answers take twice as
long as they did is asked for fewer at once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from mautic_sync.errors import StopError

Row = TypeVar("Row")

FILL = 0.9  # of a page: how full a window is meant to be where ids have gaps
WIDEST_STEP = 8  # times wider than the last window, at most
WIDEST = 2**40
NOTICEABLE = 0.25  # seconds; answers below say nothing about how busy a server is
SLOW = 2.0  # times the best pace so far
SLOW_IN_A_ROW = 3  # answers, before one request fewer is in flight

MEANWHILE_FIRST = 2  # what is read meanwhile takes us longer, and Mautic less: done late, it would keep Mautic waiting


def in_windows(
    fetch: Callable[[int, int], list[Row]],
    after: int,
    end: int,
    limit: int,
    concurrency: int,
    density: float,
    row_id: Callable[[Row], int],
    clock: Callable[[], float] = time.monotonic,
    *,
    head: tuple[int, list[Row]] | None = None,
    meanwhile: Callable[[], bool] | None = None,
) -> Iterator[tuple[int, int, list[Row]]]:
    """`(low, high, rows)` for everything with `after < id <= end`, in order: `rows` are all there is in `low < id <= high`.

    `fetch(low, high)` returns at most `limit` rows of that window, the lowest ids first; `density` is rows per id.
    `head` is (low, rows) of the page that ends at `after`, where that was read before: it is handed over first.
    `meanwhile` does a piece of other work, and tells whether there is more of it: MEANWHILE_FIRST pieces before each
    page, and more while the page is not there yet.
    """
    width = _width(limit, density)
    low = after
    pace = _Pace(max(concurrency, 1))
    in_flight: deque[tuple[int, int, Future[tuple[list[Row], float]]]] = deque()
    pool = ThreadPoolExecutor(max_workers=max(concurrency, 1), thread_name_prefix="read")

    def timed(start: int, stop: int) -> tuple[list[Row], float]:
        begun = clock()
        rows = fetch(start, stop)
        return rows, clock() - begun

    def ask() -> None:
        nonlocal low
        while low < end and len(in_flight) < pace.queued:
            high = min(end, low + width)
            in_flight.append((low, high, pool.submit(timed, low, high)))
            low = high

    try:
        ask()
        if head is not None:
            yield head[0], after, head[1]
            head = None
        while low < end or in_flight:
            ask()
            start, high, future = in_flight.popleft()
            turns = MEANWHILE_FIRST
            while meanwhile is not None and (turns > 0 or not future.done()):
                turns -= 1
                if not meanwhile():
                    meanwhile = None
            rows, seconds = future.result()
            if len(rows) * 2 >= limit:
                pace.note(seconds, len(rows))
            last = max((row_id(row) for row in rows), default=start)
            if len(rows) >= limit and last <= start:
                raise StopError("Mautic answered with a full page of rows that have no ids above those asked for.")
            if len(rows) >= limit and last < high:
                in_flight.appendleft((last, high, pool.submit(timed, last, high)))
                width = max(1, _width(limit, len(rows) / (last - start)))
                ask()
                yield start, last, rows
                continue
            seen = len(rows) / (high - start)
            width = min(_width(limit, seen), width * WIDEST_STEP)
            ask()
            yield start, high, rows
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Pace:
    """How many requests may be in flight: one fewer when answers stay slow, one more when they are quick again."""

    def __init__(self, most: int) -> None:
        self.allowed = most
        self._most = most
        self._best: float | None = None
        self._slow = 0

    @property
    def queued(self) -> int:
        """How many pages may be on their way or wait to be worked on; with as many workers as may be in flight."""
        return self._most + 1 if self.allowed == self._most else self.allowed

    def note(self, seconds: float, rows: int) -> None:
        pace = seconds / rows
        best = pace if self._best is None else min(self._best, pace)
        self._best = best
        if seconds < NOTICEABLE or pace <= best * SLOW:
            self._slow = 0
            if pace <= best * SLOW / 1.5:
                self.allowed = min(self._most, self.allowed + 1)
            return
        self._slow += 1
        if self._slow >= SLOW_IN_A_ROW:
            self._slow = 0
            self.allowed = max(1, self.allowed - 1)


def _width(limit: int, density: float) -> int:
    """Ids per window: exactly a page where none are missing, else a little less than would fill one."""
    if density >= 1:
        return limit
    if density <= limit * FILL / WIDEST:
        return WIDEST
    return max(limit, int(limit * FILL / density))
