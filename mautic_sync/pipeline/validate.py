"""Addresses whose verdict could change somebody's kind → ZeroBounce → verdicts, within the budgets.

A credit is noted before its verdict is used, and an address is asked once whoever has it. docs/zerobounce.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress

from sqlalchemy import Connection

from mautic_sync.domain.validation import Verdict
from mautic_sync.errors import DoubtfulError, MalformedError, MauticSyncError, RefusedError
from mautic_sync.pipeline import files
from mautic_sync.pipeline.answers import NO_ANSWER, credits_left, keep_answer
from mautic_sync.pipeline.context import Run
from mautic_sync.store import decisions, notes, uploads, verdicts
from mautic_sync.zerobounce import Answer, ZeroBounce

IN_FLIGHT = 5
POLICY = "verdict_policy"


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
    if run.only is None:
        files.collect(run, run.zerobounce)
    with run.engine.begin() as connection:
        run.counts.cached = decisions.count_answered(connection, run.now)
        budget = credits_left(run, connection)
        wanted = decisions.count_to_ask(connection, run.now, only=run.only)
        by_file = wanted > run.mappings.validation.bulk_above and _may_send_files(run, connection)
        most = min(budget, files.MOST_IN_A_FILE) if by_file else budget
        addresses = decisions.addresses_to_ask(connection, run.now, run.mappings.validation.order, most, only=run.only)
    if wanted > len(addresses):
        run.tell("budget", wanted=wanted, budget=budget)
    if addresses and not (by_file and files.upload(run, run.zerobounce, addresses)):
        run.tell("validating", addresses=len(addresses))
        _ask_all(run, run.zerobounce, iter(addresses))
    if run.counts.credits or any(run.counts.verdicts.values()):
        run.tell("validated", credits=run.counts.credits, **run.counts.verdicts)


def _may_send_files(run: Run, connection: Connection) -> bool:
    """Not while one is in doubt: another that gets lost would put more credits aside before anybody has looked."""
    return run.only is None and all(one.state != uploads.DOUBTFUL for one in uploads.open_files(connection))


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
