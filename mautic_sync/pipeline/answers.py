"""What ZeroBounce answered → verdicts and credits, each noted with the other; and what may still be spent."""

from __future__ import annotations

import time
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from mautic_sync.domain.validation import Verdict
from mautic_sync.pipeline.context import Run
from mautic_sync.store import people, verdicts
from mautic_sync.zerobounce import Answer

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


def keep_answer(run: Run, address: str, answer: Answer | None, *, credits: int | None = None) -> Verdict:  # noqa: A002
    """Note the credit and the verdict in one transaction; whoever has the address is decided again.

    Without an answer the address is held; one credit is noted unless `credits` says otherwise.
    """
    cost = credits if credits is not None else 0 if answer is not None and answer.status == "unknown" else 1
    with run.engine.begin() as connection:
        verdict = settle(run, connection, address, answer, cost=cost)
    run.counts.credits += cost
    return verdict


def settle(
    run: Run, connection: Connection, address: str, answer: Answer | None, *, cost: int, paid_at: int | None = None
) -> Verdict:
    """Note that this address has been answered for, for so many credits more, which count as spent at `paid_at`."""
    rules = run.mappings.validation
    now = max(run.now, int(time.time()) if answer is None else run.now)
    before = verdicts.get_verdict(connection, address)
    status, sub_status = ("unknown", NO_ANSWER) if answer is None else (answer.status, answer.sub_status)
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
    spent_at = now if paid_at is None else paid_at
    verdicts.put_credit(
        connection, {"run_id": run.id, "at": spent_at, "address": address, "credits": cost, "status": status}
    )
    verdicts.put_verdict(connection, verdict, rules.next_at(verdict), run.id)
    people.mark_address(connection, address)
    run.counts.verdicts[OUTCOME_WORDS[outcome]] += 1
    if not known:
        run.tell("unknown_status", status=status, sub_status=sub_status, treated_as="held")
    return verdict
