"""What sets actions off."""

from __future__ import annotations

import pytest

from mautic_sync.domain.conditions import compile_condition
from mautic_sync.domain.contact import Signals
from mautic_sync.domain.triggers import NOBODY, State, Trigger, holding, triggered

CUSTOMER = Trigger.of(None, kind="customer")
SALES = Trigger.of(None, stage="Sales")
HOT, COLD, LOW = (Trigger.of(None, become=word) for word in ("hot", "cold", "low_value"))
TALL = Trigger.of("tall", condition=compile_condition({"field": "height", "gt": 2}))
ALL = (CUSTOMER, SALES, HOT, COLD, LOW, TALL)


def names(before: State, after: State) -> list[str]:
    return [one.name for one in triggered(ALL, before, after)]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (NOBODY, State("customer", "Buyer"), ["enter customer"]),
        (State("lead", "Lead"), State("customer", "Buyer"), ["enter customer"]),
        (State("customer", "Buyer"), State("customer", "Loyal"), []),
        (State("customer", "Buyer"), State("lead", "Lead"), []),
        (State("lead", "Lead"), State("lead", "sales"), ["enter Sales"]),
        (State("lead", "SALES"), State("lead", "sales"), []),
        (State(hot=False), State(hot=True), ["become hot"]),
        (State(hot=True), State(hot=False), ["become cold"]),
        (State(hot=True), State(hot=True), []),
        (State(), State(low_value=True), ["become low_value"]),
        (State(low_value=True), State(), []),
        (State(), State(holds=frozenset({"tall"})), ["tall"]),
        (State(holds=frozenset({"tall"})), State(holds=frozenset({"tall"})), []),
        (State("lead"), State("customer", "Buyer", hot=True), ["enter customer", "become hot"]),
    ],
)
def test_a_step_sets_off_what_it_enters_and_becomes(before, after, expected):
    assert names(before, after) == expected


def test_a_condition_is_named_while_it_holds():
    assert holding(ALL, Signals({"height": 3}), 0) == {"tall"}
    assert holding(ALL, Signals({"height": 1}), 0) == frozenset()
