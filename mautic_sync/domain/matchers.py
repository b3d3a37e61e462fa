"""Which activity counts for a condition: its type and what `where:` says about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from mautic_sync.domain.activity import Activity
from mautic_sync.domain.countries import fold

MOST_REMEMBERED = 4_096  # sets of attributes


@dataclass(frozen=True)
class ActivityMatcher:
    """Which activity counts: its type and, by attribute, the text or texts of which one must match.

    `key` is the same for the same type and `where`, today and in a year: evidence is stored under it. `*` in a text
    stands for anything; the whole value must match, without regard to letter case.
    """

    key: str
    type: str
    where: Mapping[str, str | list[str]]
    _tests: tuple[tuple[str, tuple[Callable[[str], bool], ...]], ...] = field(
        init=False, repr=False, compare=False, default=()
    )

    def __post_init__(self) -> None:
        tests = tuple(
            (attribute, tuple(wildcard(fold(text)) for text in listed(wanted)))
            for attribute, wanted in self.where.items()
        )
        object.__setattr__(self, "_tests", tests)

    def __hash__(self) -> int:
        return hash(self.key)

    @classmethod
    def of(cls, type_: str, where: Mapping[str, str | list[str]]) -> ActivityMatcher:
        """The matcher with its key computed."""
        meaning = [
            type_,
            sorted((name, sorted({fold(text) for text in listed(wanted)})) for name, wanted in where.items()),
        ]
        key = hashlib.blake2s(json.dumps(meaning, ensure_ascii=True).encode(), digest_size=8).hexdigest()
        return cls(key, type_, where)

    def matches(self, activity: Activity) -> bool:
        """Whether this activity counts."""
        if activity.type != self.type:
            return False
        attributes = activity.attributes
        for name, tests in self._tests:
            value = attributes.get(name)
            if not value:
                return False
            value = fold(value)
            if not any(test(value) for test in tests):
                return False
        return True

    def covers(self, other: ActivityMatcher) -> bool:
        """Whether it surely counts all that another counts; what is not sure is no."""
        return self.type == other.type and all(
            name in other.where
            and all(
                any(wildcard(fold(wide))(fold(text)) for wide in listed(wanted)) for text in listed(other.where[name])
            )
            for name, wanted in self.where.items()
        )


class Matchers:
    """Matchers by the type of activity they count; what matched is remembered, for the same pages come again and again."""

    def __init__(self, matchers: Iterable[ActivityMatcher]) -> None:
        grouped: dict[str, list[ActivityMatcher]] = {}
        for matcher in matchers:
            grouped.setdefault(matcher.type, []).append(matcher)
        self._by_type = {type_: tuple(found) for type_, found in grouped.items()}
        self._looks_at = {
            type_: tuple(sorted({name for matcher in found for name in matcher.where}))
            for type_, found in self._by_type.items()
        }
        self._known: dict[tuple[str | None, ...], tuple[ActivityMatcher, ...]] = {}

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(matcher.key for found in self._by_type.values() for matcher in found)

    @property
    def types(self) -> frozenset[str]:
        return frozenset(self._by_type)

    def __contains__(self, type_: object) -> bool:
        return type_ in self._by_type

    def matching(self, activity: Activity) -> tuple[ActivityMatcher, ...]:
        """Those that count this activity."""
        found = self._by_type.get(activity.type, ())
        if not found:
            return found
        attributes = activity.attributes
        key = (activity.type, *[attributes.get(name) for name in self._looks_at[activity.type]])
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            known = self._known[key] = tuple(matcher for matcher in found if matcher.matches(activity))
        return known


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@lru_cache(maxsize=4_096)
def wildcard(pattern: str) -> Callable[[str], bool]:
    """A test of a whole (folded) text against a pattern with `*`, in time proportional to the text."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern.__eq__
    *middle, last = rest
    inner = tuple(part for part in middle if part)
    shortest = len(first) + len(last)

    def matches(text: str) -> bool:
        if len(text) < shortest or not text.startswith(first) or not text.endswith(last):
            return False
        at, end = len(first), len(text) - len(last)
        for part in inner:
            found = text.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True

    return matches
