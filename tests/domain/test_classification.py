"""Who is a ghost, a lead or a customer, why, and until when."""

from __future__ import annotations

import json

import pytest

from mautic_sync.domain.classification import (
    Previous,
    StageRule,
    StageRules,
    decide,
    explain,
    needs_verdict,
    not_asked,
)
from mautic_sync.domain.conditions import compile_condition
from mautic_sync.domain.contact import Signals, VerdictSignal

NOW = 1_794_441_600  # 2026-11-12 00:00:00 UTC
DAY = 86_400
CHECKOUT = {"activity": "form.submitted", "where": {"form": "Checkout"}}


def rules(*stages):
    return StageRules(
        tuple(
            StageRule(name, kind, weight, sticky, compile_condition(when) if when else None)
            for name, kind, weight, sticky, when in stages
        )
    )


GHOST = ("Ghost", "ghost", 10, False, None)
RULES = rules(
    ("Customer", "customer", 30, True, {"any": [{"field": "orders_count", "gt": 0}, {"tag": "customer"}, CHECKOUT]}),
    ("Lead", "lead", 20, False, {"any": [{"verdict": "accepted"}, {"field": "phone", "not_empty": True}]}),
    GHOST,
)
LADDER = rules(
    ("SQL", "lead", 25, False, {"all": [{"verdict": "accepted"}, {"tag": "sales"}]}),
    ("Lead", "lead", 20, False, {"any": [{"verdict": "accepted"}, {"field": "phone", "not_empty": True}]}),
    GHOST,
)
ADA = {"email": "ada@example.com"}
ACCEPTED = VerdictSignal("accepted", "valid")
REJECTED = VerdictSignal("rejected", "invalid", "mailbox_not_found")
HELD = VerdictSignal("held", "catch-all")
MISSING = VerdictSignal("missing")
EXPIRED = VerdictSignal("accepted", "valid", fresh=False)
RAN_OUT = VerdictSignal("accepted", "valid", expires_at=NOW)
EXPIRED_REJECT = VerdictSignal("rejected", "invalid", fresh=False)
UNDECIDED = [MISSING, HELD, EXPIRED, RAN_OUT, EXPIRED_REJECT]


def person(verdict=MISSING, **more):
    fields = more.pop("fields", ADA)
    return Signals(fields, verdict=verdict, **more)


def stage(signals, previous=None, *, by=RULES, gate_open=False, now=NOW):
    return decide(signals, by, previous, now, gate_open=gate_open).stage


LEAD, CUSTOMER = Previous("Lead", "lead"), Previous("Customer", "customer")


def test_the_first_stage_that_holds_wins():
    assert stage(Signals({"orders_count": 1, "phone": "1"})) == "Customer"
    assert stage(Signals({"phone": "1"})) == "Lead"
    assert stage(Signals({})) == "Ghost"


def test_a_decision_tells_what_decided_and_why():
    decision = decide(person(ACCEPTED), RULES, None, NOW, gate_open=False)
    assert (decision.kind, decision.stage, decision.score) == ("lead", "Lead", 0)
    assert decision.rule == "Lead:any[0]"
    assert decision.reason == "Lead: e-mail accepted"
    assert decision.trace == ({"stage": "Lead", "text": "verdict = accepted (valid)", "holds": True},)
    assert decision.due_at is None
    assert not decision.waiting


def test_a_trace_is_json():
    for verdict in (ACCEPTED, REJECTED, *UNDECIDED):
        json.dumps(decide(person(verdict), LADDER, LEAD, NOW, gate_open=True).trace)


def test_somebody_of_whom_nothing_is_known_is_told_apart_from_somebody_rejected():
    assert decide(Signals({}), RULES, None, NOW).reason == "Ghost: no other rule holds"
    assert decide(person(REJECTED), RULES, None, NOW).reason == "Ghost: e-mail rejected"
    assert decide(person(MISSING), RULES, None, NOW).reason == "Ghost: waits for the e-mail to be validated"
    assert decide(person(HELD), RULES, None, NOW).reason == "Ghost: e-mail held (catch-all)"


def test_a_sticky_stage_is_left_upwards_only():
    assert stage(Signals({}), CUSTOMER) == "Customer"
    assert decide(Signals({}), RULES, CUSTOMER, NOW).rule == "Customer:sticky"
    above = rules(("VIP", "customer", 40, False, {"tag": "vip"}), *zip_rules(RULES))
    assert stage(Signals({}, tags=frozenset({"vip"})), CUSTOMER, by=above) == "VIP"


def zip_rules(made):
    return (
        [
            ("Customer", "customer", 30, True, {"tag": "customer"}),
            ("Lead", "lead", 20, False, {"field": "phone", "not_empty": True}),
            GHOST,
        ]
        if made
        else []
    )


def test_a_stage_that_is_not_sticky_is_left():
    assert stage(Signals({}), LEAD) == "Ghost"


def test_a_sticky_stage_that_was_renamed_keeps_its_people_by_their_kind():
    assert stage(Signals({}), Previous("Buyer", "customer")) == "Customer"
    assert stage(Signals({}), Previous(None, "customer")) == "Customer"


def test_sticky_does_not_come_from_another_stage_of_the_kind():
    two = rules(
        ("Loyal", "customer", 40, True, {"tag": "loyal"}),
        ("Customer", "customer", 30, False, {"tag": "customer"}),
        GHOST,
    )
    assert stage(Signals({}), CUSTOMER, by=two) == "Ghost"


@pytest.mark.parametrize("verdict", UNDECIDED)
def test_without_a_verdict_a_newcomer_waits_as_a_ghost(verdict):
    decision = decide(person(verdict), RULES, None, NOW, gate_open=False)
    assert (decision.stage, decision.waiting) == ("Ghost", True)
    assert "waits to become Lead" in decision.trace[-1]["note"]


@pytest.mark.parametrize("verdict", UNDECIDED)
def test_without_a_verdict_a_lead_stays_a_lead_with_the_same_reason(verdict):
    kept = decide(person(verdict), RULES, LEAD, NOW, gate_open=False)
    assert (kept.stage, kept.waiting) == ("Lead", True)
    assert kept.reason == decide(person(ACCEPTED), RULES, LEAD, NOW).reason
    assert "kept as if it were accepted" in kept.trace[-1]["note"]


def test_whose_other_grounds_are_gone_is_not_told_to_have_an_accepted_address():
    had_a_phone = Previous("Lead", "lead", "Lead:any[1]", "Lead: phone known")
    kept = decide(person(MISSING), RULES, had_a_phone, NOW)
    assert (kept.stage, kept.rule, kept.reason) == ("Lead", "Lead:kept", "Lead: kept until the e-mail is validated")
    again = decide(person(MISSING), RULES, Previous("Lead", "lead", kept.rule, kept.reason), NOW)
    assert (again.rule, again.reason) == (kept.rule, kept.reason)
    edited = decide(person(MISSING), RULES, Previous("Lead", "lead", "", kept.reason), NOW)
    assert (edited.rule, edited.reason) == (kept.rule, kept.reason)
    was_accepted = decide(person(HELD), RULES, Previous("Lead", "lead", "", "Lead: e-mail accepted"), NOW)
    assert (was_accepted.rule, was_accepted.reason) == ("Lead:any[0]", "Lead: e-mail accepted")
    answered = decide(person(ACCEPTED), RULES, Previous("Lead", "lead", kept.rule, kept.reason), NOW)
    assert answered.reason == "Lead: e-mail accepted"


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ("low_value", "of low value, the e-mail is not validated"),
        ("only_if", "the e-mail is not to be validated (only_if)"),
        ("no_key", "the e-mail cannot be validated without a ZeroBounce key"),
    ],
)
def test_whose_verdict_nobody_asks_for_waits_for_none_and_is_told_why(why, told):
    newcomer = not_asked(decide(person(MISSING), RULES, None, NOW), why)
    assert (newcomer.reason, newcomer.waiting) == (f"Ghost: {told}", False)
    assert newcomer.trace[-1] == {"note": f"verdict missing: an accepted one would make Lead; {told}"}
    had_a_phone = Previous("Lead", "lead", "Lead:any[1]", "Lead: phone known")
    kept = not_asked(decide(person(MISSING), RULES, had_a_phone, NOW), why)
    assert (kept.reason, kept.waiting) == (f"Lead: kept; {told}", False)
    assert kept.trace[-1] == {"note": f"verdict missing: kept as if it were accepted; {told}"}
    expired = not_asked(decide(person(EXPIRED), RULES, LEAD, NOW), why)
    assert (expired.reason, expired.waiting) == ("Lead: e-mail accepted", False)


def test_who_is_asked_about_again_is_told_to_wait_again():
    had_a_phone = Previous("Lead", "lead", "Lead:any[1]", "Lead: phone known")
    spared = not_asked(decide(person(MISSING), RULES, had_a_phone, NOW), "low_value")
    again = decide(person(MISSING), RULES, Previous("Lead", "lead", spared.rule, spared.reason), NOW)
    assert again.reason == "Lead: kept until the e-mail is validated"


@pytest.mark.parametrize("previous", [None, LEAD])
def test_a_fresh_reject_takes_lead_away(previous):
    decision = decide(person(REJECTED), RULES, previous, NOW, gate_open=False)
    assert (decision.stage, decision.waiting) == ("Ghost", False)


def test_a_rejected_lead_with_a_phone_stays_a_lead():
    assert stage(person(REJECTED, fields={**ADA, "phone": "1"}), LEAD) == "Lead"


@pytest.mark.parametrize("verdict", UNDECIDED)
def test_a_customer_does_not_depend_on_a_verdict(verdict):
    decision = decide(person(verdict, tags=frozenset({"customer"})), RULES, None, NOW)
    assert (decision.stage, decision.waiting) == ("Customer", False)


def test_a_lead_who_buys_rises_without_a_verdict():
    assert stage(person(MISSING, tags=frozenset({"customer"})), LEAD) == "Customer"


@pytest.mark.parametrize("fields", [{}, {"email": "not an address"}])
def test_who_has_no_address_waits_for_no_verdict(fields):
    decision = decide(Signals(fields), RULES, LEAD, NOW)
    assert (decision.stage, decision.waiting) == ("Ghost", False)
    assert not needs_verdict(Signals(fields), RULES, LEAD, NOW)


def test_an_expired_verdict_does_not_move_somebody_down_among_the_stages_of_a_kind():
    qualified = person(EXPIRED, fields={**ADA, "phone": "1"}, tags=frozenset({"sales"}))
    decision = decide(qualified, LADDER, Previous("SQL", "lead"), NOW)
    assert (decision.stage, decision.waiting) == ("SQL", True)
    assert stage(qualified, LEAD, by=LADDER) == "Lead"


def test_who_lost_the_other_grounds_falls_within_the_kind_although_the_verdict_is_missing():
    assert stage(person(EXPIRED), Previous("SQL", "lead"), by=LADDER) == "Lead"


def test_who_is_kept_never_rises_by_an_assumption():
    bought = rules(
        ("Customer", "customer", 30, False, {"all": [{"verdict": "accepted"}, {"tag": "customer"}]}),
        ("Lead", "lead", 20, False, {"verdict": "accepted"}),
        GHOST,
    )
    signals = person(MISSING, tags=frozenset({"customer"}))
    decision = decide(signals, bought, LEAD, NOW)
    assert (decision.stage, decision.rule, decision.waiting) == ("Lead", "Lead:kept", True)
    assert stage(signals, Previous("Prospect", "lead"), by=bought) == "Lead"


def test_a_kind_that_no_stage_stands_for_any_more_cannot_be_kept():
    bought = rules(("Customer", "customer", 30, False, {"verdict": "accepted"}), GHOST)
    assert stage(person(MISSING), Previous("Lead", "lead"), by=bought) == "Ghost"


@pytest.mark.parametrize("verdict", [MISSING, EXPIRED])
def test_an_open_gate_holds_nobody(verdict):
    decision = decide(person(verdict), RULES, None, NOW, gate_open=True)
    assert (decision.stage, decision.waiting) == ("Lead", False)
    assert decision.reason == "Lead: e-mail not checked"
    assert "the gate is open" in decision.trace[-1]["note"]


def test_an_open_gate_is_not_mentioned_where_it_changes_nothing():
    decision = decide(person(MISSING, tags=frozenset({"customer"})), RULES, None, NOW, gate_open=True)
    assert "gate" not in str(decision.trace)


def test_an_open_gate_does_not_hide_a_better_reason():
    decision = decide(person(MISSING, fields={**ADA, "phone": "1"}), RULES, None, NOW, gate_open=True)
    assert decision.reason == "Lead: phone known"


@pytest.mark.parametrize("verdict", [HELD, EXPIRED_REJECT])
def test_an_open_gate_does_not_overrule_what_is_known(verdict):
    assert stage(person(verdict), gate_open=True) == "Ghost"


def test_an_open_gate_needs_an_address():
    assert stage(Signals({"email": "nonsense"}), gate_open=True) == "Ghost"


def test_a_verdict_is_needed_where_it_decides():
    assert needs_verdict(person(), RULES, None, NOW)
    assert needs_verdict(person(ACCEPTED), RULES, LEAD, NOW)
    assert not needs_verdict(person(fields={**ADA, "phone": "1"}), RULES, None, NOW)
    assert not needs_verdict(person(tags=frozenset({"customer"})), RULES, None, NOW)
    assert not needs_verdict(person(), RULES, CUSTOMER, NOW)
    assert not needs_verdict(person(), rules(("Lead", "lead", 20, False, {"tag": "x"}), GHOST), None, NOW)


def test_the_reason_stays_while_more_of_the_same_happens():
    (matcher,) = compile_condition(CHECKOUT).matchers
    first = decide(Signals({}, evidence={matcher.key: (NOW - DAY,)}), RULES, None, NOW)
    later = decide(Signals({}, evidence={matcher.key: (NOW - DAY, NOW, NOW + 9)}), RULES, CUSTOMER, NOW + 90 * DAY)
    assert first.reason == later.reason == "Customer: form Checkout, 11 Nov 2026"
    few, many = (decide(Signals({"orders_count": n}), RULES, None, NOW).reason for n in (1, 50))
    assert few == many == "Customer: orders_count over 0"


def test_only_stages_that_could_still_win_make_a_decision_due():
    timed = rules(
        ("Fresh", "lead", 30, False, {"not": {"age": "30d"}}),
        ("Lead", "lead", 20, False, {"tag": "x"}),
        ("Old", "lead", 15, False, {"age": "60d"}),
        GHOST,
    )
    seen = Signals({}, first_seen=NOW - DAY, tags=frozenset({"x"}))
    assert decide(seen, timed, None, NOW).due_at == NOW + 29 * DAY
    assert decide(seen, timed, None, NOW + 40 * DAY).due_at is None
    assert decide(Signals({}, first_seen=NOW), timed, None, NOW + 40 * DAY).due_at == NOW + 60 * DAY


def test_a_lead_is_due_when_the_verdict_expires():
    fresh = VerdictSignal("accepted", "valid", expires_at=NOW + DAY)
    assert decide(person(fresh), RULES, None, NOW).due_at == NOW + DAY


def test_all_stages_can_be_explained():
    told = [one.as_dict() for one in explain(person(ACCEPTED), RULES, NOW)]
    assert [one["stage"] for one in told] == ["Customer", "Lead", "Ghost"]
    assert [one["when"] and one["when"]["holds"] for one in told] == [False, True, None]


def test_rules_without_a_stage_for_everybody_else_cannot_be_made():
    with pytest.raises(ValueError, match="the last stage must take everybody else"):
        StageRules((StageRule("Lead", "lead", 20, False, compile_condition({"tag": "x"})),))
