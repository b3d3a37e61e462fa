"""What a contact field accepts: trimming, cleaning, refusing (docs/mautic.md: "Writing")."""

import re
import zoneinfo
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pycountry

from .contact_fields import Field
from .php import strip_tags

_EMAIL = re.compile(r"^[^@\s<>\"',;:()\[\]]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\.[A-Za-z]{2,}$")
_LONGEST = 191
#: Country names that Mautic spells in a way of its own.
_MAUTIC_COUNTRIES = frozenset(
    (
        "Russia", "South Korea", "North Korea", "Iran", "Syria", "Vietnam", "Laos", "Bolivia", "Venezuela", "Tanzania",
        "Moldova", "Taiwan", "Brunei", "Cape Verde", "Ivory Coast", "Macedonia", "Turkey", "Czech Republic", "Swaziland",
        "Palestine", "Kosovo", "Vatican City", "Democratic Republic of the Congo", "Republic of the Congo",
    )
)  # fmt: skip


class IgnoredError(Exception):
    """The value is dropped in silence."""


class InvalidError(Exception):
    """The value is refused."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@cache
def countries() -> frozenset[str]:
    names = {c.name for c in pycountry.countries} | {getattr(c, "common_name", c.name) for c in pycountry.countries}
    return frozenset(names) | _MAUTIC_COUNTRIES


@cache
def regions() -> frozenset[str]:
    return frozenset(s.name for s in pycountry.subdivisions)


@cache
def time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def accepted(found: Field, value: Any, *, invalid_choice: str, keep_seconds: bool) -> Any:
    """The value as stored; raises InvalidError or IgnoredError. Blank values are the caller's."""
    if found.type == "boolean":
        return int(value not in {False, "0", "false", "no", "off", "No"})
    if found.is_number:
        return _number(found, value)
    if isinstance(value, bool):
        value = int(value)
    if isinstance(value, list | dict):
        raise InvalidError(invalid_choice)
    text = strip_tags(str(value))
    if found.type in {"datetime", "date"}:
        return _moment(text, keep_seconds=keep_seconds or found.alias == "last_active", date_only=found.type == "date")
    if len(text) > _LONGEST:
        raise InvalidError(f"This value is too long. It should have {_LONGEST} characters or less.")
    if found.type == "email" and not _EMAIL.match(text):
        raise InvalidError(f"{text} is invalid.")
    choices = _choices(found)
    if choices is not None and text not in choices:
        raise InvalidError(invalid_choice)
    return text


def _choices(found: Field) -> frozenset[str] | None:
    if found.type == "country":
        return countries()
    if found.type == "region":
        return regions()
    if found.type == "timezone":
        return time_zones()
    if found.type == "select":
        listed = found.properties.get("list") or []
        return frozenset(str(o["value"]) if isinstance(o, dict) else str(o) for o in listed) if listed else None
    return None


def _number(found: Field, value: Any) -> float:
    try:
        read = float(str(value).replace(",", ".")) if not isinstance(value, bool) else float(value)
    except ValueError:
        raise InvalidError("Please enter a number.") from None
    if -1 < read < 1:
        raise IgnoredError  # docs/mautic.md: "Writing": no number between -1 and 1 can be written
    return round(read, found.scale) if found.scale else float(int(read))


def _moment(text: str, *, keep_seconds: bool, date_only: bool) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise IgnoredError from None
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    if date_only:
        return moment.strftime("%Y-%m-%d")
    return moment.strftime("%Y-%m-%d %H:%M:%S" if keep_seconds else "%Y-%m-%d %H:%M:00")
