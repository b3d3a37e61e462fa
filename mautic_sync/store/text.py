"""Text as every database can hold it, so that broken input is kept with replacements and never ends a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Dialect, String, Text, TypeDecorator
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine


def dump(value: Any) -> str:
    """JSON with sorted keys. Lone surrogates become `?`; numbers beyond 64 bits are kept as they are."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:
        told = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return told.encode("utf-8", "replace").decode()


def storable(text: str) -> str:
    """PostgreSQL refuses NUL, and no driver sends a lone surrogate."""
    if text.isascii():
        return text.replace("\x00", "") if "\x00" in text else text
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


class Stored(TypeDecorator[str]):
    """Every value made storable; only SQLite takes more than the column's length."""

    impl = String
    cache_ok = True
    longest: int | None = None

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        del dialect
        if value is None:
            return None
        if self.longest is not None and len(value) > self.longest:
            value = value[: self.longest]
        return storable(value)

    def keeps(self, values: Sequence[str | None]) -> bool:
        """Whether all these are stored as they are: one look at thousands, where each would cost a call."""
        texts = [value for value in values if value is not None]
        joined = "".join(texts)
        if "\x00" in joined or (self.longest is not None and max(map(len, texts), default=0) > self.longest):
            return False
        try:
            joined.encode()
        except UnicodeEncodeError:
            return False
        return True


class Line(Stored):
    """Text of at most `longest` characters; what is longer is cut."""

    cache_ok = True

    def __init__(self, longest: int) -> None:
        self.longest = longest
        super().__init__(longest)


class Prose(Stored):
    """Text of any length (MariaDB's TEXT ends at 64 KB)."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return mysql.LONGTEXT() if dialect.name in {"mysql", "mariadb"} else Text()
