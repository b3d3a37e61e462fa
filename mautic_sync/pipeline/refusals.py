"""What Mautic's no to a contact's edit means, in words that say what to do. docs/mautic.md: "Writing"."""

from __future__ import annotations

from collections.abc import Sequence

from mautic_sync.mautic.writes import Refused

BAD_VALUE, SHARED_ADDRESS = 400, 422
OWNER_LEFT = "its owner is no published user any more: give it another owner in Mautic; then `mautic-sync retry`"


def is_about_owner(no: Refused) -> bool:
    """Where none was sent, it is the present one who is no published user."""
    return no.status == BAD_VALUE and no.reason.startswith("owner:")


def way_out(no: Refused, others: Sequence[int] = ()) -> str:
    """What Mautic said, or, where it names a field that we do not write, what is wrong instead and what to do.

    `others` are contacts that have the same address, as far as they are known.
    """
    if is_about_owner(no):
        return OWNER_LEFT
    if no.status != SHARED_ADDRESS or not (others or "email" in no.reason):
        return no.reason
    who = f"contact {others[0]}" if others else "another contact"
    return f"{who} has this address too: merge them in Mautic, or change one address; then `mautic-sync retry`"
