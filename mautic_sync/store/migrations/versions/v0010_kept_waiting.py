"""Who waited for a verdict when the baseline was made: kept by name, no longer guessed from Mautic's dates"""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MARIADB = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}
TABLE_OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value for dialect in ("mysql", "mariadb") for name, value in MARIADB.items()
}
# As it was guessed until now: who waits, and was known to Mautic before the baseline began.
FILL = """
INSERT INTO kept_waiting (person_id)
SELECT decision.person_id FROM decision JOIN contact ON contact.person_id = decision.person_id
WHERE decision.waiting AND COALESCE(contact.date_identified, contact.date_added, 0) <= :at
"""


def upgrade() -> None:
    # On MariaDB each statement is its own transaction: what a migration that was cut short has made stays.
    connection = op.get_bind()
    if not sa.inspect(connection).has_table("kept_waiting"):
        op.create_table(
            "kept_waiting",
            sa.Column("person_id", ROW_ID, autoincrement=False, nullable=False),
            sa.PrimaryKeyConstraint("person_id"),
            **TABLE_OPTIONS,
        )
    meta = sa.table("meta", sa.column("key"), sa.column("value"))
    noted = connection.execute(sa.select(meta.c.value).where(meta.c.key == "baseline")).scalar()
    baseline = json.loads(noted) if noted else {"with_actions": True}
    if not baseline.get("with_actions"):
        op.execute("DELETE FROM kept_waiting")
        connection.execute(sa.text(FILL), {"at": baseline["at"]})
