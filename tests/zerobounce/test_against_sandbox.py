"""The same client over real HTTP against a simulated ZeroBounce, which was written without knowing it."""

from __future__ import annotations

import pytest

from mautic_sync.errors import RefusedError
from mautic_sync.sandbox import Sandbox
from mautic_sync.zerobounce import BadKeyError, ZeroBounce


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(empty=True) as box:
        yield box


@pytest.fixture
def client(sandbox):
    with ZeroBounce("sandbox-key", base_url=sandbox.zerobounce_url, max_per_second=1000, sleep=lambda _: None) as made:
        yield made


@pytest.mark.parametrize(
    ("address", "status", "sub_status"),
    [
        ("valid@example.com", "valid", ""),
        ("gold@example.com", "valid", "gold"),
        ("catch_all@example.com", "catch-all", ""),
        ("invalid@example.com", "invalid", "mailbox_not_found"),
        ("disposable@example.com", "do_not_mail", "disposable"),
        ("unknown@example.com", "unknown", "mail_server_temporary_error"),
        ("spamtrap@example.com", "spamtrap", ""),
    ],
)
def test_the_documented_test_addresses_answer_as_documented(client, address, status, sub_status):
    answer = client.validate(address)
    assert (answer.status, answer.sub_status) == (status, sub_status)
    assert answer.at > 1_700_000_000


def test_a_validation_costs_one_credit_and_an_unknown_none(client):
    before = client.credits()
    client.validate("valid@example.org")
    assert client.credits() == before - 1


def test_a_file_comes_back_with_an_answer_for_each_address_and_can_be_deleted(client):
    asked = [f"person{number}@example.org" for number in range(130)]
    before = client.credits()
    file_id = client.send_file("ours.csv", asked)
    assert [client.is_complete(file_id) for _ in range(2)] == [False, True]
    answers = client.fetch_file(file_id)
    assert [answer.address for answer in answers] == asked
    assert {answer.status for answer in answers} >= {"valid", "invalid", "catch-all"}
    unknown = sum(answer.status == "unknown" for answer in answers)
    assert before - client.credits() == len(asked) - unknown
    client.delete_file(file_id)
    for ask in (client.is_complete, client.fetch_file, client.delete_file):
        with pytest.raises(RefusedError):
            ask(file_id)


def test_a_bad_key_is_found_out(sandbox):
    wrong = ZeroBounce("wrong", base_url=sandbox.zerobounce_url, sleep=lambda _: None)
    with wrong, pytest.raises(BadKeyError):
        wrong.validate("valid@example.com")
