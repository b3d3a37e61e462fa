"""What templates say of one person and of nobody else: computed only where a template names it.

One query for each kind of fact and batch of persons, none where no template asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from mautic_sync.domain.contact import Catalogue, FieldValue
from mautic_sync.domain.journey import FACTS, SPANS, STEPS, Journey, Span
from mautic_sync.domain.scoring import ScoreRules, reasons_text
from mautic_sync.pipeline.context import Run
from mautic_sync.store import activities, decisions, people

if TYPE_CHECKING:
    from mautic_sync.pipeline.decide import Considered

Told = Mapping[str, str]
JOURNEY = frozenset(f"{span}.{fact}" for span in SPANS for fact in FACTS)


@dataclass(frozen=True)
class Placeholders:
    """`names` are those that templates use; `address` is where Mautic is."""

    names: frozenset[str]
    address: str
    scores: ScoreRules
    catalogue: Catalogue

    def of(self, connection: Connection, considered: Sequence[Considered], now: int) -> dict[int, Told]:
        """Person → value by name, for every name that templates use."""
        if not self.names or not considered:
            return {}
        numbers = [one.row.person_id for one in considered]
        ids = people.current_ids(connection, numbers) if self.names & {"link", "name"} else {}
        journeys = self._journeys(connection, considered, now) if self.names & JOURNEY else {}
        found: dict[int, Told] = {}
        for one in considered:
            number = one.row.person_id
            told = {f"score.{group}": str(points) for group, points in one.score.groups.items()}
            told["points"] = str(one.row.points)
            told["name"] = name_of(one.signals.fields, ids.get(number))
            told["link"] = link_to(self.address, ids[number]) if number in ids else ""
            if "reasons" in self.names:
                told["reasons"] = reasons_text(one.parts, self.scores)
            if number in journeys:
                told.update(journeys[number].told())
            found[number] = {name: told.get(name, "") for name in self.names}
        return found

    def _journeys(self, connection: Connection, considered: Iterable[Considered], now: int) -> dict[int, Journey]:
        """Who became what when, and the way there; ghosts have not become anything yet."""
        kinds = {one.row.person_id: one.decision.kind for one in considered}
        became = decisions.first_transitions(connection, [number for number, kind in kinds.items() if kind != "ghost"])
        journeys: dict[int, Journey] = {}
        for one in considered:
            number, until = one.row.person_id, dict[Span, int]()
            first = became.get(number, {})
            if kinds[number] != "ghost":
                reached = min(first.values(), default=now)
                until["before_lead"] = reached if one.row.date_identified is None else one.row.date_identified
            if kinds[number] == "customer":
                until["before_customer"] = first.get("customer", now)
            journeys[number] = Journey(until)
        for number, order, activity in activities.of_persons(connection, list(kinds), STEPS, self.catalogue):
            journeys[number].see(activity, order)
        return journeys


def placeholders_of(run: Run, names: frozenset[str]) -> Placeholders:
    return Placeholders(
        names, run.settings.mautic.public_url or run.mautic.base_url, run.mappings.scores, run.catalogue
    )


def link_to(base_url: str, number: int | None) -> str:
    """The contact's page in Mautic."""
    return f"{base_url.rstrip('/')}/s/contacts/view/{number}"


def name_of(fields: Mapping[str, FieldValue], mautic_id: int | None) -> str:
    """First and last name; else the company, the address, or the contact's number."""
    name = " ".join(str(fields[alias]) for alias in ("firstname", "lastname") if fields.get(alias))
    number = "" if mautic_id is None else f"contact {mautic_id}"
    return name or str(fields.get("company") or fields.get("email") or number)
