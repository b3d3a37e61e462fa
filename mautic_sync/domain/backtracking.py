"""Whether a regular expression may take for ever: how many ways there are in which it can try to match a text.

Python tries them one after the other. The answer is an estimate, read off the expression alone: harmless ones of an unusual
make may be refused, and a text that is made for it can hold up one that is allowed for some seconds.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

LONGEST_SUBJECT = 1_000  # characters of a value that a regular expression sees
MOST_READINGS = 10_000  # of what is repeated: so many ways to read one text are tried quickly
MOST_STEPS = 1e10  # of a whole search, as estimated: seconds at the worst
FEW = 10  # a repetition with fewer choices adds little to the number of steps
MOST_COPIES = 3  # of what is repeated, in looking ahead
MOST_LOOKS = 20_000  # at the beginnings of parts: a second; ordinary expressions take some hundred
LOOKAHEAD = 24  # characters by which two ways to go on are told apart

_parser: Any = importlib.import_module("re._parser")  # the one that `re` uses; it has no public name
_constants: Any = importlib.import_module("re._constants")

_REPEATS = {_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT}
_ONE_CHARACTER = {_constants.LITERAL, _constants.NOT_LITERAL, _constants.IN, _constants.ANY}
_CATEGORIES = {
    _constants.CATEGORY_DIGIT: r"\d",
    _constants.CATEGORY_NOT_DIGIT: r"\D",
    _constants.CATEGORY_SPACE: r"\s",
    _constants.CATEGORY_NOT_SPACE: r"\S",
    _constants.CATEGORY_WORD: r"\w",
    _constants.CATEGORY_NOT_WORD: r"\W",
}
_SAMPLE = "".join(map(chr, range(256))) + "ıſК٣中\u2003\u2028€😀"
"""Characters that stand for all others, beside those that the expression names."""

Characters = frozenset[str]
Ahead = tuple[Characters, ...]
"""What the next characters can be, one by one, as far as that is sure."""
Item = tuple[Any, Any]
"""An operation of the parsed expression, and what it is about."""


def many_readings(text: str) -> bool:
    """Whether a valid expression repeats what can read the same text in many ways, like `(a|aa)+`: exponential time."""
    search = _Search(text)
    try:
        return search.readings(search.items, (), 1) > math.log(MOST_READINGS)
    except (_IntricateError, RecursionError):
        return True


def many_steps(text: str) -> bool:
    """Whether a valid expression has repetitions that share a text in many ways, like `a*a*a*b`: time to a high power."""
    search = _Search(text)
    try:
        return search.steps(search.items) > MOST_STEPS
    except (_IntricateError, RecursionError):
        return True


class _IntricateError(Exception):
    """The expression is nested so deeply that to look at it would take for ever itself."""


class _Search:
    """One parsed expression."""

    def __init__(self, text: str) -> None:
        parsed = _parser.parse(text)
        self.items: Sequence[Item] = list(parsed)
        self.looks = 0
        self.known: dict[tuple[Any, int], Characters] = {}
        self.many_lines = bool(parsed.state.flags & re.MULTILINE)
        self.any_case = bool(parsed.state.flags & re.IGNORECASE) or _ignores_case(self.items)
        named = {chr(one) for one in _named(self.items)}
        self.everything: Characters = frozenset(_SAMPLE).union(*(_cases(one) for one in named))

    # -- what something can match

    def characters(self, item: Item) -> Characters:
        """What one character of it can be."""
        key = (item[0], id(item[1]))
        if key not in self.known:
            self.known[key] = self._characters(item)
        return self.known[key]

    def _characters(self, item: Item) -> Characters:
        operation, about = item
        if operation is _constants.LITERAL:
            return self.of_any_case(frozenset({chr(about)}))
        if operation is _constants.NOT_LITERAL:
            return self.everything - {chr(about)}
        if operation is _constants.ANY:
            return self.everything
        if about[0][0] is _constants.NEGATE:
            return self.everything.difference(*map(self._of_class, about[1:]))
        return self.of_any_case(frozenset[str]().union(*map(self._of_class, about)))

    def of_any_case(self, found: Characters) -> Characters:
        return found.union(*map(_cases, found)) if self.any_case else found

    def _of_class(self, item: Item) -> Characters:
        operation, about = item
        if operation is _constants.LITERAL:
            return frozenset({chr(about)})
        if operation is _constants.RANGE:
            return frozenset(one for one in self.everything if about[0] <= ord(one) <= about[1])
        return frozenset(one for one in self.everything if _is_of(about, one))

    def ahead(self, items: Sequence[Item], after: Ahead) -> Ahead:
        """What can stand at the beginning of these items, which `after` follows."""
        self.looks += 1
        if self.looks > MOST_LOOKS:
            raise _IntricateError
        found: list[Characters] = []
        for place, item in enumerate(items):
            if len(found) >= LOOKAHEAD:
                break
            operation, about = item
            if operation in _ONE_CHARACTER:
                found.append(self.characters(item))
                continue
            last = place + 1 + LOOKAHEAD
            rest = self.ahead(items[place + 1 : last], after if last >= len(items) else ())
            return (*found, *self._ahead_of(operation, about, rest))[:LOOKAHEAD]
        return (*found, *after)[:LOOKAHEAD]

    def _ahead_of(self, operation: Any, about: Any, rest: Ahead) -> Ahead:
        if operation in _REPEATS:
            least, most, body = about
            beyond = rest if most in {least, 1} else _either(self.ahead(body, ()), rest)
            if not least:
                return _either(self.ahead(body, beyond), rest)
            copies = min(least, LOOKAHEAD if _is_plain(body) else MOST_COPIES)
            return self.ahead([*body] * copies, beyond if copies == least else ())
        if operation is _constants.SUBPATTERN:
            return self.ahead(about[-1], rest)
        if operation is _constants.ATOMIC_GROUP:
            return self.ahead(about, rest)
        if operation is _constants.BRANCH:
            return _any_of(self.ahead(one, rest) for one in about[1])
        if operation is _constants.GROUPREF_EXISTS:
            return _any_of(self.ahead(one or [], rest) for one in about[1:])
        if operation is _constants.GROUPREF:
            return (self.everything,)
        return rest  # an assertion has no characters

    # -- in how many ways what is repeated can be read

    def readings(self, items: Sequence[Item], after: Ahead, times: int) -> float:
        """The logarithm of how many ways there are to read what is repeated up to `times` times, at the worst."""
        total = 0.0
        for place, item in enumerate(items):
            rest = self.ahead(items[place + 1 :], after)
            total += self._readings_of(item, rest, times)
        return total

    def _readings_of(self, item: Item, rest: Ahead, times: int) -> float:
        operation, about = item
        if operation in _REPEATS:
            least, most, body = about
            most = min(most, LONGEST_SUBJECT)
            total = 0.0
            again = self.ahead(body, ()) if most > 1 or times > 1 else ()
            if times > 1 and most > least and operation is not _constants.POSSESSIVE_REPEAT and _meet(again, rest):
                total += times * math.log(most - least + 1)
            within = _either(again, rest) if times > 1 else again
            return total + self.readings(body, within if most > 1 else rest, min(times * max(most, 1), LONGEST_SUBJECT))
        if operation is _constants.BRANCH:
            total = sum(self.readings(one, rest, times) for one in about[1])
            entries = [self.ahead(one, rest) for one in about[1]]
            meeting = max(sum(_meet(one, other) for other in entries) for one in entries)
            return total + (times * math.log(meeting) if times > 1 and meeting > 1 else 0.0)
        return sum(self.readings(body, rest, times) for body in _bodies(item))

    # -- how many steps a search may take

    def steps(self, items: Sequence[Item]) -> float:
        """How many steps a search that ends without a match takes, at the worst."""
        inner = [self.steps(body) for item in items for body in _asserted(item)]
        flat = list(self._flat(items))
        while flat and not _least_width([flat[-1]]) and flat[-1][0] in _REPEATS:
            flat.pop()  # nothing after it can fail
        anchored = flat[:1] and flat[0] == (_constants.AT, _constants.AT_BEGINNING) and not self.many_lines
        anchored = anchored or (flat[:1] and flat[0] == (_constants.AT, _constants.AT_BEGINNING_STRING))
        ways = 1.0 if anchored else float(LONGEST_SUBJECT)
        shared = 0 if anchored else 1
        total = ways
        for place, item in enumerate(flat):
            if item[0] not in _REPEATS:
                continue
            least, most, body = item[1]
            following = flat[place + 1 :]
            meets = _meet(self.ahead(body, ()), self.ahead(following, ()))
            if not _is_wide(item):
                ways *= most - least + 1 if meets else 1
                continue
            total += ways * LONGEST_SUBJECT / math.factorial(shared + 1)
            if meets:
                between = _least_width(
                    following[: next((at for at, one in enumerate(following) if _is_wide(one)), None)]
                )
                ways *= min(LONGEST_SUBJECT / max(between, 1), most - least + 1)
                shared += 1
        return max([total + ways / math.factorial(shared), *inner])

    def _flat(self, items: Sequence[Item]) -> Iterator[Item]:
        """These items without the groups around them; of alternatives, the one with the most repetitions."""
        for item in items:
            operation, about = item
            if operation is _constants.SUBPATTERN:
                yield from self._flat(about[-1])
            elif operation is _constants.ATOMIC_GROUP:
                yield from self._flat(about)
            elif operation in _REPEATS and about[1] == 1:
                flat = list(self._flat(about[2]))
                yield from flat if any(map(_is_wide, flat)) else [item]
            elif operation is _constants.BRANCH:
                most = max((list(self._flat(one)) for one in about[1]), key=lambda some: sum(map(_is_wide, some)))
                yield from most if any(map(_is_wide, most)) else [item]
            else:
                yield item


def _is_plain(body: Sequence[Item]) -> bool:
    return len(body) == 1 and body[0][0] in _ONE_CHARACTER


def _is_wide(item: Item) -> bool:
    """Whether it is a repetition with more than a few choices of how often."""
    return item[0] in _REPEATS and item[0] is not _constants.POSSESSIVE_REPEAT and item[1][1] - item[1][0] >= FEW


def _either(one: Ahead, other: Ahead) -> Ahead:
    return tuple(left | right for left, right in zip(one, other, strict=False))


def _any_of(several: Iterable[Ahead]) -> Ahead:
    found: Ahead | None = None
    for one in several:
        found = one if found is None else _either(found, one)
    return found or ()


def _meet(one: Ahead, other: Ahead) -> bool:
    """Whether some text can go on in both ways, as far as can be seen."""
    return all(left & right for left, right in zip(one, other, strict=False))


def _bodies(item: Item) -> Iterator[Sequence[Item]]:
    """The sequences inside an item."""
    operation, about = item
    if operation in _REPEATS or operation is _constants.SUBPATTERN:
        yield about[-1]
    elif operation is _constants.ATOMIC_GROUP:
        yield about
    elif operation is _constants.BRANCH:
        yield from about[1]
    elif operation is _constants.GROUPREF_EXISTS:
        yield from (one for one in about[1:] if one)
    else:
        yield from _asserted(item)


def _asserted(item: Item) -> Iterator[Sequence[Item]]:
    if item[0] in {_constants.ASSERT, _constants.ASSERT_NOT}:
        yield item[1][1]


def _least_width(items: Sequence[Item]) -> int:
    """How many characters these items match at least."""
    least = 0
    for item in items:
        operation, about = item
        if operation in _ONE_CHARACTER:
            least += 1
        elif operation in _REPEATS:
            least += about[0] * _least_width(about[2])
        elif operation is not _constants.GROUPREF_EXISTS and not any(_asserted(item)):
            least += min(map(_least_width, _bodies(item)), default=0)
    return min(least, LONGEST_SUBJECT)


def _ignores_case(items: Iterable[Item]) -> bool:
    return any(
        (item[0] is _constants.SUBPATTERN and bool(item[1][1] & re.IGNORECASE))
        or any(map(_ignores_case, _bodies(item)))
        for item in items
    )


def _named(items: Iterable[Item]) -> Iterator[int]:
    """Characters that stand in an expression, the ends of ranges included."""
    for item in items:
        operation, about = item
        if operation in {_constants.LITERAL, _constants.NOT_LITERAL}:
            yield about
        elif operation is _constants.RANGE:
            yield from about
        elif operation is _constants.IN:
            yield from _named(about)
        for body in _bodies(item):
            yield from _named(body)


@lru_cache(maxsize=65_536)
def _is_of(category: Any, one: str) -> bool:
    return re.fullmatch(_CATEGORIES[category], one) is not None


@lru_cache(maxsize=4_096)
def _cases(one: str) -> Characters:
    return frozenset(each for each in (one, one.lower(), one.upper()) if len(each) == 1)
