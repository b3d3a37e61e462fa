"""The log on standard error: one line an event, the run's id on each, without secrets and whole addresses.

Lines of libraries (urllib3, APScheduler, SQLAlchemy, Python's warnings) pass through the same masks; only their warnings
are shown. Event names and their facts are documented in docs/operations.md.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

import structlog
from pydantic import BaseModel, SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from mautic_sync.mautic.redaction import redact
from mautic_sync.pipeline.context import Observer
from mautic_sync.settings import Settings

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
# Events that somebody should look at; all others are information.
WARNINGS = frozenset({
    "quarantined", "refused", "forbidden", "doubtful", "gate_open", "gate_failed", "no_answer", "validation_refused", "set_back",
    "unknown_status", "budget", "triggers_unknown", "points_wait", "lacking", "folded_short", "message_failed", "action_failed", "misfired", "clock_back",
    "rules_broken", "busy", "upload_doubtful", "upload_failed", "upload_refused", "undo_left_alone",
})  # fmt: skip
ERRORS = frozenset({"run_failed", "crashed"})
OURS = "mautic_sync"


class _Masks:
    """What no line may show. Filled when the settings are known."""

    secrets: frozenset[str] = frozenset()


class _Now:
    """The run of which the lines speak: of the process, for its threads speak too."""

    run: str | None = None


class _StandardError(logging.StreamHandler[TextIO]):
    """Whatever standard error is at the moment: a progress display puts itself before it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        del stream


def shows_console(settings: Settings) -> bool:
    """Whether lines are for people: else each is one JSON document."""
    return settings.log.format == "console" or (settings.log.format == "auto" and sys.stderr.isatty())


def configure_logs(settings: Settings) -> None:
    """Begin to log as the settings say. May be called again."""
    _Masks.secrets = secrets_of(settings)
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=14)
        if shows_console(settings)
        else structlog.processors.JSONRenderer(default=str)
    )
    shared: list[Any] = [
        _name_run,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        mask_line,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = _StandardError()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        )
    )
    root = logging.getLogger()
    for one in [one for one in root.handlers if isinstance(one, _StandardError)]:
        root.removeHandler(one)
    root.addHandler(handler)
    level = LEVELS[settings.log.level]
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger(OURS).setLevel(level)
    logging.captureWarnings(capture=True)


def secrets_of(model: BaseModel) -> frozenset[str]:
    """Every secret of the settings, the password in `store.url` among them."""
    found: set[str] = set()
    for value in (getattr(model, name) for name in type(model).model_fields):
        if isinstance(value, BaseModel):
            found |= secrets_of(value)
        elif isinstance(value, list):
            found |= {one.get_secret_value() for one in value if isinstance(one, SecretStr)}
        elif isinstance(value, SecretStr):
            found.add(value.get_secret_value())
    if isinstance(model, Settings):
        try:
            password = make_url(model.store.url).password
        except (ArgumentError, ValueError):
            password = None
        found |= {password} if password else set()
    return frozenset(found)


def masked(text: str) -> str:
    """The text as any log or error may show it."""
    return redact(text, _Masks.secrets)


def mask_line(_logger: Any, _name: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Masks every text of a line, however deep it lies."""
    return {
        name: _masked(value) if name not in {"level", "timestamp", "run"} else value for name, value in line.items()
    }


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {name: _masked(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(one) for one in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    # What structlog itself passes along, or the name of some object: the renderer would make the same text of it.
    return value if isinstance(value, logging.LogRecord) else masked(str(value))


def _name_run(_logger: Any, _name: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    line.setdefault("run", _Now.run)
    return line


@contextmanager
def run_named(run_id: str) -> Iterator[None]:
    """All lines within speak of this run."""
    _Now.run = run_id
    try:
        yield
    finally:
        _Now.run = None


def observer() -> Observer:
    """Tells the log what a run does."""
    log = structlog.get_logger(OURS)

    def tell(event: str, **facts: Any) -> None:
        level = logging.ERROR if event in ERRORS else logging.WARNING if event in WARNINGS else logging.INFO
        log.log(level, event, **facts)

    return tell


def log_crash(error: BaseException) -> None:
    """An error that nobody expected, with its traceback, masked; nothing before it is known what to mask."""
    if not structlog.is_configured():
        return
    structlog.get_logger(OURS).error("crashed", reason=f"{type(error).__name__}: {error}", exc_info=error)
