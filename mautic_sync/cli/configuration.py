"""`check`, `test-rules` and `schema`: settings and mappings, without Mautic."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mautic_sync import rule_tests
from mautic_sync.cli.common import (
    ConfigOption,
    JsonOption,
    check_settings,
    mappings_dir,
    print_json,
    read_mappings,
    read_settings,
)
from mautic_sync.destinations import notifications
from mautic_sync.errors import ConfigError
from mautic_sync.mappings import Mappings, MappingsError, mappings_schema, packaged_mappings_dir
from mautic_sync.rule_test_files import NAME, RuleTests, read_rule_tests, rule_tests_schema
from mautic_sync.settings import Settings, settings_schema


def register(app: typer.Typer) -> None:
    app.command("check")(check_command)
    app.command("test-rules")(rule_tests_command)
    app.command("schema")(schema_command)


def check_command(
    directory: Annotated[Path | None, typer.Argument(help="Directory of the mappings to check.", metavar="DIR")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check settings and mappings without Mautic. Exit code 2 names what is wrong and where."""
    with _problems_told(as_json=as_json):
        settings = read_settings(config)
        check_settings(settings)
        mappings, tests, _chosen = _read(settings, directory)
        if any(rule.do.notify_to for rule in mappings.action_rules.rules) and not notifications.installed():
            msg = (
                f"actions.yaml names addresses under notify.to, but {notifications.NOT_INSTALLED}, or leave `to` empty"
            )
            raise ConfigError(msg)
    stages = [{"stage": stage.name, "kind": stage.kind, "weight": stage.weight} for stage in mappings.stages.stages]
    if as_json:
        print_json({"ok": True, "stages": stages, "warnings": list(mappings.warnings)})
        return
    print("Settings and mappings are right.")
    print("Stages, from top to bottom: " + ", ".join(f"{row['stage']} ({row['kind']})" for row in stages))
    for warning in mappings.warnings:
        print(f"Note: {warning}")
    if tests:
        which = "" if directory is None else f" {shlex.quote(str(directory))}"
        print(f"Whether the rules do what they are meant to: `mautic-sync test-rules{which}`")


def rule_tests_command(
    directory: Annotated[
        Path | None, typer.Argument(help="Directory of the mappings whose tests are tried.", metavar="DIR")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try the rules on the examples in tests/ of the mappings, without Mautic. Exit code 1 when one does not hold."""
    with _problems_told(as_json=as_json):
        mappings, files, chosen = _read(read_settings(config), directory)
        if not files:
            msg = f"there are no tests of rules in {chosen / NAME}; docs/mappings.md shows how one is written"
            raise ConfigError(msg)
        document = rule_tests.document(rule_tests.try_rules(mappings, files))
    if as_json:
        print_json(document)
    else:
        _show_tests(document)
    raise typer.Exit(0 if document["ok"] else 1)


def _read(settings: Settings, directory: Path | None) -> tuple[Mappings, list[RuleTests], Path]:
    """The rules, their tests, and the directory that has both."""
    mappings = read_mappings(settings, directory)
    chosen = mappings_dir(settings, directory) or packaged_mappings_dir()
    return mappings, read_rule_tests(chosen), chosen


@contextmanager
def _problems_told(*, as_json: bool) -> Iterator[None]:
    """With --json, what is wrong is the document: `file`, `line` and `key` are null where no file of rules is at fault."""
    try:
        yield
    except ConfigError as error:
        if as_json:
            nowhere = {"file": None, "line": None, "key": None, "text": str(error)}
            several = [asdict(one) for one in error.problems] if isinstance(error, MappingsError) else [nowhere]
            print_json({"ok": False, "problems": several})
        raise


def _show_tests(document: dict[str, Any]) -> None:
    for file in document["files"]:
        held = file["tests"] - len(file["failures"])
        print(f"{file['file']}: {held} of {file['tests']} tests hold")
        for failure in file["failures"]:
            print(f"  line {failure['line']}, {failure['name']}")
            for miss in failure["expectations"]:
                print(f"    {miss['key']}: expected {_shown(miss['expected'])}, got {_shown(miss['got'])}")
                for line in miss["why"]:
                    print(f"      {line}")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return (", ".join(value) or "nothing") if isinstance(value, list) else str(value)


def schema_command() -> None:
    """Print the JSON Schema of the mappings (by file name), of the tests of rules and of the settings."""
    print_json({"settings": settings_schema(), "mappings": {**mappings_schema(), NAME: rule_tests_schema()}})
