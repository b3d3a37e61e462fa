"""The tables of the store.

Times are integers, seconds since 1970 in UTC; JSON stands in text columns. Only `alias` knows Mautic's contact ids:
every other table refers to the person. `activity`, `credit`, `ledger`, `merge`, `transition`, actions and settled
changes are append-only: after a merge they are read through `person.redirect_to`.
"""

from __future__ import annotations

from functools import partial

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    Table as AnyTable,
    UniqueConstraint,
)

from mautic_sync.store.text import Line, Prose

metadata = MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s"}
)

# SQLite keeps a table in the order of its key, and numbers rows by itself, only if that has the exact type INTEGER.
RowId = BigInteger().with_variant(Integer(), "sqlite")
# Whatever the database was made with: InnoDB has transactions, utf8mb4 has every character, and `_bin` tells apart
# what Python tells apart; else the verdict about `muller@` would count for `müller@`.
MARIADB = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}
TABLE_OPTIONS = {f"{dialect}_{name}": value for dialect in ("mysql", "mariadb") for name, value in MARIADB.items()}
Table = partial(AnyTable, **TABLE_OPTIONS)

meta = Table("meta", metadata, Column("key", Line(64), primary_key=True), Column("value", Prose, nullable=False))

run = Table(
    "run",
    metadata,
    Column("id", Line(32), primary_key=True),
    Column("command", Line(32), nullable=False),
    Column("started_at", BigInteger, nullable=False, index=True),
    Column("ended_at", BigInteger),
    Column("exit_code", Integer),
    Column("summary", Prose),
)

# One row per thing that is read forward: `last_id` is the highest id seen, `resume_from` where the overlap begins.
cursor = Table(
    "feed_cursor",
    metadata,
    Column("feed", Line(64), primary_key=True),
    Column("last_id", BigInteger, nullable=False),
    Column("resume_from", BigInteger, nullable=False),
    Column("mark", Line(64)),
)

person = Table(
    "person",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=False),
    Column("redirect_to", BigInteger, index=True),
    Column("created_at", BigInteger, nullable=False),
)

alias = Table(
    "alias",
    metadata,
    Column("mautic_id", RowId, primary_key=True, autoincrement=False),
    Column("person_id", BigInteger, nullable=False, index=True),
    Column("current", Boolean, nullable=False),
)

contact = Table(
    "contact",
    metadata,
    Column("person_id", RowId, primary_key=True, autoincrement=False),
    Column("address", Line(320), index=True),
    Column("fields", Prose, nullable=False),
    Column("tags", Prose, nullable=False),
    Column("points", Integer, nullable=False),
    Column("stage_id", Integer, index=True),
    Column("owner_id", Integer),
    Column("dnc", Prose, nullable=False),
    Column("date_added", BigInteger),
    Column("date_modified", BigInteger),
    Column("date_identified", BigInteger),
    Column("last_active", BigInteger),
    Column("digest", Line(32), nullable=False),
    Column("seen", Integer, nullable=False),
    Column("vanished_at", BigInteger),
)
# Nearly nobody is gone.
_GONE = contact.c.vanished_at.is_not(None)
Index("ix_contact_vanished_at", contact.c.vanished_at, sqlite_where=_GONE, postgresql_where=_GONE)

# Whose signals changed since they were decided; nobody who is gone from Mautic. A table of its own: whoever is decided
# leaves it, and one number is written for that, not a whole contact.
dirty = Table(
    "dirty",
    metadata,
    Column("person_id", RowId, primary_key=True, autoincrement=False),
)

activity = Table(
    "activity",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=False),
    Column("source", Line(32), nullable=False),
    Column("source_id", Line(40), nullable=False),
    Column("type", Line(64), nullable=False),
    Column("person_id", BigInteger, index=True),
    Column("waiting_id", BigInteger),
    Column("at", BigInteger, nullable=False),
    Column("object_id", BigInteger),
    Column("attributes", Prose, nullable=False),
    UniqueConstraint("source", "source_id", "type"),
)
# Nearly nobody waits.
_WAITS = activity.c.waiting_id.is_not(None)
Index("ix_activity_waiting_id", activity.c.waiting_id, sqlite_where=_WAITS, postgresql_where=_WAITS)

# Which activity matches which condition of the mappings: kept as activity arrives, made anew when the mappings change.
evidence = Table(
    "evidence",
    metadata,
    Column("matcher", Line(32), primary_key=True),
    Column("activity_id", BigInteger, primary_key=True, autoincrement=False),
    Column("person_id", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    # All that is read to decide: it answers alone, in order.
    Index("ix_evidence_person_id_matcher_at", "person_id", "matcher", "at"),
    Index("ix_evidence_activity_id", "activity_id"),
)

membership = Table(
    "membership",
    metadata,
    Column("kind", Line(16), primary_key=True),
    Column("object_id", BigInteger, primary_key=True, autoincrement=False),
    Column("person_id", BigInteger, primary_key=True, autoincrement=False, index=True),
)

# Do-not-contact is kept here whatever a merge or a restore of Mautic does to it; `restore` = lost, to be put back.
dnc = Table(
    "dnc",
    metadata,
    Column("person_id", BigInteger, primary_key=True, autoincrement=False),
    Column("channel", Line(32), primary_key=True),
    Column("reason", Integer, nullable=False),
    Column("restore", Boolean, nullable=False),
    Column("ours", Boolean, nullable=False),
)

verdict = Table(
    "verdict",
    metadata,
    Column("address", Line(320), primary_key=True),
    Column("status", Line(64), nullable=False),
    Column("sub_status", Line(64), nullable=False),
    Column("did_you_mean", Line(320), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("run_id", Line(32), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", BigInteger),
    Column("raw", Prose, nullable=False),
)

credit = Table(
    "credit",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("run_id", Line(32), nullable=False),
    Column("at", BigInteger, nullable=False, index=True),
    Column("address", Line(320), nullable=False),
    Column("credits", Integer, nullable=False),
    Column("status", Line(64), nullable=False),
)

# A file of addresses at ZeroBounce, stored before it is sent: `at` is when its credits count.
upload = Table(
    "upload",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("file_name", Line(64), nullable=False),
    Column("file_id", Line(191)),
    Column("state", Line(16), nullable=False, index=True),
    Column("addresses", Integer, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("run_id", Line(32), nullable=False),
    Column("fetches", Integer, nullable=False),
    Column("ended_at", BigInteger),
    Column("error", Prose),
)

# What open files hold: an address is in one at most, and asked in no other way meanwhile.
uploaded = Table(
    "uploaded",
    metadata,
    Column("address", Line(320), primary_key=True),
    Column("upload_id", BigInteger, nullable=False, index=True),
    Column("answered", Boolean, nullable=False),
)

decision = Table(
    "decision",
    metadata,
    Column("person_id", RowId, primary_key=True, autoincrement=False),
    Column("kind", Line(16), nullable=False, index=True),
    Column("stage", Line(191), nullable=False),
    Column("score", Integer, nullable=False),
    Column("rule", Line(191), nullable=False),
    Column("reason", Prose, nullable=False),
    Column("trace", Prose, nullable=False),
    Column("due_at", BigInteger),
    Column("asks", Boolean, nullable=False, index=True),
    Column("waiting", Boolean, nullable=False),
    Column("decided_at", BigInteger, nullable=False),
    Column("run_id", Line(32), nullable=False),
    Column("scores", Prose, nullable=False, server_default="{}"),
    Column("score_day", Integer),
    Column("flags", Prose, nullable=False, server_default="[]"),
    Column("hot_since", BigInteger),
)

# When time alone may change a decision; see due.py.
due = Table(
    "due",
    metadata,
    Column("due_at", BigInteger, primary_key=True, autoincrement=False),
    Column("decided_at", BigInteger, primary_key=True, autoincrement=False),
    Column("person_id", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

# Who waited for a verdict when the baseline was made: to them it only comes late, and is nobody's transition.
kept_waiting = Table(
    "kept_waiting",
    metadata,
    Column("person_id", RowId, primary_key=True, autoincrement=False),
)

# What a person's activity adds up to, so that a score needs no look at all of it again.
tally = Table(
    "tally",
    metadata,
    Column("person_id", RowId, primary_key=True, autoincrement=False),
    Column("counts", Prose, nullable=False),
)

# What a person's activity added up to whose rows are gone: JSON of days by matcher, times by matcher, and how often what.
carried = Table(
    "carried",
    metadata,
    Column("person_id", RowId, primary_key=True, autoincrement=False),
    Column("folded", Prose, nullable=False),
)

# What we last settled in Mautic for a person, and what somebody else set instead.
standing = Table(
    "standing",
    metadata,
    Column("person_id", RowId, primary_key=True, autoincrement=False),
    Column("stage", Line(191)),
    Column("stage_at", BigInteger),
    Column("written", Prose, nullable=False),
    Column("manual_stage", Line(191)),
    Column("manual_since", BigInteger),
)

plan = Table(
    "plan",
    metadata,
    Column("id", Line(32), primary_key=True),
    Column("run_id", Line(32), nullable=False),
    Column("made_at", BigInteger, nullable=False),
    Column("totals", Prose, nullable=False),
)

# A change is one planned write; `open_key` (person and target) is set while it is planned, sent or doubtful, so that
# there is at most one open change per person and target. A points change is found again in Mautic's log by `event_key`,
# above the row `log_above`.
change = Table(
    "change",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("run_id", Line(32), nullable=False, index=True),
    Column("person_id", BigInteger, nullable=False),
    Column("target", Line(32), nullable=False),
    Column("open_key", Line(64), unique=True),
    Column("state", Line(16), nullable=False),
    Column("value", Integer, nullable=False),
    Column("old", Prose, nullable=False),
    Column("new", Prose, nullable=False),
    Column("reason", Prose, nullable=False),
    Column("baseline", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("planned_at", BigInteger, nullable=False),
    Column("sent_at", BigInteger),
    Column("settled_at", BigInteger),
    Column("settled_run", Line(32), index=True),
    Column("error", Prose),
    Column("event_key", Line(64)),
    Column("log_above", BigInteger),
    Index("ix_change_in_order", "state", "target", "value", "id"),
)
IS_OPEN = change.c.open_key.is_not(None)
# Not `open_key IS NULL`: SQLite would look through all that are NULL in the unique index on it.
IS_CLOSED = change.c.settled_at.is_not(None)
# What is open of a person is found, and planned, without a look at all that ever was: whoever asks for one person's
# changes names one of the two. On MariaDB both indexes have all rows.
Index(
    "ix_change_person_id_open_key",
    change.c.person_id,
    change.c.open_key,
    sqlite_where=IS_OPEN,
    postgresql_where=IS_OPEN,
)
Index("ix_change_person_id", change.c.person_id, sqlite_where=IS_CLOSED, postgresql_where=IS_CLOSED)

# Points that Mautic has received from us: their sum is what a person was granted.
ledger = Table(
    "ledger",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("person_id", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("run_id", Line(32), nullable=False),
    Column("change_id", BigInteger, nullable=False),
    Column("event_key", Line(64), nullable=False),
    Column("delta", Integer, nullable=False),
    Column("reason", Prose, nullable=False),
    # Sums are made of it alone: an account of many lines costs hardly more than one of few.
    Index("ix_ledger_person_id_delta", "person_id", "delta"),
)

transition = Table(
    "transition",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("person_id", BigInteger, nullable=False, index=True),
    Column("from_stage", Line(191)),
    Column("to_stage", Line(191), nullable=False),
    Column("from_kind", Line(16)),
    Column("to_kind", Line(16), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("run_id", Line(32), nullable=False, index=True),
    Column("change_id", BigInteger, nullable=False),
    Column("baseline", Boolean, nullable=False),
    Index("ix_transition_baseline_at", "baseline", "at"),
)

# What one transition set off for one person: `todo` with its texts rendered, `done` what of it is done. The key makes
# it happen once: it is made of the transition and the rule.
action = Table(
    "action",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("key", Line(64), nullable=False, unique=True),
    Column("person_id", BigInteger, nullable=False, index=True),
    Column("rule", Line(191), nullable=False),
    Column("occasion", Line(200), nullable=False),
    Column("todo", Prose, nullable=False),
    Column("done", Prose, nullable=False),
    Column("state", Line(16), nullable=False),
    Column("value", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("run_id", Line(32), nullable=False),
    Column("planned_at", BigInteger, nullable=False),
    Column("sent_at", BigInteger),
    Column("settled_at", BigInteger),
    Column("settled_run", Line(32), index=True),
    Column("error", Prose),
    Index("ix_action_in_order", "state", "value", "id"),
)

merge = Table(
    "merge",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("run_id", Line(32), nullable=False),
    Column("rule", Line(32), nullable=False),
    Column("survivor", BigInteger, nullable=False),
    Column("loser", BigInteger, nullable=False),
    Column("before", Prose, nullable=False),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("source", Line(32), nullable=False),
    Column("key", Line(64), nullable=False),
    Column("reason", Prose, nullable=False),
    Column("excerpt", Prose, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("run_id", Line(32), nullable=False, index=True),
    Column("resolved_at", BigInteger),
    Column("times", Integer, nullable=False, server_default="1"),
    UniqueConstraint("source", "key"),
)

# Persons of whom a run was undone: nothing is decided for them until their signals, of which `digest` is made by the
# rules `rules`, change.
held = Table(
    "held",
    metadata,
    Column("person_id", RowId, primary_key=True, autoincrement=False),
    Column("run_id", Line(32), nullable=False),
    Column("undone", Line(32), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("digest", Line(32), nullable=False),
    Column("rules", Line(64), nullable=False),
)
