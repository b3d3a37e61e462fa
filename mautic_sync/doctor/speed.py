"""What calls cost this Mautic, and how long a full pull and a first push would take: measured by a few reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from mautic_sync.doctor.examination import Examination
from mautic_sync.doctor.finding import Finding, ok, skipped, spoken, warning
from mautic_sync.errors import ForbiddenError
from mautic_sync.mautic.contacts import Where, contacts_after
from mautic_sync.mautic.feeds import newest_rows
from mautic_sync.mautic.probing import Probe, count_contacts
from mautic_sync.pipeline import decide
from mautic_sync.pipeline.pull import FEED_PAGE_ROWS
from mautic_sync.store import changes, notes

TRIES = 3
SLOW_CALL = 0.3  # seconds
# docs/mautic.md: "Speed". A call with a bearer there, and what writing one contact took on the same server.
REFERENCE_CALL = 0.05
REFERENCE_BASIC = 0.55
REFERENCE_WRITE = 0.04
MOST_SERVER_CORES = 2  # requests in flight beyond which nothing was quicker
SAMPLE = 200  # rows by which a page is measured
FEWEST_FOR_INDEX = 20_000  # contacts below which a table without an index is as quick as one with it
NOBODY = "nobody@mautic-sync.invalid"


def call(exam: Examination) -> Finding:
    seconds = cost_of_call(exam.probe)
    return judge_call(seconds, oauth=exam.probe.server_user is not None)


def judge_call(seconds: float, *, oauth: bool) -> Finding:
    told = f"a small call takes {spoken(seconds)}"
    if seconds < SLOW_CALL:
        return ok(told, seconds=round(seconds, 3))
    if not oauth:
        return warning(told, "Use an OAuth 2 client: with Basic auth Mautic hashes the password at every call.")
    return warning(
        told, "See Mautic's server: PHP's opcache, PHP workers, the database's memory. The worker only waits for it."
    )


def cost_of_call(probe: Probe) -> float:
    for _ in range(TRIES):
        probe.read("users/self")
    return median(one.seconds for one in probe.heard[-TRIES:])


def index(exam: Examination) -> Finding:
    """Looking for an address that nobody has reads the whole table where the index is missing."""
    if exam.contacts < FEWEST_FOR_INDEX:
        return skipped(f"with fewer than {FEWEST_FOR_INDEX:,} contacts it makes no difference that can be measured")
    by_id = [_seconds_to_find(exam.probe, ("id", "eq", 0)) for _ in range(TRIES)]
    by_address = [_seconds_to_find(exam.probe, ("email", "eq", NOBODY)) for _ in range(TRIES)]
    return judge_index(median(by_id), median(by_address), exam.contacts)


def _seconds_to_find(probe: Probe, where: Where) -> float:
    count_contacts(probe, [where])
    return probe.heard[-1].seconds


def judge_index(by_id: float, by_address: float, contacts: int) -> Finding:
    """`by_id` and `by_address`: seconds that it takes to find nobody."""
    if by_address > 3 * by_id and by_address - by_id > 0.000_000_2 * contacts:
        return warning(
            f"looking for an address takes {spoken(by_address)}, for a number {spoken(by_id)}: leads.email has no index, "
            "and Mautic looks there at every write",
            "Have the database's administrator run `CREATE INDEX mautic_sync_email ON leads (email)` (with Mautic's table "
            "prefix), when few people are on the site.",
        )
    return ok(f"an address is found in {spoken(by_address)}")


@dataclass(frozen=True)
class Pull:
    """Seconds for one contact, for one row of activity and for a small call, as measured."""

    contact: float
    row: float
    call: float


def pull(exam: Examination) -> Finding:
    if not exam.contacts:
        return skipped("Mautic has no contacts yet")
    page = contacts_after(exam.probe, 0, min(SAMPLE, exam.set.mautic.page_size))
    contact = exam.probe.heard[-1].seconds / max(page.rows, 1)
    rows, row = exam.feeds, 0.0
    largest = max(rows, key=lambda name: rows[name], default=None)
    if largest is not None and rows[largest]:
        found = newest_rows(exam.probe, largest, SAMPLE)
        row = exam.probe.heard[-1].seconds / max(len(found), 1)
    measured = Pull(contact, row, cost_of_call(exam.probe))
    seconds = seconds_of_pull(measured, exam.contacts, sum(rows.values()), exam.set.mautic.page_size, in_flight(exam))
    return ok(
        f"a full pull of {exam.contacts:,} contacts and {sum(rows.values()):,} activities takes about {spoken(seconds)}",
        seconds=round(seconds),
        contacts=exam.contacts,
        activities=sum(rows.values()),
    )


def seconds_of_pull(measured: Pull, contacts: int, activities: int, page: int, flying: int) -> float:
    """What is measured by a small page holds the cost of the call itself once; a large page pays it once, too."""
    pages = math.ceil(contacts / page) + math.ceil(activities / FEED_PAGE_ROWS)
    reading = contacts * max(measured.contact - measured.call / SAMPLE, 0) + activities * max(
        measured.row - measured.call / SAMPLE, 0
    )
    return (reading + pages * measured.call) / flying


def in_flight(exam: Examination) -> int:
    return min(exam.set.mautic.concurrency, MOST_SERVER_CORES)


def push(exam: Examination) -> Finding:
    """From the plan where there is one, else from the contacts that are in no stage yet."""
    if exam.store_problem is None and notes.get(exam.store, decide.BASELINE) is not None:
        return skipped("the first push is done; `mautic-sync status` shows what is pending")
    planned = changes.count_contacts(exam.store) if exam.store_problem is None else 0
    try:
        contacts = planned or _without_our_stage(exam)
    except ForbiddenError:
        return skipped("stages cannot be read, see the rights")
    if not contacts:
        return ok("there is nothing to write", contacts=0)
    reference = REFERENCE_CALL if exam.probe.server_user is not None else REFERENCE_BASIC
    # Points are a call of their own beside the stage.
    writes = changes.count_planned(exam.store) if planned else contacts
    seconds = seconds_of_push(writes, cost_of_call(exam.probe) / reference, in_flight(exam))
    limit = exam.set.push.max_seconds
    runs = math.ceil(seconds / limit)
    spread = f", at most {spoken(limit)} a run (push.max_seconds), so in {runs} runs" if runs > 1 else ""
    first = (
        ". It waits for `mautic-sync sync --accept PLAN` (push.first_run_max)"
        if contacts > exam.set.push.first_run_max
        else ""
    )
    about = "the plan has" if planned else "at most"
    return ok(
        f"the first push takes about {spoken(seconds)} ({about} {contacts:,} contacts){spread}{first}",
        seconds=round(seconds),
        contacts=contacts,
    )


def seconds_of_push(writes: int, slower: float, flying: int) -> float:
    """`slower`: how many times as long as the reference a small call takes here; writes are taken to be so, too."""
    return writes * REFERENCE_WRITE * min(max(slower, 0.5), 10) / flying


def _without_our_stage(exam: Examination) -> int:
    taken_over = exam.rules.stages.takes_over
    kept = sum(
        count_contacts(exam.probe, [("stage_id", "eq", one.id)]) for one in exam.stages if one.name not in taken_over
    )
    return max(exam.contacts - kept, 0)
