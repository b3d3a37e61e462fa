"""The store on every database that it promises: SQLite, PostgreSQL, MariaDB.

The servers are those of MAUTIC_SYNC_TEST_POSTGRESQL_URL and MAUTIC_SYNC_TEST_MARIADB_URL (SQLAlchemy URLs of databases
that tests may empty), else this session starts its own from Debian's binaries: in a directory that is removed
afterwards, on a free port of the loopback. Where there is neither, tests skip; with CI=true they fail.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, MetaData, NullPool, create_engine, delete, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from mautic_sync.store.engine import DRIVERS, migrate, open_engine
from mautic_sync.store.schema import metadata

BACKENDS = ("sqlite", "postgresql", "mariadb")
START_SECONDS = 60
ROOM = 2**30  # bytes
SERVER_DIRECTORIES = (
    *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True),
    "/usr/local/sbin",
    "/usr/sbin",
)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path}/store.db"
        return
    server = str(request.getfixturevalue(f"{backend}_server"))
    _drop_everything(server)
    yield server
    _drop_everything(server)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "store.db"
    open_engine(f"sqlite:///{path}").dispose()
    return path


@pytest.fixture
def store(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An open store that holds nothing."""
    if backend == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "store.db")
        engine = open_engine(f"sqlite:///{tmp_path}/store.db")
        yield engine
        engine.dispose()
        return
    engine = request.getfixturevalue(f"{backend}_engine")
    migrate(engine)
    yield engine
    with engine.begin() as connection:
        for table in metadata.tables.values():
            connection.execute(delete(table))


@pytest.fixture(scope="session")
def postgresql_engine(postgresql_server: str) -> Iterator[Engine]:
    yield from _engine(postgresql_server)


@pytest.fixture(scope="session")
def mariadb_engine(mariadb_server: str) -> Iterator[Engine]:
    yield from _engine(mariadb_server)


def _engine(url: str) -> Iterator[Engine]:
    _drop_everything(url)
    engine = open_engine(url)
    yield engine
    engine.dispose()
    _drop_everything(url)


@pytest.fixture
def other_database(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Makes the URL of one more empty database; takes words to add to CREATE DATABASE."""
    if backend == "sqlite":
        yield lambda _words: f"sqlite:///{tmp_path}/other.db"
        return
    server = make_url(str(request.getfixturevalue(f"{backend}_server")))
    name = f"{server.database}_other"
    engine = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)

    def make(words: str) -> str:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
            connection.execute(text(f"CREATE DATABASE {name} {words}"))
        return server.set(database=name).render_as_string(hide_password=False)

    yield make
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
    engine.dispose()


def _drop_everything(url: str) -> None:
    engine = create_engine(url, poolclass=NullPool)
    present = MetaData()
    present.reflect(engine)
    present.drop_all(engine)
    engine.dispose()


def ways_to(connection: Connection, ask: Callable[[], object]) -> list[str]:
    """How SQLite plans what this asks, step by step."""
    looks: list[tuple[str, Any]] = []

    def see(_connection: object, _cursor: object, statement: str, parameters: Any, *_rest: object) -> None:
        looks.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", see)
    ask()
    event.remove(connection, "before_cursor_execute", see)
    return [
        step
        for statement, parameters in looks
        for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).scalars("detail")
        if not step.startswith(("LIST SUBQUERY", "SCAN asked"))  # the numbers that are asked for
    ]


# -- servers --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    if given := os.environ.get("MAUTIC_SYNC_TEST_POSTGRESQL_URL"):
        yield _with_our_driver(given)
        return
    initdb, postgres = _programs("PostgreSQL", "initdb", "postgres")
    with _private_directory("postgres") as (directory, user):
        data, port = directory / "data", _free_port()
        _run([initdb, "-D", data, "-U", "tester", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"], user)
        settings = ["listen_addresses=127.0.0.1", "fsync=off", "synchronous_commit=off", "full_page_writes=off"]
        options = [word for setting in settings for word in ("-c", setting)]
        with _serving([postgres, "-D", data, "-k", directory, "-p", str(port), *options], user, directory):
            server = f"postgresql+psycopg://tester:pass-word@127.0.0.1:{port}"
            _wait_for(port)
            _execute(f"{server}/postgres", "CREATE DATABASE mautic_sync")
            yield f"{server}/mautic_sync"


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[str]:
    if given := os.environ.get("MAUTIC_SYNC_TEST_MARIADB_URL"):
        yield _with_our_driver(given)
        return
    install, mariadbd = _programs("MariaDB", "mariadb-install-db", "mariadbd")
    with _private_directory("mysql") as (directory, user):
        data, port = directory / "data", _free_port()
        # Room and kernel interfaces that other servers on this machine may have used up.
        modest = ["--innodb-use-native-aio=0", "--innodb-log-file-size=16M", "--innodb-buffer-pool-size=64M"]
        # A server as careless as they come: the store must not depend on its settings.
        careless = ["--character-set-server=latin1", "--sql-mode="]
        quick = [
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-flush-method=nosync",
            "--innodb-file-per-table=0",
            "--skip-log-bin",
            "--sync-frm=0",
        ]
        _run(
            [
                install,
                "--no-defaults",
                f"--datadir={data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                f"--tmpdir={directory}",
                *modest,
            ],
            user,
            again_without=data,
        )
        place = [f"--datadir={data}", f"--socket={directory}/socket", f"--pid-file={directory}/pid", f"--port={port}"]
        with _serving(
            [mariadbd, "--no-defaults", *place, "--bind-address=127.0.0.1", *careless, *quick, *modest], user, directory
        ):
            _wait_for(port)
            # Root without a password: within a directory that nobody else may enter.
            root = f"mysql+pymysql://root@localhost/mysql?unix_socket={directory}/socket"
            _execute(
                root,
                "CREATE DATABASE mautic_sync",
                "CREATE USER tester@'%' IDENTIFIED BY 'pass-word'",
                "GRANT ALL ON *.* TO tester@'%'",
            )
            yield f"mariadb+pymysql://tester:pass-word@127.0.0.1:{port}/mautic_sync"


def _with_our_driver(given: str) -> str:
    url = make_url(given)
    return url.set(drivername=DRIVERS[url.drivername]).render_as_string(hide_password=False)


def _programs(server: str, *names: str) -> list[str]:
    search = os.pathsep.join((*SERVER_DIRECTORIES, os.environ.get("PATH", "")))
    found = [path for name in names if (path := shutil.which(name, path=search)) is not None]
    if len(found) == len(names):
        return found
    reason = f"{server} is not installed here, and MAUTIC_SYNC_TEST_{server.upper()}_URL is not set"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def _private_directory(owner: str) -> Iterator[tuple[Path, str | None]]:
    """A directory of our own, and the user to run as: the servers refuse root."""
    user = None
    if os.geteuid() == 0:
        names = {one.pw_name for one in pwd.getpwall()}
        user = owner if owner in names else "nobody"
    # Not pytest's own place, which other users cannot enter; in memory where there is enough of it.
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > ROOM
    directory = Path(tempfile.mkdtemp(prefix="mautic-sync-", dir=memory if roomy else None))
    try:
        if user is not None:
            shutil.chown(directory, user)
        yield directory, user
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _as_user(user: str | None) -> dict[str, object]:
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _run(command: list[str | Path], user: str | None, again_without: Path | None = None) -> None:
    """Run a command to its end; where it fails, once more without what it left at `again_without`."""
    ran = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/", **_as_user(user))
    if ran.returncode != 0 and again_without is not None:
        shutil.rmtree(again_without, ignore_errors=True)
        time.sleep(1)
        _run(command, user)
    elif ran.returncode != 0:
        pytest.fail(f"{command[0]} ended with {ran.returncode}:\n{ran.stdout}\n{ran.stderr}")


@contextmanager
def _serving(command: list[str | Path], user: str | None, directory: Path) -> Iterator[None]:
    with (directory / "log").open("wb") as log:
        # Where this session is killed, the server ends too.
        setpriv = shutil.which("setpriv")
        with_us = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
        server = subprocess.Popen([*with_us, *command], stdout=log, stderr=log, cwd="/", **_as_user(user))
        try:
            yield
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_for(port: int) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def _execute(url: str, *statements: str) -> None:
    """Run statements as soon as the server lets anybody in."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            with engine.connect() as connection:
                for statement in statements:
                    connection.execute(text(statement))
            break
        except OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
    engine.dispose()
