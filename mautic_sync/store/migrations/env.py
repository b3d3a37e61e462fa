"""Run by Alembic: applies the migrations over the connection that `store.engine.migrate` opened."""

from alembic import context

from mautic_sync.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
