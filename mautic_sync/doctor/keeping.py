"""The store: whether it can be opened, is whole, has room, is free, belongs to this Mautic, and is kept up to date."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from mautic_sync.doctor.examination import NOT_OPENED, Examination
from mautic_sync.doctor.finding import Finding, failed, listed, ok, skipped, spoken, warning
from mautic_sync.errors import ConfigError
from mautic_sync.mautic.feeds import feed_after, feed_max_id
from mautic_sync.pipeline.pull import AUDIT_LAST, INSTANCE, NEVER_SHRINKING, is_another_row
from mautic_sync.store import looking, notes, runs
from mautic_sync.store.migrations import HEAD

PASSES = ("sync", "run sync", "run full_sync")
"""Commands whose runs count as the schedule's."""
GOOD = (0, 4)
"""Exit codes of a run that went through: 4 kept something aside."""
MISSED = 2  # scheduled runs that may be missed before it is told
LITTLE = 2**30  # bytes
TOO_LITTLE = 100 * 2**20
LAST = 5  # runs that are looked at
AHEAD = 60  # seconds by which runs may go by a later time than the clock: it was just set
LOST_DAYS = 86_400  # seconds ahead from which on waiting for the clock to catch up is no remedy


def opened(exam: Examination) -> Finding:
    try:
        place = exam.place
    except ConfigError as error:
        told, _, fix = str(error).partition("; ")
        return Finding("failed", told, fix or "Correct store.url.", configuration=True)
    if place.url.get_backend_name() == "sqlite" and place.file is None:
        return warning(
            "the store is in memory alone: everything is forgotten when the worker ends", "Set store.url to a file."
        )
    if not place.exists:
        return skipped(f"there is none at {place.shown} yet; `mautic-sync init` makes it")
    broken = looking.faults(exam.store)
    if broken:
        return failed(
            f"the file is damaged: {listed(broken, 2)}",
            "Stop the worker and restore a backup; without one, move the file away: everything but verdicts is read anew.",
        )
    return ok(f"{place.shown} is whole" if place.file is not None else f"{place.shown} answers")


def schema(exam: Examination) -> Finding:
    if not exam.place.exists:
        return skipped("there is no store yet")
    if exam.store_problem == NOT_OPENED:
        return skipped(NOT_OPENED)
    found = looking.version(exam.store)
    if found is None:
        return ok("it is empty; the first run sets it up")
    if looking.is_current(found):
        return ok(f"version {found}")
    if looking.is_newer(found):
        return failed(
            f"the store has version {found}, newer than this program's {HEAD}",
            "Upgrade mautic-sync to the version that wrote it, or restore a backup from before.",
        )
    return warning(
        f"the store has version {found}, this program writes {HEAD}",
        "Back it up; the next run brings it up to date by itself.",
    )


def room(exam: Examination) -> Finding:
    found = looking.room_of(exam.place)
    if found is None:
        return skipped("the disk of a database server cannot be seen from here")
    if not found.writable:
        return failed(
            f"this user may not write {exam.place.shown}",
            "Give the user that the worker runs as the right to write the file and its directory.",
        )
    return judge_room(found.free, found.used)


def judge_room(free: int, used: int) -> Finding:
    """Bytes. A backup takes as much again as the store."""
    told = f"{_size(free)} are free, the store takes {_size(used)}"
    fix = "Make room on the disk of store.url, or move the store to a larger one."
    if free < TOO_LITTLE:
        return failed(told, fix, free=free, used=used)
    if free < max(LITTLE, 2 * used):
        return warning(told, fix, free=free, used=used)
    return ok(told, free=free, used=used)


def _size(number: int) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def lock(exam: Examination) -> Finding:
    if exam.place.file is None and exam.store_problem == NOT_OPENED:
        return skipped(NOT_OPENED)
    holder = looking.lock_holder(exam.place, None if exam.place.file is not None else exam.store)
    if holder is None:
        return ok("free: no run is under way")
    where = "process" if exam.place.file is not None else "database session"
    who = f" by {where} {holder.number}" if holder.number is not None else ""
    return ok(f"held{who}, which is alive: a run is under way", holder=holder.number)


def instance(exam: Examination) -> Finding:
    known = notes.get(exam.store, INSTANCE)
    if known is None:
        return skipped("the store has met no Mautic yet")
    if known != (exam.set.mautic.base_url or "").rstrip("/"):
        return failed(
            f"this store belongs to the Mautic at {known}, not to {exam.set.mautic.base_url}",
            "Give each Mautic a store.url of its own; if the same Mautic has moved, say `mautic-sync sync --adopt`.",
        )
    return ok(f"it belongs to {known}")


def clock(exam: Examination) -> Finding:
    """Whether runs go by the clock, or by the time of one that took place while it was ahead."""
    ahead = (runs.last_start(exam.store) or 0) - exam.now
    if ahead <= AHEAD:
        return ok("runs go by the clock")
    told = f"a run took place while the clock was ahead, and runs go by that time: {spoken(ahead)} ahead of now"
    if ahead < LOST_DAYS:
        return warning(told, "See that NTP is on; the clock catches up with them by itself.", ahead=ahead)
    before = looking.last_start_until(exam.store, exam.now)
    when = f"; the last run before it was at {datetime.fromtimestamp(before, UTC):%Y-%m-%d %H:%M} UTC" if before else ""
    return failed(
        f"{told}, so that points fade too early and budgets of a day never begin anew{when}",
        "See that the clock is right (NTP), stop the worker, and restore a backup of the store from before that run; "
        "without one, move the store away: everything but verdicts is read anew.",
        ahead=ahead,
    )


def last_success(exam: Examination) -> Finding:
    if (runs.last_start(exam.store) or 0) > exam.now + AHEAD:
        return skipped("runs go by a time that lies ahead, which the line above is about")
    good = looking.last_good_run(exam.store, PASSES, GOOD)
    codes = looking.last_exit_codes(exam.store, PASSES, LAST)
    if good is None:
        told = "no run has gone through yet" if len(codes) < 2 else f"none of the last {len(codes)} runs went through"
        return warning(told, "Run `mautic-sync sync`; what stops it stands on standard error.")
    began, ended = good
    told = f"the last run that went through ended {spoken(max(0, exam.now - ended))} ago"
    due = missed_since(began, exam.set.schedule.sync, exam.set.time_zone)
    if exam.now > due:
        fix = "See that the worker, or its cron job, is running: `mautic-sync status` shows how the last runs ended"
        worst = sorted({str(code) for code in codes if code not in GOOD and code is not None})
        return warning(
            f"{told}, and `{exam.set.schedule.sync}` was due more often",
            f"{fix} (exit code {', '.join(worst)})." if worst else f"{fix}.",
            age=exam.now - ended,
        )
    return ok(told, age=exam.now - ended)


def missed_since(began: int, cron: str, time_zone: str) -> int:
    """When `MISSED` further runs of this schedule are overdue, by as much as they lie apart."""
    trigger = CronTrigger.from_crontab(cron, timezone=ZoneInfo(time_zone))
    moments: list[datetime] = []
    moment: datetime | None = datetime.fromtimestamp(began, UTC)
    for _ in range(MISSED + 1):
        moment = trigger.get_next_fire_time(None, (moment or datetime.fromtimestamp(began, UTC)) + timedelta(seconds=1))
        if moment is None:
            return began + 10**10  # a schedule that ends
        moments.append(moment)
    return int(moments[-1].timestamp())


def feeds(exam: Examination) -> Finding:
    """Whether Mautic's tables end below what was read, or differ from it: restored from a backup, or another Mautic."""
    behind, seen = [], 0
    for name in sorted(NEVER_SHRINKING):
        cursor = runs.get_cursor(exam.store, name)
        if cursor is None:
            continue
        seen += 1
        highest = feed_max_id(exam.probe, name)
        if highest and highest < cursor.last_id:
            behind.append(f"{name} ends at {highest}, {cursor.last_id} was read")
        elif name == "audit_log" and (last_read := notes.get_json(exam.store, AUDIT_LAST)) is not None:
            number = last_read[0]
            if is_another_row(feed_after(exam.probe, name, number - 1, 1), *last_read):
                behind.append(f"{name} has another row {number} than the one that was read")
    if behind:
        return failed(
            f"Mautic was restored from a backup, or is another one: {listed(behind)}",
            "Look at it, then read everything again with `mautic-sync sync --full`.",
        )
    return ok("what was read is still there") if seen else skipped("nothing was read yet")
