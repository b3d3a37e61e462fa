"""What one run carries from step to step."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine

from mautic_sync.domain.contact import Catalogue
from mautic_sync.domain.matchers import ActivityMatcher, Matchers
from mautic_sync.errors import ForbiddenError
from mautic_sync.mappings import Mappings
from mautic_sync.mautic.transport import Transport
from mautic_sync.settings import Settings
from mautic_sync.store import runs
from mautic_sync.store.activities import Counting
from mautic_sync.store.people import Reading
from mautic_sync.zerobounce import ZeroBounce

if TYPE_CHECKING:
    from mautic_sync.pipeline.opening import Start

# Fields that are kept whatever the mappings say: who this is, for people to read.
ALWAYS_KEPT = frozenset({"email", "firstname", "lastname", "company", "phone", "mobile", "country"})
MOST_ATTEMPTS = 5
"""So often is sent, or tried, what never shows, cannot begin or is forbidden; then it is refused."""


class Observer(Protocol):
    """Told what happens; the steps neither log nor print."""

    def __call__(self, event: str, **facts: Any) -> None: ...


def silence(event: str, **facts: Any) -> None:
    """An observer that tells nobody."""
    del event, facts


@dataclass
class Counts:
    """What a run did, for its summary."""

    contacts: int = 0
    activities: int = 0
    credits: int = 0
    verdicts: dict[str, int] = field(default_factory=lambda: {"accept": 0, "hold": 0, "reject": 0})
    cached: int = 0
    stages: int = 0
    points: int = 0
    """Grants that Mautic has received."""
    groups: int = 0
    """Scores set in Mautic's point groups."""
    fields: int = 0
    dnc: int = 0
    actions_done: int = 0
    actions_refused: int = 0
    landed: int = 0
    """Changes that were answered for, whatever the answer."""
    merged: int = 0
    reconciled: int = 0
    """Lines that the ledger was given after a restore."""
    vanished: dict[str, int] = field(default_factory=dict)
    quarantined: int = 0
    failed: int = 0
    doubtful: int = 0
    uploads_doubtful: int = 0
    """Files of which nobody knows whether ZeroBounce has them."""
    moves: dict[tuple[str | None, str], int] = field(default_factory=dict)


@dataclass
class Run:
    """One pass: its id, its `now`, and everything it works with. `mappings` are bound to this Mautic by `pull`."""

    id: str
    now: int
    settings: Settings
    mappings: Mappings
    engine: Engine
    mautic: Transport
    zerobounce: ZeroBounce | None
    tell: Observer = silence
    with_actions: bool = False
    unbound: Mappings | None = None
    """The mappings as they were read: binding them anew begins with these."""
    fallback: Mappings | None = None
    """The last good mappings, for a run that goes on with them where `mappings` do not fit this Mautic."""
    on_last_good: bool = False
    """Whether `mappings` are those, because the files cannot be used."""
    catalogue: Catalogue = field(default_factory=Catalogue)
    stage_ids: dict[str, int] = field(default_factory=dict)
    stage_names: dict[int, str] = field(default_factory=dict)
    unpublished_stages: frozenset[int] = frozenset()
    former_kinds: Mapping[str, str] = field(default_factory=dict)
    """Stages that mappings named once, and that these do not name any more → the kind that they had then."""
    group_ids: dict[str, int] = field(default_factory=dict)
    """Groups of scores that go to Mautic's point groups → the id there; those that Mautic lacks are absent."""
    counts: Counts = field(default_factory=Counts)
    catalogue_reread: set[str] = field(default_factory=set)
    """Parts of the catalogue that were read again because a feed spoke of something that they lacked."""
    only: int | None = None
    """The one person that this run is about; None: everybody."""
    planned_by: str | None = None
    """Only what this run planned is pushed; None: whatever is planned."""
    log_above: int | None = None
    """The highest id of Mautic's points log, read when this run first had points to send."""
    doubts_in_a_row: int = 0
    """Requests that ended in doubt since one did not."""
    forbidden: list[tuple[Any, ForbiddenError]] = field(default_factory=list)
    """Changes that were answered by 403 since another one was let through, and these answers."""
    allowed: bool = False
    """Whether any change was let through."""
    messages: int = 0
    """Messages of actions that were due so far."""
    start: Start | None = None
    """Where points begin, chosen by this run because they had not begun."""
    grants: bool = True
    """Whether points are planned: not while they are to begin now."""
    points_wait: bool = False
    """Whether points stay planned: this run is about one person, and they have not begun."""
    told_once: set[str] = field(default_factory=set)
    """What this run has told and need not tell again."""
    began: float = field(default_factory=time.monotonic)

    @property
    def reading(self) -> Reading:
        return Reading(
            ALWAYS_KEPT | self.mappings.fields_read(self.catalogue),
            idle_matters=self.mappings.reads_idle,
            points_matter=self.mappings.shows_points,
        )

    @property
    def kept_of_contacts(self) -> frozenset[str]:
        """What every contact must have been read for: the fields, and what only a new reading makes fresh."""
        moving = {"(last_active)": self.mappings.reads_idle, "(points)": self.mappings.shows_points}
        return self.reading.fields | {name for name, wanted in moving.items() if wanted}

    @property
    def counting(self) -> Counting:
        mappings = self.mappings
        return _counting(mappings.matchers, mappings.score_matchers, mappings.time_zone, mappings.shown_steps)

    @property
    def kinds(self) -> dict[str, str]:
        """Stage → kind."""
        return {stage.name: stage.kind for stage in self.mappings.stages.stages}

    @property
    def kinds_ever(self) -> dict[str, str]:
        """Stage → kind, the stages that no mapping names any more last: whoever is in one has not left its kind."""
        return {**self.kinds, **self.former_kinds}

    def is_overdue(self, row: Any) -> bool:
        """Whether what was sent at `row.sent_at` has had `mautic.settle_after` to show: if it does not, it was not done."""
        return int(time.time()) - (row.sent_at or 0) >= self.settings.mautic.settle_after.total_seconds()

    def quarantine(self, connection: Connection, source: str, key: str, reason: str, excerpt: str) -> None:
        """Keep what cannot be used, and go on."""
        if runs.put_in_quarantine(connection, source, key, reason, excerpt, now=self.now, run_id=self.id):
            self.counts.quarantined += 1
            self.tell("quarantined", source=source, key=key, reason=reason)


@lru_cache(maxsize=2)
def _counting(
    proofs: tuple[ActivityMatcher, ...], tallies: tuple[ActivityMatcher, ...], time_zone: str, shown: frozenset[str]
) -> Counting:
    return Counting(Matchers(proofs), Matchers(tallies), ZoneInfo(time_zone), shown)
