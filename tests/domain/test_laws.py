"""Laws that hold for every condition, every person and every time."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import product
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, assume, example, given, settings, strategies as st

from mautic_sync.domain.classification import (
    ASSUMED_ACCEPTED,
    ASSUMED_REJECTED,
    RANK,
    Previous,
    StageRule,
    StageRules,
    decide,
    needs_verdict,
)
from mautic_sync.domain.conditions import ahead_of, compile_condition
from mautic_sync.domain.contact import KINDS, Signals, VerdictSignal
from mautic_sync.domain.matchers import ActivityMatcher

NOW = 1_794_441_600
DAY = 86_400
THOROUGH = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)

DURATIONS = st.sampled_from(["1s", "2s", "1h", "1d", "36h", "30d"])
MOMENTS = st.sampled_from(["-1d", "-30d", "+1d", "-1s", "2026-11-12", "2026-11-11 23:59:59"])
WHERE = st.sampled_from([{}, {"url": "*/pricing*"}])
TIMES = st.integers(NOW - 40 * DAY, NOW + 2) | st.sampled_from(
    [NOW, NOW - 1, NOW - DAY, NOW - 30 * DAY, NOW + 5, NOW + DAY - 1, NOW + DAY, NOW + 9 * DAY]
)


@st.composite
def activities(draw):
    spec = {"activity": "page.hit", **({"where": where} if (where := draw(WHERE)) else {})}
    shape = draw(st.sampled_from(["plain", "within", "after", "before", "both"]))
    if shape == "within":
        spec["within"] = draw(DURATIONS)
    if shape in {"after", "both"}:
        spec["after"] = draw(MOMENTS)
    if shape in {"before", "both"}:
        spec["before"] = draw(MOMENTS)
    if draw(st.booleans()):
        spec["at_least"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        spec["at_most"] = draw(st.integers(spec.get("at_least", 0), 4))
    return spec


def elapsed(subject):
    pair = st.tuples(st.integers(1, 20), st.integers(20, 40)).map(lambda two: [f"{two[0]}d", f"{two[1]}d"])
    return st.one_of(
        DURATIONS.map(lambda one: {subject: one}),
        st.builds(lambda op, one: {subject: None, op: one}, st.sampled_from(["gt", "gte", "lt", "lte"]), DURATIONS),
        pair.map(lambda two: {subject: None, "between": two}),
    )


LEAVES = st.one_of(
    activities(),
    elapsed("age"),
    elapsed("idle"),
    st.builds(lambda op, at: {"field": "day", op: at}, st.sampled_from(["after", "before"]), MOMENTS),
    st.sampled_from(["accepted", "held", "rejected", "missing", "valid"]).map(lambda word: {"verdict": word}),
    st.sampled_from(["a", "b"]).map(lambda tag: {"tag": tag}),
    st.integers(0, 3).map(lambda number: {"field": "n", "gte": number}),
)
SPECS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=6,
)
KEYS = [ActivityMatcher.of("page.hit", where).key for where in ({}, {"url": "*/pricing*"})]
VERDICTS = st.builds(
    VerdictSignal,
    outcome=st.sampled_from(["accepted", "held", "rejected"]),
    status=st.sampled_from(["valid", "invalid"]),
    fresh=st.booleans(),
    expires_at=st.none() | st.integers(NOW - 3, NOW + 3 * DAY),
) | st.just(VerdictSignal("missing"))
DAYS = st.sampled_from(["2026-11-12", "2026-11-11 00:00:01", "2026-10-13 00:00:00", "2026-11-13"])


@st.composite
def people(draw):
    fields = {"n": draw(st.integers(0, 3)), "email": draw(st.sampled_from(["ada@example.com", "no address"]))}
    if draw(st.booleans()):
        fields["day"] = draw(DAYS)
    return Signals(
        fields,
        tags=draw(st.frozensets(st.sampled_from(["a", "b"]))),
        evidence={key: tuple(sorted(draw(st.lists(TIMES, max_size=5)))) for key in KEYS},
        verdict=draw(VERDICTS),
        first_seen=draw(st.none() | TIMES),
        last_active=draw(st.none() | TIMES),
    )


@st.composite
def stage_rules(draw):
    stages = []
    kinds = sorted(draw(st.lists(st.sampled_from(KINDS), max_size=4)), key=lambda kind: -RANK[kind])
    for number, kind in enumerate(kinds):
        stages.append(StageRule(f"S{number}", kind, 50 - number, draw(st.booleans()), compile_condition(draw(SPECS))))
    return StageRules((*stages, StageRule("Ghost", "ghost", 1)))


@st.composite
def situations(draw):
    rules = draw(stage_rules())
    stage = draw(st.none() | st.sampled_from(rules.stages))
    previous = Previous(stage.name, stage.kind) if stage else None
    if stage and draw(st.integers(0, 5)) == 0:
        previous = Previous("Renamed", stage.kind)
    return draw(people()), rules, previous


def moments_until(due_at):
    """Seconds after NOW and before a change is due, its edges and everything between that is of interest."""
    end = NOW + 90 * DAY if due_at is None else due_at - 1
    return st.sampled_from(sorted({NOW, min(NOW + 1, end), end, (NOW + end) // 2})) | st.integers(NOW, end)


@THOROUGH
@given(SPECS, people(), st.data())
def test_nothing_changes_before_it_is_due(spec, signals, data):
    condition = compile_condition(spec)
    due_at = condition.due_at(signals, NOW)
    assert due_at is None or due_at > NOW
    later = data.draw(moments_until(due_at))
    assert condition.holds(signals, later) == condition.holds(signals, NOW)
    if not condition.timed:
        assert due_at is None


@THOROUGH
@given(situations(), st.booleans(), st.data())
def test_no_decision_changes_before_it_is_due(situation, gate_open, data):
    signals, rules, previous = situation
    decision = decide(signals, rules, previous, NOW, gate_open=gate_open)
    later = data.draw(moments_until(decision.due_at))
    again = decide(signals, rules, previous, later, gate_open=gate_open)
    assert (again.kind, again.stage) == (decision.kind, decision.stage)


@THOROUGH
@given(SPECS, people(), st.booleans(), st.integers(0, DAY - 1), st.sampled_from(["UTC", "Europe/Berlin"]))
def test_what_lies_ahead_counts_for_nothing(spec, signals, by_day, later, zone):
    condition, now = compile_condition(spec, time_zone=zone, by_day=by_day), NOW + later
    day = datetime.fromtimestamp(now, ZoneInfo(zone)).date()

    def over(at):
        return datetime.fromtimestamp(at, ZoneInfo(zone)).date() <= day if by_day else at <= now

    seen = signals._replace(evidence={key: tuple(filter(over, times)) for key, times in signals.evidence.items()})
    assert condition.trace(signals, now) == condition.trace(seen, now)
    assert condition.evidence_text(signals, now) == condition.evidence_text(seen, now)
    assert ahead_of(signals.evidence, now) or signals == seen


@THOROUGH
@given(SPECS, people())
def test_the_trace_and_the_deciding_path_agree_with_the_answer(spec, signals):
    condition = compile_condition(spec)
    answer = condition.holds(signals, NOW)
    assert condition.trace(signals, NOW).holds is answer
    assert condition.deciding(signals, NOW).holds is answer
    if answer:
        assert condition.evidence_text(signals, NOW)
        condition.path(signals, NOW)


@given(st.lists(SPECS, min_size=1, max_size=3), people())
def test_all_any_and_not_mean_what_they_say(specs, signals):
    answers = [compile_condition(spec).holds(signals, NOW) for spec in specs]
    assert compile_condition({"all": specs}).holds(signals, NOW) is all(answers)
    assert compile_condition({"any": specs}).holds(signals, NOW) is any(answers)
    assert compile_condition({"not": specs[0]}).holds(signals, NOW) is not answers[0]
    opposite = {"not": {"any": [{"not": spec} for spec in specs]}}
    assert compile_condition(opposite).holds(signals, NOW) is all(answers)


@THOROUGH
@given(situations())
def test_with_a_decisive_verdict_and_no_sticky_stage_the_first_that_holds_wins(situation):
    signals, rules, previous = situation
    rules = replace(rules, stages=tuple(replace(stage, sticky=False) for stage in rules.stages))
    signals = signals._replace(verdict=ASSUMED_ACCEPTED)
    first = next(one for one in rules.stages if one.condition is None or one.condition.holds(signals, NOW))
    assert decide(signals, rules, previous, NOW).stage == first.name


@THOROUGH
@given(situations())
def test_a_verdict_is_needed_exactly_where_it_makes_a_difference(situation):
    signals, rules, previous = situation
    assume(signals.fields["email"] == "ada@example.com")
    accepted, rejected = (
        decide(signals._replace(verdict=verdict), rules, previous, NOW)
        for verdict in (ASSUMED_ACCEPTED, ASSUMED_REJECTED)
    )
    differ = (accepted.kind, accepted.stage) != (rejected.kind, rejected.stage)
    assert needs_verdict(signals, rules, previous, NOW) is differ


@THOROUGH
@given(stage_rules(), people(), st.data())
def test_nobody_falls_from_a_sticky_stage(rules, signals, data):
    rules = replace(rules, stages=tuple(replace(stage, sticky=True) for stage in rules.stages))
    before = data.draw(st.sampled_from(rules.stages))
    decision = decide(signals, rules, Previous(before.name, before.kind), NOW)
    assert rules.position(decision.stage) <= rules.position(before.name)


UNDECIDED = st.sampled_from(
    [
        VerdictSignal("missing"),
        VerdictSignal("held", "catch-all"),
        VerdictSignal("held", "unknown", fresh=False),
        VerdictSignal("accepted", "valid", fresh=False),
        VerdictSignal("accepted", "valid", expires_at=NOW),
        VerdictSignal("rejected", "invalid", fresh=False),
    ]
)


@THOROUGH
@given(stage_rules(), people(), UNDECIDED, st.sampled_from(KINDS), st.booleans())
def test_nobody_loses_a_kind_before_a_verdict_arrives(rules, signals, verdict, kind, gate_open):
    signals = signals._replace(verdict=verdict, fields={**signals.fields, "email": "ada@example.com"})
    previous = Previous(next((stage.name for stage in rules.stages if stage.kind == kind), "Renamed"), kind)
    accepted = decide(signals._replace(verdict=ASSUMED_ACCEPTED), rules, previous, NOW)
    decision = decide(signals, rules, previous, NOW, gate_open=gate_open)
    if RANK[accepted.kind] >= RANK[kind] and any(stage.kind == kind for stage in rules.stages):
        assert RANK[decision.kind] >= RANK[kind]
    assert RANK[decision.kind] <= max(RANK[kind], RANK[accepted.kind], RANK[decide_plainly(signals, rules, previous)])


def decide_plainly(signals, rules, previous):
    """The kind that the present verdict gives, as if it were decisive."""
    return decide(signals._replace(fields={**signals.fields, "email": None}), rules, previous, NOW).kind


@THOROUGH
@given(situations(), st.booleans())
def test_deciding_again_after_oneself_changes_nothing(situation, gate_open):
    signals, rules, previous = situation
    first = decide(signals, rules, previous, NOW, gate_open=gate_open)
    second = decide(signals, rules, Previous(first.stage, first.kind), NOW, gate_open=gate_open)
    third = decide(signals, rules, Previous(second.stage, second.kind), NOW, gate_open=gate_open)
    assert (third.kind, third.stage, third.rule, third.reason) == (
        second.kind,
        second.stage,
        second.rule,
        second.reason,
    )
    assert (second.kind, second.stage) == (first.kind, first.stage)


@THOROUGH
@given(activities(), people(), st.integers(0, 10))
def test_more_of_the_same_activity_does_not_change_the_reason(spec, signals, later):
    condition = compile_condition(spec)
    (matcher,) = condition.matchers
    times = signals.evidence[matcher.key]
    more = signals._replace(evidence={matcher.key: (*times, max((*times, NOW)) + later)})
    assume(condition.holds(signals, NOW) and condition.holds(more, NOW))
    assert condition.reason_text(signals, NOW) == condition.reason_text(more, NOW)


# Values that are equal to others of another type, or not, and what is told of them is not the same.
TELLING = st.sampled_from([None, "1", 1, 1.0, True, "true", 2])
LASTING_LEAVES = st.one_of(
    st.sampled_from(["accepted", "held", "rejected", "missing", "valid"]).map(lambda word: {"verdict": word}),
    st.sampled_from(["a", "b"]).map(lambda tag: {"tag": tag}),
    st.builds(lambda name, value: {"field": name, "is": value}, st.sampled_from("nm"), st.sampled_from([1, True, "1"])),
    st.just({"field": "n", "not_empty": True}),
    st.integers(1, 3).map(lambda least: {"activity": "page.hit", "at_least": least}),
    st.just({"activity": "page.hit", "after": "2026-11-11"}),
    st.integers(0, 9).map(lambda number: {"score": "total", "gte": number}),
    st.sampled_from([{"segment": "news"}, {"campaign": "Spring"}, {"stage": "Lead"}, {"kind": "lead"}]),
    st.sampled_from([{"dnc": "email"}, {"dnc": "email", "is": "manual"}, {"dnc": "email", "is_not": "unsubscribed"}]),
)


@st.composite
def lasting_rules(draw):
    conditions = draw(st.lists(st.lists(LASTING_LEAVES, min_size=1, max_size=2), min_size=1, max_size=2))
    stages = [
        StageRule(
            f"S{place}", ("customer", "lead")[place], 50 - place, draw(st.booleans()), compile_condition({"any": parts})
        )
        for place, parts in enumerate(conditions)
    ]
    return StageRules((*stages, StageRule("Ghost", "ghost", 1)))


SOME = st.sampled_from([frozenset(), frozenset({"news"}), frozenset({"Spring"})])
TELLING_FIELDS = st.fixed_dictionaries(
    {}, optional={"n": TELLING, "m": TELLING, "email": st.sampled_from(["ada@example.com", "no address"])}
)
PARTS = {
    "fields": TELLING_FIELDS.map(lambda fields: {alias: one for alias, one in fields.items() if one is not None}),
    "tags": st.frozensets(st.sampled_from(["a", "b", "c"])),
    "segments": SOME,
    "campaigns": SOME,
    "dnc": st.sampled_from([{}, {"email": 1}, {"email": 3}]),
    "evidence": st.lists(TIMES, max_size=3).map(lambda times: {KEYS[0]: tuple(sorted(times))} if times else {}),
    "verdict": VERDICTS,
    "stage": st.sampled_from([None, "Lead", "Other"]),
    "kind": st.sampled_from([None, "lead"]),
    "scores": st.integers(0, 9).map(lambda total: {"total": total}),
}
BEFORE = st.sampled_from(
    [
        None,
        Previous("S0", "customer", "S0:any[0]", "S0: so"),
        Previous("S0", "customer", "S0:any[0]", "S0: in other words"),
        Previous("S0", "customer", "S0:any[1]", "S0: for another reason"),
        Previous("S0", "lead", "S0:any[0]", "S0: so"),
        Previous("S1", "customer", "S0:any[0]", "S0: so"),
        Previous("S1", "lead"),
        Previous("S1", "customer"),
        Previous("S1", "lead", "S1:kept", "S1: so"),
        Previous("Ghost", "ghost", "Ghost:otherwise", "Ghost: so"),
    ]
)


@st.composite
def nearly_alike(draw):
    """Two people, with what they were before, who differ in one small thing at most."""
    one, before = Signals(**draw(st.fixed_dictionaries(PARTS))), draw(BEFORE)
    part = draw(st.sampled_from([*sorted(PARTS), "n", "email", "fresh", "days", *["before"] * 5]))
    if part in PARTS:
        return (one, before), (one._replace(**{part: draw(PARTS[part])}), before)
    if part == "before":
        return (one, before), (one, draw(BEFORE))
    if part == "days":
        some = [{KEYS[0]: times} for times in ((NOW - DAY,), (NOW - 2 * DAY,))]
        return tuple((one._replace(evidence=evidence), before) for evidence in some)
    if part == "fresh":
        return (one, before), (one._replace(verdict=one.verdict._replace(fresh=not one.verdict.fresh)), before)
    values = [1, 1.0, True] if part == "n" else ["ada@example.com", "no address"]
    return tuple((one._replace(fields={**one.fields, part: draw(st.sampled_from(values))}), before) for _ in "ab")


ACCEPTED_LEADS = StageRules(
    (StageRule("S1", "lead", 49, False, compile_condition({"verdict": "accepted"})), StageRule("Ghost", "ghost", 1))
)
UNCHECKED_ADA = Signals(fields={"email": "ada@example.com"})


@settings(THOROUGH, max_examples=1_000)
@example(ACCEPTED_LEADS, ((UNCHECKED_ADA, Previous("S1", "lead")), (UNCHECKED_ADA, Previous("S1", "customer"))))
@given(lasting_rules(), nearly_alike())
def test_who_was_decided_before_changes_nothing_for_others(rules, people):
    """Decisions that are remembered are right for whomever they are looked up for, to the type of each value."""
    forgetful = StageRules(rules.stages)
    object.__setattr__(forgetful, "_read", None)  # as where time changes what the rules say: nothing is looked up
    for (signals, previous), gate_open in product((*people, *people), (True, False)):
        alone = decide(signals, forgetful, previous, NOW, gate_open=gate_open)
        assert repr(decide(signals, rules, previous, NOW, gate_open=gate_open)) == repr(alone)
