"""Looks at a store without making, migrating, locking or writing anything, whatever state it is in."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, func, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from mautic_sync.errors import ConfigError, StopError
from mautic_sync.store.engine import CONNECT_SECONDS, LOCK_NAME, LOCK_NUMBER, parse_url, said_by, version_of
from mautic_sync.store.migrations import HEAD
from mautic_sync.store.schema import run

MOST_FAULTS = 5  # of a damaged file that are told
_WRITE_LOCKS = re.compile(r"FLOCK\s+ADVISORY\s+WRITE\s+(\d+)\s+[0-9a-f]+:[0-9a-f]+:(\d+)\s", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is, by its URL. `file` is None for a database server; `shown` has no password."""

    url: URL
    shown: str
    file: Path | None

    @property
    def exists(self) -> bool:
        """Whether there is a file; a server's database counts as there."""
        return self.file is None or self.file.is_file()

    @property
    def directory(self) -> Path | None:
        """The nearest directory that is there already, on whose disk the store is or will be."""
        if self.file is None:
            return None
        return next(one for one in self.file.absolute().parents if one.is_dir())


def place_of(url: str) -> Place:
    """Raises ConfigError for a URL that names no store."""
    parsed = parse_url(url)
    database = parsed.database
    in_file = parsed.get_backend_name() == "sqlite" and database and database != ":memory:"
    return Place(parsed, parsed.set(query={}).render_as_string(), Path(str(database)) if in_file else None)


@contextmanager
def looked_at(place: Place) -> Iterator[Connection]:
    """A connection that cannot write. Raises StopError when the store is not there or cannot be opened."""
    options: dict[str, Any] = {"poolclass": NullPool}
    if place.file is not None:
        if not place.exists:
            raise StopError(f"There is no store at {place.shown} yet. Run `mautic-sync init`.")
        options["creator"] = partial(_open_file, place.file)
    elif place.url.get_backend_name() != "sqlite":
        options["connect_args"] = {} if "connect_timeout" in place.url.query else {"connect_timeout": CONNECT_SECONDS}
    try:
        engine = create_engine(place.url, **options)
    except ImportError:
        extra = "postgresql" if place.url.get_backend_name() == "postgresql" else "mariadb"
        raise ConfigError(
            f"store.url needs the driver {place.url.get_driver_name()}. Run `pip install 'mautic-sync[{extra}]'`."
        ) from None
    try:
        with engine.connect() as connection:
            _only_reading(connection)
            yield connection
    except DBAPIError as error:
        raise StopError(
            f"The store {place.shown} cannot be read: {said_by(error, place.url)}. {_way_out(place)}"
        ) from None
    finally:
        engine.dispose()


def _way_out(place: Place) -> str:
    if place.file is not None and not os.access(place.file, os.R_OK):
        return (
            "Give this user the right to read and write it, or run as the one to whom it belongs; nothing is damaged."
        )
    if place.file is not None:
        return "Stop the worker and restore a backup; without one, move the file away: everything but verdicts is read anew."
    return "Check store.url, and that the database server is up and lets this user in."


def _open_file(path: Path) -> sqlite3.Connection:
    address = f"file:{quote(str(path.absolute()))}"
    # A journal is there while somebody has the store open, and after a crash. Without one, nothing but the file is
    # touched: an ordinary reader would make two files beside it.
    quiet = not Path(f"{path}-wal").exists()
    return sqlite3.connect(f"{address}?mode=ro{'&immutable=1' if quiet else ''}", uri=True, check_same_thread=False)


def _only_reading(connection: Connection) -> None:
    backend = connection.dialect.name
    if backend == "sqlite":
        connection.exec_driver_sql("PRAGMA query_only = ON")
    elif backend == "postgresql":
        connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
        connection.commit()
    else:
        connection.execute(text("SET SESSION TRANSACTION READ ONLY"))
        connection.commit()


def faults(connection: Connection) -> list[str]:
    """What SQLite finds broken in its file, the first few; a database server is asked for one answer."""
    if connection.dialect.name != "sqlite":
        connection.execute(text("SELECT 1")).scalar()
        return []
    found = connection.exec_driver_sql(f"PRAGMA integrity_check({MOST_FAULTS})").scalars()
    return [line for line in found if line != "ok"]


def version(connection: Connection) -> str | None:
    """The version of the tables; None where there are none yet."""
    return version_of(connection)


def is_current(found: str | None) -> bool:
    return found == HEAD


def is_newer(found: str) -> bool:
    """Whether the tables are of a version that this program does not know; versions are numbers."""
    return found > HEAD


def last_start_until(connection: Connection, moment: int) -> int | None:
    """When the last run began of those that went by no later time than this."""
    found: int | None = connection.execute(
        select(func.max(run.c.started_at)).where(run.c.started_at <= moment)
    ).scalar()
    return found


def last_good_run(connection: Connection, commands: Collection[str], codes: Collection[int]) -> tuple[int, int] | None:
    """When the last run of these commands that ended with one of these exit codes began and ended."""
    query = (
        select(run.c.started_at, run.c.ended_at)
        .where(run.c.command.in_(commands), run.c.exit_code.in_(codes))
        .order_by(run.c.started_at.desc(), run.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else (row.started_at, row.ended_at or row.started_at)


def last_exit_codes(connection: Connection, commands: Collection[str], limit: int) -> list[int | None]:
    """How the last runs of these commands ended, the newest first; None: running, or killed."""
    query = (
        select(run.c.exit_code)
        .where(run.c.command.in_(commands))
        .order_by(run.c.started_at.desc(), run.c.id.desc())
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


# -- the lock -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody holds the run lock: the process here, or the session on the database server; None where it is unknown."""

    number: int | None


def lock_holder(place: Place, connection: Connection | None) -> Holder | None:
    """Who holds the run lock; None: nobody does."""
    if place.file is not None:
        return _holder_of_file(Path(f"{os.path.realpath(place.file)}.lock"))
    if connection is None or connection.dialect.name == "sqlite":
        return None
    query = _HOLDER["postgresql" if connection.dialect.name == "postgresql" else "mariadb"]
    number = connection.execute(text(query), {"key": LOCK_NUMBER}).scalar()
    return None if number is None else Holder(int(number))


_HOLDER = {
    "postgresql": (
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND classid::bigint = :key "
        "AND objid::bigint = (hashtext(coalesce(current_schema(), ''))::bigint & 4294967295) LIMIT 1"
    ),
    "mariadb": f"SELECT IS_USED_LOCK({LOCK_NAME})",
}


def _holder_of_file(path: Path) -> Holder | None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None  # nobody ever ran here
    try:
        listed = _listed_holder(os.fstat(handle).st_ino)
        if listed is not None:
            return listed
        # Not in the list of this machine, or there is none: the lock of another container is only felt by trying.
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return Holder(None)
        return None
    finally:
        os.close(handle)


def _listed_holder(inode: int) -> Holder | None:
    with suppress(OSError):
        for pid, locked in _WRITE_LOCKS.findall(Path("/proc/locks").read_text(encoding="ascii", errors="replace")):
            if int(locked) == inode:
                return Holder(int(pid) or None)
    return None


# -- room -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes: free on the store's disk, and what the store takes; `writable`: whether this user may write there."""

    free: int
    used: int
    writable: bool


def room_of(place: Place) -> Room | None:
    """None for a database server, whose disk cannot be seen from here."""
    if place.file is None or place.directory is None:
        return None
    beside = [place.file, Path(f"{place.file}-wal")]
    used = sum(one.stat().st_size for one in beside if one.exists())
    writable = os.access(place.directory, os.W_OK) and (not place.exists or os.access(place.file, os.W_OK))
    return Room(shutil.disk_usage(place.directory).free, used, writable)
