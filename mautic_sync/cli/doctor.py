"""`doctor`: what a run needs, how it is, and what to do about it."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column

from mautic_sync import doctor
from mautic_sync.cli.common import (
    ConfigOption,
    JsonOption,
    console,
    counted,
    listing,
    print_json,
    read_mappings,
    read_settings,
)
from mautic_sync.errors import ConfigError

COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor_command)


def doctor_command(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check everything that a run needs, and say what to do about what is wrong. Writes nothing anywhere."""
    results: list[doctor.Result] = []
    # On a terminal alone: where a call takes a second, it takes a minute in all.
    with _prepared(config) as exam, Console(stderr=True).status("Looking …") as shown:
        for result in doctor.examine(exam):
            results.append(result)
            shown.update(f"Looking … {len(results)} of {len(doctor.CHECKS)}")
    if as_json:
        print_json(doctor.as_json(results))
    else:
        _show(console(), results)
    raise typer.Exit(doctor.exit_code(results))


def _prepared(config: ConfigOption) -> doctor.Examination:
    exam = doctor.Examination()
    try:
        exam.settings = read_settings(config)
        exam.mappings = read_mappings(exam.settings)
    except ConfigError as error:
        if exam.settings is None:
            exam.settings_problem = str(error)
        else:
            exam.mappings_problem = str(error)
    return exam


def _show(out: Console, results: list[doctor.Result]) -> None:
    table = listing("check", Column(no_wrap=True), "what was found", "what to do")
    for one in results:
        finding = one.finding
        colour = COLOURS[finding.state]
        table.add_row(
            one.check.title, f"[{colour}]{finding.state}[/{colour}]", escape(finding.told), escape(finding.fix)
        )
    out.print(table)
    counts = doctor.as_json(results)["counts"]
    out.print(
        f"{counts['ok']} ok, {counted(counts['warning'], 'warning')}, {counts['failed']} failed, {counts['skipped']} skipped."
    )
