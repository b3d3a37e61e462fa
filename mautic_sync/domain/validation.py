"""Addresses and what we make of a verdict about them: the policy, how long a verdict is good, whom to ask first."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import email_validator
from email_validator import EmailNotValidError, validate_email

from mautic_sync.domain.conditions import Condition
from mautic_sync.domain.contact import NO_VERDICT, NOTHING, Outcome, VerdictSignal

LONGEST_ADDRESS = 254  # characters, RFC 5321
LONGEST_LOCAL = 64  # characters before the @, RFC 5321
OrderKey = Literal["score", "points", "identified", "last_active", "added"]
ORDER_KEYS: tuple[OrderKey, ...] = ("score", "points", "identified", "last_active", "added")
"""What decides who is asked first: scores, or when the person was identified, last active, first seen."""

# What a plain address looks like: everything else goes the long way through email-validator, with the same result.
_PLAIN = re.compile(
    r"(?=.{1,254}\Z)(?=[^@]{1,64}@)"
    r"[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*"
    r"@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+([a-z]{2,63})\Z"
)
_RESERVED = frozenset(email_validator.SPECIAL_USE_DOMAIN_NAMES)


@lru_cache(maxsize=4_096)  # asked three times of each person on the way, never of everybody at once
def normalise_address(text: str) -> str | None:
    """The address in the one form in which it is a key: trimmed, lower case, IDNA domain; dots and plus are kept.

    None when it is no address. Nothing is looked up; domains reserved for examples and tests are addresses like any
    other.
    """
    text = text.strip()
    lowered = text.lower()
    plain = _PLAIN.match(lowered)
    if plain is not None and text.isascii() and "--" not in lowered and plain[1] not in _RESERVED:
        return lowered
    return _normalise(text)


def _normalise(text: str) -> str | None:
    # Lower case may compose anew; twice is enough for it to settle.
    for _again in range(2):
        try:
            parts = validate_email(
                text,
                check_deliverability=False,
                test_environment=True,
                allow_quoted_local=False,
                allow_domain_literal=False,
                allow_display_name=False,
            )
        except EmailNotValidError:
            return None
        domain = parts.ascii_domain
        local = unicodedata.normalize("NFC", parts.local_part.lower())
        if domain is None or "." not in domain or len(local) > LONGEST_LOCAL:
            return None
        text = f"{local}@{domain.lower()}"
    return text if len(text) <= LONGEST_ADDRESS else None


class Verdict(NamedTuple):
    """What ZeroBounce said about an address. `at` is in seconds since 1970, `attempts` counts times held in a row."""

    address: str
    status: str
    sub_status: str
    at: int
    attempts: int = 1
    did_you_mean: str = ""
    raw: Mapping[str, Any] = NOTHING


@dataclass(frozen=True)
class ValidationRules:
    """`mappings/validation.yaml`. Distances are in seconds; None: never ask again.

    `outcomes` maps a status or sub-status to what we make of it. `append` maps a Mautic field to a field of
    ZeroBounce's answer. `order` lists keys with whether the largest comes first.
    """

    outcomes: Mapping[str, Outcome]
    ask_accepted: int | None
    ask_held: tuple[int, ...]
    ask_rejected: int | None
    order: tuple[tuple[OrderKey, bool], ...] = ()
    per_run: int = 1_000
    per_day: int = 5_000
    bulk_above: int = 2_000
    only_if: Condition | None = None
    append: Mapping[str, str] = field(default_factory=dict)
    reject_dnc: bool = False
    reject_tag: str | None = None
    typo_field: str | None = None

    def policy(self, status: str, sub_status: str = "") -> tuple[Outcome, bool]:
        """What we make of an answer, and whether the rules name it: the sub-status decides before the status.

        What is not named is held.
        """
        for word in (sub_status, status):
            outcome = self.outcomes.get(word.strip().lower())
            if outcome is not None:
                return outcome, True
        return "held", False

    def next_at(self, verdict: Verdict) -> int | None:
        """The second from which the address is asked about again; None: never."""
        outcome, _known = self.policy(verdict.status, verdict.sub_status)
        if outcome == "held":
            return verdict.at + self.ask_held[min(max(verdict.attempts, 1), len(self.ask_held)) - 1]
        distance = self.ask_accepted if outcome == "accepted" else self.ask_rejected
        return None if distance is None else verdict.at + distance

    def is_fresh(self, verdict: Verdict, now: int) -> bool:
        """Whether it is too early to ask again."""
        at = self.next_at(verdict)
        return at is None or now < at

    def signal(self, verdict: Verdict | None, now: int) -> VerdictSignal:
        """The verdict as rules read it."""
        if verdict is None:
            return NO_VERDICT
        outcome, _known = self.policy(verdict.status, verdict.sub_status)
        at = self.next_at(verdict)
        return VerdictSignal(
            outcome=outcome,
            status=verdict.status.strip().lower(),
            sub_status=verdict.sub_status.strip().lower(),
            at=verdict.at,
            fresh=at is None or now < at,
            expires_at=at,
        )
