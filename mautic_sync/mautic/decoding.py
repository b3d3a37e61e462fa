"""Reads JSON as Mautic really sends it: broken UTF-8, NaN, lone surrogates and very large numbers included.

And text to which PHP's filter of special characters has been applied, as to the tags of Mautic 5.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

# Quotes, angle brackets, ampersands and control characters: what the filter replaces.
_SPECIAL = re.compile(r"[\x00-\x1f\"'<>&]")
_ESCAPED = re.compile(r"&#([12]?\d|3[01489]|6[02]);")


class NotJsonError(ValueError):
    """The body is no JSON at all."""


def decode(body: bytes) -> tuple[Any, bool]:
    """The value, and whether the bytes had to be repaired to read it.

    Bytes that are no UTF-8 and lone surrogates become U+FFFD, NaN and infinities become null. Raises NotJsonError.
    """
    try:
        return orjson.loads(body), False
    except orjson.JSONDecodeError:
        pass
    text = body.decode("utf-8-sig", errors="replace")
    try:
        value = json.loads(text, parse_constant=_nothing, parse_float=_finite, strict=False)
    except (ValueError, RecursionError) as error:
        raise NotJsonError(str(error)) from None
    return _without_surrogates(value), True


def escaped(text: str) -> str:
    """As PHP's filter of special characters stores it: `R&D` is `R&#38;D`. docs/mautic.md: "Writing"."""
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", text)


def unescaped(text: str) -> str:
    """What stood there before the filter; any other text is left as it is."""
    return _ESCAPED.sub(lambda found: chr(int(found[1])), text)


def _nothing(_name: str) -> None:
    return None


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if abs(number) != float("inf") else None


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value
