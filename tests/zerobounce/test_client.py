from __future__ import annotations

import json
import re
import threading
from urllib.parse import parse_qs

import pytest
import requests
import responses
from hypothesis import given, settings, strategies as st
from urllib3 import HTTPSConnectionPool
from urllib3.exceptions import MaxRetryError, NewConnectionError

from mautic_sync.errors import ConfigError, DoubtfulError, MalformedError, RefusedError, RetryError, StopError
from mautic_sync.zerobounce import BadKeyError, NoCreditsError, ZeroBounce
from mautic_sync.zerobounce.client import SlowDownError

BASE = "https://api-eu.zerobounce.net/v2/"
VALIDATE = BASE + "validate"
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
            client.send_file("ours.csv", ["eve@example.com"])
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


# -- files ----------------------------------------------------------------------------------------------------------

BULK = "https://bulkapi.zerobounce.net/v2"
HEAD = "email,ZB Status,ZB Sub Status,ZB First Name,ZB Free Email,ZB Did You Mean\r\n"
REJECTED = {"success": False, "message": "Error: odd file of eve@example.com", "error_message": None}


def test_a_file_goes_out_with_one_based_columns_and_lower_case_booleans(http, client):
    http.post(f"{BULK}/sendfile", json={"success": True, "message": "File Accepted", "file_id": "f-1"})
    assert client.send_file("ours.csv", ["a@example.com", "b@example.com"]) == "f-1"
    body = http.calls[0].request.body
    assert b'filename="ours.csv"' in body
    assert b"email\r\na@example.com\r\nb@example.com\r\n" in body
    assert re.search(rb'name="email_address_column"\r\n\r\n1\r\n', body)
    assert re.search(rb'name="has_header_row"\r\n\r\ntrue\r\n', body)
    assert KEY not in http.calls[0].request.url


@pytest.mark.parametrize(
    "fault",
    [
        {"body": requests.ReadTimeout()},
        {"body": requests.ConnectionError("reset")},
        {"status": 500},
        {"status": 524, "body": "<html>"},
        {"body": "<html>taken</html>"},
        {"json": []},
        {"json": {"success": True}},
        {"json": {"success": True, "file_id": " "}},
    ],
)
def test_a_file_whose_answer_says_nothing_is_in_doubt(http, client, fault):
    http.post(f"{BULK}/sendfile", **fault)
    with pytest.raises(DoubtfulError) as caught:
        client.send_file("ours.csv", ["a@example.com"])
    assert KEY not in str(caught.value)
    assert client.calls == 1


@pytest.mark.parametrize("status", [200, 400])
def test_a_file_that_is_refused_was_not_taken(http, client, status):
    http.post(f"{BULK}/sendfile", json=REJECTED, status=status)
    with pytest.raises(RefusedError, match="odd file") as caught:
        client.send_file("ours.csv", ["a@example.com"])
    assert "eve@" not in str(caught.value)


def test_a_file_without_credits_was_not_taken(http, client):
    http.post(f"{BULK}/sendfile", json={"success": "false", "message": [EMPTY["error"]]})
    http.get(CREDITS, json={"Credits": "0"})
    with pytest.raises(NoCreditsError):
        client.send_file("ours.csv", ["a@example.com"])


@pytest.mark.parametrize(
    ("told", "complete"),
    [("Complete", True), ("complete ", True), ("Queued", False), ("Processing", False), (None, False)],
)
def test_complete_is_the_only_status_that_counts(http, client, told, complete):
    http.get(f"{BULK}/filestatus", json={"success": True, "file_status": told})
    assert client.is_complete("f-1") is complete


def test_a_result_is_read_by_the_names_of_its_columns(http, client):
    rows = 'a@example.com,Valid,,"Ada, Countess",True,\r\nb@gmial.com,invalid,possible_typo,,false,b@gmail.com\r\n'
    http.get(f"{BULK}/getfile", body=("\ufeff" + HEAD + rows).encode())
    first, second = client.fetch_file("f-1")
    assert (first.address, first.status, first.sub_status) == ("a@example.com", "valid", "")
    assert (first.raw["firstname"], first.raw["free_email"]) == ("Ada, Countess", True)
    assert (second.status, second.sub_status, second.did_you_mean) == ("invalid", "possible_typo", "b@gmail.com")


def test_a_row_that_cannot_be_read_is_none_and_spoils_no_other(http, client):
    rows = "a@example.com,valid\r\nb@example.com,,,,,\r\n\r\nc@example.com,valid,,,,\r\n"
    http.get(f"{BULK}/getfile", body=HEAD + rows)
    assert [row and row.address for row in client.fetch_file("f-1")] == [None, None, "c@example.com"]


@pytest.mark.parametrize(
    "body", ["", "email,Result\r\na@example.com,valid\r\n", "<html>no</html>", f"x{'y' * 200_000}"]
)
def test_a_result_in_another_form_is_malformed_as_a_whole(http, client, body):
    http.get(f"{BULK}/getfile", body=body)
    with pytest.raises(MalformedError):
        client.fetch_file("f-1")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=20), st.booleans())
@settings(deadline=None)
def test_no_result_whatever_is_in_it_ends_in_another_error(lines, headed):
    with responses.RequestsMock() as http, ZeroBounce(KEY, sleep=lambda _: None) as client:
        http.get(f"{BULK}/getfile", body=((HEAD if headed else "") + "\n".join(lines)).encode())
        try:
            rows = client.fetch_file("f-1")
        except (MalformedError, RetryError, RefusedError):
            return
        assert all(row is None or row.status for row in rows)


@pytest.mark.parametrize("ask", [ZeroBounce.is_complete, ZeroBounce.fetch_file, ZeroBounce.delete_file])
def test_json_where_a_file_was_due_is_an_error(http, client, ask):
    for path in ("filestatus", "getfile", "deletefile"):
        http.get(f"{BULK}/{path}", json={"success": False, "message": "File cannot be found."})
    with pytest.raises(RefusedError, match="cannot be found"):
        ask(client, "f-1")


@pytest.mark.parametrize("ask", [ZeroBounce.is_complete, ZeroBounce.fetch_file, ZeroBounce.delete_file])
@pytest.mark.parametrize("fault", [{"status": 500}, {"body": requests.ReadTimeout()}, {"json": []}])
def test_looking_for_a_file_costs_nothing_and_is_done_again(http, client, ask, fault):
    for path in ("filestatus", "getfile", "deletefile"):
        http.get(f"{BULK}/{path}", **fault)
    with pytest.raises(RetryError) as caught:
        ask(client, "f-1")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("base", "bulk", "used"),
    [
        ("https://api.zerobounce.net", None, f"{BULK}/"),
        ("https://api-eu.zerobounce.net/v2", None, f"{BULK}/"),
        ("http://127.0.0.1:8000/zerobounce", None, "http://127.0.0.1:8000/zerobounce/v2/"),
        ("https://proxy.example/zb", None, "https://proxy.example/zb/v2/"),
        ("https://api.zerobounce.net", "https://bulk.example", "https://bulk.example/v2/"),
    ],
)
def test_the_host_of_files_follows_the_other_unless_it_is_set(connect, base, bulk, used):
    assert connect(base, bulk_url=bulk).bulk_url == used


# -- pace and address -----------------------------------------------------------------------------------------------


def test_it_asks_no_faster_than_it_may(http, connect, fake_time):
    http.post(VALIDATE, json=answer())
    client = connect(max_per_second=5)
    begun = fake_time.now
    for _ in range(11):
        client.validate("a@example.com")
    assert fake_time.now - begun == pytest.approx(2.0)


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
