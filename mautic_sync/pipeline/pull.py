"""Mautic → store: what is new, what changed, what is gone, and what everybody did.

New contacts are read by id, changes from the audit log, activity from the statistics feeds, each from its own
cursor. A page and its cursor are one transaction, so that a run that is killed goes on where it was.
docs/mautic.md: "Reading what changed".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

from sqlalchemy import Connection

from mautic_sync.domain.contact import Catalogue, Contact
from mautic_sync.domain.countries import fold
from mautic_sync.errors import ConfigError, MalformedError, RefusedError, SafetyStop, UnreadableError
from mautic_sync.mautic import contacts as mautic_contacts
from mautic_sync.mautic.feeds import (
    ABOUT_CONTACTS,
    DATE_COLUMNS,
    PROBE,
    AuditChange,
    FeedActivity,
    Row,
    feed_after,
    feed_first_id_since,
    feed_max_id,
    feed_pages,
    newest_rows,
    normalise,
    parse_audit,
    readable_id,
    readable_time,
    rows_by_id,
    rows_by_key,
    rows_by_member,
    rows_new_or_since,
    rows_since,
)
from mautic_sync.mautic.provisioning import list_stages, read_catalogue
from mautic_sync.mautic.times import format_time
from mautic_sync.pipeline import groups
from mautic_sync.pipeline.context import Run
from mautic_sync.pipeline.flights import ask_for_anybody
from mautic_sync.store import carried, decisions, notes, people, runs
from mautic_sync.store.activities import (
    Added,
    add_activities,
    adopt_waiting,
    count_anew,
    known_sources,
    name_again,
    replace_members,
    set_aside,
    stores_any_of,
    who_did,
)
from mautic_sync.store.backup import RESTORED
from mautic_sync.store.carried import OPENED
from mautic_sync.store.changes import adopt_stages, look_from_the_beginning
from mautic_sync.store.runs import Cursor

FEED_PAGE_ROWS = 2_000  # a page of hits is 2 MB, and takes ten times as much while it is decoded
AUDIT_PAGE_ROWS = 2_000
# Rows may become visible slightly out of id order: the last minutes are read again.
OVERLAP_SECONDS = 300
# `is_failed` of a sent mail has neither a time nor a new id: a full pass reads the recent ones again.
EMAIL_AGAIN_SECONDS = 14 * 86400
# A change of the contact's addresses on the net decides nothing and is the commonest row of a busy site.
QUIET_ACTIONS = frozenset({"ipadded"})
# Restored backups are seen here: of all tables, only these two lose no row when something else is deleted.
NEVER_SHRINKING = frozenset({"audit_log", "page_hits"})
# Rows that change under their old id, by the columns whose time then moves: the mail was opened, or read as an answer
# shows, the scheduled event took place. Where such a cursor stands is told by these; new rows are told by DATE_COLUMNS as
# everywhere.
MOVING_DATES = {"email_stats": ("last_opened", "date_read"), "campaign_lead_event_log": ("date_triggered",)}
# A time so far ahead of ours is a mistake of one row: no cursor follows it, for nothing after it would be read.
FUTURE_SECONDS = 86400
MEMBER_TABLES = ("lead_lists_leads", "campaign_leads")

# What Mautic calls somebody's last activity.
VISITS = frozenset({"page.hit", "email.click", OPENED, "form.submitted", "asset.download", "video.hit"})

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
LONGEST = "page_hits"
BOUNCED = "email.bounced"
INSTANCE = "mautic"
CATALOGUE = "catalogue"
STAGES = "stages"
STAGE_KINDS = "stage_kinds"
"""Stage → the kind that it had when the mappings last named it."""
READ_FIELDS = "fields_read"
"""What is kept of every contact, and fresh: as `Run.kept_of_contacts` names it."""
RULES = "rules"
"""Fingerprint of the rules for which the catalogue was read."""
DECIDED_BY = "decided_by"
"""Fingerprint of the bound rules, and the state of the gate, by which everybody was decided."""
DECIDED_AS = "decided_as"
"""`DECISIONS` of the program that decided everybody."""
DECISIONS = "2"
"""Raised when the program decides otherwise than before by the same rules, or tells it so: everybody is decided once more."""
FULL_READING = "full_reading"
HISTORIES = "histories"
"""Feed → how far back it was read (seconds), and up to which id its rows may be known from before."""
CONTACTS = "contacts"
NEW_STORE = "new_store"
"""Kept until Mautic's log of points was looked at for grants of a store before this one."""
SET_BACK = "mautic_set_back"
"""Mautic was put back from a backup, and the ledger does not say yet what its log says: since when."""
AUDIT_APPLIED = "audit_applied"
"""Ids of the rows in the overlap of the audit log that were applied: others there became visible late."""
AUDIT_LAST = "audit_last"
"""The last row of the audit log that was read: its id, and when it was written."""


def meet_instance(run: Run, *, adopt: bool) -> None:
    """One store belongs to one Mautic, the first that answered: another is refused unless `adopt` insists."""
    with run.engine.begin() as connection:
        known = notes.get(connection, INSTANCE)
    if known == run.mautic.base_url:
        return
    if known is not None and not adopt:
        msg = (
            f"this store belongs to the Mautic at {known}, not to {run.mautic.base_url}. Give each Mautic a "
            "store.url of its own, or say --adopt if the same Mautic has moved."
        )
        raise ConfigError(msg)
    list_stages(run.mautic)  # a wrong address or secret ends here, and nothing is remembered of it
    with run.engine.begin() as connection:
        if known is None:
            notes.put(connection, NEW_STORE, str(run.now))
        notes.put(connection, INSTANCE, run.mautic.base_url)


def read_instance(run: Run, *, fresh: bool) -> None:
    """Stages of this Mautic, and the catalogue of what the mappings name; binds the mappings to it.

    The catalogue is kept in the store and read again by a full pass, when the mappings changed, or when `fresh`.
    """
    run.unbound = run.unbound or run.mappings
    stages = list_stages(run.mautic)
    run.stage_names = {stage.id: stage.name for stage in stages}
    run.stage_ids = {stage.name: stage.id for stage in reversed(stages) if stage.published}
    run.unpublished_stages = frozenset(stage.id for stage in stages if not stage.published)
    with run.engine.begin() as connection:
        notes.put_json(connection, STAGES, run.stage_names)
        stored = notes.get_json(connection, CATALOGUE)
        changed = notes.get(connection, RULES) != run.unbound.fingerprint
    # A field that `init` made meanwhile is not in a catalogue that was kept.
    lacking = stored is not None and any(alias not in stored["fields"] for alias in run.mappings.fields.write)
    if stored is None or fresh or changed or lacking:
        run.catalogue = read_catalogue(
            run.mautic,
            run.mappings.catalogues_needed - {"stages"},
            written_fields=run.mappings.fields.write,
            written_tags=run.mappings.written_tags,
        )
        run.catalogue = replace(run.catalogue, stages=run.stage_names)
        bound = run.unbound.bind(run.catalogue)
        with run.engine.begin() as connection:
            notes.put_json(connection, CATALOGUE, asdict(run.catalogue))
            notes.put(connection, RULES, run.unbound.fingerprint)
        for told in bound.warnings[len(run.unbound.warnings) :]:
            run.tell("lacking", reason=told)
    else:
        run.catalogue = replace(catalogue_from_json(stored), stages=run.stage_names)
        bound = run.unbound.bind(run.catalogue)
    run.mappings = bound
    with run.engine.begin() as connection:
        known = notes.get_json(connection, STAGE_KINDS) or {}
        run.former_kinds = {stage: kind for stage, kind in known.items() if stage not in run.kinds}
        if run.kinds_ever != known:
            notes.put_json(connection, STAGE_KINDS, run.kinds_ever)


def prepare_store(run: Run) -> bool:
    """Make the store fit the mappings: evidence, and who is to be decided again. True when contacts must be read again.

    That is so when the mappings read something of contacts that was not kept, or not kept fresh, before.
    """
    with run.engine.begin() as connection:
        rebuilt = count_anew(connection, run.counting, run.catalogue)
        _decide_everybody_if_changed(run, connection, rebuilt=rebuilt)
        wanted = run.kept_of_contacts
        if runs.get_cursor(connection, CONTACTS) is None:
            notes.put_json(connection, READ_FIELDS, sorted(wanted))
            return False
        return not wanted <= note_what_is_kept(run, connection)


def note_what_is_kept(run: Run, connection: Connection) -> set[str]:
    """What is kept of every contact from now on, while these rules read: nothing that they do not read.

    Whoever is saved from here on is saved without the rest, so that rules which read it again have everybody read.
    """
    wanted = run.kept_of_contacts
    kept = set(notes.get_json(connection, READ_FIELDS) or ())
    if not kept <= wanted:
        kept &= wanted
        notes.put_json(connection, READ_FIELDS, sorted(kept))
    unfinished = notes.get_json(connection, FULL_READING)
    if unfinished and not wanted.issuperset(unfinished["fields"]):
        notes.put_json(connection, FULL_READING, {**unfinished, "fields": sorted(wanted & set(unfinished["fields"]))})
    return kept


def _decide_everybody_if_changed(run: Run, connection: Connection, *, rebuilt: bool) -> None:
    # A key for ZeroBounce, or a field to write into, that comes or goes changes plans like a rule does.
    gate = "open" if run.zerobounce is None else "gated"
    decided_by = " ".join([run.mappings.fingerprint, gate, *sorted(run.reading.fields & run.catalogue.fields.keys())])
    if rebuilt or notes.get(connection, DECIDED_BY) != decided_by:
        people.mark_everyone_dirty(connection)
        decisions.forget_rules(connection)
        notes.put(connection, DECIDED_BY, decided_by)
    if notes.get(connection, DECIDED_AS) != DECISIONS:
        people.mark_everyone_dirty(connection)
        notes.put(connection, DECIDED_AS, DECISIONS)


DONE = object()


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
        rows = newest_rows(run.mautic, "audit_log", 1)
        newest = readable_id(rows[0]) if rows else 0
        with run.engine.begin() as connection:
            runs.put_cursor(connection, "audit_log", Cursor(newest, max(newest - 1, 0)))
            notes.put_json(connection, AUDIT_APPLIED, [newest])
            _note_last_row(connection, rows, newest)
    else:
        _pull_audit(run, audit, forced=full)
    if (full and audit is not None) or unfinished:
        _pull_everybody(run, unfinished)
    feeds = _pull_feeds(run, full=full)
    # A page of contacts takes Mautic seconds, one of activity takes us as long as Mautic: side by side, nobody waits.
    _pull_new(run, meanwhile=lambda: next(feeds, DONE) is not DONE)
    for _page in feeds:
        pass
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
    except (MalformedError, UnreadableError, RefusedError) as error:
        with run.engine.begin() as connection:
            person_id = people.persons_of(connection, [mautic_id]).get(mautic_id)
        if not isinstance(error, MalformedError):
            if person_id is None:
                raise
            ask_for_anybody(run.mautic)  # else it is this one contact that Mautic cannot show
        with run.engine.begin() as connection:
            run.quarantine(connection, "contact", str(mautic_id), str(error), "")
        return person_id
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


def _pull_new(run: Run, meanwhile: Callable[[], bool]) -> None:
    with run.engine.begin() as connection:
        cursor = runs.get_cursor(connection, CONTACTS) or Cursor()
    for page in mautic_contacts.sweep(
        run.mautic,
        cursor.last_id,
        None,
        run.settings.mautic.page_size,
        run.settings.mautic.concurrency,
        _custom(run),
        meanwhile,
    ):
        with run.engine.begin() as connection:
            keep(run, connection, page.contacts, page.malformed)
            runs.put_cursor(connection, CONTACTS, Cursor(page.last_id, page.last_id))
        run.tell("contacts", rows=page.rows, last_id=page.last_id, after=cursor.last_id, upto=page.upto)


@dataclass
class _Pass:
    """A full pass under way: its number, how far it came, and where it ends.

    `fields` are those that all contacts up to `after` were read with; `set_back`: numbers may be somebody else's now.
    `adopts`: Mautic or the store was restored, so that another stage than the one we remember is nobody's hand.
    """

    number: int
    after: int
    upto: int
    fields: Collection[str] = ()
    set_back: bool = False
    adopts: bool = False


def _pull_everybody(run: Run, unfinished: dict[str, Any] | None) -> None:
    """Read everybody up to our cursor again; whoever is not met is gone.

    A pass that was cut short goes on, and from the beginning if the mappings need a field now that it did not keep.
    """
    with run.engine.begin() as connection:
        if unfinished:
            going = _Pass(**unfinished)
            if not run.kept_of_contacts <= set(going.fields):
                going.after = 0
        else:
            cursor = runs.get_cursor(connection, CONTACTS) or Cursor()
            going = _next_pass(connection, cursor.last_id)
        if not going.adopts and notes.get(connection, RESTORED) is not None:
            going.after, going.adopts = 0, True
        going.fields = sorted(run.kept_of_contacts)
        notes.put_json(connection, FULL_READING, vars(going))
    began_after = going.after
    for page in mautic_contacts.sweep(
        run.mautic,
        going.after,
        going.upto,
        run.settings.mautic.page_size,
        run.settings.mautic.concurrency,
        _custom(run),
    ):
        with run.engine.begin() as connection:
            if going.set_back:
                _settle_numbers(run, connection, page.contacts)
            if going.adopts:
                _adopt_stages(run, connection, page.contacts, decided=not going.set_back)
            keep(run, connection, page.contacts, page.malformed, seen=going.number)
            going.after = page.last_id
            notes.put_json(connection, FULL_READING, vars(going))
        run.tell("contacts", rows=page.rows, last_id=page.last_id, after=began_after, upto=page.upto)
    _find_vanished(run, going)
    with run.engine.begin() as connection:
        notes.put_json(connection, READ_FIELDS, sorted(run.kept_of_contacts))
        notes.drop(connection, FULL_READING)


def _next_pass(connection: Connection, upto: int) -> _Pass:
    number = int(notes.get(connection, "full_passes") or 0) + 1
    notes.put(connection, "full_passes", str(number))
    return _Pass(number, 0, upto)


def _settle_numbers(run: Run, connection: Connection, contacts: Sequence[Contact]) -> None:
    """Mautic was set back: numbers may have been given again since, merges may be undone, do-not-contact lost."""
    others = people.taken_over(connection, contacts)
    if others:
        _vanish(run, connection, others)
        people.release(connection, others)
    people.share_dnc(connection, people.take_back(connection, [one.id for one in contacts]), run.now)
    people.expect_set_back_dnc(connection, [one.id for one in contacts])


def _adopt_stages(run: Run, connection: Connection, contacts: Sequence[Contact], *, decided: bool) -> None:
    """After a restore: whose stage is another than the one we remember has it from us.

    What somebody changed, as far as the audit log tells, was read before, and is remembered. `decided`: the store was
    restored, and what Mautic shows is younger than what we remember to have decided.
    """
    persons = people.persons_of(connection, [one.id for one in contacts])
    remembered = people.stages_of(connection, persons.values())
    moved = {
        persons[one.id]: run.stage_names[one.stage_id]
        for one in contacts
        if one.id in persons
        and one.stage_id in run.stage_names
        and one.stage_id != remembered.get(persons[one.id], one.stage_id)
    }
    ours = {number: stage for number, stage in moved.items() if stage in run.kinds}
    adopt_stages(connection, ours, run.now)
    if decided:
        _remember_decisions(run, connection, ours)


def _remember_decisions(run: Run, connection: Connection, ours: Mapping[int, str]) -> None:
    """Person → stage: each was decided by us, and the store that was put back does not know it."""
    places = {number: (stage, run.kinds[stage]) for number, stage in ours.items() if stage in run.kinds}
    decisions.take_from_mautic(connection, places, run.id, run.now)


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
    adopt_waiting(connection, saved.persons, run.counting, run.catalogue)
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
    with run.engine.begin() as connection:
        kept = notes.get_json(connection, AUDIT_APPLIED)
        last_read = notes.get_json(connection, AUDIT_LAST)
    applied = set(kept or ())
    after = cursor.resume_from
    first = True
    while True:
        rows = feed_after(run.mautic, "audit_log", after, AUDIT_PAGE_ROWS, ABOUT_CONTACTS)
        if first:
            _check_not_set_back(run, "audit_log", rows, cursor, forced=forced)
            if last_read is not None and last_read[0] == cursor.last_id and is_another_row(rows, *last_read):
                _stop_set_back(run, "audit_log", "has another row where the last one was read", forced=forced)
            first = False
        if not rows:
            return
        changes, broken = [], []
        for row in rows:
            try:
                changes.append(parse_audit(row))
            except MalformedError as error:
                broken.append((row, str(error)))
        # Without a note, everything up to the cursor was applied.
        seen = applied if kept is not None else {one.id for one in changes if one.id <= cursor.last_id}
        new = {one.id for one in changes} - seen
        _apply_audit(run, changes, new)
        # Whatever else such a row says, somebody changed.
        unclear = [(row, reason) for row, reason in broken if readable_id(row) not in seen]
        _refetch(run, _already_read(run, {readable_id(row, "object_id") for row, _ in unclear} - {0}))
        moved = _moved(cursor, rows, "date_added", run.now)
        applied |= {readable_id(row) for row in rows} | seen
        with run.engine.begin() as connection:
            _quarantine_rows(run, connection, "audit_log", unclear)
            runs.put_cursor(connection, "audit_log", moved)
            kept = sorted(number for number in applied if number > moved.resume_from)
            notes.put_json(connection, AUDIT_APPLIED, kept)
            _note_last_row(connection, rows, moved.last_id)
        last = max(readable_id(row) for row in rows)
        if len(rows) < AUDIT_PAGE_ROWS or last <= after:
            return
        cursor, after, applied = moved, last, set(kept)


def _note_last_row(connection: Connection, rows: Sequence[Row], last: int) -> None:
    """Remember when the row of the audit log was written at which our cursor stands, if it is one of these."""
    for row in rows:
        if readable_id(row) == last:
            notes.put_json(connection, AUDIT_LAST, [last, readable_time(row, "date_added")])


def _apply_audit(run: Run, changes: Sequence[AuditChange], new: Collection[int]) -> None:
    """Apply those of the rows that are `new`, in id order; the others tell what had come after them."""
    touched: set[int] = set()
    deleted: set[int] = set()
    final = {(one.contact_id, channel): one.id for one in changes for channel in one.dnc}
    merged = {one.contact_id for one in changes if one.action == "merge" and one.id in new}
    told: list[tuple[int, str, int]] = []
    for one in changes:
        if one.id not in new:
            continue
        # What was taken back in a later row is no news.
        told += [
            (one.contact_id, channel, reason)
            for channel, (_, reason) in one.dnc.items()
            if final[one.contact_id, channel] == one.id
        ]
        if one.action == "merge" and one.merged_into is not None:
            with run.engine.begin() as connection:
                _note_dnc(run, connection, told, merged)
                _follow(run, connection, one.contact_id, one.merged_into)
            told = []
            touched.discard(one.contact_id)
            touched.add(one.merged_into)
        elif one.action == "delete":
            touched.discard(one.contact_id)
            deleted.add(one.contact_id)
        elif one.action not in QUIET_ACTIONS and not run.mautic.is_own(one.user_name):
            touched.add(one.contact_id)
    with run.engine.begin() as connection:
        _note_dnc(run, connection, told, merged)
        if notes.get(connection, RESTORED) is not None:
            _remember_stages(run, connection, [one for one in changes if one.id in new])
        known = people.persons_of(connection, touched | deleted)
        current = set(people.current_ids(connection, set(known.values())).values())
    # The number of a merged contact leads to the survivor: its deletion is no news.
    _refetch(
        run,
        _already_read(run, {number for number in touched if number in current or number not in known}),
        deleted={number for number in deleted if number in current},
    )


def _remember_stages(run: Run, connection: Connection, changes: Sequence[AuditChange]) -> None:
    """A store that was restored: the stages that we have set since the backup are ours."""
    ours = {
        one.contact_id: run.stage_names[one.stage[1]]
        for one in changes
        if one.stage is not None and one.stage[1] in run.stage_names and run.mautic.is_own(one.user_name)
    }
    persons = people.meet(connection, ours, run.now)
    stages = {persons[number]: stage for number, stage in ours.items()}
    adopt_stages(connection, stages, run.now)
    _remember_decisions(run, connection, stages)


def _note_dnc(run: Run, connection: Connection, told: Sequence[tuple[int, str, int]], merged: Collection[int]) -> None:
    """Keep what was told about do-not-contact before a merge loses it: docs/mautic.md, "Merging".

    Whoever came, unsubscribed and was merged between two runs was never read, and must be somebody first.
    """
    if not told:
        return
    numbers = {number for number, _, _ in told}
    unsubscribed = {number for number, _, reason in told if reason > 0}
    people.meet(connection, unsubscribed & set(merged), run.now)
    persons = people.persons_of(connection, numbers)
    current = set(people.current_ids(connection, set(persons.values())).values())
    for number, channel, reason in told:
        if number in persons:
            people.note_dnc(connection, persons[number], channel, reason, lost=number not in current)


def _already_read(run: Run, numbers: Collection[int]) -> set[int]:
    """Contacts above our cursor are about to be read anyway."""
    with run.engine.begin() as connection:
        cursor = runs.get_cursor(connection, CONTACTS) or Cursor()
    return {number for number in numbers if number <= cursor.last_id}


def _follow(run: Run, connection: Connection, old_id: int, new_id: int) -> None:
    if people.follow_merge(connection, old_id, new_id, now=run.now, run_id=run.id) is not None:
        run.counts.merged += 1
        run.tell("merged", into=new_id)


# -- feeds ----------------------------------------------------------------------------------------------------------


def _pull_feeds(run: Run, *, full: bool) -> Iterator[None]:
    """All activity that the mappings need, a page at a time.

    The longest feed takes turns with all the others: it alone, after them, would keep Mautic waiting for one request
    at a time.
    """
    types = run.mappings.activity_types | (VISITS if run.mappings.reads_idle else frozenset())
    feeds = sorted({FEED_OF_TYPE[name] for name in types if name in FEED_OF_TYPE})
    turns = deque(
        _pull_one_by_one(run, some, full=full)
        for some in ([feed for feed in feeds if feed == LONGEST], [feed for feed in feeds if feed != LONGEST])
    )
    while turns:
        pages = turns.popleft()
        if next(pages, DONE) is not DONE:
            turns.append(pages)
            yield


def _pull_one_by_one(run: Run, feeds: Sequence[str], *, full: bool) -> Iterator[None]:
    for feed in feeds:
        yield from _pull_feed(run, feed, full=full)


def _pull_feed(run: Run, feed: str, *, full: bool) -> Iterator[None]:
    with run.engine.begin() as connection:
        cursor = runs.get_cursor(connection, feed)
    if feed == "email_stat_replies":
        before = cursor
        cursor, _ = _far_enough(run, feed, cursor)
        yield from _pull_replies(run, cursor, before)
        with run.engine.begin() as connection:
            _note_history(run, connection, feed, 0)
        return
    if full and feed == "lead_donotcontact" and BOUNCED in run.mappings.activity_types:
        _pull_failed(run)
    moving = MOVING_DATES.get(feed)
    cursor, known_upto = _far_enough(run, feed, cursor)
    fresh = cursor is None
    upto: int | None = None
    if cursor is None:
        since = run.now - int(run.settings.pull.history.total_seconds())
        upto = feed_max_id(run.mautic, feed)
        start = feed_first_id_since(run.mautic, feed, DATE_COLUMNS[feed], since) - 1
        # From before the first page on: what changes under its old id while the pages are read is seen by the next run.
        known = _newest(newest_rows(run.mautic, feed, PROBE), (DATE_COLUMNS[feed],), run.now) if moving else None
        cursor = Cursor(start, start, None if known is None else format_time(known))
        with run.engine.begin() as connection:
            runs.put_cursor(connection, feed, cursor)
            _note_history(run, connection, feed, known_upto)
            carried.note_start(connection, feed, start)
        pages = _pages(run, feed, start)
    elif moving is not None:
        back = EMAIL_AGAIN_SECONDS if full and feed == SENT else OVERLAP_SECONDS
        pages = rows_new_or_since(
            run.mautic, feed, cursor.resume_from, moving, _mark_of(run, cursor) - back, FEED_PAGE_ROWS
        )
    else:
        pages = _pages(run, feed, cursor.resume_from)
    with run.engine.begin() as connection:
        again = moving is not None or (fresh and stores_any_of(connection, feed))
    known_above = None if again else max(cursor.last_id, known_upto)
    mark, checked, after = cursor.mark, False, cursor.last_id
    for rows in pages:
        if not checked:
            _check_not_set_back(run, feed, rows, cursor, forced=full)
            if moving is not None:
                # Of the first page alone: while later ones are read, rows of those before them may change.
                newest = _newest(rows, (DATE_COLUMNS[feed], *moving), run.now)
                mark = max(filter(None, [mark, None if newest is None else format_time(newest)]), default=None)
            checked = True
        moved = _moved(cursor, rows, DATE_COLUMNS[feed], run.now, marked=moving is None)
        _add_page(run, feed, rows, moved, known_above=known_above, after=after, upto=upto)
        cursor = moved
        yield
    if not checked:
        _check_not_set_back(run, feed, [], cursor, forced=full)
    if mark != cursor.mark and moving is not None:
        with run.engine.begin() as connection:
            runs.put_cursor(connection, feed, replace(cursor, mark=mark))


def _far_enough(run: Run, feed: str, cursor: Cursor | None) -> tuple[Cursor | None, int]:
    """No cursor where `pull.history` has grown since the feed was first read: its history is read again from there.

    And the id up to which rows may be known although they come again.
    """
    with run.engine.begin() as connection:
        read = (notes.get_json(connection, HISTORIES) or {}).get(feed)
        if read is None:
            if cursor is not None:
                _note_history(run, connection, feed, 0)
            return cursor, 0
    if cursor is None or run.settings.pull.history.total_seconds() <= read["seconds"]:
        return cursor, read["known_upto"]
    return None, max(cursor.last_id, read["known_upto"])


def _note_history(run: Run, connection: Connection, feed: str, known_upto: int) -> None:
    histories = notes.get_json(connection, HISTORIES) or {}
    histories[feed] = {"seconds": run.settings.pull.history.total_seconds(), "known_upto": known_upto}
    notes.put_json(connection, HISTORIES, histories)


def _mark_of(run: Run, cursor: Cursor | None) -> int:
    """The time up to which changes were read; the beginning of the history where none is known."""
    mark = None if cursor is None or cursor.mark is None else readable_time({"mark": cursor.mark}, "mark")
    if mark is None or mark > run.now + FUTURE_SECONDS:
        return run.now - int(run.settings.pull.history.total_seconds())
    return mark


def _newest(rows: Sequence[Row], columns: Sequence[str], now: int) -> int | None:
    """The latest time that Mautic sent in these columns, leaving out what cannot be one."""
    times = (readable_time(row, column) for row in rows for column in columns)
    return max((at for at in times if at is not None and at <= now + FUTURE_SECONDS), default=None)


def _pages(run: Run, feed: str, after: int) -> Iterator[list[Row]]:
    # One page on its way and one that waits: to read a page takes Mautic no longer than us, and each is large.
    return feed_pages(run.mautic, feed, after, limit=FEED_PAGE_ROWS, concurrency=1)


def _add_page(
    run: Run,
    feed: str,
    rows: Sequence[Row],
    cursor: Cursor,
    *,
    known_above: int | None,
    after: int = 0,
    upto: int | None = None,
) -> None:
    """One page of a feed and its cursor, in one transaction; then contacts that nobody had seen yet."""
    activities, broken = _understood(feed, rows)
    with run.engine.begin() as connection:
        _quarantine_rows(run, connection, feed, broken)
        added = _keep_activities(run, connection, activities, known_above=known_above)
        runs.put_cursor(connection, feed, cursor)
    run.tell("activities", feed=feed, rows=len(rows), new=added.new, last_id=cursor.last_id, after=after, upto=upto)
    _catch_up(run, added)


def _understood(feed: str, rows: Sequence[Row]) -> tuple[list[FeedActivity], list[tuple[Row, str]]]:
    """The activity that these rows tell, and those that cannot be understood, with the reason."""
    activities: list[FeedActivity] = []
    broken: list[tuple[Row, str]] = []
    for row in rows:
        try:
            # A mail that failed is read by full runs: this row does not tell when it did.
            activities += [one for one in normalise(feed, row) if one.source != SENT or one.type != BOUNCED]
        except MalformedError as error:
            broken.append((row, str(error)))
    return activities, broken


def _quarantine_rows(run: Run, connection: Connection, feed: str, broken: Sequence[tuple[Row, str]]) -> None:
    for row, reason in broken:
        run.quarantine(connection, feed, row.get("id", "?"), reason, mautic_contacts.excerpt(row))


def _keep_activities(
    run: Run, connection: Connection, activities: Sequence[FeedActivity], *, known_above: int | None
) -> Added:
    added = add_activities(connection, activities, run.counting, run.catalogue, known_above=known_above)
    if run.mappings.reads_idle:
        latest: dict[int, int] = {}
        for one in activities:
            person_id = added.persons.get(one.contact_id or 0) if one.type in VISITS else None
            at = one.last_opened if one.type == OPENED else one.at
            if person_id is not None and at is not None:
                latest[person_id] = max(at, latest.get(person_id, 0))
        people.note_active(connection, latest)
    run.counts.activities += added.new
    return added


def _catch_up(run: Run, added: Added) -> None:
    """What a page spoke of and we lack: contacts that nobody had seen yet, names of forms, mails and so on."""
    _refetch(run, _already_read(run, added.unknown))
    lacking = sorted((added.unnamed & run.mappings.catalogues_needed) - run.catalogue_reread)
    if not lacking or run.unbound is None:
        return
    run.catalogue_reread.update(lacking)
    read = read_catalogue(
        run.mautic,
        lacking,
        written_fields=run.mappings.fields.write,
        written_tags=run.mappings.written_tags,
    )
    before = run.catalogue
    parts = {part: getattr(read, part) for part in lacking}
    if "segments" in parts:
        parts |= {name: getattr(read, name) for name in ("segment_names", "stage_segments")}
    run.catalogue = replace(before, **parts)
    run.mappings = run.unbound.bind(run.catalogue)
    with run.engine.begin() as connection:
        notes.put_json(connection, CATALOGUE, asdict(run.catalogue))
        name_again(connection, run.counting, before, run.catalogue)
        _decide_everybody_if_changed(run, connection, rebuilt=False)


def _pull_replies(run: Run, cursor: Cursor | None, before: Cursor | None) -> Iterator[None]:
    """Replies have UUIDs for ids and know their contact only through the mail: read by date, from `cursor`.

    `before` is how far they had been read, when older ones are read now.
    """
    feed = "email_stat_replies"
    unread = cursor is None or cursor.mark is None
    since = _mark_of(run, cursor) - (0 if unread else OVERLAP_SECONDS)
    for page in rows_since(run.mautic, feed, DATE_COLUMNS[feed], since, FEED_PAGE_ROWS):
        with run.engine.begin() as connection:
            known = known_sources(connection, feed, [row["id"] for row in page if "id" in row])
        rows = [row for row in page if row.get("id") not in known]
        if not rows:
            continue
        activities, broken = _understood_replies(run, rows)
        with run.engine.begin() as connection:
            _quarantine_rows(run, connection, feed, broken)
            added = _keep_activities(run, connection, activities, known_above=None)
            newest = _newest(rows, (DATE_COLUMNS[feed],), run.now)
            if newest is not None:
                reached = before.mark if cursor is None and before is not None else None
                runs.put_cursor(connection, feed, Cursor(0, 0, max(reached or "", format_time(newest))))
        run.tell("activities", feed=feed, rows=len(rows), new=added.new)
        _catch_up(run, added)
        yield


def _understood_replies(run: Run, rows: Sequence[Row]) -> tuple[list[FeedActivity], list[tuple[Row, str]]]:
    """As `_understood`; the mails that were replied to are read for it."""
    stats = rows_by_id(run.mautic, SENT, [number for row in rows if (number := readable_id(row, "stat_id"))])
    of_stat = {number: readable_id(stat, "lead_id") or None for number, stat in stats.items()}
    activities: list[FeedActivity] = []
    broken: list[tuple[Row, str]] = []
    for row in rows:
        try:
            told = normalise("email_stat_replies", row, contact_of_stat=of_stat)
        except MalformedError as error:
            broken.append((row, str(error)))
            continue
        email = readable_id(stats.get(readable_id(row, "stat_id"), {}), "email_id")
        activities += [one._replace(object_id=email or None) for one in told]
    return activities, broken


def _pull_failed(run: Run) -> None:
    """Mails of the last weeks that failed, of contacts that no bounce is known of: the rows changed unnoticed."""
    since = run.now - EMAIL_AGAIN_SECONDS
    for rows in rows_since(run.mautic, SENT, DATE_COLUMNS[SENT], since, FEED_PAGE_ROWS, (("is_failed", "eq", 1),)):
        failed: list[FeedActivity] = []
        broken: list[tuple[Row, str]] = []
        for row in rows:
            try:
                failed += [one for one in normalise(SENT, row) if one.type == BOUNCED]
            except MalformedError as error:
                broken.append((row, str(error)))
        with run.engine.begin() as connection:
            _quarantine_rows(run, connection, SENT, broken)
            told = who_did(connection, BOUNCED, {one.contact_id for one in failed if one.contact_id is not None})
            _keep_activities(run, connection, [one for one in failed if one.contact_id not in told], known_above=None)


def _moved(cursor: Cursor, rows: Sequence[Row], column: str, now: int, *, marked: bool = True) -> Cursor:
    """The cursor after these rows: the highest id, and the first id of the last minutes before it.

    Rows below the overlap are there because they changed, and rows that cannot be read count for nothing. `marked`:
    the mark is the newest of these dates; else it is left alone.
    """
    dated = [
        (number, at if at is not None and at <= now + FUTURE_SECONDS else None)
        for row in rows
        if (number := readable_id(row)) > cursor.resume_from
        for at in (readable_time(row, column),)
    ]
    if not dated:
        return cursor
    last = max(cursor.last_id, *(number for number, _ in dated))
    newest = max((at for _, at in dated if at is not None), default=None)
    mark = cursor.mark
    if marked:
        known = readable_time({"mark": mark or ""}, "mark")
        if known is not None and known <= now + FUTURE_SECONDS:
            newest = max(known, newest or known)
        mark = None if newest is None else format_time(newest)
    resume = last - 1
    if newest is not None:
        late = newest - OVERLAP_SECONDS
        resume = min([resume, *(number - 1 for number, at in dated if at is not None and at >= late)])
    return Cursor(last, max(resume, cursor.resume_from if cursor.last_id == last else 0), mark)


def _check_not_set_back(run: Run, feed: str, rows: Sequence[Row], cursor: Cursor, *, forced: bool) -> None:
    """A feed that ends below our cursor was restored from a backup, or belongs to another Mautic.

    Only `audit_log` and `page_hits` are judged: in the other feeds rows go with their contact, form or asset. They
    are cleaned from their old end, so that at most nothing is left: an empty feed tells nothing, and a newest row
    below the one that we had read cannot come about while Mautic runs.
    """
    expected = cursor.resume_from < cursor.last_id and feed in NEVER_SHRINKING
    if not expected or any(readable_id(row) >= cursor.last_id for row in rows):
        return
    highest = feed_max_id(run.mautic, feed)
    if highest == 0 or highest >= cursor.last_id:
        return
    _stop_set_back(run, feed, "ends below what was read before", forced=forced)


def is_another_row(rows: Sequence[Row], number: int, written_at: int | None) -> bool:
    """Whether among these rows of the audit log the one with this number was written at another time than it was read
    with (seconds, UTC; None: not known): Mautic was restored, and has written on beyond our cursor.
    """
    now_written = {readable_time(row, "date_added") for row in rows if readable_id(row) == number} - {None}
    return written_at is not None and bool(now_written) and written_at not in now_written


def _stop_set_back(run: Run, feed: str, how: str, *, forced: bool) -> NoReturn:
    if forced:
        _begin_again(run)
        run.tell("set_back", feed=feed)
        raise SetBack
    why = f"Mautic's {feed} {how}: it was restored from a backup, or is another Mautic"
    msg = f"{why}. Look at it, then read everything again with `mautic-sync sync --full`."
    raise SafetyStop(msg, why=why)


def _begin_again(run: Run) -> None:
    """Forget all cursors, and have everybody read again.

    What lies above the highest id of a feed did happen: it is kept under ids of its own. Contacts above Mautic's
    highest id are gone, and their numbers will be given to others.
    """
    with run.engine.begin() as connection:
        feeds = [name for name in runs.all_cursors(connection) if name in DATE_COLUMNS and name != "email_stat_replies"]
    highest = {name: feed_max_id(run.mautic, name) for name in feeds}
    last_contact, _ = mautic_contacts.max_id_and_total(run.mautic)
    with run.engine.begin() as connection:
        for name, number in highest.items():
            set_aside(connection, name, number, str(run.now))
            _note_history(run, connection, name, number)
        runs.drop_cursors(connection)
        notes.drop(connection, AUDIT_APPLIED)
        _vanish(run, connection, people.numbers_above(connection, last_contact))
        people.release_above(connection, last_contact)
        groups.begin_epoch(run, connection)
        look_from_the_beginning(connection)
        runs.put_cursor(connection, CONTACTS, Cursor(last_contact, last_contact))
        going = replace(_next_pass(connection, last_contact), set_back=True, adopts=True)
        notes.put_json(connection, FULL_READING, vars(going))
        notes.put(connection, SET_BACK, str(run.now))


def _pull_members(run: Run) -> None:
    """Who is in the segments and campaigns that the mappings name."""
    for kind, table, column, names in (
        ("segment", MEMBER_TABLES[0], "leadlist_id", run.mappings.named("segment")),
        ("campaign", MEMBER_TABLES[1], "campaign_id", run.mappings.named("campaign")),
    ):
        catalogue = run.catalogue.segments if kind == "segment" else run.catalogue.campaigns
        for object_id, name in catalogue.items():
            if fold(name) not in names:
                continue
            members: list[int] = []
            broken: list[Row] = []
            for rows in rows_by_member(run.mautic, table, column, object_id):
                for row in rows:
                    if not readable_id(row, "lead_id"):
                        broken.append(row)
                    elif row.get("manually_removed") != "1":
                        members.append(readable_id(row, "lead_id"))
            with run.engine.begin() as connection:
                for row in broken:
                    key = f"{object_id}:{row.get('lead_id', '?')}"
                    reason = "`lead_id` of a row is no number."
                    run.quarantine(connection, table, key, reason, mautic_contacts.excerpt(row))
                replace_members(connection, kind, object_id, members)


# -- trying again ---------------------------------------------------------------------------------------------------


def retry_contacts(run: Run, wanted: Collection[int]) -> int:
    """Read these contacts of the quarantine (its numbers) again; returns how many were tried.

    Those that can be understood now are kept, and those that Mautic does not have any more are released.
    """
    with run.engine.begin() as connection:
        held = [row for row in runs.in_quarantine(connection, "contact") if row["id"] in wanted]
    numbers = {int(row["key"]) for row in held}
    page = mautic_contacts.contacts_by_id(run.mautic, numbers)
    gone = numbers - {one.id for one in page.contacts} - {one.id for one in page.malformed}
    with run.engine.begin() as connection:
        keep(run, connection, page.contacts, page.malformed)
        runs.release_from_quarantine(connection, "contact", [str(number) for number in gone], run.now)
    return len(numbers)


def retry_rows(run: Run, wanted: Collection[int] | None = None) -> int:
    """Read quarantined rows (these numbers, or all) of feeds and the audit log again; returns how many were tried.

    Those that can be understood now are applied and released, and so are those that Mautic does not have any more.
    Members of segments and campaigns are released: every run reads them all.
    """
    with run.engine.begin() as connection:
        held = [row for row in runs.in_quarantine(connection) if wanted is None or row["id"] in wanted]
    tried = 0
    for feed in sorted({row["source"] for row in held} & {*DATE_COLUMNS, *MEMBER_TABLES}):
        keys = [row["key"] for row in held if row["source"] == feed]
        tried += len(keys)
        found = {} if feed in MEMBER_TABLES else rows_by_key(run.mautic, feed, keys)
        rows = [found[key] for key in sorted(found, key=lambda key: (len(key), key))]
        broken = _retry_audit(run, rows) if feed == "audit_log" else _retry_feed(run, feed, rows)
        still = {row.get("id", "?") for row, _ in broken}
        with run.engine.begin() as connection:
            _quarantine_rows(run, connection, feed, broken)
            runs.release_from_quarantine(connection, feed, [key for key in keys if key not in still], run.now)
    return tried


def _retry_audit(run: Run, rows: Sequence[Row]) -> list[tuple[Row, str]]:
    changes: list[AuditChange] = []
    broken: list[tuple[Row, str]] = []
    for row in rows:
        try:
            changes.append(parse_audit(row))
        except MalformedError as error:
            broken.append((row, str(error)))
    _apply_audit(run, changes, {one.id for one in changes})
    return broken


def _retry_feed(run: Run, feed: str, rows: Sequence[Row]) -> list[tuple[Row, str]]:
    if not rows:
        return []
    activities, broken = _understood_replies(run, rows) if feed == "email_stat_replies" else _understood(feed, rows)
    with run.engine.begin() as connection:
        added = _keep_activities(run, connection, activities, known_above=None)
    _catch_up(run, added)
    return broken
