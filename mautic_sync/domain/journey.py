"""What brought somebody: the first and the last page, where it came from, by which campaign and source, up to a moment.

A journey sees one person's visits, clicks and campaigns in any order and tells the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from mautic_sync.domain.activity import Activity

Span = Literal["first", "last", "before_lead", "before_customer"]
SPANS: tuple[Span, ...] = ("first", "last", "before_lead", "before_customer")
FACTS = ("page", "referer", "campaign", "source", "at")
STEPS = frozenset({"page.hit", "email.click", "campaign.added"})
"""Types of activity that a journey is made of."""
NEVER = -(2**62)
EVER = 2**62


class _Step(NamedTuple):
    """Compared by time, then by the order in which Mautic told of them."""

    at: int
    order: int
    page: str = ""
    referer: str = ""


class _Named(NamedTuple):
    """A campaign: one that stands in an address says more than one in Mautic."""

    in_address: bool
    at: int
    order: int
    name: str


class _Source(NamedTuple):
    """Who sent them here, by one visit or click."""

    at: int
    order: int
    name: str


@dataclass
class Journey:
    """One person's way. `until` holds, for the spans that end, the last second that belongs to them."""

    until: Mapping[Span, int] = field(default_factory=dict)
    _visits: dict[Span, _Step] = field(default_factory=dict)
    _campaigns: dict[Span, _Named] = field(default_factory=dict)
    _sources: dict[Span, _Source] = field(default_factory=dict)

    def see(self, one: Activity, order: int) -> None:
        """Take one activity into account; `order` tells apart what happened in the same second."""
        attributes = one.attributes
        in_address = attributes.get("utm_campaign", "")
        name = in_address or (
            attributes.get("campaign") or attributes.get("email") or "" if one.type != "page.hit" else ""
        )
        named = _Named(bool(in_address), one.at, order, name) if name else None
        source = _Source(one.at, order, sent_by) if (sent_by := _source_of(one)) else None
        visit = None
        if one.type == "page.hit":
            page = attributes.get("url", "").partition("#")[0].partition("?")[0] or attributes.get("page", "")
            visit = _Step(one.at, order, page, attributes.get("referer", ""))
        for span in SPANS:
            if one.at > self._end(span):
                continue
            if visit is not None and self._replaces(span, visit[:2], self._visits.get(span, ())[:2]):
                self._visits[span] = visit
            if named is not None and self._replaces_name(span, named):
                self._campaigns[span] = named
            if source is not None and self._replaces(span, source[:2], self._sources.get(span, ())[:2]):
                self._sources[span] = source

    def _end(self, span: Span) -> int:
        return EVER if span in {"first", "last"} else self.until.get(span, NEVER)

    @staticmethod
    def _replaces(span: Span, new: tuple[int, ...], old: tuple[int, ...]) -> bool:
        return not old or (new < old if span == "first" else new > old)

    def _replaces_name(self, span: Span, new: _Named) -> bool:
        old = self._campaigns.get(span)
        if old is None or new.in_address != old.in_address:
            return old is None or new.in_address
        return self._replaces(span, new[1:3], old[1:3])

    @property
    def rows(self) -> set[int]:
        """The `order` of all that is told of."""
        visits, campaigns, sources = self._visits.values(), self._campaigns.values(), self._sources.values()
        return {one.order for one in visits} | {one.order for one in campaigns} | {one.order for one in sources}

    def told(self) -> dict[str, str]:
        """`first.page`, `before_lead.campaign` and so on; empty where there is nothing to tell."""
        found: dict[str, str] = {}
        for span in SPANS:
            visit, named, source = self._visits.get(span), self._campaigns.get(span), self._sources.get(span)
            found[f"{span}.page"] = visit.page if visit is not None else ""
            found[f"{span}.referer"] = visit.referer if visit is not None else ""
            found[f"{span}.at"] = moment_text(visit.at) if visit is not None else ""
            found[f"{span}.campaign"] = named.name if named is not None else ""
            found[f"{span}.source"] = source.name if source is not None else ""
        return found


def _source_of(one: Activity) -> str:
    """`utm_source` of its address; of a page without it the host of the page before, where that is another site."""
    named = one.attributes.get("utm_source", "")
    if named or one.type != "page.hit":
        return named
    host = _host(one.attributes.get("referer", ""))
    return host if host.removeprefix("www.") != _host(one.attributes.get("url", "")).removeprefix("www.") else ""


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def moment_text(at: int) -> str:
    """A moment as Mautic's fields of type datetime take it, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
