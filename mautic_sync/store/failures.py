"""What a database says when it fails in the middle of things, with the way out."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

# What the drivers say → what to do. SQLite, PostgreSQL and MariaDB each have words of their own.
_WAYS_OUT = (
    (
        ("malformed", "not a database", "file is encrypted"),
        "The store is damaged: put a backup back with `mautic-sync restore FILE --force`; the damaged file is kept.",
    ),
    (
        ("disk is full", "no space left", "could not extend", "table is full", "' is full"),
        "The disk is full: make room and run again. What was done is kept, what was on its way is looked up.",
    ),
    (
        # What SQLite says where it gets no room for its files beside the store, and of a disk that fails.
        ("disk i/o error",),
        "The disk is full, or fails: make room, look at it with `mautic-sync doctor`, and run again. What was done is kept.",
    ),
    (
        ("database is locked", "database table is locked"),
        "Another program holds the store's file open for writing (a copy, a viewer?): end it and run again.",
    ),
    (
        ("readonly", "read-only", "permission denied"),
        "Give this user the right to write the store and its directory.",
    ),
)
_OTHERWISE = "Check store.url, free disk and rights."


def told(error: DBAPIError) -> str:
    """One sentence for whoever reads standard error."""
    said = " ".join(str(error.orig).split()).rstrip(".")
    return f"the store failed: {said}. {way_out(said) or _OTHERWISE}"


def way_out(said: str) -> str | None:
    """What to do about this, where a driver's words tell."""
    lowered = said.lower()
    return next((way for words, way in _WAYS_OUT if any(word in lowered for word in words)), None)
