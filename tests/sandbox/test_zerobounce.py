"""The simulated ZeroBounce."""

import pytest
import requests

KEY = "sandbox-key"


def ask(mautic, path, method="GET", base="/zerobounce/v2", **options):
    return requests.request(method, f"{mautic.sandbox.url}{base}/{path}", timeout=10, **options)


def validate(mautic, email, **more):
    return ask(mautic, "validate", "POST", data={"api_key": KEY, "email": email, "ip_address": "", **more}).json()


def credits_left(mautic):
    return int(ask(mautic, "getcredits", params={"api_key": KEY}).json()["Credits"])


@pytest.mark.parametrize(
    ("address", "status", "sub_status"),
    [
        ("valid@example.com", "valid", ""), ("gold@example.com", "valid", "gold"), ("catch_all@example.com", "catch-all", ""),
        ("invalid@example.com", "invalid", "mailbox_not_found"), ("disposable@example.com", "do_not_mail", "disposable"),
        ("unknown@example.com", "unknown", "mail_server_temporary_error"), ("timeout_exceeded@example.com", "unknown", "timeout_exceeded"),
        ("donotmail@example.com", "do_not_mail", "role_based"), ("eve@gmial.com", "invalid", "possible_typo"),
        ("x@mailinator.com", "do_not_mail", "disposable"), ("x@gone.example", "invalid", "no_dns_entries"),
        ("noreply@shop.example", "do_not_mail", "role_based"), ("no address", "invalid", "failed_syntax_check"),
    ],
)  # fmt: skip
def test_addresses_have_their_answers(mautic, address, status, sub_status):
    answer = validate(mautic, address)
    assert (answer["status"], answer["sub_status"], answer["address"]) == (status, sub_status, address)


def test_a_typo_comes_with_a_suggestion(mautic):
    assert validate(mautic, "eve@gmial.com")["did_you_mean"] == "eve@gmail.com"


def test_get_and_both_bases_work(mautic):
    params = {"api_key": KEY, "email": "valid@example.com", "ip_address": "99.110.204.1"}
    for base in ("/zerobounce", "/zerobounce/v2"):
        assert ask(mautic, "validate", base=base, params=params).json()["city"]


def test_unknown_costs_nothing_and_twice_costs_twice(mautic):
    before = credits_left(mautic)
    validate(mautic, "unknown@example.com")
    assert credits_left(mautic) == before
    mautic.sandbox.zerobounce.scripted["eve@shop.example"] = {"status": "valid"}
    validate(mautic, "eve@shop.example")
    validate(mautic, "EVE@shop.example")
    assert credits_left(mautic) == before - 2
    assert mautic.sandbox.stats()["credits"]["by_address"]["eve@shop.example"] == 2


def test_a_bad_key_and_no_credits_sound_the_same(mautic):
    bad = ask(mautic, "validate", params={"api_key": "x", "email": "a@b.example"})
    requests.post(f"{mautic.sandbox.url}/_sandbox/credits", json={"credits": 0}, timeout=10)
    empty = ask(mautic, "validate", params={"api_key": KEY, "email": "a@b.example"})
    assert (bad.status_code, bad.json()) == (empty.status_code, empty.json())
    assert "Invalid API key" in bad.json()["error"]
    assert ask(mautic, "getcredits", params={"api_key": "x"}).json() == {"Credits": "-1"}
    assert ask(mautic, "getcredits", params={"api_key": KEY}).json() == {"Credits": "0"}


def test_answers_can_be_scripted(mautic):
    scripted = {"email": "Eve@shop.example", "status": "new_status", "sub_status": "odd", "region": "Bavaria"}
    requests.post(f"{mautic.sandbox.url}/_sandbox/zerobounce", json=scripted, timeout=10)
    answer = validate(mautic, "eve@shop.example")
    assert (answer["status"], answer["sub_status"], answer["region"]) == ("new_status", "odd", "Bavaria")


def test_batches_hold_a_hundred(mautic):
    batch = [{"email_address": f"a{i}@shop.example", "ip_address": ""} for i in range(100)]
    answer = ask(mautic, "validatebatch", "POST", json={"api_key": KEY, "email_batch": batch, "timeout": "30"}).json()
    assert {a["address"] for a in answer["email_batch"]} == {b["email_address"] for b in batch}
    refused = ask(mautic, "validatebatch", "POST", json={"api_key": KEY, "email_batch": [*batch, batch[0]]}).json()
    assert refused["errors"][0]["email_address"] == "all"


def test_about_three_quarters_are_valid(mautic):
    verdict = mautic.sandbox.zerobounce.verdict
    found = [verdict(f"person{i}@firm.example")["status"] for i in range(2000)]
    assert 0.7 < found.count("valid") / len(found) < 0.82


def test_files_go_through_the_bulk_api(mautic):
    data = {"api_key": KEY, "email_address_column": 2, "has_header_row": "true"}
    content = "name,email\nEve,valid@example.com\nBob,invalid@example.com\n"
    sent = ask(mautic, "sendfile", "POST", data=data, files={"file": ("a.csv", content)}).json()
    params = {"api_key": KEY, "file_id": sent["file_id"]}
    assert ask(mautic, "getfile", params=params).headers["Content-Type"] == "application/json"
    states = [ask(mautic, "filestatus", params=params).json()["file_status"] for _ in range(2)]
    assert states[-1] == "Complete"
    lines = ask(mautic, "getfile", params=params).text.splitlines()
    assert lines[1].startswith('"Eve","valid@example.com","valid"')
    assert ask(mautic, "deletefile", params=params).json()["success"] is True
