"""All checks in their order, and what comes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import DBAPIError

from mautic_sync.doctor import addresses, connection, keeping, provisions, rights, rivals, speed
from mautic_sync.doctor.examination import Examination, Need
from mautic_sync.doctor.finding import Finding, failed, skipped
from mautic_sync.errors import MauticSyncError

SEE_DOCS = "docs/doctor.md says what this check is about."


@dataclass(frozen=True)
class Check:
    """One thing that is looked at: `id` is what docs/doctor.md explains it under, `title` what the table shows."""

    id: str
    title: str
    look: Callable[[Examination], Finding]
    needs: tuple[Need, ...] = ("settings",)


@dataclass(frozen=True)
class Result:
    """A check and what it found."""

    check: Check
    finding: Finding


MAUTIC: tuple[Need, ...] = ("settings", "mautic")
RULES: tuple[Need, ...] = ("settings", "mautic", "mappings")
PLACE: tuple[Need, ...] = ("settings", "place")
STORE: tuple[Need, ...] = ("settings", "store")

CHECKS = (
    Check("settings", "Settings", connection.settings, ()),
    Check("mappings", "Mappings", connection.mappings, ()),
    Check("mautic.address", "Address of Mautic", connection.address),
    Check("mautic.certificate", "Certificate", connection.certificate, MAUTIC),
    Check("mautic.reachable", "Mautic answers", connection.reachable, MAUTIC),
    Check("mautic.credentials", "Credentials", connection.credentials, MAUTIC),
    Check("mautic.basic", "Basic auth, the fallback", connection.basic, MAUTIC),
    Check("mautic.version", "Version", connection.version, MAUTIC),
    Check("mautic.clock", "Clocks", connection.clock, MAUTIC),
    Check("rights.contacts", "May read contacts", rights.contacts, MAUTIC),
    Check("rights.feeds", "May read activity", rights.feeds, RULES),
    *(Check(f"rights.{name}", f"May read {name}", rights.may_read(name), RULES) for name in rights.ENDPOINTS),
    Check("rights.writing", "May write", rights.writing, RULES),
    Check("stages", "Managed stages", provisions.stages, RULES),
    Check("fields", "Written fields", provisions.fields, RULES),
    Check("segments", "Segments of ours", provisions.segments, RULES),
    Check("names", "What rules name", provisions.names, RULES),
    Check("two_writers.stages", "Others who move stages", rivals.stages, RULES),
    Check("two_writers.points", "Points granted twice", rivals.points, RULES),
    Check("two_writers.triggers", "Point triggers", rivals.triggers, RULES),
    Check("webhooks", "Webhooks", rivals.webhooks, MAUTIC),
    Check("actions.owners", "Owners", provisions.owners, RULES),
    Check("actions.messages", "Addresses of messages", provisions.messages, ("settings", "mappings")),
    Check("speed.call", "Cost of a call", speed.call, MAUTIC),
    Check("speed.index", "Index on addresses", speed.index, MAUTIC),
    Check("speed.pull", "A full pull", speed.pull, RULES),
    Check("speed.push", "The first push", speed.push, RULES),
    Check("mautic.rate_limit", "Rate limit", connection.rate_limit, MAUTIC),
    Check("zerobounce.key", "ZeroBounce", addresses.key),
    Check("zerobounce.credits", "Credits", addresses.credits_left),
    Check("store", "Store", keeping.opened),
    Check("store.version", "Version of the store", keeping.schema, PLACE),
    Check("store.room", "Free disk", keeping.room, PLACE),
    Check("store.lock", "Run lock", keeping.lock, PLACE),
    Check("store.mautic", "The store's Mautic", keeping.instance, STORE),
    Check("runs.clock", "Time of the runs", keeping.clock, STORE),
    Check("runs", "Last success", keeping.last_success, STORE),
    Check("feeds", "Mautic not set back", keeping.feeds, (*MAUTIC, "store")),
)


def examine(exam: Examination) -> Iterator[Result]:
    """Each check with its finding, as soon as it is made."""
    for check in CHECKS:
        yield Result(check, _made(check, exam))


def _made(check: Check, exam: Examination) -> Finding:
    for need in check.needs:
        why = exam.lacks(need)
        if why is not None:
            return skipped(why)
    try:
        return check.look(exam)
    except MauticSyncError as error:
        # The sentences of errors end with what to do.
        told, _, fix = " ".join(str(error).split()).partition(". ")
        return failed(told.removesuffix("."), fix or SEE_DOCS)
    except DBAPIError as error:
        return failed(
            f"the store failed: {' '.join(str(error.orig).split())}", "Check store.url and rights, or restore a backup."
        )
    except OSError as error:
        return failed(f"{error.strerror or type(error).__name__}: {error.filename or check.title}", SEE_DOCS)


def exit_code(results: Sequence[Result]) -> int:
    """0: nothing failed; 1: something did; 2: it is settings or mappings."""
    broken = [result.finding for result in results if result.finding.state == "failed"]
    return 2 if any(one.configuration for one in broken) else 1 if broken else 0


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """The document of `doctor --json`."""
    counted = dict.fromkeys(("ok", "warning", "failed", "skipped"), 0)
    for result in results:
        counted[result.finding.state] += 1
    return {
        "ok": not counted["failed"],
        "counts": counted,
        "checks": [
            {
                "id": one.check.id,
                "title": one.check.title,
                "state": one.finding.state,
                "told": one.finding.told,
                "fix": one.finding.fix,
                "facts": dict(one.finding.facts),
            }
            for one in results
        ],
    }
