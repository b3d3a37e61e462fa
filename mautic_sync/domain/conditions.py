"""Conditions, compiled: what the rules people edit ask about one person at one moment.

`Condition.build` turns what `mautic_sync.domain.grammar` read into closures that answer in a fraction of a
microsecond. Nothing here reads a clock or a setting.

Text is compared as MySQL compares it for Mautic: without letter case and without accents. Numbers are compared as
numbers, whatever type the value has. Tags and event names are compared exactly, as Mautic and Segment do.
"""

from __future__ import annotations

import math
import operator as operators
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from mautic_sync.domain.backtracking import LONGEST_SUBJECT
from mautic_sync.domain.contact import DNC_REASONS, Catalogue, FieldValue, Signals
from mautic_sync.domain.countries import country_key, fold
from mautic_sync.domain.grammar import (
    LONGEST_DURATION,
    TOTAL,
    UNCHECKED,
    Group,
    Leaf,
    Named,
    Node,
    Problem,
    Requirement,
    as_number,
    duration_text,
    leaves,
    parse_condition,
    parse_duration,
    parse_moment,
    path_text,
    requirements_of,
)
from mautic_sync.domain.matchers import ActivityMatcher, listed, wildcard
from mautic_sync.errors import ConfigError

__all__ = [
    "ActivityMatcher",
    "Condition",
    "Due",
    "Requirement",
    "Test",
    "Trace",
    "compile_condition",
    "day_span",
    "day_text",
    "exists",
    "moment_of",
    "names_in",
]

Test = Callable[[Signals, int], bool]
Tell = Callable[[Signals, int], str]
Due = Callable[[Signals, int], int | None]


class Trace(NamedTuple):
    """Why a condition holds or not: a sentence, the answer, and the same for its parts."""

    text: str
    holds: bool
    children: tuple[Trace, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The tree as JSON has it; `children` is left out where there are none."""
        told: dict[str, Any] = {"text": self.text, "holds": self.holds}
        if self.children:
            told["children"] = [child.as_dict() for child in self.children]
        return told


class Input(NamedTuple):
    """Something that a condition reads of a person: a subject, and of fields, tags, activity and scores which one.

    `count` is how often an activity was seen, `activity` when; a `count` is told with days in reason and evidence alone.
    """

    subject: str
    name: str = ""


NOW = Input("now")
"""Time itself. A verdict changes with it as well, but only one that expires."""


# --- Compiled conditions ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """A condition that is ready to be asked.

    `holds(signals, now)` is the quick answer. `trace` tells it with all parts, `deciding` only with those that made
    it so. `due_at` is the earliest future second at which time alone could change any part (None: never).
    `evidence_text` says in a few words what made it hold, `reason_text` the same without what changes from day to
    day. `path` names the part that decides (`any[0]`), empty for the whole; `chosen` is for `any` alone: that part
    with its path, found once for all that is told of it. Where all `inputs` are the same, so are the answers (`Input`),
    unless evidence lies ahead (`ahead_of`). `by_day` is told where it is built.
    """

    holds: Test
    trace: Callable[[Signals, int], Trace]
    deciding: Callable[[Signals, int], Trace]
    due_at: Due
    evidence_text: Tell
    reason_text: Tell
    path: Tell
    chosen: Callable[[Signals, int], tuple[str, Condition]] | None = None
    timed: bool = False
    reads_verdict: bool = False
    matchers: tuple[ActivityMatcher, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    inputs: tuple[Input, ...] = ()
    node: Node | None = None
    by_day: bool = False

    def told_by(self, signals: Signals, now: int) -> tuple[str, Condition]:
        """The path to the part that decides, and the part, which tells reason and trace; only where it holds."""
        return self.chosen(signals, now) if self.chosen is not None else (self.path(signals, now), self)

    @classmethod
    def build(
        cls, node: Node, *, catalogue: Catalogue | None = None, time_zone: str = "UTC", by_day: bool = False
    ) -> Condition:
        """Compile what `parse_condition` returned against a Mautic, or against one that has everything.

        What is done after `now` does not count yet; `by_day`: after the day of `now`.
        """
        return replace(
            _build(node, _Context(catalogue, ZoneInfo(time_zone), by_day)),
            matchers=tuple({leaf.matcher.key: leaf.matcher for leaf in leaves(node) if leaf.matcher}.values()),
            requirements=tuple(one for leaf in leaves(node) for one in requirements_of(leaf)),
            reads_verdict=any(leaf.subject == "verdict" for leaf in leaves(node)),
            node=node,
            by_day=by_day,
        )


def compile_condition(
    spec: object, *, catalogue: Catalogue | None = None, time_zone: str = "UTC", by_day: bool = False
) -> Condition:
    """Read and compile one condition; ConfigError listing all that is wrong with it."""
    problems: list[Problem] = []
    node = parse_condition(spec, problems)
    wrong = [problem for problem in problems if not problem.warning]
    if node is None or wrong:
        raise ConfigError("\n".join(f"{path_text(one.path) or 'condition'}: {one.text}" for one in wrong))
    return Condition.build(node, catalogue=catalogue, time_zone=time_zone, by_day=by_day)


def names_in(catalogue: Catalogue, kind: Named) -> Iterable[str]:
    """What a Mautic has of one kind, by the name that rules use."""
    if kind == "field":
        return catalogue.fields.keys()
    found: Mapping[int, str] = getattr(catalogue, f"{kind}s")
    return found.values()


def exists(catalogue: Catalogue, kind: Named, name: str) -> bool:
    """Whether a Mautic has something of this name, or something that the name with `*` matches."""
    matches = wildcard(fold(name))
    return any(matches(fold(one)) for one in names_in(catalogue, kind))


@dataclass(frozen=True)
class _Context:
    catalogue: Catalogue | None
    zone: ZoneInfo
    by_day: bool

    def has(self, requirement: Requirement) -> bool:
        return self.catalogue is None or exists(self.catalogue, requirement.kind, requirement.name)

    def spelled(self, kind: Named, name: str) -> list[str]:
        if self.catalogue is None:
            return []
        return [one for one in names_in(self.catalogue, kind) if fold(one) == fold(name)]

    def alias(self, name: str) -> str:
        """A field as this Mautic spells it; as every Mautic does, in lower case, where none is at hand."""
        return name.lower() if self.catalogue is None else next(iter(self.spelled("field", name)), name)

    def field_type(self, alias: str) -> str:
        """The type in this Mautic; where none is at hand, the one that may hold several choices, or one value."""
        if alias == "country":
            return alias
        return "multiselect" if self.catalogue is None else self.catalogue.fields.get(alias, "")


def _never(signals: Signals, now: int) -> int | None:  # noqa: ARG001  # a Due that time cannot change
    return None


def _build(node: Node, context: _Context) -> Condition:
    if isinstance(node, Group):
        parts = [_build(part, context) for part in node.parts]
        built = {"all": _build_all, "any": _build_any, "not": _build_not}[node.operator](parts)
        return replace(built, inputs=tuple(dict.fromkeys(one for part in parts for one in part.inputs)))
    # A part that this Mautic lacks makes the whole condition false, whatever its operator; of several names one is enough.
    needs: dict[str, list[bool]] = {}
    for requirement in requirements_of(node):
        needs.setdefault(requirement.kind, []).append(context.has(requirement))
    if any(not any(present) for present in needs.values()):
        return _absent(node)
    built = _BUILDERS[node.subject](node, context)
    return replace(built, inputs=_inputs(node, context, timed=built.timed))


def _inputs(leaf: Leaf, context: _Context, *, timed: bool) -> tuple[Input, ...]:
    if leaf.subject == "verdict":
        return (Input("verdict"),)
    if leaf.subject == "field":
        read = [Input("field", context.alias(leaf.names[0]))]
    elif leaf.subject == "activity" and leaf.matcher is not None:
        bounds = _span_of(leaf, context.zone)
        read = [Input("count" if bounds == Bounds() else "activity", leaf.matcher.key)]
        timed = bounds.timed  # what lies ahead is looked for besides: `ahead_of`
    elif leaf.subject in {"tag", "score"}:
        read = [Input(leaf.subject, name) for name in leaf.names]
    else:
        read = [Input(leaf.subject)]
    return (*read, NOW) if timed else tuple(read)


def _leaf(
    holds: Test,
    text: Callable[[Signals, int, bool], str],
    evidence: Tell,
    *,
    reason: Tell | None = None,
    due: Due | None = None,
) -> Condition:
    def trace(signals: Signals, now: int) -> Trace:
        answer = holds(signals, now)
        return Trace(text(signals, now, answer), answer)

    return Condition(
        holds=holds,
        trace=trace,
        deciding=trace,
        due_at=due or _never,
        evidence_text=evidence,
        reason_text=reason or evidence,
        path=lambda _signals, _now: "",
        timed=due is not None,
    )


def _absent(leaf: Leaf) -> Condition:
    names = ", ".join(one.name for one in requirements_of(leaf))
    told = f"{names}: this Mautic has none (optional)"
    return _leaf(lambda _s, _n: False, lambda _s, _n, _h: told, lambda _s, _n: told)


def _soonest(parts: Sequence[Condition]) -> Due | None:
    dues = tuple(part.due_at for part in parts if part.timed)
    if not dues:
        return None
    if len(dues) == 1:
        return dues[0]

    def due(signals: Signals, now: int) -> int | None:
        return min((at for one in dues if (at := one(signals, now)) is not None), default=None)

    return due


def _build_all(parts: list[Condition]) -> Condition:
    tests = tuple(part.holds for part in parts)
    due = _soonest(parts)

    def holds(signals: Signals, now: int) -> bool:
        for test in tests:  # noqa: SIM110  # a loop costs half of what all() over a generator does
            if not test(signals, now):
                return False
        return True

    def deciding(signals: Signals, now: int) -> Trace:
        if holds(signals, now):
            return Trace("all", True, tuple(part.deciding(signals, now) for part in parts))
        return next(part.deciding(signals, now) for part in parts if not part.holds(signals, now))

    def joined(tell: Callable[[Condition], Tell]) -> Tell:
        return lambda signals, now: ", ".join(tell(part)(signals, now) for part in parts)

    return Condition(
        holds=holds,
        trace=lambda s, n: Trace("all", holds(s, n), tuple(part.trace(s, n) for part in parts)),
        deciding=deciding,
        due_at=due or _never,
        evidence_text=joined(lambda part: part.evidence_text),
        reason_text=joined(lambda part: part.reason_text),
        path=lambda _s, _n: "all",
        timed=due is not None,
    )


def _build_any(parts: list[Condition]) -> Condition:
    tests = tuple(part.holds for part in parts)
    due = _soonest(parts)

    def holds(signals: Signals, now: int) -> bool:
        for test in tests:  # noqa: SIM110  # a loop costs half of what any() over a generator does
            if test(signals, now):
                return True
        return False

    def first(signals: Signals, now: int) -> int:
        for index, test in enumerate(tests):
            if test(signals, now):
                return index
        return -1

    def deciding(signals: Signals, now: int) -> Trace:
        index = first(signals, now)
        if index >= 0:
            return parts[index].deciding(signals, now)
        return Trace("any", False, tuple(part.deciding(signals, now) for part in parts))

    def told(tell: Callable[[Condition], Tell]) -> Tell:
        def text(signals: Signals, now: int) -> str:
            index = first(signals, now)
            if index >= 0:
                return tell(parts[index])(signals, now)
            return " or ".join(tell(part)(signals, now) for part in parts)

        return text

    def chosen(signals: Signals, now: int) -> tuple[str, Condition]:
        index = first(signals, now)
        below, part = parts[index].told_by(signals, now)
        return f"any[{index}]" + (f".{below}" if below else ""), part

    return Condition(
        holds=holds,
        trace=lambda s, n: Trace("any", holds(s, n), tuple(part.trace(s, n) for part in parts)),
        deciding=deciding,
        due_at=due or _never,
        evidence_text=told(lambda part: part.evidence_text),
        reason_text=told(lambda part: part.reason_text),
        path=lambda s, n: chosen(s, n)[0],
        chosen=chosen,
        timed=due is not None,
    )


def _build_not(parts: list[Condition]) -> Condition:
    (part,) = parts
    test = part.holds
    return Condition(
        holds=lambda signals, now: not test(signals, now),
        trace=lambda s, n: Trace("not", not test(s, n), (part.trace(s, n),)),
        deciding=lambda s, n: Trace("not", not test(s, n), (part.deciding(s, n),)),
        due_at=part.due_at,
        evidence_text=lambda s, n: f"not: {part.evidence_text(s, n)}",
        reason_text=lambda s, n: f"not: {part.reason_text(s, n)}",
        path=lambda _s, _n: "not",
        timed=part.timed,
    )


# --- Fields -----------------------------------------------------------------------------------------------------

_WORDS = {
    "is": "=", "is_not": "is not", "in": "in", "not_in": "not in", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=",
    "between": "between", "like": "like", "starts_with": "starts with", "ends_with": "ends with",
    "matches": "matches", "after": "after", "before": "before",
}  # fmt: skip
_SPOKEN = {"gt": "over", "gte": "at least", "lt": "under", "lte": "at most"}


def _build_field(leaf: Leaf, context: _Context) -> Condition:
    alias = context.alias(leaf.names[0])
    ((operator, operand),) = leaf.operators.items()
    if operator in {"empty", "not_empty"}:
        return _build_presence(alias, wanted=(operator == "not_empty") is operand)
    if operator in {"after", "before"} or (operator == "between" and isinstance(operand[0], str)):
        return _build_date(alias, operator, operand, context)
    kind = context.field_type(alias)
    test = _field_test(operator, operand, kind)
    if kind == "multiselect" and operator not in _NEGATED and operator not in {"gt", "gte", "lt", "lte", "between"}:
        test = _any_choice(test)
    rule = f"{_WORDS[operator]} {_operand_text(operator, operand)}"
    if operator in _NEGATED:
        positive = _field_test(_NEGATED[operator], operand, kind)
        positive = _any_choice(positive) if kind == "multiselect" else positive

        def holds(signals: Signals, now: int) -> bool:  # noqa: ARG001
            value = signals.fields.get(alias)
            return value is None or not positive(value)
    else:

        def holds(signals: Signals, now: int) -> bool:  # noqa: ARG001
            value = signals.fields.get(alias)
            return value is not None and test(value)

    def text(signals: Signals, now: int, answer: bool) -> str:  # noqa: ARG001
        value = signals.fields.get(alias)
        if value is None:
            return f"{alias} is empty, {'' if answer else 'not '}{rule}"
        shown = _value_text(value)
        if operator == "is":
            return f"{alias} = {shown}" + ("" if answer else f", not {_operand_text(operator, operand)}")
        return f"{alias} = {shown} {rule}" if answer else f"{alias} = {shown}, not {rule}"

    if operator in {"is", "in"}:
        return _leaf(holds, text, lambda s, _n: f"{alias} {_value_text(s.fields.get(alias))}")
    spoken = f"{_SPOKEN.get(operator, _WORDS[operator])} {_operand_text(operator, operand)}"
    said = f"{alias} {spoken}"
    if operator in {"gt", "gte", "lt", "lte", "between"}:
        return _leaf(
            holds, text, lambda s, _n: f"{alias} {_value_text(s.fields.get(alias))}", reason=lambda _s, _n: said
        )
    return _leaf(holds, text, lambda _s, _n: said)


_NEGATED = {"is_not": "is", "not_in": "in"}


def _any_choice(test: Callable[[FieldValue], bool]) -> Callable[[FieldValue], bool]:
    """A test of a Mautic multiselect, whose value is its choices joined by `|`: one choice is enough."""
    return lambda value: any(test(one) for one in value.split("|")) if isinstance(value, str) else test(value)


def _field_test(operator: str, operand: Any, kind: str) -> Callable[[FieldValue], bool]:
    if operator in _NEGATED:
        operator = _NEGATED[operator]
    if operator in {"is", "in"}:
        if kind == "country":
            keys = frozenset(country_key(str(one)) for one in (operand if operator == "in" else (operand,)))
            return lambda value: isinstance(value, str) and country_key(value) in keys
        return _equals(operand) if operator == "is" else _one_of(operand)
    if operator == "matches":
        return lambda value: operand.search(_text_of(value)[:LONGEST_SUBJECT]) is not None
    if operator in {"like", "starts_with", "ends_with"}:
        return _text_test(operator, fold(operand))
    return _order_test(operator, operand)


def _text_test(operator: str, text: str) -> Callable[[FieldValue], bool]:
    if operator == "starts_with":
        return lambda value: fold(_text_of(value)).startswith(text)
    if operator == "ends_with":
        return lambda value: fold(_text_of(value)).endswith(text)
    pattern = text.replace("%", "*")
    # Mautic's own `like` looks anywhere in the value unless the text says where.
    matches = wildcard(pattern if "*" in pattern else f"*{pattern}*")
    return lambda value: matches(fold(_text_of(value)))


def _order_test(operator: str, operand: Any) -> Callable[[FieldValue], bool]:
    if operator == "between":
        low, high = operand
        return lambda value: (number := as_number(value)) is not None and low <= number <= high
    if operator == "gt":
        return lambda value: (number := as_number(value)) is not None and number > operand
    if operator == "gte":
        return lambda value: (number := as_number(value)) is not None and number >= operand
    if operator == "lt":
        return lambda value: (number := as_number(value)) is not None and number < operand
    return lambda value: (number := as_number(value)) is not None and number <= operand


def _text_of(value: FieldValue) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    return _number_text(value) if value is not None else ""


def _number_text(value: float) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)


def _value_text(value: FieldValue) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value if len(value) <= 60 else f"{value[:60]}…"
    return _number_text(value)


def _operand_text(operator: str, operand: Any) -> str:
    if operator == "matches":
        return f"/{operand.pattern}/"
    if operator == "between":
        return f"{_value_text(operand[0])} and {_value_text(operand[1])}"
    if isinstance(operand, tuple):
        shown = ", ".join(_value_text(one) for one in operand[:5]) + (", …" if len(operand) > 5 else "")
        return f"[{shown}]"
    return _value_text(operand)


def _build_presence(alias: str, *, wanted: bool) -> Condition:
    def filled(signals: Signals, now: int) -> bool:  # noqa: ARG001
        value = signals.fields.get(alias)
        return value is not None and value != ""

    def empty(signals: Signals, now: int) -> bool:  # noqa: ARG001
        value = signals.fields.get(alias)
        return value is None or value == ""

    def text(signals: Signals, now: int, answer: bool) -> str:  # noqa: ARG001
        return f"{alias} is {'filled' if answer is wanted else 'empty'}"

    said = f"{alias} known" if wanted else f"no {alias}"
    return _leaf(filled if wanted else empty, text, lambda _s, _n: said)


@dataclass(frozen=True)
class Bounds:
    """A span of time: from `low` (exclusive) to `high` (exclusive), each fixed or at a distance from now."""

    low: int | None = None
    low_distance: int | None = None
    high: int | None = None
    high_distance: int | None = None

    def at(self, now: int) -> tuple[float, float]:
        low = now + self.low_distance if self.low_distance is not None else self.low
        high = now + self.high_distance if self.high_distance is not None else self.high
        return (-math.inf if low is None else low), (math.inf if high is None else high)

    @property
    def timed(self) -> bool:
        return self.low_distance is not None or self.high_distance is not None

    def crossings(self, at: int) -> Iterator[int]:
        """The first seconds of `now` at which a given time has left or entered the span."""
        if self.low_distance is not None:
            yield at - self.low_distance
        if self.high_distance is not None:
            yield at - self.high_distance + 1


def bounds_of(after: str | None, before: str | None, zone: ZoneInfo) -> Bounds:
    low = low_distance = high = high_distance = None
    if after is not None:
        if after[0] in "+-":
            low_distance = _distance(after)
        else:
            found = parse_moment(after)
            low = moment_of(after, zone) if isinstance(found, datetime) else day_span(found, zone)[1] - 1
    if before is not None:
        if before[0] in "+-":
            high_distance = _distance(before)
        else:
            high = moment_of(before, zone)
    return Bounds(low, low_distance, high, high_distance)


def _distance(text: str) -> int:
    return parse_duration(text[1:]) * (-1 if text[0] == "-" else 1)


def _build_date(alias: str, operator: str, operand: Any, context: _Context) -> Condition:
    zone = context.zone
    if operator == "between":
        low, high = (day_span(date.fromisoformat(one), zone) for one in operand)
        bounds = Bounds(low=low[0] - 1, high=high[1])
    else:
        bounds = bounds_of(operand if operator == "after" else None, operand if operator == "before" else None, zone)
    rule = f"{_WORDS[operator]} {_operand_text(operator, operand)}"

    def moment(signals: Signals) -> int | None:
        value = signals.fields.get(alias)
        return moment_of(value, zone) if isinstance(value, str) else None

    def holds(signals: Signals, now: int) -> bool:
        at = moment(signals)
        if at is None:
            return False
        low, high = bounds.at(now)
        return low < at < high

    def due(signals: Signals, now: int) -> int | None:
        at = moment(signals)
        return None if at is None else min((one for one in bounds.crossings(at) if one > now), default=None)

    def text(signals: Signals, now: int, answer: bool) -> str:  # noqa: ARG001
        value = signals.fields.get(alias)
        if value is None:
            return f"{alias} is empty, not {rule}"
        return f"{alias} = {_value_text(value)}{' ' if answer else ', not '}{rule}"

    return _leaf(holds, text, lambda _s, _n: f"{alias} {rule}", due=due if bounds.timed else None)


# --- Membership, activity, verdict, time ------------------------------------------------------------------------


def _build_membership(leaf: Leaf, context: _Context) -> Condition:
    word = {"tag": "tag", "segment": "segment", "campaign": "campaign", "stage": "stage", "kind": "kind"}[leaf.subject]
    names = leaf.names
    told = f"{word} {' or '.join(names)}"

    def text(_signals: Signals, _now: int, answer: bool) -> str:
        return told if answer else f"not {told}"

    return _leaf(_membership_test(leaf, context), text, lambda _s, _n: told)


def _membership_test(leaf: Leaf, context: _Context) -> Test:
    names = frozenset(leaf.names)
    if leaf.subject == "tag":
        if len(names) == 1:
            (only,) = names
            return lambda signals, _now: only in signals.tags
        return lambda signals, _now: not names.isdisjoint(signals.tags)
    folded = frozenset(fold(name) for name in names)
    if leaf.subject == "stage":
        return lambda signals, _now: signals.stage is not None and fold(signals.stage) in folded
    if leaf.subject == "kind":
        return lambda signals, _now: signals.kind in names
    attribute: Literal["segments", "campaigns"] = "segments" if leaf.subject == "segment" else "campaigns"
    if context.catalogue is not None:
        kind: Named = "segment" if leaf.subject == "segment" else "campaign"
        spelled = frozenset(one for name in names for one in context.spelled(kind, name))
        return lambda signals, _now: not spelled.isdisjoint(getattr(signals, attribute))
    return lambda signals, _now: any(fold(one) in folded for one in getattr(signals, attribute))


def _build_activity(leaf: Leaf, context: _Context) -> Condition:
    matcher = leaf.matcher
    if matcher is None:
        raise ValueError("an activity without a matcher was never parsed")
    key, zone = matcher.key, context.zone
    least: int = leaf.operators.get("at_least", 0 if "at_most" in leaf.operators else 1)
    most: int | None = leaf.operators.get("at_most")
    bounds = _span_of(leaf, zone)
    spanned, moving, by_day = bounds != Bounds(), bounds.timed, context.by_day

    def counted(signals: Signals, now: int) -> tuple[int, int, tuple[int, ...]]:
        times = signals.evidence.get(key, ())
        end = len(times)
        if times and times[-1] > now:
            end = bisect_right(times, _day_around(now, zone)[1] if by_day else now)
        if not spanned:
            return 0, end, times
        low, high = bounds.at(now)
        start = bisect_right(times, low)
        return start, max(start, min(end, bisect_left(times, high))), times

    if not spanned and most is None:

        def holds(signals: Signals, now: int) -> bool:
            times = signals.evidence.get(key)
            if times is None or len(times) < least:
                return False
            at = times[least - 1]
            return at <= now or (by_day and at <= _day_around(now, zone)[1])
    else:

        def holds(signals: Signals, now: int) -> bool:
            start, end, _times = counted(signals, now)
            count = end - start
            return count >= least and (most is None or count <= most)

    def due(signals: Signals, now: int) -> int | None:
        times = signals.evidence.get(key)
        if not times:
            return None
        soonest = min(_crossing_times(times, bounds, now), default=None) if moving else None
        if times[-1] <= now:
            return soonest
        ahead = times[bisect_right(times, _day_around(now, zone)[1] if by_day else now) :]
        if not ahead:
            return soonest
        begins = _day_around(ahead[0], zone)[0] if by_day else ahead[0]
        return begins if soonest is None else min(begins, soonest)

    what = activity_text(matcher)
    span = _span_text(leaf)
    need = " and ".join([f"at least {least}"] * (least > 0) + [f"at most {most}"] * (most is not None))

    def text(signals: Signals, now: int, answer: bool) -> str:
        start, end, _times = counted(signals, now)
        return f"{what}: {end - start} times{span}{', ' if answer else ', not '}{need}"

    def told(between: str) -> Tell:
        def tell(signals: Signals, now: int) -> str:
            start, end, times = counted(signals, now)
            if span or most is not None or end - start < least:
                return f"{what}{span}" + (f", {need}" if least != 1 or most is not None else "")
            # The occurrence that fulfilled the rule stays the same however many follow.
            count = f" ({least} times)" if least > 1 else ""
            return f"{what}{count}{between}{day_text(times[start + least - 1], zone)}"

        return tell

    return _leaf(holds, text, told(" "), reason=told(", "), due=due)


def ahead_of(evidence: Mapping[str, tuple[int, ...]], now: int) -> bool:
    """Whether any of it lies ahead, so that time alone will make it count."""
    for times in evidence.values():  # noqa: SIM110  # a loop costs half of what any() over a generator does
        if times and times[-1] > now:
            return True
    return False


def _span_of(leaf: Leaf, zone: ZoneInfo) -> Bounds:
    """The span within which activity counts."""
    if leaf.within is not None:
        return Bounds(low_distance=-leaf.within)
    return bounds_of(leaf.operators.get("after"), leaf.operators.get("before"), zone)


def _crossing_times(times: tuple[int, ...], bounds: Bounds, now: int) -> Iterator[int]:
    """The next second at which one of these times leaves or enters the span, per end of the span."""
    for distance, late in ((bounds.low_distance, 0), (bounds.high_distance, 1)):
        if distance is not None:
            index = bisect_right(times, now + distance - late)
            if index < len(times):
                yield times[index] - distance + late


_ACTIVITY_WORDS = {
    "page.hit": "page visit", "email.sent": "e-mail sent", "email.read": "e-mail opened",
    "email.click": "e-mail link clicked", "email.replied": "e-mail answered", "email.bounced": "e-mail bounced",
    "form.submitted": "form", "asset.download": "download", "video.hit": "video watched",
    "dnc.unsubscribed": "unsubscribed", "dnc.bounced": "do-not-contact after a bounce",
    "dnc.manual": "do-not-contact set by hand", "segment.added": "segment joined", "segment.removed": "segment left",
    "campaign.added": "campaign joined", "campaign.removed": "campaign left", "campaign.event": "campaign step",
}  # fmt: skip


def activity_text(matcher: ActivityMatcher) -> str:
    """What is counted, in a few words: `page visit */pricing*`."""
    word = _ACTIVITY_WORDS.get(matcher.type, matcher.type)
    where = [" or ".join(listed(wanted)) for wanted in matcher.where.values()]
    return " ".join([word, *where])


def _span_text(leaf: Leaf) -> str:
    if leaf.within is not None:
        return f" within {duration_text(leaf.within)}"
    return "".join(f" {key} {leaf.operators[key]}" for key in ("after", "before") if key in leaf.operators)


def _build_verdict(leaf: Leaf, context: _Context) -> Condition:  # noqa: ARG001
    names = frozenset(leaf.names)

    def effective(signals: Signals, now: int) -> tuple[str, str, str]:
        verdict = signals.verdict
        # A verdict that has expired says no more than none at all; one that is held says nothing yet, however old.
        if verdict.outcome != "held" and (
            not verdict.fresh or (verdict.expires_at is not None and now >= verdict.expires_at)
        ):
            return "missing", "", ""
        return verdict.outcome, verdict.status, verdict.sub_status

    def holds(signals: Signals, now: int) -> bool:
        outcome, status, sub_status = effective(signals, now)
        return outcome in names or status in names or sub_status in names

    def due(signals: Signals, now: int) -> int | None:
        verdict = signals.verdict
        at = verdict.expires_at
        return at if at is not None and at > now and verdict.fresh and verdict.outcome != "held" else None

    def text(signals: Signals, now: int, answer: bool) -> str:
        outcome, status, sub_status = effective(signals, now)
        words = "/".join(word for word in (status, sub_status) if word)
        told = f"verdict = {outcome}" + (f" ({words})" if words else "")
        return told if answer else f"{told}, not {' or '.join(leaf.names)}"

    def said(signals: Signals, now: int) -> str:
        outcome, _status, sub_status = effective(signals, now)
        if outcome == "accepted" and sub_status == UNCHECKED:
            return "e-mail not checked"
        return "e-mail not validated yet" if outcome == "missing" else f"e-mail {outcome}"

    return _leaf(holds, text, said, due=due)


_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "is": operators.eq, "is_not": operators.ne,
    "gt": operators.gt, "gte": operators.ge, "lt": operators.lt, "lte": operators.le,
}  # fmt: skip


def _build_score(leaf: Leaf, context: _Context) -> Condition:  # noqa: ARG001
    group = leaf.names[0]
    ((operator, operand),) = leaf.operators.items()
    if operator == "between":
        low, high = operand

        def holds(signals: Signals, now: int) -> bool:  # noqa: ARG001
            return bool(low <= signals.scores.get(group, 0) <= high)
    else:
        compare = _COMPARISONS[operator]

        def holds(signals: Signals, now: int) -> bool:  # noqa: ARG001
            return compare(signals.scores.get(group, 0), operand)

    word = "score" if group == TOTAL else f"score {group}"
    rule = f"{_WORDS[operator]} {_operand_text(operator, operand)}"
    spoken = f"{word} {_SPOKEN.get(operator, _WORDS[operator])} {_operand_text(operator, operand)}"

    def text(signals: Signals, now: int, answer: bool) -> str:  # noqa: ARG001
        return f"{word} {signals.scores.get(group, 0)}{' ' if answer else ', not '}{rule}"

    return _leaf(holds, text, lambda s, _n: f"{word} {s.scores.get(group, 0)}", reason=lambda _s, _n: spoken)


def _build_dnc(leaf: Leaf, context: _Context) -> Condition:  # noqa: ARG001
    ((operator, operand),) = leaf.operators.items() if leaf.operators else ((None, None),)
    reasons = frozenset(operand if isinstance(operand, tuple) else (operand,)) if operator else frozenset(DNC_REASONS)
    channels = leaf.names

    def listed(signals: Signals, now: int) -> bool:  # noqa: ARG001
        return any(signals.dnc.get(channel, 0) in reasons for channel in channels)

    def anylisted(signals: Signals, now: int) -> bool:  # noqa: ARG001
        return any(channel in signals.dnc for channel in channels)

    holds = anylisted if operator is None else listed
    if operator in _NEGATED:

        def holds(signals: Signals, now: int) -> bool:
            return not listed(signals, now)

    told = f"do-not-contact {' or '.join(channels)}"
    if operator:
        words = " or ".join(DNC_REASONS[one] for one in sorted(reasons))
        told += f" {'not ' if operator in _NEGATED else ''}{words}"

    def text(signals: Signals, now: int, answer: bool) -> str:  # noqa: ARG001
        return told if answer else f"not {told}"

    return _leaf(holds, text, lambda _s, _n: told)


def _build_elapsed(leaf: Leaf, context: _Context) -> Condition:  # noqa: ARG001
    word = "first seen" if leaf.subject == "age" else "last active"
    low, high = elapsed_span(leaf)

    def since(signals: Signals) -> int | None:
        if leaf.subject == "age" or signals.last_active is None:
            return signals.first_seen  # nobody has seen any activity: idle since the beginning
        return signals.last_active

    def holds(signals: Signals, now: int) -> bool:
        at = since(signals)
        return at is not None and low <= now - at and (high is None or now - at <= high)

    def due(signals: Signals, now: int) -> int | None:
        at = since(signals)
        if at is None:
            return None
        if at + low > now:
            return at + low
        return at + high + 1 if high is not None and at + high >= now else None

    told = f"{word} {_elapsed_text(leaf)}"

    def text(signals: Signals, now: int, answer: bool) -> str:
        at = since(signals)
        if at is None:
            return f"{word}: not known"
        days = (now - at) / 86_400
        return f"{word} {days:.1f} days ago{', ' if answer else ', not '}{told.removeprefix(word).strip()}"

    return _leaf(holds, text, lambda _s, _n: told, due=due)


def _elapsed_text(leaf: Leaf) -> str:
    """The operand as it is written, not the seconds that it comes to."""
    if leaf.at_least_age is not None:
        return f"{duration_text(leaf.at_least_age)} ago or longer"
    ((operator, operand),) = leaf.operators.items()
    if operator == "between":
        return " to ".join(map(duration_text, operand)) + " ago"
    length = duration_text(operand)
    return {
        "gte": f"{length} ago or longer",
        "gt": f"more than {length} ago",
        "lte": f"at most {length} ago",
        "lt": f"less than {length} ago",
    }[operator]


def elapsed_span(leaf: Leaf) -> tuple[int, int | None]:
    """Smallest and largest number of seconds that fulfil an `age` or `idle`, both inclusive."""
    if leaf.at_least_age is not None:
        return leaf.at_least_age, None
    ((operator, operand),) = leaf.operators.items()
    if operator == "between":
        low, high = operand
        return low, high
    below = -LONGEST_DURATION
    return {
        "gte": (operand, None),
        "gt": (operand + 1, None),
        "lte": (below, operand),
        "lt": (below, operand - 1),
    }[operator]


_BUILDERS: Mapping[str, Callable[[Leaf, _Context], Condition]] = {
    "field": _build_field,
    "tag": _build_membership,
    "segment": _build_membership,
    "campaign": _build_membership,
    "stage": _build_membership,
    "kind": _build_membership,
    "activity": _build_activity,
    "verdict": _build_verdict,
    "score": _build_score,
    "dnc": _build_dnc,
    "age": _build_elapsed,
    "idle": _build_elapsed,
}


# --- Values

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=16_384)
def day_span(day: date, zone: ZoneInfo) -> tuple[int, int]:
    """First second of a day in the zone, and first second of the next, since 1970."""

    def start(of: date) -> int:
        midnight = datetime(of.year, of.month, of.day, tzinfo=zone)
        return (midnight.astimezone(UTC) - _EPOCH) // timedelta(seconds=1)

    try:
        return start(day), start(day + timedelta(days=1))
    except OverflowError:
        days = (day - date(1970, 1, 1)).days
        return days * 86_400, (days + 1) * 86_400


@lru_cache(maxsize=1_024)
def _day_around(at: int, zone: ZoneInfo) -> tuple[int, int]:
    """First second of the day of a moment in the zone, and last second."""
    try:
        start, after = day_span(datetime.fromtimestamp(at, zone).date(), zone)
    except (OverflowError, ValueError, OSError):  # beyond the calendar
        start, after = at - at % 86_400, at - at % 86_400 + 86_400
    return start, after - 1


@lru_cache(maxsize=65_536)
def moment_of(text: str, zone: ZoneInfo) -> int | None:
    """Seconds since 1970 of a date value; a bare day begins at midnight in the zone. None when it is no date."""
    found = parse_moment(text.strip())
    if found is None:
        return None
    if isinstance(found, datetime):
        return (found - _EPOCH) // timedelta(seconds=1)
    return day_span(found, zone)[0]


_YES = frozenset({"true", "yes", "1", "on"})
_NO = frozenset({"false", "no", "0", "off"})


def truth_of(value: FieldValue) -> bool | None:
    if isinstance(value, str):
        folded = value.lower()
        return True if folded in _YES else False if folded in _NO else None
    return None if value is None else bool(value)


def _equals(operand: str | float | bool) -> Callable[[FieldValue], bool]:
    """Test of equality with one value: booleans as truth, numbers as numbers, all else as folded text."""
    if isinstance(operand, bool):
        return lambda value: truth_of(value) is operand
    if isinstance(operand, (int, float)):
        return lambda value: (
            as_number(value) == operand if not isinstance(value, bool) else truth_of(value) is truth_of(operand)
        )
    text, number, truth = fold(operand), as_number(operand), truth_of(operand)

    def equal(value: FieldValue) -> bool:
        if isinstance(value, str):
            return fold(value) == text
        if isinstance(value, bool):
            return value is truth
        return value is not None and number is not None and value == number

    return equal


def _one_of(operands: Sequence[Any]) -> Callable[[FieldValue], bool]:
    if all(isinstance(one, str) for one in operands):
        texts = frozenset(fold(one) for one in operands)
        others = [_equals(one) for one in operands]
        return lambda value: fold(value) in texts if isinstance(value, str) else any(test(value) for test in others)
    tests = [_equals(one) for one in operands]
    return lambda value: any(test(value) for test in tests)


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def day_text(at: int, zone: ZoneInfo) -> str:
    """A day for people: `12 Nov 2026`, in the zone in which days are counted."""
    day = datetime.fromtimestamp(at, zone)
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"
