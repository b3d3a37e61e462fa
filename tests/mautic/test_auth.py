from __future__ import annotations

import threading

import pytest
import requests
from responses import matchers

from mautic_sync.errors import RetryError, StopError
from mautic_sync.mautic.auth import ClientCredentials, Token

BASE = "https://mautic.example"
TOKEN = f"{BASE}/oauth/v2/token"
CONTACTS = f"{BASE}/api/contacts"
EXPIRED = {"errors": [{"message": "The access token provided has expired.", "code": 401, "type": "invalid_grant"}]}


@pytest.fixture
def oauth(connect):
    return connect(client_id="1_rid123", client_secret="sec456")


def grant(http, value, lifetime=3600):
    http.post(TOKEN, json={"access_token": value, "expires_in": lifetime, "token_type": "bearer", "scope": None})


def bearer(value):
    return matchers.header_matcher({"Authorization": f"Bearer {value}"})


def test_it_asks_for_a_token_once_and_uses_it(http, oauth):
    grant(http, "first")
    http.get(CONTACTS, json={}, match=[bearer("first")])
    oauth.read("contacts")
    oauth.read("contacts")
    assert oauth.calls == 3
    assert http.calls[0].request.body == "grant_type=client_credentials&client_id=1_rid123&client_secret=sec456"


def test_many_threads_share_one_token(http, connect):
    oauth = connect(client_id="1_rid123", client_secret="sec456", concurrency=8)
    grant(http, "first")
    http.get(CONTACTS, json={}, match=[bearer("first")])
    together = threading.Barrier(8)

    def read():
        together.wait()
        oauth.read("contacts")

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert oauth.calls == 9


def test_many_threads_that_meet_a_401_renew_once():
    """Whoever comes second takes the token that the first one got."""
    fetched = []

    def fetch():
        fetched.append(1)
        return Token(f"token{len(fetched)}", 10_000.0)

    credentials = ClientCredentials(fetch, lambda: 0.0)
    old = credentials.header()
    together = threading.Barrier(8)
    seen = []

    def renew():
        together.wait()
        assert credentials.renew(old)
        seen.append(credentials.header())

    threads = [threading.Thread(target=renew) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 2
    assert set(seen) == {"Bearer token2"}


def test_it_renews_before_the_token_expires(http, oauth, fake_time):
    grant(http, "first", 3600)
    grant(http, "second", 3600)
    http.get(CONTACTS, json={}, match=[bearer("first")])
    http.get(CONTACTS, json={}, match=[bearer("second")])
    oauth.read("contacts")
    fake_time.now += 3600 - 59
    oauth.read("contacts")
    assert oauth.calls == 4


@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_it_renews_once_after_a_401(http, oauth, method):
    grant(http, "first")
    grant(http, "second")
    http.add(method, CONTACTS, status=401, json=EXPIRED, match=[bearer("first")])
    http.add(method, CONTACTS, json={"ok": 1}, match=[bearer("second")])
    answer = oauth.read("contacts") if method == "GET" else oauth.write(method, "contacts", {})
    assert answer == {"ok": 1}


def test_it_gives_up_after_the_second_401(http, oauth):
    grant(http, "first")
    http.get(CONTACTS, status=401, json=EXPIRED)
    with pytest.raises(StopError, match=r"mautic\.client_id and mautic\.client_secret"):
        oauth.read("contacts")
    assert oauth.calls == 4


def test_an_unknown_client_is_named_by_its_settings(http, oauth, step):
    http.post(TOKEN, status=400, json=step("token, wrong secret"))
    with pytest.raises(StopError, match=r"mautic\.client_id and mautic\.client_secret") as caught:
        oauth.read("contacts")
    assert "sec456" not in str(caught.value)


def test_another_refusal_of_a_token_says_what_came_back(http, oauth, step):
    http.post(TOKEN, status=400, json=step("token, bad grant"))
    with pytest.raises(StopError, match="Invalid grant_type"):
        oauth.read("contacts")


def test_a_token_is_asked_for_again_after_a_passing_fault(http, oauth):
    http.post(TOKEN, status=503)
    http.post(TOKEN, body=requests.ReadTimeout())
    grant(http, "first")
    http.get(CONTACTS, json={})
    oauth.read("contacts")
    assert oauth.calls == 4


def test_a_token_address_that_stays_down_is_an_error_for_the_next_run(http, oauth):
    http.post(TOKEN, status=502)
    with pytest.raises(RetryError, match=r"access token.*502"):
        oauth.read("contacts")


def test_a_token_address_that_asks_to_wait_for_an_hour_is_left_to_the_next_run(http, oauth, fake_time):
    http.post(TOKEN, status=503, headers={"Retry-After": "3600"})
    with pytest.raises(RetryError, match=r"access token.*503 and asks to wait 3600 s"):
        oauth.read("contacts")
    assert (oauth.calls, fake_time.slept) == (1, [])


def test_a_redirected_token_request_is_not_followed(http, connect):
    oauth = connect("http://mautic.example", allow_http=True, client_id="1_rid123", client_secret="sec456")
    http.post("http://mautic.example/oauth/v2/token", status=301, headers={"Location": TOKEN})
    with pytest.raises(StopError, match="http to https"):
        oauth.read("contacts")
    assert oauth.calls == 1


def test_a_page_instead_of_a_token_means_that_this_is_no_mautic(http, oauth):
    http.post(TOKEN, body="<html></html>", content_type="text/html")
    with pytest.raises(StopError, match="is there a Mautic"):
        oauth.read("contacts")


def test_its_own_audit_rows_are_known_by_the_row_of_the_client(oauth, transport):
    """A client id is `<row>_<random>`; the audit log shows `<name> [<row>]`."""
    assert oauth.server_user == "[1]"
    assert oauth.is_own("sync [1]")
    assert not oauth.is_own("other [11]")
    assert oauth.calls == 0
    assert transport.server_user is None
    assert not transport.is_own("Ada Admin")


def test_oauth_is_preferred_to_basic(http, connect):
    both = connect(client_id="1_rid123", client_secret="sec456", username="admin", password="pass-word")
    grant(http, "first")
    http.get(CONTACTS, json={}, match=[bearer("first")])
    both.read("contacts")


def test_netrc_does_not_replace_the_credentials(http, transport, monkeypatch, tmp_path):
    """requests would send what it finds in ~/.netrc for the host."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine mautic.example login other password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    http.get(CONTACTS, json={})
    transport.read("contacts")
    assert http.calls[0].request.headers["Authorization"] == "Basic YWRtaW46cGFzcy13b3Jk"
