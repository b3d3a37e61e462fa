"""`plan` and `sync`: the passes over everybody."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, NoReturn
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.markup import escape

from mautic_sync.cli.common import (
    LARGEST_ID,
    ConfigOption,
    JsonOption,
    WaitOption,
    console,
    counted,
    counted_kinds,
    listing,
    observer,
    open_store,
    print_json,
    read_mappings,
    read_settings,
    spare_memory,
)
from mautic_sync.cli.progress import displayed, seen
from mautic_sync.domain.undoing import UNDOES
from mautic_sync.errors import ConfigError
from mautic_sync.pipeline import forecast, opening, rules
from mautic_sync.pipeline.context import Run
from mautic_sync.pipeline.run import Options, opened_run, outcome, plan_only, plan_totals, safety_stop, summary, sync
from mautic_sync.settings import Settings
from mautic_sync.store import changes, holds

PLAN_ROWS = 50
NOTHING_SAID = Options()


def register(app: typer.Typer) -> None:
    app.command("plan")(plan_command)
    app.command("sync")(sync_command)


@contextmanager
def started(settings: Settings, command: str, *, wait: float = 0, with_actions: bool = False) -> Iterator[Run]:
    """A run of this command, its id on every log line."""
    mappings = read_mappings(settings)
    spare_memory()
    with (
        open_store(settings) as engine,
        displayed(settings, observer()) as tell,
        opened_run(
            settings,
            mappings,
            engine,
            command=command,
            now=int(time.time()),
            wait=wait,
            tell=tell,
            with_actions=with_actions,
        ) as run,
        seen(run, tell),
    ):
        yield run


def plan_command(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=LARGEST_ID, help="How many changes to show.")] = PLAN_ROWS,
    as_of: Annotated[str | None, typer.Option("--as-of", help="Decide as of this day or time (ISO 8601).")] = None,
    adopt: Annotated[bool, typer.Option("--adopt", help="This store's Mautic has moved to another address.")] = False,
    wait: WaitOption = 0,
) -> None:
    """Show what a sync would change. Writes nothing to Mautic and spends no credit."""
    settings = read_settings(config)
    moment = parse_moment(as_of, settings.time_zone) if as_of is not None else None
    _plan(settings, Options(adopt=adopt, wait=wait), limit, moment, as_json=as_json)


def _plan(settings: Settings, options: Options, limit: int, moment: int | None, *, as_json: bool) -> NoReturn:
    with started(settings, "plan", wait=options.wait) as run:
        plan = make_plan(run, limit, moment, options)
        # `sync` without a push prints this too, and has the keys that it always has.
        document = {**summary(run), **plan}
    if as_json:
        print_json(document)
    else:
        show_plan(console(), document)
    raise typer.Exit(outcome(run.counts))


def make_plan(run: Run, limit: int, moment: int | None = None, options: Options = NOTHING_SAID) -> dict[str, Any]:
    """The document of `plan --json`."""
    plan_id = plan_only(run, options)
    with run.engine.begin() as connection:
        late = opening.told_too_late(run, connection)
        shared = {
            "held": holds.count(connection),
            "refused": len(changes.refused_persons(connection)),
            "gate_open": run.zerobounce is None,
            "warnings": [*run.mappings.warnings, *([late] if late is not None else [])],
            "lacking": rules.missing_in_mautic(run),
        }
    if moment is not None:
        return {"plan_id": None, **forecast.as_of(run, moment, limit), **shared, "safety_stop": None}
    with run.engine.begin() as connection:
        listed = changes.listed(connection, [changes.PLANNED], limit=limit)
    return {
        "plan_id": plan_id,
        "as_of": None,
        **plan_totals(run),
        "safety_stop": safety_stop(run),
        "start": run.start.as_json() if run.start is not None else None,
        "listed": [change_as_json(row) for row in listed],
        **shared,
        "quarantined": run.counts.quarantined,
    }


def change_as_json(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "contact": row["mautic_id"],
        "target": row["target"],
        "old": row["old"],
        "new": row["new"],
        "reason": row["reason"],
        "state": row["state"],
        "points": row["points"],
        **({"error": row["error"]} if row.get("error") else {}),
    }


def show_plan(out: Console, document: dict[str, Any]) -> None:
    out.print(f"Everybody: {counted_kinds(document['kinds'])}.")
    refused = document["refused"]
    if not document["changes"]:
        later = "Time alone changes nothing until then; what a sync would write now tells `mautic-sync plan` alone."
        truth = "Nothing else to change." if refused else "Nothing to change: Mautic shows the truth."
        out.print(later if document["as_of"] else truth)
    if refused:
        out.print(
            f"{counted(refused, 'contact')} could not be written: `mautic-sync quarantine` tells why, `mautic-sync retry` tries again."
        )
    if document["changes"]:
        out.print(f"{counted(document['changes'], 'change')} to {counted(document['contacts'], 'contact')}.")
    for move in document["moves"]:
        out.print(escape(f"  {move['count']:>7}  {move['from'] or 'no stage'} → {move['to']}"))
    if document["changes"]:
        out.print(f"Writing them: {describe_eta(document)}.")
    for one in document["actions"]:
        out.print(
            escape(f"  {one['count']:>7}  {'time' if one['count'] == 1 else 'times'} it would set off: {one['rule']}")
        )
    if document["gate_open"]:
        out.print("There is no ZeroBounce key: addresses count as accepted, unchecked (zerobounce.api_key).")
    if document["verdicts_needed"]:
        out.print(
            f"{counted(document['verdicts_needed'], 'address needs', 'addresses need')} a verdict; a sync would ask for "
            f"{document['verdicts_to_buy']} (one credit each at most)."
        )
    if document.get("held"):
        out.print(
            f"{counted(document['held'], 'person is', 'people are')} held because a run was undone: `mautic-sync release` lists them."
        )
    if document.get("start") is not None:
        out.print(escape(_start_text(document["start"])))
    if document["listed"]:
        table = listing("contact", "old → new", "why")
        for row in document["listed"]:
            table.add_row(str(row["contact"]), escape(describe_change(row)), escape(row["reason"]))
        out.print(table)
        hidden = document["changes"] - len(document["listed"])
        if hidden > 0:
            out.print(f"… and {hidden} more (`mautic-sync plan --limit`)")
    for told in document["warnings"]:
        out.print(escape(f"Note: {told}"))
    if document["plan_id"] is not None:
        accept = ""
        if document["safety_stop"] is not None:
            accept = f" --accept {document['plan_id']}"
            out.print(escape(f"A sync stops at it: {document['safety_stop']}."))
        if document["lacking"]:
            out.print(escape(f"A sync refuses it: {rules.lacking_told(document['lacking'])}"))
        then = "Then carry" if document["lacking"] else "Carry"
        wanted = any(document[key] for key in ("changes", "actions", "verdicts_to_buy", "safety_stop"))
        what = f" {then} it out with `mautic-sync sync{accept}`." if wanted else ""
        out.print(f"Plan {document['plan_id']}: nothing was written.{what}")


def _start_text(start: dict[str, Any]) -> str:
    """Where points begin at the first push, and the triggers in Mautic that speak against granting all at once."""
    triggers = ", ".join(f"{one['name']} (at {one['points']} points)" for one in start["triggers"])
    if start["points"] == "history":
        warning = f" These point triggers of Mautic may fire: {triggers}." if triggers else ""
        return f"The first sync grants the points of the whole history.{warning}"
    why = f", or point triggers of Mautic may fire: {triggers}" if triggers else ""
    why = ", for Mautic does not let us read its point triggers" if start["unknown"] else why
    return f"Points begin now: what was done before is not granted{why} (start in scoring.yaml)."


def describe_eta(document: dict[str, Any]) -> str:
    """`about 25 min of writing, in 3 runs; 300 of them are ghosts and wait for push.window`."""
    seconds, runs = document["pending_eta_seconds"], document["pending_runs"]
    if seconds is None:
        told = "how long it takes is known after the first run that writes"
    else:
        told = f"about {_span(seconds)}, in {counted(runs, 'run')}"
    ghosts = document["pending_in_window"]
    return told + (f"; {ghosts} of them are of ghosts and wait for push.window" if ghosts else "")


def _span(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def describe_change(row: dict[str, Any]) -> str:
    """`Ghost → Lead, zb_status, +vip` or `score 0 → 7 (Mautic: 25 points, +7)` in one line.

    What an undo takes back is no score, but what was granted of it.
    """
    old, new = row["old"], row["new"]
    parts = []
    if "stage" in new:
        parts.append(f"{old.get('stage') or 'no stage'} → {new['stage'] or 'no stage'}")
    if "reason" in new:
        parts.append("do-not-contact" if new["reason"] is not None else "contactable again")
    parts += [tag if tag.startswith("-") else f"+{tag}" for tag in new.get("tags", ())]
    if "delta" in new:
        word = "granted" if UNDOES in new else "score"
        # Where the change is settled, the points of now have it.
        there = None if row.get("state") == changes.SETTLED else row.get("points")
        mautic = "" if there is None else f"Mautic: {counted(there, 'point')}, "
        parts.append(f"{word} {new['points'] - new['delta']} → {new['points']} ({mautic}{new['delta']:+d})")
    for name, score in new.get("groups", {}).items():
        there = old["groups"].get(name)
        parts.append(f"{name} {'?' if there is None else there} → {score}")
    fields = new.get("fields", {})
    if fields and "stage" not in new:
        parts += [f"{alias} = {value}" if value else f"{alias} emptied" for alias, value in fields.items()]
    elif fields:
        parts.append(counted(len(fields), "field"))
    return ", ".join(parts)


def parse_moment(text: str, time_zone: str) -> int:
    """An ISO day or time, of `time_zone` unless it says otherwise → seconds since 1970."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=ZoneInfo(time_zone))
        return int(moment.timestamp())
    except (ValueError, OverflowError) as error:
        msg = f"--as-of {text!r} is no day or time; write for example 2026-12-24 or 2026-12-24T18:00:00Z"
        raise ConfigError(msg) from error


def sync_command(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    full: Annotated[
        bool, typer.Option("--full", help="Read everybody again, find what vanished, compare points with Mautic's log.")
    ] = False,
    contact: Annotated[
        int | None, typer.Option("--contact", min=1, max=LARGEST_ID, help="Only this contact's Mautic id.")
    ] = None,
    accept: Annotated[str | None, typer.Option("--accept", help="Carry out this plan past the safety stop.")] = None,
    no_push: Annotated[bool, typer.Option("--no-push", help="Read, validate and decide; write nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="The same as `plan`.")] = False,
    with_actions: Annotated[
        bool,
        typer.Option("--with-actions", help="Let the first run set do-not-contact and tags and carry out actions too."),
    ] = False,
    adopt: Annotated[bool, typer.Option("--adopt", help="This store's Mautic has moved to another address.")] = False,
    wait: WaitOption = 0,
) -> None:
    """One pass: read what is new, validate, decide, and write what differs."""
    settings = read_settings(config)
    options = Options(
        full=full, push=not no_push, accept=accept, contact=contact, with_actions=with_actions, adopt=adopt, wait=wait
    )
    if dry_run or not settings.push.enabled:
        if accept is not None:
            msg = "--accept carries a plan out, which --dry-run and push.enabled = false forbid; drop one of them"
            raise ConfigError(msg)
        _plan(settings, options, PLAN_ROWS, None, as_json=as_json)
    with started(settings, "sync", wait=wait, with_actions=with_actions) as run:
        sync(run, options)
        document = summary(run)
    if as_json:
        print_json(document)
    else:
        show_summary(console(), run, document)
    raise typer.Exit(outcome(run.counts))


def written(pushed: dict[str, int]) -> str:
    """`1 stage, 2 fields, 0 do-not-contacts and the points of 1 contact`."""
    what = ", ".join(
        counted(pushed[key], one) for key, one in (("stages", "stage"), ("fields", "field"), ("dnc", "do-not-contact"))
    )
    return f"{what} and the points of {counted(pushed['points'], 'contact')}"


def show_summary(out: Console, run: Run, document: dict[str, Any]) -> None:
    pushed, checked = document["pushed"], document["validated"]
    out.print(
        f"Read {counted(document['pulled']['contacts'], 'contact')} and "
        f"{counted(document['pulled']['activities'], 'activity', 'activities')}, in a run of "
        f"{document['seconds']:.1f} s."
    )
    if run.zerobounce is None:
        out.print("No ZeroBounce key: addresses count as accepted (zerobounce.api_key).")
    elif checked["credits"] or any(checked[word] for word in ("accept", "hold", "reject")):
        out.print(
            f"Validated for {counted(checked['credits'], 'credit')}: {checked['accept']} accepted, {checked['hold']} held, "
            f"{checked['reject']} rejected."
        )
    for move in document["transitions"]:
        out.print(f"  {move['count']:>7}  {move['from'] or 'no stage'} → {move['to']}")
    if any(pushed[what] for what in ("stages", "fields", "dnc", "points", "groups")):
        out.print(
            f"Wrote {written(pushed)} with {counted(pushed['calls'], 'call')}."
            + (f" Set {counted(pushed['groups'], 'score')} in point groups." if pushed["groups"] else "")
        )
    else:
        out.print("Nothing had to be written.")
    acted = document["actions"]
    if any(acted.values()):
        out.print(f"Actions: {acted['done']} done, {acted['refused']} refused, {acted['pending']} pending.")
    out.print(f"Now: {counted_kinds(document['kinds'])}.")
    uploaded = document["uploads"]
    if uploaded["open"]:
        doubt = f"; {uploaded['doubtful']} in doubt: see `mautic-sync status`" if uploaded["doubtful"] else ""
        out.print(
            f"In files at ZeroBounce: {counted(uploaded['addresses'], 'address', 'addresses')}, for later runs to fetch{doubt}."
        )
    for word, one, several in (
        ("pending", "change is pending for the next run", "changes are pending for the next run"),
        ("quarantined", *["new in quarantine: `mautic-sync quarantine`"] * 2),
        ("failed", *["failed; `mautic-sync retry` tries again"] * 2),
        ("doubtful", "write is in doubt: the next run looks it up", "writes are in doubt: the next run looks them up"),
    ):
        if document[word]:
            out.print(counted(document[word], one, several))
    if document["pending"]:
        out.print(f"Writing what is pending: {describe_eta(document)}.")
