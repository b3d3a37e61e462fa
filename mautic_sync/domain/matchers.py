"""Which activity counts for a condition: its type and what `where:` says about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from mautic_sync.domain.activity import Activity
from mautic_sync.domain.countries import fold


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
