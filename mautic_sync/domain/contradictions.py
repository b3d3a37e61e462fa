"""Conditions that nobody can ever fulfil, like a score of at least 7 and below 3.

A condition is taken apart into the ways in which it can hold, each a list of leaves of which some hold and the others
do not. A way is barred where two of its leaves exclude each other, or one excludes itself; where all ways are barred
the condition never holds. What is found is certain; not everything is found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations_with_replacement, islice, product
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from mautic_sync.domain.conditions import bounds_of, elapsed_span, truth_of
from mautic_sync.domain.contact import DNC_REASONS
from mautic_sync.domain.countries import country_key, fold
from mautic_sync.domain.grammar import OUTCOMES, STATUSES, Leaf, Node, as_number

MOST_WAYS = 256  # a condition with more is not looked at
ONE_VALUE = frozenset(
    {
        *("title", "firstname", "lastname", "company", "position", "email", "phone", "mobile", "fax", "website"),
        *("address1", "address2", "city", "state", "zipcode", "country", "timezone", "preferred_locale"),
    }
)
"""Fields of every Mautic that have one value. Any other may be a multiselect."""
OPPOSITE = {"gt": "lte", "gte": "lt", "lt": "gte", "lte": "gt"}

Reach = Mapping[str, tuple[float, float]]
"""Score → the least and the most that its rules can give."""


class Known(NamedTuple):
    """What is known beside a condition: a score that is not in `reach` may be anything; days are those of `zone`."""

    reach: Reach
    zone: ZoneInfo


class Literal(NamedTuple):
    """A leaf that holds, or does not."""

    leaf: Leaf
    holds: bool


class Contradiction(NamedTuple):
    """A part of a condition that never holds, and two of its leaves, or one twice, for which that is so."""

    node: Node
    one: Literal
    other: Literal


def contradictions(node: Node, known: Known) -> Iterator[Contradiction]:
    """The innermost parts that never hold."""
    parts = () if isinstance(node, Leaf) else node.parts
    inner = [found for part in parts for found in contradictions(part, known)]
    yield from inner
    pair = None if inner else _barred(node, known)
    if pair is not None:
        yield Contradiction(node, *pair)


def _barred(node: Node, known: Known) -> tuple[Literal, Literal] | None:
    """What bars the first way, where every way is barred."""
    ways = list(islice(_ways(node, holds=True), MOST_WAYS + 1))
    barred = [_excluding(way, known) for way in ways] if len(ways) <= MOST_WAYS else [None]
    return barred[0] if all(barred) else None


def _ways(node: Node, *, holds: bool) -> Iterator[Sequence[Literal]]:
    """The disjunctive normal form of a condition, or of its opposite."""
    if isinstance(node, Leaf):
        yield (Literal(node, holds),)
    elif node.operator == "not":
        yield from _ways(node.parts[0], holds=not holds)
    elif (node.operator == "all") is holds:
        parts = [list(islice(_ways(part, holds=holds), MOST_WAYS + 1)) for part in node.parts]
        yield from (tuple(chain.from_iterable(way)) for way in product(*parts))
    else:
        yield from chain.from_iterable(_ways(part, holds=holds) for part in node.parts)


def _excluding(way: Sequence[Literal], known: Known) -> tuple[Literal, Literal] | None:
    said = [(literal, {fact.about: fact for fact in _facts(literal, known)}) for literal in way]
    for (one, ones), (other, others) in combinations_with_replacement(said, 2):
        if any(ones[about].excludes(others[about]) for about in ones.keys() & others.keys()):
            return one, other
        if _outnumbers(one, other) or _outnumbers(other, one):
            return one, other
    return None


# -- what a leaf says -----------------------------------------------------------------------------------------------


class Span(NamedTuple):
    """Numbers from `low` to `high`, both included: (n, 0) is n, (n, 1) just above it, (n, -1) just below."""

    low: tuple[float, int]
    high: tuple[float, int]

    def apart(self, other: Span) -> bool:
        return max(self.low, other.low) > min(self.high, other.high)

    def within(self, other: Span) -> bool:
        return other.low <= self.low and self.high <= other.high


class Words(NamedTuple):
    """At least one of some words; `only`: nobody has two of them at once."""

    names: frozenset[Any]
    only: bool = True

    def apart(self, other: Words) -> bool:
        return self.only and other.only and self.names.isdisjoint(other.names)

    def within(self, other: Words) -> bool:
        return self.names <= other.names


class Fact(NamedTuple):
    """That something is among these, or that it is not. Facts about the same thing are of one sort."""

    about: tuple[Any, ...]
    among: Any
    holds: bool = True

    def excludes(self, other: Fact) -> bool:
        if self.holds and other.holds:
            return bool(self.among.apart(other.among))
        if self.holds or other.holds:
            inner, outer = (self, other) if self.holds else (other, self)
            return bool(inner.among.within(outer.among))
        return False


def _facts(literal: Literal, known: Known) -> Iterator[Fact]:
    leaf, holds = literal
    said = (leaf.names, tuple(sorted(leaf.operators.items())), leaf.matcher, leaf.within, leaf.at_least_age)
    yield Fact(("said", leaf.subject, *said), Words(frozenset({True})), holds)
    if leaf.optional:
        return  # where this Mautic has no such thing the leaf is false, whatever it says
    if leaf.subject == "field":
        yield from _facts_of_field(leaf, holds=holds, zone=known.zone)
    elif leaf.subject == "score":
        yield _fact_of_score(leaf, holds=holds, reach=known.reach)
    elif leaf.subject == "activity":
        yield from _facts_of_activity(leaf, holds=holds, zone=known.zone)
    elif leaf.subject in {"age", "idle"}:
        low, high = elapsed_span(leaf)
        yield Fact((leaf.subject,), _closed(low, high), holds)
    elif leaf.subject == "verdict":
        yield from _facts_of_verdict(leaf, holds=holds)
    elif leaf.subject == "dnc":
        yield from _facts_of_dnc(leaf, holds=holds)
    else:
        only = leaf.subject in {"kind", "stage"}
        names = leaf.names if leaf.subject == "tag" else map(fold, leaf.names)
        yield Fact((leaf.subject,), Words(frozenset(names), only), holds)


def _closed(low: float, high: float | None) -> Span:
    return Span((low, 0), (math.inf if high is None else high, 0))


def _compared(operator: str, operand: Any) -> Span:
    """The numbers that a comparison lets through."""
    low, high = operand if operator == "between" else (operand, operand)
    least = {"lt": (-math.inf, 0), "lte": (-math.inf, 0), "gt": (low, 1)}.get(operator, (low, 0))
    most = {"gt": (math.inf, 0), "gte": (math.inf, 0), "lt": (high, -1)}.get(operator, (high, 0))
    return Span(least, most)


def _whole(span: Span) -> Span:
    """The whole numbers of a span."""
    (low, above), (high, below) = span
    if math.isfinite(low):
        low = math.floor(low) + 1 if above else math.ceil(low)
    if math.isfinite(high):
        high = math.ceil(high) - 1 if below else math.floor(high)
    return _closed(low, high)


def _facts_of_verdict(leaf: Leaf, *, holds: bool) -> Iterator[Fact]:
    names = frozenset(leaf.names)
    for words in (OUTCOMES, STATUSES):
        if names <= set(words):
            yield Fact(("verdict", words), Words(names), holds)
    if holds and (names <= {"missing"} or names.isdisjoint(OUTCOMES)):  # what is missing has no status
        yield Fact(("answered",), Words(frozenset({"missing" not in names})))


def _facts_of_dnc(leaf: Leaf, *, holds: bool) -> Iterator[Fact]:
    """Each channel has one reason, or none. Of several channels nothing is known but where none of them has it."""
    ((operator, operand),) = leaf.operators.items() if leaf.operators else ((None, None),)
    reasons = operand if isinstance(operand, tuple) else (*DNC_REASONS, None) if operator is None else (operand,)
    holds = holds is not (operator in {"is_not", "not_in"})
    if reasons and (not holds or len(leaf.names) == 1):  # an empty list is a place to fill in
        for channel in leaf.names:
            yield Fact(("dnc", channel), Words(frozenset(reasons)), holds)


def _fact_of_score(leaf: Leaf, *, holds: bool, reach: Reach) -> Fact:
    group = leaf.names[0]
    ((operator, operand),) = leaf.operators.items()
    if operator == "is_not":
        operator, holds = "is", not holds
    if not holds and operator in OPPOSITE:  # everybody has a score: what is not above is below
        operator, holds = OPPOSITE[operator], True
    among = _whole(_compared(operator, operand))
    if group in reach:
        within = _closed(*reach[group])
        among = Span(max(among.low, within.low), min(among.high, within.high))
    return Fact(("score", group), among, holds)


def _facts_of_field(leaf: Leaf, *, holds: bool, zone: ZoneInfo) -> Iterator[Fact]:
    alias = fold(leaf.names[0])
    ((operator, operand),) = leaf.operators.items()
    if operator in {"empty", "not_empty"}:
        yield Fact(("there", alias), Words(frozenset({(operator == "not_empty") is (operand is holds)})))
        return
    if operator in {"is_not", "not_in"}:
        operator, holds = {"is_not": "is", "not_in": "in"}[operator], not holds
    values = operand if operator == "in" else (operand,)
    if operator in {"is", "in"} and values:
        only = alias in ONE_VALUE and all(map(_certain, values))
        yield Fact(("is", alias), Words(frozenset(_meant(alias, value) for value in values), only), holds)
    elif operator in {"gt", "gte", "lt", "lte"} or (operator == "between" and not isinstance(operand[0], str)):
        yield Fact(("number", alias), _compared(operator, operand), holds)
    elif operator in {"after", "before"}:
        ends = {"after": None, "before": None, operator: operand}
        bounds = bounds_of(ends["after"], ends["before"], zone)
        low, high = bounds.at(0)
        yield Fact(("date", alias, bounds.timed), _closed(low + 1, high - 1), holds)
    if holds and operator != "matches" and all(map(_is_something, values)):
        yield Fact(("there", alias), Words(frozenset({True})))


def _certain(value: Any) -> bool:
    """Whether a field equals it only by being spelled alike, and not as a number or a truth."""
    return isinstance(value, str) and as_number(value) is None and truth_of(value) is None


def _meant(alias: str, value: Any) -> tuple[str, Any]:
    if isinstance(value, str):
        return "text", country_key(value) if alias == "country" else fold(value)
    return type(value).__name__, value


def _is_something(value: Any) -> bool:
    """Whether no empty field fulfils an operator with this operand."""
    return not isinstance(value, str) or bool(fold(value).strip("*% "))


def _facts_of_activity(leaf: Leaf, *, holds: bool, zone: ZoneInfo) -> Iterator[Fact]:
    matcher, operators = leaf.matcher, leaf.operators
    if matcher is None:
        return
    after, before = operators.get("after"), operators.get("before")
    least = operators.get("at_least", 0 if "at_most" in operators else 1)
    yield Fact(("count", matcher.key, leaf.within, after, before), _closed(least, operators.get("at_most")), holds)
    if holds and least and after and before and (after[0] in "+-") is (before[0] in "+-"):
        low, high = bounds_of(after, before, zone).at(0)
        yield Fact(("when", matcher.key, after, before), _closed(low + 1, high - 1))


def _outnumbers(one: Literal, other: Literal) -> bool:
    """Whether `one` asks for more of some activity than `other` allows of that and more."""
    inner, outer = one.leaf, other.leaf
    if inner.matcher is None or outer.matcher is None or inner.optional or outer.optional:
        return False
    covered = outer.matcher.covers(inner.matcher) and _spans(outer, inner)
    return covered and _times(*one)[0] > _times(*other)[1]


def _spans(outer: Leaf, inner: Leaf) -> bool:
    """Whether the time that one leaf looks at is surely part of that of the other."""

    def ends(leaf: Leaf) -> list[Any]:
        return [leaf.operators.get("after"), leaf.operators.get("before")]

    if any(ends(outer)) or any(ends(inner)):
        return ends(outer) == ends(inner)
    return outer.within is None or (inner.within is not None and inner.within <= outer.within)


def _times(leaf: Leaf, holds: bool) -> tuple[float, float]:
    """How often at least and at most; what holds outside of two ends may be any number."""
    most = leaf.operators.get("at_most", math.inf)
    least = leaf.operators.get("at_least", 0 if "at_most" in leaf.operators else 1)
    if holds:
        return least, most
    return (most + 1, math.inf) if not least else (0, least - 1) if most == math.inf else (0, math.inf)
