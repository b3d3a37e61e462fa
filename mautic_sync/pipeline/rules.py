"""The last good mappings: kept in the store with their fingerprint, for the worker to go on with while files are broken.

Good is what was read without a problem and fits this Mautic. Commands by hand refuse broken files; the worker says so
and goes on.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine

from mautic_sync.errors import ConfigError
from mautic_sync.mappings import Mappings, MappingsError, load_written
from mautic_sync.pipeline import groups, pull
from mautic_sync.pipeline.context import Observer, Run
from mautic_sync.settings import Settings
from mautic_sync.store import notes

KEPT = "rules_kept"
UNPUBLISHED = " (unpublished)"
BROKEN = "rules_broken"


def last_good(engine: Engine, settings: Settings) -> Mappings | None:
    """The kept mappings; None where there are none, or this version cannot read them any more."""
    with engine.begin() as connection:
        kept = notes.get_json(connection, KEPT)
    if kept is None:
        return None
    try:
        return load_written(
            kept["files"],
            time_zone=settings.time_zone,
            history_seconds=int(settings.pull.history.total_seconds()),
        )
    except MappingsError:
        return None


def read_instance(run: Run, *, fresh: bool) -> None:
    """As `pull.read_instance`; a run with a `fallback` goes on with that where the mappings do not fit this Mautic."""
    if run.on_last_good:
        _read(run, fresh=fresh)
        return
    read = run.unbound or run.mappings
    try:
        _read(run, fresh=fresh)
        missing = missing_in_mautic(run)
        if missing and run.fallback is not None and run.fallback.fingerprint != read.fingerprint:
            raise ConfigError(lacking_told(missing))
    except ConfigError as error:
        if run.fallback is None or run.fallback.fingerprint == read.fingerprint:
            raise
        with run.engine.begin() as connection:
            note_broken(connection, str(error), run.now, run.tell)
        run.mappings = run.unbound = run.fallback
        run.on_last_good = True
        _read(run, fresh=fresh)
        return
    if not missing:
        with run.engine.begin() as connection:
            _keep(run, connection, read)


def _read(run: Run, *, fresh: bool) -> None:
    pull.read_instance(run, fresh=fresh)
    groups.read(run)


def missing_in_mautic(run: Run) -> list[str]:
    """Stages, fields and point groups that the mappings write and that this Mautic lacks, or has unpublished."""
    hidden = {run.stage_names[number] for number in run.unpublished_stages}
    missing = [
        f"stage {stage.name}{UNPUBLISHED if stage.name in hidden else ''}"
        for stage in run.mappings.stages.stages
        if stage.name not in run.stage_ids
    ]
    missing += [f"field {alias}" for alias in run.mappings.fields.write if alias not in run.catalogue.fields]
    return missing + [f"point group {name}" for name in run.mappings.scores.push_groups if name not in run.group_ids]


def lacking_told(missing: list[str]) -> str:
    """What to do about what `missing_in_mautic` found: `init` creates, but publishes nothing."""
    hidden = [one.removesuffix(UNPUBLISHED) for one in missing if one.endswith(UNPUBLISHED)]
    absent = [one for one in missing if not one.endswith(UNPUBLISHED)]
    told = []
    if absent:
        told.append(f"Mautic lacks what the mappings write: {', '.join(absent)}. Create it with `mautic-sync init`.")
    if hidden:
        told.append(f"Unpublished in Mautic: {', '.join(hidden)}. Publish it there, or name another in stages.yaml.")
    return " ".join(told)


def _keep(run: Run, connection: Connection, read: Mappings) -> None:
    notes.drop(connection, BROKEN)
    kept = notes.get_json(connection, KEPT)
    if kept is not None and kept["fingerprint"] == read.fingerprint:
        return
    notes.put_json(connection, KEPT, {"fingerprint": read.fingerprint, "at": run.now, "files": read.as_written()})
    if kept is not None:
        run.tell("rules_changed", fingerprint=read.fingerprint, before=kept["fingerprint"])


def note_broken(connection: Connection, reason: str, now: int, tell: Observer) -> None:
    """The files cannot be used: said in the log, and by `status` until a run has used better ones."""
    known = notes.get_json(connection, BROKEN)
    since = known["since"] if known is not None else now
    notes.put_json(connection, BROKEN, {"since": since, "reason": reason})
    kept = notes.get_json(connection, KEPT) or {}
    tell("rules_broken", reason=reason, going_on_with=kept.get("fingerprint"))


def state_of(connection: Connection) -> dict[str, Any]:
    """What `status` tells: `fingerprint` and `kept_at` of the last good mappings, and since when files are broken."""
    kept = notes.get_json(connection, KEPT) or {}
    return {
        "fingerprint": kept.get("fingerprint"),
        "kept_at": kept.get("at"),
        "broken": notes.get_json(connection, BROKEN),
    }
