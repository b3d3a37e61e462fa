"""What the commands share: their options, opening settings, rules and store, and the two ways of printing."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from sqlalchemy import Connection, Engine

from mautic_sync.cli.logs import configure_logs, observer
from mautic_sync.domain.validation import normalise_address
from mautic_sync.errors import ConfigError
from mautic_sync.mappings import Mappings, load_mappings
from mautic_sync.settings import MappingsSettings, Settings, load_settings
from mautic_sync.store import people
from mautic_sync.store.engine import open_engine

__all__ = [
    "LARGEST_ID",
    "ConfigOption",
    "JsonOption",
    "WaitOption",
    "configure_logs",
    "console",
    "mappings_dir",
    "observer",
    "open_store",
    "persons_meant",
    "print_json",
    "read_mappings",
    "read_settings",
    "spare_memory",
]

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file.", dir_okay=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
WaitOption = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for another run to end.")]

LARGEST_ID = 2**63 - 1  # of Mautic
COLLECT_AFTER = 10_000  # objects more
M_ARENA_MAX = -8  # malloc.h


def console() -> Console:
    return Console(highlight=False, soft_wrap=False)


def persons_meant(connection: Connection, word: str) -> list[int]:
    """The persons behind a Mautic id or an e-mail address, ascending. Raises ConfigError for what is neither."""
    number = int(word) if word.isascii() and word.isdigit() else None
    address = normalise_address(word) if number is None else None
    if (number is None and address is None) or (number is not None and number > LARGEST_ID):
        msg = "what was given is neither a Mautic id nor an e-mail address; write 4711 or ann@example.com"
        raise ConfigError(msg)
    return sorted(set(people.find_person(connection, number, address)))


def print_json(document: Any) -> None:
    """One JSON document and nothing else on standard output."""
    sys.stdout.write(
        orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode() + "\n"
    )


def read_settings(config: Path | None, **overrides: Any) -> Settings:
    settings = load_settings(config, {name: value for name, value in overrides.items() if value is not None})
    configure_logs(settings)
    return settings


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


def open_store(settings: Settings) -> Engine:
    return open_engine(settings.store.url)


def spare_memory() -> None:
    """Set up this process for the work of a run, which goes page by page and makes little circular garbage.

    Garbage is looked for in what is new alone, and less often. Where the C library is glibc, all threads take memory
    from one place: else each keeps what its largest page once needed.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
