"""One person, told in full: rules, evidence, verdict, account, identity, the last write. Reads the store alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import orjson
from sqlalchemy import Connection, select

from mautic_sync.domain.actions import WHEN
from mautic_sync.domain.classification import explain as explain_rules
from mautic_sync.domain.contact import Catalogue
from mautic_sync.domain.plan import GROUP
from mautic_sync.domain.scoring import NOISE, Entry, account
from mautic_sync.errors import ConfigError
from mautic_sync.mappings import Mappings, MappingsError
from mautic_sync.pipeline import fold
from mautic_sync.pipeline.decide import Deciding, consider, places_of_untold, plan_stages
from mautic_sync.pipeline.pull import CATALOGUE, STAGE_KINDS, STAGES, catalogue_from_json
from mautic_sync.pipeline.run import iso
from mautic_sync.settings import Settings
from mautic_sync.store import actions, activities, carried, changes, decisions, holds, ledger, notes
from mautic_sync.store.schema import alias

ACTIVITIES_SHOWN = 10
GRANTS_SHOWN = 20
ACTIONS_SHOWN = 10


def explain_person(
    connection: Connection, person_id: int, settings: Settings, mappings: Mappings, now: int
) -> dict[str, Any]:
    """The document of `explain --json`."""
    deciding = deciding_from_store(connection, settings, mappings)
    mappings = deciding.mappings
    row = decisions.one_person(connection, person_id)
    numbers = connection.execute(select(alias).where(alias.c.person_id == person_id)).all()
    current = next((one.mautic_id for one in numbers if one.current), None)
    former = sorted(one.mautic_id for one in numbers if not one.current)
    if row is None:
        return _gone(current, former)
    kinds = {
        **(notes.get_json(connection, STAGE_KINDS) or {}),
        **{one.name: one.kind for one in mappings.stages.stages},
    }
    untold = places_of_untold(connection, decisions.open_changes(connection, [person_id]), kinds, mappings.stages)
    considered = consider(deciding, connection, [row], now, untold)[0]
    decision, signals = considered.decision, considered.signals
    standing = decisions.standing_of(row)
    in_mautic = signals.stage
    (stage_plan,), _often = plan_stages(connection, [considered], mappings.stages, now)
    due_at = considered.due_at(stage_plan)
    last = changes.last_write(connection, person_id)
    opening = ledger.openings(connection, [person_id]).get(person_id, 0)
    verdict = considered.verdict
    entries = account(signals, mappings.scores, now, considered.score.day)
    return {
        "id": current,
        "kind": decision.kind,
        "stage": decision.stage,
        "score": decision.score,
        "reason": decision.reason,
        "rule": decision.rule,
        "trace": list(decision.trace),
        "waiting": decision.waiting,
        "due_at": iso(due_at) if due_at is not None else None,
        "rules": [one.as_dict() for one in explain_rules(signals, mappings.stages, now)],
        "in_mautic": {"stage": in_mautic, "set_by_us": standing.stage},
        "left_alone": stage_plan.left_alone,
        "held": _held(connection, person_id),
        "verdict": {
            "outcome": signals.verdict.outcome,
            "status": signals.verdict.status,
            "sub_status": signals.verdict.sub_status,
            "did_you_mean": verdict.did_you_mean if verdict else "",
            "at": iso(verdict.at) if verdict else None,
            "fresh": signals.verdict.fresh,
            "needed": considered.asks,
            "not_asked": considered.not_asked,
        },
        "points": {
            "score": decision.score,
            "groups": dict(considered.score.groups),
            "groups_in_mautic": {
                name: standing.written.get(f"{GROUP}{name}", (0,))[0] for name in mappings.scores.push_groups
            },
            "hot": considered.flags.hot,
            "low_value": considered.flags.low_value,
            "conditions": [flag.removeprefix(WHEN) for flag in considered.named],
            "account": [_entry(one) for one in entries],
            "cut_off": _cut_off(entries, considered.score.groups),
            "granted": ledger.granted(connection, [person_id]).get(person_id, 0) - opening,
            "opening": opening,
            "mautic": row.points,
            "ledger": [
                {
                    "at": iso(line["at"]),
                    "delta": line["delta"],
                    "reason": line["reason"],
                    "granted": line["event_key"] != ledger.OPENING,
                }
                for line in ledger.account(connection, person_id, GRANTS_SHOWN)
            ],
        },
        "identity": {
            "person": person_id,
            "mautic_id": current,
            "former_ids": former,
            "email": signals.fields.get("email"),
            "first_seen": iso(row.date_added) if row.date_added else None,
            "identified_at": iso(row.date_identified) if row.date_identified else None,
            "last_active": iso(row.last_active) if row.last_active else None,
        },
        "activity": [_activity(one) for one in activities.activity_of(connection, person_id, ACTIVITIES_SHOWN)],
        "folded": _folded(connection, person_id, mappings, deciding.catalogue),
        "actions": [_action(one) for one in actions.last_of(connection, person_id, ACTIONS_SHOWN)],
        "last_write": None
        if last is None
        else {
            "run_id": last["settled_run"] or last["run_id"],
            "state": last["state"],
            "old": last["old"],
            "new": last["new"],
            "reason": last["reason"],
            "at": iso(last["settled_at"] or last["sent_at"] or last["planned_at"]),
            "error": last["error"],
        },
        "refused": [
            {"target": one.target, "new": orjson.loads(one.new), "error": one.error, "at": iso(one.settled_at)}
            for one in changes.refused_of(connection, person_id)
        ],
    }


def deciding_from_store(connection: Connection, settings: Settings, mappings: Mappings) -> Deciding:
    """What decides, as far as the store knows this Mautic."""
    stored = notes.get_json(connection, CATALOGUE)
    stage_names = {int(number): name for number, name in (notes.get_json(connection, STAGES) or {}).items()}
    catalogue = replace(catalogue_from_json(stored or {}), stages=stage_names)
    try:
        bound = mappings.bind(catalogue) if stored is not None else mappings
    except MappingsError as error:
        told = "This is by what the last run read of Mautic: `mautic-sync plan` reads it anew, and all that these rules name."
        raise ConfigError(f"{error}\n{told}") from None
    return Deciding(bound, catalogue, stage_names, gate_open=settings.zerobounce.api_key is None)


def not_counted_yet(connection: Connection, mappings: Mappings) -> list[str]:
    """What these rules ask of activity and no run has counted yet, because they were written since: a sentence each."""
    known = activities.counted_keys(connection)
    if known is None:
        return []
    proofs, counted = known
    missing = [one for one in mappings.matchers if one.key not in proofs]
    missing += [one for one in mappings.score_matchers if one.key not in counted]
    return [
        f"{fold.asks_text(one, mappings)}: no run has counted it since the rules changed; `mautic-sync plan` does"
        for one in {one.key: one for one in missing}.values()
    ]


def _held(connection: Connection, person_id: int) -> dict[str, Any] | None:
    """Since when nothing is decided for this person, and which run was undone."""
    row = holds.held_among(connection, [person_id]).get(person_id)
    return None if row is None else {"since": iso(row.at), "run_id": row.run_id, "undone": row.undone}


def _action(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rule": row["rule"],
        "state": row["state"],
        "todo": row["todo"],
        "at": iso(row["settled_at"] or row["sent_at"] or row["planned_at"]),
        "key": row["key"],
        "error": row["error"],
    }


def _entry(one: Entry) -> dict[str, Any]:
    """One rule of the account; days as ISO 8601 has them."""
    days = (one.first_day, one.last_day)
    first, last = (None if day is None else date.fromordinal(day).isoformat() for day in days)
    return {
        "group": one.group,
        "rule": one.rule,
        "points": round(one.points, 2),
        "before_decay": one.points_before_decay,
        "times": one.times,
        "first_day": first,
        "last_day": last,
        "evidence": one.evidence,
        "expires_at": iso(one.expires_at) if one.expires_at is not None else None,
    }


def _cut_off(entries: Sequence[Entry], scores: Mapping[str, int]) -> dict[str, float]:
    """Group → the sum of its entries, where its score is another number."""
    sums: dict[str, float] = {}
    for one in entries:
        sums[one.group] = sums.get(one.group, 0.0) + one.points
    return {group: _not_whole(points) for group, points in sums.items() if abs(points - scores[group]) > 2 * NOISE}


def _not_whole(points: float) -> float:
    """In three places, or in as many as it takes to show that it is not whole."""
    rounded = (round(points, places) for places in range(3, 10))
    return next((one for one in rounded if not one.is_integer()), points)


def _activity(row: Mapping[str, Any]) -> dict[str, Any]:
    attributes = orjson.loads(row["attributes"])
    what = attributes.get("url") or attributes.get("title") or (f"#{row['object_id']}" if row["object_id"] else "")
    return {"type": row["type"], "at": iso(row["at"]), "what": what}


def _folded(connection: Connection, person_id: int, mappings: Mappings, catalogue: Catalogue) -> dict[str, Any]:
    """Activity whose rows are gone, by type, and what the rules cannot count of anybody's."""
    return {
        "activities": {
            type_: {"times": times, "first_at": iso(first), "last_at": iso(last)}
            for type_, (times, first, last) in sorted(carried.done_by(connection, person_id).items())
        },
        "not_counted": [*not_counted_yet(connection, mappings), *fold.missing(connection, mappings, catalogue)],
    }


def _gone(current: int | None, former: list[int]) -> dict[str, Any]:
    """A contact that Mautic deleted: its history is kept, nothing is decided for it."""
    return {
        "id": current or (former[-1] if former else None),
        "kind": None,
        "stage": None,
        "score": 0,
        "reason": "deleted in Mautic",
        "rule": "",
        "trace": [],
        "waiting": False,
        "due_at": None,
        "rules": [],
        "in_mautic": {"stage": None, "set_by_us": None},
        "left_alone": "",
        "held": None,
        "verdict": {
            "outcome": "missing",
            "status": "",
            "sub_status": "",
            "did_you_mean": "",
            "at": None,
            "fresh": False,
            "needed": False,
            "not_asked": None,
        },
        "points": {
            "score": 0,
            "groups": {},
            "groups_in_mautic": {},
            "hot": False,
            "low_value": False,
            "conditions": [],
            "account": [],
            "cut_off": {},
            "granted": 0,
            "opening": 0,
            "mautic": 0,
            "ledger": [],
        },
        "identity": {"person": None, "mautic_id": current, "former_ids": former, "email": None},
        "activity": [],
        "folded": {"activities": {}, "not_counted": []},
        "actions": [],
        "last_write": None,
        "refused": [],
    }
