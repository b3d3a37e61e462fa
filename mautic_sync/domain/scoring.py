"""The score: points for who somebody is and what they did, by group and in all, and until when they surely stay so.

`score` is a pure function of signals, rules and a day. What somebody did is counted by whole days, so that neither
the order in which activity arrives nor the hour of an evaluation matters. `account` tells the same rule by rule.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from operator import sub
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from mautic_sync.domain.conditions import Condition, Due, Test, activity_text, day_span
from mautic_sync.domain.contact import Signals
from mautic_sync.domain.grammar import TOTAL
from mautic_sync.domain.matchers import ActivityMatcher

QUARTER = 900  # seconds; no zone has begun a day between two quarters of an hour since 1980
EPOCH_DAY = date(1970, 1, 1).toordinal()
LAST_DAY = date.max.toordinal()
NOISE = 0.5e-9  # points; a group that is short of a whole number by less has it: that is noise of floating point
NEVER = LAST_DAY + 1  # a day that does not come
UNLIMITED = sys.maxsize  # times
REASONS_TOLD = 3  # rules
FADED = 0.5  # points; below it a contribution counts as gone
MOST_REMEMBERED = 4_096  # sets of tallies
DAYS_REMEMBERED = 8_192  # quarters of an hour whose day is known: activity comes in the order of its time, or nearly
MOST_POINTS = 1_000_000_000  # of a group or in all, either way: what stands beyond says no more, and fits no database
LONGEST_TABLE = 4_000  # days of age for which factors are computed beforehand


# --- Days


def day_of(at: int, zone: ZoneInfo) -> int:
    """Number of the day of a second since 1970 in the zone; 1 is the first of January of the year 1."""
    return _day_of(at // QUARTER, zone)


@lru_cache(maxsize=DAYS_REMEMBERED)
def _day_of(quarter: int, zone: ZoneInfo) -> int:
    try:
        return datetime.fromtimestamp(quarter * QUARTER, zone).toordinal()
    except (OverflowError, ValueError, OSError):
        return EPOCH_DAY + quarter * QUARTER // 86_400


@lru_cache(maxsize=16_384)
def day_start(day: int, zone: ZoneInfo) -> int:
    """First second of a day in the zone, since 1970."""
    if not 1 <= day <= LAST_DAY:
        return (day - EPOCH_DAY) * 86_400
    return day_span(date.fromordinal(day), zone)[0]


# --- Rules


@dataclass(frozen=True)
class Decay:
    """How points for activity fade with their age in days: by half each `half_life`, or in `steps`.

    `steps` are (age, share): from that age on this share is kept, ages rising, shares falling.
    """

    half_life: int | None = None
    steps: tuple[tuple[int, float], ...] = ()

    def share(self, age: int) -> float:
        """The share of the points that is left at an age of whole days."""
        if self.half_life is not None:
            return math.pow(2.0, -age / self.half_life)
        at = bisect_right(self.steps, age, key=lambda step: step[0])
        return self.steps[at - 1][1] if at else 1.0

    def next_step(self, age: int) -> int | None:
        """The next age, above this one, at which a step takes points away."""
        return next((after for after, _keep in self.steps if after > age), None)


NO_DECAY = Decay()


@dataclass(frozen=True)
class ScoreRule:
    """Points while `condition` holds, or for each activity that `matcher` finds.

    It counts at most `at_most` times in any `per` days (for ever without `per`). With `unless`, what happened on a
    day counts once `waits` further days are over and nothing that `unless` finds happened on any of them.
    """

    name: str
    group: str
    points: int
    condition: Condition | None = None
    matcher: ActivityMatcher | None = None
    at_most: int | None = None
    per: int | None = None
    unless: ActivityMatcher | None = None
    waits: int = 0

    @property
    def lag(self) -> int:
        """Days after which an activity can count."""
        return 0 if self.unless is None else self.waits + 1


@dataclass(frozen=True)
class HotRule:
    """When somebody becomes hot, and what ends it; without `until`, that `when` no longer holds."""

    when: Condition
    until: Condition | None = None


@dataclass(frozen=True)
class ScoreRules:
    """`mappings/scoring.yaml`, ready to be counted.

    `grid` is in days: between its lines nothing is evaluated. `decay` is by group. `start`, `push_to` and
    `push_groups` say what becomes of scores in Mautic.
    """

    rules: tuple[ScoreRule, ...] = ()
    groups: tuple[str, ...] = ()
    decay: Mapping[str, Decay] = field(default_factory=dict)
    grid: int = 1
    time_zone: str = "UTC"
    hot: HotRule | None = None
    low_value: Condition | None = None
    start: Literal["auto", "history", "now"] = "auto"
    push_to: Literal["points", "none"] = "points"
    push_groups: tuple[str, ...] = ()
    matchers: tuple[ActivityMatcher, ...] = field(init=False, repr=False, compare=False)
    """All activity whose days must be tallied for these rules."""
    conditions: tuple[Condition, ...] = field(init=False, repr=False, compare=False)
    """Every condition of the rules and of the flags."""
    _compiled: _Compiled = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = [one for rule in self.rules for one in (rule.matcher, rule.unless) if one is not None]
        asked = [rule.condition for rule in self.rules]
        asked += [self.hot.when, self.hot.until] if self.hot is not None else []
        object.__setattr__(self, "matchers", tuple({one.key: one for one in found}.values()))
        object.__setattr__(self, "conditions", tuple(one for one in (*asked, self.low_value) if one is not None))
        object.__setattr__(self, "_compiled", _compile(self))


class _Activity(NamedTuple):
    """A rule about activity as `score` reads it; `place` is its place among all rules.

    Up to `all_up_to` times count in any case, and all of them where `unless` has cut them already. `weights` has the
    points that are left by age in days.
    """

    place: int
    key: str
    all_up_to: int
    lag: int
    unless: str | None
    weights: tuple[float, ...]
    rule: ScoreRule


class _OfGroup(NamedTuple):
    """The rules about activity of one group in their order: sums of floats depend on it. `steps` is `decay` by steps."""

    group: int
    decay: Decay | None
    half_life: int | None
    steps: Decay | None
    rules: tuple[_Activity, ...]


class _Compiled(NamedTuple):
    zone: ZoneInfo
    attributes: tuple[tuple[int, int, int, Test], ...]
    """Place, group, points and test of each rule about what somebody is."""
    timed: tuple[Due, ...]
    activities: tuple[_OfGroup, ...]
    by_kinds: dict[tuple[str, ...], tuple[_OfGroup, ...]]
    """Keys of tallies → `activities` about them: most people did one of a few sets of things."""


def _compile(rules: ScoreRules) -> _Compiled:
    place_of = {group: place for place, group in enumerate(rules.groups)}
    by_group: dict[str, list[_Activity]] = {}
    attributes, timed = [], []
    for place, rule in enumerate(rules.rules):
        condition = rule.condition
        if condition is not None:
            attributes.append((place, place_of[rule.group], rule.points, condition.holds))
            timed += [condition.due_at] if condition.timed else []
        elif rule.matcher is not None:
            weights = tuple(rule.points * share for share in _table(rules.decay.get(rule.group, NO_DECAY)))
            unless = None if rule.unless is None else rule.unless.key
            all_up_to = UNLIMITED if unless is not None or rule.at_most is None else rule.at_most
            one = _Activity(place, rule.matcher.key, all_up_to, rule.lag, unless, weights, rule)
            by_group.setdefault(rule.group, []).append(one)
    activities = []
    for group, found in by_group.items():
        decay = rules.decay.get(group, NO_DECAY)
        steps = decay if decay.steps else None
        activities.append(_OfGroup(place_of[group], decay, decay.half_life, steps, tuple(found)))
    return _Compiled(ZoneInfo(rules.time_zone), tuple(attributes), tuple(timed), tuple(activities), {})


def _remember(
    by_kinds: dict[tuple[str, ...], tuple[_OfGroup, ...]], kinds: tuple[str, ...], activities: tuple[_OfGroup, ...]
) -> tuple[_OfGroup, ...]:
    if len(by_kinds) >= MOST_REMEMBERED:
        by_kinds.clear()
    some = (of._replace(rules=tuple(one for one in of.rules if one.key in kinds)) for of in activities)
    found = by_kinds[kinds] = tuple(of for of in some if of.rules)
    return found


@lru_cache(maxsize=64)
def _table(decay: Decay) -> tuple[float, ...]:
    return tuple(decay.share(age) for age in range(LONGEST_TABLE))


# --- The score


Part = tuple[int, float]
"""The place of a rule in the file, and the points that it gives."""


class Score(NamedTuple):
    """Points of one person, in all and by group, on a day.

    `due_at` is the first second at which time alone could change any of them; None: never.
    """

    total: int
    groups: Mapping[str, int]
    day: int
    due_at: int | None = None

    @property
    def by_name(self) -> dict[str, int]:
        """What conditions read: the groups, and `total`."""
        return {**self.groups, TOTAL: self.total}


def score(signals: Signals, rules: ScoreRules, now: int, not_before: int = 0, parts: list[Part] | None = None) -> Score:
    """Count one person's points on the day of `now` (seconds since 1970).

    `not_before` is the day of the previous evaluation: time never goes back. What happened after the day of
    evaluation waits for its day. `parts`, if given, receives what each rule gives.

    1. Attributes: the points of every rule whose condition holds at the first second of the day.
    2. Activity: the days that count (`_counted`), each times its points, times what decay leaves of them.
    3. A group is the sum, cut off towards zero but for the noise of floating point; the total is the sum of the groups.
       Neither goes beyond MOST_POINTS, so that all of them, and what Mautic is to receive, are integers of 32 bits.
    """
    zone, attributes, timed, activities, by_kinds = rules._compiled  # noqa: SLF001  # two halves of one thing
    day, start = _evaluation(zone, rules.grid, now // QUARTER, not_before)
    groups = rules.groups
    sums = [0] * len(groups)
    given = [] if parts is None else parts
    for place, group, points, holds in attributes:
        if holds(signals, start):
            sums[group] += points
            given.append((place, points))
    changes = NEVER  # the first day on which something could change
    tallies = signals.tallies
    if tallies:
        kinds = tuple(tallies)
        found = by_kinds.get(kinds)
        if found is None:
            found = _remember(by_kinds, kinds, activities)
        for group, decay, half_life, steps, rules_of_group in found:
            left = lost = 0.0
            for place, key, all_up_to, lag, unless, weights, rule in rules_of_group:
                counted = tallies[key]
                if unless is not None or not counted or counted[-2] > day:
                    against = tallies.get(unless, ()) if unless is not None else ()
                    counted, waiting = _counted(counted, day - lag, rule.at_most, rule.per, against, lag)
                    changes = min(changes, waiting + lag)
                    if not counted:
                        continue
                if sum(counted[1::2]) > all_up_to and _capped(counted, rule):  # most people did nothing so often
                    counted, _never = _counted(counted, day, rule.at_most, rule.per, (), 0)
                part = 0.0
                pairs = iter(counted)
                try:
                    for then, count in zip(pairs, pairs):  # noqa: B905  # a day, and how often on it
                        part += count * weights[day - then]
                except IndexError:
                    part = _left(counted, rule.points, day, decay)
                left += part
                if part < 0:
                    lost -= part
                given.append((place, part))
                if steps is not None:
                    changes = min(changes, _next_step(counted, day, steps))
            if left:
                before = sums[group]
                exact = before + left
                sums[group] = value = int(exact + NOISE if exact > 0 else exact - NOISE)
                if half_life is not None and changes > day + 1:
                    changes = min(changes, day + _days_to_change(value, before, left, left + 2 * lost, half_life))
    for due in timed:
        moment = due(signals, start)
        if moment is not None and EPOCH_DAY + moment // 86_400 <= changes:  # else some days later
            changes = min(changes, _first_day_from(moment, zone))
    due_at = None if changes > LAST_DAY else _line_start(changes, rules.grid, zone)
    total = sum(sums)
    if sum(map(abs, sums)) > MOST_POINTS:  # else neither a group nor the total can be beyond it
        sums = [max(-MOST_POINTS, min(value, MOST_POINTS)) for value in sums]
        total = max(-MOST_POINTS, min(sum(sums), MOST_POINTS))
    return tuple.__new__(Score, (total, dict(zip(groups, sums)), day, due_at))  # noqa: B905  # as many groups


@lru_cache(maxsize=DAYS_REMEMBERED)
def _evaluation(zone: ZoneInfo, grid: int, quarter: int, not_before: int) -> tuple[int, int]:
    """The day of evaluation, and its first second."""
    day = max(_day_of(quarter, zone), not_before)
    day -= day % grid
    return day, day_start(day, zone)


def _first_day_from(at: int, zone: ZoneInfo) -> int:
    """The first day that begins at this second or later."""
    day = EPOCH_DAY - -at // 86_400  # in UTC; no zone is a whole day away from it
    while day_start(day - 1, zone) >= at:
        day -= 1
    while day_start(day, zone) < at:
        day += 1
    return day


@lru_cache(maxsize=DAYS_REMEMBERED)
def _line_start(day: int, grid: int, zone: ZoneInfo) -> int:
    """First second of the first evaluation that is not before a day."""
    return day_start(day + -day % grid, zone)


def _capped(tally: Sequence[int], rule: ScoreRule) -> bool:
    """Whether some of a tally, all of whose days are over, may not count, as far as is seen at a glance."""
    most, per = rule.at_most, rule.per
    if most is None or per is None or len(tally) != 2 * sum(tally[1::2]):
        return True
    # Once on each day: nothing is too much if so many days further on there is always another span.
    return min(map(sub, tally[2 * most :: 2], tally[::2]), default=per) < per


def _counted(
    tally: Sequence[int], last: int, at_most: int | None, per: int | None, against: Sequence[int], lag: int
) -> tuple[Sequence[int], int]:
    """The days up to `last` that count, and the next one after it that might: (day, count, …) and a day.

    Days ascending, each counts as often as the cap still allows in the `per` days that end with it. `against` is the
    tally that, where it has one of the `lag` days that begin with a day, keeps this day from counting.
    """
    if against:
        tally = _unopposed(tally, against[::2], lag)
    if at_most is None or sum(tally[1::2]) <= at_most:
        if not tally or tally[-2] <= last:
            return tally, NEVER
        over = 2 * bisect_right(tally[::2], last)
        return tally[:over], tally[over]
    kept: list[int] = []
    oldest = length = 0
    room = at_most
    window = UNLIMITED if per is None else per
    for day, times in zip(tally[::2], tally[1::2]):  # noqa: B905  # as many
        while oldest < length and kept[oldest] <= day - window:
            room += kept[oldest + 1]
            oldest += 2
        if room <= 0:
            continue
        if day > last:
            return kept, day
        count = min(room, times)
        room -= count
        kept += (day, count)
        length += 2
    return kept, NEVER


def _unopposed(tally: Sequence[int], against: Sequence[int], lag: int) -> Sequence[int]:
    """The days, with their counts, of which none of the `lag` days that begin with them is in `against`."""
    most = len(against)
    kept: list[int] = []
    for day, times in zip(tally[::2], tally[1::2]):  # noqa: B905  # as many
        place = bisect_left(against, day)
        if place == most or against[place] >= day + lag:
            kept += (day, times)
    return kept


def _left(counted: Sequence[int], points: int, day: int, decay: Decay | None) -> float:
    """What decay leaves of the points on a day."""
    if decay is None:
        return float(points * sum(counted[1::2]))
    left = 0.0
    pairs = iter(counted)
    for then, count in zip(pairs, pairs):  # noqa: B905  # a day, and how often on it
        left += count * (points * decay.share(day - then))
    return left


def _next_step(counted: Sequence[int], day: int, decay: Decay) -> int:
    """The next day on which one of the counts fades by a step."""
    steps = ((then, decay.next_step(day - then)) for then in counted[::2])
    return min((then + after for then, after in steps if after is not None), default=NEVER)


def _days_to_change(value: int, plain: int, left: float, gross: float, half_life: int) -> int:
    """Days after which `plain` + `left` · 2^(-days / half_life), rounded and cut off, is `value` no more.

    `gross` is the sum of what makes up `left`, without signs: the measure of its error. Never too late, and no more than the error of
    floating point too early.
    """
    if left < 0:
        value, plain, left = -value, -plain, -left
    # Falling towards `plain`: below `value` it is cut off to less, unless that is 0, which reaches down to -1.
    if value > 0:
        gap = value - plain - NOISE
        reached = value > plain
    else:
        gap = value - 1 - plain + NOISE
        reached = value - 1 >= plain
    if not reached:
        return NEVER
    error = 1e-9 + half_life * (1e-13 * gross / left + 4e-16 * (abs(plain) + gap) / gap)
    return max(1, math.ceil(half_life * math.log2(left / gap) - error))


# --- The account


class Entry(NamedTuple):
    """What one rule gives one person.

    `times`: how often it counted, between `first_day` and `last_day` (numbers of days; None for an attribute).
    `points` are what decay leaves of `points_before_decay`. `evidence` says what makes an attribute hold, or what is
    counted. `expires_at` is the second at which the attribute could end, or at which less than half a point is left;
    None: not by time.
    """

    group: str
    rule: str
    times: int
    first_day: int | None
    last_day: int | None
    points: float
    points_before_decay: int
    evidence: str = ""
    expires_at: int | None = None


def account(signals: Signals, rules: ScoreRules, now: int, not_before: int = 0) -> tuple[Entry, ...]:
    """What makes up the score of `score` with the same arguments: the rules that give points, in the file's order.

    The points of a group's entries add up to its score before it is cut off, towards zero and at MOST_POINTS.
    """
    zone = rules._compiled.zone  # noqa: SLF001  # two halves of one thing
    day, start = _evaluation(zone, rules.grid, now // QUARTER, not_before)
    entries = []
    for rule, counted, left in _parts(signals, rules, day, start):
        condition, decay = rule.condition, rules.decay.get(rule.group)
        if condition is not None:
            evidence, due_at = condition.evidence_text(signals, start), condition.due_at(signals, start)
            ends = None if due_at is None else _line_start(_first_day_from(due_at, zone), rules.grid, zone)
            entries.append(Entry(rule.group, rule.name, 1, None, None, left, rule.points, evidence, ends))
            continue
        times = sum(counted[1::2])
        faded = None if decay is None else _faded_on(counted, abs(rule.points), day, decay)
        ends = None if faded is None else _line_start(faded, rules.grid, zone)
        entries.append(
            Entry(
                rule.group,
                rule.name,
                times,
                counted[0],
                counted[-2],
                left,
                rule.points * times,
                _what_counts(rule),
                ends,
            )
        )
    return tuple(entries)


def _what_counts(rule: ScoreRule) -> str:
    """`e-mail sent unless e-mail opened within 7 days`."""
    if rule.matcher is None:
        return ""
    told = activity_text(rule.matcher)
    if rule.unless is None:
        return told
    return f"{told} unless {activity_text(rule.unless)} within {rule.waits} {'day' if rule.waits == 1 else 'days'}"


def reasons_text(parts: Sequence[Part], rules: ScoreRules) -> str:
    """What makes up a score in a few words, the weightiest first: `Reads pricing 6, Home market 5`; empty for nothing."""
    weighty = sorted([(-abs(points), place, points) for place, points in parts if round(points)])
    return ", ".join([f"{rules.rules[place].name} {points:.0f}" for _weight, place, points in weighty[:REASONS_TOLD]])


def reasons_untold(parts: Sequence[Part]) -> int:
    """How many rules that give points `reasons_text` leaves out."""
    return max(0, sum(1 for _place, points in parts if round(points)) - REASONS_TOLD)


def reasons_due_at(scored: Score, parts: Sequence[Part], rules: ScoreRules) -> int | None:
    """When `reasons_text` of these parts could say something else by time alone: as long as one of them fades, daily.

    Parts fade while their sum stays the same whole number, so that the score's own `due_at` may be later.
    """
    if any(round(points) and rules.rules[place].group in rules.decay for place, points in parts):
        return _line_start(scored.day + 1, rules.grid, rules._compiled[0])  # noqa: SLF001  # as in `score`
    return None


def _parts(
    signals: Signals, rules: ScoreRules, day: int, start: int
) -> Iterator[tuple[ScoreRule, Sequence[int], float]]:
    """The rules that give points on a day that begins at `start`: what counts of the tally, and what decay leaves."""
    tallies = signals.tallies
    for rule in rules.rules:
        if rule.condition is not None:
            if rule.condition.holds(signals, start):
                yield rule, (), float(rule.points)
        elif rule.matcher is not None and rule.matcher.key in tallies:
            counted = _counted_by(rule, tallies, day)
            if counted:
                yield rule, counted, _left(counted, rule.points, day, rules.decay.get(rule.group))


def _counted_by(rule: ScoreRule, tallies: Mapping[str, Sequence[int]], day: int) -> Sequence[int]:
    """What of a rule's tally counts on a day."""
    if rule.matcher is None:
        return ()
    against = tallies.get(rule.unless.key, ()) if rule.unless is not None else ()
    return _counted(tallies[rule.matcher.key], day - rule.lag, rule.at_most, rule.per, against, rule.lag)[0]


def _faded_on(counted: Sequence[int], points: int, day: int, decay: Decay) -> int | None:
    """The day on which less than half a point will be left; None: it is already so, or never will be."""

    def left(then: int) -> float:
        return _left(counted, points, then, decay)

    if left(day) < FADED:
        return None
    if decay.half_life is None:
        days = sorted({then + after for then in counted[::2] for after, _keep in decay.steps if then + after > day})
        return next((then for then in days if left(then) < FADED), None)
    then = day + max(1, math.ceil(decay.half_life * math.log2(left(day) / FADED) - 1))
    while left(then) >= FADED:
        then += 1
    return then


# --- Flags


class Flags(NamedTuple):
    """Whether somebody is worth a call, or nothing at all.

    `due_at` is the first second at which time alone could change one of them; None: never.
    """

    hot: bool = False
    low_value: bool = False
    due_at: int | None = None


COLD = Flags()
HOT_FOR_EVER = Flags(hot=True)


def flags_of(signals: Signals, rules: ScoreRules, previous: Flags, now: int) -> Flags:
    """The flags of one person whose `signals` hold the scores and the decided kind.

    Hot is whoever fulfils `hot.when`, or was hot before and does not fulfil `hot.until`: between the two nobody
    changes back and forth.
    """
    rule, low_value = rules.hot, rules.low_value
    hot = low = False
    due_at: int | None = None
    if rule is not None:
        hot = rule.when.holds(signals, now)
        due_at = rule.when.due_at(signals, now) if rule.when.timed else None
        if rule.until is not None:
            hot = hot or (previous.hot and not rule.until.holds(signals, now))
            if hot and rule.until.timed:
                due_at = sooner(due_at, rule.until.due_at(signals, now))
    if low_value is not None:
        low = low_value.holds(signals, now)
        if low_value.timed:
            due_at = sooner(due_at, low_value.due_at(signals, now))
    if due_at is None and not low:
        return HOT_FOR_EVER if hot else COLD
    return Flags(hot, low, due_at)


def sooner(one: int | None, other: int | None) -> int | None:
    """The earlier of two seconds, either of which may never come."""
    if one is None or (other is not None and other < one):
        return other
    return one
