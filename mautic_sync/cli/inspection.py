"""`status`, `explain` and `validate`: looking at what is known."""

from __future__ import annotations

import time
from contextlib import closing, suppress
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column
from sqlalchemy import Connection, Engine

from mautic_sync.cli.common import (
    ConfigOption,
    JsonOption,
    WaitOption,
    console,
    counted,
    counted_kinds,
    listing,
    open_store,
    persons_meant,
    print_json,
    read_mappings,
    read_settings,
)
from mautic_sync.cli.passes import change_as_json, describe_change, describe_eta, parse_moment, started
from mautic_sync.domain.validation import normalise_address
from mautic_sync.errors import ConfigError, MauticSyncError, StopError, StoreBusyError
from mautic_sync.pipeline import health, pull, rules, waiting
from mautic_sync.pipeline.answers import OUTCOME_WORDS, credits_left, keep_answer
from mautic_sync.pipeline.explain import explain_person
from mautic_sync.pipeline.run import all_kinds, connect_zerobounce, iso, outcome
from mautic_sync.schedule import crons_of
from mautic_sync.settings import Settings
from mautic_sync.store import actions, changes, holds, notes, people, runs, uploads, verdicts
from mautic_sync.store.engine import run_lock

RUNS_SHOWN = 10
RUN_ID_CHARACTERS = 22
NOT_ASKED = {
    "low_value": "no credit is spent on whoever is of low value",
    "only_if": "`only_if` in validation.yaml says not to ask",
    "no_key": "there is no ZeroBounce key to ask with (zerobounce.api_key)",
}
QUESTION = (
    "Is {file} among the files of your ZeroBounce account? If so, `mautic-sync retry --upload {upload} --file-id ID` "
    "fetches its result under the id that it has there. If not, `mautic-sync retry --uploads` lets its addresses be "
    "asked again, which spends their credits."
)


def register(app: typer.Typer) -> None:
    app.command("status")(status_command)
    app.command("explain")(explain_command)
    app.command("validate")(validate_command)


def status_command(
    run_id: Annotated[str | None, typer.Argument(help="Show the changes of this run.", metavar="RUN")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    healthy: Annotated[
        bool,
        typer.Option("--healthy", help="Only whether the worker does its work: exit 0 if so, else 1; asks no network."),
    ] = False,
) -> None:
    """The last runs, the worker and its schedule, what is pending, and the credits that are left."""
    settings = read_settings(config)
    with open_store(settings) as engine:
        if healthy:
            _check_health(settings, engine, as_json=as_json)
        if run_id is not None:
            document, show = _run_document(engine, run_id), _show_run
        else:
            _notice_cut_short(engine)
            document, show = _status_document(settings, engine), _show_status
    if as_json:
        print_json(document)
    else:
        show(console(), document)


def _check_health(settings: Settings, engine: Engine, *, as_json: bool) -> NoReturn:
    with engine.begin() as connection:
        found = health.health(connection, settings, int(time.time()))
    if as_json:
        print_json({"healthy": found.ok, "reason": found.reason})
    else:
        print(f"{'healthy' if found.ok else 'not healthy'}: {found.reason}")
    raise typer.Exit(0 if found.ok else 1)


def _run_document(engine: Engine, run_id: str) -> dict[str, Any]:
    """The document of `status RUN --json`: the run and every change that it planned or settled."""
    with engine.begin() as connection:
        row = runs.get_run(connection, run_id)
        if row is None:
            msg = f"there is no run {run_id}; `mautic-sync status` lists the last ones"
            raise ConfigError(msg)
        rows = changes.listed(
            connection,
            [changes.PLANNED, changes.SENT, changes.DOUBTFUL, changes.SETTLED, changes.REFUSED],
            run_id=run_id,
        )
    return {**_run_as_json(row), "changes": [change_as_json(one) for one in rows]}


def _run_as_json(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "run_id": row["id"],
        "command": row["command"],
        "started_at": iso(row["started_at"]),
        "ended_at": iso(row["ended_at"]) if row["ended_at"] else None,
        "exit_code": row["exit_code"],
        "summary": row["summary"],
    }


def _status_document(settings: Settings, engine: Engine) -> dict[str, Any]:
    credits_now = _credits(settings)
    now = int(time.time())
    with engine.begin() as connection:
        found = health.health(connection, settings, now)
        pending = changes.pending_counts(connection)
        return {
            "mautic": notes.get(connection, pull.INSTANCE),
            "healthy": found.ok,
            "health": found.reason,
            "kinds": all_kinds(people.count_by_kind(connection)),
            "worker": _worker_as_json(notes.get_json(connection, health.WORKER), now),
            "schedule": _schedule_as_json(connection, settings, now),
            "rules": _rules_as_json(connection),
            "runs": [_run_as_json(row) for row in runs.last_runs(connection, RUNS_SHOWN)],
            "cursors": runs.all_cursors(connection),
            "pending": pending,
            **waiting.eta(connection, settings.push, sum(pending.values())),
            "quarantined": len(runs.in_quarantine(connection)),
            "failed": sum(map(len, changes.refused_persons(connection).values())),
            "held": holds.count(connection),
            "actions": {
                "pending": actions.count_open(connection),
                "refused": len(actions.refused(connection)),
            },
            "credits": credits_now,
            "uploads": [_upload_as_json(row) for row in uploads.open_files(connection)],
        }


def _worker_as_json(beat: dict[str, Any] | None, now: int) -> dict[str, Any] | None:
    if beat is None:
        return None
    return {
        "alive": health.is_alive(beat, now),
        "host": beat["host"],
        "pid": beat["pid"],
        "run": beat["run"],
        **{
            name: iso(beat[name]) if beat[name] else None
            for name in ("started_at", "seen_at", "active_at", "stopped_at")
        },
    }


def _schedule_as_json(connection: Connection, settings: Settings, now: int) -> dict[str, Any]:
    last, missed = health.succeeded(connection, now), health.misfires(connection)
    document = {}
    for name, cron in crons_of(settings).items():
        misfired = missed.get(name, {"count": 0, "last_at": 0})
        document[name] = {
            "cron": cron.expression,
            "time_zone": cron.time_zone,
            "last_success": iso(last[name]) if name in last else None,
            "next": iso(cron.next_after(now)),
            "misfires": misfired["count"],
            "last_misfire": iso(misfired["last_at"]) if misfired["last_at"] else None,
        }
    return document


def _rules_as_json(connection: Connection) -> dict[str, Any]:
    state = rules.state_of(connection)
    broken = state["broken"]
    return {
        "fingerprint": state["fingerprint"],
        "kept_at": iso(state["kept_at"]) if state["kept_at"] else None,
        "broken": None if broken is None else {"since": iso(broken["since"]), "reason": broken["reason"]},
    }


def _notice_cut_short(engine: Engine) -> None:
    """A file that was being sent, while nobody runs: its worker was killed, and somebody has to look."""
    with engine.begin() as connection:
        sending = any(one.state == uploads.SENDING for one in uploads.open_files(connection))
    if sending:
        with suppress(StoreBusyError), run_lock(engine), engine.begin() as connection:
            uploads.doubt_what_was_sending(connection)


def _upload_as_json(row: Any) -> dict[str, Any]:
    return {
        "upload": row.id,
        "file": row.file_name,
        "file_id": row.file_id,
        "state": row.state,
        "addresses": row.addresses,
        "waiting": row.waiting,
        "at": iso(row.at),
        "error": row.error,
        "question": QUESTION.format(file=row.file_name, upload=row.id) if row.state == uploads.DOUBTFUL else None,
    }


def _credits(settings: Any) -> int | None:
    """What ZeroBounce says is left; None without a key or an answer: looking must not fail."""
    try:
        zerobounce = connect_zerobounce(settings, "status")
        if zerobounce is None:
            return None
        with closing(zerobounce):
            return zerobounce.credits()
    except MauticSyncError:
        return None


def _show_status(out: Console, document: dict[str, Any]) -> None:
    out.print(f"Mautic: {document['mautic'] or 'not met yet; run `mautic-sync plan`'}")
    out.print(f"{counted_kinds(document['kinds'])}.")
    pending = ", ".join(f"{count} {state}" for state, count in document["pending"].items())
    out.print(
        f"Pending: {pending or 'nothing'}. In quarantine: {document['quarantined']}. Failed: {document['failed']}."
    )
    if document["pending"]:
        out.print(f"Writing what is pending: {describe_eta(document)}.")
    if any(document["actions"].values()):
        out.print(f"Actions: {document['actions']['pending']} pending, {document['actions']['refused']} refused.")
    if document["quarantined"] or document["failed"] or document["actions"]["refused"]:
        out.print("What is held back, and why: `mautic-sync quarantine`.")
    if document["held"]:
        out.print(f"Held because a run was undone: {document['held']} (`mautic-sync release` lists them).")
    if document["credits"] is not None:
        out.print(f"ZeroBounce credits left: {document['credits']}")
    for one in document["uploads"]:
        out.print(
            f"File {one['file']} at ZeroBounce: {one['waiting']} of {counted(one['addresses'], 'address', 'addresses')} not answered, "
            f"{one['state']} since {one['at']}."
        )
        if one["error"]:
            out.print(escape(f"  {one['error']}"))
        if one["question"]:
            out.print(escape(f"  {one['question']}"))
    _show_worker(out, document)
    # The id is there to be copied.
    head = Column("run", no_wrap=True, min_width=RUN_ID_CHARACTERS)
    started_at = Column("started", no_wrap=True, min_width=len("2026-01-31T12:00:00Z"))
    table = listing(head, "command", started_at, "exit", "read", "stages set")
    for row in document["runs"]:
        summary = row["summary"] or {}
        table.add_row(
            row["run_id"],
            row["command"],
            row["started_at"],
            "running or killed" if row["exit_code"] is None else str(row["exit_code"]),
            str(summary.get("pulled", {}).get("contacts", "")),
            str(summary.get("pushed", {}).get("stages", "")),
        )
    out.print(table)


def _show_worker(out: Console, document: dict[str, Any]) -> None:
    worker = document["worker"]
    if worker is not None:
        state = "is running, seen" if worker["alive"] else "does not run; last seen"
        state += f" {worker['seen_at']}"
        at = f", at run {worker['run']}" if worker["alive"] and worker["run"] else ""
        out.print(escape(f"Worker: {state} ({worker['host']}, process {worker['pid']}){at}."))
        for name, one in document["schedule"].items():
            told = f"last success {one['last_success'] or 'never'}, next {one['next']}"
            missed = (
                f", {counted(one['misfires'], 'misfire')}, the last {one['last_misfire']}" if one["misfires"] else ""
            )
            out.print(f"  {name}: {told}{missed}")
        if not document["healthy"]:
            out.print(escape(f"Not healthy: {document['health']}"))
    broken = document["rules"]["broken"]
    if broken is not None:
        out.print(
            escape(
                f"Rules: broken since {broken['since']}; the worker goes on with the last good ones. {broken['reason']}"
            )
        )


def _show_run(out: Console, document: dict[str, Any]) -> None:
    code = document["exit_code"]
    ended = "running or killed" if code is None else f"ended {document['ended_at']}, exit {code}"
    out.print(escape(f"{document['command']}, started {document['started_at']}, {ended}"))
    summary = document["summary"] or {}
    for move in summary.get("transitions", ()):
        out.print(escape(f"  {move['count']:>7}  {move['from'] or 'no stage'} → {move['to']}"))
    if not document["changes"]:
        out.print("No changes.")
        return
    _show_changes(out, document)


def _show_changes(out: Console, document: dict[str, Any]) -> None:
    table = listing("contact", "old → new", "state", "why")
    for row in document["changes"]:
        table.add_row(str(row["contact"]), escape(describe_change(row)), row["state"], escape(row["reason"]))
    out.print(table)


def explain_command(
    who: Annotated[str, typer.Argument(help="Mautic id, or e-mail address.", metavar="ID or EMAIL")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
    as_of: Annotated[str | None, typer.Option("--as-of", help="Decide as of this day or time (ISO 8601).")] = None,
) -> None:
    """Why a contact is what it is: the rules, the evidence, the verdict, the last write."""
    settings = read_settings(config)
    mappings = read_mappings(settings)
    moment = parse_moment(as_of, settings.time_zone) if as_of is not None else int(time.time())
    with open_store(settings) as engine, engine.begin() as connection:
        found = persons_meant(connection, who)
        if not found:
            msg = "nobody in the store has this id or address; read Mautic first with `mautic-sync plan`"
            raise StopError(msg)
        documents = [explain_person(connection, person_id, settings, mappings, moment) for person_id in found]
    if as_json:
        document = documents[0]
        if len(documents) > 1:
            document["others_with_this_address"] = [other["id"] for other in documents[1:]]
        print_json(document)
        return
    for document in documents:
        _show_explanation(console(), document)


def _show_explanation(out: Console, document: dict[str, Any]) -> None:
    decided = f"{document['kind']}, stage {document['stage']}" if document["kind"] else "not decided"
    address = document["identity"]["email"]
    out.print(escape(f"Contact {document['id']}{f' ({address})' if address else ''}: {decided}"))
    out.print(escape(f"  {document['reason']}"))
    if document["in_mautic"]["stage"] != document["stage"]:
        why = f" ({document['left_alone']})" if document["left_alone"] else ""
        out.print(escape(f"  in Mautic now: {document['in_mautic']['stage'] or 'no stage'}{why}"))
    if document["held"]:
        held = document["held"]
        out.print(f"  held since {held['since']}: run {held['undone']} was undone; `mautic-sync release` lets go")
    for step in document["trace"]:
        if "note" in step:
            out.print(escape(f"  {step['note']}"))
    out.print("Rules, from top to bottom:")
    for stage in document["rules"]:
        out.print(f"  {stage['stage']} ({stage['kind']})" + ("" if stage["when"] else ": everybody else"))
        if stage["when"]:
            _show_trace(out, stage["when"], 2)
    verdict = document["verdict"]
    why = f"; {NOT_ASKED[verdict['not_asked']]}" if verdict["not_asked"] else ""
    if verdict["status"]:
        said = "/".join(filter(None, (verdict["status"], verdict["sub_status"])))
        out.print(f"Verdict: {verdict['outcome']} ({said}), {verdict['at']}{why}")
    else:
        out.print(f"Verdict: {verdict['outcome']}{why}")
    points = document["points"]
    out.print(
        f"Score {points['score']} (ours), {points['granted']} of it granted, points {points['mautic']} (Mautic's total)"
        + (f", {points['opening']} of history not granted" if points["opening"] else "")
        + (", hot" if points["hot"] else "")
        + (", of low value" if points["low_value"] else "")
    )
    if points["groups_in_mautic"]:
        shown = (
            f"{name} {points['groups'].get(name, 0)} (in Mautic {'unknown' if there is None else there})"
            for name, there in points["groups_in_mautic"].items()
        )
        out.print(escape(f"Point groups: {', '.join(shown)}"))
    for entry in points["account"]:
        out.print(escape(f"  {_describe_entry(entry)}"))
    for group, exact in points["cut_off"].items():
        out.print(escape(f"  {group} {points['groups'][group]} ({_exact(exact)}, cut off)"))
    for granted, heading in ((True, "Granted:"), (False, "Not granted:")):
        lines = [line for line in points["ledger"] if line["granted"] == granted]
        if lines:
            out.print(heading)
        for line in lines:
            out.print(escape(f"  {line['at']}  {line['delta']:+d}  {line['reason']}"))
    identity = document["identity"]
    if identity["former_ids"]:
        out.print(f"Former Mautic ids: {', '.join(map(str, identity['former_ids']))}")
    if document["activity"]:
        out.print("Activity, the newest first:")
    for act in document["activity"]:
        out.print(escape(f"  {act['at']}  {act['type']}  {act['what']}"))
    for type_, met in document["folded"]["activities"].items():
        out.print(escape(f"  {met['first_at']} … {met['last_at']}  {type_}  {counted(met['times'], 'time')}, folded"))
    for text in document["folded"]["not_counted"]:
        out.print(escape(f"Not counted: {text}"))
    for act in document["actions"]:
        failed = f": {act['error']}" if act["error"] and act["state"] != "done" else ""
        out.print(escape(f"Action: {act['at']}  {act['rule']} ({act['state']}){failed}"))
    if document["last_write"]:
        write = document["last_write"]
        out.print(escape(f"Last write: {describe_change(write)} ({write['state']}), {write['at']}"))
    for one in document["refused"]:
        out.print(escape(f"Not written: {describe_change({'old': {}, **one})}: {one['error']}"))


def _exact(points: float) -> str:
    """In three places, or in more where it has them."""
    return f"{points:.3f}" if round(points, 3) == points else f"{points:.9f}".rstrip("0")


def _describe_entry(entry: dict[str, Any]) -> str:
    """`interest: Reads pricing, page visit */pricing*, 2 times, 20 to 22 Nov: 3.9 (4 before decay), until …`."""
    told = f"{entry['group']}: {entry['rule']}, {entry['evidence']}"
    if entry["first_day"] is not None:
        days = (
            entry["first_day"]
            if entry["first_day"] == entry["last_day"]
            else f"{entry['first_day']} to {entry['last_day']}"
        )
        told += f", {counted(entry['times'], 'time')}, {days}"
    told += f": {entry['points']:g}"
    if entry["points"] != entry["before_decay"]:
        told += f" ({entry['before_decay']} before decay)"
    return told + (f", until {entry['expires_at']}" if entry["expires_at"] else "")


def _show_trace(out: Console, trace: dict[str, Any], depth: int) -> None:
    mark = "[green]✓[/green]" if trace["holds"] else "[red]✗[/red]"
    out.print("  " * depth + f"{mark} {escape(trace['text'])}")
    for child in trace.get("children", ()):
        _show_trace(out, child, depth + 1)


def validate_command(
    addresses: Annotated[list[str], typer.Argument(help="Addresses.", metavar="EMAIL")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
    wait: WaitOption = 0,
) -> None:
    """One verdict by hand for each address: from what is held where that is fresh, else for a credit."""
    settings = read_settings(config)
    documents: list[dict[str, Any]] = []
    with started(settings, "validate", wait=wait) as run:
        rules = run.mappings.validation
        for text in addresses:
            address = normalise_address(text)
            if address is None:
                documents.append(_verdict_row(text, "reject", "invalid", "failed_syntax_check", "", "syntax", None))
                continue
            with run.engine.begin() as connection:
                known = verdicts.get_verdict(connection, address)
                budget = credits_left(run, connection)
                waits = uploads.is_on_its_way(connection, address)
            if waits:
                # Paid for already: a question now would be paid for twice.
                documents.append(_verdict_row(address, "hold", "unknown", "in_file", "", "file", None))
                continue
            source = "cache"
            if known is None or not rules.is_fresh(known, run.now):
                if run.zerobounce is None:
                    msg = "zerobounce.api_key is not set: there is nobody to ask"
                    raise ConfigError(msg)
                if budget < 1:
                    msg = "the budget of credits is used up; raise zerobounce.max_credits_per_day or wait"
                    raise StopError(msg)
                known = keep_answer(run, address, run.zerobounce.validate(address))
                source = "zerobounce"
            word = OUTCOME_WORDS[rules.policy(known.status, known.sub_status)[0]]
            documents.append(
                _verdict_row(address, word, known.status, known.sub_status, known.did_you_mean, source, known.at)
            )
        code = outcome(run.counts)
    if as_json:
        print_json({"verdicts": documents, "credits": run.counts.credits})
    else:
        for row in documents:
            said = "/".join(filter(None, (row["status"], row["sub_status"])))
            hint = f", did you mean {row['did_you_mean']}?" if row["did_you_mean"] else ""
            print(f"{row['address']}: {row['outcome']} ({said}, {row['source']}){hint}")
    raise typer.Exit(code)


def _verdict_row(
    address: str, word: str, status: str, sub_status: str, did_you_mean: str, source: str, at: int | None
) -> dict[str, Any]:
    return {
        "address": address,
        "outcome": word,
        "status": status,
        "sub_status": sub_status,
        "did_you_mean": did_you_mean,
        "source": source,
        "at": iso(at) if at is not None else None,
    }
