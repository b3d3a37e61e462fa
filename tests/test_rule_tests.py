"""Rules are tried on examples: the packaged ones hold, and what does not hold or cannot be read is told."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from mautic_sync.cli import app
from mautic_sync.mapping_problems import MappingsError
from mautic_sync.mappings import load_mappings, packaged_mappings_dir
from mautic_sync.rule_test_files import ExpectText, PersonText, RuleTest, WasText, read_rule_tests, rule_tests_schema
from mautic_sync.rule_tests import document, try_rules
from mautic_sync.yaml_text import read_yaml

PACKAGED = sorted((packaged_mappings_dir() / "tests").glob("*.yaml"))


@pytest.fixture
def write(tmp_path):
    """Writes a file of tests into a directory of mappings, and returns the directory."""

    def write(text: str, **mappings: str) -> Path:
        (tmp_path / "tests").mkdir(exist_ok=True)
        (tmp_path / "tests" / "mine.yaml").write_text(text, encoding="utf-8")
        for name, content in mappings.items():
            (tmp_path / f"{name}.yaml").write_text(content, encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture
def problems(write):
    def problems(tests: str) -> list[str]:
        directory = write(f"version: 1\ntests:\n{tests}")
        with pytest.raises(MappingsError) as caught:
            try_rules(load_mappings(directory), read_rule_tests(directory))
        return [str(one).removeprefix(f"{directory}/tests/") for one in caught.value.problems]

    return problems


@pytest.fixture
def tried(write):
    """The document of one file with these tests."""

    def tried(tests: str, **mappings: str):
        directory = write(f"version: 1\ntests:\n{tests}", **mappings)
        return document(try_rules(load_mappings(directory), read_rule_tests(directory)))

    return tried


def misses(document) -> dict[str, tuple[object, object]]:
    (file,) = document["files"]
    return {one["key"]: (one["expected"], one["got"]) for fail in file["failures"] for one in fail["expectations"]}


# -- the packaged examples


def test_every_packaged_example_holds():
    result = document(try_rules(load_mappings(), read_rule_tests(packaged_mappings_dir())))
    assert [one for file in result["files"] for one in file["failures"]] == []
    assert result["ok"]


def test_the_packaged_examples_show_every_packaged_rule_at_work():
    """Each condition of a stage, each rule that gives points, the flags and each action."""
    mappings = load_mappings()
    outcomes = [one for _, found in try_rules(mappings, read_rule_tests(packaged_mappings_dir())) for one in found]
    seen = {rule for one in outcomes for rule in one.rules}
    stages = {
        f"{stage.name}:any[{number}]"
        for stage in mappings.stages.stages
        if stage.condition is not None
        for number in range(len(stage.condition.node.parts))
    }
    scores = {rule.name for rule in mappings.scores.rules}
    actions = {one.name for one in mappings.action_rules.rules}
    assert {*stages, "Customer:sticky", "Ghost:otherwise", *scores, "hot", "low_value", *actions} - seen == set()
    told = " ".join(one.name for one in outcomes)
    assert {name for name in {*scores, *actions} if name.split()[-1] not in told} == set()


@pytest.mark.parametrize("path", PACKAGED, ids=lambda path: path.name)
def test_the_packaged_examples_fit_the_schema_and_name_it(path):
    schema = rule_tests_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(read_yaml(path.read_bytes()).value, schema)
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=../schema/tests.schema.json\n")


def test_the_committed_schema_is_up_to_date():
    committed = packaged_mappings_dir() / "schema" / "tests.schema.json"
    assert json.loads(committed.read_text(encoding="utf-8")) == rule_tests_schema()


def test_the_documents_name_every_key():
    text = (Path(__file__).parents[1] / "docs" / "mappings.md").read_text(encoding="utf-8")
    keys = {key for model in (RuleTest, PersonText, WasText, ExpectText) for key in model.model_fields}
    assert sorted(key for key in {*keys, "days_ago", "times"} if f"`{key}`" not in text) == []


# -- what is decided


@pytest.mark.parametrize(
    ("person", "expect"),
    [
        ("fields: {email: a@b.example}, verdict: invalid", "kind: ghost, reason: rejected"),
        ("fields: {email: a@b.example}, verdict: invalid/mailbox_not_found", "kind: ghost, waiting: false"),
        ("fields: {email: a@b.example}, verdict: {status: valid, at: -179d}", "kind: lead, waiting: false"),
        ("fields: {email: a@b.example}, verdict: {status: valid, at: -181d}", "kind: ghost, waiting: true"),
        ("fields: {email: a@b.example}, verdict: held, was: {kind: lead}", "kind: lead, waiting: true"),
        ("fields: {lastname: Doe, phone: }", "kind: ghost"),
        ("last_active: 2026-08-01", "scores: {interest: -5}"),
        ("first_seen: -61d", "score: -5"),
        ("stage: Partner, was: {stage: Customer}", "stage: Customer"),
        ("segments: [a], campaigns: [b], dnc: {email: bounced}", "kind: ghost"),
    ],
)
def test_a_person_is_decided_as_a_run_would(tried, person, expect):
    assert misses(tried(f"  - {{name: a, person: {{{person}}}, expect: {{{expect}}}}}\n")) == {}


def test_a_key_left_blank_has_its_default(tried):
    blank = "person: {fields: , tags: , verdict: , was: {hot: , holds: }, first_seen: }, activity: "
    assert tried(f"  - {{name: a, {blank}, expect: {{kind: ghost, score: }}}}\n")["ok"]
    times = "activity: [{type: page.hit, days_ago: 0, at: , times: , url: }]"
    assert tried(f"  - {{name: a, person: , {times}, expect: {{kind: ghost, score: 1}}}}\n")["ok"]


@pytest.mark.parametrize(("type_", "points"), [("email.read", 0), ("email.click", 0), ("email.replied", -5)])
def test_what_moves_the_last_activity_in_mautic_ends_silence(tried, type_, points):
    tests = f"  - {{name: a, person: {{first_seen: -90d}}, activity: [{{type: {type_}, at: -1d}}], expect: {{score: {points}}}}}\n"
    scoring = "version: 1\ngroups: {fit: [], interest: [{name: Silent, when: {idle: 60d}, points: -5}]}\n"
    assert misses(tried(tests, scoring=scoring)) == {}


def test_fields_are_read_as_a_run_reads_them(tried):
    """The letter case of an alias does not count, and one of several choices is enough."""
    scoring = (
        "version: 1\ngroups: {fit: [{name: A, when: {field: Company, is: acme}, points: 1},"
        " {name: B, when: {field: Country, is: DE}, points: 2}, {name: C, when: {field: sports, in: [ski]}, points: 4}]}\n"
    )
    tests = (
        "  - name: a\n"
        "    person: {fields: {company: Acme, COUNTRY: Germany, sports: golf|ski, Email: nonsense}}\n"
        "    expect: {score: 7, kind: ghost, reason: rejected}\n"
    )
    assert misses(tried(tests, scoring=scoring, actions="version: 1\n")) == {}


@pytest.mark.parametrize(("ago", "points"), [(7, 0), (8, -1)])
def test_days_ago_are_days_of_the_zone_also_across_a_change_of_its_clocks(write, ago, points):
    scoring = (
        "version: 1\ngroups: {a: [{name: A, on: email.sent, unless: {activity: email.read, within: 7d}, points: -1}]}\n"
    )
    did = f"{{type: email.sent, days_ago: {ago}}}"
    tests = f"version: 1\nnow: 2026-04-01\ntests: [{{name: a, activity: [{did}], expect: {{score: {points}}}}}]\n"
    directory = write(tests, scoring=scoring, actions="version: 1\n")
    mappings = load_mappings(directory, time_zone="Europe/Berlin")
    assert document(try_rules(mappings, read_rule_tests(directory)))["ok"]


def test_activity_is_counted_by_the_same_matchers(tried):
    scoring = (
        "version: 1\ngroups: {seen: [{name: Ads, on: page.hit, where: {utm_source: ads}, points: 3, at_most: 2, per: 7d}]}"
        "\nhot: {when: {activity: page.hit, within: 2d, at_least: 4}}"
    )
    tests = (
        "  - name: a\n"
        "    activity: [{type: page.hit, url: 'https://s.example/?utm_source=ADS', at: -1d, times: 3},"
        " {type: page.hit, url: 'https://s.example/', utm_source: ads, at: 2026-10-31T18:00:00Z}]\n"
        "    expect: {scores: {seen: 6}, hot: true}\n"
    )
    actions = "version: 1\n"
    assert misses(tried(tests, scoring=scoring, actions=actions)) == {}


def test_leaving_a_stage_or_a_kind_sets_off_actions(tried):
    actions = (
        "version: 1\non:\n  - {leave: {stage: Lead}, do: {note: a}}\n  - {leave: {kind: ghost}, do: {note: b}}\n"
        "  - {leave: {kind: customer}, do: {note: c}}\n"
    )
    tests = (
        "  - name: a customer was a lead\n"
        "    person: {fields: {orders_count: 1}, was: {stage: Lead}}\n"
        "    expect: {actions: [leave Lead]}\n"
        "  - name: a lead was some ghost\n"
        "    person: {fields: {phone: '+49 30 1'}, was: {kind: ghost}}\n"
        "    expect: {actions: [leave ghost]}\n"
        "  - name: nobody leaves what they stay in, or were not in\n"
        "    person: {fields: {phone: '+49 30 1'}, was: {stage: Lead}}\n"
        "    expect: {actions: []}\n"
        "  - name: a newcomer leaves nothing\n"
        "    person: {fields: {phone: '+49 30 1'}}\n"
        "    expect: {actions: []}\n"
    )
    assert misses(tried(tests, actions=actions)) == {}


def test_what_does_not_hold_is_told_with_what_explains_it(tried):
    found = tried(
        "  - name: wrong\n"
        "    person: {fields: {position: CEO}, was: {stage: Lead}}\n"
        "    expect: {kind: customer, stage: Customer, score: 11, scores: {fit: 9, interest: 1}, hot: true, low_value: true,"
        " waiting: true, reason: because, actions: [become hot]}\n"
    )
    assert misses(found) == {
        "kind": ("customer", "ghost"),
        "stage": ("Customer", "Ghost"),
        "score": (11, 10),
        "scores.fit": (9, 10),
        "scores.interest": (1, 0),
        "hot": (True, False),
        "low_value": (True, False),
        "waiting": (True, False),
        "reason": ("because", "Ghost: no other rule holds"),
        "actions": (["become hot"], []),
    }
    (failure,) = found["files"][0]["failures"]
    why = {one["key"]: "\n".join(one["why"]) for one in failure["expectations"]}
    assert failure["line"] == 3
    assert "10 fit: Decides" in why["score"]
    assert "10 fit: Decides" in why["scores.fit"]
    assert why["scores.interest"] == "no rule gives points to interest"
    assert "stage Lead" in why["kind"]
    assert "kind" in why["hot"]


# -- what cannot be read


@pytest.mark.parametrize(
    ("tests", "told"),
    [
        ("  - {name: a, expect: {}}\n", "mine.yaml, line 3, tests[0].expect: `expect` expects nothing"),
        ("  - {name: a, expect: {score: }}\n", "line 3, tests[0].expect: `expect` expects nothing"),
        ("  - {name: a, expect: {scores: {}}}\n", "line 3, tests[0].expect: `expect` expects nothing"),
        ("  - {name: a}\n", "line 3, tests[0].expect: `expect` is missing"),
        (
            "  - {name: a, expect: {kid: lead}}\n",
            "line 3, tests[0].expect.kid: there is no key `kid` here; did you mean `kind`?",
        ),
        ("  - {name: a, persn: {}, expect: {score: 1}}\n", "there is no key `persn` here; did you mean `person`?"),
        ("  - {name: a, expect: {stage: Leed}}\n", "no stage `Leed` is managed here; did you mean `Lead`?"),
        ("  - {name: a, expect: {scores: {fitt: 1}}}\n", "there is no group `fitt`; did you mean `fit`?"),
        ("  - {name: a, expect: {actions: [white glove]}}\n", "no action `white glove`; did you mean `white-glove`?"),
        ("  - {name: a, person: {was: {stage: Leed}}, expect: {score: 1}}\n", "no stage `Leed` is managed here"),
        ("  - {name: a, person: {was: {holds: [enter customer]}}, expect: {score: 1}}\n", "with `when`"),
        ("  - {name: a, person: {verdict: acepted}, expect: {score: 1}}\n", "did you mean `accepted`?"),
        ("  - {name: a, person: {verdict: role_based}, expect: {score: 1}}\n", "like `invalid/role_based`"),
        ("  - {name: a, person: {verdict: invalid/role}, expect: {score: 1}}\n", "no sub-status `role`"),
        ("  - {name: a, person: {first_seen: 30d}, expect: {score: 1}}\n", "`30d` is no day or moment"),
        (
            "  - {name: a, person: {first_seen: 2026-11-01T12:00:01Z}, expect: {score: 1}}\n",
            "line 3, tests[0].person.first_seen: `2026-11-01T12:00:01Z` lies ahead of `now`, 2026-11-01T12:00:00Z",
        ),
        ("  - {name: a, person: {last_active: 2026-11-02}, expect: {score: 1}}\n", "lies ahead of `now`"),
        (
            "  - {name: a, person: {verdict: {status: valid, at: 2026-11-02}}, expect: {score: 1}}\n",
            "tests[0].person.verdict.at: `2026-11-02` lies ahead of `now`",
        ),
        (
            "  - {name: a, person: {was: {kind: customer, stage: Ghost}}, expect: {score: 1}}\n",
            "person.was.kind: whoever was in the stage `Ghost` was a ghost, not a customer; write one of them",
        ),
        (
            "  - {name: a, person: {verdict: {status: vald}}, expect: {score: 1}}\n",
            "verdict.status: ZeroBounce is not known to answer `vald`; did you mean `valid`?",
        ),
        (
            "  - {name: a, person: {verdict: {status: invalid, sub_status: mailbox_notfound}}, expect: {score: 1}}\n",
            "verdict.sub_status: ZeroBounce is not known to answer `mailbox_notfound`; did you mean `mailbox_not_found`?",
        ),
        (
            "  - {name: a, person: {verdict: {status: held}}, expect: {score: 1}}\n",
            "`held` is what we make of a status",
        ),
        (
            "  - {name: a, person: {verdict: {status: gold}}, expect: {score: 1}}\n",
            "`gold` is a sub-status, and no status",
        ),
        ("  - {name: a, person: {last_active: 0001-01-01}, expect: {score: 1}}\n", "`0001-01-01` is out of reach"),
        ("  - {name: a, activity: [{type: page.hits, at: -1d}], expect: {score: 1}}\n", "did you mean `page.hit`?"),
        ("  - {name: a, activity: [{type: page.hit}], expect: {score: 1}}\n", "this takes `at` or `days_ago`"),
        ("  - {name: a, activity: [{type: page.hit, at: +1d}], expect: {score: 1}}\n", "lies ahead of `now`"),
        ("  - {name: a, activity: [{type: page.hit, at: 2027-01-01}], expect: {score: 1}}\n", "lies ahead of `now`"),
        ("  - {name: a, activity: [{type: page.hit, days_ago: 1, form: x}], expect: {score: 1}}\n", "tells no `form`"),
        ("  - {name: a, activity: [{type: page.hit, days_ago: 1, times: 0}], expect: {score: 1}}\n", "is too small"),
        (
            "  - {name: a, expect: {score: 1}}\n  - {name: a, expect: {score: 1}}\n",
            "line 4, tests[1].name: there are two",
        ),
        ("  []\n", "`tests` is empty"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(problems, tests, told):
    found = problems(tests)
    assert any(told in one for one in found), found


@pytest.mark.parametrize(
    ("tests", "told"),
    [
        ("  - name: a\n\tperson: {}\n", "mine.yaml, line 4: use spaces, not tabs, to indent"),
        (
            "  - name: a\n    expect: {score: 1}\n    expect: {score: 2}\n",
            "mine.yaml, line 5, tests[0].expect: `expect` stands twice here, first in line 4; remove one of them",
        ),
    ],
)
def test_what_is_no_yaml_is_named_with_the_line_where_it_stands(problems, tests, told):
    (problem,) = problems(tests)
    assert problem.startswith(told)


@pytest.mark.parametrize("status", ["quarantined", "Valid", "vald"])
def test_a_status_that_is_new_with_zerobounce_can_be_tested(tried, status):
    policy = f"version: 1\npolicy: {{accept: [valid], hold: [{status}]}}\n"
    test = f"  - {{name: a, person: {{verdict: {{status: {status}}}}}, expect: {{kind: ghost}}}}\n"
    assert tried(test, **({"validation": policy} if status == "vald" else {}))["tests"] == 1


@pytest.mark.parametrize("now", ["0001-01-01T00:00:00Z", "1969-12-31", "9999-12-31"])
def test_a_now_that_no_run_can_have_is_refused_with_its_line(write, now):
    directory = write(
        f"version: 1\nnow: {now}\ntests:\n"
        "  - {name: a, activity: [{type: page.hit, days_ago: 1}], expect: {score: 1}}\n"
    )
    with pytest.raises(MappingsError) as caught:
        try_rules(load_mappings(directory), read_rule_tests(directory))
    (problem,) = map(str, caught.value.problems)
    assert f"mine.yaml, line 2, now: `{now}` is out of reach; write a year from 1970 to 2999" in problem


def test_a_field_with_several_values_is_told_in_one_line(problems):
    (problem,) = problems("  - {name: a, person: {fields: {chosen: [a, b]}}, expect: {score: 1}}\n")
    assert "tests[0].person.fields.chosen: a field has one value, not a list" in problem


def test_a_directory_of_mappings_may_hold_tests(write):
    load_mappings(write("version: 1\ntests: [{name: a, expect: {kind: ghost}}]\n"))


def test_every_yaml_file_is_read_however_deep_and_in_capitals_but_no_hidden_one(tmp_path):
    written = ["a.yaml", "B.YAML", "c.yml", "deep/er/d.Yml"]
    for name in (*written, ".e.yaml", "..data/a.yaml", "notes.md"):
        path = tmp_path / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("version: 1\ntests: [{name: a, expect: {kind: ghost}}]\n", encoding="utf-8")
    found = [Path(one.source.name).relative_to(tmp_path / "tests") for one in read_rule_tests(tmp_path)]
    assert sorted(found) == sorted(map(Path, written))
    assert read_rule_tests(tmp_path / "tests") == []


# -- the command


def run(*arguments: str):
    return CliRunner().invoke(app, arguments)


def test_the_command_tells_a_line_per_file_and_leaves_with_0_when_all_holds():
    result = run("test-rules")
    assert result.exit_code == 0
    assert [line.split(": ")[1] for line in result.stdout.splitlines()] == [
        "10 of 10 tests hold",
        "22 of 22 tests hold",
        "17 of 17 tests hold",
    ]


def test_the_command_leaves_with_1_and_tells_why_when_something_does_not_hold(write):
    directory = write(
        "version: 1\ntests: [{name: buys, person: {tags: [customer]}, expect: {kind: lead, hot: true}}]\n"
    )
    result = run("test-rules", str(directory))
    assert result.exit_code == 1
    assert "mine.yaml: 0 of 1 tests hold" in result.stdout
    assert "line 2, buys" in result.stdout
    assert "kind: expected lead, got customer" in result.stdout
    assert "hot: expected true, got false" in result.stdout
    found = run("test-rules", str(directory), "--json")
    assert (found.exit_code, json.loads(found.stdout)["failed"]) == (1, 1)


@pytest.mark.parametrize("command", ["test-rules", "check"])
def test_what_cannot_be_read_is_a_mistake_of_configuration(write, command):
    result = run(command, str(write("version: 1\ntest: []\n")))
    assert isinstance(result.exception, MappingsError)
    assert result.exception.exit_code == 2
    assert "there is no key `test` here; did you mean `tests`?" in str(result.exception)


@pytest.mark.parametrize("command", ["test-rules", "check"])
def test_with_json_what_is_wrong_is_the_document(write, command):
    directory = write("version: 1\ntest: []\n")
    result = run(command, str(directory), "--json")
    assert isinstance(result.exception, MappingsError)
    found = json.loads(result.stdout)
    assert (found["ok"], len(found["problems"])) == (False, 2)  # and `tests` is missing
    first = next(one for one in found["problems"] if one["key"] == "test")
    assert (first["file"], first["line"]) == (f"{directory}/tests/mine.yaml", 2)
    assert first["text"].startswith("there is no key `test` here")


def test_with_json_a_mistake_in_no_file_of_rules_is_told_too(tmp_path):
    result = run("test-rules", str(tmp_path), "--json")
    (problem,) = json.loads(result.stdout)["problems"]
    assert "there are no tests of rules" in problem["text"]
    assert problem["file"] is problem["line"] is problem["key"] is None


def test_a_directory_without_tests_says_so(tmp_path):
    result = run("test-rules", str(tmp_path))
    assert "there are no tests of rules" in str(result.exception)
    assert run("check", str(tmp_path)).exit_code == 0
