"""Several writes at once, each answered for: what the push and the actions have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, TypeVar

from mautic_sync import stopping
from mautic_sync.errors import MauticSyncError
from mautic_sync.mautic.contacts import max_id_and_total
from mautic_sync.mautic.transport import Transport
from mautic_sync.pipeline.context import Run

Answer = TypeVar("Answer")
DOUBTS_IN_A_ROW = 5
"""After so many requests that all ended in doubt Mautic is asked whether it shows anybody."""


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


def note_end(run: Run, *, in_doubt: bool) -> None:
    """A request has been answered for. After some in a row that ended in doubt: is Mautic there at all?

    What is planned is better kept than sent while it fails, for each sending counts as an attempt. Raises what keeps
    Mautic from showing anybody: the run ends.
    """
    run.doubts_in_a_row = run.doubts_in_a_row + 1 if in_doubt else 0
    if in_doubt and run.doubts_in_a_row % DOUBTS_IN_A_ROW == 0:
        ask_for_anybody(run.mautic)


def ask_for_anybody(transport: Transport) -> None:
    """Raises what keeps Mautic from showing anybody, also when it is asked again."""
    with suppress(MauticSyncError):
        max_id_and_total(transport)
        return
    max_id_and_total(transport)
