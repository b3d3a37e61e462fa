"""Cron expressions as people write them, in a time zone, over its changes of the clock.

APScheduler knows when an expression holds; three things are cron's and not its own: weekdays count from Sunday (0 and
7), an expression that names days of the month and of the week is refused instead of meaning something else than in
cron, and what is fixed to an hour takes place once in the night in which that hour comes twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
NEVER = datetime(2024, 1, 1, tzinfo=UTC)  # eight years from here hold every day that there is, 29 February included
FIELDS = "minute hour day month weekday"


@dataclass(frozen=True)
class Cron:
    """One expression in one time zone. Raises ValueError, with what is wrong, for an expression that is none."""

    expression: str
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        if self._at(NEVER) is None:
            raise ValueError("no such day ever comes")

    def next_after(self, at: float) -> int:
        """The first time after `at`; both in seconds since 1970."""
        moment = datetime.fromtimestamp(int(at) + 1, UTC)
        while True:
            found = self._at(moment)
            if found is None:
                raise ValueError(f"{self.expression!r} never comes again")
            if not (self._is_fixed and found.astimezone(self._zone).fold):
                return int(found.timestamp())
            moment = datetime.fromtimestamp(int(found.timestamp()) + 1, UTC)

    def times(self, after: float, until: float) -> Iterator[int]:
        """Every time with `after < time <= until`, in order."""
        at = self.next_after(after)
        while at <= until:
            yield at
            at = self.next_after(at)

    @cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)

    @cached_property
    def _trigger(self) -> CronTrigger:
        fields = self.expression.split()
        if len(fields) != 5:
            raise ValueError(f"write five fields: {FIELDS}")
        if "*" not in fields[2] and "*" not in fields[4]:
            raise ValueError("it names days of the month and of the week; name one and write * for the other")
        return CronTrigger.from_crontab(" ".join([*fields[:4], weekdays(fields[4])]), timezone=self._zone)

    @property
    def _is_fixed(self) -> bool:
        """Whether hours are named: such a time comes once a day, all others go by the time that passes."""
        return "*" not in self.expression.split()[1]

    def _at(self, moment: datetime) -> datetime | None:
        found = self._trigger.get_next_fire_time(None, moment.astimezone(self._zone))
        return None if found is None else found.astimezone(UTC)


def weekdays(field: str) -> str:
    """Cron's field of weekdays (`0-6`, `mon-fri`, `7`, `*/2`) as the names of its days."""
    if field == "*":
        return field
    days: set[int] = set()
    for part in field.lower().split(","):
        found = re.fullmatch(r"(?:(\*)|([0-7]|[a-z]{3})(?:-([0-7]|[a-z]{3}))?)(?:/(\d+))?", part)
        if not found or found[4] == "0":
            raise ValueError(f"{part!r} is no weekday; write 0 to 7 (Sunday is 0 and 7) or sun to sat")
        first = 0 if found[1] else _day(found[2])
        last = 6 if found[1] else _day(found[3]) if found[3] else first
        if found[4] and not found[1] and not found[3]:
            last = 6
        if last < first:
            last += 7
        days |= {day % 7 for day in range(first, last + 1, int(found[4] or 1))}
    return ",".join(DAYS[day] for day in sorted(days))


def _day(word: str) -> int:
    if word.isdigit():
        return int(word)
    if word not in DAYS:
        raise ValueError(f"{word!r} is no weekday; write sun, mon, tue, wed, thu, fri or sat")
    return DAYS.index(word)
