"""`hot`: who is worth a call, read from the store alone."""

from __future__ import annotations

import csv
import io
import json

import pytest
from sqlalchemy import event
from typer.testing import CliRunner

from mautic_sync.cli import app
from mautic_sync.cli.hot import COLUMNS, MORE_COLUMNS, as_csv_text
from mautic_sync.pipeline import hot as listing
from mautic_sync.pipeline.hot import hot_contacts


@pytest.fixture
def hot(make_worker, monkeypatch):
    """Three people, two of them hot; the sandbox is gone when the command runs."""
    worker = make_worker()
    worker.init()
    first = worker.new(
        firstname="Pat", lastname="=Doe", company="Acme, Inc", position="CEO", country="Germany", phone="+49 30 1"
    )
    second = worker.new(company="Beta", position="CTO", mobile="+49 30 2")
    worker.new(firstname="Lou", phone="+49 30 3")
    worker.sync()
    worker.act("points", contact=first, delta=25, name="2: Mautic's own")
    worker.sync()
    worker.box.stop()
    monkeypatch.setenv("MAUTIC_SYNC_STORE__URL", worker.settings.store.url)

    def run(*arguments, code=0):
        done = CliRunner().invoke(app, ["hot", *arguments])
        assert done.exit_code == code, done.output
        return done

    run.first, run.second, run.url = first, second, worker.box.url
    return run


def test_the_best_come_first_with_reasons(hot):
    document = json.loads(hot("--json").stdout)
    first, second = document["hot"]
    assert document["total"] == 2
    assert [first["id"], second["id"]] == [hot.first, hot.second]
    assert (first["score"], first["points"], first["fit"], first["interest"]) == (15, 40, 15, 0)
    assert first["reasons"] == "Decides 10, Home market 5"
    assert first["link"] == f"{hot.url}/s/contacts/view/{hot.first}"
    assert (second["name"], second["phone"], second["owner"]) == ("Beta", "+49 30 2", None)
    assert first["since"].endswith("Z")


def test_a_limit_shows_the_best_and_tells_how_many_there_are(hot):
    document = json.loads(hot("--json", "--limit", "1").stdout)
    assert ([one["id"] for one in document["hot"]], document["total"]) == ([hot.first], 2)
    assert "and 1 more" in hot("--limit", "1").stdout


@pytest.fixture
def listed(make_worker):
    """`listed(worker)`: what `hot` lists of a worker's store."""

    def read(worker):
        with worker.run("look") as run, run.engine.begin() as connection:
            return hot_contacts(connection, run.settings, run.mappings, run.now)["hot"]

    return read


def test_the_owner_is_whoever_mautic_shows(make_worker, listed, mautic_version):
    worker = make_worker(version=mautic_version)
    worker.init()
    worker.sync()
    pat = worker.new(firstname="Pat", position="CEO", phone="+49 30 1", owner=1)
    worker.sync()
    assert [one["owner"] for one in listed(worker)] == [1]
    worker.act("edit", contact=pat, values={"owner": None})
    decided = worker.sync()
    assert ([one["owner"] for one in listed(worker)], decided["pushed"]["calls"]) == ([None], 0)


def test_who_has_bought_needs_no_call_and_loses_the_tag(make_worker, listed):
    worker = make_worker()
    worker.init()
    worker.sync()
    pat = worker.new(firstname="Pat", position="CEO", phone="+49 30 1")
    worker.sync()
    assert ([one["id"] for one in listed(worker)], worker.contact(pat).tags) == ([pat], {"hot"})
    worker.act("edit", contact=pat, values={"tags": ["customer"]})
    worker.sync()
    assert (listed(worker), worker.stage(pat), worker.contact(pat).tags) == ([], "Customer", {"customer"})


def test_more_people_need_no_more_statements(make_worker, listed):
    worker = make_worker()
    worker.init()

    def statements(people: int) -> int:
        for _ in range(people):
            worker.new(position="CEO", phone="+49 30 1")
        worker.sync()
        asked: list[str] = []

        def see(*about):
            asked.append(about[2])

        with worker.run("look") as run, run.engine.begin() as connection:
            event.listen(connection, "before_cursor_execute", see)
            found = hot_contacts(connection, run.settings, run.mappings, run.now)["hot"]
        assert len(found) >= people
        return len(asked)

    assert statements(1) == statements(9)


def test_pages_hold_everybody_once(make_worker, listed, monkeypatch):
    monkeypatch.setattr(listing, "PERSONS_PER_TRANSACTION", 2)
    worker = make_worker()
    worker.init()
    made = [worker.new(position="CEO", phone="+49 30 1") for _ in range(5)]
    worker.sync()
    assert sorted(one["id"] for one in listed(worker)) == made


OTHER_GROUPS = """version: 1
groups:
  profile:
    - {name: Leads, when: {field: position, in: [CEO, CTO]}, points: 20}
  at home:
    - {name: Home, when: {field: country, in: [Germany]}, points: 3}
hot:
  when: {score: total, gte: 7}
"""


@pytest.fixture
def other_rules(hot, tmp_path, monkeypatch):
    """The rules were edited after the last run."""
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited" / "scoring.yaml").write_text(OTHER_GROUPS)
    monkeypatch.setenv("MAUTIC_SYNC_MAPPINGS__DIR", str(tmp_path / "edited"))
    return hot


def test_groups_of_any_name_are_shown(other_rules):
    told = " ".join(other_rules().stdout.split())
    assert "profile 20, at home 3" in told
    (first, second) = csv.DictReader(io.StringIO(other_rules("--csv").stdout_bytes.decode(), newline=""))
    assert (first["profile"], first["at home"], second["profile"], second["at home"]) == ("20", "3", "20", "0")
    assert "interest" not in first


def test_scores_and_reasons_are_of_the_same_rules_and_say_that_these_have_changed(other_rules):
    document = json.loads(other_rules("--json").stdout)
    first, _ = document["hot"]
    assert (first["score"], first["groups"]) == (23, {"profile": 20, "at home": 3})
    assert first["reasons"] == "Leads 20, Home 3"
    assert document["outdated"] == 2
    told = " ".join(other_rules().stdout.split())
    assert "Of 2 of them the score has changed since the last run: `sync` decides anew." in told


def test_what_no_run_has_counted_since_the_rules_changed_is_told(hot, tmp_path, monkeypatch):
    rule = '{name: Prices, on: page.hit, where: {url: "*/prices*"}, points: 5}'
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited" / "scoring.yaml").write_text(f"version: 1\ngroups: {{fit: [{rule}]}}\n")
    monkeypatch.setenv("MAUTIC_SYNC_MAPPINGS__DIR", str(tmp_path / "edited"))
    (text,) = json.loads(hot("--json").stdout)["not_counted"]
    assert text.startswith("page.hit with url */prices* (`Prices`): no run has counted it since the rules changed")
    assert f"Not counted: {text}" in " ".join(hot().stdout.split())


def test_as_long_as_the_rules_stay_nothing_is_said_of_them(hot):
    told = hot().stdout
    assert "decides anew" not in told
    assert "Not counted" not in told


def test_people_read_it_as_text(hot):
    told = " ".join(hot().stdout.split())
    assert "Pat =Doe" in told
    assert "score 15 (ours), points 40 (Mautic's total); fit 15, interest 0" in told
    assert "Decides 10, Home market 5" in told
    assert "more rule" not in told
    assert f"{hot.url}/s/contacts/view/{hot.second}" in told


def test_nothing_of_it_is_cut_off_and_no_name_stands_twice(make_worker, monkeypatch):
    worker = make_worker()
    worker.init()
    address = f"a-{'very-' * 12}long-name@{'of-a-' * 8}domain.example"
    worker.new(position="CEO", email=address, phone="+49 30 1")
    worker.sync()
    monkeypatch.setenv("MAUTIC_SYNC_STORE__URL", worker.settings.store.url)
    told = "".join(CliRunner().invoke(app, ["hot"]).stdout.split())
    assert told.count(address) == 1
    assert "…" not in told
    assert "interest0;hotsince20" in told


def test_rules_beyond_the_weightiest_are_counted(make_worker, listed, monkeypatch):
    worker = make_worker()
    worker.init()
    pat = worker.new(position="CEO", country="Germany", phone="+49 30 1")
    worker.act("visit", contact=pat, url="https://shop.example/pricing")
    worker.sync()
    (one,) = listed(worker)
    assert (one["score"], one["reasons"]) == (18, "Decides 10, Home market 5, Reads pricing 2")
    assert one["reasons_untold"] == 1
    monkeypatch.setenv("MAUTIC_SYNC_STORE__URL", worker.settings.store.url)
    told = " ".join(CliRunner().invoke(app, ["hot"]).stdout.split())
    assert "Decides 10, Home market 5, Reads pricing 2, and 1 more rule" in told


def test_spreadsheets_read_it_as_text_and_never_as_a_formula(hot):
    printed = hot("--csv").stdout_bytes.decode()
    rows = list(csv.reader(io.StringIO(printed, newline="")))
    assert printed.count("\r\n") == 3
    assert tuple(rows[0]) == (*COLUMNS, "fit", "interest", *MORE_COLUMNS)
    assert rows[1][1:5] == ["Pat =Doe", "", "Acme, Inc", "'+49 30 1"]
    assert rows[1][5:7] == ["15", "40"]


def test_programs_find_the_name_of_the_first_column(hot):
    assert hot("--csv").stdout_bytes.startswith(b"id,name,")


def test_every_cell_that_could_be_a_formula_is_guarded():
    row = {**dict.fromkeys((*COLUMNS, *MORE_COLUMNS), ""), "groups": {}}
    row.update(name="=1+1", company="@SUM(A1)", email="-2", phone="+3", reasons='say "x", y\nz', score=-5)
    (told,) = list(csv.DictReader(io.StringIO(as_csv_text([row], ["fit"]), newline="")))
    assert [told[name] for name in ("name", "company", "email", "phone")] == ["'=1+1", "'@SUM(A1)", "'-2", "'+3"]
    assert (told["reasons"], told["score"]) == ('say "x", y\nz', "-5")


@pytest.mark.parametrize("sign", "＝＋－＠")
def test_full_width_signs_are_guarded_as_well(sign):
    text = as_csv_text([{**dict.fromkeys((*COLUMNS, *MORE_COLUMNS), f"{sign}1+1"), "groups": {}}], [])
    assert next(csv.DictReader(io.StringIO(text)))["company"] == f"'{sign}1+1"


@pytest.mark.parametrize(
    ("phone", "shown"),
    [("030123456", "'030123456"), ("0049301", "'0049301"), ("493012345678", "'493012345678"), ("4930123", "4930123")],
)
def test_a_phone_number_keeps_its_digits(phone, shown):
    """A spreadsheet takes them for a number, which begins with no zero and is shortened when it is long."""
    row = {**dict.fromkeys((*COLUMNS, *MORE_COLUMNS), ""), "groups": {}, "phone": phone}
    assert next(csv.DictReader(io.StringIO(as_csv_text([row], ()))))["phone"] == shown


def test_two_ways_to_print_are_one_too_many(hot):
    assert isinstance(CliRunner().invoke(app, ["hot", "--json", "--csv"]).exception, Exception)


def test_nobody_is_hot_in_an_empty_store(tmp_path, monkeypatch):
    monkeypatch.setenv("MAUTIC_SYNC_STORE__URL", f"sqlite:///{tmp_path / 'empty.db'}")
    done = CliRunner().invoke(app, ["hot"])
    assert (done.exit_code, done.stdout) == (0, "Nobody is hot.\n")
