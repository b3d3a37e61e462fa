"""What the commands share: their options, opening settings, rules and store, and the two ways of printing."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Column, Table
from sqlalchemy import Connection, Engine

from mautic_sync.cli.logs import configure_logs, observer
from mautic_sync.domain.contact import KINDS
from mautic_sync.domain.validation import normalise_address
from mautic_sync.errors import ConfigError
from mautic_sync.mappings import Mappings, load_mappings
from mautic_sync.mautic.transport import check_address, check_certificates
from mautic_sync.settings import MappingsSettings, Settings, load_settings
from mautic_sync.store import people
from mautic_sync.store.engine import open_engine, parse_url

__all__ = [
    "LARGEST_ID",
    "ConfigOption",
    "JsonOption",
    "WaitOption",
    "check_settings",
    "configure_logs",
    "console",
    "counted",
    "counted_kinds",
    "listing",
    "mappings_dir",
    "observer",
    "open_store",
    "persons_meant",
    "print_error_document",
    "print_json",
    "read_mappings",
    "read_settings",
    "spare_memory",
]

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file.", dir_okay=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
WaitOption = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for another run to end.")]

LARGEST_ID = 2**63 - 1  # of Mautic; no database counts further
COLLECT_AFTER = 10_000  # objects more
M_ARENA_MAX = -8  # malloc.h


def console() -> Console:
    return Console(highlight=False, soft_wrap=False)


def listing(*heads: str | Column) -> Table:
    """A table whose words are never cut off: addresses, places in files and links are there to be copied."""
    return Table(
        *(Column(one, overflow="fold") if isinstance(one, str) else one for one in heads), box=None, pad_edge=False
    )


def counted(number: int, one: str, several: str = "") -> str:
    """`1 contact`, `2 contacts`; `several` where an `s` at the end is not enough."""
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def counted_kinds(kinds: Mapping[str, int]) -> str:
    """`2 ghosts, 1 lead, 0 customers`."""
    return ", ".join(counted(kinds[kind], kind) for kind in KINDS)


def persons_meant(connection: Connection, word: str) -> list[int]:
    """The persons behind a Mautic id or an e-mail address, ascending. Raises ConfigError for what is neither."""
    number = int(word) if word.isascii() and word.isdigit() else None
    address = normalise_address(word) if number is None else None
    if (number is None and address is None) or (number is not None and number > LARGEST_ID):
        msg = "what was given is neither a Mautic id nor an e-mail address; write 4711 or ann@example.com"
        raise ConfigError(msg)
    return sorted(set(people.find_person(connection, number, address)))


class _Printed:
    """Whether this process has printed its one JSON document."""

    document = False


def print_json(document: Any) -> None:
    """One JSON document and nothing else on standard output."""
    _Printed.document = True
    # JSON is UTF-8, whatever the terminal shows.
    typer.get_binary_stream("stdout").write(
        orjson.dumps(
            document, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
        )
    )


def print_error_document(told: str, exit_code: int, facts: Mapping[str, Any]) -> None:
    """With --json: what a command prints that ends in an error before it has printed its own document."""
    if "--json" in sys.argv[1:] and not _Printed.document:
        print_json({"error": told, "exit_code": exit_code, **facts})


def read_settings(config: Path | None, **overrides: Any) -> Settings:
    settings = load_settings(config, {name: value for name, value in overrides.items() if value is not None})
    configure_logs(settings)
    return settings


def check_settings(settings: Settings) -> None:
    """ConfigError for addresses and files that a run would refuse; asks no network."""
    parse_url(settings.store.url)
    mautic, zerobounce = settings.mautic, settings.zerobounce
    if mautic.base_url is not None:
        check_address(mautic.base_url, setting="mautic.base_url", allow_http=mautic.allow_http)
    if mautic.verify_tls and mautic.ca_bundle is not None:
        check_certificates(str(mautic.ca_bundle))
    check_address(zerobounce.base_url, setting="zerobounce.base_url", allow_http=False)
    if zerobounce.bulk_url is not None:
        check_address(zerobounce.bulk_url, setting="zerobounce.bulk_url", allow_http=False)


def mappings_dir(settings: Settings, directory: Path | None = None) -> Path | None:
    """`directory`, else `mappings.dir`, else None: the packaged rules."""
    chosen: Path | None = directory or settings.mappings.dir
    if directory is None and chosen is not None and not chosen.is_dir():
        if chosen != MappingsSettings().dir:
            msg = f"mappings.dir: there is no directory {chosen}; copy the packaged one with `mautic-sync init`"
            raise ConfigError(msg)
        chosen = None
    return chosen


def read_mappings(settings: Settings, directory: Path | None = None) -> Mappings:
    """The rules of that directory."""
    return load_mappings(
        mappings_dir(settings, directory),
        time_zone=settings.time_zone,
        history_seconds=int(settings.pull.history.total_seconds()),
    )


@contextmanager
def open_store(settings: Settings) -> Iterator[Engine]:
    """The store, closed again at the end."""
    engine = open_engine(settings.store.url)
    try:
        yield engine
    finally:
        engine.dispose()


def spare_memory() -> None:
    """Set up this process for the work of a run, which goes page by page and makes little circular garbage.

    Garbage is looked for in what is new alone, and less often. Where the C library is glibc, all threads take memory
    from one place: else each keeps what its largest page once needed.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
