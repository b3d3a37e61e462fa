"""`hot`: the contacts worth a call."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from mautic_sync.cli.common import (
    LARGEST_ID,
    ConfigOption,
    JsonOption,
    console,
    counted,
    open_store,
    print_json,
    read_mappings,
    read_settings,
)
from mautic_sync.errors import ConfigError
from mautic_sync.pipeline.hot import hot_contacts

COLUMNS = ("id", "name", "email", "company", "phone", "score", "points")
"""Then come the scores, a column for each group of `scoring.yaml`, and after them these."""
MORE_COLUMNS = ("reasons", "since", "owner", "link")
FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""What a spreadsheet takes for the beginning of a formula; `+49301` would become a number without its `+`."""

DIGITS_SHOWN = 11
"""A longer number is shown as 4.93E+12; one that begins with 0, as phone numbers do, loses it."""


def register(app: typer.Typer) -> None:
    app.command("hot")(hot_command)


def hot_command(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV for a spreadsheet (RFC 4180, UTF-8).")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, max=LARGEST_ID, help="No more than so many.")] = None,
) -> None:
    """Who is worth a call, the highest score first, and why. Reads the store only."""
    if as_json and as_csv:
        msg = "--json and --csv are two ways to print the same; choose one"
        raise ConfigError(msg)
    settings = read_settings(config)
    mappings = read_mappings(settings)
    with open_store(settings) as engine, engine.begin() as connection:
        document = hot_contacts(connection, settings, mappings, int(time.time()), limit)
    if as_json:
        print_json(document)
    elif as_csv:
        sys.stdout.flush()
        typer.get_binary_stream("stdout").write(as_csv_text(document["hot"], document["groups"]).encode())
    else:
        _show(console(), document)


def as_csv_text(rows: list[dict[str, Any]], groups: Sequence[str]) -> str:
    """A head and a line for each contact; text that a spreadsheet would take for something else begins with `'`."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([_cell(name) for name in (*COLUMNS, *groups, *MORE_COLUMNS)])
    for row in rows:
        scores = [row["groups"].get(name, 0) for name in groups]
        cells = [*(row[name] for name in COLUMNS), *scores, *(row[name] for name in MORE_COLUMNS)]
        writer.writerow(map(_cell, cells))
    return out.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    clean = value.replace("\x00", "")
    loses_digits = clean.isdecimal() and (clean.startswith("0") or len(clean) > DIGITS_SHOWN)
    return f"'{clean}" if loses_digits or clean.startswith(FORMULA) else clean


def _show(out: Console, document: dict[str, Any]) -> None:
    rows = document["hot"]
    if not rows:
        out.print("Nobody is hot.")
    for row in rows:
        # Nothing is cut off: it is there to be copied.
        told = Table.grid(Column(), Column(overflow="fold"), padding=(0, 1))
        who = ", ".join(str(row[key]) for key in ("company", "phone", "email") if row[key] and row[key] != row["name"])
        told.add_row(f"{row['score']:>4}", escape(f"{row['name']} ({row['id']})" + (f": {who}" if who else "")))
        since = f"; hot since {row['since']}" if row["since"] else ""
        owner = f", owner {row['owner']}" if row["owner"] else ""
        score = f"score {row['score']} (ours), points {row['points']} (Mautic's total)"
        groups = ", ".join(f"{name} {row['groups'].get(name, 0)}" for name in document["groups"])
        more = f", and {counted(row['reasons_untold'], 'more rule')}" if row["reasons_untold"] else ""
        told.add_row("", escape(f"{score}; {groups}{since}{owner}: {row['reasons']}{more}"))
        told.add_row("", escape(row["link"]))
        out.print(told)
    if document["total"] > len(rows):
        out.print(f"… and {document['total'] - len(rows)} more (--limit)")
    if document["outdated"]:
        out.print(f"Of {document['outdated']} of them the score has changed since the last run: `sync` decides anew.")
    for text in document["not_counted"]:
        out.print(escape(f"Not counted: {text}"))
