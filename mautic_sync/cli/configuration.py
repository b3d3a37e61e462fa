"""`check` and `schema`: settings and mappings, without Mautic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mautic_sync.cli.common import ConfigOption, JsonOption, print_json, read_mappings, read_settings
from mautic_sync.destinations import notifications
from mautic_sync.errors import ConfigError
from mautic_sync.mappings import mappings_schema
from mautic_sync.settings import settings_schema


def register(app: typer.Typer) -> None:
    app.command("check")(check_command)
    app.command("schema")(schema_command)


def check_command(
    directory: Annotated[Path | None, typer.Argument(help="Directory of the mappings to check.", metavar="DIR")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check settings and mappings without Mautic. Exit code 2 names what is wrong and where."""
    settings = read_settings(config)
    mappings = read_mappings(settings, directory)
    if any(rule.do.notify_to for rule in mappings.action_rules.rules) and not notifications.installed():
        msg = f"actions.yaml names addresses under notify.to, but {notifications.NOT_INSTALLED}, or leave `to` empty"
        raise ConfigError(msg)
    stages = [{"stage": stage.name, "kind": stage.kind, "weight": stage.weight} for stage in mappings.stages.stages]
    if as_json:
        print_json({"ok": True, "stages": stages, "warnings": list(mappings.warnings)})
        return
    print("Settings and mappings are right.")
    print("Stages, from top to bottom: " + ", ".join(f"{row['stage']} ({row['kind']})" for row in stages))
    for warning in mappings.warnings:
        print(f"Note: {warning}")


def schema_command() -> None:
    """Print the JSON Schema of the mappings (by file name) and of the settings."""
    print_json({"settings": settings_schema(), "mappings": mappings_schema()})
