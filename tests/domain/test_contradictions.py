"""What never holds is found; what may hold for somebody is not said to be so."""

from __future__ import annotations

from itertools import combinations, product
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings, strategies as st

from mautic_sync.domain.conditions import compile_condition
from mautic_sync.domain.contact import KINDS, Catalogue, Signals, VerdictSignal
from mautic_sync.domain.contradictions import Known, contradictions
from mautic_sync.domain.grammar import parse_condition, path_text
from mautic_sync.domain.matchers import ActivityMatcher

NOW = 1_794_441_600  # 2026-11-12 in UTC
DAY = 86_400
REACH = {"fit": (-2, 2)}
ZONES = ["UTC", "Europe/Berlin", "America/New_York"]
VISITS = ActivityMatcher.of("page.hit", {}).key
PRICES = ActivityMatcher.of("page.hit", {"url": "*/pricing*"}).key
NUMBERS = [-3, 0, 1, 1.5, 2]
SPELLED = ["a", "A", "é", "7", "yes", "DE", "Germany", 7, True, ""]
SPANS = ["1d", "2d"]
TIMES = ["04:30:00", "05:30:00", "12:00:00", "12:00:01", "12:00:02", "22:30:00", "23:15:00", "23:30:00"]
AT = [NOW - DAY - 2_700, *(NOW - days * DAY + seconds for days in range(4) for seconds in (-1, 0, 1))]  # 23:15 first
TYPES = {"n": "number", "company": "text", "country": "country", "day": "date", "chosen": "multiselect"}


def compared(subject, name):
    for operator in ("is", "is_not", "gt", "gte", "lt", "lte"):
        yield from ({subject: name, operator: number} for number in NUMBERS)
    yield from ({subject: name, "between": list(two)} for two in combinations(NUMBERS, 2))


def spelled(alias):
    for operator in ("is", "is_not"):
        yield from ({"field": alias, operator: value} for value in SPELLED)
    for operator in ("in", "not_in"):
        yield {"field": alias, operator: []}
        yield from ({"field": alias, operator: list(two)} for two in combinations(SPELLED, 2))


def present(alias):
    for operator, value in product(("empty", "not_empty"), (True, False)):
        yield {"field": alias, operator: value}


def named(subject, *words):
    return [{subject: list(some)} for size in (1, 2) for some in combinations(words, size)]


def elapsed(subject):
    yield from ({subject: None, operator: span} for operator in ("gt", "gte", "lt", "lte") for span in SPANS)
    yield {subject: None, "between": SPANS}


def visits():
    ends = [{}, {"within": "1d"}, {"within": "2d"}]
    days = [
        {},
        *(
            {end: day}
            for end in ("after", "before")
            for day in ("2026-11-09", "2026-11-10", "2026-11-10 23:30:00", "-2d", "-1d")
        ),
    ]
    ends += [one | other for one, other in combinations(days, 2) if one.keys().isdisjoint(other)]
    counts = [{}, {"at_least": 2}, {"at_most": 0}, {"at_most": 1}, {"at_least": 1, "at_most": 1}]
    yield from ({"activity": "page.hit", **span, **count} for span in ends for count in counts)


def visits_of_prices():
    """Of all pages or of some, at one time or within another."""
    wheres, ends = [{}, {"where": {"url": "*/pricing*"}}], [{}, {"within": "1d"}, {"within": "2d"}]
    counts = [{}, {"at_least": 2}, {"at_most": 0}, {"at_most": 1}, {"at_least": 1, "at_most": 1}]
    yield from ({"activity": "page.hit", **a, **b, **c} for a, b, c in product(wheres, ends, counts))


def who_visited():
    times = sorted(AT[::3])
    for size in range(4):
        for all_of_them in combinations(times, size):
            for some in range(size + 1):
                yield from (
                    Signals({}, evidence={VISITS: all_of_them, PRICES: prices})
                    for prices in combinations(all_of_them, some)
                )


def those_with(alias, *values):
    return [Signals({}), *(Signals({alias: value}) for value in values)]


VALUES = [*SPELLED, None, False, "b", "on", 1, 0, 1.5, "1.5", "France"]
TOPICS = {
    "score": ([*compared("score", "fit")], [Signals({}, scores={"fit": score}) for score in range(-2, 3)]),
    "any score": ([*compared("score", "total")], [Signals({}, scores={"total": score}) for score in range(-5, 6)]),
    "number": ([*compared("field", "n"), *present("n")], those_with("n", *VALUES, -4, -3, 3, "2")),
    "text": (
        [
            *spelled("company"),
            *present("company"),
            *({"field": "company", "matches": pattern} for pattern in ("^$", "^a")),
            *(
                {"field": "company", operator: text}
                for operator in ("like", "starts_with", "ends_with")
                for text in ("a", "*", "%", "´")
            ),
        ],
        those_with("company", *VALUES, "´", "*", "%"),
    ),
    "country": ([*spelled("country"), *present("country")], those_with("country", *VALUES)),
    "choice": ([*spelled("chosen"), *present("chosen")], those_with("chosen", *VALUES, "a|b", "a|7", "DE|a", "yes|é")),
    "date": (
        [
            *({"field": "day", end: day} for end in ("after", "before") for day in ("2026-11-10", "2026-11-11", "-1d", "+1d")),
            *({"field": "day", end: f"2026-11-10 {time}"} for end in ("after", "before") for time in TIMES),
            {"field": "day", "between": ["2026-11-10", "2026-11-11"]},
            *present("day"),
        ],
        those_with("day", *(f"2026-11-{day}" for day in range(9, 14)), *(f"2026-11-{day} {time}" for day in (9, 10, 11) for time in TIMES), "", None, 3),
    ),
    "tag": (named("tag", "a", "b"), [Signals({}, tags=frozenset(some)) for some in ("", "a", "b", "ab", "c")]),
    "segment": (named("segment", "a", "B"), [Signals({}, segments=frozenset(some)) for some in ("", "a", "b", "ab")]),
    "kind": (named("kind", *KINDS), [Signals({}, kind=kind) for kind in KINDS]),
    "stage": (named("stage", "Press", "Board"), [Signals({}, stage=stage) for stage in (None, "press", "Board", "X")]),
    "verdict": (
        named("verdict", "accepted", "held", "missing", "valid", "invalid", "role_based"),
        [
            *(
                Signals({}, verdict=VerdictSignal(outcome, status, sub))
                for outcome in ("accepted", "held", "rejected")
                for status in ("valid", "invalid")
                for sub in ("", "role_based")
            ),
            Signals({}, verdict=VerdictSignal("missing")),
        ],
    ),
    "do-not-contact": (
        [
            *({"dnc": channels} for channels in ("email", ["email", "sms"])),
            *(
                {"dnc": channels, operator: reason}
                for channels in ("email", ["email", "sms"])
                for operator in ("is", "is_not")
                for reason in ("bounced", "unsubscribed")
            ),
            *({"dnc": "email", operator: ["bounced", "manual"]} for operator in ("in", "not_in")),
        ],
        [Signals({}, dnc=dict(dnc)) for dnc in product(*([(one, reason) for reason in range(4)] for one in ("email", "sms")))],
    ),
    "age": ([*elapsed("age"), {"age": "1d"}], [Signals({}, first_seen=at) for at in (None, *AT)]),
    "idle": ([*elapsed("idle")], [Signals({}, first_seen=NOW - 9 * DAY, last_active=at) for at in (None, *AT)]),
    "activity": (
        [*visits()],
        [Signals({}, evidence={VISITS: times}) for size in range(4) for times in combinations(sorted(AT), size)],
    ),
    "activity and more of it": ([*visits_of_prices()], [*who_visited()]),
}  # fmt: skip


def found_in(spec, zone="UTC"):
    """Where something never holds, as people read it; the whole is ``."""
    problems = []
    node = parse_condition(spec, problems)
    assert not problems, problems
    return [path_text(found.node.path) for found in contradictions(node, Known(REACH, ZoneInfo(zone)))]


TIMED = [(topic, zone) for topic in ("date", "activity") for zone in ZONES[1:]]


@pytest.mark.parametrize(("topic", "zone"), [*((topic, "UTC") for topic in TOPICS), *TIMED])
def test_of_two_that_exclude_each_other_nobody_fulfils_both(topic, zone):
    leaves, people = TOPICS[topic]
    catalogue = None if topic == "segment" else Catalogue(fields=TYPES)
    fulfilled = {}
    for number, spec in enumerate([*leaves, *({"not": leaf} for leaf in leaves)]):
        condition = compile_condition(spec, catalogue=catalogue, time_zone=zone)
        who = {place for place, one in enumerate(people) if condition.holds(one, NOW)}
        if found_in(spec, zone):
            assert not who or found_in(spec, zone) == ["not"], spec
        else:
            fulfilled[number] = spec, who
    excluding = 0
    for (one, ones), (other, others) in combinations(fulfilled.values(), 2):
        if found_in({"all": [one, other]}, zone):
            excluding += 1
            assert not ones & others, (one, other)
    assert excluding


NESTED = st.recursive(
    st.sampled_from(
        [*TOPICS["kind"][0], *TOPICS["tag"][0], *({"score": "fit", "gte": number} for number in (-2, 0, 2))]
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=8,
)
EVERYBODY = [
    Signals({}, kind=kind, tags=frozenset(tags), scores={"fit": score})
    for kind, tags, score in product(KINDS, ("", "a", "b", "ab"), range(-2, 3))
]


@settings(max_examples=300, deadline=None)
@given(NESTED)
def test_however_it_is_nested_nobody_fulfils_what_never_holds(spec):
    problems = []
    for found in contradictions(parse_condition(spec, problems), Known(REACH, ZoneInfo("UTC"))):
        part = spec
        for step in found.node.path:
            part = part[step]
        condition = compile_condition(part)
        assert not any(condition.holds(one, NOW) for one in EVERYBODY), part


A, B = {"tag": "a"}, {"tag": "b"}
VISITED = {"activity": "page.hit"}
LEAD, GHOST, CUSTOMER = ({"kind": kind} for kind in ("lead", "ghost", "customer"))


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"all": [LEAD, GHOST]}, [""]),
        ({"any": [A, {"all": [LEAD, GHOST]}]}, ["any[1]"]),
        ({"all": [LEAD, {"any": [GHOST, CUSTOMER]}]}, [""]),
        ({"all": [LEAD, {"any": [GHOST, A]}]}, []),
        ({"all": [A, {"any": [LEAD, A]}, {"not": {"any": [B, A]}}]}, [""]),
        ({"not": {"any": [A, {"not": A}]}}, [""]),
        ({"not": {"all": [LEAD, GHOST]}}, ["not"]),
        ({"all": [{"all": [LEAD, GHOST]}, CUSTOMER]}, ["all[0]"]),
        ({"all": [{"tag": ["a", "b"]}, {"not": A}]}, []),
        ({"all": [{"field": "company", "is": "One"}, {"field": "company", "is": "Two"}]}, [""]),
        ({"all": [{"field": "company", "is": "One"}, {"field": "company", "is": "ONE"}]}, []),
        ({"all": [{"field": "branch", "is": "One"}, {"field": "branch", "is": "Two"}]}, []),
        ({"all": [{"field": "branch", "is": "One"}, {"field": "branch", "is_not": "one"}]}, [""]),
        ({"all": [{"field": "branch", "is": "One"}, {"field": "branch", "empty": True}]}, [""]),
        ({"all": [{"field": "n", "gt": 5}, {"field": "n", "lte": 5}]}, [""]),
        ({"all": [{"field": "n", "gte": 5, "optional": True}, {"field": "n", "lt": 5}]}, []),
        ({"all": [{"field": "day", "after": "2026-02-01"}, {"field": "day", "before": "2026-01-01"}]}, [""]),
        ({"all": [{"field": "day", "after": "-1d"}, {"field": "day", "before": "2026-01-01"}]}, []),
        ({"all": [{"age": "30d"}, {"age": None, "lt": "7d"}]}, [""]),
        ({"all": [{"verdict": ["accepted", "held"]}, {"verdict": "rejected"}]}, [""]),
        ({"all": [{"verdict": "accepted"}, {"verdict": "valid"}]}, []),
        ({"activity": "page.hit", "after": "2026-02-01", "before": "2026-01-01"}, [""]),
        ({"activity": "page.hit", "after": "2026-02-01", "before": "2026-01-01", "at_most": 2}, []),
        ({"score": "fit", "gt": 2}, [""]),
        ({"not": {"score": "fit", "gte": -2}}, [""]),
        ({"score": "interest", "gt": 2}, []),
        ({"field": "company", "in": []}, []),
        ({"dnc": "email", "in": []}, []),
        ({"score": "interest", "is": 1.5}, [""]),
        ({"score": "interest", "between": [1.2, 1.8]}, [""]),
        ({"all": [{"score": "interest", "gt": 1}, {"score": "interest", "lt": 2}]}, [""]),
        ({"all": [{"score": "interest", "gt": 0.5}, {"score": "interest", "lt": 1.5}]}, []),
        ({"all": [{"verdict": "missing"}, {"verdict": "valid"}]}, [""]),
        ({"all": [{"verdict": ["missing", "held"]}, {"verdict": "unknown"}]}, []),
        ({"all": [{"dnc": "email", "is": "bounced"}, {"dnc": "email", "is": "unsubscribed"}]}, [""]),
        ({"all": [{"dnc": "email", "is": "bounced"}, {"not": {"dnc": "email"}}]}, [""]),
        ({"all": [{"dnc": "email", "is": "bounced"}, {"dnc": "sms", "is": "unsubscribed"}]}, []),
        ({"all": [{"dnc": ["email", "sms"], "is": "bounced"}, {"not": {"dnc": "email"}}]}, []),
        ({"all": [VISITED | {"within": "7d"}, VISITED | {"within": "30d", "at_most": 0}]}, [""]),
        ({"all": [VISITED | {"within": "30d"}, VISITED | {"within": "7d", "at_most": 0}]}, []),
        ({"all": [VISITED | {"within": "7d"}, VISITED | {"at_most": 0}]}, [""]),
        ({"all": [VISITED | {"within": "7d"}, {"not": VISITED}]}, [""]),
        ({"all": [VISITED | {"where": {"url": "*/pricing/a*"}}, VISITED | {"at_most": 0}]}, [""]),
        ({"all": [VISITED | {"where": {"url": "*/a"}}, VISITED | {"where": {"url": "*/b"}, "at_most": 0}]}, []),
        ({"all": [VISITED, VISITED | {"where": {"url": "*"}, "at_most": 0}]}, []),
    ],
)
def test_it_is_found_where_it_stands(spec, where):
    assert found_in(spec) == where


def test_what_can_hold_in_very_many_ways_is_let_be():
    part = {"any": [LEAD, GHOST, CUSTOMER, A]}
    assert found_in({"all": [part] * 40}) == []
    assert found_in({"all": [LEAD, GHOST, *[part] * 2]}) == [""]
