"""Reads contacts: by id, always in id order, never by offset; and makes one `Contact` of every shape Mautic shows.

A row that cannot be understood does not spoil its page: it is handed over beside the others as `Malformed`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Self

import orjson

from mautic_sync.domain.contact import Contact, FieldValue
from mautic_sync.errors import MalformedError, MauticSyncError, RefusedError, StopError, UnreadableError
from mautic_sync.mautic.decoding import unescaped
from mautic_sync.mautic.redaction import redact
from mautic_sync.mautic.times import iso_time, parse_time
from mautic_sync.mautic.transport import Transport
from mautic_sync.mautic.windows import in_windows

# What `select[]` returns; everything else it leaves out as if empty. docs/mautic.md: "Shapes that surprise"
SELECTABLE = (
    "title",
    "firstname",
    "lastname",
    "company",
    "position",
    "email",
    "phone",
    "mobile",
    "address1",
    "address2",
    "city",
    "state",
    "zipcode",
    "timezone",
    "country",
    "points",
)
# Parts of the contact with a place of their own in `Contact`.
NOT_FIELDS = frozenset({"id", "points", "last_active"})
LONGEST_TEXT = 65_536  # characters of a value that are kept: no column of Mautic holds more
LONGEST_EXCERPT = 2_000  # characters of a malformed row that are kept
MOST_CUSTOM = 0.4  # share of contacts with custom values above which the plain list is cheaper than two tiers
PLAIN_ROWS = 150  # read ahead at once of those with custom values: each is 15 kB, and ten times as much when decoded
LARGEST_ID = 2**63 - 1
NOT_FOUND = 404
_TEXT_TYPES = dict.fromkeys(SELECTABLE, "text")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
Where = tuple[str, str, Any]


@dataclass(frozen=True, slots=True)
class Malformed:
    """A row that could not be understood: `id` where that much could be read, and the row itself, cut and masked."""

    id: int | None
    reason: str
    raw_excerpt: str


@dataclass(frozen=True, slots=True)
class Page:
    """Contacts in id order. Everybody up to and including `last_id` has been seen."""

    contacts: list[Contact]
    malformed: list[Malformed]
    last_id: int
    rows: int = field(default=0)
    """How many rows came back, malformed ones included."""
    upto: int | None = None
    """Where the reading ends that this is a page of, where that is known."""


# -- reading --------------------------------------------------------------------------------------------------------


def contacts_after(transport: Transport, after: int, limit: int) -> Page:
    """The next `limit` contacts above the id `after`, with all their fields."""
    return _page(_plain(transport, [("id", "gt", after)], limit), after)


def sweep(
    transport: Transport,
    after: int,
    upto: int | None,
    page_size: int,
    concurrency: int,
    custom_fields: Collection[str],
    meanwhile: Callable[[], bool] | None = None,
) -> Iterator[Page]:
    """Everybody with `after < id <= upto` (None: the highest id of now), page by page in id order.

    Reads the ten times cheaper list of selected columns, and the plain rows of those only who have a value in one of
    `custom_fields`; each contact then has its built-in fields and these. Where that would not pay, the plain list. At
    most `concurrency` requests are in flight and as many pages in memory; `meanwhile` as for `in_windows`.
    docs/mautic.md: "Speed".
    """
    highest, total = max_id_and_total(transport)
    end = highest if upto is None else min(upto, highest)
    if end <= after:
        return
    custom = sorted(set(custom_fields) - set(SELECTABLE) - NOT_FIELDS)
    density = total / max(highest, 1)
    plain = density * (end - after) < 2 * page_size
    if not plain and custom:
        plain = _count_with(transport, custom, after, end) > MOST_CUSTOM * density * (end - after)

    if plain:
        yield from _sweep_plain(transport, after, end, page_size, concurrency, density, meanwhile)
        return

    def fetch(low: int, high: int) -> list[Any]:
        ids = range(low + 1, high + 1)
        return _isolate(lambda some: _selected(transport, _window(some), page_size), ids, page_size)

    done = after
    with _PlainRows(transport, custom, after, end, min(page_size, PLAIN_ROWS)) as full_rows:
        pages = in_windows(fetch, after, end, page_size, concurrency, density, _row_id, meanwhile=meanwhile)
        for low, high, rows in pages:
            page = _page(rows, low, complete=bool(custom))
            if custom:
                try:
                    page = _merged(page, full_rows.upto(high))
                except (UnreadableError, RefusedError) as error:
                    if not _may_be_one_contact(error):
                        raise
                    break  # somebody among those with custom values: the windows of the plain list find whom
            yield replace(page, last_id=high, upto=end)
            done = high
    if done < end:
        yield from _sweep_plain(transport, done, end, page_size, concurrency, density, meanwhile)


def _sweep_plain(
    transport: Transport,
    after: int,
    end: int,
    page_size: int,
    concurrency: int,
    density: float,
    meanwhile: Callable[[], bool] | None,
) -> Iterator[Page]:
    def fetch(low: int, high: int) -> list[Any]:
        ids = range(low + 1, high + 1)
        return _isolate(lambda some: _plain(transport, _window(some), page_size), ids, page_size)

    pages = in_windows(fetch, after, end, page_size, concurrency, density, _row_id, meanwhile=meanwhile)
    for low, high, rows in pages:
        yield replace(_page(rows, low), last_id=high, upto=end)


def _window(ids: Sequence[int]) -> list[Where]:
    """Everybody from the first to the last of these ids."""
    return [("id", "gt", ids[0] - 1), ("id", "lte", ids[-1])]


def _listed(ids: Sequence[int]) -> list[Where]:
    return [("id", "in", ",".join(map(str, ids)))]


def _isolate(fetch: Callable[[Sequence[int]], list[Any]], ids: Sequence[int], limit: int) -> list[Any]:
    """The rows of these ids; one contact that makes Mautic fail is found by halving and stands as `Malformed` there.

    Where both halves fail it is not one contact, and the error goes on: two calls are wasted at most. At most `limit`
    rows, the lowest ids first.
    """
    try:
        return fetch(ids)
    except (UnreadableError, RefusedError) as error:
        if not _may_be_one_contact(error):
            raise
        return _halved(fetch, ids, limit, error)


def _halved(
    fetch: Callable[[Sequence[int]], list[Any]], ids: Sequence[int], limit: int, error: MauticSyncError
) -> list[Any]:
    if len(ids) == 1:
        return [Malformed(ids[0], f"Mautic fails on this contact. {error}", "")]
    middle = len(ids) // 2
    found: list[list[Any] | MauticSyncError] = []
    for half in (ids[:middle], ids[middle:]):
        try:
            found.append(fetch(half))
        except (UnreadableError, RefusedError) as failed:
            if not _may_be_one_contact(failed):
                raise
            found.append(failed)
    left, right = found
    if isinstance(left, MauticSyncError) and isinstance(right, MauticSyncError):
        raise left
    rows = _halved(fetch, ids[:middle], limit, left) if isinstance(left, MauticSyncError) else left
    if len(rows) >= limit:
        return rows  # a full page: what lies between its end and the middle is asked for next
    return rows + (_halved(fetch, ids[middle:], limit, right) if isinstance(right, MauticSyncError) else right)


def _may_be_one_contact(error: MauticSyncError) -> bool:
    return isinstance(error, UnreadableError) or (isinstance(error, RefusedError) and error.status >= 500)


def contacts_by_id(transport: Transport, ids: Iterable[int], chunk: int = 200) -> Page:
    """The contacts of these ids, with all their fields; deleted and merged ones are simply absent."""
    wanted = sorted(set(ids))
    contacts: list[Contact] = []
    malformed: list[Malformed] = []
    for start in range(0, len(wanted), chunk):
        part = wanted[start : start + chunk]
        rows = _isolate(lambda some: _plain(transport, _listed(some), len(some)), part, len(part) + 1)
        page = _page(rows, 0)
        contacts += page.contacts
        malformed += page.malformed
    return Page(contacts, malformed, wanted[-1] if wanted else 0, len(contacts) + len(malformed))


def get_contact(transport: Transport, contact_id: int) -> Contact | None:
    """One contact; None when there is none. A merged one answers with the survivor: then the id differs."""
    body = read_if_there(transport, f"contacts/{contact_id}")
    if body is None:
        return None
    return parse_contact(body.get("contact") if isinstance(body, Mapping) else None)


def read_if_there(transport: Transport, path: str) -> Any:
    """What `GET /api/<path>` answers; None when Mautic says twice that there is no such thing.

    Once it says so, too, of what is there, when its connection to the database breaks. docs/mautic.md: "Shapes that surprise"
    """
    for _ in range(2):
        try:
            return transport.read(path)
        except RefusedError as refused:
            if refused.status != NOT_FOUND:
                raise
    return None


def max_id_and_total(transport: Transport) -> tuple[int, int]:
    """The highest contact id and the number of contacts; (0, 0) for an empty Mautic."""
    body = transport.read(
        "contacts",
        [
            *_selection(["id"]),
            *where_params([("id", "gt", 0)]),
            ("orderBy", "id"),
            ("orderByDir", "desc"),
            ("limit", 1),
        ],
    )
    rows = list_of(body, "contacts")
    total = int(body.get("total") or 0) if isinstance(body, Mapping) else 0
    return (max((_row_id(row) for row in rows), default=0), total)


def where_params(where: Sequence[Where], start: int = 0) -> list[tuple[str, Any]]:
    """Conditions that all must hold, as `where[n][col|expr|val]`."""
    params: list[tuple[str, Any]] = []
    for number, (column, expression, value) in enumerate(where, start):
        params += [(f"where[{number}][col]", column), (f"where[{number}][expr]", expression)]
        if value is not None:
            params.append((f"where[{number}][val]", value))
    return params


def list_of(body: Any, key: str) -> list[Any]:
    """The rows of a list answer, whether Mautic sent them as a list or keyed by id; StopError for anything else."""
    rows = body.get(key) if isinstance(body, Mapping) else None
    if isinstance(rows, Mapping):
        return list(rows.values())
    if isinstance(rows, list):
        return rows
    raise StopError(
        f"Mautic answered without the list `{key}`: is mautic.base_url a Mautic, and nothing in between changes its answers?"
    )


def _plain(
    transport: Transport, where: Sequence[Where], limit: int, extra: Iterable[tuple[str, Any]] = ()
) -> list[Any]:
    params = [*where_params(where), *extra, ("orderBy", "id"), ("orderByDir", "asc"), ("limit", limit)]
    return list_of(transport.read("contacts", params), "contacts")


def _selected(transport: Transport, where: Sequence[Where], limit: int) -> list[Any]:
    return _plain(transport, where, limit, [("select[]", column) for column in ("id", *SELECTABLE)])


def _selection(columns: Sequence[str]) -> list[tuple[str, Any]]:
    return [("minimal", 1), *(("select[]", column) for column in columns)]


def _any_set(custom: Sequence[str], number: int) -> list[tuple[str, Any]]:
    """`where[number]`: one of the columns has a value."""
    params: list[tuple[str, Any]] = [(f"where[{number}][expr]", "orX")]
    for index, alias in enumerate(custom):
        params += [
            (f"where[{number}][val][{index}][col]", alias),
            (f"where[{number}][val][{index}][expr]", "isNotNull"),
        ]
    return params


def _count_with(transport: Transport, custom: Sequence[str], after: int, upto: int) -> int:
    body = transport.read(
        "contacts",
        [
            *_selection(["id"]),
            *where_params([("id", "gt", after), ("id", "lte", upto)]),
            *_any_set(custom, 2),
            ("orderBy", "id"),
            ("orderByDir", "asc"),
            ("limit", 1),
        ],
    )
    return int(body.get("total") or 0) if isinstance(body, Mapping) else 0


def _page(rows: list[Any], after: int, *, complete: bool = True) -> Page:
    contacts: list[Contact] = []
    malformed: list[Malformed] = []
    last = after
    for row in rows:
        row_id = _row_id(row)
        last = max(last, row_id)
        if isinstance(row, Malformed):
            malformed.append(row)
            continue
        try:
            contacts.append(parse_contact(row, complete=complete))
        except MalformedError as error:
            malformed.append(Malformed(row_id or None, str(error), excerpt(row)))
    contacts.sort(key=lambda contact: contact.id)
    return Page(contacts, malformed, last, len(rows))


def _merged(page: Page, full: Mapping[int, Contact | Malformed]) -> Page:
    contacts: list[Contact] = []
    malformed = list(page.malformed)
    for contact in page.contacts:
        better = full.get(contact.id, contact)
        if isinstance(better, Malformed):
            malformed.append(better)
        else:
            contacts.append(better)
    return Page(contacts, malformed, page.last_id, page.rows)


class _PlainRows:
    """The plain rows of everybody with a custom value, read ahead in id order by one request at a time."""

    def __init__(self, transport: Transport, custom: Sequence[str], after: int, end: int, limit: int) -> None:
        self._transport = transport
        self._custom = custom
        self._end = end
        self._limit = limit
        self._covered = after
        self._rows: dict[int, Contact | Malformed] = {}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="custom-values")
        self._next: Future[Page] | None = None
        if custom:
            self._next = self._pool.submit(self._fetch, after)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def upto(self, high: int) -> dict[int, Contact | Malformed]:
        """The rows with ids up to `high`; they are forgotten here."""
        while self._covered < high and self._next is not None:
            page = self._next.result()
            self._rows.update({contact.id: contact for contact in page.contacts})
            self._rows.update({broken.id: broken for broken in page.malformed if broken.id is not None})
            if page.rows < self._limit or page.last_id <= self._covered:
                self._covered, self._next = self._end, None
            else:
                self._covered = page.last_id
                self._next = self._pool.submit(self._fetch, page.last_id)
        taken = {number: row for number, row in self._rows.items() if number <= high}
        for number in taken:
            del self._rows[number]
        return taken

    def _fetch(self, after: int) -> Page:
        """A page that waits is kept as what we read of it: the rows themselves are twenty times as large."""
        where: list[Where] = [("id", "gt", after), ("id", "lte", self._end)]
        return _page(_plain(self._transport, where, self._limit, _any_set(self._custom, 2)), after)


# -- understanding --------------------------------------------------------------------------------------------------


def parse_contact(raw: Any, *, complete: bool = True) -> Contact:
    """One `Contact` of a row from a list, a single answer or an echo. Raises MalformedError naming the key.

    Field values follow the field's type where the row tells it; a list with `select[]` does not, and there its
    built-in fields are text. `points` and `last_active` are in `Contact` itself, not in `fields`.
    """
    if not isinstance(raw, Mapping):
        raise MalformedError("The contact is no object.")
    groups = raw.get("fields")
    values, types = _field_values(groups if isinstance(groups, Mapping) else {})
    if not values:
        values = {alias: raw[alias] for alias in SELECTABLE if alias in raw}
    contact_id = _whole(raw.get("id", values.get("id")), "id")
    if contact_id is None or not 0 < contact_id <= LARGEST_ID:
        raise MalformedError("`id` is no id.")
    fields: dict[str, FieldValue] = {}
    for alias, value in values.items():
        if value is None or value == "" or alias in NOT_FIELDS:
            continue
        regular = _field_value(alias, value, types.get(alias))
        if regular is not None and regular != "":
            fields[alias] = regular
    points = raw.get("points")
    return Contact(
        id=contact_id,
        fields=fields,
        tags=_tags(raw.get("tags")),
        points=_whole(values.get("points") if points is None else points, "points") or 0,
        stage_id=_reference(raw.get("stage"), "stage"),
        owner_id=_reference(raw.get("owner"), "owner"),
        dnc=_do_not_contact(raw.get("doNotContact")),
        date_added=_time(raw.get("dateAdded"), "dateAdded"),
        date_modified=_time(raw.get("dateModified"), "dateModified"),
        date_identified=_time(raw.get("dateIdentified"), "dateIdentified"),
        last_active=_time(raw.get("lastActive") or values.get("last_active"), "lastActive"),
        complete=complete,
    )


def excerpt(raw: Any) -> str:
    """A malformed row as JSON text, cut and with its addresses masked."""
    try:
        text = orjson.dumps(raw, default=str, option=orjson.OPT_NON_STR_KEYS).decode("utf-8", "replace")
    except TypeError:
        text = repr(raw)
    return redact(text[: LONGEST_EXCERPT * 2])[:LONGEST_EXCERPT]


def _row_id(row: Any) -> int:
    """The id of a row however broken the rest of it is; 0 where there is none."""
    if isinstance(row, Malformed):
        return row.id or 0
    try:
        number = _whole(row.get("id"), "id") if isinstance(row, Mapping) else None
    except MalformedError:
        return 0
    return number if number is not None and 0 < number <= LARGEST_ID else 0


def _field_values(groups: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and types by alias, from `fields.all` and the groups beside it; either may be missing or empty."""
    everything = groups.get("all")
    values: dict[str, Any] = {}
    types: dict[str, str] = {}
    for name, group in groups.items():
        if name == "all":
            continue
        members = group.values() if isinstance(group, Mapping) else group if isinstance(group, list) else ()
        for member in members:
            if not isinstance(member, Mapping):
                continue
            alias = member.get("alias")
            if isinstance(alias, str):
                values[alias] = member.get("value")
                kind = member.get("type")
                if isinstance(kind, str):
                    types[alias] = kind
    if isinstance(everything, Mapping):
        values = {**values, **everything}
    if not types:
        types = _TEXT_TYPES
    return values, types


def _field_value(alias: str, value: Any, kind: str | None) -> FieldValue:
    if kind == "number":
        return _number(alias, value)
    if kind == "boolean":
        return _boolean(alias, value)
    if kind == "datetime":
        epoch = _time(value, alias)
        return None if epoch is None else iso_time(epoch)
    if kind == "date":
        return _day(alias, value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return _text("|".join(str(item) for item in value))
    if isinstance(value, bool | int | float):
        if kind is None:
            return value
        return str(value) if isinstance(value, float) and not value.is_integer() else str(int(value))
    raise MalformedError(f"`fields.{alias}` is neither text nor a number.")


def _text(value: str) -> str:
    return value[:LONGEST_TEXT].replace("\x00", "").strip()


def _number(alias: str, value: Any) -> int | float | None:
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        try:
            value = int(text) if text.lstrip("+-").isdigit() else float(text)
        except ValueError:
            raise MalformedError(f"`fields.{alias}` is no number.") from None
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        if value != value or abs(value) == float("inf"):  # noqa: PLR0124 - NaN
            raise MalformedError(f"`fields.{alias}` is no finite number.")
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, int):
        return value if abs(value) <= LARGEST_ID else float(value)
    raise MalformedError(f"`fields.{alias}` is no number.")


def _boolean(alias: str, value: Any) -> bool | None:
    if isinstance(value, bool | int | float):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
        if not word:
            return None
    raise MalformedError(f"`fields.{alias}` is neither yes nor no.")


def _day(alias: str, value: Any) -> str | None:
    if isinstance(value, str):
        text = value.strip()[:10]
        if not text or text == "0000-00-00":
            return None
        try:
            return date.fromisoformat(text).isoformat()
        except ValueError:
            pass
    raise MalformedError(f"`fields.{alias}` is no date.")


def _time(value: Any, key: str) -> int | None:
    try:
        return parse_time(value)
    except (ValueError, OverflowError):
        raise MalformedError(f"`{key}` is no time.") from None


def _whole(value: Any, key: str) -> int | None:
    """A whole number that may come as text or with a fraction of zero; None for null and blank."""
    if value is None or value == "":
        return None
    try:
        number = int(value.strip()) if isinstance(value, str) else value
    except ValueError:
        try:
            number = float(value)
        except ValueError:
            raise MalformedError(f"`{key}` is no number.") from None
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise MalformedError(f"`{key}` is no number.")
    if isinstance(number, float) and (number != number or abs(number) > LARGEST_ID):  # noqa: PLR0124 - NaN
        raise MalformedError(f"`{key}` is out of range.")
    if abs(number) > LARGEST_ID:
        raise MalformedError(f"`{key}` is out of range.")
    return int(number)


def _reference(value: Any, key: str) -> int | None:
    """The id of a stage or an owner: an object with an id, the id itself, or nothing in one of four shapes."""
    if isinstance(value, Mapping):
        value = value.get("id")
    if value is None or value == [] or value is False:
        return None
    number = _whole(value, key)
    return number or None


def _tags(value: Any) -> frozenset[str]:
    """The true names, however this Mautic stores them. docs/mautic.md: "Writing"."""
    if not value:
        return frozenset()
    entries: Iterable[Any]
    if isinstance(value, Mapping):
        entries = value.values()
    elif isinstance(value, list):
        entries = value
    elif isinstance(value, str):
        entries = value.split(",")
    else:
        raise MalformedError("`tags` is no list.")
    tags: set[str] = set()
    for entry in entries:
        name = entry.get("tag") if isinstance(entry, Mapping) else entry
        if isinstance(name, bool | float) or not isinstance(name, str | int | None):
            raise MalformedError("`tags` contains something that is no tag.")
        text = _text(unescaped(str(name))) if name is not None else ""
        if text:
            tags.add(text)
    return frozenset(tags)


def _do_not_contact(value: Any) -> dict[str, int]:
    if not value:
        return {}
    if isinstance(value, Mapping):
        entries = list(value.items())
    elif isinstance(value, list):
        entries = [(None, entry) for entry in value]
    else:
        raise MalformedError("`doNotContact` is no list.")
    found: dict[str, int] = {}
    for key, entry in entries:
        if not isinstance(entry, Mapping):
            raise MalformedError("`doNotContact` contains something that is no entry.")
        channel = entry.get("channel", key)
        if not isinstance(channel, str) or not channel:
            raise MalformedError("`doNotContact.channel` is missing.")
        reason = _whole(entry.get("reason"), "doNotContact.reason")
        if reason:
            found[channel] = reason
    return found
