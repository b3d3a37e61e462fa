"""A whole store in one file, from any database and into any other.

The file is gzip: a line that says what it is, then for each table a line with its name and columns and one line for
each row, then a line with the counts. Lines are JSON. It is taken as of one moment, while a run may go on, and is read
again before it counts as taken. Memory does not grow with the store.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import re
import shutil
import sqlite3
import stat
import tempfile
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import URL, Connection, Engine, create_engine, delete, func, literal, select, text

from mautic_sync import __version__
from mautic_sync.errors import ConfigError, StopError
from mautic_sync.store import actions, carried, changes, notes
from mautic_sync.store.bulk import insert_many
from mautic_sync.store.engine import MIGRATIONS, migrate, open_engine, parse_url, reading, run_lock
from mautic_sync.store.migrations import HEAD
from mautic_sync.store.schema import metadata

PRODUCT = "mautic-sync store"
FORMAT = 1
ROWS_AT_ONCE = 5_000
RESTORED = "restored"
"""In a store that was restored and has not been compared with Mautic since: when, and what was restored."""
_GZIP = b"\x1f\x8b"
_PREPARED = ("store.db", "store.db-journal", "store.db-wal", "store.db-shm")
_COMPRESSION = 3  # of 9: most of the gain, a third of the time


@dataclass(frozen=True)
class Backup:
    """What a file holds. `mautic` is the address of the Mautic that the store belongs to, `schema` its version."""

    schema: str
    made_at: int
    mautic: str | None
    rows: int
    tables: Mapping[str, int]
    bytes: int

    def as_json(self) -> dict[str, Any]:
        return {
            "mautic": self.mautic,
            "made_at": self.made_at,
            "schema": self.schema,
            "rows": self.rows,
            "tables": dict(self.tables),
            "bytes": self.bytes,
        }


# -- taking one -----------------------------------------------------------------------------------------------------


def take(engine: Engine, path: Path, now: int) -> Backup:
    """Write the store to `path`, readable for its owner alone, and read it again; whole or not at all.

    Raises StopError for a damaged store, a full disk, and a place that cannot be written to.
    """
    if path.is_dir():
        msg = f"{path} is a directory; name a file in it"
        raise ConfigError(msg)
    if path.exists():
        _refuse_strangers(path)
    with _writing(path) as part:
        with reading(engine) as connection:
            _refuse_damaged(connection)
            counts = _write(connection, part, now)
        found = look(part)
        if found.schema != HEAD or dict(found.tables) != counts:
            msg = f"the backup {path} does not hold what the store does. Check the disk, and take it again."
            raise StopError(msg)
    return found


def _refuse_strangers(path: Path) -> None:
    """What is no backup is not overwritten."""
    try:
        with closing(_lines(path)) as lines:
            next(lines)
    except (StopError, StopIteration) as error:
        msg = f"{path} exists and is no backup of mautic-sync; choose another name"
        raise ConfigError(msg) from error


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """A new file beside `path`, that takes its place at the end. Until then it is locked: whoever takes it ends first."""
    part = handle = None
    prefix = f".{path.name}."
    try:
        _remove_parts(path.parent, prefix)
        handle, name = tempfile.mkstemp(prefix=prefix, dir=path.parent)  # 0600
        part = Path(name)
        with suppress(OSError):  # a disk without locks: nobody removes what nobody can lock
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        _keep_name(path.parent)
    except OSError as error:
        msg = f"cannot write the backup {path}: {error.strerror or error}. Give it room and the right to be written."
        raise StopError(msg) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _remove_parts(directory: Path, prefix: str) -> None:
    """What backups of this name that were killed left behind; not of one that goes on."""
    for part in _made_by_us(directory, prefix):
        with suppress(OSError):
            handle = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if stat.S_ISREG(os.fstat(handle).st_mode) and _GZIP.startswith(os.read(handle, len(_GZIP))):
                    part.unlink()
            finally:
                os.close(handle)


def _made_by_us(directory: Path, prefix: str) -> Iterator[Path]:
    """What of this user has a name that `tempfile` makes of the prefix."""
    named = re.compile(f"{re.escape(prefix)}[a-z0-9_]{{8}}")
    with suppress(OSError):  # a directory that may be written to need not be readable
        for path in list(directory.iterdir()):
            if named.fullmatch(path.name) and path.lstat().st_uid == os.geteuid():
                yield path


def _keep_name(directory: Path) -> None:
    """A power cut does not lose the name of a file that is in place."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refuse_damaged(connection: Connection) -> None:
    if connection.dialect.name != "sqlite":
        return
    said = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
    if said != "ok":
        msg = f"the store is damaged: {said}. Restore an older backup with `mautic-sync restore FILE --force`."
        raise StopError(msg)


def _write(connection: Connection, part: Path, now: int) -> dict[str, int]:
    head = {
        "product": PRODUCT,
        "format": FORMAT,
        "version": __version__,
        "schema": HEAD,
        "made_at": now,
        "mautic": notes.get(connection, "mautic"),
    }
    counts: dict[str, int] = {}
    with gzip.open(part, "wb", compresslevel=_COMPRESSION) as file:
        file.write(orjson.dumps(head) + b"\n")
        for name, table in metadata.tables.items():
            file.write(orjson.dumps({"table": name, "columns": [column.name for column in table.columns]}) + b"\n")
            query = select(table).order_by(*table.primary_key).execution_options(yield_per=ROWS_AT_ONCE)
            counts[name] = 0
            for rows in connection.execute(query).partitions():
                file.write(b"".join(orjson.dumps(tuple(row)) + b"\n" for row in rows))
                counts[name] += len(rows)
        file.write(orjson.dumps({"end": counts}) + b"\n")
    return counts


# -- reading one ----------------------------------------------------------------------------------------------------


def look(path: Path) -> Backup:
    """Read a backup from its first line to its last. Raises StopError for what is none of ours, newer, or damaged."""
    counts: dict[str, int] = {}
    with closing(_lines(path)) as lines:
        head = next(lines)
        name = ""
        for line in lines:
            if isinstance(line, list):
                counts[name] += 1
            elif "table" in line:
                name = line["table"]
                counts[name] = 0
    return Backup(
        schema=head["schema"],
        made_at=head["made_at"],
        mautic=head["mautic"],
        rows=sum(counts.values()),
        tables=counts,
        bytes=path.stat().st_size,
    )


def _lines(path: Path) -> Generator[Any]:
    """The lines of a backup, the first and the last of which were looked at."""
    counts: dict[str, int] = {}
    name = ""
    end: Any = None
    try:
        with gzip.open(path, "rb") as file:
            head = _head(path, file.readline())
            yield head
            for line in file:
                found = orjson.loads(line)
                if isinstance(found, list):
                    counts[name] += 1
                elif "table" in found:
                    name = found["table"]
                    counts[name] = 0
                else:
                    end = found["end"]
                    continue
                yield found
    except (EOFError, zlib.error, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise StopError(_damaged(path)) from error
    except gzip.BadGzipFile as error:
        told = _damaged(path) if counts else f"{path} is no backup of mautic-sync; `mautic-sync backup FILE` takes one."
        raise StopError(told) from error
    except OSError as error:
        msg = f"cannot read the backup {path}: {error.strerror or error}"
        raise StopError(msg) from error
    if end != counts:
        raise StopError(_damaged(path))


def _damaged(path: Path) -> str:
    return f"the backup {path} is damaged or ends too early. Use another one."


def _head(path: Path, line: bytes) -> dict[str, Any]:
    try:
        head = orjson.loads(line)
    except orjson.JSONDecodeError:
        head = None
    if not isinstance(head, dict) or head.get("product") != PRODUCT:
        whose = f" but of {head['product']}" if isinstance(head, dict) and head.get("product") else ""
        msg = f"{path} is no backup of mautic-sync{whose}; `mautic-sync backup FILE` takes one."
        raise StopError(msg)
    if head["format"] > FORMAT or head["schema"] not in _revisions():
        msg = (
            f"{path} was written by a newer mautic-sync ({head['version']}, store version {head['schema']}). Upgrade "
            f"this one ({__version__}, store version {HEAD}) first."
        )
        raise StopError(msg)
    return head


def _revisions() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}


# -- putting one back -----------------------------------------------------------------------------------------------


def restore(url: str, path: Path, *, now: int, force: bool = False, wait: float = 0) -> Backup:
    """Put a backup in the place of the store, whole or not at all, and note that it was restored.

    It is first made into a SQLite file of this version, which is checked; then one transaction replaces what the store
    holds. Only a store that cannot be opened any more is replaced as a file, and kept under another name.

    Raises StopError for a store that is not empty, unless `force`, and StoreBusyError while a run holds it.
    """
    found = look(path)
    parsed = parse_url(url)
    engine = _unopened(parsed)
    try:
        with run_lock(engine, wait), _prepared(parsed, path, found, now) as prepared:
            damaged = _damage(url)
            if damaged is not None and not force:
                msg = f"{damaged} It can be replaced with --force: the damaged file is kept beside it."
                raise StopError(msg)
            if damaged is not None:
                _replace_file(Path(str(parsed.database)), prepared)
            else:
                _replace_rows(url, prepared, force=force)
    except (sqlite3.Error, OSError) as error:
        msg = f"cannot restore {path}: {error}. The store is as it was; look at locks, free disk and rights."
        raise StopError(msg) from error
    finally:
        engine.dispose()
    return found


def _unopened(parsed: URL) -> Engine:
    """Enough to take the lock of the store, which may be damaged."""
    try:
        return create_engine(parsed)
    except ImportError as error:
        msg = f"store.url needs the driver {parsed.get_driver_name()}; install the extra of that database"
        raise ConfigError(msg) from error


@contextmanager
def _prepared(parsed: URL, path: Path, found: Backup, now: int) -> Iterator[Path]:
    """The backup as a SQLite file of this version, beside the store where that is one."""
    try:
        place, prefix = _place_to_prepare(parsed)
        place.mkdir(parents=True, exist_ok=True)
        _remove_prepared(place, prefix)
        directory = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    except OSError as error:
        msg = f"cannot make a directory to restore in: {error.strerror}. Give it room and the right to be written."
        raise StopError(msg) from error
    try:
        prepared = directory / _PREPARED[0]
        os.close(os.open(prepared, os.O_CREAT | os.O_WRONLY, 0o600))
        _fill(prepared, path, found.schema)
        _check(prepared, found, now)
        yield prepared
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _place_to_prepare(parsed: URL) -> tuple[Path, str]:
    """Where to prepare, and how names begin there for this store alone: the lock of another one keeps nobody away."""
    if parsed.get_backend_name() == "sqlite":
        store = Path(str(parsed.database))
        return store.parent, f".restore-{store.name}-"
    told = hashlib.blake2b(parsed.render_as_string().encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()), f".restore-{told}-"


def _remove_prepared(place: Path, prefix: str) -> None:
    """What restores of this store that were killed left behind; the run lock says that none goes on."""
    for directory in _made_by_us(place, prefix):
        with suppress(OSError):
            found = list(directory.iterdir())
            if all(one.name in _PREPARED and stat.S_ISREG(one.lstat().st_mode) for one in found):
                shutil.rmtree(directory)


def _fill(prepared: Path, path: Path, schema: str) -> None:
    """The rows of the backup, in the tables as they were then; then the migrations since."""
    engine = create_engine(f"sqlite:///{prepared}")
    try:
        migrate(engine, to=schema)
        with closing(sqlite3.connect(prepared, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("BEGIN")
            for statement, rows in _statements(path):
                connection.executemany(statement, rows)
            connection.execute("COMMIT")
        migrate(engine)
    finally:
        engine.dispose()


def _statements(path: Path) -> Iterator[tuple[str, list[Any]]]:
    statement, rows = "", []
    with closing(_lines(path)) as lines:
        next(lines)
        for line in lines:
            if isinstance(line, list):
                rows.append(line)
                if len(rows) < ROWS_AT_ONCE:
                    continue
            if rows:
                yield statement, rows
                rows = []
            if isinstance(line, dict):
                statement = _insert(line["table"], line["columns"])
    if rows:
        yield statement, rows


def _insert(table: str, columns: Sequence[str]) -> str:
    names = ", ".join(f'"{name}"' for name in columns if name.isidentifier())
    marks = ", ".join("?" for _ in columns)
    return f'INSERT INTO "{table}" ({names}) VALUES ({marks})' if table.isidentifier() else ""  # noqa: S608


def _check(prepared: Path, found: Backup, now: int) -> None:
    """The file is whole, of this version, and has every row; then it is marked as restored."""
    engine = create_engine(f"sqlite:///{prepared}")
    try:
        with engine.begin() as connection:
            _refuse_damaged(connection)
            for name, count in found.tables.items():
                there = connection.exec_driver_sql(f'SELECT COUNT(*) FROM "{name}"').scalar()  # noqa: S608
                if there != count:
                    msg = f"the backup could not be made into a store: {there} of {count} rows of {name}"
                    raise StopError(msg)
            # What was open then may have been done since.
            actions.doubt_what_is_open(connection)
            changes.doubt_points_with_keys(connection)
            changes.note_restored(connection)
            carried.look_again(connection)
            notes.put_json(connection, RESTORED, {"at": now, "made_at": found.made_at})
    finally:
        engine.dispose()


def _damage(url: str) -> str | None:
    """Why a SQLite store cannot be opened or read any more; None when it can. Servers tell their own errors."""
    if parse_url(url).get_backend_name() != "sqlite":
        return None
    database = Path(str(parse_url(url).database))
    if not database.exists():
        return None
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True)) as connection:
            said = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            raise
        return f"the store {database} is damaged: {error}."
    return None if said == "ok" else f"the store {database} is damaged: {said}."


def _replace_file(store: Path, prepared: Path) -> None:
    """The damaged file gets another name, and what is left of its log goes: SQLite would apply it to the new one."""
    kept = next(name for number in range(1, 10_000) if not (name := Path(f"{store}.damaged-{number}")).exists())
    os.link(store, kept)
    for suffix in ("-wal", "-shm"):
        log = Path(f"{store}{suffix}")
        if log.exists():
            log.replace(f"{kept}{suffix}")
    with prepared.open("rb") as file:
        os.fsync(file.fileno())
    prepared.replace(store)
    _keep_name(store.parent)


def _replace_rows(url: str, prepared: Path, *, force: bool) -> None:
    """All rows of the store, in one transaction."""
    target, source = open_engine(url), create_engine(f"sqlite:///{prepared}")
    try:
        with source.connect() as old, target.begin() as new:
            for table in metadata.tables.values():
                if not force and new.execute(select(literal(1)).select_from(table).limit(1)).first() is not None:
                    msg = (
                        "the store is not empty: restoring would replace what it knows. Take a backup of it, then say "
                        "--force."
                    )
                    raise StopError(msg)
            for name, table in metadata.tables.items():
                new.execute(delete(table))
                rows = old.execute(select(table).execution_options(yield_per=ROWS_AT_ONCE))
                for some in rows.mappings().partitions():
                    insert_many(new, table, [dict(row) for row in some])
                _count_on(new, name)
            _compare(old, new)
    finally:
        source.dispose()
        target.dispose()


def _count_on(connection: Connection, name: str) -> None:
    """PostgreSQL goes on numbering rows where it was, not where the rows that it was given end."""
    if connection.dialect.name != "postgresql" or "id" not in metadata.tables[name].c:
        return
    sequence = connection.execute(text("SELECT pg_get_serial_sequence(:name, 'id')"), {"name": f'"{name}"'})
    if (found := sequence.scalar()) is not None:
        last = connection.execute(select(func.max(metadata.tables[name].c.id))).scalar()
        connection.execute(text("SELECT setval(:sequence, :last, :used)"), {
            "sequence": found, "last": last or 1, "used": last is not None,
        })  # fmt: skip


def _compare(old: Connection, new: Connection) -> None:
    for name, table in metadata.tables.items():
        counts = [connection.execute(select(func.count()).select_from(table)).scalar() for connection in (old, new)]
        if counts[0] != counts[1]:
            msg = f"the store took {counts[1]} of {counts[0]} rows of {name}; nothing was changed"
            raise StopError(msg)
