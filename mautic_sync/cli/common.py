"""What the commands share: their options, opening settings, rules and store, and the two ways of printing."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import structlog
import typer
from rich.console import Console
from sqlalchemy import Engine

from mautic_sync.errors import ConfigError
from mautic_sync.mappings import Mappings, load_mappings
from mautic_sync.mautic.redaction import redact
from mautic_sync.pipeline.context import Observer
from mautic_sync.settings import MappingsSettings, Settings, load_settings
from mautic_sync.store.engine import open_engine

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file.", dir_okay=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
WaitOption = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for another run to end.")]

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
# Events that somebody should look at; all others are information.
WARNINGS = frozenset({
    "quarantined", "refused", "doubtful", "gate_open", "gate_failed", "no_answer", "validation_refused", "set_back",
    "unknown_status", "budget", "triggers_unknown", "lacking", "message_failed",
})  # fmt: skip


def console() -> Console:
    return Console(highlight=False, soft_wrap=False)


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


def observer() -> Observer:
    """Tells the log what a run does. Addresses are masked here, whatever the event carries."""
    log = structlog.get_logger("mautic_sync")

    def tell(event: str, **facts: Any) -> None:
        masked = {name: redact(value) if isinstance(value, str) else value for name, value in facts.items()}
        log.log(logging.WARNING if event in WARNINGS else logging.INFO, event, **masked)

    return tell


def configure_logs(settings: Settings) -> None:
    as_json = settings.log.format == "json" or (settings.log.format == "auto" and not sys.stderr.isatty())
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=14)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[settings.log.level]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
