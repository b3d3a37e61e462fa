"""`undo` and `release`, `quarantine` and `retry`: putting right what went wrong."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from sqlalchemy import Connection, Engine

from mautic_sync.cli.common import (
    LARGEST_ID,
    ConfigOption,
    JsonOption,
    WaitOption,
    console,
    counted,
    listing,
    open_store,
    persons_meant,
    print_json,
    read_settings,
)
from mautic_sync.cli.passes import PLAN_ROWS, describe_change, show_summary, started, written
from mautic_sync.cli.progress import paused
from mautic_sync.domain.undoing import UNDOES
from mautic_sync.errors import ConfigError
from mautic_sync.pipeline import files, pull, undo
from mautic_sync.pipeline.actions import NOTIFY
from mautic_sync.pipeline.context import Run
from mautic_sync.pipeline.decide import LOOP_GUARD
from mautic_sync.pipeline.run import Options, iso, outcome, summary, sync
from mautic_sync.settings import Settings
from mautic_sync.store import actions, changes, holds, ledger, people, runs
from mautic_sync.store.engine import run_lock

LISTED_HELD = 1000
PARTIAL = 4


def register(app: typer.Typer) -> None:
    app.command("undo")(undo_command)
    app.command("release")(release_command)
    app.command("quarantine")(quarantine_command)
    app.command("retry")(retry_command)


# -- undo and release -----------------------------------------------------------------------------------------------


def undo_command(
    run_id: Annotated[str, typer.Argument(help="The run to take back; `status` lists them.", metavar="RUN")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Carry it out without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would write, and write nothing.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=LARGEST_ID, help="How many changes to show.")] = PLAN_ROWS,
    wait: WaitOption = 0,
) -> None:
    """Take back what a run wrote, where nobody has changed it since, and hold those people until their signals change."""
    settings = read_settings(config)
    _may_write(settings, yes=yes, dry_run=dry_run, as_json=as_json)
    with started(settings, f"undo {run_id}", wait=wait) as run:
        found = undo.look(run, run_id, limit)
        with paused(run):
            if not as_json:
                _show_undo(console(), found)
            agreed = not dry_run and (found.changes or found.unfinished) and (yes or _agreed())
        shown, pending = found, 0
        if agreed:
            found, pending = undo.carry_out(run, run_id, limit)
        with run.engine.begin() as connection:
            held = holds.count(connection)
        document = {**summary(run), **found.as_json(), "dry_run": dry_run, "unwritten": pending, "held": held}
    if as_json:
        print_json(document)
    else:
        _show_left_alone(console(), found, shown)
        _show_undone(console(), document, agreed=bool(agreed))
    raise typer.Exit(outcome(run.counts))


def _may_write(settings: Settings, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    if dry_run:
        return
    if not settings.push.enabled:
        msg = "push.enabled = false forbids every write; look at what would be taken back with --dry-run"
        raise ConfigError(msg)
    if not yes and (as_json or not sys.stdin.isatty()):
        msg = "undo asks before it writes, and there is nobody to ask: say --yes, or look first with --dry-run"
        raise ConfigError(msg)


def _agreed() -> bool:
    return typer.confirm("Write this to Mautic now?", default=False)


def _show_undo(out: Console, found: undo.Found) -> None:
    if found.listed:
        table = listing("contact", "old → new")
        for row in found.listed:
            table.add_row(str(row["contact"]), escape(describe_change(row)))
        out.print(table)
        _more(out, found.changes - len(found.listed))
    _show_left_alone(out, found)
    for row in found.carried_out:
        done = ", ".join(row["done"])
        out.print(escape(f"cannot be undone: contact {row['contact']}: {row['rule']} ({done})"))
    _more(out, found.actions - len(found.carried_out))
    told = f"Undoing {found.undone} writes {counted(found.changes, 'change')} to {counted(found.contacts, 'contact')}"
    left = f"leaves {counted(found.left, 'thing')} as {'it is' if found.left == 1 else 'they are'}"
    out.print(f"{told}, {left}, and cannot take back {counted(found.actions, 'action')}.")
    if found.unfinished:
        taken = counted(
            found.unfinished,
            "action that it set off and nobody has begun is",
            "actions that it set off and nobody has begun are",
        )
        out.print(f"{taken} taken back.")


def _show_left_alone(out: Console, found: undo.Found, shown: undo.Found | None = None) -> None:
    """What is left alone, but for what was `shown` already."""
    rows = [row for row in found.left_alone if shown is None or row not in shown.left_alone]
    for row in rows:
        out.print(escape(f"left alone: contact {row['contact']}: {row['what']}: {row['why']}"))
    _more(out, found.left - (shown.left if shown else 0) - len(rows))


def _more(out: Console, hidden: int) -> None:
    if hidden > 0:
        out.print(f"… and {hidden} more (--limit)")


def _show_undone(out: Console, document: dict[str, Any], *, agreed: bool) -> None:
    if not agreed:
        nothing_left = not document["changes"] and not document["actions_taken_back"]
        out.print("Nothing of it is left to be taken back." if nothing_left else "Nothing was written.")
        return
    pushed = document["pushed"]
    out.print(f"Took back {written(pushed)}, as run {document['run_id']}.")
    held = counted(document["held"], "person is", "people are")
    out.print(f"{held} held until their signals change, or until `mautic-sync release`.")
    for word, one, several in (
        (
            "unwritten",
            *(f"of these changes {verb} for the next run, or for the same command" for verb in ("waits", "wait")),
        ),
        ("failed", *["failed: `mautic-sync quarantine`"] * 2),
        ("doubtful", "write is in doubt: the next run looks it up", "writes are in doubt: the next run looks them up"),
    ):
        if document[word]:
            out.print(counted(document[word], one, several))


def release_command(
    who: Annotated[
        list[str] | None, typer.Argument(help="Mautic ids, or e-mail addresses.", metavar="[ID or EMAIL]…")
    ] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Let everybody go.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    wait: WaitOption = 0,
) -> None:
    """Let people go who are held because a run was undone: the next run decides them again. Alone, lists them."""
    if who and everybody:
        msg = "say whom to let go, or --all; not both"
        raise ConfigError(msg)
    with _store(config) as engine:
        if not who and not everybody:
            _list_held(engine, as_json=as_json)
            return
        with run_lock(engine, wait):
            with engine.begin() as connection:
                persons = _persons(connection, who) if who else None
            released = undo.release(engine, persons)
    if as_json:
        print_json({"released": released})
    else:
        them = "this person" if released == 1 else "them"
        print(f"Let {counted(released, 'person', 'people')} go; the next `mautic-sync sync` decides {them} again.")


@contextmanager
def _store(config: Any) -> Iterator[Engine]:
    with open_store(read_settings(config)) as engine:
        yield engine


def _persons(connection: Connection, who: Collection[str]) -> set[int]:
    """The held persons that are meant; ConfigError for whoever is not held."""
    found: set[int] = set()
    for word in who:
        held = holds.held_among(connection, persons_meant(connection, word))
        if not held:
            told = f"contact {word}" if word.isdigit() else "the person with this address"
            msg = f"{told} is not held; `mautic-sync release` lists who is"
            raise ConfigError(msg)
        found |= held.keys()
    return found


def _list_held(engine: Engine, *, as_json: bool) -> None:
    with engine.begin() as connection:
        total = holds.count(connection)
        rows = holds.listed(connection, LISTED_HELD)
    listed = [
        {"contact": row["mautic_id"], "since": iso(row["at"]), "run_id": row["run_id"], "undone": row["undone"]}
        for row in rows
    ]
    if as_json:
        print_json({"held": total, "listed": listed})
        return
    out = console()
    for one in listed:
        out.print(f"contact {one['contact']}: since {one['since']}, run {one['undone']} was undone")
    if total > len(listed):
        out.print(f"… and {total - len(listed)} more")
    out.print("Let them go with `mautic-sync release --all`, or by id." if total else "Nobody is held.")


# -- quarantine and retry -------------------------------------------------------------------------------------------


def quarantine_command(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Input that could not be used, and writes and actions that were refused: why, when, how often. `retry` tries again."""
    with _store(config) as engine, engine.begin() as connection:
        document = _kept_back(connection)
    if as_json:
        print_json(document)
    else:
        _show_kept_back(console(), document)


def _kept_back(connection: Connection) -> dict[str, Any]:
    refused = changes.refused_persons(connection)
    numbers = people.current_ids(connection, list(refused))
    return {
        "quarantined": [
            {
                "id": f"q{row['id']}",
                "source": row["source"],
                "key": row["key"],
                "reason": row["reason"],
                "first_at": iso(row["first_at"]),
                "last_at": iso(row["last_at"]),
                "times": row["times"],
                "excerpt": row["excerpt"],
            }
            for row in runs.in_quarantine(connection)
        ],
        "failed": [
            {
                "id": f"w{row.id}",
                "contact": numbers.get(person_id),
                "target": row.target,
                "new": orjson.loads(row.new),
                "error": row.error,
                "at": iso(row.settled_at),
                "times": row.attempts,
            }
            for person_id, rows in refused.items()
            for row in rows
        ],
        "actions": [
            {
                "id": f"a{row['id']}",
                "contact": row["mautic_id"],
                "rule": row["rule"],
                "todo": row["todo"],
                "done": sorted(part for part in row["done"] if not part.startswith(NOTIFY)),
                "error": row["error"],
                "at": iso(row["settled_at"]),
                "times": row["attempts"],
            }
            for row in actions.refused(connection)
        ],
    }


def _show_kept_back(out: Console, document: dict[str, Any]) -> None:
    if not any(document.values()):
        out.print("Nothing is held back.")
        return
    for one in document["quarantined"]:
        since = f"since {one['first_at']}, {_times(one['times'])}, last {one['last_at']}"
        out.print(escape(f"{one['id']}  {one['source']} {one['key']}: {one['reason']} ({since})"))
    for one in document["failed"]:
        told = describe_change({"old": {}, **one})
        out.print(escape(f"{one['id']}  contact {one['contact']}: {told}; failed: {one['error']} ({_when(one)})"))
    for one in document["actions"]:
        told = f"contact {one['contact']}: action {one['rule']}; failed: {one['error']}"
        out.print(escape(f"{one['id']}  {told} ({_when(one)})"))
    out.print("Try again with `mautic-sync retry`, or one of them with `mautic-sync retry ID`.")


def _times(count: int) -> str:
    return "once" if count <= 1 else f"{count} times"


def _when(one: dict[str, Any]) -> str:
    return f"{one['at']}, tried {_times(one['times'])}"


@dataclass(frozen=True)
class _Wanted:
    """What to try again: numbers of the quarantine, of writes and of actions."""

    quarantined: frozenset[int]
    writes: frozenset[int]
    actions: frozenset[int]

    @classmethod
    def of(cls, connection: Connection, ids: Collection[str]) -> _Wanted:
        """Those of these ids, or all that can be tried again. Raises ConfigError for an id that nothing has."""
        held = {f"q{row['id']}": row for row in runs.in_quarantine(connection)}
        writes = {f"w{row.id}" for rows in changes.refused_persons(connection).values() for row in rows}
        acts = {f"a{row['id']}" for row in actions.refused(connection)}
        for one in ids:
            if one not in held and one not in writes and one not in acts:
                msg = f"there is nothing called {one} to try again; `mautic-sync quarantine` lists what there is"
                raise ConfigError(msg)
            if one in held and (why := _why_not(held[one])):
                msg = f"{one} cannot be tried again: {why}"
                raise ConfigError(msg)
        able = {one for one, row in held.items() if not _why_not(row)}
        chosen = set(ids) or able | writes | acts
        return cls(_numbers(chosen & able), _numbers(chosen & writes), _numbers(chosen & acts))


def _why_not(row: dict[str, Any]) -> str | None:
    if row["source"] == LOOP_GUARD:
        return "its stage changed too often; it is let go by itself when it has been quiet for a while"
    if row["source"] == "contact" and not row["key"].isdigit():
        return "it came without an id; `mautic-sync sync --full` reads everybody again"
    return None


def _numbers(ids: Collection[str]) -> frozenset[int]:
    return frozenset(int(re.sub(r"\D", "", one)) for one in ids)


def retry_command(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of `quarantine`; none: all.", metavar="[ID]…")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    wait: WaitOption = 0,
    lost: Annotated[
        bool, typer.Option("--uploads", help="The files in doubt are not at ZeroBounce: ask their addresses again.")
    ] = False,
    file_id: Annotated[
        str | None, typer.Option("--file-id", help="The file in doubt is at ZeroBounce, under this id: fetch it.")
    ] = None,
    upload: Annotated[
        int | None, typer.Option("--upload", min=1, help="Which file in doubt `--file-id` is about, by its number.")
    ] = None,
    discard: Annotated[
        bool,
        typer.Option(
            "--discard", help="Let the refused actions with these ids go instead: nothing more comes of them."
        ),
    ] = False,
) -> None:
    """Try failed writes and quarantined input again, in a pass of their own. Exit code 4 when some fails again.

    Also the place to answer for files in doubt.
    """
    if discard:
        _discard(config, ids or (), as_json=as_json, wait=wait)
        return
    settings = read_settings(config)
    if (lost and file_id is not None) or (upload is not None and file_id is None):
        msg = "say either --uploads, for files that are not at ZeroBounce, or --file-id for one that is (with --upload)"
        raise ConfigError(msg)
    with started(settings, "retry", wait=wait) as run:
        with run.engine.begin() as connection:
            wanted = _Wanted.of(connection, ids or ())
        addresses = files.give_up(run) if lost else 0
        if file_id is not None:
            files.adopt(run, file_id, upload)
        pull.meet_instance(run, adopt=False)
        pull.read_instance(run, fresh=True)
        with run.engine.begin() as connection:
            pull.note_what_is_kept(run, connection)
        persons, outdated = _plan_again(run, wanted)
        contacts = pull.retry_contacts(run, wanted.quarantined)
        rows = pull.retry_rows(run, wanted.quarantined) + files.release_rows(run, wanted.quarantined)
        sync(run, Options(push=settings.push.enabled))
        unneeded = _let_unneeded_go(run, wanted)
        again = _failed_again(run, wanted, persons)
        document = {
            **summary(run),
            "retried": {
                "writes": len(wanted.writes) - unneeded,
                "contacts": contacts,
                "rows": rows,
                "actions": len(wanted.actions) - outdated,
                "outdated": outdated,
                "unneeded": unneeded,
                "addresses": addresses,
            },
            "failed_again": again,
        }
    if as_json:
        print_json(document)
    else:
        out = console()
        tried = document["retried"]
        out.print(
            f"Tried {counted(tried['writes'], 'write')}, {counted(tried['actions'], 'action')}, "
            f"{counted(contacts, 'contact')} and {counted(rows, 'row')} again."
        )
        if outdated:
            them = "it" if outdated == 1 else "them"
            out.print(f"Let {counted(outdated, 'action')} go: what had set {them} off holds no more.")
        if unneeded:
            which = "it is" if unneeded == 1 else "they are"
            out.print(f"Let {counted(unneeded, 'write')} go: {which} not needed any more.")
        show_summary(out, run, document)
        if again:
            out.print(f"{again} of them failed again: `mautic-sync quarantine`")
    raise typer.Exit(PARTIAL if again else outcome(run.counts))


def _discard(config: Path | None, ids: Collection[str], *, as_json: bool, wait: float) -> None:
    with _store(config) as engine, run_lock(engine, wait), engine.begin() as connection:
        held = {f"a{row['id']}" for row in actions.refused(connection)}
        if not ids or not held.issuperset(ids):
            msg = "--discard wants ids of refused actions, like a12; `mautic-sync quarantine` lists them"
            raise ConfigError(msg)
        actions.supersede(connection, _numbers(ids), "somebody let it go: `retry --discard`", int(time.time()))
    if as_json:
        print_json({"discarded": len(set(ids))})
    else:
        print(f"Let {counted(len(set(ids)), 'action')} go.")


def _plan_again(run: Run, wanted: _Wanted) -> tuple[set[tuple[int, str]], int]:
    """Have refused writes decided anew, and refused actions planned that still hold.

    Returns the (person, target) of these writes, and how many actions were let go.
    """
    with run.engine.begin() as connection:
        refused = changes.refused_persons(connection, wanted.writes)
        outdated = actions.let_outdated_go(connection, wanted.actions, run.now)
        actions.try_refused_again(connection, wanted.actions)
        people.mark_dirty(connection, list(refused))
        for rows in refused.values():
            for row in rows:
                if UNDOES not in orjson.loads(row.new):
                    continue
                if row.event_key is not None and _has_arrived(connection, row):
                    changes.let_unneeded_go(connection, {row.id}, run.now)
                else:
                    changes.reopen(connection, row.id)
    return {(person_id, row.target) for person_id, rows in refused.items() for row in rows}, outdated


def _has_arrived(connection: Connection, row: Any) -> bool:
    """Whether points that were refused are in the account all the same: Mautic's log had them later."""
    return bool(ledger.granted_by_key(connection, {row.survivor}, {row.event_key}))


def _let_unneeded_go(run: Run, wanted: _Wanted) -> int:
    """Let refused writes go that were decided again and are not wanted; of who is held nothing was decided."""
    with run.engine.begin() as connection:
        refused = changes.refused_persons(connection, wanted.writes)
        held = holds.held_among(connection, sorted(refused))
        decided = {row.id for person_id, rows in refused.items() if person_id not in held for row in rows}
        return changes.let_unneeded_go(connection, decided, run.now)


def _failed_again(run: Run, wanted: _Wanted, writes: Collection[tuple[int, str]]) -> int:
    """How many of what was tried are where they were."""
    with run.engine.begin() as connection:
        held = sum(row["id"] in wanted.quarantined for row in runs.in_quarantine(connection))
        refused = {
            (person_id, row.target) for person_id, rows in changes.refused_persons(connection).items() for row in rows
        }
        acts = sum(row["id"] in wanted.actions for row in actions.refused(connection))
    return held + len(refused & set(writes)) + acts
