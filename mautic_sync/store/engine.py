"""Opening the store: connection, schema, and the lock that keeps runs apart.

The lock belongs to the operating system (SQLite) or to the database session (PostgreSQL, MariaDB), so a crash never
leaves it behind.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import orjson
from sqlalchemy import (
    Connection,
    CursorResult,
    Engine,
    Select,
    Table,
    UniqueConstraint,
    bindparam,
    create_engine,
    event,
    func,
    inspect,
    literal,
    select,
    text,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.schema import DropTable
from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_fixed

from mautic_sync.errors import ConfigError, StopError, StoreBusyError
from mautic_sync.store.bulk import execute_many, execute_rows
from mautic_sync.store.failures import way_out
from mautic_sync.store.migrations import HEAD
from mautic_sync.store.schema import metadata

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "alembic_version"
# What people write → the driver that our extras install.
DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mysql+pymysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "mariadb+pymysql": "mariadb+pymysql",
}
SQLITE_BUSY_SECONDS = 15
SQLITE_PAGE_BYTES = 2_048  # of a new file: half of SQLite's own, for what changes is mostly one row of a page
SQLITE_WAL_BYTES = 2**26  # of journal beside the file; SQLite's own 1,000 pages are less than one transaction of a run
SPARSE = 4  # times as many numbers in a range as are asked for
CONNECT_SECONDS = 10
MIGRATION_SECONDS = 600  # how long one process waits for another that migrates
LOCK_POLL_SECONDS = 0.2
T = TypeVar("T")
LOCK_NUMBER = 0x6D5359  # "mSY": the key of the advisory lock on PostgreSQL


def open_engine(url: str) -> Engine:
    """Connect to the store and bring its schema up to date. Raises ConfigError or StopError with what to do."""
    parsed = parse_url(url)
    place = parsed.set(query={}).render_as_string()
    options: dict[str, Any] = {}
    if parsed.get_backend_name() == "sqlite":
        _make_place(parsed)
    else:
        # A server that was restarted, or that closed idle connections, is no reason to fail.
        options["pool_pre_ping"] = True
        # One meaning on both servers; MariaDB's own default locks the gaps between rows as well.
        options["isolation_level"] = "READ COMMITTED"
        arguments: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS}
        if parsed.get_backend_name() == "postgresql":
            # A cluster that was made without a locale says SQL_ASCII, and its text would arrive as bytes.
            arguments["client_encoding"] = "UTF8"
        options["connect_args"] = {name: value for name, value in arguments.items() if name not in parsed.query}
    try:
        engine = create_engine(parsed, **options)
    except ImportError as error:
        extra = "postgresql" if parsed.get_backend_name() == "postgresql" else "mariadb"
        msg = f"store.url needs the driver {parsed.get_driver_name()}: pip install 'mautic-sync[{extra}]'"
        raise ConfigError(msg) from error
    event.listen(engine, "connect", _PREPARE[parsed.get_backend_name()])
    try:
        migrate(engine)
    except BaseException as error:
        engine.dispose()
        if isinstance(error, TypeError | ProgrammingError) and parsed.query:
            msg = f"store.url: {place} could not be opened with the options after the `?`: {said_by(error, parsed)}"
            raise ConfigError(msg) from error
        if isinstance(error, OperationalError | InterfaceError):
            said = said_by(error, parsed)
            in_a_file = parsed.get_backend_name() == "sqlite"
            check = "that this user may write its directory" if in_a_file else "that it is up"
            msg = f"cannot open the store {place}: {said}. {way_out(said) or f'Check store.url and {check}.'}"
            raise StopError(msg) from error
        if isinstance(error, DBAPIError) and parsed.get_backend_name() == "sqlite":
            msg = (
                f"the store {place} is damaged or no database of ours: {said_by(error, parsed)}. Put a backup back with "
                "`mautic-sync restore FILE --force`; the damaged file is kept."
            )
            raise StopError(msg) from error
        if isinstance(error, DBAPIError):
            msg = (
                f"the store {place} refused to be set up: {said_by(error, parsed)}. Give mautic-sync a database of its "
                "own, and a user with all rights in it."
            )
            raise StopError(msg) from error
        raise
    return engine


def parse_url(url: str) -> URL:
    """`store.url` with the driver that our extras install. Raises ConfigError for what names no supported database."""
    try:
        parsed = make_url(url)
        driver = DRIVERS.get(parsed.drivername)
    except (ArgumentError, ValueError):
        driver = None
    if driver is None:
        msg = (
            "store.url is no SQLAlchemy URL of a supported database; write sqlite:///var/mautic_sync.db, "
            "postgresql://user:password@host/database or mariadb://user:password@host/database"
        )
        raise ConfigError(msg)
    if driver != "sqlite" and "@" in f"{parsed.host}{parsed.database}":
        msg = "store.url: write the special characters of user and password percent-encoded, for example %40 for @"
        raise ConfigError(msg)
    return parsed.set(drivername=driver)


def _make_place(url: URL) -> None:
    if not url.database or url.database == ":memory:":
        return
    path = Path(url.database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = (
            f"cannot make the directory of the store {url.database}: {error.strerror}. Check store.url, and that this "
            "user may write there."
        )
        raise StopError(msg) from error
    if not url.database.startswith("file:"):
        # It will hold names and addresses: its owner's alone. Where it cannot be made, SQLite says so.
        with suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def said_by(error: BaseException, url: URL) -> str:
    """What the driver told, in one line and without the password."""
    told = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    # PyMySQL: (number, sentence).
    text_ = " ".join(str(told.args[-1] if told.args else told).split()).rstrip(".")
    return text_.replace(str(url.password), "***") if url.password else text_


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_SECONDS * 1000}")
    cursor.execute(f"PRAGMA page_size={SQLITE_PAGE_BYTES}")
    if cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        _write_ahead(cursor)
    # FULL: an intent must outlive a power cut, or a write could be made twice.
    cursor.execute("PRAGMA synchronous=FULL")
    # Pages that are written again and again reach the file once, and each transaction syncs one file, not two.
    (page_bytes,) = cursor.execute("PRAGMA page_size").fetchone()
    cursor.execute(f"PRAGMA wal_autocheckpoint={SQLITE_WAL_BYTES // page_bytes}")
    cursor.close()


@retry(
    retry=retry_if_exception_message(match=".*locked"),
    stop=stop_after_delay(SQLITE_BUSY_SECONDS),
    wait=wait_fixed(LOCK_POLL_SECONDS),
    reraise=True,
)
def _write_ahead(cursor: Any) -> None:
    """A new file's journal is changed while nobody else has it open; SQLite does not wait for that by itself."""
    cursor.execute("PRAGMA journal_mode=WAL")


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in {"UTF8", "SQL_ASCII"}:
        msg = f"the database of store.url keeps text as {encoding}; make one with ENCODING 'UTF8' TEMPLATE template0"
        raise ConfigError(msg)


def _prepare_mariadb(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # Too long or broken values are refused, never cut, whatever the server's settings say.
    cursor.execute("SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'")
    # A list of many numbers is looked up one by one. Above a number of them the server would guess instead how many
    # rows they have, take a column of which most is NULL for one value, and read the whole table.
    cursor.execute("SET SESSION eq_range_index_dive_limit = 0")
    cursor.close()


_PREPARE = {
    "sqlite": _prepare_sqlite,
    "postgresql": _prepare_postgresql,
    "mysql": _prepare_mariadb,
    "mariadb": _prepare_mariadb,
}


def migrate(engine: Engine, to: str = HEAD) -> None:
    """Apply the migrations that are missing, up to `to`, once, however many processes start at the same time.

    Raises StopError for a store of a newer version and for a database that another program uses.
    """
    with engine.connect() as connection:
        if version_of(connection) == to:
            return
    # Only now: nearly every command finds its store up to date, and is quicker to start without Alembic.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    with engine.connect() as connection, _migrating(connection):
        present = version_of(connection)
        if present == to:
            return
        if present is not None and present not in {script.revision for script in scripts.walk_revisions()}:
            msg = (
                f"the store has version {present}, which this mautic-sync does not know: it was written by a newer "
                "one. Upgrade this one or restore a backup."
            )
            raise StopError(msg)
        if present is None:
            _clear_for_first_migration(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, to)


def version_of(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608


@contextmanager
def _migrating(connection: Connection) -> Iterator[None]:
    """One transaction in which nobody else migrates; on MariaDB a lock, for there each statement is its own."""
    backend = connection.dialect.name
    if backend == "sqlite":
        connection.exec_driver_sql(f"PRAGMA busy_timeout={MIGRATION_SECONDS * 1000}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif backend == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key, 1)"), {"key": LOCK_NUMBER})
    else:
        name = connection.execute(text("SELECT CONCAT('mautic_sync migration ', MD5(DATABASE()))")).scalar()
        connection.execute(text("SELECT GET_LOCK(:name, :wait)"), {"name": name, "wait": MIGRATION_SECONDS})
    try:
        yield
        connection.commit()
    finally:
        if backend == "sqlite":
            connection.exec_driver_sql(f"PRAGMA busy_timeout={SQLITE_BUSY_SECONDS * 1000}")
        elif backend != "postgresql":
            connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": name})


def _clear_for_first_migration(connection: Connection) -> None:
    """Refuse tables of another program; what a first migration left that was cut short on MariaDB is taken away."""
    present = sorted(set(inspect(connection).get_table_names()) & set(metadata.tables))
    if not present:
        return
    began_here = inspect(connection).has_table(VERSION_TABLE)
    if not began_here or any(
        connection.execute(select(literal(1)).select_from(metadata.tables[name]).limit(1)).first() for name in present
    ):
        msg = (
            f"the database of store.url has tables of another program ({', '.join(present)}); give mautic-sync a "
            "database of its own"
        )
        raise StopError(msg)
    for name in present:
        connection.execute(DropTable(metadata.tables[name]))


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection for reports: everything it reads is as of one moment, and no writer waits for it."""
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection
        return
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        yield connection


def run_lock(engine: Engine, wait: float = 0) -> AbstractContextManager[None]:
    """Hold the store alone. Raises StoreBusyError when another run still holds it after `wait` seconds."""
    busy = "another run holds this store; wait for it, or use --wait SECONDS"
    return _lock(engine, wait, LOCK_NUMBER, ".lock", busy)


def worker_lock(engine: Engine, wait: float = 0) -> AbstractContextManager[None]:
    """Be the only worker of this store; between its runs the run lock is free for commands by hand.

    Raises StoreBusyError when another worker still serves the store after `wait` seconds.
    """
    busy = "another `mautic-sync run` serves this store; stop it, or use --wait SECONDS"
    return _lock(engine, wait, LOCK_NUMBER + 1, ".worker.lock", busy)


@contextmanager
def _lock(engine: Engine, wait: float, number: int, suffix: str, busy: str) -> Iterator[None]:
    deadline = time.monotonic() + wait
    if engine.dialect.name == "sqlite":
        with _file_lock(engine.url.database, suffix, deadline, busy):
            yield
        return
    take, give_back, *prepare = _LOCK_STATEMENTS["postgresql" if engine.dialect.name == "postgresql" else "mariadb"]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Never back to the pool: the lock ends with this session, whatever happens.
        connection.detach()
        for statement in prepare:
            connection.execute(text(statement))
        while not connection.execute(text(take), {"key": number}).scalar():
            _wait_or_refuse(deadline, busy)
        try:
            yield
        finally:
            # A server that went away has given the lock back, and the run has its own error to tell.
            with suppress(DBAPIError):
                connection.execute(text(give_back), {"key": number})


LOCK_NAME = "CONCAT('mautic_sync ', :key, ' ', MD5(DATABASE()))"  # at most 64 characters
# Servers may close a session that is idle for some time, and the lock would be gone in the middle of a long run: the last
# statements keep them from it.
_LOCK_STATEMENTS = {
    "postgresql": (
        "SELECT pg_try_advisory_lock(:key, hashtext(coalesce(current_schema(), '')))",
        "SELECT pg_advisory_unlock(:key, hashtext(coalesce(current_schema(), '')))",
        # Since 14, and off unless somebody sets it.
        "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'",
    ),
    "mariadb": (
        f"SELECT GET_LOCK({LOCK_NAME}, 0)",
        f"SELECT RELEASE_LOCK({LOCK_NAME})",
        "SET SESSION wait_timeout = 2147483",
    ),
}


@contextmanager
def _file_lock(database: str | None, suffix: str, deadline: float, busy: str) -> Iterator[None]:
    if not database or database == ":memory:":
        yield
        return
    # One file, one lock, by whatever link it is reached.
    path = f"{os.path.realpath(database)}{suffix}"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        msg = f"cannot open {path}, which keeps runs apart: {error.strerror}. Give this user the right to write it."
        raise StopError(msg) from error
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _wait_or_refuse(deadline, busy)
        yield
    finally:
        os.close(handle)


def _wait_or_refuse(deadline: float, busy: str) -> None:
    if time.monotonic() >= deadline:
        raise StoreBusyError(busy)
    time.sleep(LOCK_POLL_SECONDS)


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    update: Iterable[str] | None = None,
) -> None:
    """Insert rows; where the primary key exists, update the columns named (all given ones by default; `()` = none)."""
    if rows:
        columns = tuple(update if update is not None else rows[0])
        execute_many(connection, table, _upserting(connection.dialect.name, table, columns), rows)


def upsert_rows(connection: Connection, table: Table, names: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    """`upsert` of rows that have these columns, in this order."""
    if rows:
        execute_rows(connection, table, _upserting(connection.dialect.name, table, names), names, rows)


def upsert_over(
    connection: Connection,
    table: Table,
    names: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
    before: Mapping[int, Any],
) -> None:
    """`upsert_rows` where it is known what was there: `before` has it by the first column, the key.

    SQLite writes to the indexes of each column that is set, be it to the value it had; an index has its pages all over
    the file. So indexed columns are set only for the rows that change them.
    """
    indexed = _indexed(table, names)
    by_same: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for row in {row[0]: row for row in rows}.values():  # of several for one key the last counts
        old = before.get(row[0])
        same = () if old is None else tuple([name for place, name in indexed if row[place] == getattr(old, name)])
        by_same.setdefault(same, []).append(row)
    for same, some in by_same.items():
        columns = tuple(name for name in names if name not in same)
        execute_rows(connection, table, _upserting(connection.dialect.name, table, columns), names, some)


@lru_cache(maxsize=64)
def _indexed(table: Table, names: tuple[str, ...]) -> list[tuple[int, str]]:
    """Columns among these that stand in an index, with their places."""
    indexed = {column.name for index in table.indexes for column in index.columns}
    return [(place, name) for place, name in enumerate(names) if name in indexed]


@lru_cache(maxsize=64)
def _upserting(backend: str, table: Table, columns: tuple[str, ...]) -> Any:
    # MariaDB's ON DUPLICATE KEY would take a clash there for one of the primary key, and change the wrong row.
    if any(isinstance(one, UniqueConstraint) for one in table.constraints):
        msg = f"{table.name} has another unique key: an upsert would be ambiguous"
        raise ValueError(msg)
    keys = [column.name for column in table.primary_key]
    changed = [name for name in columns if name not in keys]
    if backend in {"mysql", "mariadb"}:
        insert = mysql.insert(table)
        values = {name: insert.inserted[name] for name in changed} or {keys[0]: table.c[keys[0]]}
        return insert.on_duplicate_key_update(**values)
    statement: Any = (postgresql.insert if backend == "postgresql" else sqlite.insert)(table)
    if not changed:
        return statement.on_conflict_do_nothing(index_elements=keys)
    return statement.on_conflict_do_update(
        index_elements=keys, set_={name: statement.excluded[name] for name in changed}
    )


def as_driven(result: CursorResult[Any]) -> list[Any]:
    """Rows straight from the driver, as tuples: for numbers and text, which are the same from all of them; 0 is False."""
    with result:
        return list(result.cursor.fetchall())


def rows_among(
    connection: Connection, query: Select[Any], column: Any, numbers: Sequence[int], *, driven: bool = False
) -> list[Any]:
    """The rows of a query in which this column has one of these ascending numbers; `driven`: as `as_driven` gives them.

    Where the numbers are close together one range does, which is one quick scan of the index. Those in between that
    are not asked for cost little, unless they are many; they are among the rows. The statements are made once for
    each query: one that is kept, not one that is made for each call.
    """
    read = as_driven if driven else CursorResult.all
    if numbers and numbers[-1] - numbers[0] < SPARSE * len(numbers):
        return list(read(connection.execute(_within(query, column), {"first": numbers[0], "last": numbers[-1]})))
    return rows_listed(connection, query, column, numbers, driven=driven)


def rows_listed(
    connection: Connection, query: Select[Any], column: Any, values: Sequence[Any], *, driven: bool = False
) -> list[Any]:
    """`rows_among` where nothing lies between the values: they are texts, or far from each other."""
    read = as_driven if driven else CursorResult.all
    if connection.dialect.name == "sqlite":
        among = {"values": orjson.dumps(list(values)).decode()}
        return list(read(connection.execute(_listed_as_json(query, column), among)))
    found: list[Any] = []
    for chunk in in_chunks(values):
        found += read(connection.execute(_listed(query, column), {"values": list(chunk)}))
    return found


@lru_cache(maxsize=64)
def _within(query: Select[Any], column: Any) -> Select[Any]:
    return query.where(column.between(bindparam("first"), bindparam("last")))


@lru_cache(maxsize=64)
def _listed(query: Select[Any], column: Any) -> Select[Any]:
    return query.where(column.in_(bindparam("values", expanding=True)))


@lru_cache(maxsize=64)
def _listed_as_json(query: Select[Any], column: Any) -> Select[Any]:
    """One parameter for all values: SQLAlchemy writes a list of many into the statement anew each time."""
    asked = func.json_each(bindparam("values")).table_valued("value", name="asked")
    return query.where(column.in_(select(asked.c.value)))


def in_chunks(values: Sequence[T], size: int = 500) -> Iterator[Sequence[T]]:
    """Slices short enough for one IN (...) on every database."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
