"""What goes wrong on purpose, goes wrong by the seed."""

import pytest
import requests

from mautic_sync.sandbox import Faults, Sandbox, parse_faults


def test_a_seed_alone_means_one_request_in_ten():
    faults = parse_faults("7")
    assert faults.seed == 7
    assert faults.before + faults.after + faults.late + faults.echo + faults.truncate + faults.rate == pytest.approx(
        0.1
    )


def test_each_fault_can_be_named():
    assert parse_faults("seed=7, before=0.05,late=0.02,skew=-30") == Faults(seed=7, before=0.05, late=0.02, skew=-30)


@pytest.mark.parametrize(
    ("text", "told"),
    [("befor=0.1", "did you mean 'before'"), ("late", "needs a value"), ("late=often", "a number"), ("late=2", "between 0 and 1"),
     ("before=0.6,after=0.6", "more than 1")],
)  # fmt: skip
def test_a_wrong_fault_is_told_in_a_sentence(text, told):
    with pytest.raises(ValueError, match=told):
        parse_faults(text)


@pytest.fixture
def faulty(log_in):
    """A sandbox whose faults begin after the log-in."""
    with Sandbox(empty=True) as sandbox:
        client = log_in(sandbox)

        def begin(**rates):
            sandbox.use_faults(Faults(**rates))
            return client

        yield begin
        client.session.close()


def attempt(client, method="POST", path="/api/contacts/new", json=None):
    try:
        return client.session.request(method, client.sandbox.url + path, json=json, timeout=10).status_code
    except requests.ConnectionError:
        return "dropped"


def count(client):
    return client.sandbox.stats()["contacts"]


def test_before_applies_nothing(faulty):
    client = faulty(before=1.0)
    answers = {attempt(client, json={"firstname": "Eve"}) for _ in range(20)}
    assert answers == {"dropped", 502, 503}
    assert count(client) == 0


def test_after_has_applied(faulty):
    client = faulty(after=1.0)
    answers = {attempt(client, json={"firstname": "Eve"}) for _ in range(20)}
    assert answers == {"dropped", 504}
    assert count(client) >= 20


def test_a_broken_database_tells_of_no_grant_that_was_made(faulty):
    client = faulty()
    assert attempt(client, json={"firstname": "Eve"}) == 201
    client.sandbox.use_faults(Faults(broken=1.0))
    answers = [attempt(client, path="/api/contacts/1/points/plus/1", json={"eventName": "x"}) for _ in range(40)]
    assert set(answers) == {400, 404}
    (granted,) = client.sandbox.stats()["grants"].values()
    assert 0 < granted["count"] < answers.count(400)
    assert {attempt(client, "GET", "/api/contacts/1") for _ in range(20)} == {404, 500}
    assert attempt(client, "GET", "/api/contacts") == 200


def test_late_applies_when_the_client_has_gone(faulty):
    client = faulty(late=1.0)
    session = requests.Session()
    session.headers.update(client.session.headers)
    with pytest.raises(requests.ConnectionError):
        session.post(f"{client.sandbox.url}/api/contacts/new", json={"firstname": "Eve"}, timeout=10)
    session.close()
    assert count(client) == 0
    for timer in client.sandbox._late:
        timer.join()
    assert count(client) >= 1


def test_rate_answers_429_with_a_time(faulty):
    client = faulty(rate=1.0)
    answer = client.call("GET", "/api/contacts")
    assert answer.status_code == 429
    assert int(answer.headers["X-RateLimit-Reset"]) > client.sandbox.now().timestamp()
    assert "Mautic-Version" not in answer.headers


def test_truncate_cuts_a_list(faulty):
    client = faulty(truncate=1.0)
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
        client.call("GET", "/api/contacts")


def test_echo_tells_wrong_ids(faulty):
    client = faulty()
    contact = client.new(firstname="Eve")
    client.sandbox.use_faults(Faults(echo=1.0))
    answer = client.patch("/api/contacts/batch/edit", [{"id": contact, "city": "Rome"}]).json()
    assert answer["contacts"][0]["id"] != contact


def test_merge_joins_a_visitor_and_a_known_contact(faulty):
    client = faulty()
    client.new(email="a@shop.example")
    client.act(do="visit", url="https://shop.example/")
    client.sandbox.use_faults(Faults(merge=1.0))
    client.get("/api/stages")
    assert [
        r["action"] for r in client.sandbox.instance.tables.rows("SELECT action FROM audit_log WHERE action = 'merge'")
    ]


def test_moving_hides_rows_for_a_while(faulty):
    client = faulty()
    for page in "abcdef":
        client.act(do="visit", url=f"https://shop.example/{page}")
    client.sandbox.use_faults(Faults(moving=1.0))
    sizes = {len(client.feed("page_hits")) for _ in range(2)}
    assert sizes == {4, 6}


def test_skew_moves_the_servers_clock(faulty):
    client = faulty()
    before = client.sandbox.now()
    client.sandbox.use_faults(Faults(skew=500))
    assert (client.sandbox.now() - before).total_seconds() == pytest.approx(500, abs=5)


def test_faults_are_counted(faulty):
    client = faulty(before=1.0)
    attempt(client)
    assert client.sandbox.stats()["faults"]["before"] >= 1
