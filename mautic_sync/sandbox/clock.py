"""The sandbox's own time: the real one plus an offset that tests move, or a moment that stands still."""

import time
from datetime import UTC, datetime, timedelta


class Clock:
    """Every time the sandbox writes comes from here."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._frozen: datetime | None = None

    def now(self) -> datetime:
        if self._frozen is not None:
            return self._frozen
        return datetime.fromtimestamp(time.time() + self._offset, tz=UTC)

    def advance(self, seconds: float) -> None:
        if self._frozen is not None:
            self._frozen += timedelta(seconds=seconds)
        else:
            self._offset += seconds

    def set(self, moment: datetime, *, freeze: bool = False) -> None:
        """Jump to a moment; frozen, time stands still there until the next jump."""
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        self._frozen = moment if freeze else None
        self._offset = moment.timestamp() - time.time()


def stored(moment: datetime) -> str:
    """As Mautic's tables hold a time: UTC, no zone, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def iso(text: str | None) -> str | None:
    """A stored time as the API shows it."""
    return None if text is None else f"{text[:10]}T{text[11:19] or '00:00:00'}+00:00"
