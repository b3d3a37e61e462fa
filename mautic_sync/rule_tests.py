"""Tries the rules on examples, without any Mautic: builds what a run would read of each person, and decides it.

Nothing here says what a rule means: matching, counting, scoring and deciding are the same functions that a run uses.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple, get_args
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

from mautic_sync.domain.actions import HOT, LOW_VALUE, moved, turns
from mautic_sync.domain.activity import ACTIVITY_TYPES, ATTRIBUTES_OF, Activity
from mautic_sync.domain.classification import Previous, explain
from mautic_sync.domain.conditions import Condition
from mautic_sync.domain.contact import (
    DNC_REASONS,
    NO_VERDICT,
    FieldValue,
    Kind,
    Outcome as Made,
    Signals,
    VerdictSignal,
)
from mautic_sync.domain.countries import fold
from mautic_sync.domain.grammar import STATUSES, SUB_STATUSES, suggestion
from mautic_sync.domain.judgement import SYNTAX_REJECT, Judgement, judge
from mautic_sync.domain.matchers import Matchers
from mautic_sync.domain.scoring import Entry, Flags, Score, account, day_of, score
from mautic_sync.domain.validation import Verdict, normalise_address
from mautic_sync.mapping_problems import FileProblem, MappingsError
from mautic_sync.mappings import Mappings
from mautic_sync.rule_test_files import ActivityText, PersonText, RuleTest, RuleTests, VerdictText, moment

MOVES_LAST_ACTIVE = frozenset(
    {"page.hit", "email.read", "email.click", "form.submitted", "asset.download", "video.hit"}
)
"""Types after which Mautic shows a later `lastActive`; so do the events of the intake."""
ALIKE = 0.8
"""Share of letters from which on an unknown word of ZeroBounce is taken for another misspelt."""
OUTCOMES: Mapping[str, Made] = {word: word for word in get_args(Made)}


class Miss(NamedTuple):
    """One expectation that does not hold: its key, what was expected, what came, and lines that explain it."""

    key: str
    expected: Any
    got: Any
    why: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """What came of one test.

    `rules` are the rules that took part: the id of the one that decided, the names of those that gave points, the
    flags and the actions set off.
    """

    name: str
    line: int
    misses: tuple[Miss, ...]
    rules: frozenset[str]


@dataclass(frozen=True)
class _Rules:
    """The mappings, ready to be tried again and again."""

    mappings: Mappings
    proofs: Matchers
    tallies: Matchers
    zone: ZoneInfo

    @classmethod
    def of(cls, mappings: Mappings) -> _Rules:
        proofs, tallies = Matchers(mappings.matchers), Matchers(mappings.score_matchers)
        return cls(mappings, proofs, tallies, ZoneInfo(mappings.time_zone))


class _Tried(NamedTuple):
    """One test carried out."""

    now: int
    signals: Signals
    score: Score
    judgement: Judgement
    set_off: tuple[str, ...]


def try_rules(mappings: Mappings, files: Sequence[RuleTests]) -> list[tuple[RuleTests, list[Outcome]]]:
    """Carry out every test of these files. Raises MappingsError where they name what the mappings do not have."""
    rules = _Rules.of(mappings)
    problems = [
        one
        for file in files
        for of in (_unknown_names, _unknown_verdicts, _contradictions, _ahead_of_now)
        for one in of(rules, file)
    ]
    if problems:
        raise MappingsError(problems)
    return [(file, [_outcome(rules, file, index) for index in range(len(file.file.tests))]) for file in files]


def _unknown_names(rules: _Rules, tests: RuleTests) -> Iterator[FileProblem]:
    stages = [stage.name for stage in rules.mappings.stages.stages]
    of_actions = rules.mappings.action_rules.rules
    groups, actions = rules.mappings.scores.groups, [one.name for one in of_actions]
    conditional = [one.name for one in of_actions if one.condition is not None]
    for index, test in enumerate(tests.file.tests):
        here = ("tests", index)
        was, expect = test.person.was, test.expect
        for path, stage in (((*here, "person", "was", "stage"), was.stage), ((*here, "expect", "stage"), expect.stage)):
            if stage is not None and stage not in stages:
                yield tests.source.problem(path, f"no stage `{stage}` is managed here{suggestion(stage, stages)}")
        for group in expect.scores:
            if group not in groups:
                told = f"there is no group `{group}`{suggestion(group, groups)}"
                yield tests.source.problem((*here, "expect", "scores", group), told)
        for number, name in enumerate(was.holds):
            if name not in conditional:
                told = f"there is no action `{name}` with `when`{suggestion(name, conditional)}"
                yield tests.source.problem((*here, "person", "was", "holds", number), told)
        for number, name in enumerate(expect.actions or ()):
            if name not in actions:
                told = f"there is no action `{name}`{suggestion(name, actions)}"
                yield tests.source.problem((*here, "expect", "actions", number), told)


def _unknown_verdicts(rules: _Rules, tests: RuleTests) -> Iterator[FileProblem]:
    """Words of a verdict that is a map, where they look like others: ZeroBounce may use any, and new ones are held."""
    named = rules.mappings.validation.outcomes
    for index, test in enumerate(tests.file.tests):
        given = test.person.verdict
        if not isinstance(given, VerdictText):
            continue
        here = ("tests", index, "person", "verdict")
        for key, word, known in (("status", given.status, STATUSES), ("sub_status", given.sub_status, SUB_STATUSES)):
            if word is None or fold(word) in known or fold(word) in named:
                continue
            if key == "status" and fold(word) in {*OUTCOMES, *SUB_STATUSES}:
                what = "what we make of a status" if fold(word) in OUTCOMES else "a sub-status"
                yield tests.source.problem((*here, key), f"`{word}` is {what}, and no status of ZeroBounce")
            elif near := difflib.get_close_matches(fold(word), known, n=1, cutoff=ALIKE):
                told = f"ZeroBounce is not known to answer `{word}`; did you mean `{near[0]}`? Else name it in validation.yaml"
                yield tests.source.problem((*here, key), told)


def _contradictions(rules: _Rules, tests: RuleTests) -> Iterator[FileProblem]:
    for index, test in enumerate(tests.file.tests):
        was = test.person.was
        kind = _kind_of(rules.mappings, was.stage)
        if was.kind is not None and kind is not None and was.kind != kind:
            told = f"whoever was in the stage `{was.stage}` was a {kind}, not a {was.kind}; write one of them"
            yield tests.source.problem(("tests", index, "person", "was", "kind"), told)


def _ahead_of_now(rules: _Rules, tests: RuleTests) -> Iterator[FileProblem]:
    zone = rules.mappings.time_zone
    now = moment(tests.file.now, zone, 0)
    for index, test in enumerate(tests.file.tests):
        person = ("tests", index, "person")
        verdict = test.person.verdict
        times = [
            ((*person, "first_seen"), test.person.first_seen),
            ((*person, "last_active"), test.person.last_active),
            ((*person, "verdict", "at"), verdict.at if isinstance(verdict, VerdictText) else None),
            *((("tests", index, "activity", number, "at"), one.at) for number, one in enumerate(test.activity)),
        ]
        for path, text in times:
            if text is not None and moment(text, zone, now) > now:
                yield tests.source.problem(path, f"`{text}` lies ahead of `now`, {tests.file.now}")


# --- Carrying a test out ----------------------------------------------------------------------------------------


def _outcome(rules: _Rules, tests: RuleTests, index: int) -> Outcome:
    test = tests.file.tests[index]
    tried = _try(rules, test, moment(tests.file.now, rules.mappings.time_zone, 0))
    scores, decision = rules.mappings.scores, tried.judgement.decision
    entries = account(tried.signals, scores, tried.now, tried.score.day)
    flags = {word for word in ("hot", "low_value") if getattr(tried.judgement.flags, word)}
    took_part = {decision.rule, *(one.rule for one in entries), *flags, *tried.set_off}
    return Outcome(test.name, tests.line(index), tuple(_misses(rules, test, tried, entries)), frozenset(took_part))


def _try(rules: _Rules, test: RuleTest, now: int) -> _Tried:
    """The way of a run: what is known, then the score, the stage, the flags, and what the change sets off."""
    mappings = rules.mappings
    person, was = test.person, test.person.was
    kind_was = was.kind or _kind_of(mappings, was.stage)
    signals = _signals(rules, person, test.activity, now)._replace(
        stage=person.stage or was.stage, kind=person.kind or kind_was
    )
    scored = score(signals, mappings.scores, now)
    signals = signals._replace(scores=scored.by_name)
    judgement = judge(
        signals,
        mappings.stages,
        mappings.scores,
        Previous(was.stage, kind_was),
        Flags(was.hot, was.low_value),
        now,
        gate_open=False,
        only_if=mappings.validation.only_if,
    )
    decision, flags = judgement.decision, judgement.flags
    decided = signals._replace(kind=decision.kind)
    actions = mappings.action_rules
    holding = [flag for flag, condition in actions.named if condition.holds(decided, now)]
    held = [one.occasion for one in actions.rules if one.condition is not None and one.name in was.holds]
    before, after = _flags(was.hot, was.low_value, held), _flags(flags.hot, flags.low_value, holding)
    occasions = [turn.occasion for turn in turns(before, after) if turn.occasion is not None]
    # Where only the kind was told of, the stage counts as the same.
    if decision.stage != was.stage and (was.stage is not None or decision.kind != kind_was):
        occasions += moved(was.stage, kind_was, decision.stage, decision.kind)
    return _Tried(now, decided, scored, judgement, tuple(one.name for one in actions.of(occasions)))


def _flags(hot: bool, low_value: bool, named: Iterable[str]) -> frozenset[str]:
    return frozenset([*([HOT] if hot else []), *([LOW_VALUE] if low_value else []), *named])


def _kind_of(mappings: Mappings, stage: str | None) -> Kind | None:
    rule = mappings.stages.by_name.get(stage) if stage is not None else None
    return rule.kind if rule is not None else None


def _signals(rules: _Rules, person: PersonText, did: Sequence[ActivityText], now: int) -> Signals:
    zone = rules.mappings.time_zone
    evidence: dict[str, list[int]] = {}
    days: dict[str, dict[int, int]] = {}
    active, first = [], []
    for text in did:
        at = _days_before(now, text.days_ago or 0, rules.zone) if text.at is None else moment(text.at, zone, now)
        first.append(at)
        if text.type in MOVES_LAST_ACTIVE or text.type not in ACTIVITY_TYPES:
            active.append(at)
        one = Activity(text.type, at, _attributes(text))
        for matcher in rules.proofs.matching(one):
            evidence.setdefault(matcher.key, []).extend([at] * text.times)
        day = day_of(at, rules.zone)
        for matcher in rules.tallies.matching(one):
            counted = days.setdefault(matcher.key, {})
            counted[day] = counted.get(day, 0) + text.times
    reasons = {word: number for number, word in DNC_REASONS.items()}
    fields = {alias.lower(): value for alias, value in person.fields.items() if value not in {None, ""}}
    return Signals(
        fields=fields,
        tags=frozenset(person.tags),
        segments=frozenset(person.segments),
        campaigns=frozenset(person.campaigns),
        dnc={channel: reasons[word] for channel, word in person.dnc.items()},
        evidence={key: tuple(sorted(times)) for key, times in evidence.items()},
        verdict=_verdict(rules.mappings, person.verdict, fields.get("email"), now),
        first_seen=min(first, default=now) if person.first_seen is None else moment(person.first_seen, zone, now),
        last_active=max(active, default=None) if person.last_active is None else moment(person.last_active, zone, now),
        tallies={key: [part for pair in sorted(counts.items()) for part in pair] for key, counts in days.items()},
    )


def _days_before(now: int, days: int, zone: ZoneInfo) -> int:
    """The same time of day so many days of the zone before, also across a change of its clocks."""
    return int((datetime.fromtimestamp(now, zone) - timedelta(days=days)).timestamp())


def _attributes(text: ActivityText) -> Mapping[str, str]:
    """What it tells, the campaign parameters of its address included."""
    told = text.attributes
    if text.url is None or "utm_campaign" not in ATTRIBUTES_OF.get(text.type, ("utm_campaign",)):
        return told
    query = parse_qsl(urlsplit(text.url).query)
    return {**{name: value for name, value in query if name.startswith("utm_")}, **told}


def _verdict(mappings: Mappings, given: str | VerdictText | None, address: FieldValue, now: int) -> VerdictSignal:
    """What validation.yaml makes of the verdict; an address that is none is rejected without one."""
    if given is None:
        broken = isinstance(address, str) and normalise_address(address) is None
        return SYNTAX_REJECT if broken else NO_VERDICT
    if isinstance(given, str):
        if given in OUTCOMES:
            return VerdictSignal(OUTCOMES[given])
        status, _, sub_status = given.partition("/")
        return mappings.validation.signal(Verdict(str(address), status, sub_status, now), now)
    at = now if given.at is None else moment(given.at, mappings.time_zone, now)
    return mappings.validation.signal(Verdict(str(address), given.status, given.sub_status or "", at), now)


# --- Judging it -------------------------------------------------------------------------------------------------


def _misses(rules: _Rules, test: RuleTest, tried: _Tried, entries: Sequence[Entry]) -> Iterator[Miss]:
    expect, decision, flags = test.expect, tried.judgement.decision, tried.judgement.flags
    scores = rules.mappings.scores

    def stages() -> tuple[str, ...]:
        return (f"decided by {decision.rule}: {decision.reason}", *_stage_lines(rules.mappings, tried))

    def points(*groups: str) -> Callable[[], tuple[str, ...]]:
        return lambda: _account_lines([one for one in entries if one.group in groups], groups)

    def told_by(*conditions: Condition | None) -> Callable[[], tuple[str, ...]]:
        return lambda: tuple(
            line
            for condition in conditions
            if condition is not None
            for line in _trace_lines(condition.trace(tried.signals, tried.now).as_dict(), 0)
        )

    hot = (scores.hot.when, scores.hot.until) if scores.hot is not None else ()
    asked: list[tuple[str, Any, Any, Callable[[], tuple[str, ...]]]] = [
        ("kind", expect.kind, decision.kind, stages),
        ("stage", expect.stage, decision.stage, stages),
        ("score", expect.score, tried.score.total, points(*scores.groups)),
        *((f"scores.{name}", wanted, tried.score.groups[name], points(name)) for name, wanted in expect.scores.items()),
        ("hot", expect.hot, flags.hot, told_by(*hot)),
        ("low_value", expect.low_value, flags.low_value, told_by(scores.low_value)),
        ("waiting", expect.waiting, decision.waiting, stages),
    ]
    for key, wanted, got, why in asked:
        if wanted is not None and wanted != got:
            yield Miss(key, wanted, got, why())
    if expect.reason is not None and fold(expect.reason) not in fold(decision.reason):
        yield Miss("reason", expect.reason, decision.reason, stages())
    if expect.actions is not None and sorted(expect.actions) != sorted(tried.set_off):
        was = test.person.was
        before = f"was {was.stage or was.kind or 'nobody'}{', hot' if was.hot else ''}"
        yield Miss(
            "actions",
            sorted(expect.actions),
            sorted(tried.set_off),
            (f"{before}; is {decision.stage}{', hot' if flags.hot else ''}, {tried.score.total} points",),
        )


def _stage_lines(mappings: Mappings, tried: _Tried) -> Iterator[str]:
    for one in explain(tried.signals, mappings.stages, tried.now):
        yield f"stage {one.stage}" + ("" if one.trace is not None else ": everybody else")
        if one.trace is not None:
            yield from _trace_lines(one.trace.as_dict(), 1)


def _trace_lines(trace: Mapping[str, Any], depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}{'yes' if trace['holds'] else 'no '} {trace['text']}"
    for child in trace.get("children", ()):
        yield from _trace_lines(child, depth + 1)


def _account_lines(entries: Iterable[Entry], groups: Sequence[str]) -> tuple[str, ...]:
    lines = []
    for one in entries:
        how = one.evidence
        if one.last_day is not None:
            how += f", {one.times} {'time' if one.times == 1 else 'times'}, last on {_day(one.last_day)}"
        lines.append(f"{one.points:g} {one.group}: {one.rule} ({how})")
    return tuple(lines) or (f"no rule gives points{f' to {groups[0]}' if len(groups) == 1 else ''}",)


def _day(number: int | None) -> str:
    return "" if number is None else date.fromordinal(number).isoformat()


def document(results: Iterable[tuple[RuleTests, Sequence[Outcome]]]) -> dict[str, Any]:
    """The document of `test-rules --json`."""
    files: list[dict[str, Any]] = [
        {
            "file": tests.source.name,
            "tests": len(outcomes),
            "failures": [
                {
                    "name": one.name,
                    "line": one.line,
                    "expectations": [
                        {"key": miss.key, "expected": miss.expected, "got": miss.got, "why": list(miss.why)}
                        for miss in one.misses
                    ],
                }
                for one in outcomes
                if one.misses
            ],
        }
        for tests, outcomes in results
    ]
    failed = sum(len(file["failures"]) for file in files)
    total = sum(file["tests"] for file in files)
    return {"ok": not failed, "tests": total, "failed": failed, "files": files}
