"""What an action does to one contact beyond its fields: segments, campaigns and notes.

Joining and leaving may be repeated; a note is found again by the key at its end. docs/mautic.md: "Writing".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mautic_sync.errors import DoubtfulError, RefusedError
from mautic_sync.mautic.contacts import list_of
from mautic_sync.mautic.transport import Transport
from mautic_sync.mautic.writes import Doubtful, Refused

Place = Literal["segments", "campaigns"]
NOTES_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Done:
    """Mautic did it, or it was so already."""


def join(transport: Transport, place: Place, place_id: int, contact_id: int) -> Done | Refused | Doubtful:
    """Puts a contact into a segment or a campaign. `contact_id` is the number it has now: an old one is a 500."""
    return _member(transport, place, place_id, contact_id, "add")


def leave(transport: Transport, place: Place, place_id: int, contact_id: int) -> Done | Refused | Doubtful:
    """Takes a contact out of a segment or a campaign; done as well where it was not in it."""
    return _member(transport, place, place_id, contact_id, "remove")


def _member(
    transport: Transport, place: Place, place_id: int, contact_id: int, action: Literal["add", "remove"]
) -> Done | Refused | Doubtful:
    path = f"{place}/{place_id}/contact/{contact_id}/{action}"
    try:
        body = transport.write("POST", path)
    except DoubtfulError as error:
        return Doubtful(str(error))
    except RefusedError as refused:
        return Refused(refused.status, refused.reason)
    if not isinstance(body, Mapping) or str(body.get("success")) not in {"1", "True"}:
        return Doubtful(f"Mautic answered 200 to {place} {action} and does not say that it was done.")
    return Done()


def signed(text: str, key: str) -> str:
    """A note as it is written: its key at the end."""
    return f"{text} [mautic-sync:{key}]"


def add_note(transport: Transport, contact_id: int, text: str, key: str) -> Done | Refused | Doubtful:
    """Writes a note on a contact, each time it is called."""
    body = {"lead": contact_id, "type": "general", "text": signed(text, key)}
    try:
        transport.write("POST", "notes/new", body)
    except DoubtfulError as error:
        return Doubtful(str(error))
    except RefusedError as refused:
        return Refused(refused.status, refused.reason)
    return Done()


def has_note(transport: Transport, contact_id: int, key: str) -> bool:
    """Whether one of the contact's notes carries this key."""
    mark = f"[mautic-sync:{key}]"
    seen: set[str] = set()
    while True:
        page = list_of(
            transport.read(f"contacts/{contact_id}/notes", {"start": len(seen), "limit": NOTES_AT_ONCE}), "notes"
        )
        notes = [row for row in page if isinstance(row, Mapping) and str(row.get("id")) not in seen]
        if any(mark in str(row.get("text")) for row in notes):
            return True
        seen.update(str(row.get("id")) for row in notes)
        if len(page) < NOTES_AT_ONCE or not notes:
            return False
