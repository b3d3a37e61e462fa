"""The worker: passes at the times of `schedule.sync` and `schedule.full_sync`, one at a time, until it is stopped.

APScheduler's triggers say when. The loop is not APScheduler's: its schedulers sleep for a time that they reckon once,
so that a clock set back would stop them for as long, do not tell how many times they have run together into one, and
catch the signals that end a run. Passes take place in the main thread, for it is there that signals arrive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NoReturn, Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from mautic_sync.cron import Cron
from mautic_sync.errors import MauticSyncError, StopError, StoreBusyError
from mautic_sync.mappings import Mappings, MappingsError
from mautic_sync.pipeline import health, rules
from mautic_sync.pipeline.context import Observer, Run
from mautic_sync.pipeline.health import FULL_SYNC, SYNC
from mautic_sync.pipeline.run import Options, iso, opened_run, outcome, plan_only, summary, sync
from mautic_sync.settings import Settings

TICK_SECONDS = 5
"""So often the clock is looked at."""
GRACE_SECONDS = 60
"""A run that begins so much after its time is on time, and a step of the clock so small is none."""
BUSY_SECONDS = 900
"""So long a pass waits for a run that somebody started by hand."""
MOST_COUNTED = 10_000
"""More missed times than these are not counted one by one."""


class Clock(Protocol):
    """The time of day, which may be set, the time that passes, and waiting."""

    def now(self) -> float: ...
    def passed(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The clock of the machine."""

    now = staticmethod(time.time)
    passed = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


@dataclass(frozen=True)
class Due:
    """A schedule whose time has come: the latest of its times, and how many of them no run began at."""

    schedule: str
    at: int
    misfires: int


class Timetable:
    """What comes when. Times that passed unserved become one run, and are counted."""

    def __init__(self, crons: Mapping[str, Cron], now: float) -> None:
        self._crons = crons
        self._next = {name: cron.next_after(now) for name, cron in crons.items()}
        self._looked_at = now

    @property
    def following(self) -> dict[str, int]:
        """The next time of each schedule, in seconds since 1970."""
        return dict(self._next)

    def due(self, now: float) -> list[Due]:
        """What is due by now; each time is given once."""
        if now < self._looked_at - GRACE_SECONDS:
            # The clock was set back: waiting for the times as they were would be waiting for nothing.
            for name in self._crons:
                self.go_on_from(name, now)
            self._looked_at = now
        self._looked_at = max(now, self._looked_at)
        found = []
        for name, cron in self._crons.items():
            if self._next[name] > now:
                continue
            times = [self._next[name], *islice(cron.times(self._next[name], now), MOST_COUNTED)]
            late = sum(1 for at in times if now - at > GRACE_SECONDS)
            found.append(Due(name, times[-1], late))
            self.go_on_from(name, now)
        return found

    def go_on_from(self, name: str, now: float) -> None:
        """The next time of this schedule is the first after `now`."""
        self._next[name] = self._crons[name].next_after(now)


def crons_of(settings: Settings) -> dict[str, Cron]:
    """The schedules that the worker keeps."""
    return {
        FULL_SYNC: Cron(settings.schedule.full_sync, settings.time_zone),
        SYNC: Cron(settings.schedule.sync, settings.time_zone),
    }


def overdue(crons: Mapping[str, Cron], succeeded: Mapping[str, int], now: float) -> str | None:
    """What a worker that starts now does at once: the schedule of which a time has passed since its last success."""
    if SYNC not in succeeded:
        return SYNC
    return next(
        (name for name, cron in crons.items() if name in succeeded and cron.next_after(succeeded[name]) <= now), None
    )


def _unseen(_run: Run, _tell: Observer) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass
class Worker:
    """Runs passes for ever. `read_rules` reads the files of the mappings; whatever a pass raises is told, not raised."""

    settings: Settings
    engine: Engine
    read_rules: Callable[[], Mappings]
    tell: Observer
    clock: Clock = field(default_factory=SystemClock)
    watched: Callable[[Observer], AbstractContextManager[Observer]] = nullcontext
    """What draws a run's progress, given the observer that it adds to."""
    seen: Callable[[Run, Observer], AbstractContextManager[None]] = _unseen
    """Within it lines speak of this run, whose observer that is."""
    _beat: health.Beat = field(init=False)
    _run_id: str | None = field(init=False, default=None)

    def check(self) -> None:
        """MappingsError where the files are broken and there are no last good mappings to go on with."""
        self._rules()

    def work(self) -> NoReturn:
        """Until a signal ends it."""
        crons = crons_of(self.settings)
        self._beat = health.Beat(self.engine)
        with self._beat:
            with self.engine.begin() as connection:
                now = self.clock.now()
                first = overdue(crons, health.succeeded(connection, now), now)
            timetable = Timetable(crons, self.clock.now())
            self.tell("worker_started", next={name: iso(at) for name, at in timetable.following.items()}, at_once=first)
            if first is not None:
                self._serve(timetable, Due(first, int(self.clock.now()), 0))
            while True:
                self._wait(timetable)

    def _wait(self, timetable: Timetable) -> None:
        """One look at the clock, what is due by it, and a short sleep."""
        due = timetable.due(self.clock.now())
        for one in due:
            if one.misfires:
                self._misfired(one)
        if due:
            # A full pass comes first, and does the usual one's work as well.
            self._serve(timetable, due[0])
            return
        before, passed = self.clock.now(), self.clock.passed()
        self.clock.sleep(max(0.1, min(TICK_SECONDS, *(at - before for at in timetable.following.values()))))
        jumped = (self.clock.now() - before) - (self.clock.passed() - passed)
        if abs(jumped) > GRACE_SECONDS:
            self.tell("clock_jumped", seconds=round(jumped))

    def _misfired(self, one: Due) -> None:
        self.tell("misfired", schedule=one.schedule, count=one.misfires, last_at=iso(one.at))
        try:
            with self.engine.begin() as connection:
                health.note_misfires(connection, one.schedule, one.misfires, one.at)
        except DBAPIError as error:
            self._failed(one.schedule, None, StopError(_store_failed(error)))

    def _serve(self, timetable: Timetable, one: Due) -> None:
        """One pass; the times of the usual one that go by during a full one are served by it."""
        self._attempt(one.schedule, timetable)
        if one.schedule == FULL_SYNC:
            timetable.go_on_from(SYNC, self.clock.now())
        self._beat.tell(run=None, following=timetable.following)

    def _attempt(self, schedule: str, timetable: Timetable) -> None:
        self._run_id = None
        try:
            self._pass(schedule, timetable)
        except StoreBusyError as error:
            self.tell("busy", schedule=schedule, reason=str(error))
        except MauticSyncError as error:
            self._failed(schedule, self._run_id, error)
        except DBAPIError as error:
            self._failed(schedule, self._run_id, StopError(_store_failed(error)))
        except Exception as error:  # noqa: BLE001 -- a worker that is left alone survives what nobody thought of
            self.tell("crashed", run=self._run_id, schedule=schedule, reason=type(error).__name__, exc_info=error)

    def _failed(self, schedule: str, run_id: str | None, error: MauticSyncError) -> None:
        self.tell("run_failed", run=run_id, schedule=schedule, exit_code=error.exit_code, reason=str(error))

    def _pass(self, schedule: str, timetable: Timetable) -> None:
        mappings, last_good, broken = self._rules()
        options = Options(full=schedule == FULL_SYNC)
        with (
            self.watched(self._noticed) as tell,
            opened_run(
                self.settings,
                mappings,
                self.engine,
                command=f"run {schedule}",
                now=int(self.clock.now()),
                wait=BUSY_SECONDS,
                tell=tell,
            ) as run,
            self.seen(run, tell),
        ):
            self._run_id = run.id
            self._beat.tell(run=run.id, following=timetable.following)
            tell("run_started", schedule=schedule)
            run.fallback, run.on_last_good = last_good, broken is not None
            if broken is not None:
                with self.engine.begin() as connection:
                    rules.note_broken(connection, str(broken), run.now, tell)
            if self.settings.push.enabled:
                sync(run, options)
            else:
                plan_only(run, options)
                health.note_success(run, full=options.full)
            tell("run_done", schedule=schedule, exit_code=outcome(run.counts), **_figures(summary(run)))

    def _rules(self) -> tuple[Mappings, Mappings | None, MappingsError | None]:
        """The mappings of the next run, the last good ones, and what is wrong when both are the same for that."""
        last_good = rules.last_good(self.engine, self.settings)
        try:
            return self.read_rules(), last_good, None
        except MappingsError as error:
            if last_good is None:
                raise
            return last_good, last_good, error

    def _noticed(self, event: str, **facts: Any) -> None:
        self._beat.moved()
        self.tell(event, **facts)


def _store_failed(error: DBAPIError) -> str:
    return f"the store failed: {error.orig}. Check store.url, free disk and rights."


def _figures(document: Mapping[str, Any]) -> dict[str, Any]:
    """The summary in one line."""
    return {
        "seconds": document["seconds"],
        "contacts": document["pulled"]["contacts"],
        "activities": document["pulled"]["activities"],
        "calls": document["pulled"]["calls"],
        "written": document["pushed"]["calls"],
        "credits": document["validated"]["credits"],
        **{name: document[name] for name in ("pending", "quarantined", "failed", "doubtful")},
    }
