"""Opening the store: connection, schema, and the lock that keeps runs apart.

The lock belongs to the operating system (SQLite) or to the database session (PostgreSQL, MariaDB), so a crash never
leaves it behind.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Table, create_engine, event, inspect, text
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError

from mautic_sync.errors import ConfigError, StopError, StoreBusyError

MIGRATIONS = Path(__file__).parent / "migrations"
SQLITE_BUSY_SECONDS = 15
LOCK_POLL_SECONDS = 0.2
T = TypeVar("T")
LOCK_NUMBER = 0x6D5359  # "mSY": the key of the advisory lock on PostgreSQL


def open_engine(url: str) -> Engine:
    """Connect to the store and bring its schema up to date. Raises ConfigError or StopError with what to do."""
    try:
        parsed = make_url(url)
        engine = create_engine(parsed)
    except (ArgumentError, NoSuchModuleError) as error:
        msg = "store.url is no SQLAlchemy URL of a supported database; write for example sqlite:///var/mautic_sync.db"
        raise ConfigError(msg) from error
    except ModuleNotFoundError as error:
        msg = f"store.url needs the driver {error.name}; install mautic-sync[postgresql] or mautic-sync[mariadb]"
        raise ConfigError(msg) from error
    if parsed.get_backend_name() == "sqlite":
        if parsed.database and parsed.database != ":memory:":
            try:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                msg = f"cannot make the directory of the store {parsed.database}: {error.strerror}"
                raise StopError(msg) from error
        event.listen(engine, "connect", _prepare_sqlite)
    try:
        migrate(engine)
    except OperationalError as error:
        msg = f"cannot open the store {parsed.render_as_string()}: {error.orig}. Check store.url and that it is up."
        raise StopError(msg) from error
    except DatabaseError as error:
        msg = (
            f"the store {parsed.render_as_string()} is damaged or no database of ours: {error.orig}. Restore a backup."
        )
        raise StopError(msg) from error
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # FULL: an intent must outlive a power cut, or a write could be made twice.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_SECONDS * 1000}")
    cursor.close()


def alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def migrate(engine: Engine) -> None:
    """Apply the migrations that are missing; a store of a newer version is refused."""
    config = alembic_config()
    scripts = ScriptDirectory.from_config(config)
    head = scripts.get_current_head()
    with engine.begin() as connection:
        if inspect(connection).has_table("alembic_version"):
            present = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
            if present == head:
                return
            if present is not None and present not in {script.revision for script in scripts.walk_revisions()}:
                msg = "the store was written by a newer mautic-sync; upgrade this one or restore a backup"
                raise StopError(msg)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def run_lock(engine: Engine, wait: float = 0) -> Iterator[None]:
    """Hold the store alone. Raises StoreBusyError when another run still holds it after `wait` seconds."""
    deadline = time.monotonic() + wait
    backend = engine.url.get_backend_name()
    if backend == "sqlite":
        with _file_lock(engine.url.database, deadline):
            yield
        return
    take, give_back = {
        "postgresql": ("SELECT pg_try_advisory_lock(:key)", "SELECT pg_advisory_unlock(:key)"),
        "mysql": (
            "SELECT GET_LOCK(CONCAT('mautic_sync', :key, DATABASE()), 0)",
            "SELECT RELEASE_ALL_LOCKS() + 0 * :key",
        ),
        "mariadb": (
            "SELECT GET_LOCK(CONCAT('mautic_sync', :key, DATABASE()), 0)",
            "SELECT RELEASE_ALL_LOCKS() + 0 * :key",
        ),
    }[backend]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(text(take), {"key": LOCK_NUMBER}).scalar():
            _wait_or_refuse(deadline)
        try:
            yield
        finally:
            connection.execute(text(give_back), {"key": LOCK_NUMBER})


@contextmanager
def _file_lock(database: str | None, deadline: float) -> Iterator[None]:
    if not database or database == ":memory:":
        yield
        return
    handle = os.open(f"{database}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _wait_or_refuse(deadline)
        yield
    finally:
        os.close(handle)


def _wait_or_refuse(deadline: float) -> None:
    if time.monotonic() >= deadline:
        msg = "another run holds this store; wait for it, or use --wait SECONDS"
        raise StoreBusyError(msg)
    time.sleep(LOCK_POLL_SECONDS)


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    update: Iterable[str] | None = None,
) -> None:
    """Insert rows; where the primary key exists, update the columns named (all given ones by default; `()` = none)."""
    if not rows:
        return
    keys = [column.name for column in table.primary_key]
    columns = [name for name in (update if update is not None else rows[0]) if name not in keys]
    backend = connection.dialect.name
    if backend in {"mysql", "mariadb"}:
        insert = mysql.insert(table)
        changed = {name: insert.inserted[name] for name in columns} or {keys[0]: table.c[keys[0]]}
        connection.execute(insert.on_duplicate_key_update(**changed), list(rows))
        return
    statement: Any = (postgresql.insert if backend == "postgresql" else sqlite.insert)(table)
    if columns:
        statement = statement.on_conflict_do_update(
            index_elements=keys, set_={name: statement.excluded[name] for name in columns}
        )
    else:
        statement = statement.on_conflict_do_nothing()
    connection.execute(statement, list(rows))


def in_chunks(values: Sequence[T], size: int = 500) -> Iterator[Sequence[T]]:
    """Slices short enough for one IN (...) on every database."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
