"""Files of addresses: stored before they are sent, paid for once, and in nobody else's questions meanwhile."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from mautic_sync.store import uploads, verdicts

ADDRESSES = [f"p{number}@file.example" for number in range(1200)]  # more than one chunk


@pytest.fixture
def number(store):
    with store.begin() as connection:
        return uploads.begin(connection, "ours.csv", ADDRESSES, run_id="r1", now=1000)


def only(connection):
    (one,) = uploads.open_files(connection)
    return one


def test_the_intent_holds_its_addresses_and_their_credits(store, number):
    with store.begin() as connection:
        one = only(connection)
        assert (one.id, one.state, one.file_name, one.addresses, one.waiting) == (
            number, uploads.SENDING, "ours.csv", 1200, 1200
        )  # fmt: skip
        assert verdicts.credits_since(connection, 1000) == 1200
        assert verdicts.credits_since(connection, 1001) == 0
        assert uploads.is_on_its_way(connection, "p7@file.example")
        assert not uploads.is_on_its_way(connection, "q7@file.example")


def test_an_address_is_never_in_two_files(store, number):
    with pytest.raises(IntegrityError), store.begin() as connection:
        uploads.begin(connection, "other.csv", ["q@file.example", ADDRESSES[3]], run_id="r2", now=2000)
    with store.begin() as connection:
        assert only(connection).id == number
        assert verdicts.credits_since(connection, 0) == 1200


def test_what_was_cut_short_is_in_doubt_and_what_was_accepted_is_not(store, number):
    with store.begin() as connection:
        uploads.accept(connection, number, "f-1")
        second = uploads.begin(connection, "second.csv", ["q@file.example"], run_id="r2", now=2000)
        assert uploads.doubt_what_was_sending(connection) == 1
        assert uploads.doubt_what_was_sending(connection) == 0
        found = {one.id: (one.state, one.file_id) for one in uploads.open_files(connection)}
    assert found == {number: (uploads.SENT, "f-1"), second: (uploads.DOUBTFUL, None)}


def test_a_file_that_is_not_there_gives_back_what_it_put_aside_when_it_put_it_aside(store, number):
    with store.begin() as connection:
        uploads.doubt(connection, number, "lost")
        assert uploads.release(connection, number, "not there", run_id="r2", now=90_000) == 1200
        assert uploads.open_files(connection) == []
        assert verdicts.credits_since(connection, 0) == 0
        assert verdicts.credits_since(connection, 1001) == 0  # nothing negative on a later day
        assert not uploads.is_on_its_way(connection, ADDRESSES[0])


def test_only_what_was_not_answered_is_given_back(store, number):
    with store.begin() as connection:
        uploads.answer(connection, ADDRESSES[:700])
        assert uploads.unanswered(connection, number) == sorted(ADDRESSES[700:])
        assert only(connection).waiting == 500
        held = uploads.held_in(connection, number, [*ADDRESSES[690:710], "q@file.example"])
        assert sorted(held.values()) == [False] * 10 + [True] * 10
        assert uploads.release(connection, number, "gone", run_id="r2", now=2000) == 500
        assert verdicts.credits_since(connection, 0) == 700


def test_a_file_that_is_answered_for_lets_its_addresses_go_and_stays_until_it_is_deleted(store, number):
    with store.begin() as connection:
        uploads.accept(connection, number, "f-1")
        uploads.note_fetch(connection, number, "it lacks some")
        assert (only(connection).fetches, only(connection).error) == (1, "it lacks some")
        uploads.answer(connection, ADDRESSES)
        uploads.note_answered(connection, number)
        assert (only(connection).state, only(connection).waiting, only(connection).error) == (uploads.ANSWERED, 0, None)
        assert not uploads.is_on_its_way(connection, ADDRESSES[0])
        uploads.finish(connection, number, 5000)
        assert uploads.open_files(connection) == []
        assert verdicts.credits_since(connection, 0) == 1200
