"""One pass, from pull to push, and the plan that shows it beforehand."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Engine

from mautic_sync import __version__
from mautic_sync.domain.plan import SafetyLimit
from mautic_sync.errors import ConfigError, MauticSyncError, SafetyStop, StopError, Terminated
from mautic_sync.mappings import Mappings
from mautic_sync.mautic.transport import Transport, refuse_old
from mautic_sync.pipeline import (
    answers,
    decide,
    fold,
    health,
    holding,
    occasions,
    opening,
    pull,
    push,
    reconcile,
    rules,
    validate,
    waiting,
)  # fmt: skip
from mautic_sync.pipeline.context import Counts, Observer, Run, silence
from mautic_sync.settings import Settings
from mautic_sync.store import actions, changes, decisions, due, notes, people, runs, uploads
from mautic_sync.store.backup import RESTORED
from mautic_sync.store.engine import run_lock
from mautic_sync.zerobounce import ZeroBounce

AnyTransport = TypeVar("AnyTransport", bound=Transport)
Moves = dict[tuple[str | None, str], int]
"""From which kind to which, how many."""
GROWTH = 20
"""By so many changes, at least, an accepted plan may have grown before it is carried out."""
ACCEPTED_BEFOREHAND = "baseline_accepted"
"""Set by `init --yes`: the first push needs no plan."""


LATENCIES = "latencies"
"""How long each sort of call to Mautic usually takes, in seconds."""
PUSHED_AT = "pushed_at"
"""When the last run passed the safety stop: what vanished since then counts in the next one."""


@dataclass(frozen=True)
class Options:
    """What the command line says about one pass."""

    full: bool = False
    push: bool = True
    accept: str | None = None
    contact: int | None = None
    with_actions: bool = False
    adopt: bool = False
    wait: float = 0


@contextmanager
def opened_run(
    settings: Settings,
    mappings: Mappings,
    engine: Engine,
    *,
    command: str,
    now: int,
    wait: float = 0,
    tell: Observer = silence,
    with_actions: bool = False,
) -> Iterator[Run]:
    """Take the lock, connect, and note the run's beginning and end, whatever happens in between.

    Time never goes back: where the clock was set back, `now` is that of the last run.
    """
    with run_lock(engine, wait), ExitStack() as stack:
        clock, now = now, _not_before_the_last(engine, now)
        run_id = _next_id(engine, now)
        if now > clock:
            tell("clock_back", run=run_id, seconds=now - clock)
        mautic = stack.enter_context(connect_mautic(settings, run_id, tell))
        zerobounce = connect_zerobounce(settings, run_id)
        run = Run(run_id, now, settings, mappings, engine, mautic, zerobounce, tell, with_actions)
        with engine.begin() as connection:
            runs.begin_run(connection, run_id, command, now)
            mautic.load.remember(notes.get_json(connection, LATENCIES) or {})
        exit_code = 1
        try:
            yield run
            exit_code = outcome(run.counts)
        except MauticSyncError as error:
            exit_code = error.exit_code
            error.facts = {**error.facts, "run_id": run_id, "summary": summary(run)}
            raise
        except KeyboardInterrupt:
            exit_code = 130
            raise
        except Terminated as signal:
            exit_code = signal.exit_code
            raise
        finally:
            with engine.begin() as connection:
                runs.end_run(connection, run_id, max(now, int(time.time())), exit_code, summary(run))
                notes.put_json(connection, LATENCIES, mautic.usual_latencies())
            if zerobounce is not None:
                zerobounce.close()


def _not_before_the_last(engine: Engine, now: int) -> int:
    with engine.begin() as connection:
        return max(now, runs.last_start(connection) or 0)


def _next_id(engine: Engine, now: int) -> str:
    """Ids sort by time: the second, how many runs began in it before this one, and what another store would not say."""
    with engine.begin() as connection:
        earlier = runs.count_begun_at(connection, now)
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S}-{min(earlier, 0xFF):02x}{secrets.token_hex(2)}"


def connect_mautic(settings: Settings, run_id: str, tell: Observer = silence) -> Transport:
    return connect_by(Transport, settings, run_id, tell)


def connect_by(way: type[AnyTransport], settings: Settings, run_id: str, tell: Observer = silence) -> AnyTransport:
    """Mautic as the settings say, over this kind of transport. Raises ConfigError where they do not say enough."""
    mautic = settings.mautic
    if mautic.base_url is None:
        msg = (
            "mautic.base_url is not set: where is Mautic? Run `mautic-sync init`, or set MAUTIC_SYNC_MAUTIC__BASE_URL."
        )
        raise ConfigError(msg)
    return way(
        mautic.base_url,
        client_id=mautic.client_id,
        client_secret=mautic.client_secret.get_secret_value() if mautic.client_secret else None,
        username=mautic.username,
        password=mautic.password.get_secret_value() if mautic.password else None,
        timeout=mautic.timeout,
        concurrency=mautic.concurrency,
        verify_tls=mautic.verify_tls,
        ca_bundle=str(mautic.ca_bundle) if mautic.ca_bundle else None,
        allow_http=mautic.allow_http,
        user_agent=f"mautic-sync/{__version__} (run {run_id})",
        tell=tell,
    )


def connect_zerobounce(settings: Settings, run_id: str) -> ZeroBounce | None:
    if settings.zerobounce.api_key is None:
        return None
    return ZeroBounce(
        settings.zerobounce.api_key.get_secret_value(),
        base_url=settings.zerobounce.base_url,
        bulk_url=settings.zerobounce.bulk_url,
        max_per_second=settings.zerobounce.max_per_second,
        user_agent=f"mautic-sync/{__version__} (run {run_id})",
    )


def plan_only(run: Run, options: Options) -> str:
    """Pull, decide, and store what a sync would change; writes nothing to Mautic and spends nothing.

    Returns the plan's id.
    """
    prepare(run, options)
    _decide(run)
    return _store_plan(run)


def sync(run: Run, options: Options) -> None:
    """One whole pass. Raises SafetyStop, with the plan stored, before it would change more than it may."""
    if options.accept is not None:
        _known_plan(run, options.accept)
    prepare(run, options)
    refuse_old(run.mautic.version)
    _require_provisioning(run)
    if options.push:
        push.settle_doubts(run)
    if run.with_actions and run.only is None:
        decide.begin_with_actions(run)
    baseline = _decide(run)
    if options.push:
        push.push_lost_dnc(run)
        if run.only is None:
            # Before a credit is spent: a first push, or one that changes too much, is a person's decision.
            (_stop_large_baseline if baseline else _stop_unsafe)(run, options)
    try:
        validate.validate(run)
    except MauticSyncError as error:
        # Verdicts that cannot be had hold newcomers back; everybody else goes on.
        run.counts.failed += 1
        run.tell("gate_failed", reason=str(error))
    if options.push and any(run.counts.verdicts.values()) and run.only is None:
        # Asking takes minutes: what people changed in Mautic meanwhile is theirs.
        pull.pull_changes(run)
    _decide(run)
    if not options.push:
        return
    if run.only is None:
        if baseline:
            _stop_large_baseline(run, options)
            with run.engine.begin() as connection:
                acts = {"with_actions": True} if run.with_actions else {}
                notes.put_json(connection, decide.BASELINE, {"at": run.now, "run_id": run.id, **acts})
                if not run.with_actions:
                    decisions.keep_waiting(connection)
        _stop_unsafe(run, options)
        with run.engine.begin() as connection:
            decisions.let_vanished_go(connection, run.now)
            notes.put(connection, PUSHED_AT, str(run.now))
            opening.begin(run, connection)
    with run.engine.begin() as connection:
        planned = changes.count_planned(connection)
    if planned:
        run.tell("pushing", changes=planned)
    run.points_wait = run.only is not None and not opening.grants_to_one(run)
    push.push(run)
    # What the push taught (merged or changed meanwhile) is decided, and written by the next run.
    _decide(run)
    if run.only is None:
        health.note_success(run, full=options.full)


def prepare(run: Run, options: Options) -> None:
    """Meet Mautic and read what is new."""
    pull.meet_instance(run, adopt=options.adopt)
    rules.read_instance(run, fresh=options.full)
    reread = pull.prepare_store(run)
    with run.engine.begin() as connection:
        restored = notes.get(connection, RESTORED) is not None
        if options.contact is not None:
            reconcile.refuse_one_contact(connection)
    if options.contact is not None:
        run.only = pull.pull_contact(run, options.contact)
        if run.only is None:
            msg = f"Mautic has no contact {options.contact} (any more)"
            raise StopError(msg)
        reconcile.one_contact(run, options.contact)
    else:
        pull.pull(run, full=options.full or reread or restored)
        reconcile.compare_accounts(run, full=options.full)
        if options.full:
            fold.fold(run)
            with run.engine.begin() as connection:
                due.renew(connection)
    fold.tell_what_is_missing(run)
    validate.apply_policy(run)


def _decide(run: Run) -> bool:
    """Decide who changed; True while the store has never pushed: the first push is a baseline."""
    with run.engine.begin() as connection:
        baseline = notes.get(connection, decide.BASELINE) is None
        choosing = run.only is None and run.start is None and opening.is_open(run, connection)
    decide.decide_changed(run, baseline=baseline)
    if choosing:
        run.start = opening.choose(run)
        run.grants = run.start.chosen == "history"
        decide.decide_changed(run, baseline=baseline)
    # After who is let go: what their undo had planned is replaced by what is decided.
    holding.leave_alone_what_changed(run)
    return baseline


def _require_provisioning(run: Run) -> None:
    missing = rules.missing_in_mautic(run)
    if missing:
        raise ConfigError(rules.lacking_told(missing))


# -- safety ---------------------------------------------------------------------------------------------------------


def safety_stop(run: Run) -> str | None:
    """Why a sync would stop and ask to have what is planned accepted; None where it would go on."""
    with run.engine.begin() as connection:
        baseline = notes.get(connection, decide.BASELINE) is None
    if baseline and (planned := _large_baseline(run)):
        return _told_of_baseline(run, planned)
    told = _unsafe(run)[0]
    return _told_of_moves(run, told) if told else None


def _large_baseline(run: Run) -> int:
    """How many contacts the first push would change, where those are too many; else 0."""
    with run.engine.begin() as connection:
        planned = changes.count_contacts(connection)
        accepted = notes.get(connection, ACCEPTED_BEFOREHAND) is not None
    return 0 if accepted or planned <= run.settings.push.first_run_max else planned


def _told_of_baseline(run: Run, planned: int) -> str:
    return (
        f"the first push would change {planned} contacts, more than push.first_run_max = "
        f"{run.settings.push.first_run_max}"
    )


def _told_of_moves(run: Run, told: Sequence[str]) -> str:
    return f"safety stop (push.max_change_ratio = {run.settings.push.max_change_ratio:g}): {'; '.join(told)}"


def _stop_large_baseline(run: Run, options: Options) -> None:
    planned = _large_baseline(run)
    if not planned:
        return
    if options.accept is not None:
        known = _known_plan(run, options.accept)
        expected = int(known.get("contacts", known["changes"]))
        if planned <= expected + max(GROWTH, int(run.settings.push.max_change_ratio * expected)):
            return
    raise _stopped(run, _told_of_baseline(run, planned))


def _stopped(run: Run, why: str) -> SafetyStop:
    """The refusal, with the plan stored."""
    plan_id = _store_plan(run)
    told = (
        f"{why}. Nothing was written. Look at it with `mautic-sync plan`, then carry it out with "
        f"`mautic-sync sync --accept {plan_id}`."
    )
    return SafetyStop(told, why=why, plan_id=plan_id, planned=_known_plan(run, plan_id))


def _unsafe(run: Run) -> tuple[list[str], SafetyLimit, Moves, dict[str, int]]:
    """What breaks `push.max_change_ratio`, that limit, and what it was held against.

    What waits since the baseline was accepted with it, and does not count.
    """
    with run.engine.begin() as connection:
        moves = _by_kind(run, changes.planned_moves(connection, baseline=False))
        for move, count in _by_kind(run, decisions.planned_arrivals(connection)).items():
            if move == ("ghost", "lead"):
                moves[move] -= count
        vanished = decisions.vanished_since(connection, int(notes.get(connection, PUSHED_AT) or run.now))
        totals: dict[str, int] = {}
        for stage_id, count in people.count_by_stage(connection).items():
            kind = run.kinds_ever.get(run.stage_names.get(stage_id or 0, ""))
            if kind is not None:
                totals[kind] = totals.get(kind, 0) + count
    limit = SafetyLimit(run.settings.push.max_change_ratio)
    return list(limit.broken_by(moves, totals, vanished)), limit, moves, totals


def _stop_unsafe(run: Run, options: Options) -> None:
    """The safety stop of `push.max_change_ratio`."""
    told, limit, moves, totals = _unsafe(run)
    if not told:
        return
    if options.accept is not None:
        accepted = _known_plan(run, options.accept)["moves"]
        kinds = run.kinds_ever
        # Totals name a kind, or a stage that the mappings did not name.
        before = _summed(
            ((one["from"] if one["from"] in kinds.values() else kinds.get(one["from"]), one["to"]), one["count"])
            for one in accepted
        )
        grown = {move: count - before.get(move, 0) for move, count in moves.items()}
        if not limit.broken_by({move: count for move, count in grown.items() if count > 0}, totals, {}):
            return
        told.append("that is far more than the accepted plan says")
    raise _stopped(run, _told_of_moves(run, told))


def _by_kind(run: Run, moves: Mapping[tuple[str | None, str], int]) -> Moves:
    kinds = run.kinds_ever
    return _summed(((kinds.get(before or ""), kinds[after]), count) for (before, after), count in moves.items())


def _shown(run: Run, moves: Mapping[tuple[str | None, str], int]) -> Moves:
    """By kind, for people to read: a stage that the mappings do not name is told by its name."""
    return _summed(
        ((run.kinds.get(before or "", before), run.kinds_ever[after]), count)
        for (before, after), count in moves.items()
    )


def _summed(moves: Iterable[tuple[tuple[str | None, str], int]]) -> Moves:
    counted: Moves = {}
    for move, count in moves:
        counted[move] = counted.get(move, 0) + count
    return counted


def _known_plan(run: Run, plan_id: str) -> dict[str, Any]:
    with run.engine.begin() as connection:
        known = runs.get_plan(connection, plan_id)
        if known is None:
            others = runs.plan_ids(connection)
            msg = f"there is no plan {plan_id}" + (f"; the latest is {others[0]}" if others else "; make one first")
            raise ConfigError(msg)
    return dict(known["totals"])


def _store_plan(run: Run) -> str:
    with run.engine.begin() as connection:
        totals = plan_totals(run)
        runs.put_plan(connection, run.id, run.id, run.now, totals)
    run.tell("planned", plan=run.id, changes=totals["changes"])
    return run.id


def plan_totals(run: Run) -> dict[str, Any]:
    """What the open plan holds: moves of kinds, number of changes, verdicts that would be bought."""
    with run.engine.begin() as connection:
        moves = _shown(run, changes.planned_moves(connection))
        asked = decisions.count_to_ask(connection, run.now) if run.zerobounce is not None else 0
        planned = changes.count_planned(connection)
        return {
            "changes": planned,
            **waiting.eta(connection, run.settings.push, planned),
            "contacts": changes.count_contacts(connection),
            "moves": moves_as_json(moves),
            "kinds": all_kinds(people.count_by_kind(connection)),
            "actions": occasions.expected(
                run,
                changes.planned_transitions(connection, run.kinds_ever),
                actions.count_open_by_rule(connection, occasions.asked_for(run)),
            ),
            "verdicts_to_buy": min(asked, answers.credits_left(run, connection)) if asked else 0,
            "verdicts_needed": asked,
        }


# -- the summary ----------------------------------------------------------------------------------------------------


def all_kinds(counted: Mapping[str, int]) -> dict[str, int]:
    return {kind: counted.get(kind, 0) for kind in ("ghost", "lead", "customer")}


def moves_as_json(moves: Mapping[tuple[str | None, str], int]) -> list[dict[str, Any]]:
    ordered = sorted(moves.items(), key=lambda item: (item[0][0] or "", item[0][1]))
    return [{"from": before, "to": after, "count": count} for (before, after), count in ordered]


def iso(at: int) -> str:
    """Seconds since 1970 → `2026-11-01T12:00:00Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def outcome(counts: Counts) -> int:
    """0, or 4 when something new was quarantined, failed or is in doubt."""
    return 4 if counts.quarantined or counts.failed or counts.doubtful or counts.uploads_doubtful else 0


def summary(run: Run) -> dict[str, Any]:
    """The document of `sync --json`."""
    counts = run.counts
    with run.engine.begin() as connection:
        kinds = people.count_by_kind(connection)
        pending = changes.pending_counts(connection)
        actions_pending = actions.count_open(connection)
        eta = waiting.eta(connection, run.settings.push, sum(pending.values()))
        on_their_way = uploads.open_files(connection)
    return {
        "run_id": run.id,
        "started_at": iso(run.now),
        "seconds": round(time.monotonic() - run.began, 3),
        "pulled": {"contacts": counts.contacts, "activities": counts.activities, "calls": run.mautic.calls},
        "kinds": all_kinds(kinds),
        "transitions": moves_as_json(counts.moves),
        "validated": {"credits": counts.credits, **counts.verdicts, "cached": counts.cached},
        "uploads": {
            "open": len(on_their_way),
            "addresses": sum(one.waiting for one in on_their_way),
            "doubtful": sum(one.state == uploads.DOUBTFUL for one in on_their_way),
        },
        "pushed": {
            "stages": counts.stages,
            "points": counts.points,
            "groups": counts.groups,
            "fields": counts.fields,
            "dnc": counts.dnc,
            "calls": run.mautic.writes,
        },
        "actions": {
            "done": counts.actions_done,
            "refused": counts.actions_refused,
            "pending": actions_pending,
        },
        "merged": counts.merged,
        "reconciled": counts.reconciled,
        "vanished": sum(counts.vanished.values()),
        "quarantined": counts.quarantined,
        "failed": counts.failed,
        "doubtful": counts.doubtful,
        "pending": sum(pending.values()),
        **eta,
        "load": {"most": run.mautic.load.most, "lowest": run.mautic.load.lowest, "lowered": run.mautic.load.lowered},
    }
