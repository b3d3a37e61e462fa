"""Who is held because a run was undone: nothing is decided for them until what rules read about them changes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from mautic_sync.domain.contact import DNC_REASONS
from mautic_sync.pipeline.context import Run
from mautic_sync.store import holds
from mautic_sync.store.text import dump

if TYPE_CHECKING:
    from mautic_sync.pipeline.decide import Considered

MANUAL = next(number for number, word in DNC_REASONS.items() if word == "manual")


def digest_of(run: Run, one: Considered) -> str:
    """A digest of a person's signals, without those that we write ourselves: no rule may read them."""
    signals, mappings = one.signals, run.mappings
    ours = {*mappings.fields.write, *mappings.validation.append, mappings.validation.typo_field}
    ours |= {alias for rule in mappings.action_rules.rules for alias in rule.do.fields}
    verdict = signals.verdict
    told = {
        "fields": {alias: value for alias, value in signals.fields.items() if alias not in ours},
        "tags": sorted(signals.tags - mappings.written_tags),
        "members": [sorted(signals.segments), sorted(signals.campaigns)],
        "dnc": {channel: reason for channel, reason in signals.dnc.items() if reason != MANUAL},
        "evidence": {key: list(times) for key, times in signals.evidence.items()},
        "tallies": {key: list(days) for key, days in signals.tallies.items()},
        "verdict": [verdict.status, verdict.sub_status],
        "active": signals.last_active if mappings.reads_idle else None,
    }
    return hashlib.blake2b(dump(told).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def still_held(run: Run, connection: Connection, considered: Sequence[Considered]) -> frozenset[int]:
    """Those of these persons who stay held; whoever has other signals than when the hold began is let go.

    Other rules read other signals: a hold that began under other rules begins anew, and goes on.
    """
    rows = holds.held_among(connection, [one.row.person_id for one in considered])
    if not rows:
        return frozenset()
    let_go, renewed = [], []
    for one in considered:
        row = rows.get(one.row.person_id)
        if row is None:
            continue
        digest = digest_of(run, one)
        if row.rules != run.mappings.fingerprint:
            began = {name: getattr(row, name) for name in ("person_id", "run_id", "undone", "at")}
            renewed.append({**began, "digest": digest, "rules": run.mappings.fingerprint})
        elif row.digest != digest:
            let_go.append(row.person_id)
    holds.hold(connection, renewed)
    holds.let_go(connection, let_go)
    if let_go:
        run.tell("let_go", persons=len(let_go))
    return frozenset(rows.keys() - set(let_go))
