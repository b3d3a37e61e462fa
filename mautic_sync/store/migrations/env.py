"""Run by Alembic: applies the migrations over the connection that `store.engine.migrate` opened."""

from typing import Any

from alembic import context

from mautic_sync.store.schema import metadata
from mautic_sync.store.text import Line, Prose


def plain_type(kind: str, one: Any, _context: Any) -> Any:
    """Migrations name the types of the database, not ours, which may change."""
    if kind == "type" and isinstance(one, Line):
        return f"sa.String({one.longest})"
    return "PROSE" if kind == "type" and isinstance(one, Prose) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    render_item=plain_type,
)
with context.begin_transaction():
    context.run_migrations()
