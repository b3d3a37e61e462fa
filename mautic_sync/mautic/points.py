"""Grants points in Mautic, and finds out from its log what of a grant has arrived.

Mautic applies a call as often as it is made, and also when nobody waits for the answer any more. So each grant carries
a key of its own at the end of its name. docs/mautic.md: "Writing".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mautic_sync.errors import DoubtfulError, MalformedError, RefusedError
from mautic_sync.mautic.contacts import Where, list_of, read_if_there
from mautic_sync.mautic.feeds import Row, feed_pages, readable_id
from mautic_sync.mautic.transport import Transport
from mautic_sync.mautic.writes import Doubtful, Gone, Refused, refusal_of

LOG = "lead_points_change_log"
PREFIX = "mautic-sync:"
GROUP_NAME = "mautic-sync group score"
"""What the history says of a sub-score: no grant, and not taken for one, for it has neither the colon nor a key."""
LONGEST_NAME = 120
"""Characters of an event name, of the 191 that Mautic takes: escaping makes some of them longer."""
BAD_REQUEST = 400
NUMBERS_AT_ONCE = 200
ROWS_AT_ONCE = 2_000
_KEY = re.compile(r"[0-9a-f]{16}")
_ESCAPED = frozenset("\"'<>&")


@dataclass(frozen=True, slots=True)
class Granted:
    """Mautic has received `delta` points."""

    delta: int


@dataclass(frozen=True, slots=True)
class GroupsSet:
    """Mautic shows these scores in point groups, by the group's id."""

    scores: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Arrival:
    """What the log shows of one key: the sum of its rows, and how many there are."""

    delta: int
    rows: int


def event_name(reasons: str, key: str) -> str:
    """What marketers read in the contact's history, with the key at its end; at most `LONGEST_NAME` characters."""
    told = "".join(sign if sign.isprintable() and sign not in _ESCAPED else " " for sign in reasons)
    told = " ".join(told.split())
    room = LONGEST_NAME - len(f"{PREFIX}  {key}")
    if len(told) > room:
        told = f"{told[: room - 1].rstrip()}…"
    return " ".join(filter(None, (PREFIX, told, key)))


def add_points(
    transport: Transport, contact_id: int, delta: int, *, name: str, action: str
) -> Granted | Refused | Gone | Doubtful:
    """Adds points, or takes them away where `delta` is negative; a merged contact's reach the survivor.

    Raises StopError and RetryError when nothing was changed at all.
    """
    # `minus/3` would be logged as +3.
    path = f"contacts/{contact_id}/points/plus/{delta}"
    try:
        answer = transport.write("POST", path, {"eventName": name, "actionName": action})
    except DoubtfulError as error:
        return Doubtful(str(error))
    except RefusedError as refused:
        if refused.status == BAD_REQUEST:
            # Mautic makes one of whatever fails, also behind the grant. docs/mautic.md: "Writing"
            return Doubtful(f"Mautic answered 400 to a grant of points: {refused.reason or 'without a reason'}.")
        return refusal_of(transport, contact_id, refused)
    if not isinstance(answer, dict) or str(answer.get("success")) not in {"1", "True"}:
        return Doubtful("Mautic answered 200 to a grant of points and does not say that it was made.")
    return Granted(delta)


def set_group_points(
    transport: Transport, contact_id: int, scores: Mapping[int, int]
) -> GroupsSet | Refused | Gone | Doubtful:
    """Sets a contact's scores in point groups (id → score), one call each; a merged contact's reach the survivor.

    Absolute values: to send them again changes nothing. Where one fails, those before it are set. Raises StopError and
    RetryError when the failed call changed nothing.
    """
    for group_id, score in scores.items():
        try:
            path = f"contacts/{contact_id}/points/groups/{group_id}/set/{score}"
            answer = transport.write("POST", path, {"eventName": GROUP_NAME, "actionName": f"score {score}"})
        except DoubtfulError as error:
            return Doubtful(str(error))
        except RefusedError as refused:
            return refusal_of(transport, contact_id, refused)
        shown = answer.get("groupScore") if isinstance(answer, dict) else None
        if not isinstance(shown, dict) or str(shown.get("score")) != str(score):
            return Doubtful("Mautic answered 200 to the score of a point group and does not show it.")
    return GroupsSet(dict(scores))


def group_points(transport: Transport, contact_id: int) -> dict[int, int] | None:
    """The id of each point group in which a contact has a score → the score; None: there is no such contact.

    Raises MalformedError for an answer that cannot be read.
    """
    answer = read_if_there(transport, f"contacts/{contact_id}/points/groups")
    if answer is None:
        return None
    try:
        return {int(one["group"]["id"]): int(one["score"]) for one in list_of(answer, "groupScores")}
    except (KeyError, TypeError, ValueError):
        raise MalformedError("Mautic's list of a contact's point groups cannot be read.") from None


def arrived(
    transport: Transport, contact_ids: Collection[int], keys: Collection[str], *, above: int
) -> dict[str, Arrival]:
    """Key → what Mautic's log shows of it under these contact ids, in rows above the id `above`; others are absent.

    Raises MalformedError for a row of ours that cannot be read.
    """
    found: dict[str, Arrival] = {}
    numbers = sorted(set(contact_ids))
    for start in range(0, len(numbers), NUMBERS_AT_ONCE):
        part = numbers[start : start + NUMBERS_AT_ONCE]
        where: Sequence[Where] = [("lead_id", "in", ",".join(map(str, part)))]
        for rows in feed_pages(transport, LOG, above, where=where, concurrency=1):
            for row in rows:
                # A name is stored HTML-escaped; a key has no character that escaping changes.
                key = row.get("event_name", "").rpartition(" ")[2]
                if key in keys:
                    before = found.get(key, Arrival(0, 0))
                    found[key] = Arrival(before.delta + _delta(row), before.rows + 1)
    return found


@dataclass(frozen=True, slots=True)
class Grant:
    """One row of ours in Mautic's log."""

    contact_id: int
    key: str
    delta: int


def our_grants(transport: Transport, *, above: int = 0) -> Iterator[list[Grant]]:
    """What Mautic's log shows of us in rows above the id `above`, page by page in the order of its rows."""
    where: Sequence[Where] = [("event_name", "like", f"{PREFIX}%")]
    for rows in feed_pages(transport, LOG, above, where=where, limit=ROWS_AT_ONCE, concurrency=1):
        yield _grants(rows)


def grants_of(transport: Transport, contact_ids: Collection[int]) -> Iterator[Grant]:
    """All that Mautic's log shows of us under these contact ids."""
    numbers = sorted(set(contact_ids))
    for start in range(0, len(numbers), NUMBERS_AT_ONCE):
        part = ",".join(map(str, numbers[start : start + NUMBERS_AT_ONCE]))
        where: Sequence[Where] = [("lead_id", "in", part), ("event_name", "like", f"{PREFIX}%")]
        for rows in feed_pages(transport, LOG, 0, where=where, limit=ROWS_AT_ONCE, concurrency=1):
            yield from _grants(rows)


def _grants(rows: Sequence[Row]) -> list[Grant]:
    found = []
    for row in rows:
        key = row.get("event_name", "").rpartition(" ")[2]
        number = readable_id(row, "lead_id")
        if number and _KEY.fullmatch(key):
            found.append(Grant(number, key, _delta(row)))
    return found


def _delta(row: Row) -> int:
    try:
        return int(row["delta"])
    except (KeyError, ValueError):
        raise MalformedError(f"A row of ours in Mautic's {LOG} has no `delta` that can be read.") from None
