"""The same client over real HTTP against a simulated ZeroBounce, which was written without knowing it."""

from __future__ import annotations

import pytest

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


def test_many_addresses_come_back_each_with_its_answer(client):
    asked = [f"person{number}@example.org" for number in range(130)]
    answers, errors = client.validate_many(asked)
    assert (set(answers), errors) == (set(asked), {})


def test_a_bad_key_is_found_out(sandbox):
    wrong = ZeroBounce("wrong", base_url=sandbox.zerobounce_url, sleep=lambda _: None)
    with wrong, pytest.raises(BadKeyError):
        wrong.validate("valid@example.com")
