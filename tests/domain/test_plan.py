"""What Mautic has yet to receive of a score."""

from __future__ import annotations

import pytest

from mautic_sync.domain.plan import plan_points


@pytest.mark.parametrize(("score", "granted", "delta"), [(7, 0, 7), (3, 7, -4), (-5, 0, -5), (0, -5, 5)])
def test_the_difference_between_score_and_account_is_one_signed_grant(score, granted, delta):
    change = plan_points(score, granted, "why", 200)
    assert change is not None
    assert (change.target, change.old, change.new) == (
        "points",
        {"points": granted},
        {"points": score, "delta": delta},
    )


@pytest.mark.parametrize("score", [-5, 0, 7])
def test_what_was_granted_already_is_no_change(score):
    assert plan_points(score, score, "why", 200) is None
