"""The first schema"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

PROSE = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MARIADB = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}
TABLE_OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value for dialect in ("mysql", "mariadb") for name, value in MARIADB.items()
}


def upgrade() -> None:
    op.create_table(
        "activity",
        sa.Column("id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("source", sa.String(length=32), nullable=False),
        sa.Column("source_id", sa.String(length=40), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=True),
        sa.Column("waiting_id", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("object_id", sa.BigInteger(), nullable=True),
        sa.Column("attributes", PROSE, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("source", "source_id", "type", name=op.f("uq_activity_source_source_id_type")),
        **TABLE_OPTIONS,
    )
    with op.batch_alter_table("activity", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_activity_person_id"), ["person_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_activity_type"), ["type"], unique=False)
        batch_op.create_index(batch_op.f("ix_activity_waiting_id"), ["waiting_id"], unique=False)

    op.create_table(
        "alias",
        sa.Column("mautic_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=False),
        sa.Column("current", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("mautic_id"),
        **TABLE_OPTIONS,
    )
    with op.batch_alter_table("alias", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_alias_person_id"), ["person_id"], unique=False)

    op.create_table(
        "change",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=False),
        sa.Column("target", sa.String(length=32), nullable=False),
        sa.Column("open_key", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("value", sa.Integer(), nullable=False),
        sa.Column("old", PROSE, nullable=False),
        sa.Column("new", PROSE, nullable=False),
        sa.Column("reason", PROSE, nullable=False),
        sa.Column("baseline", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("planned_at", sa.BigInteger(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("settled_at", sa.BigInteger(), nullable=True),
        sa.Column("settled_run", sa.String(length=32), nullable=True),
        sa.Column("error", PROSE, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("open_key", name=op.f("uq_change_open_key")),
        **TABLE_OPTIONS,
    )
    with op.batch_alter_table("change", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_change_person_id"), ["person_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_change_run_id"), ["run_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_change_settled_run"), ["settled_run"], unique=False)
        batch_op.create_index("ix_change_in_order", ["state", "target", "value", "id"], unique=False)

    op.create_table(
        "contact",
        sa.Column("person_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("address", sa.String(length=320), nullable=True),
        sa.Column("fields", PROSE, nullable=False),
        sa.Column("tags", PROSE, nullable=False),
        sa.Column("points", sa.Integer(), nullable=False),
        sa.Column("stage_id", sa.Integer(), nullable=True),
        sa.Column("dnc", PROSE, nullable=False),
        sa.Column("date_added", sa.BigInteger(), nullable=True),
        sa.Column("date_modified", sa.BigInteger(), nullable=True),
        sa.Column("date_identified", sa.BigInteger(), nullable=True),
        sa.Column("last_active", sa.BigInteger(), nullable=True),
        sa.Column("digest", sa.String(length=32), nullable=False),
        sa.Column("seen", sa.Integer(), nullable=False),
        sa.Column("dirty", sa.SmallInteger(), nullable=False),
        sa.Column("vanished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("person_id"),
        **TABLE_OPTIONS,
    )
    with op.batch_alter_table("contact", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_contact_address"), ["address"], unique=False)
        batch_op.create_index(batch_op.f("ix_contact_dirty"), ["dirty"], unique=False)
        batch_op.create_index(batch_op.f("ix_contact_stage_id"), ["stage_id"], unique=False)

    op.create_table(
        "credit",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.String(length=320), nullable=False),
        sa.Column("credits", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **TABLE_OPTIONS,
    )
    with op.batch_alter_table("credit", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_credit_at"), ["at"], unique=False)

    op.create_table(
        "decision",
        sa.Column("person_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("stage", sa.String(length=191), nullable=False),
        sa.Column("score", sa.Integer(), nullable=False),
        sa.Column("rule", sa.String(length=191), nullable=False),
        sa.Column("reason", PROSE, nullable=False),
        sa.Column("trace", PROSE, nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("asks", sa.Boolean(), nullable=False),
        sa.Column("waiting", sa.Boolean(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("person_id"),
        **TABLE_OPTIONS,
    )
    with op.batch_alter_table("decision", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_decision_asks"), ["asks"], unique=False)
        batch_op.create_index(batch_op.f("ix_decision_due_at"), ["due_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_decision_kind"), ["kind"], unique=False)

    op.create_table(
        "dnc",
        sa.Column("person_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.Integer(), nullable=False),
        sa.Column("restore", sa.Boolean(), nullable=False),
        sa.Column("ours", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("person_id", "channel"),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "evidence",
        sa.Column("matcher", sa.String(length=32), nullable=False),
        sa.Column("activity_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("matcher", "activity_id"),
        **TABLE_OPTIONS,
    )
    with op.batch_alter_table("evidence", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_evidence_person_id"), ["person_id"], unique=False)

    op.create_table(
        "feed_cursor",
        sa.Column("feed", sa.String(length=64), nullable=False),
        sa.Column("last_id", sa.BigInteger(), nullable=False),
        sa.Column("resume_from", sa.BigInteger(), nullable=False),
        sa.Column("mark", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("feed"),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "membership",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("object_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("person_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("kind", "object_id", "person_id"),
        **TABLE_OPTIONS,
    )
    with op.batch_alter_table("membership", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_membership_person_id"), ["person_id"], unique=False)

    op.create_table(
        "merge",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("rule", sa.String(length=32), nullable=False),
        sa.Column("survivor", sa.BigInteger(), nullable=False),
        sa.Column("loser", sa.BigInteger(), nullable=False),
        sa.Column("before", PROSE, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", PROSE, nullable=False),
        sa.PrimaryKeyConstraint("key"),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "person",
        sa.Column("id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("redirect_to", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **TABLE_OPTIONS,
    )
    with op.batch_alter_table("person", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_person_redirect_to"), ["redirect_to"], unique=False)

    op.create_table(
        "plan",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.Column("totals", PROSE, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "quarantine",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("source", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("reason", PROSE, nullable=False),
        sa.Column("excerpt", PROSE, nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("resolved_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("source", "key", name=op.f("uq_quarantine_source_key")),
        **TABLE_OPTIONS,
    )
    with op.batch_alter_table("quarantine", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_quarantine_run_id"), ["run_id"], unique=False)

    op.create_table(
        "run",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("command", sa.String(length=32), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("summary", PROSE, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        **TABLE_OPTIONS,
    )
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_run_started_at"), ["started_at"], unique=False)

    op.create_table(
        "standing",
        sa.Column("person_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("stage", sa.String(length=191), nullable=True),
        sa.Column("stage_at", sa.BigInteger(), nullable=True),
        sa.Column("written", PROSE, nullable=False),
        sa.Column("manual_stage", sa.String(length=191), nullable=True),
        sa.Column("manual_since", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("person_id"),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "transition",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=False),
        sa.Column("from_stage", sa.String(length=191), nullable=True),
        sa.Column("to_stage", sa.String(length=191), nullable=False),
        sa.Column("from_kind", sa.String(length=16), nullable=True),
        sa.Column("to_kind", sa.String(length=16), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("change_id", sa.BigInteger(), nullable=False),
        sa.Column("baseline", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **TABLE_OPTIONS,
    )
    with op.batch_alter_table("transition", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_transition_person_id"), ["person_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_transition_run_id"), ["run_id"], unique=False)

    op.create_table(
        "verdict",
        sa.Column("address", sa.String(length=320), nullable=False),
        sa.Column("status", sa.String(length=64), nullable=False),
        sa.Column("sub_status", sa.String(length=64), nullable=False),
        sa.Column("did_you_mean", sa.String(length=320), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("raw", PROSE, nullable=False),
        sa.PrimaryKeyConstraint("address"),
        **TABLE_OPTIONS,
    )
