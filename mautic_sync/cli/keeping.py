"""`backup` and `restore`: the store in a file, and back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from mautic_sync.cli.common import ConfigOption, JsonOption, WaitOption, counted, open_store, print_json, read_settings
from mautic_sync.pipeline.run import iso
from mautic_sync.store import backup

FileArgument = Annotated[Path, typer.Argument(help="The file of the backup.", metavar="FILE", dir_okay=False)]


def register(app: typer.Typer) -> None:
    app.command("backup")(backup_command)
    app.command("restore")(restore_command)


def backup_command(file: FileArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Write the whole store to a file, also while a run goes on, and read it again: any database, one format."""
    with open_store(read_settings(config)) as engine:
        taken = backup.take(engine, file, int(time.time()))
    if as_json:
        print_json({"file": str(file), **_told(taken)})
    else:
        print(f"Wrote {counted(taken.rows, 'row')} to {file} ({taken.bytes} bytes), and read them again.")


def restore_command(
    file: FileArgument,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a store that is not empty, or damaged.")] = False,
    wait: WaitOption = 0,
) -> None:
    """Put a backup in the place of the store, whole or not at all. The next run compares it with Mautic."""
    settings = read_settings(config)
    found = backup.restore(settings.store.url, file, now=int(time.time()), force=force, wait=wait)
    if as_json:
        print_json({"file": str(file), **_told(found)})
        return
    print(
        f"Restored {counted(found.rows, 'row')} of {iso(found.made_at)}; the store belongs to the Mautic at {found.mautic}."
    )
    print("The next `mautic-sync sync` reads everybody again, and finds in Mautic's log what was granted since.")


def _told(found: backup.Backup) -> dict[str, object]:
    return {**found.as_json(), "made_at": iso(found.made_at)}
