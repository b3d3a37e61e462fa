from __future__ import annotations

import json
import threading
from urllib.parse import parse_qs

import pytest
import requests
import responses
from hypothesis import given, settings, strategies as st
from urllib3 import HTTPSConnectionPool
from urllib3.exceptions import MaxRetryError, NewConnectionError

from mautic_sync.errors import ConfigError, DoubtfulError, RefusedError, RetryError, StopError
from mautic_sync.zerobounce import BadKeyError, NoCreditsError, ZeroBounce
from mautic_sync.zerobounce.client import SlowDownError

BASE = "https://api-eu.zerobounce.net/v2/"
VALIDATE = BASE + "validate"
BATCH = BASE + "validatebatch"
CREDITS = BASE + "getcredits"
KEY = "0123456789abcdef-key"
EMPTY = {"error": "Invalid API key or your account ran out of credits"}


class FakeTime:
    def __init__(self):
        self.now = 1_800_000_000.0
        self.slept = []

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def fake_time():
    return FakeTime()


@pytest.fixture
def http():
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def connect(fake_time):
    made = []

    def make(base_url=BASE, **options):
        client = ZeroBounce(
            KEY, base_url=base_url, sleep=fake_time.sleep, clock=fake_time.clock, monotonic=fake_time.clock, **options
        )
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(connect):
    return connect()


def answer(address="eve@example.com", status="valid", **parts):
    """As the documentation shows one: text where one expects numbers and booleans."""
    return {
        "address": address,
        "status": status,
        "sub_status": "",
        "free_email": "false",
        "mx_found": "true",
        "did_you_mean": None,
        "account": None,
        "domain": None,
        "domain_age_days": "9692",
        "smtp_provider": "example",
        "processed_at": "2026-11-22 23:26:54.545",
        **parts,
    }


# -- one address ----------------------------------------------------------------------------------------------------


def test_an_address_is_asked_about_as_a_form(http, client):
    """The key and the address stay out of proxy logs."""
    http.post(VALIDATE, json=answer())
    client.validate("eve@example.com", "99.110.204.1")
    request = http.calls[0].request
    assert request.url == VALIDATE
    assert parse_qs(request.body) == {
        "api_key": [KEY],
        "email": ["eve@example.com"],
        "ip_address": ["99.110.204.1"],
        "timeout": ["30"],
    }


def test_an_answer_is_made_regular(http, client):
    http.post(VALIDATE, json=answer(status=" Invalid", sub_status="possible_typo", did_you_mean="eve@example.org"))
    given_answer = client.validate("Eve@example.com")
    assert (given_answer.address, given_answer.status, given_answer.sub_status) == (
        "Eve@example.com",
        "invalid",
        "possible_typo",
    )
    assert given_answer.did_you_mean == "eve@example.org"
    assert given_answer.at == 1795390014
    assert given_answer.raw["free_email"] is False
    assert given_answer.raw["mx_found"] is True
    assert given_answer.raw["domain_age_days"] == "9692"


def test_a_word_that_nobody_knows_yet_is_handed_on(http, client):
    http.post(VALIDATE, json=answer(status="quantum", sub_status="entangled"))
    assert (client.validate("a@example.com").status, client.validate("a@example.com").sub_status) == (
        "quantum",
        "entangled",
    )


@pytest.mark.parametrize("sub_status", [None, "", "None"])
def test_no_sub_status_is_blank(http, client, sub_status):
    http.post(VALIDATE, json=answer(sub_status=sub_status))
    assert client.validate("a@example.com").sub_status == ""


@pytest.mark.parametrize("when", [None, "", "yesterday", 5])
def test_an_answer_without_a_time_is_from_now(http, client, fake_time, when):
    http.post(VALIDATE, json=answer(processed_at=when))
    assert client.validate("a@example.com").at == int(fake_time.now)


def test_an_answer_with_an_iso_time_is_read(http, client):
    http.post(VALIDATE, json=answer(processed_at="2026-11-22T23:26:54Z"))
    assert client.validate("a@example.com").at == 1795390014


def test_the_raw_answer_keeps_neither_key_nor_account(http, client):
    http.post(VALIDATE, json=answer(account="eve", api_key=KEY, echo=KEY))
    raw = client.validate("a@example.com").raw
    assert "account" not in raw
    assert KEY not in json.dumps(dict(raw))


# -- money ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"body": requests.ReadTimeout()},
        {"body": requests.ConnectionError("broken")},
        {"status": 500, "json": {}},
        {"status": 520, "body": "<html></html>"},
        {"status": 200, "body": "<html></html>"},
        {"status": 200, "json": []},
        {"status": 200, "json": {}},
        {"status": 200, "json": answer(status=None)},
    ],
)
def test_a_lost_answer_is_in_doubt_and_never_asked_for_again(http, client, fault):
    """It may have been paid for."""
    http.post(VALIDATE, **fault)
    with pytest.raises(DoubtfulError, match="credit may be gone") as caught:
        client.validate("eve@example.com")
    assert client.calls == 1
    assert "eve@" not in str(caught.value)


def test_a_server_that_was_never_reached_was_not_paid(http, client):
    fault = NewConnectionError(HTTPSConnectionPool("api-eu.zerobounce.net"), "refused")
    http.post(VALIDATE, body=requests.ConnectionError(MaxRetryError(HTTPSConnectionPool("x"), "/", fault)))
    with pytest.raises(RetryError, match=r"could not be reached.*zerobounce\.base_url"):
        client.validate("eve@example.com")


def test_a_time_out_while_connecting_was_not_paid(http, client):
    http.post(VALIDATE, body=requests.ConnectTimeout())
    with pytest.raises(RetryError):
        client.validate("eve@example.com")


def test_an_untrusted_certificate_stops(http, client):
    http.post(VALIDATE, body=requests.exceptions.SSLError("certificate verify failed"))
    with pytest.raises(StopError, match="not trusted"):
        client.validate("eve@example.com")


@pytest.mark.parametrize(
    ("credits_left", "kind"), [("-1", BadKeyError), (-1, BadKeyError), ("0", NoCreditsError), ("12", RetryError)]
)
def test_a_bad_key_and_an_empty_account_are_told_apart_by_asking(http, client, credits_left, kind):
    """Both come as the same sentence, with HTTP 200."""
    http.post(VALIDATE, json=EMPTY)
    http.get(CREDITS, json={"Credits": credits_left})
    with pytest.raises(kind) as caught:
        client.validate("eve@example.com")
    assert type(caught.value) is kind
    assert KEY not in str(caught.value)


def test_a_bad_key_is_tried_once(http, client):
    """ZeroBounce blocks after two hundred tries an hour."""
    http.post(VALIDATE, json=EMPTY)
    http.get(CREDITS, json={"Credits": "-1"})
    for _ in range(3):
        with pytest.raises(BadKeyError):
            client.validate("eve@example.com")
        with pytest.raises(BadKeyError):
            client.validate_many(["eve@example.com"])
    assert client.calls == 2


def test_another_error_is_a_refusal(http, client):
    http.post(VALIDATE, json={"error": f"Missing parameter: email eve@example.com {KEY}"})
    with pytest.raises(RefusedError, match="Missing parameter") as caught:
        client.validate("eve@example.com")
    assert KEY not in str(caught.value)
    assert "eve@" not in str(caught.value)


@pytest.mark.parametrize("status", [403, 429])
def test_a_block_says_how_long_to_wait(http, client, status):
    http.post(VALIDATE, status=status, headers={"Retry-After": "90"}, body="<html>shield</html>")
    with pytest.raises(SlowDownError, match="90 s") as caught:
        client.validate("eve@example.com")
    assert caught.value.wait == 90


def test_a_block_without_a_time_waits_a_minute_and_one_with_a_date_until_then(http, client):
    http.post(VALIDATE, status=429)
    http.post(VALIDATE, status=429, headers={"Retry-After": "Fri, 15 Jan 2027 08:00:30 GMT"})
    waits = []
    for _ in range(2):
        with pytest.raises(SlowDownError) as caught:
            client.validate("eve@example.com")
        waits.append(caught.value.wait)
    assert waits[0] == 60
    assert 29 <= waits[1] <= 30


def test_a_redirect_is_not_followed(http, client):
    http.post(VALIDATE, status=302, headers={"Location": f"http://elsewhere.example/?api_key={KEY}"})
    with pytest.raises(StopError, match="redirects to elsewhere") as caught:
        client.validate("eve@example.com")
    assert KEY not in str(caught.value)
    assert client.calls == 1


def test_a_404_is_about_the_address_of_the_service(http, client):
    http.post(VALIDATE, status=404, json={"message": "no"})
    with pytest.raises(RefusedError, match=r"zerobounce\.base_url"):
        client.validate("eve@example.com")


@settings(deadline=None)
@given(st.text("0123456789abcdef", min_size=20, max_size=32), st.sampled_from(["error", "Error"]))
def test_no_error_text_shows_the_key(key, name):
    with responses.RequestsMock() as http, ZeroBounce(key, sleep=lambda _: None) as client:
        http.post(VALIDATE, json={name: f"bad request for {key}: api_key={key}"})
        with pytest.raises(RefusedError) as caught:
            client.validate("a@example.com")
        assert key not in str(caught.value)
        assert key not in caught.value.reason


# -- credits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "number"), [("12345", 12345), (7, 7), (" 0 ", 0)])
def test_credits_come_as_text(http, client, text, number):
    http.get(CREDITS, json={"Credits": text})
    assert client.credits() == number


@pytest.mark.parametrize("fault", [{"json": {}}, {"json": []}, {"status": 500}, {"body": requests.ReadTimeout()}])
def test_credits_that_cannot_be_read_are_asked_for_next_time(http, client, fault):
    http.get(CREDITS, **fault)
    with pytest.raises(RetryError) as caught:
        client.credits()
    assert KEY not in str(caught.value)


# -- batches --------------------------------------------------------------------------------------------------------


def test_a_batch_is_json_with_the_time_out_as_text(http, client):
    http.post(BATCH, json={"email_batch": [answer("a@example.com")], "errors": []})
    client.validate_many(["a@example.com"])
    assert json.loads(http.calls[0].request.body) == {
        "api_key": KEY,
        "email_batch": [{"email_address": "a@example.com", "ip_address": ""}],
        "timeout": "30",
    }


def test_answers_are_matched_by_address_in_any_order_and_case(http, client):
    rows = [answer("b@example.com", "invalid"), answer("A@EXAMPLE.com")]
    http.post(
        BATCH, json={"email_batch": rows, "errors": [{"email_address": "c@example.com", "error": "odd c@example.com"}]}
    )
    answers, errors = client.validate_many(["a@example.com", "b@example.com", "c@example.com", "d@example.com"])
    assert {address: found.status for address, found in answers.items()} == {
        "a@example.com": "valid",
        "b@example.com": "invalid",
    }
    assert isinstance(errors["c@example.com"], RefusedError)
    assert "c@example" not in str(errors["c@example.com"])
    assert isinstance(errors["d@example.com"], DoubtfulError)


def batches(http):
    """Answers every batch with what was asked."""

    def serve(request):
        asked = [entry["email_address"] for entry in json.loads(request.body)["email_batch"]]
        return 200, {}, json.dumps({"email_batch": [answer(address) for address in asked], "errors": []})

    http.add_callback("POST", BATCH, callback=serve)


def test_many_addresses_go_out_by_the_hundred_and_each_once(http, client):
    batches(http)
    addresses = [f"p{number}@example.com" for number in range(250)]
    answers, errors = client.validate_many([*addresses, *addresses, "P1@example.com"])
    assert set(answers) == {*addresses, "P1@example.com"}
    assert errors == {}
    sizes = [len(json.loads(call.request.body)["email_batch"]) for call in http.calls]
    assert sizes == [100, 100, 50]


def test_nobody_is_no_call(client):
    assert client.validate_many([]) == ({}, {})
    assert client.calls == 0


def test_an_error_for_all_stops_before_anything_was_paid(http, client):
    http.post(BATCH, json={"email_batch": [], "errors": [{"email_address": "all", "error": EMPTY["error"]}]})
    http.get(CREDITS, json={"Credits": "-1"})
    with pytest.raises(BadKeyError):
        client.validate_many(["a@example.com"])


def test_an_error_for_all_after_a_paid_batch_keeps_what_was_paid(http, client):
    first, second = [f"p{number}@example.com" for number in range(100)], ["q@example.com"]
    http.post(BATCH, json={"email_batch": [answer(address) for address in first], "errors": []})
    http.post(BATCH, json={"errors": [{"email_address": "all", "error": EMPTY["error"]}]})
    http.get(CREDITS, json={"Credits": "0"})
    answers, errors = client.validate_many([*first, *second])
    assert len(answers) == 100
    assert isinstance(errors["q@example.com"], NoCreditsError)


def test_a_lost_batch_is_in_doubt_and_the_next_is_asked(http, client):
    first, second = [f"p{number}@example.com" for number in range(100)], ["q@example.com"]
    http.post(BATCH, body=requests.ReadTimeout())
    http.post(BATCH, json={"email_batch": [answer("q@example.com")]})
    answers, errors = client.validate_many([*first, *second])
    assert list(answers) == ["q@example.com"]
    assert len(errors) == 100
    assert all(isinstance(error, DoubtfulError) for error in errors.values())


@pytest.mark.parametrize("body", [[], {"email_batch": "none"}, {"email_batch": [{"address": "a@example.com"}]}])
def test_a_batch_answer_that_makes_no_sense_is_in_doubt(http, client, body):
    http.post(BATCH, json=body)
    assert isinstance(client.validate_many(["a@example.com"])[1]["a@example.com"], DoubtfulError)


# -- pace and address -----------------------------------------------------------------------------------------------


def test_it_asks_no_faster_than_it_may(http, connect, fake_time):
    http.post(VALIDATE, json=answer())
    client = connect(max_per_second=5)
    begun = fake_time.now
    for _ in range(11):
        client.validate("a@example.com")
    assert fake_time.now - begun == pytest.approx(2.0)


def test_batches_stay_below_what_zerobounce_blocks(http, client, fake_time):
    batches(http)
    begun = fake_time.now
    client.validate_many([f"p{number}@example.com" for number in range(2_100)])
    assert fake_time.now - begun == pytest.approx(60.0)


def test_threads_share_the_pace(http, connect, fake_time):
    http.post(VALIDATE, json=answer())
    client = connect(max_per_second=2)
    threads = [threading.Thread(target=client.validate, args=("a@example.com",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.calls == 8
    assert len(fake_time.slept) >= 1


@pytest.mark.parametrize(
    ("given_url", "used"),
    [
        ("https://api.zerobounce.net", "https://api.zerobounce.net/v2/"),
        ("https://api.zerobounce.net/", "https://api.zerobounce.net/v2/"),
        ("https://api.zerobounce.net/v2", "https://api.zerobounce.net/v2/"),
        ("https://api.zerobounce.net/v2/", "https://api.zerobounce.net/v2/"),
        ("http://127.0.0.1:8000/zerobounce", "http://127.0.0.1:8000/zerobounce/v2/"),
    ],
)
def test_the_address_may_be_written_in_four_ways(connect, given_url, used):
    assert connect(given_url).base_url == used


@pytest.mark.parametrize("address", ["http://api.zerobounce.net", "api.zerobounce.net", "https://user:pw@x.example"])
def test_plain_http_is_refused(connect, address):
    with pytest.raises(ConfigError, match=r"zerobounce\.base_url"):
        connect(address)


@pytest.mark.parametrize(("asked", "sent"), [(1, "3"), (30, "30"), (300, "60")])
def test_the_time_out_stays_within_what_zerobounce_takes(http, connect, asked, sent):
    http.post(VALIDATE, json=answer())
    connect(timeout=asked).validate("a@example.com")
    assert parse_qs(http.calls[0].request.body)["timeout"] == [sent]
