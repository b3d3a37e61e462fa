"""Several writes at once, each answered for: what the push and the actions have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, TypeVar

from mautic_sync import stopping
from mautic_sync.errors import MauticSyncError

Answer = TypeVar("Answer")


def keep_in_flight(
    most: int,
    until: float,
    *,
    intend: Callable[[], Sequence[Any] | None],
    send: Callable[[Sequence[Any]], Answer],
    land: Callable[[Sequence[Any], Future[Answer]], None],
) -> None:
    """Keep `most` requests in flight until there is no more to do, or no more time (`until`, monotonic seconds).

    `intend` stores the next intents as sent and returns them: none where nothing of this one may go out, None at the
    end. `send` runs in a thread; `land` settles what became of it. Whatever ends this, what flies is landed first.
    """
    with ThreadPoolExecutor(max_workers=most, thread_name_prefix="write") as pool:
        flying: dict[Future[Answer], Sequence[Any]] = {}
        try:
            while True:
                while len(flying) < most and time.monotonic() < until:
                    # What is stored as sent is sent: else the next run would take it for a lost answer.
                    with stopping.held():
                        rows = intend()
                        if rows:
                            flying[pool.submit(send, rows)] = rows
                    if rows is None:
                        break
                if not flying:
                    return
                landed, _ = wait(flying, return_when=FIRST_COMPLETED)
                for future in landed:
                    with stopping.held():
                        land(flying.pop(future), future)
        except BaseException:
            for future, rows in flying.items():
                with stopping.held(), suppress(MauticSyncError):
                    land(rows, future)
            raise
