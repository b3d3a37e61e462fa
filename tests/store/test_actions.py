"""Actions that are due, on every database."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from mautic_sync.store import actions
from mautic_sync.store.schema import action
from mautic_sync.store.text import dump

NOW = 1_800_000_000
EARLIER, TWO_RULES, BEGUN, OF_TWO_RUNS, OTHER = 1, 2, 3, 4, 5
"""Persons: hot in an earlier run and done; by two rules; half done; done once and due again; cold."""


@pytest.fixture
def connection(store):
    with store.begin() as connection:
        yield connection


def due(connection, person_id, rule, *, occasion="hot", run="now"):
    row = {"key": f"{rule}-{person_id}-{run}", "person_id": person_id, "rule": rule, "occasion": occasion}
    actions.queue(connection, [{**row, "todo": {"note": rule}, "value": 250}], run_id=run, now=NOW)


def close(connection, person_id, run):
    theirs = action.c.person_id == person_id, action.c.run_id == run
    connection.execute(update(action).where(*theirs).values(state=actions.DONE, done='{"note": 1}'))


def test_only_what_nobody_began_is_taken_back_of_each_person(connection):
    due(connection, EARLIER, "a", run="before")
    close(connection, EARLIER, "before")
    for rule in ("a", "b"):
        due(connection, TWO_RULES, rule)
    due(connection, BEGUN, "a")
    close(connection, BEGUN, "now")
    due(connection, BEGUN, "b")
    due(connection, OF_TWO_RUNS, "a", run="before")
    close(connection, OF_TWO_RUNS, "before")
    due(connection, OF_TWO_RUNS, "a")
    due(connection, OTHER, "a", occasion="cold")

    everybody = (OTHER, OF_TWO_RUNS, BEGUN, TWO_RULES, EARLIER, 99)
    assert actions.take_back(connection, "hot", everybody, NOW, run_id="later") == {TWO_RULES, OF_TWO_RUNS}
    closed = select(action.c.person_id, action.c.rule, action.c.run_id).where(action.c.state == actions.SUPERSEDED)
    assert set(map(tuple, connection.execute(closed))) == {
        (TWO_RULES, "a", "now"),
        (TWO_RULES, "b", "now"),
        (BEGUN, "b", "now"),
        (OF_TWO_RUNS, "a", "now"),
    }


@pytest.mark.parametrize(
    ("todo", "kept", "whole", "left"),
    [
        ({"notify": "Hot"}, {"attempts": 2}, True, actions.SUPERSEDED),
        ({"notify": "Hot"}, {"attempts": 5, "state": actions.REFUSED}, True, actions.SUPERSEDED),
        ({"note": "Hot"}, {"attempts": 2}, False, actions.SUPERSEDED),
        ({"note": "Hot"}, {"attempts": 1, "state": actions.REFUSED}, False, actions.SUPERSEDED),
        ({"notify": "Hot"}, {"attempts": 1, "done": '{"tags": []}'}, False, actions.SUPERSEDED),
        ({"note": "Hot"}, {"attempts": 1, "state": actions.DOUBTFUL}, False, actions.DOUBTFUL),
        ({"note": "Hot"}, {"attempts": 1, "state": actions.DONE}, False, actions.DONE),
    ],
)
def test_what_is_left_of_what_is_over_is_closed_but_what_is_in_doubt(connection, todo, kept, whole, left):
    due(connection, TWO_RULES, "a")
    connection.execute(update(action).values(todo=dump(todo), **kept))
    assert (actions.take_back(connection, "hot", [TWO_RULES], NOW, run_id="later") == {TWO_RULES}) is whole
    assert connection.execute(select(action.c.state)).scalar() == left


MANY = range(1, 70_000)
"""More than the 65,535 values that one statement may have on PostgreSQL."""


def test_any_number_of_refused_actions_is_tried_again(connection):
    for person_id in (TWO_RULES, BEGUN):
        due(connection, person_id, "a")
    last = max(connection.execute(select(action.c.id)).scalars())
    refused, done = MANY[-1], last
    connection.execute(update(action).where(action.c.id != last).values(id=refused, state=actions.REFUSED))
    connection.execute(update(action).where(action.c.id == last).values(state=actions.DONE))
    assert actions.try_refused_again(connection, MANY) == 1
    states = {row.id: row.state for row in connection.execute(select(action.c.id, action.c.state))}
    assert states == {refused: actions.PLANNED, done: actions.DONE}
