"""What the checks look at, read once however many of them ask."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Self

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mautic_sync.errors import ConfigError, MauticSyncError
from mautic_sync.mappings import Mappings
from mautic_sync.mautic.automation import (
    Campaign,
    Form,
    PointRule,
    Role,
    Trigger,
    list_acting_forms,
    list_automated_campaigns,
    list_point_rules,
    list_triggers,
    own_role,
)
from mautic_sync.mautic.contacts import Where
from mautic_sync.mautic.feeds import DATE_COLUMNS
from mautic_sync.mautic.probing import Probe, count_contacts, count_rows
from mautic_sync.mautic.provisioning import (
    FieldInfo,
    SegmentInfo,
    Self as User,
    StageInfo,
    list_fields,
    list_segments,
    list_stages,
    who_am_i,
)
from mautic_sync.mautic.times import format_time
from mautic_sync.pipeline.pull import FEED_OF_TYPE, VISITS
from mautic_sync.pipeline.run import connect_by
from mautic_sync.settings import Settings
from mautic_sync.store import looking

Need = Literal["settings", "mappings", "mautic", "place", "store"]
NOT_OPENED = "the store cannot be opened"


@dataclass
class Examination:
    """Settings, rules, one Mautic and one store, or why there is none of them; a context manager."""

    settings: Settings | None = None
    settings_problem: str | None = None
    mappings: Mappings | None = None
    mappings_problem: str | None = None
    now: int = field(default_factory=lambda: int(time.time()))
    mautic_problem: str | None = None
    """Why nothing more can be asked of Mautic."""
    credits: int | None = None
    """What ZeroBounce says is left, once it was asked."""
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._open.close()

    def lacks(self, need: Need) -> str | None:
        """Why a check that needs this cannot be made; None when it can."""
        if need == "settings":
            return "the settings cannot be read" if self.settings is None else None
        if need == "mappings":
            return "the mappings cannot be read" if self.mappings is None else None
        if self.settings is None:
            return "the settings cannot be read"
        if need == "mautic":
            return self.mautic_problem
        if need == "place":
            return self.place_problem
        return self.store_problem

    @property
    def set(self) -> Settings:
        """The settings, for checks that need them."""
        assert self.settings is not None
        return self.settings

    @property
    def rules(self) -> Mappings:
        """The mappings, for checks that need them."""
        assert self.mappings is not None
        return self.mappings

    # -- Mautic -----------------------------------------------------------------------------------------------------

    @cached_property
    def probe(self) -> Probe:
        """Raises ConfigError where the settings do not say enough."""
        return self._open.enter_context(connect_by(Probe, self.set, "doctor"))

    @cached_property
    def user(self) -> User:
        return who_am_i(self.probe)

    @cached_property
    def role(self) -> Role:
        return own_role(self.probe)

    @cached_property
    def stages(self) -> list[StageInfo]:
        return list_stages(self.probe)

    @cached_property
    def fields(self) -> list[FieldInfo]:
        return list_fields(self.probe)

    @cached_property
    def segments(self) -> list[SegmentInfo]:
        return list_segments(self.probe)

    @cached_property
    def campaigns(self) -> list[Campaign]:
        return list_automated_campaigns(self.probe)

    @cached_property
    def point_rules(self) -> list[PointRule]:
        return list_point_rules(self.probe)

    @cached_property
    def triggers(self) -> list[Trigger]:
        return list_triggers(self.probe)

    @cached_property
    def forms(self) -> list[Form]:
        return list_acting_forms(self.probe)

    @cached_property
    def contacts(self) -> int:
        return count_contacts(self.probe)

    @cached_property
    def feeds(self) -> Mapping[str, int]:
        """Rows of each feed that the mappings need, within `pull.history`."""
        types = self.rules.activity_types | (VISITS if self.rules.reads_idle else frozenset())
        names = sorted({FEED_OF_TYPE[one] for one in types if one in FEED_OF_TYPE})
        since = format_time(self.now - int(self.set.pull.history.total_seconds()))
        return {name: count_rows(self.probe, name, [_since(name, since)]) for name in names}

    # -- the store --------------------------------------------------------------------------------------------------

    @cached_property
    def place(self) -> looking.Place:
        return looking.place_of(self.set.store.url)

    @property
    def place_problem(self) -> str | None:
        """Why it is not even known where the store is."""
        try:
            _ = self.place
        except ConfigError:
            return "store.url is wrong"
        return None

    @cached_property
    def store(self) -> Connection:
        """A connection that cannot write."""
        return self._open.enter_context(looking.looked_at(self.place))

    @cached_property
    def store_problem(self) -> str | None:
        """Why the tables of the store cannot be read."""
        if self.place_problem is not None:
            return self.place_problem
        if not self.place.exists:
            return "there is no store yet"
        try:
            found = looking.version(self.store)
        except (MauticSyncError, DBAPIError):
            return NOT_OPENED
        if found is None:
            return "the store is empty"
        return None if looking.is_current(found) else "the store has another version"


def _since(table: str, moment: str) -> Where:
    return (DATE_COLUMNS[table], "gte", moment)
