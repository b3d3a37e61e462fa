"""Changes contacts in Mautic, and says of each change what became of it: settled, refused, gone, moved or in doubt.

Nothing is believed that the echo does not show. docs/mautic.md: "Writing" explains every rule in here.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mautic_sync.domain.contact import Contact
from mautic_sync.errors import DoubtfulError, MalformedError, MauticSyncError, RefusedError, StopError
from mautic_sync.mautic.contacts import NOT_FOUND, get_contact, parse_contact
from mautic_sync.mautic.redaction import redact, shorten
from mautic_sync.mautic.times import parse_time
from mautic_sync.mautic.transport import Transport, is_database_fault, missing_right

MOST_IN_A_BATCH = 200  # `api_batch_max_limit` as Mautic ships
LONGEST_TEXT = 191  # characters of a text field

# Keys of an edit that are no fields: what they are compared with is in `Contact` itself.
_PARTS = frozenset({"stage", "tags", "owner", "lastActive", "points", "doNotContact"})


@dataclass(frozen=True, slots=True)
class ContactEdit:
    """New values for one contact: `stage` (an id, None clears it), `tags` (`["vip", "-old"]`), `owner`, `lastActive`,
    and fields by alias. None, "" and 0 empty a field, because Mautic cannot store a number between −1 and 1.
    """

    contact_id: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Settled:
    """Mautic took the change, and `contact` is what it shows.

    `differing` names the values of which Mautic made something else, and keeps that: asking again would not help.
    """

    contact: Contact
    differing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Mautic said no and changed nothing; `status` is that of the item."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Gone:
    """Mautic knows no contact of this id: deleted, or (in a batch, on 5.1) merged away."""


@dataclass(frozen=True, slots=True)
class Doubtful:
    """It may have happened, or may still happen, or something else happened: look before writing there again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Moved:
    """The contact was merged: the change reached `new_id`, the survivor."""

    new_id: int
    contact: Contact | None = None


Result = Settled | Refused | Gone | Doubtful | Moved


def edit_batch(transport: Transport, edits: Sequence[ContactEdit]) -> dict[int, Result]:
    """Edits up to 200 contacts in one request; the result of each by contact id.

    Only for contacts with 0 points: a batch writes the points back that it read. Raises ValueError for what must never
    be sent (the same contact twice, no id, too many), StopError and RetryError when nothing was changed at all.
    """
    ids = [edit.contact_id for edit in edits]
    if len(ids) > MOST_IN_A_BATCH:
        raise ValueError(f"{len(ids)} edits in a batch: Mautic takes {MOST_IN_A_BATCH}.")
    if any(isinstance(number, bool) or not isinstance(number, int) or number <= 0 for number in ids):
        raise ValueError("An edit without a contact id: Mautic would give its values to the next contact.")
    if len(set(ids)) != len(ids):
        raise ValueError("The same contact twice in a batch: Mautic would make a new contact of the second.")
    if not edits:
        return {}
    items = [{"id": edit.contact_id, **as_written(edit.values)} for edit in edits]
    try:
        body = transport.write("PATCH", "contacts/batch/edit", items)
    except DoubtfulError as error:
        return dict.fromkeys(ids, Doubtful(str(error)))
    except RefusedError as refused:
        return dict.fromkeys(ids, Refused(refused.status, refused.reason))
    codes = _by_index(body, "statusCodes")
    contacts = _by_index(body, "contacts")
    errors = _by_index(body, "errors")
    if codes and all(_status(codes.get(index)) == 403 for index in range(len(edits))):
        raise StopError(f"No contact of a batch may be edited: {missing_right('contacts', writing=True)}")
    asked = set(ids)
    return {
        edit.contact_id: _item_result(edit, codes.get(index), contacts.get(index), errors.get(index), asked)
        for index, edit in enumerate(edits)
    }


def edit_one(transport: Transport, edit: ContactEdit) -> Result:
    """Edits one contact by itself: safe for those with points, and follows merges."""
    try:
        body = transport.write("PATCH", f"contacts/{edit.contact_id}/edit", as_written(edit.values))
    except DoubtfulError as error:
        return Doubtful(str(error))
    except RefusedError as refused:
        return refusal_of(transport, edit.contact_id, refused)
    return _echo_result(edit, _part_of(body, "contact"), set())


def set_stage(transport: Transport, stage_id: int, contact_id: int) -> Result:
    """Sets a stage without an edit, for contacts whose every edit is refused, and reads the contact back.

    Writes a line into the contact's stage history even when it has the stage already.
    """
    return _stage(transport, stage_id, contact_id, "add")


def clear_stage(transport: Transport, stage_id: int, contact_id: int) -> Result:
    """Clears the stage without an edit, as `set_stage` sets it; Mautic clears whatever stage the contact is in."""
    return _stage(transport, stage_id, contact_id, "remove")


def _stage(transport: Transport, stage_id: int, contact_id: int, action: str) -> Result:
    try:
        transport.write("POST", f"stages/{stage_id}/contact/{contact_id}/{action}")
    except DoubtfulError as error:
        return Doubtful(str(error))
    except RefusedError as refused:
        return refusal_of(transport, contact_id, refused)
    try:
        contact = get_contact(transport, contact_id)
    except MauticSyncError as error:
        return Doubtful(f"The stage was set, and the contact could not be read back: {error}")
    if contact is None:
        return Gone()
    if contact.stage_id != (stage_id if action == "add" else None):
        return Doubtful("The stage was set, and the contact shows another one.")
    return Settled(contact) if contact.id == contact_id else Moved(contact.id, contact)


def add_dnc(transport: Transport, contact_id: int, channel: str, reason: int, comments: str = "") -> Result:
    """Marks a contact as not to be contacted (reason 1 unsubscribed, 2 bounced, 3 manual).

    Mautic keeps an older reason in some cases: the `dnc` of the settled contact tells which one holds.
    """
    return _dnc(transport, contact_id, channel, "add", {"reason": reason, "comments": comments})


def remove_dnc(transport: Transport, contact_id: int, channel: str) -> Result:
    """Makes a contact contactable again; settled too when it already was."""
    return _dnc(transport, contact_id, channel, "remove", {})


def as_written(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they go out: what empties a field is "", with the switch that makes Mautic obey it.

    Raises ValueError for a number between −1 and 1 other than 0: Mautic would drop it and answer 200.
    """
    written: dict[str, Any] = {}
    for alias, value in values.items():
        if alias in _PARTS:
            written[alias] = list(value) if alias == "tags" else value
        elif _is_empty(value):
            written[alias] = ""
            written["overwriteWithBlank"] = True
        elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1:
            raise ValueError(f"{alias}: Mautic cannot store a number between -1 and 1.")
        else:
            written[alias] = value
    return written


def echo_matches(asked: Mapping[str, Any], contact: Contact) -> list[str]:
    """The names of the values that the contact does not show as asked; none means that all was stored.

    Mautic trims and HTML-cleans text, cuts numbers to the field's scale, and drops the seconds of a custom time.
    """
    return [name for name, value in asked.items() if name != "overwriteWithBlank" and not _shows(name, value, contact)]


def has_tag(contact: Contact, tag: str) -> bool:
    """Whether the contact has the tag, under its name or under what Mautic's cleaning makes of it."""
    return not {tag.strip(), _TAG.sub("", html.unescape(tag)).strip()}.isdisjoint(contact.tags)


def refusal_of(transport: Transport, contact_id: int, refused: RefusedError) -> Refused | Gone | Doubtful:
    """What a refused write to one contact means: a 404 is believed when reading the contact says the same."""
    if refused.status != NOT_FOUND:
        return Refused(refused.status, refused.reason)
    try:
        there = get_contact(transport, contact_id) is not None
    except MalformedError:
        there = True
    except MauticSyncError as error:
        return Doubtful(f"Mautic answered 404, and the contact could not be read: {error}")
    return Doubtful(f"Mautic answered 404 ({refused.reason}), and the contact is there.") if there else Gone()


# -- results --------------------------------------------------------------------------------------------------------


def _item_result(edit: ContactEdit, code: Any, echo: Any, error: Any, asked: set[int]) -> Result:
    """The status code decides; the echo of a failed item may show what was asked for though nothing was stored."""
    status = _status(code)
    if status == 200:
        return _echo_result(edit, echo, asked)
    if status == NOT_FOUND:
        return Gone()
    reason = _reason(error)
    if status is not None and 400 <= status < 500 and not is_database_fault(reason):
        return Refused(status, reason)
    return Doubtful(f"The batch answered {status or 'nothing'} for this contact. {reason}".strip())


def _echo_result(edit: ContactEdit, echo: Any, asked: set[int]) -> Result:
    try:
        contact = parse_contact(echo)
    except MalformedError as error:
        return Doubtful(f"Mautic's answer does not show the contact: {error}")
    if contact.id != edit.contact_id and contact.id in asked:
        return Doubtful("Mautic's answer shows another contact of the same batch.")
    if any(_is_empty(value) for name, value in edit.values.items() if name not in _PARTS):
        contact = _without_phantoms(contact, edit.values)
    differing = echo_matches(edit.values, contact)
    # Of the right contact in the right stage this is Mautic's last word; else it may be the answer to another question.
    if differing and (contact.id != edit.contact_id or "stage" in differing):
        return Doubtful(f"Mautic answered 200 and shows other values: {', '.join(differing)}.")
    return Settled(contact, tuple(differing)) if contact.id == edit.contact_id else Moved(contact.id, contact)


def _without_phantoms(contact: Contact, asked: Mapping[str, Any]) -> Contact:
    """The echo of an edit with `overwriteWithBlank` shows 0 in number fields that are empty, and stay empty."""
    fields = {
        alias: value
        for alias, value in contact.fields.items()
        if alias in asked or isinstance(value, bool | str) or value != 0
    }
    return replace(contact, fields=fields)


def _dnc(transport: Transport, contact_id: int, channel: str, action: str, body: dict[str, Any]) -> Result:
    try:
        answer = transport.write("POST", f"contacts/{contact_id}/dnc/{channel}/{action}", body)
    except DoubtfulError as error:
        return Doubtful(str(error))
    except RefusedError as refused:
        return refusal_of(transport, contact_id, refused)
    try:
        contact = parse_contact(_part_of(answer, "contact"), complete=False)
    except MalformedError as error:
        return Doubtful(f"Mautic's answer does not show the contact: {error}")
    if (channel in contact.dnc) != (action == "add"):
        return Doubtful(f"Mautic answered 200 to dnc/{channel}/{action} and shows the opposite.")
    return Settled(contact) if contact.id == contact_id else Moved(contact.id, contact)


def _part_of(body: Any, key: str) -> Any:
    return body.get(key) if isinstance(body, Mapping) else None


def _by_index(body: Any, key: str) -> dict[int, Any]:
    """Items of a batch answer by their index: a list when the indexes run from 0 without a gap, else an object."""
    items = _part_of(body, key)
    if isinstance(items, list):
        return dict(enumerate(items))
    if isinstance(items, Mapping):
        return {int(index): item for index, item in items.items() if str(index).isdigit()}
    return {}


def _status(code: Any) -> int | None:
    try:
        return int(code)
    except (TypeError, ValueError):
        return None


def _reason(error: Any) -> str:
    message = error.get("message") if isinstance(error, Mapping) else error
    return shorten(redact(str(message)[:5_000])) if message else ""


# -- comparing ------------------------------------------------------------------------------------------------------


def _is_empty(value: Any) -> bool:
    if value is None or value == []:
        return True
    if isinstance(value, bool):
        return False
    return value.strip() in {"", "0"} if isinstance(value, str) else isinstance(value, int | float) and value == 0


def _shows(name: str, value: Any, contact: Contact) -> bool:
    if name == "stage":
        return bool(contact.stage_id == value)
    if name == "owner":
        return bool(contact.owner_id == value)
    if name == "tags":
        return all(has_tag(contact, tag.removeprefix("-")) != tag.startswith("-") for tag in value)
    if name == "points":
        return contact.points == int(value)
    if name == "lastActive":
        return contact.last_active == _epoch(value)
    if name == "doNotContact":
        return all(
            contact.dnc.get(str(entry.get("channel", "email"))) is not None for entry in value if entry.get("reason")
        )
    return _same(value, contact.fields.get(name))


def _same(asked: Any, shown: Any) -> bool:
    if _is_empty(asked):
        return _is_empty(shown)
    if isinstance(asked, bool):
        return bool(shown) is asked if not isinstance(shown, str) else shown == ("1" if asked else "0")
    if isinstance(asked, list | tuple):
        return isinstance(shown, str) and shown.split("|") == [str(item).strip() for item in asked]
    if isinstance(shown, bool):
        return str(asked).strip().lower() in ({"1", "true", "yes"} if shown else {"0", "false", "no"})
    if isinstance(shown, int | float):
        return _same_number(asked, shown)
    if not isinstance(shown, str):
        return False
    text = str(asked)
    if _cleaned(text) == _cleaned(shown):
        return True
    return _same_time(text, shown)


def _same_number(asked: Any, shown: float) -> bool:
    """Equal to as many digits as Mautic kept."""
    try:
        wanted = float(asked)
    except (TypeError, ValueError):
        return False
    digits = len(repr(shown).partition(".")[2]) if isinstance(shown, float) and not shown.is_integer() else 0
    return abs(wanted - shown) < 10.0**-digits


def _same_time(asked: str, shown: str) -> bool:
    if len(shown) == len("2026-11-01"):
        return asked.strip()[:10] == shown
    wanted, stored = _epoch(asked), _epoch(shown)
    if wanted is None or stored is None:
        return False
    return wanted == stored or (stored % 60 == 0 and stored == wanted - wanted % 60)


def _epoch(value: Any) -> int | None:
    try:
        return parse_time(value)
    except (ValueError, OverflowError):
        return None


_TAG = re.compile(r"<[^>]*(?:>|$)")


def _cleaned(text: str) -> str:
    """Text as Mautic's cleaning would leave it, entities read back and white space made equal."""
    return " ".join(_TAG.sub("", html.unescape(text)).split())
