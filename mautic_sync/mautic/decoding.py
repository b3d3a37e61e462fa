"""Reads JSON as Mautic really sends it: broken UTF-8, NaN, lone surrogates and very large numbers included."""

from __future__ import annotations

import json
from typing import Any

import orjson


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
