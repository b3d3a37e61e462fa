"""Who is worth a call, from the store alone."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from mautic_sync.domain.scoring import ScoreRules, reasons_text, reasons_untold
from mautic_sync.mappings import Mappings
from mautic_sync.pipeline.decide import PERSONS_PER_TRANSACTION, Considered, consider
from mautic_sync.pipeline.explain import deciding_from_store, not_counted_yet
from mautic_sync.pipeline.placeholders import link_to, name_of
from mautic_sync.pipeline.pull import INSTANCE
from mautic_sync.pipeline.run import iso
from mautic_sync.settings import Settings
from mautic_sync.store import decisions, notes, people


def hot_contacts(
    connection: Connection, settings: Settings, mappings: Mappings, now: int, limit: int | None = None
) -> dict[str, Any]:
    """The document of `hot --json`: everybody who was hot when last decided, the highest score first.

    Scores and reasons are those of now, by the rules of now. `outdated` are those whose score was another one when they
    were decided, `not_counted` what the rules ask for that no run has counted yet.
    """
    deciding = deciding_from_store(connection, settings, mappings)
    base_url = settings.mautic.public_url or settings.mautic.base_url or notes.get(connection, INSTANCE) or ""
    found = decisions.hot_persons(connection, limit)
    persons = [row.person_id for row in found]
    numbers, owners = people.current_ids(connection, persons), people.owners_of(connection, persons)
    listed = []
    for first in range(0, len(found), PERSONS_PER_TRANSACTION):
        page = consider(deciding, connection, found[first : first + PERSONS_PER_TRANSACTION], now)
        for one in page:
            number, owner = numbers.get(one.row.person_id), owners.get(one.row.person_id)
            listed.append(_told(one, deciding.mappings.scores, number, owner, base_url))
    outdated = sum(one["score"] != row.score for one, row in zip(listed, found, strict=True))
    listed.sort(key=lambda one: -one["score"])
    return {
        "total": decisions.count_hot(connection),
        "groups": list(deciding.mappings.scores.groups),
        "outdated": outdated,
        "not_counted": not_counted_yet(connection, deciding.mappings),
        "hot": listed,
    }


def _told(one: Considered, scores: ScoreRules, number: int | None, owner: int | None, base_url: str) -> dict[str, Any]:
    row, fields, groups = one.row, one.signals.fields, dict(one.score.groups)
    return {
        "id": number,
        "name": name_of(fields, number),
        "email": fields.get("email"),
        "company": fields.get("company"),
        "phone": fields.get("phone") or fields.get("mobile"),
        "score": one.score.total,
        "points": row.points,
        "fit": groups.get("fit"),
        "interest": groups.get("interest"),
        "groups": groups,
        "reasons": reasons_text(one.parts, scores),
        "reasons_untold": reasons_untold(one.parts),
        "since": iso(row.hot_since) if row.hot_since is not None else None,
        "owner": owner,
        "link": link_to(base_url, number),
    }
