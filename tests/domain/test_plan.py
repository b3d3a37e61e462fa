"""What Mautic has yet to receive: a stage, and points."""

from __future__ import annotations

import pytest

from mautic_sync.domain.classification import StageRule, StageRules
from mautic_sync.domain.conditions import compile_condition
from mautic_sync.domain.plan import NOTHING_STANDS, StagePlan, Standing, plan_points, plan_stage


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


# -- stages ---------------------------------------------------------------------------------------------------------

NOW = 1_800_000_000
RULES = StageRules(
    (StageRule("Interessent", "lead", 20, condition=compile_condition({"tag": "x"})), StageRule("Ghost", "ghost", 10))
)


def planned(current, standing):
    return plan_stage("Interessent", current, standing, RULES, NOW)


def test_a_stage_that_we_set_is_replaced_though_no_mapping_names_it_any_more():
    assert planned("Lead", Standing(stage="Lead")) == StagePlan(set_to="Interessent")


@pytest.mark.parametrize(
    "standing",
    [
        NOTHING_STANDS,
        Standing(stage="Ghost"),
        Standing(stage="Lead", manual_stage="Ghost", manual_since=NOW),  # ours once, and then put back by somebody
    ],
)
def test_a_stage_that_no_mapping_names_and_somebody_else_set_is_foreign(standing):
    assert planned("Lead", standing) == StagePlan(left_alone="stage Lead was not set by us", foreign=True)
