"""Whether the worker does its work: what it notes in the store, and what `status` and health checks make of it.

Healthy means that a run has succeeded since the last but one time of `schedule.sync`, or that one is under way and
moves. The store is enough to know: no network is asked, and no process need be found.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from mautic_sync.cron import Cron
from mautic_sync.pipeline.context import Run
from mautic_sync.settings import Settings
from mautic_sync.store import notes

SYNC = "sync"
FULL_SYNC = "full_sync"
SUCCEEDED = "succeeded"
"""Schedule → when a run of that kind last succeeded, by hand or not."""
MISFIRES = "misfires"
"""Schedule → `{count, last_at}` of its times at which no run could begin."""
WORKER = "worker"
"""The beat of `mautic-sync run`."""
BEAT_SECONDS = 60
ALIVE_SECONDS = 3 * BEAT_SECONDS
QUIET_SECONDS = 30 * 60
"""So long a run may tell nothing while it counts as moving."""
LATE_SECONDS = 10 * 60


@dataclass(frozen=True)
class Health:
    """The answer of a health check and the sentence that explains it."""

    ok: bool
    reason: str


def note_success(run: Run, *, full: bool) -> None:
    """A whole pass came to its end, though something may have been quarantined or be in doubt."""
    at = int(time.time())
    with run.engine.begin() as connection:
        succeeded = notes.get_json(connection, SUCCEEDED) or {}
        # The first pass of all reads everybody, as a full one does.
        succeeded = {FULL_SYNC: at, **succeeded, SYNC: at, **({FULL_SYNC: at} if full else {})}
        notes.put_json(connection, SUCCEEDED, succeeded)


def succeeded(connection: Connection, now: float) -> dict[str, int]:
    """Schedule → its last success; one that lies ahead, by a clock that was wrong, tells nothing."""
    known: dict[str, int] = notes.get_json(connection, SUCCEEDED) or {}
    return {schedule: at for schedule, at in known.items() if at <= now + LATE_SECONDS}


def note_misfires(connection: Connection, schedule: str, count: int, last_at: int) -> None:
    known = notes.get_json(connection, MISFIRES) or {}
    before = known.get(schedule, {}).get("count", 0)
    notes.put_json(connection, MISFIRES, {**known, schedule: {"count": before + count, "last_at": last_at}})


def misfires(connection: Connection) -> dict[str, dict[str, int]]:
    return dict(notes.get_json(connection, MISFIRES) or {})


def health(connection: Connection, settings: Settings, now: int) -> Health:
    """Whether a run has succeeded lately enough, or is on its way to."""
    last = succeeded(connection, now).get(SYNC)
    return judge(settings, now, last, notes.get_json(connection, WORKER))


def judge(settings: Settings, now: int, last: int | None, worker: Mapping[str, Any] | None) -> Health:
    cron = Cron(settings.schedule.sync, settings.time_zone)

    def bound(at: int) -> int:
        return cron.next_after(cron.next_after(at)) + LATE_SECONDS

    if last is not None and now <= bound(last):
        return Health(ok=True, reason=f"the last success is {_ago(now - last)} old")
    if worker is not None and is_alive(worker, now):
        if worker["run"] is not None and now - worker["active_at"] <= QUIET_SECONDS:
            return Health(ok=True, reason=f"run {worker['run']} is under way")
        if now <= bound(worker["started_at"]):
            return Health(ok=True, reason="the worker has just begun")
    told = "no run has succeeded yet" if last is None else f"the last success is {_ago(now - last)} old"
    return Health(ok=False, reason=f"{told}; `mautic-sync status` shows the last runs, the log why they failed")


def is_alive(worker: Mapping[str, Any], now: int) -> bool:
    return worker["stopped_at"] is None and now - worker["seen_at"] <= ALIVE_SECONDS


def _ago(seconds: int) -> str:
    minutes = max(0, seconds) // 60
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} d"


class Beat:
    """Tells the store every minute that the worker lives, which run it is at, and when that last did something."""

    def __init__(self, engine: Engine) -> None:
        now = int(time.time())
        self._engine = engine
        self._lock = threading.Lock()
        self._state: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started_at": now,
            "stopped_at": None,
            "seen_at": now,
            "active_at": now,
            "run": None,
            "next": {},
        }
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        self._state.update(run=None, stopped_at=int(time.time()), next={})
        self._write()

    def moved(self) -> None:
        """The run did something; cheap, for it is called for every event."""
        self._state["active_at"] = int(time.time())

    def tell(self, *, run: str | None, following: Mapping[str, int]) -> None:
        """A run begins (its id) or the worker waits (None) for these times, by schedule."""
        self._state.update(run=run, active_at=int(time.time()), next=dict(following))
        self._write()

    def _go_on(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            self._write()

    def _write(self) -> None:
        # A store that is away for a minute stops no worker: the run has its own error to tell.
        with self._lock, suppress(SQLAlchemyError), self._engine.begin() as connection:
            self._state["seen_at"] = int(time.time())
            notes.put_json(connection, WORKER, dict(self._state))
