"""Reads PHP's serialised values as data and nothing else: no class is looked up, nothing is ever called."""

from __future__ import annotations

from mautic_sync.errors import MalformedError

PhpValue = None | bool | int | float | str | dict[int | str, "PhpValue"]

DEEPEST = 64  # arrays within arrays
# Mautic's audit log holds the dates of `dateIdentified` as objects; their parts are plain values.
DATE_CLASSES = frozenset({"DateTime", "DateTimeImmutable", "DateTimeZone"})
_FLOATS = {b"INF": float("inf"), b"-INF": float("-inf"), b"NAN": float("nan")}


def unserialize(text: str) -> PhpValue:
    """The value of PHP's `serialize`: arrays as dicts in their order, dates as dicts of their parts.

    Raises MalformedError for any other object, for references, and for anything that PHP would not have written.
    """
    reader = _Reader(text.encode("utf-8", "surrogatepass"))
    value = reader.value(0)
    if reader.at != len(reader.source):
        raise MalformedError("The serialised value is followed by something else.")
    return value


class _Reader:
    """A cursor over the bytes: PHP counts the length of text in bytes."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.at = 0

    def value(self, depth: int) -> PhpValue:
        if depth > DEEPEST:
            raise MalformedError("The serialised value is nested too deeply.")
        kind = self._take(2)
        if kind == b"N;":
            return None
        if kind == b"b:":
            return self._boolean()
        if kind == b"i:":
            return self._integer(b";")
        if kind == b"d:":
            return self._float()
        if kind == b"s:":
            text = self._string()
            self._expect(b";")
            return text
        if kind == b"a:":
            return self._array(depth)
        if kind == b"O:":
            name = self._string()
            self._expect(b":")
            if name not in DATE_CLASSES:
                raise MalformedError("The serialised value contains an object.")
            return self._array(depth)
        raise MalformedError("The serialised value contains something that is no plain value.")

    def _boolean(self) -> bool:
        digit = self._take(2)
        if digit not in {b"0;", b"1;"}:
            raise MalformedError("The serialised value contains a broken yes or no.")
        return digit == b"1;"

    def _integer(self, end: bytes) -> int:
        digits = self._until(end)
        body = digits[1:] if digits[:1] in {b"-", b"+"} else digits
        if not body.isdigit() or len(body) > 20:
            raise MalformedError("The serialised value contains a broken number.")
        return int(digits)

    def _float(self) -> float:
        digits = self._until(b";")
        if digits in _FLOATS:
            return _FLOATS[digits]
        if not digits or not set(digits) <= set(b"0123456789+-.eE"):
            raise MalformedError("The serialised value contains a broken number.")
        try:
            return float(digits)
        except ValueError:
            raise MalformedError("The serialised value contains a broken number.") from None

    def _string(self) -> str:
        """`<bytes>:"<text>"`."""
        length = self._count()
        self._expect(b'"')
        text = self._take(length)
        self._expect(b'"')
        try:
            return text.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise MalformedError("The serialised value counts its text wrongly.") from None

    def _array(self, depth: int) -> dict[int | str, PhpValue]:
        """`<entries>:{<key><value>…}`."""
        entries = self._count()
        self._expect(b"{")
        found: dict[int | str, PhpValue] = {}
        for _ in range(entries):
            key = self.value(depth + 1)
            if isinstance(key, bool) or not isinstance(key, int | str):
                raise MalformedError("The serialised value has a key that is neither a number nor text.")
            found[key] = self.value(depth + 1)
        self._expect(b"}")
        return found

    def _count(self) -> int:
        digits = self._until(b":")
        if not digits.isdigit() or len(digits) > 10:
            raise MalformedError("The serialised value contains a broken length.")
        return int(digits)

    def _take(self, length: int) -> bytes:
        taken = self.source[self.at : self.at + length]
        if len(taken) != length:
            raise MalformedError("The serialised value ends too early.")
        self.at += length
        return taken

    def _until(self, end: bytes) -> bytes:
        stop = self.source.find(end, self.at, self.at + 64)
        if stop < 0:
            raise MalformedError("The serialised value ends too early.")
        taken = self.source[self.at : stop]
        self.at = stop + len(end)
        return taken

    def _expect(self, expected: bytes) -> None:
        if self._take(len(expected)) != expected:
            raise MalformedError("The serialised value is broken.")
