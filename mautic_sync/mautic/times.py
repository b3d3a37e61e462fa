"""Mautic's two ways to write a time, read into seconds since 1970 UTC, and the one way it wants them sent."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # for times that Mautic sends without a zone, which are UTC
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time(text: object) -> int | None:
    """Seconds since 1970, UTC, of `YYYY-MM-DD HH:MM:SS` (UTC), of ISO 8601 with a zone, or of PHP's date object.

    None for null, blank and the zero date of MySQL. Raises ValueError for anything else.
    docs/mautic.md: "Shapes that surprise".
    """
    if text is None:
        return None
    if isinstance(text, dict):
        text = text.get("date")
    if not isinstance(text, str):
        raise ValueError("is no time")  # noqa: TRY004 - one error for every unreadable time
    return _parsed(text)


@lru_cache(maxsize=8_192)  # a page of rows, each of which is asked for its time several times
def _parsed(text: str) -> int | None:
    text = text.strip()
    if not text or text.startswith("0000-00-00"):
        return None
    moment = datetime.fromisoformat(text)
    # A subtraction costs a third of what timestamp() does, and millions of times are read.
    passed = moment - (_EPOCH if moment.tzinfo is None else _EPOCH_UTC)
    return passed.days * 86_400 + passed.seconds


def format_time(epoch: int) -> str:
    """`YYYY-MM-DD HH:MM:SS` in UTC: Mautic ignores zones and matches everything by a time that it cannot read."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%S")


def iso_time(epoch: int) -> str:
    """`YYYY-MM-DDTHH:MM:SS+00:00`, as `Contact.fields` holds times."""
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds")
