from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import requests
import responses
from urllib3 import HTTPSConnectionPool
from urllib3.exceptions import MaxRetryError, NameResolutionError

from mautic_sync.errors import ConfigError, DoubtfulError, RefusedError, RetryError, StopError
from mautic_sync.mautic.transport import ATTEMPTS, Transport, check_address, parse_version, refuse_old

BASE = "https://mautic.example"
CONTACTS = f"{BASE}/api/contacts"
HTML = "<!DOCTYPE html><html><body>Welcome</body></html>"


@contextlib.contextmanager
def server(behave: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[int]]]:
    """A real server on loopback that treats every connection as told; the list counts them."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[int] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connections.append(1)
                behave(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", connections
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=5)


def hang_up(connection: socket.socket) -> None:
    connection.recv(65_536)


def say_nothing(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def unused_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


# -- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://x.example/mautic/", "https://x.example/mautic"),
        ("https://x.example", "https://x.example"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://localhost", "http://localhost"),
    ],
)
def test_an_address_may_have_a_path_and_loopback_may_be_plain(given, used):
    assert check_address(given, setting="mautic.base_url", allow_http=False) == used


@pytest.mark.parametrize(
    "address",
    [
        "mautic.example",
        "ftp://x.example",
        "http://x.example",
        "http://127.0.0.1.evil.example",
        "https://user:pw@x.example",
        "https://x.example/?a=1",
        "https://x.example:port",
        "https://",
        "http://[::1",
    ],
)
def test_an_address_that_cannot_or_must_not_be_called_is_refused_by_the_name_of_its_setting(address):
    with pytest.raises(ConfigError, match=r"mautic\.base_url") as caught:
        check_address(address, setting="mautic.base_url", allow_http=False)
    assert "pw" not in str(caught.value)


def test_plain_http_is_allowed_where_the_setting_says_so():
    assert check_address("http://mautic_web", setting="mautic.base_url", allow_http=True) == "http://mautic_web"


def test_without_credentials_it_says_what_to_set():
    with pytest.raises(ConfigError, match=r"mautic\.client_id"):
        Transport(BASE)


def test_a_path_of_the_address_is_kept(http, connect):
    http.get("https://x.example/mautic/api/contacts", json={"total": "0", "contacts": {}})
    assert connect("https://x.example/mautic").read("contacts") == {"total": "0", "contacts": {}}


# -- what a read does -----------------------------------------------------------------------------------------------


def test_it_sends_lists_of_parameters_and_its_name(http, transport):
    http.get(CONTACTS, json={})
    transport.read("/contacts", [("select[]", "id"), ("select[]", "email"), ("where[0][val]", "a b")])
    request = http.calls[0].request
    assert request.url.endswith("/api/contacts?select%5B%5D=id&select%5B%5D=email&where%5B0%5D%5Bval%5D=a+b")
    assert request.headers["User-Agent"].startswith("mautic-sync/")
    assert request.headers["Authorization"].startswith("Basic ")


def test_it_learns_the_version_and_counts_its_calls(http, transport):
    http.get(CONTACTS, json={}, headers={"Mautic-Version": "7.0.0"})
    http.post(f"{CONTACTS}/new", json={})
    assert transport.version is None
    transport.read("contacts")
    transport.write("POST", "contacts/new", {"email": "x"})
    assert transport.version == "7.0.0"
    assert (transport.calls, transport.writes) == (2, 1)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_passing_fault_is_waited_out(http, transport, fake_time, status):
    http.get(CONTACTS, status=status, body=HTML, content_type="text/html")
    http.get(CONTACTS, json={"ok": 1})
    assert transport.read("contacts") == {"ok": 1}
    assert len(fake_time.slept) == 1


def test_a_passing_fault_that_stays_ends_in_an_error_for_the_next_run(http, transport):
    http.get(CONTACTS, status=503)
    with pytest.raises(RetryError, match=r"reading contacts.*503.*next run"):
        transport.read("contacts", {"search": "eve@example.com"})
    assert transport.calls == ATTEMPTS


def test_an_error_500_is_not_repeated(http, transport):
    http.get(CONTACTS, status=500, json={"errors": [{"message": "Looks like I encountered an error", "code": 500}]})
    with pytest.raises(RefusedError) as caught:
        transport.read("contacts")
    assert (caught.value.status, caught.value.reason) == (500, "Looks like I encountered an error")
    assert transport.calls == 1


def test_a_deadlock_is_a_500_worth_repeating(http, transport):
    http.get(CONTACTS, status=500, json={"errors": [{"message": "SQLSTATE[40001]: Deadlock found", "code": 500}]})
    http.get(CONTACTS, json={"ok": 1})
    assert transport.read("contacts") == {"ok": 1}


def test_a_rate_limit_is_waited_for_by_the_clock_of_the_server(http, transport, fake_time):
    """5.1 says when in `X-RateLimit-Reset`, and its clock is not ours."""
    http.get(
        CONTACTS,
        status=429,
        headers={"X-RateLimit-Reset": "1000000030", "Date": "Sun, 09 Sep 2001 01:46:40 GMT"},
    )
    http.get(CONTACTS, status=429, headers={"Retry-After": "7"})
    http.get(CONTACTS, status=429, headers={"Retry-After": "Fri, 15 Jan 2027 08:01:08 GMT"})
    http.get(CONTACTS, json={})
    transport.read("contacts")
    assert [round(nap) for nap in fake_time.slept[:2]] == [30, 8]
    assert len(fake_time.slept) == 3


def test_a_rate_limit_of_an_hour_is_left_to_the_next_run(http, transport, fake_time):
    http.get(CONTACTS, status=429, headers={"Retry-After": "3600"})
    with pytest.raises(RetryError, match=r"3600 s.*mautic\.concurrency"):
        transport.read("contacts")
    assert fake_time.slept == []


@pytest.mark.parametrize(("status", "body"), [(502, ""), (503, HTML), (504, ""), (500, "SQLSTATE[40001]: deadlock")])
def test_a_server_that_wants_to_be_left_alone_for_an_hour_is_left_to_the_next_run(
    http, transport, fake_time, status, body
):
    http.get(CONTACTS, status=status, body=body, headers={"Retry-After": "3600"})
    with pytest.raises(RetryError, match=rf"{status} and asks to wait 3600 s\. The next run"):
        transport.read("contacts")
    assert (transport.calls, fake_time.slept) == (1, [])


def test_a_page_instead_of_json_is_explained(http, transport):
    http.get(CONTACTS, body=HTML, content_type="text/html")
    with pytest.raises(StopError, match=r"a page came back.*mautic\.base_url"):
        transport.read("contacts")


def test_a_page_that_says_404_is_no_missing_contact(http, transport):
    http.get(f"{CONTACTS}/1", status=404, body=HTML, content_type="text/html")
    with pytest.raises(StopError, match="a page came back"):
        transport.read("contacts/1")


def test_half_an_answer_is_asked_for_again(http, transport):
    http.get(CONTACTS, body='{"contacts": {"1"', content_type="application/json")
    http.get(CONTACTS, json={"ok": 1})
    assert transport.read("contacts") == {"ok": 1}


def test_nothing_but_half_answers_is_an_error_for_the_next_run(http, transport):
    http.get(CONTACTS, body='{"contacts": {"1"', content_type="application/json")
    with pytest.raises(RetryError, match="cut off"):
        transport.read("contacts")


def test_repaired_answers_are_counted(http, transport):
    http.get(CONTACTS, body=b'{"a":"caf\xe9"}', content_type="application/json")
    assert transport.read("contacts") == {"a": "caf\ufffd"}
    assert transport.repaired == 1


def test_errors_inside_a_200_are_errors(http, transport, step):
    http.get(f"{BASE}/api/stats/page_hits", json=step("stats unknown column"))
    with pytest.raises(RefusedError, match="Unknown column"):
        transport.read("stats/page_hits")


def test_a_403_inside_a_200_names_the_right(http, transport):
    http.get(f"{BASE}/api/stats/page_hits", json={"errors": [{"message": "no", "code": 403}]})
    with pytest.raises(StopError, match="lead:leads:viewown"):
        transport.read("stats/page_hits")


@pytest.mark.parametrize(
    ("message", "kind", "says"),
    [
        ("API disabled.", "api_disabled", "Settings → Configuration"),
        ("Basic Auth disabled", "access_denied", r"mautic\.client_id"),
        ("You do not have access to the requested area/action.", None, "lead:leads:viewown and viewother"),
    ],
)
def test_a_403_says_what_to_do(http, transport, message, kind, says):
    http.get(CONTACTS, status=403, json={"errors": [{"message": message, "code": 403, "type": kind}]})
    with pytest.raises(StopError, match=says):
        transport.read("contacts")


@pytest.mark.parametrize(
    "body", ["", '{"errors":[{"message":"Authorization denied, invalid credentials.","code":401}]}']
)
def test_a_refused_password_is_said_also_when_the_answer_is_empty(http, transport, body):
    """7.0.0 answers a refused log-in with an empty body."""
    http.get(CONTACTS, status=401, body=body)
    with pytest.raises(StopError, match=r"mautic\.username and mautic\.password") as refused:
        transport.read("contacts")
    assert ".." not in str(refused.value)
    assert transport.calls == 1


def test_a_redirect_to_https_is_named(http, connect):
    http.get(
        "http://mautic.example/api/contacts", status=301, headers={"Location": "https://mautic.example/api/contacts"}
    )
    with pytest.raises(StopError, match=r"redirects http to https \(https://mautic\.example"):
        connect("http://mautic.example", allow_http=True).read("contacts")


def test_a_redirect_is_not_followed(http, transport):
    """The credentials go nowhere but to the configured address."""
    http.get(CONTACTS, status=302, headers={"Location": "https://other.example/login?token=abc"})
    with pytest.raises(StopError, match=r"https://other\.example/login") as caught:
        transport.read("contacts")
    assert "abc" not in str(caught.value)
    assert transport.calls == 1


def test_a_time_out_of_a_read_is_tried_again(http, transport):
    http.get(CONTACTS, body=requests.ReadTimeout())
    http.get(CONTACTS, json={"ok": 1})
    assert transport.read("contacts") == {"ok": 1}


def test_errors_show_no_addresses_and_no_secrets(http, transport):
    message = "email: eve@example.com is taken, Basic YWRtaW46cGFzcy13b3Jk, pass-word"
    http.get(f"{CONTACTS}/12", status=400, json={"errors": [{"message": message, "code": 400}]})
    with pytest.raises(RefusedError) as caught:
        transport.read("contacts/12", {"search": "bob@example.com"})
    for text in (str(caught.value), caught.value.reason):
        assert "e***@example.com" in text
        assert not any(secret in text for secret in ("eve@", "bob", "pass-word", "YWRtaW46cGFzcy13b3Jk"))
    assert "contacts/12" in str(caught.value)


# -- what a write does ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520])
def test_a_write_that_meets_a_5xx_is_in_doubt_and_not_repeated(http, transport, status):
    http.patch(f"{CONTACTS}/1/edit", status=status, json={"errors": [{"message": "error", "code": status}]})
    with pytest.raises(DoubtfulError, match=f"PATCH contacts/1/edit.*{status}"):
        transport.write("PATCH", "contacts/1/edit", {"stage": 1})
    assert transport.calls == 1


def test_a_deadlock_of_a_points_call_is_a_400_and_in_doubt(http, transport):
    http.post(f"{CONTACTS}/1/points/plus/1", status=400, json={"errors": [{"message": "SQLSTATE[40001]", "code": 400}]})
    with pytest.raises(DoubtfulError):
        transport.write("POST", "contacts/1/points/plus/1", {})


@pytest.mark.parametrize(
    "fault", [requests.ReadTimeout(), requests.ConnectionError("broken"), requests.exceptions.ChunkedEncodingError()]
)
def test_a_write_without_an_answer_is_in_doubt_and_not_repeated(http, transport, fault):
    http.patch(f"{CONTACTS}/1/edit", body=fault)
    with pytest.raises(DoubtfulError, match="may have been made"):
        transport.write("PATCH", "contacts/1/edit", {"stage": 1})
    assert transport.calls == 1


def test_a_page_in_answer_to_a_write_leaves_it_in_doubt(http, transport):
    http.patch(f"{CONTACTS}/1/edit", body=HTML, content_type="text/html")
    with pytest.raises(DoubtfulError, match="but a page"):
        transport.write("PATCH", "contacts/1/edit", {"stage": 1})


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_refused_write_is_refused(http, transport, status):
    http.patch(f"{CONTACTS}/1/edit", status=status, json={"errors": [{"message": "no", "code": status}]})
    with pytest.raises(RefusedError) as caught:
        transport.write("PATCH", "contacts/1/edit", {"stage": 1})
    assert (caught.value.status, caught.value.reason) == (status, "no")


def test_a_write_held_by_the_rate_limit_is_sent_again(http, transport, fake_time):
    """A 429 is answered before anything is done."""
    http.patch(f"{CONTACTS}/1/edit", status=429, headers={"Retry-After": "3"})
    http.patch(f"{CONTACTS}/1/edit", json={"contact": {}})
    assert transport.write("PATCH", "contacts/1/edit", {"stage": 1}) == {"contact": {}}
    assert (transport.calls, transport.writes) == (2, 1)


def test_a_write_to_a_server_that_is_not_there_is_tried_again_and_changed_nothing(connect, fake_time):
    transport = connect(unused_address())
    with pytest.raises(StopError, match=r"could not be reached: the connection was refused.*mautic\.base_url"):
        transport.write("PATCH", "contacts/1/edit", {})
    assert transport.calls == ATTEMPTS


def test_a_server_that_hangs_up_leaves_a_write_in_doubt_over_a_real_connection(connect):
    with server(hang_up) as (address, connections):
        with pytest.raises(DoubtfulError, match="the connection broke"):
            connect(address).write("PATCH", "contacts/1/edit", {"stage": 1})
        assert len(connections) == 1


def test_a_silent_server_leaves_a_write_in_doubt_over_a_real_connection(connect):
    with server(say_nothing) as (address, connections):
        with pytest.raises(DoubtfulError, match=r"no answer came in time \(mautic\.timeout\)"):
            connect(address, timeout=0.05).write("PATCH", "contacts/1/edit", {"stage": 1})
        assert len(connections) == 1


def test_a_server_that_hangs_up_on_reads_is_asked_again_over_real_connections(connect):
    with server(hang_up) as (address, connections):
        with pytest.raises(RetryError, match="next run"):
            connect(address).read("contacts")
        assert len(connections) == ATTEMPTS


def test_an_unknown_name_is_an_error_about_the_address(http, transport):
    unknown = NameResolutionError("mautic.example", HTTPSConnectionPool("mautic.example"), socket.gaierror())
    http.get(
        CONTACTS, body=requests.ConnectionError(MaxRetryError(HTTPSConnectionPool("mautic.example"), "/", unknown))
    )
    with pytest.raises(StopError, match=r"could not be reached: its name is not known to DNS.*mautic\.base_url"):
        transport.read("contacts")


def test_an_untrusted_certificate_is_an_error_about_the_authority(http, transport):
    fault = requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    http.patch(f"{CONTACTS}/1/edit", body=fault)
    with pytest.raises(StopError, match=r"mautic\.ca_bundle"):
        transport.write("PATCH", "contacts/1/edit", {})


def test_a_tls_fault_in_the_middle_leaves_a_write_in_doubt(http, transport):
    http.patch(f"{CONTACTS}/1/edit", body=requests.exceptions.SSLError("EOF occurred in violation of protocol"))
    with pytest.raises(DoubtfulError):
        transport.write("PATCH", "contacts/1/edit", {})


def test_cookies_are_not_kept(http, transport):
    """PHP would make requests of one session wait for each other."""
    http.get(CONTACTS, json={}, headers={"Set-Cookie": "mautic_session=abc; path=/"})
    transport.read("contacts")
    transport.read("contacts")
    assert "Cookie" not in http.calls[1].request.headers


def test_large_numbers_go_out_as_json(http, transport):
    http.patch(f"{CONTACTS}/batch/edit", json={})
    transport.write("PATCH", "contacts/batch/edit", [{"id": 7, "stage": None}])
    assert json.loads(http.calls[0].request.body) == [{"id": 7, "stage": None}]
    assert http.calls[0].request.headers["Content-Type"] == "application/json"


# -- versions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "numbers"), [("5.1.0", (5, 1, 0)), ("7.0.0-beta2", (7, 0, 0)), ("dev", ()), ("4.4", (4, 4))]
)
def test_versions_are_compared_as_numbers(text, numbers):
    assert parse_version(text) == numbers


def test_writing_to_a_mautic_older_than_5_is_refused():
    with pytest.raises(StopError, match=r"4\.4\.13.*push\.enabled"):
        refuse_old("4.4.13")
    for version in ("5.0.0", "5", "7.0.0", None, "dev"):
        refuse_old(version)


def test_the_recorded_errors_end_in_the_right_class(recording, http, transport):
    """Each error of a real Mautic: a read may be refused or stopped, a write refused or in doubt; nothing else."""
    for exchange in recording:
        request, answer = exchange["request"], exchange["response"]
        if not request["path"].startswith("/api/") or answer["status"] < 400 or exchange["actor"] != "api":
            continue
        http.reset()
        http.add(request["method"], BASE + request["path"], json=answer["json"], status=answer["status"])
        if request["method"] == "GET":
            with pytest.raises(RefusedError):
                transport.read(request["path"])
        else:
            with pytest.raises(DoubtfulError if answer["status"] >= 500 else RefusedError):
                transport.write(request["method"], request["path"], request["json"])


def test_a_pooled_connection_serves_many_threads(http, connect):
    http.add_callback(responses.GET, CONTACTS, callback=lambda _request: (200, {}, '{"ok": 1}'))
    transport = connect(concurrency=4)
    threads = [threading.Thread(target=transport.read, args=("contacts",)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert transport.calls == 16
