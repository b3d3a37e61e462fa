"""Mautic → store: what is new, what changed, what is gone, and what everybody did.

New contacts are read by id, changes from the audit log, activity from the statistics feeds, each from its own
cursor. A page and its cursor are one transaction, so that a run that is killed goes on where it was.
docs/mautic.md: "Reading what changed".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection

from mautic_sync.domain.contact import Catalogue, Contact
from mautic_sync.domain.countries import fold
from mautic_sync.errors import ConfigError, MalformedError, SafetyStop
from mautic_sync.mautic import contacts as mautic_contacts
from mautic_sync.mautic.feeds import (
    ABOUT_CONTACTS,
    DATE_COLUMNS,
    AuditChange,
    FeedActivity,
    Row,
    feed_after,
    feed_first_id_since,
    feed_max_id,
    feed_pages,
    normalise,
    parse_audit,
    parse_time,
    rows_by_id,
    rows_by_member,
    rows_new_or_since,
    rows_since,
)
from mautic_sync.mautic.provisioning import list_stages, read_catalogue
from mautic_sync.mautic.times import format_time
from mautic_sync.pipeline.context import Run
from mautic_sync.store import notes, people, runs
from mautic_sync.store.activities import (
    add_activities,
    adopt_waiting,
    known_sources,
    rebuild_evidence,
    replace_members,
    set_aside,
    stores_any_of,
    who_did,
)
from mautic_sync.store.runs import Cursor

FEED_PAGE_ROWS = 5_000  # a page of hits is 5 MB, and takes ten times as much while it is decoded
AUDIT_PAGE_ROWS = 2_000
# Rows may become visible slightly out of id order: the last minutes are read again.
OVERLAP_SECONDS = 300
# `is_failed` of a sent mail has neither a time nor a new id: a full pass reads the recent ones again.
EMAIL_AGAIN_SECONDS = 14 * 86400
# A change of the contact's addresses on the net decides nothing and is the commonest row of a busy site.
QUIET_ACTIONS = frozenset({"ipadded"})
# Rows of these tables disappear when a contact is deleted or a do-not-contact is taken back: a highest id below our
# cursor is no sign of a restored backup there.
SHRINKING_FEEDS = frozenset({"lead_donotcontact", "lead_event_log", "campaign_lead_event_log", "email_stats"})

# What somebody did on the site, and Mautic therefore calls their last activity.
VISITS = frozenset({"page.hit", "email.click", "form.submitted", "asset.download", "video.hit"})

FEED_OF_TYPE = {
    "page.hit": "page_hits",
    "email.click": "page_hits",
    "email.sent": "email_stats",
    "email.read": "email_stats",
    "email.bounced": "lead_donotcontact",
    "email.replied": "email_stat_replies",
    "form.submitted": "form_submissions",
    "asset.download": "asset_downloads",
    "video.hit": "video_hits",
    "dnc.unsubscribed": "lead_donotcontact",
    "dnc.bounced": "lead_donotcontact",
    "dnc.manual": "lead_donotcontact",
    "segment.added": "lead_event_log",
    "segment.removed": "lead_event_log",
    "campaign.added": "lead_event_log",
    "campaign.removed": "lead_event_log",
    "campaign.event": "campaign_lead_event_log",
}

SENT = "email_stats"
BOUNCED = "email.bounced"
INSTANCE = "mautic"
CATALOGUE = "catalogue"
STAGES = "stages"
READ_FIELDS = "fields_read"
RULES = "rules"
"""Fingerprint of the rules for which the catalogue was read."""
DECIDED_BY = "decided_by"
"""Fingerprint of the bound rules, and the state of the gate, by which everybody was decided."""
FULL_READING = "full_reading"
CONTACTS = "contacts"


def meet_instance(run: Run, *, adopt: bool) -> None:
    """One store belongs to one Mautic: another one is refused unless `adopt` insists."""
    with run.engine.begin() as connection:
        known = notes.get(connection, INSTANCE)
        if known is not None and known != run.mautic.base_url and not adopt:
            msg = (
                f"this store belongs to the Mautic at {known}, not to {run.mautic.base_url}. Give each Mautic a "
                "store.url of its own, or say --adopt if the same Mautic has moved."
            )
            raise ConfigError(msg)
        notes.put(connection, INSTANCE, run.mautic.base_url)


def read_instance(run: Run, *, fresh: bool) -> None:
    """Stages of this Mautic, and the catalogue of what the mappings name; binds the mappings to it.

    The catalogue is kept in the store and read again by a full pass, when the mappings changed, or when `fresh`.
    """
    stages = list_stages(run.mautic)
    run.stage_names = {stage.id: stage.name for stage in stages}
    run.stage_ids = {stage.name: stage.id for stage in reversed(stages) if stage.published}
    run.unpublished_stages = frozenset(stage.id for stage in stages if not stage.published)
    with run.engine.begin() as connection:
        notes.put_json(connection, STAGES, run.stage_names)
        stored = notes.get_json(connection, CATALOGUE)
        changed = notes.get(connection, RULES) != run.mappings.fingerprint
    # A field that `init` made meanwhile is not in a catalogue that was kept.
    lacking = stored is not None and any(alias not in stored["fields"] for alias in run.mappings.fields.write)
    if stored is None or fresh or changed or lacking:
        run.catalogue = read_catalogue(
            run.mautic,
            run.mappings.catalogues_needed,
            written_fields=run.mappings.fields.write,
            written_tags=run.mappings.written_tags,
        )
        bound = run.mappings.bind(run.catalogue)
        with run.engine.begin() as connection:
            notes.put_json(connection, CATALOGUE, asdict(run.catalogue))
            notes.put(connection, RULES, run.mappings.fingerprint)
    else:
        run.catalogue = catalogue_from_json(stored)
        bound = run.mappings.bind(run.catalogue)
    run.mappings = bound


def prepare_store(run: Run) -> bool:
    """Make the store fit the mappings: evidence, and who is to be decided again. True when contacts must be read again.

    That is so when the mappings read a field that was not kept before.
    """
    with run.engine.begin() as connection:
        rebuilt = rebuild_evidence(connection, run.mappings.matchers, run.catalogue)
        # A key for ZeroBounce, or a field to write into, that comes or goes changes plans like a rule does.
        gate = "open" if run.zerobounce is None else "gated"
        decided_by = " ".join(
            [run.mappings.fingerprint, gate, *sorted(run.reading.fields & run.catalogue.fields.keys())]
        )
        if rebuilt or notes.get(connection, DECIDED_BY) != decided_by:
            people.mark_everyone_dirty(connection)
            notes.put(connection, DECIDED_BY, decided_by)
        kept = set(notes.get_json(connection, READ_FIELDS) or ())
        wanted = run.reading.fields
        if runs.get_cursor(connection, CONTACTS) is None:
            notes.put_json(connection, READ_FIELDS, sorted(wanted))
            return False
        return not wanted <= kept


class SetBack(Exception):
    """All cursors were dropped because Mautic was set back: everything is read again."""


def pull(run: Run, *, full: bool) -> None:
    """Everything that is new since the last run; `full`: everybody again, and what vanished silently."""
    try:
        _pull_once(run, full=full)
    except SetBack:
        _pull_once(run, full=full)


def _pull_once(run: Run, *, full: bool) -> None:
    with run.engine.begin() as connection:
        audit = runs.get_cursor(connection, "audit_log")
        unfinished = notes.get_json(connection, FULL_READING)
    if audit is None:
        # From before the first page on, so that an edit during the pull is seen by the next run.
        newest = feed_max_id(run.mautic, "audit_log")
        with run.engine.begin() as connection:
            runs.put_cursor(connection, "audit_log", Cursor(newest, max(newest - 1, 0)))
    else:
        _pull_audit(run, audit, forced=full)
    if (full and audit is not None) or unfinished:
        _pull_everybody(run, unfinished)
    _pull_new(run)
    types = run.mappings.activity_types | (VISITS if run.mappings.reads_idle else frozenset())
    for feed in sorted({FEED_OF_TYPE[name] for name in types if name in FEED_OF_TYPE}):
        _pull_feed(run, feed, full=full)
    _pull_members(run)


def pull_changes(run: Run) -> None:
    """What the audit log says happened since `pull`: for a run that took its time in between."""
    with run.engine.begin() as connection:
        cursor = runs.get_cursor(connection, "audit_log")
    if cursor is not None:
        _pull_audit(run, cursor, forced=False)


def pull_contact(run: Run, mautic_id: int) -> int | None:
    """Read one contact anew, following a merge; returns its person, None when there is none (any more)."""
    try:
        found = mautic_contacts.get_contact(run.mautic, mautic_id)
    except MalformedError as error:
        with run.engine.begin() as connection:
            run.quarantine(connection, "contact", str(mautic_id), str(error), "")
            return people.persons_of(connection, [mautic_id]).get(mautic_id)
    with run.engine.begin() as connection:
        if found is None:
            _vanish(run, connection, [mautic_id])
            return None
        if found.id != mautic_id:
            _follow(run, connection, mautic_id, found.id)
        keep(run, connection, [found])
        person_id = people.persons_of(connection, [found.id])[found.id]
        people.mark_dirty(connection, [person_id])
    return person_id


def catalogue_from_json(stored: Mapping[str, Any]) -> Catalogue:
    """A catalogue as it was kept: JSON makes text of ids."""
    values: dict[str, Any] = {}
    for name, value in stored.items():
        if isinstance(value, list):
            values[name] = frozenset(value)
        elif name == "fields":
            values[name] = value
        else:
            values[name] = {int(number): word for number, word in value.items()}
    return Catalogue(**values)


# -- contacts -------------------------------------------------------------------------------------------------------


def _custom(run: Run) -> frozenset[str]:
    return run.reading.fields - frozenset(mautic_contacts.SELECTABLE)


def _pull_new(run: Run) -> None:
    with run.engine.begin() as connection:
        cursor = runs.get_cursor(connection, CONTACTS) or Cursor()
    for page in mautic_contacts.sweep(
        run.mautic,
        cursor.last_id,
        None,
        run.settings.mautic.page_size,
        run.settings.mautic.concurrency,
        _custom(run),
    ):
        with run.engine.begin() as connection:
            keep(run, connection, page.contacts, page.malformed)
            runs.put_cursor(connection, CONTACTS, Cursor(page.last_id, page.last_id))
        run.tell("contacts", rows=page.rows, last_id=page.last_id)


@dataclass
class _Pass:
    """A full pass under way: its number, how far it came, and where it ends."""

    number: int
    after: int
    upto: int


def _pull_everybody(run: Run, unfinished: dict[str, int] | None) -> None:
    """Read everybody up to our cursor again; whoever is not met is gone. A pass that was cut short goes on."""
    with run.engine.begin() as connection:
        if unfinished:
            going = _Pass(**unfinished)
        else:
            cursor = runs.get_cursor(connection, CONTACTS) or Cursor()
            going = _Pass(int(notes.get(connection, "full_passes") or 0) + 1, 0, cursor.last_id)
            notes.put(connection, "full_passes", str(going.number))
            notes.put_json(connection, FULL_READING, vars(going))
    for page in mautic_contacts.sweep(
        run.mautic,
        going.after,
        going.upto,
        run.settings.mautic.page_size,
        run.settings.mautic.concurrency,
        _custom(run),
    ):
        with run.engine.begin() as connection:
            keep(run, connection, page.contacts, page.malformed, seen=going.number)
            going.after = page.last_id
            notes.put_json(connection, FULL_READING, vars(going))
        run.tell("contacts", rows=page.rows, last_id=page.last_id)
    _find_vanished(run, going)
    with run.engine.begin() as connection:
        notes.put_json(connection, READ_FIELDS, sorted(run.reading.fields))
        notes.drop(connection, FULL_READING)


def _find_vanished(run: Run, going: _Pass) -> None:
    after = 0
    while True:
        with run.engine.begin() as connection:
            missing = people.unseen(connection, going.number, going.upto, after=after)
        if not missing:
            return
        after = missing[-1].mautic_id
        # Malformed rows were met too: they are in quarantine, not gone.
        page = mautic_contacts.contacts_by_id(run.mautic, [row.mautic_id for row in missing])
        there = {one.id for one in page.contacts} | {one.id for one in page.malformed}
        gone = [row for row in missing if row.mautic_id not in there]
        with run.engine.begin() as connection:
            keep(run, connection, page.contacts, page.malformed, seen=going.number)
        # Only an addressed contact can have been merged away without our noticing: ghosts are not worth a call each.
        for row in gone:
            if row.address is not None:
                pull_contact(run, row.mautic_id)
        with run.engine.begin() as connection:
            _vanish(run, connection, [row.mautic_id for row in gone if row.address is None])


def _vanish(run: Run, connection: Connection, mautic_ids: Collection[int]) -> None:
    counted = people.kinds_of(connection, mautic_ids)
    people.vanish(connection, mautic_ids, run.now)
    for kind, number in counted.items():
        run.counts.vanished[kind] = run.counts.vanished.get(kind, 0) + number
    if mautic_ids:
        run.tell("vanished", contacts=len(mautic_ids))


def keep(
    run: Run,
    connection: Connection,
    contacts: Sequence[Contact],
    malformed: Sequence[mautic_contacts.Malformed] = (),
    *,
    seen: int | None = None,
) -> None:
    saved = people.save_contacts(connection, contacts, run.reading, now=run.now, seen=seen)
    run.counts.contacts += len(contacts)
    adopt_waiting(connection, saved.persons, run.matchers, run.catalogue)
    healthy = [str(one.id) for one in contacts]
    if healthy:
        runs.release_from_quarantine(connection, "contact", healthy, run.now)
    for one in malformed:
        run.quarantine(connection, "contact", str(one.id or "?"), one.reason, one.raw_excerpt)


def _refetch(run: Run, mautic_ids: Collection[int], *, deleted: Collection[int] = ()) -> None:
    """Read these contacts again; known ones that are not there any more are gone."""
    wanted = set(mautic_ids) | set(deleted)
    if not wanted:
        return
    page = mautic_contacts.contacts_by_id(run.mautic, wanted)
    there = {one.id for one in page.contacts} | {one.id for one in page.malformed}
    with run.engine.begin() as connection:
        keep(run, connection, page.contacts, page.malformed)
        _vanish(run, connection, sorted(wanted - there))


# -- the audit log --------------------------------------------------------------------------------------------------


def _pull_audit(run: Run, cursor: Cursor, *, forced: bool) -> None:
    first = True
    while True:
        rows = feed_after(run.mautic, "audit_log", cursor.resume_from, AUDIT_PAGE_ROWS, ABOUT_CONTACTS)
        if first:
            _check_not_set_back(run, "audit_log", rows, cursor, forced=forced)
            first = False
        if not rows:
            return
        changes, broken = [], []
        for row in rows:
            try:
                changes.append(parse_audit(row))
            except MalformedError as error:
                broken.append((row, str(error)))
        _apply_audit([one for one in changes if one.id > cursor.last_id], run)
        moved = _moved(cursor, rows, "date_added")
        with run.engine.begin() as connection:
            for row, reason in broken:
                run.quarantine(connection, "audit_log", row.get("id", "?"), reason, str(row))
            runs.put_cursor(connection, "audit_log", moved)
        cursor = moved
        if len(rows) < AUDIT_PAGE_ROWS:
            return
        cursor = Cursor(cursor.last_id, cursor.last_id, cursor.mark)


def _apply_audit(changes: Sequence[AuditChange], run: Run) -> None:
    touched: set[int] = set()
    deleted: set[int] = set()
    for one in changes:
        if one.action == "merge" and one.merged_into is not None:
            with run.engine.begin() as connection:
                _follow(run, connection, one.contact_id, one.merged_into)
            touched.discard(one.contact_id)
            touched.add(one.merged_into)
        elif one.action == "delete":
            touched.discard(one.contact_id)
            deleted.add(one.contact_id)
        elif one.action not in QUIET_ACTIONS and not run.mautic.is_own(one.user_name):
            touched.add(one.contact_id)
    with run.engine.begin() as connection:
        known = people.persons_of(connection, touched | deleted)
        current = set(people.current_ids(connection, set(known.values())).values())
        cursor = runs.get_cursor(connection, CONTACTS) or Cursor()
    # The number of a merged contact leads to the survivor: its deletion is no news. Contacts above our cursor are
    # about to be read anyway.
    _refetch(
        run,
        {number for number in touched if number <= cursor.last_id and (number in current or number not in known)},
        deleted={number for number in deleted if number in current},
    )


def _follow(run: Run, connection: Connection, old_id: int, new_id: int) -> None:
    if people.follow_merge(connection, old_id, new_id, now=run.now, run_id=run.id) is not None:
        run.counts.merged += 1
        run.tell("merged", into=new_id)


# -- feeds ----------------------------------------------------------------------------------------------------------


def _pull_feed(run: Run, feed: str, *, full: bool) -> None:
    with run.engine.begin() as connection:
        cursor = runs.get_cursor(connection, feed)
    if feed == "email_stat_replies":
        _pull_replies(run, cursor)
        return
    if full and feed == "lead_donotcontact" and BOUNCED in run.mappings.activity_types:
        _pull_failed(run)
    fresh = cursor is None
    if cursor is None:
        since = run.now - int(run.settings.pull.history.total_seconds())
        start = feed_first_id_since(run.mautic, feed, DATE_COLUMNS[feed], since) - 1
        cursor = Cursor(start, start)
        with run.engine.begin() as connection:
            runs.put_cursor(connection, feed, cursor)
        pages = _pages(run, feed, start)
    elif feed == "email_stats":
        # Opened later: the row changes under its old id.
        opened = (parse_time(cursor.mark) or run.now) if cursor.mark else run.now
        back = EMAIL_AGAIN_SECONDS if full else OVERLAP_SECONDS
        pages = rows_new_or_since(run.mautic, feed, cursor.resume_from, "last_opened", opened - back, FEED_PAGE_ROWS)
    else:
        pages = _pages(run, feed, cursor.resume_from)
    checked = False
    with run.engine.begin() as connection:
        again = feed == "email_stats" or (fresh and stores_any_of(connection, feed))
    known_above = None if again else cursor.last_id
    for rows in pages:
        if not checked:
            _check_not_set_back(run, feed, rows, cursor, forced=full)
            checked = True
        cursor = _moved(cursor, rows, "last_opened" if feed == "email_stats" else DATE_COLUMNS[feed])
        _add_page(run, feed, rows, cursor, known_above=known_above)
    if not checked:
        _check_not_set_back(run, feed, [], cursor, forced=full)


def _pages(run: Run, feed: str, after: int) -> Iterator[list[Row]]:
    return feed_pages(run.mautic, feed, after, limit=FEED_PAGE_ROWS, concurrency=run.settings.mautic.concurrency)


def _add_page(run: Run, feed: str, rows: Sequence[Row], cursor: Cursor, *, known_above: int | None) -> None:
    """One page of a feed and its cursor, in one transaction; then contacts that nobody had seen yet."""
    activities: list[FeedActivity] = []
    with run.engine.begin() as connection:
        for row in rows:
            try:
                # A mail that failed is read by full runs: this row does not tell when it did.
                activities += [one for one in normalise(feed, row) if one.source != SENT or one.type != BOUNCED]
            except MalformedError as error:
                run.quarantine(connection, feed, row.get("id", "?"), str(error), str(row))
        added = add_activities(connection, activities, run.matchers, run.catalogue, known_above=known_above)
        if run.mappings.reads_idle:
            visits = [one for one in activities if one.type in VISITS and one.contact_id is not None]
            people.note_active(connection, {one.contact_id or 0: one.at for one in visits})
        runs.put_cursor(connection, feed, cursor)
        newest = runs.get_cursor(connection, CONTACTS) or Cursor()
    run.counts.activities += added.new
    run.tell("activities", feed=feed, rows=len(rows), new=added.new)
    _refetch(run, {number for number in added.unknown if number <= newest.last_id})


def _pull_replies(run: Run, cursor: Cursor | None) -> None:
    """Replies have UUIDs for ids and know their contact only through the mail: read by date."""
    feed = "email_stat_replies"
    history = run.now - int(run.settings.pull.history.total_seconds())
    since = (parse_time(cursor.mark) or history) - OVERLAP_SECONDS if cursor and cursor.mark else history
    for page in rows_since(run.mautic, feed, DATE_COLUMNS[feed], since, FEED_PAGE_ROWS):
        with run.engine.begin() as connection:
            known = known_sources(connection, feed, [row["id"] for row in page])
        rows = [row for row in page if row["id"] not in known]
        if not rows:
            continue
        stats = rows_by_id(
            run.mautic, "email_stats", [int(row["stat_id"]) for row in rows if row.get("stat_id", "").isdigit()]
        )
        of_stat = {number: int(stat["lead_id"]) if stat.get("lead_id") else None for number, stat in stats.items()}
        activities: list[FeedActivity] = []
        with run.engine.begin() as connection:
            for row in rows:
                try:
                    told = normalise(feed, row, contact_of_stat=of_stat)
                    email = stats.get(int(row["stat_id"]), {}).get("email_id")
                    activities += [replace(one, object_id=int(email) if email else None) for one in told]
                except MalformedError as error:
                    run.quarantine(connection, feed, row.get("id", "?"), str(error), str(row))
            added = add_activities(connection, activities, run.matchers, run.catalogue, known_above=None)
            runs.put_cursor(connection, feed, Cursor(0, 0, rows[-1][DATE_COLUMNS[feed]]))
        run.counts.activities += added.new
        run.tell("activities", feed=feed, rows=len(rows), new=added.new)


def _pull_failed(run: Run) -> None:
    """Mails of the last weeks that failed, of contacts that no bounce is known of: the rows changed unnoticed."""
    since = run.now - EMAIL_AGAIN_SECONDS
    for rows in rows_since(run.mautic, SENT, DATE_COLUMNS[SENT], since, FEED_PAGE_ROWS, (("is_failed", "eq", 1),)):
        failed = [one for row in rows for one in normalise(SENT, row) if one.type == BOUNCED]
        with run.engine.begin() as connection:
            told = who_did(connection, BOUNCED, {one.contact_id for one in failed if one.contact_id is not None})
            new = [one for one in failed if one.contact_id not in told]
            added = add_activities(connection, new, run.matchers, run.catalogue, known_above=None)
        run.counts.activities += added.new


def _moved(cursor: Cursor, rows: Sequence[Row], mark_column: str) -> Cursor:
    """The cursor after these rows: the highest id, and the first id of the last minutes before it."""
    if not rows:
        return cursor
    numbers = [int(row["id"]) for row in rows]
    last = max(cursor.last_id, *numbers)
    marks = [row[mark_column] for row in rows if row.get(mark_column)]
    mark = max(filter(None, [cursor.mark, *marks]), default=None)
    newest = parse_time(mark) if mark else None
    resume = last - 1
    if newest is not None:
        # Feeds write times in one form, in which they compare as text (docs/mautic.md: "Shapes that surprise").
        late = format_time(newest - OVERLAP_SECONDS)
        for number, row in zip(numbers, rows, strict=True):
            if row.get(mark_column, "") >= late:
                resume = min(resume, number - 1)
    return Cursor(last, max(resume, cursor.resume_from if cursor.last_id == last else 0), mark)


def _check_not_set_back(run: Run, feed: str, rows: Sequence[Row], cursor: Cursor, *, forced: bool) -> None:
    """A feed that ends below our cursor was restored from a backup, or belongs to another Mautic."""
    expected = cursor.resume_from < cursor.last_id and feed not in SHRINKING_FEEDS
    if not expected or any(int(row["id"]) == cursor.last_id for row in rows):
        return
    if feed_max_id(run.mautic, feed) >= cursor.last_id:
        return
    if forced:
        _begin_again(run)
        run.tell("set_back", feed=feed)
        raise SetBack
    msg = (
        f"Mautic's {feed} ends below what was read before: it was restored from a backup, or is another Mautic. "
        "Look at it, then read everything again with `mautic-sync sync --full`."
    )
    raise SafetyStop(msg)


def _begin_again(run: Run) -> None:
    """Forget all cursors. What lies above the highest id of a feed did happen: it is kept under ids of its own."""
    with run.engine.begin() as connection:
        feeds = [name for name in runs.all_cursors(connection) if name in DATE_COLUMNS and name != "email_stat_replies"]
    highest = {name: feed_max_id(run.mautic, name) for name in feeds}
    with run.engine.begin() as connection:
        for name, number in highest.items():
            set_aside(connection, name, number, str(run.now))
        runs.drop_cursors(connection)


def _pull_members(run: Run) -> None:
    """Who is in the segments and campaigns that the mappings name."""
    for kind, table, column, names in (
        ("segment", "lead_lists_leads", "leadlist_id", run.mappings.named("segment")),
        ("campaign", "campaign_leads", "campaign_id", run.mappings.named("campaign")),
    ):
        catalogue = run.catalogue.segments if kind == "segment" else run.catalogue.campaigns
        for object_id, name in catalogue.items():
            if fold(name) not in names:
                continue
            members = [
                int(row["lead_id"])
                for rows in rows_by_member(run.mautic, table, column, object_id)
                for row in rows
                if row.get("manually_removed") != "1"
            ]
            with run.engine.begin() as connection:
                replace_members(connection, kind, object_id, members)
