"""Points: what counts, how often, until when, and who is hot."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from mautic_sync.domain.conditions import compile_condition
from mautic_sync.domain.contact import Signals, VerdictSignal
from mautic_sync.domain.matchers import ActivityMatcher
from mautic_sync.domain.scoring import (
    COLD,
    MOST_POINTS,
    Decay,
    Flags,
    HotRule,
    ScoreRule,
    ScoreRules,
    account,
    day_of,
    day_start,
    flags_of,
    reasons_due_at,
    reasons_text,
    score,
    sooner,
)
from mautic_sync.mappings import load_mappings

UTC_ZONE = ZoneInfo("UTC")
BERLIN = ZoneInfo("Europe/Berlin")
NOW = 1_794_441_600  # 12 November 2026, midnight UTC
TODAY = day_of(NOW, UTC_ZONE)
DAY = 86_400
HIT, READ, SENT = (ActivityMatcher.of(type_, {}) for type_ in ("page.hit", "email.read", "email.sent"))


def rules(*several, decay=None, groups=("fit", "interest"), **more):
    return ScoreRules(several, groups, decay or {}, **more)


def counting(points=1, name="A", group="interest", matcher=HIT, **more):
    return ScoreRule(name, group, points, matcher=matcher, **more)


def being(spec, points=1, name="F", group="fit", zone="UTC"):
    return ScoreRule(name, group, points, condition=compile_condition(spec, time_zone=zone, by_day=True))


def did(*days, matcher=HIT, **more):
    """Signals of somebody who did something on these (day before today, count)."""
    return Signals({}, tallies={matcher.key: tally(*days)}, **more)


def tally(*days):
    return [number for ago, count in sorted(days, reverse=True) for number in (TODAY - ago, count)]


def points(signals, by, now=NOW, not_before=0):
    return score(signals, by, now, not_before).total


# Days


def test_a_day_is_a_day_of_the_zone():
    assert datetime(2026, 11, 12, tzinfo=UTC).toordinal() == TODAY
    assert day_of(NOW - 1, UTC_ZONE) == TODAY - 1
    assert day_of(NOW - 1, BERLIN) == TODAY
    assert day_of(NOW - 3_601, BERLIN) == TODAY - 1
    assert day_start(TODAY, BERLIN) == NOW - 3_600


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Africa/Cairo", "Australia/Lord_Howe"])
@given(at=st.integers(631_152_000, 2_524_608_000))
def test_a_day_holds_its_own_seconds(zone, at):
    zone = ZoneInfo(zone)
    day = day_of(at, zone)
    assert day_start(day, zone) <= at < day_start(day + 1, zone)
    assert day_of(day_start(day, zone), zone) == day
    assert day_of(day_start(day, zone) - 1, zone) == day - 1


def test_times_beyond_the_calendar_have_days():
    assert day_of(10**15, UTC_ZONE) > TODAY
    assert day_start(day_of(10**15, UTC_ZONE), UTC_ZONE) <= 10**15


# What counts


def test_who_somebody_is_counts_while_it_is_so():
    by = rules(being({"field": "country", "in": ["Germany"]}, 5), being({"tag": "rival"}, -50, name="G"))
    assert score(Signals({"country": "Germany"}), by, NOW).groups == {"fit": 5, "interest": 0}
    assert points(Signals({"country": "Germany"}, tags=frozenset({"rival"})), by) == -45
    assert points(Signals({}), by) == 0


def test_what_somebody_did_counts_each_time():
    assert points(did((0, 2), (3, 1)), rules(counting(4))) == 12


def test_an_activity_that_no_rule_counts_gives_nothing():
    assert points(did((0, 2), matcher=READ), rules(counting(4))) == 0
    assert points(Signals({}, tallies={HIT.key: []}), rules(counting(4, at_most=1, per=7))) == 0


def test_one_activity_may_count_for_several_rules():
    assert score(did((0, 1)), rules(counting(4), counting(3, "B", "fit")), NOW).groups == {"fit": 3, "interest": 4}


def test_a_total_is_the_sum_of_the_groups_and_may_be_negative():
    found = score(did((0, 1)), rules(counting(-4), being({"tag": "x"}, -1)), NOW)
    assert (found.total, found.by_name) == (-4, {"fit": 0, "interest": -4, "total": -4})


def test_nothing_counts_more_often_than_the_cap_in_any_span_of_days():
    capped = rules(counting(1, at_most=3, per=7))
    assert points(did((0, 9)), capped) == 3
    assert points(did((6, 2), (0, 2)), capped) == 3
    assert points(did((7, 2), (0, 2)), capped) == 4
    assert points(did((10, 3), (3, 1), (0, 9)), capped) == 6


@pytest.mark.parametrize(("per", "counted"), [(8, 2), (7, 2), (6, 3)])
def test_a_span_of_a_cap_holds_its_first_day_and_its_last(per, counted):
    assert points(did((6, 1), (3, 1), (0, 1)), rules(counting(1, at_most=2, per=per))) == counted


def test_a_cap_without_a_span_holds_for_ever():
    assert points(did((900, 2), (0, 2)), rules(counting(1, at_most=3))) == 3
    assert points(did((900, 2), (0, 2)), rules(counting(8, at_most=1))) == 8


def waiting(**more):
    return rules(counting(-1, matcher=SENT, unless=READ, waits=7, **more))


def mailed(sent, read=()):
    return Signals({}, tallies={SENT.key: tally(*sent), READ.key: tally(*read)})


def test_what_waits_counts_once_the_waiting_is_over():
    assert points(mailed([(7, 1)]), waiting()) == 0
    assert points(mailed([(8, 1)]), waiting()) == -1
    assert score(mailed([(7, 1)]), waiting(), NOW).due_at == NOW + DAY


def test_what_waits_does_not_count_when_the_awaited_happens_in_time():
    for ago in (10, 9, 3):
        assert points(mailed([(10, 1)], [(ago, 1)]), waiting()) == 0, ago
    for ago in (11, 2):
        assert points(mailed([(10, 1)], [(ago, 1)]), waiting()) == -1, ago


def test_what_was_cancelled_uses_up_no_cap_and_makes_nothing_due():
    assert points(mailed([(30, 5), (10, 2)], [(30, 1)]), waiting(at_most=2, per=30)) == -2
    assert score(mailed([(3, 1)], [(3, 1)]), waiting(), NOW).due_at is None
    assert score(mailed([(20, 2), (3, 1)]), waiting(at_most=2, per=30), NOW).due_at is None


# Time


def test_what_happens_later_waits_for_its_day():
    found = score(did((1, 1), (-2, 1)), rules(counting(1)), NOW)
    assert (found.total, found.due_at) == (1, NOW + 2 * DAY)
    assert points(did((1, 1), (-2, 1)), rules(counting(1)), NOW + 2 * DAY) == 2


def test_time_never_goes_back():
    by, signals = rules(counting(8), decay={"interest": Decay(2)}), did((0, 1))
    assert score(signals, by, NOW, TODAY + 2) == score(signals, by, NOW + 2 * DAY)
    assert score(signals, by, NOW, TODAY + 2).total == 4
    assert score(signals, by, NOW, TODAY - 2) == score(signals, by, NOW)


def test_points_halve_with_every_half_life():
    by = rules(counting(-16), counting(16, "B", "fit"), decay={"interest": Decay(30)})
    assert score(did((60, 1)), by, NOW).groups == {"fit": 16, "interest": -4}


def test_points_are_cut_off_towards_zero():
    by = rules(counting(3), decay={"interest": Decay(30)})
    assert points(did((30, 1)), by) == 1
    assert points(did((30, 1)), rules(counting(-3), decay={"interest": Decay(30)})) == -1


def test_points_fade_in_steps():
    by = rules(counting(10), decay={"interest": Decay(None, ((30, 0.5), (60, 0.25), (90, 0.0)))})
    assert [points(did((ago, 1)), by) for ago in (0, 29, 30, 59, 60, 89, 90, 5_000)] == [10, 10, 5, 5, 2, 2, 0, 0]
    assert score(did((29, 1), (31, 1)), by, NOW).due_at == NOW + DAY
    assert score(did((91, 1)), by, NOW).due_at is None


def test_attributes_do_not_fade():
    by = rules(being({"tag": "x"}, 5, group="interest"), counting(4), decay={"interest": Decay(1)})
    assert points(did((9_000, 1), tags=frozenset({"x"})), by) == 5


def test_a_grid_of_several_days_is_evaluated_on_its_lines_only():
    by = rules(counting(8), decay={"interest": Decay(1)}, grid=7)
    line = NOW - TODAY % 7 * DAY
    signals = Signals({}, tallies={HIT.key: [TODAY - TODAY % 7, 1]})
    assert [points(signals, by, line + ago * DAY) for ago in (0, 6, 7)] == [8, 8, 0]
    assert score(signals, by, line, 0).due_at == line + 7 * DAY
    assert score(signals, by, line).day == TODAY - TODAY % 7


def test_conditions_about_time_change_at_midnight():
    by = rules(being({"idle": "60d"}, -5))
    noon = NOW + DAY // 2
    signals = Signals({}, last_active=noon - 60 * DAY)
    assert points(signals, by, noon) == 0
    assert score(signals, by, noon).due_at == NOW + DAY
    assert points(signals, by, NOW + DAY) == -5


def test_days_begin_at_midnight_of_the_zone():
    by = rules(counting(8), decay={"interest": Decay(1)}, time_zone="Europe/Berlin")
    found = score(did((0, 1)), by, NOW)
    assert found.due_at == NOW + DAY - 3_600
    assert points(did((0, 1)), by, found.due_at - 1) == 8
    assert points(did((0, 1)), by, found.due_at) == 4


def test_a_score_that_time_does_not_change_is_never_due():
    assert score(did((3, 4)), rules(counting(1, at_most=2, per=7)), NOW).due_at is None
    assert score(did((0, 1)), rules(counting(1)), NOW).due_at is None
    assert score(Signals({}), waiting(), NOW).due_at is None


@pytest.mark.parametrize(("plain", "fading"), [(0, 8), (0, -8), (1, 1), (-8, 8), (8, -8), (-5, 1), (-1, 1), (3, 900)])
def test_half_lives_change_a_score_on_a_day_that_can_be_told(plain, fading):
    being_so = being({"tag": "x"}, plain, group="interest")
    by = rules(being_so, counting(fading), decay={"interest": Decay(9)})
    signals = did((0, 1), tags=frozenset({"x"}))
    found = score(signals, by, NOW)
    true = next(days for days in range(1, 900) if points(signals, by, NOW + days * DAY) != found.total)
    assert found.due_at == NOW + true * DAY


@pytest.mark.parametrize(("plain", "fading"), [(5, 0), (5, 1), (-5, -1)])
def test_what_fades_towards_what_the_score_is_already_is_never_due(plain, fading):
    by = rules(
        being({"tag": "x"}, plain, group="interest"),
        *([counting(fading)] if fading else ()),
        decay={"interest": Decay(9)},
    )
    assert score(did((9, 1), tags=frozenset({"x"})), by, NOW).due_at is None


@pytest.mark.parametrize("idle", [1, 2, 3, 9])
def test_the_first_of_several_changes_is_due(idle):
    by = rules(counting(6), being({"idle": f"{idle}d"}, -5), decay={"interest": Decay(None, ((3, 0.5),))})
    found = score(did((1, 1), last_active=NOW), by, NOW)
    assert found.due_at == NOW + min(idle, 2) * DAY


@pytest.mark.parametrize(
    ("half_life", "since", "ago", "times"),
    [(5, 4, 0, 333), (9, 7, 0, 300), (9, 7, 3, 333), (5, 3, 4, 333), (5, 4, 5, 100)],
)
def test_large_sums_that_cancel_each_other_out_make_nothing_due_too_late(half_life, since, ago, times):
    large = 1_000_000
    by = rules(
        counting(6),
        counting(2 * large, "B", matcher=READ),
        counting(-3 * large, "C", matcher=SENT),
        decay={"interest": Decay(half_life)},
    )
    done = {
        HIT.key: tally((since, 1)),
        READ.key: tally((ago, times), (ago + half_life, times)),
        SENT.key: tally((ago, times)),
    }
    signals = Signals({}, tallies=done)
    found = score(signals, by, NOW)
    days = (found.due_at - NOW) // DAY
    assert [points(signals, by, NOW + day * DAY) for day in range(days)] == [found.total] * days


@pytest.mark.parametrize(("decay", "left"), [({}, 8), ({"interest": Decay(None, ((30, 0.5),))}, 4)])
def test_what_was_done_many_years_ago_counts_as_well(decay, left):
    assert points(did((9_000, 1)), rules(counting(8), decay=decay)) == left
    assert points(did((9_000, 2)), rules(counting(8, at_most=1), decay=decay)) == left


@pytest.mark.parametrize("sign", [1, -1])
def test_no_group_has_more_points_than_a_database_can_keep(sign):
    by = rules(counting(sign * 1_000_000), being({"tag": "x"}, 7))
    found = score(did((0, 1_001), tags=frozenset({"x"})), by, NOW)
    assert found.groups == {"fit": 7, "interest": sign * MOST_POINTS}


@pytest.mark.parametrize("sign", [1, -1])
def test_several_groups_together_have_no_more_points_than_a_database_can_keep_either(sign):
    """What is granted goes from one end to the other at most, and that is an integer of 32 bits."""
    by = rules(*(counting(sign * 1_000_000, one, one) for one in "abc"), groups=("a", "b", "c"))
    assert points(did((0, 1_001)), by) == sign * MOST_POINTS
    assert 2 * MOST_POINTS < 2**31


# The account


def test_an_account_tells_rule_by_rule():
    by = rules(
        being({"field": "country", "in": ["Germany"]}, 5),
        counting(4, at_most=2, per=30),
        counting(1, "B", matcher=READ),
        decay={"interest": Decay(30)},
    )
    first, second = account(did((60, 1), (30, 5))._replace(fields={"country": "Germany"}), by, NOW)
    assert (first.rule, first.points, first.evidence, first.expires_at) == ("F", 5, "country Germany", None)
    assert (second.group, second.rule, second.times, second.evidence) == ("interest", "A", 3, "page visit")
    assert (second.first_day, second.last_day) == (TODAY - 60, TODAY - 30)
    assert (second.points, second.points_before_decay) == (5, 12)
    assert second.expires_at == NOW + 100 * DAY  # 5 · 2^(-100/30) < 0.5


def test_an_account_tells_what_was_counted():
    pricing = ActivityMatcher.of("page.hit", {"url": ["*/pricing*", "*/prices*"]})
    ignored = counting(-1, "Ignores", matcher=SENT, unless=READ, waits=7)
    seen, sent = did((20, 1), matcher=pricing), did((20, 1), matcher=SENT)
    told = [
        account(who, rules(by), NOW)[0].evidence for who, by in ((seen, counting(matcher=pricing)), (sent, ignored))
    ]
    assert told == ["page visit */pricing* or */prices*", "e-mail sent unless e-mail opened within 7 days"]


def test_an_account_tells_when_points_end():
    idle = rules(being({"not": {"idle": "60d"}}, 1))
    (entry,) = account(Signals({}, last_active=NOW - 50 * DAY + 1), idle, NOW)
    assert entry.expires_at == NOW + 11 * DAY
    steps = rules(counting(1), decay={"interest": Decay(None, ((10, 0.5), (20, 0.25)))})
    (entry,) = account(did((5, 1)), steps, NOW)
    assert entry.expires_at == NOW + 15 * DAY
    (entry,) = account(did((25, 1)), steps, NOW)
    assert entry.expires_at is None


# Flags

HOT = ScoreRules(
    hot=HotRule(compile_condition({"score": "total", "gte": 7}), compile_condition({"score": "total", "lt": 4})),
    low_value=compile_condition({"score": "total", "lt": -10}),
)


def with_total(total, **more):
    return Signals({}, scores={"total": total}, **more)


@given(
    st.sampled_from([Decay(5), Decay(40), Decay(None, ((2, 0.5), (9, 0.1))), None]),
    st.lists(st.integers(0, 30), min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(1, 7),
)
def test_reasons_say_the_same_until_they_are_due(decay, ago, each, grid):
    by = rules(counting(each), being({"tag": "x"}, 4), decay={"interest": decay} if decay else {}, grid=grid)
    signals = did(*[(day, 1) for day in set(ago)], tags=frozenset({"x"}))

    def told(now):
        parts = []
        return score(signals, by, now, parts=parts), parts

    found, parts = told(NOW)
    due_at = sooner(found.due_at, reasons_due_at(found, parts, by))
    for day in range(60):
        now = NOW + day * DAY
        if due_at is not None and now >= due_at:
            break
        assert reasons_text(told(now)[1], by) == reasons_text(parts, by)


@pytest.mark.parametrize(
    ("total", "was", "hot"), [(7, False, True), (6, False, False), (6, True, True), (4, True, True), (3, True, False)]
)
def test_who_is_hot_stays_hot_until_it_is_over(total, was, hot):
    assert flags_of(with_total(total), HOT, Flags(hot=was), NOW).hot is hot


def test_without_until_nobody_stays_hot():
    by = replace(HOT, hot=HotRule(HOT.hot.when))
    assert not flags_of(with_total(6), by, Flags(hot=True), NOW).hot


def test_low_value_is_a_condition_of_its_own():
    assert flags_of(with_total(-11), HOT, COLD, NOW) == Flags(hot=False, low_value=True)
    assert flags_of(with_total(-10), HOT, COLD, NOW) == COLD
    assert flags_of(with_total(99), ScoreRules(), Flags(hot=True, low_value=True), NOW) == COLD


def test_flags_read_the_decided_kind():
    by = ScoreRules(hot=HotRule(compile_condition({"kind": "lead"})))
    assert flags_of(with_total(0, kind="lead"), by, COLD, NOW).hot
    assert not flags_of(with_total(0, kind="ghost"), by, COLD, NOW).hot


def test_flags_are_due_when_time_changes_what_they_read():
    by = ScoreRules(hot=HotRule(compile_condition({"not": {"idle": "5d"}}), compile_condition({"age": "9d"})))
    signals = Signals({}, first_seen=NOW, last_active=NOW)
    assert flags_of(signals, by, COLD, NOW) == Flags(True, False, NOW + 5 * DAY)
    assert flags_of(signals, by, Flags(hot=True), NOW + 5 * DAY) == Flags(True, False, NOW + 9 * DAY)
    assert flags_of(signals, by, Flags(hot=True), NOW + 9 * DAY) == COLD


# The packaged rules

PACKAGED = load_mappings(None).scores


def key_of(name):
    return next(rule.matcher.key for rule in PACKAGED.rules if rule.name == name)


@pytest.mark.parametrize(
    ("name", "signals", "given"),
    [
        ("Decides", Signals({"position": "Head of Marketing"}), 10),
        ("Home market", Signals({"country": "AT"}), 5),
        ("Competitor", Signals({"company": "acme rival"}), -50),
        ("Silent", Signals({}, last_active=NOW - 60 * DAY), -5),
        ("Reads pricing", [(0, 4)], 6),
        ("Reads", [(0, 9)], 5),
        ("Downloads", [(0, 3)], 10),
        ("Opens", [(0, 5)], 4),
        ("Clicks", [(0, 5)], 12),
        ("Replies", [(0, 2)], 8),
        ("Answers a form", [(0, 4)], 15),
        ("Ignores mail", [(8, 9)], -5),
        ("Unsubscribes", [(0, 2)], -20),
    ],
)
def test_every_packaged_rule_gives_its_points(name, signals, given):
    if isinstance(signals, list):
        signals = Signals({}, tallies={key_of(name): tally(*signals)})
    (entry,) = account(signals, PACKAGED, NOW)
    assert (entry.rule, entry.points_before_decay) == (name, given)
    assert {rule.name for rule in PACKAGED.rules} >= {name}


def test_the_packaged_points_for_interest_halve_in_ninety_days():
    assert points(Signals({}, tallies={key_of("Replies"): tally((90, 1))}), PACKAGED) == 4


def test_the_packaged_flags():
    lead = with_total(7, kind="lead")
    assert flags_of(lead, PACKAGED, COLD, NOW).hot
    assert not flags_of(lead._replace(kind="customer"), PACKAGED, COLD, NOW).hot
    assert flags_of(with_total(4, kind="lead"), PACKAGED, Flags(hot=True), NOW).hot
    assert not flags_of(with_total(3, kind="lead"), PACKAGED, Flags(hot=True), NOW).hot
    assert flags_of(with_total(-11), PACKAGED, COLD, NOW).low_value
    assert not flags_of(with_total(-10), PACKAGED, COLD, NOW).low_value


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_activity_ahead_waits_for_its_day_in_conditions_as_in_counts(zone):
    """A Mautic with a fast clock: what is dated to later today counts, what is dated to tomorrow counts tomorrow."""
    begins = day_start(TODAY + 1, ZoneInfo(zone))
    by = rules(being({"activity": "page.hit", "within": "7d"}, 10, zone=zone), time_zone=zone)
    later, tomorrow = (Signals({}, evidence=evidence_of_hits([at])) for at in (begins - 1, begins + 3_600 * 20))
    now = begins - 3_600
    assert (points(later, by, now), points(tomorrow, by, now)) == (10, 0)
    assert score(tomorrow, by, now).due_at == begins
    assert (points(tomorrow, by, begins - 1), points(tomorrow, by, begins)) == (0, 10)
    (entry,) = account(tomorrow, by, begins)
    assert (entry.points, entry.expires_at) == (10, score(tomorrow, by, begins).due_at)


# Laws

THOROUGH = settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
GIVEN = st.integers(-20, 20).filter(bool)
TALLIES = st.fixed_dictionaries(
    {},
    optional={
        one.key: st.one_of(
            st.dictionaries(st.integers(-12, 130), st.integers(1, 6), min_size=1, max_size=8),
            st.dictionaries(st.integers(0, 20), st.just(1), min_size=1, max_size=12),
        ).map(lambda days: tuple(tally(*days.items())))
        for one in (HIT, READ, SENT)
    },
)
CONDITIONS = st.sampled_from(
    [
        {"idle": "30d"},
        {"not": {"idle": "12h"}},
        {"age": None, "between": ["3d", "12d"]},
        {"tag": "x"},
        {"field": "day", "before": "-2d"},
        {"verdict": "accepted"},
        {"activity": "page.hit"},
        {"activity": "page.hit", "at_least": 2, "within": "36h"},
        {"activity": "page.hit", "at_most": 1, "before": "-2d"},
    ]
)
STEPS = st.sampled_from([((1, 0.5),), ((3, 0.75), (40, 0.3), (100, 0.0)), ((30, 0.0),)])
DECAYS = st.one_of(st.integers(1, 90).map(Decay), STEPS.map(lambda steps: Decay(None, steps)))
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns"])


DECAYING = st.dictionaries(st.sampled_from(["fit", "interest"]), DECAYS)


@st.composite
def score_rules(draw, grids=(1, 1, 1, 2, 7), decays=DECAYING):
    found, zone = [], draw(ZONES)
    for number in range(draw(st.integers(1, 5))):
        name, group, given = f"R{number}", draw(st.sampled_from(["fit", "interest"])), draw(GIVEN)
        if draw(st.integers(0, 3)) == 0:
            found.append(being(draw(CONDITIONS), given, name, group, zone))
            continue
        more = {}
        if draw(st.booleans()):
            more["at_most"] = draw(st.integers(1, 6))
            more["per"] = draw(st.none() | st.integers(1, 40))
        if draw(st.integers(0, 2)) == 0:
            more |= {"unless": draw(st.sampled_from([READ, SENT])), "waits": draw(st.integers(1, 9))}
        found.append(counting(given, name, group, draw(st.sampled_from([HIT, READ, SENT])), **more))
    return rules(*found, decay=draw(decays), grid=draw(st.sampled_from(grids)), time_zone=zone)


def evidence_of_hits(times):
    return {HIT.key: tuple(sorted(times))}


@st.composite
def people(draw):
    recent = st.none() | st.integers(NOW - 40 * DAY, NOW + 5 * DAY)
    return Signals(
        {"day": draw(st.sampled_from(["2026-11-11", "2026-11-12 08:00:00", "2026-12-24"]))},
        tags=draw(st.frozensets(st.just("x"))),
        verdict=VerdictSignal("accepted", expires_at=draw(st.integers(NOW + 1, NOW + 9 * DAY))),
        first_seen=draw(recent),
        last_active=draw(recent),
        evidence=draw(st.just({}) | st.lists(recent.filter(bool), min_size=1, max_size=4).map(evidence_of_hits)),
        tallies=draw(TALLIES),
    )


MOMENTS = st.integers(NOW, NOW + DAY - 1)


@THOROUGH
@given(people(), score_rules(), MOMENTS)
def test_nothing_changes_before_it_is_due(signals, by, now):
    found = score(signals, by, now)
    zone = ZoneInfo(by.time_zone)
    assert found.due_at is None or found.due_at > now
    end = now + 200 * DAY if found.due_at is None else found.due_at
    day = day_of(now, zone) + 1
    moments = [now, end - 1]
    while day_start(day, zone) < end and len(moments) < 250:
        moments += [day_start(day, zone), day_start(day, zone) + 3_600 * 11]
        day += 1
    for moment in moments:
        if now <= moment < end:
            later = score(signals, by, moment, found.day)
            assert (later.total, later.groups) == (found.total, found.groups), moment


@THOROUGH
@given(people(), score_rules(grids=(1,), decays=st.just({"interest": Decay(30)})), MOMENTS)
def test_what_is_due_by_a_half_life_does_change(signals, by, now):
    """With nothing but a half life, the day that is told is the day of the change."""
    by = replace(by, rules=tuple(rule for rule in by.rules if rule.condition is None and rule.unless is None))
    past = {key: [n for at in range(0, len(days), 2) if days[at] <= TODAY - 1 for n in days[at : at + 2]] for key, days in signals.tallies.items()}  # fmt: skip
    signals = signals._replace(tallies=past)
    found = score(signals, by, now)
    if found.due_at is not None:
        assert score(signals, by, found.due_at).groups != found.groups


@THOROUGH
@given(people(), score_rules(), MOMENTS, st.randoms())
def test_the_order_of_arrival_does_not_matter(signals, by, now, random):
    keys = list(signals.tallies)
    random.shuffle(keys)
    shuffled = signals._replace(tallies={key: signals.tallies[key] for key in keys})
    assert score(shuffled, by, now) == score(signals, by, now)
    assert account(shuffled, by, now) == account(signals, by, now)


HITS = st.lists(st.tuples(st.sampled_from([HIT.key, READ.key, SENT.key]), st.integers(0, 130)), max_size=40)


def replayed(batches):
    """Tallies as a store keeps them: each batch is added to what is there."""
    found = {}
    for batch in batches:
        for key, ago in batch:
            days = found.setdefault(key, {})
            days[TODAY - ago] = days.get(TODAY - ago, 0) + 1
    return {key: [n for day in sorted(days) for n in (day, days[day])] for key, days in found.items()}


@THOROUGH
@given(HITS, st.integers(0, 40), score_rules(), st.randoms())
def test_reading_it_all_at_once_is_reading_it_in_parts(hits, cut, by, random):
    shuffled = list(hits)
    random.shuffle(shuffled)
    once = score(Signals({}, tallies=replayed([hits])), by, NOW)
    assert score(Signals({}, tallies=replayed([shuffled[:cut], shuffled[cut:]])), by, NOW) == once


@THOROUGH
@given(TALLIES, st.integers(1, 6), st.none() | st.integers(1, 40), st.booleans())
def test_in_any_span_of_days_nothing_counts_more_often_than_the_cap(tallies, most, per, waits):
    more = {"unless": READ, "waits": 5} if waits else {}
    by = rules(counting(1, at_most=most, per=per, **more))
    signals = Signals({}, tallies=tallies)
    before, counted = 0, {}
    for day in range(TODAY - 140, TODAY + 20):
        until = Signals({}, tallies={**tallies, HIT.key: _until(tallies.get(HIT.key, ()), day)})
        now = points(until, by, NOW + 60 * DAY)
        counted[day] = now - before
        assert counted[day] >= 0
        before = now
    span = per or 1_000
    for day in counted:
        assert sum(counted.get(day - ago, 0) for ago in range(span)) <= most
    assert before == points(signals, by, NOW + 60 * DAY)


def _until(days, last):
    return [n for at in range(0, len(days), 2) if days[at] <= last for n in days[at : at + 2]]


@THOROUGH
@given(TALLIES, st.integers(1, 90), st.integers(0, 90), st.integers(0, 90))
def test_fading_twice_is_fading_once_for_longer(tallies, half_life, first, second):
    by = rules(counting(7), counting(-3, "B", matcher=READ), decay={"interest": Decay(half_life)})
    signals = Signals({}, tallies={key: _until(days, TODAY) for key, days in tallies.items()})

    def left(days):
        return sum(entry.points for entry in account(signals, by, NOW + days * DAY))

    assert left(first + second) == pytest.approx(left(first) * 2 ** (-second / half_life), abs=1e-9)


@THOROUGH
@given(people(), score_rules(), MOMENTS, st.integers(0, 20))
def test_an_earlier_moment_changes_nothing_once_a_day_was_evaluated(signals, by, now, back):
    found = score(signals, by, now)
    again = score(signals, by, now - back * DAY, found.day)
    assert (again.day, again.groups) == (found.day, found.groups)


@THOROUGH
@given(people(), score_rules(), MOMENTS, st.integers(0, 60))
def test_the_account_adds_up_to_the_score(signals, by, now, later):
    now += later * DAY
    found = score(signals, by, now)
    for group in by.groups:
        entries = [entry for entry in account(signals, by, now) if entry.group == group]
        assert int(round(sum(entry.points for entry in entries), 9)) == found.groups[group]
    assert found.total == sum(found.groups.values())


@given(st.lists(st.integers(-20, 20), max_size=20))
def test_whoever_is_hot_was_hot_enough_since_it_was_last_over(totals):
    flags, expected = COLD, False
    for total in totals:
        flags = flags_of(with_total(total), HOT, flags, NOW)
        expected = total >= 7 or (expected and total >= 4)
        assert flags.hot is expected


@given(people(), score_rules())
def test_half_a_point_is_left_until_it_expires(signals, by):
    for entry in account(signals, by, NOW):
        if entry.first_day is None or entry.expires_at is None:
            continue
        kept = {one.rule: one for one in account(signals, by, entry.expires_at)}
        if kept[entry.rule].times == entry.times:
            assert abs(kept[entry.rule].points) < 0.5
