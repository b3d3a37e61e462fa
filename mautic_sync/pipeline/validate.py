"""Addresses whose verdict could change somebody's kind → ZeroBounce → verdicts, within the budgets.

A credit is noted before its verdict is used, and an address is asked once whoever has it. docs/zerobounce.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from mautic_sync.domain.validation import Verdict
from mautic_sync.errors import DoubtfulError, MalformedError, MauticSyncError, RefusedError
from mautic_sync.pipeline.context import Run
from mautic_sync.store import decisions, notes, people, verdicts
from mautic_sync.zerobounce import Answer, ZeroBounce

IN_FLIGHT = 5
POLICY = "verdict_policy"
OUTCOME_WORDS = {"accepted": "accept", "held": "hold", "rejected": "reject"}
NO_ANSWER = "no_answer"
"""Our own sub-status of an address whose answer was lost: held, and asked again later."""


def credits_left(run: Run, connection: Connection) -> int:
    """What this run may still spend, by the run's and the day's caps of the settings and the mappings."""
    settings, rules = run.settings.zerobounce, run.mappings.validation
    zone = ZoneInfo(run.settings.time_zone)
    midnight = datetime.fromtimestamp(run.now, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    spent_today = verdicts.credits_since(connection, int(midnight.timestamp()))
    return max(
        0,
        min(
            min(settings.max_credits_per_run, rules.per_run) - run.counts.credits,
            min(settings.max_credits_per_day, rules.per_day) - spent_today,
        ),
    )


def apply_policy(run: Run) -> None:
    """After a change of `validation.yaml`: when each address is asked again follows the new policy, free of charge."""
    rules = run.mappings.validation
    fingerprint = repr((sorted(rules.outcomes.items()), rules.ask_accepted, rules.ask_held, rules.ask_rejected))
    with run.engine.begin() as connection:
        if notes.get(connection, POLICY) == fingerprint:
            return
        after = ""
        while found := verdicts.all_verdicts(connection, after):
            for one in found:
                verdicts.put_next_at(connection, one.address, rules.next_at(one))
            after = found[-1].address
        notes.put(connection, POLICY, fingerprint)


def validate(run: Run) -> None:
    """Buy the verdicts that are needed, most valuable first. Without a key the gate holds nobody and says so."""
    if run.zerobounce is None:
        run.tell("gate_open", reason="without zerobounce.api_key addresses count as accepted")
        return
    with run.engine.begin() as connection:
        run.counts.cached = decisions.count_answered(connection, run.now)
        budget = credits_left(run, connection)
        addresses = decisions.addresses_to_ask(
            connection, run.now, run.mappings.validation.order, budget, only=run.only
        )
        wanted = decisions.count_to_ask(connection, run.now, only=run.only)
    if wanted > len(addresses):
        run.tell("budget", wanted=wanted, budget=budget)
    if not addresses:
        return
    run.tell("validating", addresses=len(addresses))
    _ask_all(run, run.zerobounce, iter(addresses))
    run.tell("validated", credits=run.counts.credits, **run.counts.verdicts)


def _ask_all(run: Run, zerobounce: ZeroBounce, addresses: Iterator[str]) -> None:
    """Keep a few questions in flight; the first sign of a bad key or no credits ends the asking."""
    with ThreadPoolExecutor(max_workers=IN_FLIGHT, thread_name_prefix="validate") as pool:
        flying: dict[Future[Answer], str] = {}
        try:
            while True:
                while len(flying) < IN_FLIGHT and (address := next(addresses, None)) is not None:
                    _note_asked(run, address)
                    flying[pool.submit(zerobounce.validate, address)] = address
                if not flying:
                    return
                landed, _ = wait(flying, return_when=FIRST_COMPLETED)
                for future in landed:
                    _land(run, flying.pop(future), future)
        except BaseException:
            for future, address in flying.items():
                with suppress(MauticSyncError):
                    _land(run, address, future)
            raise


def _note_asked(run: Run, address: str) -> None:
    """Before the question: should the worker die before the answer, the address is not asked again at once."""
    again = run.now + run.mappings.validation.ask_held[0]
    with run.engine.begin() as connection:
        if verdicts.get_verdict(connection, address) is None:
            unanswered = Verdict(address, "unknown", NO_ANSWER, run.now, attempts=0)
            verdicts.put_verdict(connection, unanswered, again, run.id)
        else:
            verdicts.put_next_at(connection, address, again)


def _land(run: Run, address: str, future: Future[Answer]) -> None:
    try:
        answer = future.result()
    except (DoubtfulError, MalformedError) as error:
        # It may have been paid for. Never again in this run; held, and asked again at the growing distance.
        run.tell("no_answer", reason=str(error))
        keep_answer(run, address, None)
        return
    except RefusedError as error:
        run.counts.failed += 1
        run.tell("validation_refused", reason=str(error))
        keep_answer(run, address, None, credits=0)
        return
    except MauticSyncError:
        # Nobody looked at the address (no credits, a wrong key, a block): it may be asked as soon as that is mended.
        with run.engine.begin() as connection:
            known = verdicts.get_verdict(connection, address)
            if known is not None and known.sub_status == NO_ANSWER and not known.attempts:
                verdicts.take_back(connection, address)
            else:
                verdicts.put_next_at(connection, address, run.now)
        raise
    keep_answer(run, address, answer)


def keep_answer(run: Run, address: str, answer: Answer | None, *, credits: int | None = None) -> Verdict:  # noqa: A002
    """Note the credit and the verdict in one transaction; whoever has the address is decided again.

    Without an answer the address is held; one credit is noted unless `credits` says otherwise.
    """
    rules = run.mappings.validation
    now = max(run.now, int(time.time()) if answer is None else run.now)
    with run.engine.begin() as connection:
        before = verdicts.get_verdict(connection, address)
        if answer is None:
            status, sub_status = "unknown", NO_ANSWER
        else:
            status, sub_status = answer.status, answer.sub_status
        outcome, known = rules.policy(status, sub_status)
        was_held = before is not None and rules.policy(before.status, before.sub_status)[0] == "held"
        verdict = Verdict(
            address=address,
            status=status,
            sub_status=sub_status,
            at=now,
            attempts=(before.attempts if before is not None and was_held else 0) + 1 if outcome == "held" else 0,
            did_you_mean=answer.did_you_mean if answer else "",
            raw=answer.raw if answer else {},
        )
        cost = credits if credits is not None else 0 if answer is not None and status == "unknown" else 1
        verdicts.put_credit(
            connection, {"run_id": run.id, "at": now, "address": address, "credits": cost, "status": status}
        )
        verdicts.put_verdict(connection, verdict, rules.next_at(verdict), run.id)
        people.mark_address(connection, address)
    run.counts.credits += cost
    run.counts.verdicts[OUTCOME_WORDS[outcome]] += 1
    if not known:
        run.tell("unknown_status", status=status, sub_status=sub_status, treated_as="held")
    return verdict
