"""`/_sandbox`: books, clock, and what happens from outside."""

import json

import pytest
import requests

from mautic_sync.sandbox import Credentials, Sandbox, read_credentials


def control(mautic, path, body=None):
    data = body if isinstance(body, str) else json.dumps(body)
    return requests.post(f"{mautic.sandbox.url}/_sandbox/{path}", data=data, timeout=10)


def test_calls_are_counted_by_pattern_and_writes_apart(mautic):
    control(mautic, "stats/reset")
    contact = mautic.new(firstname="Eve")
    mautic.contact(contact)
    mautic.post(f"/api/contacts/{contact}/points/plus/5")
    stats = requests.get(f"{mautic.sandbox.url}/_sandbox/stats", timeout=10).json()
    assert stats["calls"] == {
        "GET /api/contacts/{id}": 1, "POST /api/contacts/new": 1, "POST /api/contacts/{id}/points/plus/{n}": 1,
    }  # fmt: skip
    assert (stats["total"], stats["writes"]) == (3, 2)


def test_books_tell_points_grants_and_stages(mautic):
    contact = mautic.new(firstname="Eve", stage=2)
    mautic.post(f"/api/contacts/{contact}/points/plus/5", {"eventName": "mautic-sync:1"})
    stats = mautic.sandbox.stats()
    assert stats["points"] == {str(contact): {"points": 5, "logged": 5}}
    assert stats["grants"] == {"mautic-sync:1": {"count": 1, "points": 5}}
    assert stats["stages"] == {"Lead": 1}


def test_the_clock_moves(mautic):
    assert (
        control(mautic, "clock", {"now": "2030-01-01T00:00:00+00:00"}).json()["now"].startswith("2030-01-01T00:00:00")
    )
    control(mautic, "clock", {"advance": 3600})
    mautic.sandbox.instance.tokens.update(
        dict.fromkeys(mautic.sandbox.instance.tokens, mautic.sandbox.now().replace(year=2031))
    )
    contact = mautic.new(firstname="Eve")
    assert mautic.contact(contact)["dateAdded"].startswith("2030-01-01T01:00:0")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("clock", {"advance": "much"}), ("clock", {"now": "soon"}), ("clock", {"move": 1}), ("faults", {"spec": "befor=1"}),
        ("credits", {"credits": "many"}), ("zerobounce", {"status": "valid"}), ("act", {"do": "dance"}),
        ("act", {"do": "visit", "contact": 99}), ("act", {"do": "malform", "contact": "x"}), ("clock", "{"), ("act", "[1]"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_a_sentence(mautic, path, body):
    answer = control(mautic, path, body)
    assert answer.status_code == 400
    assert len(answer.json()["error"].split()) > 3


def test_unknown_addresses_are_404(mautic):
    assert control(mautic, "nothing", {}).status_code == 404
    assert requests.get(f"{mautic.sandbox.zerobounce_url}/v2/nothing", timeout=10).status_code == 404


def test_things_happen_from_outside(mautic):
    known = mautic.new(email="eve@shop.example", stage=2)
    visitor = mautic.act(do="visit", url="https://shop.example/pricing", utm_source="google")["contact"]
    mautic.act(do="clear_stage", contact=known)
    assert mautic.contact(known)["stage"] is None
    mautic.act(do="unsubscribe", contact=known)
    assert mautic.act(do="merge", visitor=visitor, known=known) == {"survivor": visitor, "gone": known}
    mautic.act(do="vanish", contact=visitor)
    assert mautic.call("GET", f"/api/contacts/{visitor}").status_code == 404
    assert "delete" not in [r["action"] for r in mautic.feed("audit_log") if r["object_id"] == str(visitor)]


def test_a_form_by_act_identifies(mautic):
    contact = mautic.act(do="form", form="Signup", email="new@shop.example")["contact"]
    assert mautic.contact(contact)["fields"]["all"]["email"] == "new@shop.example"


@pytest.mark.parametrize(
    "how", ["broken_utf8", "list_maps", "numbers_as_text", "null_dates", "huge_string", "unknown_stage"]
)
def test_contacts_can_be_malformed(mautic, how):
    contact = mautic.new(firstname="Eve", lastname="Moss")
    before = mautic.call("GET", f"/api/contacts/{contact}").content
    mautic.act(do="malform", contact=contact, how=how)
    assert mautic.call("GET", f"/api/contacts/{contact}").content != before
    assert mautic.call("GET", "/api/contacts").status_code == 200


def test_the_next_answers_can_be_html(mautic):
    mautic.act(do="html", next=1)
    assert mautic.call("GET", "/api/contacts").headers["Content-Type"] == "text/html"
    assert mautic.call("GET", "/api/contacts").headers["Content-Type"] == "application/json"


def test_credentials_come_from_a_file(tmp_path):
    file = tmp_path / "credentials.json"
    file.write_text('{"client_id": "1_x", "client_secret": "y", "client_name": "worker"}')
    assert read_credentials(file) == Credentials(client_id="1_x", client_secret="y", client_name="worker")
    file.write_text('{"user": "x"}')
    with pytest.raises(ValueError, match="user"):
        read_credentials(file)


def test_a_measured_sandbox_takes_its_time():
    with Sandbox(empty=True, cost="measured") as sandbox:
        answer = requests.get(f"{sandbox.url}/api/contacts", auth=("admin", "sandbox"), timeout=10)
        assert answer.elapsed.total_seconds() > 0.4


@pytest.mark.parametrize("wrong", [{"version": "4.4"}, {"cost": "free"}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValueError, match="not '"):
        Sandbox(empty=True, **wrong)
