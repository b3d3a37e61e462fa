"""What PHP does to values: serialize(), unserialize(), its query strings and its input filters."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html.entities import name2codepoint
from typing import Any
from urllib.parse import unquote_plus


@dataclass(frozen=True)
class PhpDate:
    """A DateTime object inside serialised audit details: Mautic stores some dates as objects, others as text."""

    at: datetime


def serialize(value: Any) -> str:
    """As PHP serialises: dicts are arrays with keys, lists are arrays with indexes, lengths are counted in bytes."""
    if type(value) is str:
        return f's:{len(value) if value.isascii() else len(value.encode())}:"{value}";'
    if value is None:
        return "N;"
    if isinstance(value, bool):
        return f"b:{int(value)};"
    if isinstance(value, int):
        return f"i:{value};"
    if isinstance(value, float):
        return f"d:{int(value) if value.is_integer() else value!r};"
    if isinstance(value, PhpDate):
        text = value.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        parts = f's:4:"date";s:26:"{text}";s:13:"timezone_type";i:3;s:8:"timezone";s:3:"UTC";'
        return f'O:8:"DateTime":3:{{{parts}}}'
    if isinstance(value, Mapping):
        return f"a:{len(value)}:{{{''.join(serialize(k) + serialize(v) for k, v in value.items())}}}"
    if isinstance(value, Sequence):
        return f"a:{len(value)}:{{{''.join(serialize(i) + serialize(v) for i, v in enumerate(value))}}}"
    raise TypeError(f"PHP has no {type(value).__name__}")


def unserialize(text: str) -> Any:
    """The value behind a serialize() text; lists come back as lists. A text that is none raises ValueError."""
    value, end = _read(text.encode(), 0)
    if end != len(text.encode()):
        raise ValueError("there is something behind the serialised value")
    return value


def _read(raw: bytes, at: int) -> tuple[Any, int]:
    kind = raw[at : at + 1]
    if kind == b"N":
        return None, at + 2
    if kind in {b"b", b"i", b"d"}:
        end = raw.index(b";", at)
        number = raw[at + 2 : end]
        value: Any = number == b"1" if kind == b"b" else int(number) if kind == b"i" else float(number)
        return value, end + 1
    if kind == b"s":
        colon = raw.index(b":", at + 2)
        size = int(raw[at + 2 : colon])
        return raw[colon + 2 : colon + 2 + size].decode(errors="replace"), colon + size + 4
    if kind == b"a":
        colon = raw.index(b":", at + 2)
        count, at = int(raw[at + 2 : colon]), colon + 2
        found: dict[Any, Any] = {}
        for _ in range(count):
            key, at = _read(raw, at)
            found[key], at = _read(raw, at)
        return php_array(found), at + 1
    raise ValueError("not a serialised value")


def php_array(values: dict[Any, Any]) -> Any:
    """A PHP array as JSON sees it: a list when its keys run 0..n-1, else an object."""
    return list(values.values()) if list(values) == list(range(len(values))) else values


def decode_click_through(text: str) -> dict[str, Any]:
    """The `ct` parameter of a tracked link: base64 of a serialised array; {} when it is neither."""
    try:
        found = unserialize(base64.b64decode(text).decode())
    except (ValueError, binascii.Error, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def parse_query(text: str) -> dict[str, Any]:
    """`a[0][b]=c&d[]=e` as PHP's parse_str() reads it."""
    found: dict[str, Any] = {}
    for part in text.split("&"):
        if part:
            name, _, value = part.partition("=")
            _put(found, unquote_plus(name), unquote_plus(value, errors="replace"))
    return found


def nest(pairs: Mapping[str, Any]) -> dict[str, Any]:
    """Form fields with bracketed names, nested."""
    found: dict[str, Any] = {}
    for name, value in pairs.items():
        _put(found, name, value)
    return found


def _put(into: dict[str, Any], name: str, value: Any) -> None:
    head, bracket, _ = name.partition("[")
    keys = [head, *re.findall(r"\[([^\]]*)\]", name[len(head) :])] if bracket else [head]
    here: dict[Any, Any] = into
    for key in keys[:-1]:
        inner = here.get(_index(key, here))
        if not isinstance(inner, dict):
            inner = {}
            here[_index(key, here)] = inner
        here = inner
    here[_index(keys[-1], here)] = value


def _index(key: str, inside: dict[Any, Any]) -> Any:
    if not key:
        return str(len(inside))
    return key


def strip_tags(text: str) -> str:
    """Mautic cleans text on the way in: `a<b` is stored as `a` (docs/mautic.md: "Shapes that surprise")."""
    return re.sub(r"\x00|<[^>]*>?", "", text).strip()


def decode_entities(text: str) -> str:
    """PHP's html_entity_decode: the entities of HTML 4, ended by their semicolon."""

    def character(found: re.Match[str]) -> str:
        decimal, hexadecimal, name = found.groups()
        code = int(decimal) if decimal else int(hexadecimal, 16) if hexadecimal else name2codepoint.get(name, 0)
        return chr(code) if 0 < code < 0x110000 else found[0]

    return re.sub(r"&(?:#(\d+)|#[xX]([0-9a-fA-F]+)|(\w+));", character, text)


def escape_special(text: str) -> str:
    """PHP's special-chars filter, which names of points and tags go through: `a & b` becomes `a &#38; b`."""
    return re.sub(r"[\x00-\x1f\"'<>&]", lambda m: f"&#{ord(m[0])};", text)
