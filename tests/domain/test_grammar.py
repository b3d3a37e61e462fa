"""What may be written as a condition, and what is said about everything else."""

from __future__ import annotations

import time
from contextlib import suppress

import jsonschema
import pytest
from hypothesis import given, settings, strategies as st

from mautic_sync.domain.activity import ACTIVITY_TYPES
from mautic_sync.domain.conditions import compile_condition
from mautic_sync.domain.grammar import (
    CALLED,
    compile_regex,
    condition_schema,
    duration_text,
    nearest,
    parse_condition,
    parse_duration,
    path_text,
)
from mautic_sync.errors import ConfigError


def said(spec):
    problems = []
    parse_condition(spec, problems, ("when",))
    return [f"{path_text(one.path)}: {one.text}" for one in problems]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("vip", "when: a condition is a map with one subject, like `{tag: vip}`, not `vip`"),
        ({}, "when: a condition is a map with one subject, like `{tag: vip}`, not a map"),
        ({"fild": "phone", "is": 1}, "when.fild: no condition begins with `fild`; did you mean `field`?"),
        ({"tag": "a", "segment": "b"}, "when.segment: a condition has one subject, this has `tag` and `segment`"),
        ({"field": "a"}, "when.field: `field` needs an operator, one of: is, is_not"),
        ({"field": "a", "is": 1, "gt": 2}, "when.gt: a condition has one operator, this has `is` and `gt`"),
        ({"field": "a", "equals": 1}, "when.equals: there is no key `equals` beside `field`"),
        ({"field": "a", "gtt": 1, "is": 1}, "did you mean `gt`?"),
        ({"tag": "a", "gt": 1}, "when.gt: `tag` has no operator `gt`"),
        ({"all": []}, "when.all: `all` of an empty list says nothing"),
        ({"any": {"tag": "a"}}, "when.any: `any` takes a list of conditions, not a map"),
        ({"any": [{"tag": "a"}], "tag": "b"}, "when.tag: a condition has one subject"),
        ({"any": [{"tag": "a"}], "optional": True}, "when.optional: `optional` cannot stand beside `any`"),
        ({"not": [{"tag": "a"}]}, "when.not: a condition is a map with one subject"),
        ({"all": [{"tag": "a"}, {"any": [{"tga": "b"}]}]}, "when.all[1].any[0].tga: no condition begins with `tga`"),
        ({"tag": []}, "when.tag: `tag` of an empty list says nothing"),
        ({"tag": None}, "when.tag: `tag` takes a name, not nothing"),
        ({"tag": True}, "when.tag: `tag` takes a name, not true"),
        ({"activity": "page.hits"}, "when.activity: there is no activity `page.hits`; did you mean `page.hit`?"),
        ({"activity": "page.hit", "at_least": 0}, "when.at_least: `at_least: 0` always holds"),
        (
            {"activity": "page.hit", "at_least": -1},
            "when.at_least: `at_least` takes a whole number, 0 or more, not `-1`",
        ),
        ({"activity": "page.hit", "at_least": True}, "when.at_least: `at_least` takes a whole number"),
        ({"activity": "page.hit", "at_least": 1.5}, "when.at_least: `at_least` takes a whole number"),
        ({"activity": "page.hit", "at_least": 3, "at_most": 2}, "when.at_most: nothing is at least 3 and at most 2"),
        (
            {"activity": "page.hit", "within": 30},
            "when.within: `30` is not a length of time; write a whole number and a unit",
        ),
        ({"activity": "page.hit", "within": "0d"}, "when.within: `within: 0d` is no time at all"),
        (
            {"activity": "page.hit", "within": "9999w", "at_least": 1},
            "when.within: `9999w` is longer than a hundred years",
        ),
        ({"activity": "page.hit", "within": "1d", "after": "-3d"}, "when.after: `within` and `after` contradict"),
        (
            {"activity": "page.hit", "where": {"uri": "x"}},
            "when.where.uri: `where` knows no `uri`; did you mean `url`?",
        ),
        ({"activity": "page.hit", "where": {}}, "when.where: `where` is empty; write what it compares, like"),
        ({"activity": "page.hit", "where": "/x"}, "when.where: `where` is a map, not `/x`"),
        ({"activity": "page.hit", "where": {"url": []}}, "when.where.url: `url` takes a text or a list of texts"),
        ({"verdict": "acepted"}, "when.verdict: there is no verdict `acepted`; did you mean `accepted`?"),
        ({"score": "total"}, "when.score: `score` needs an operator"),
        ({"kind": "leed"}, "when.kind: there is no kind `leed`; did you mean `lead`?"),
        (
            {"dnc": "email", "is": "unsubscribe"},
            "when.is: do-not-contact has no reason `unsubscribe`; did you mean `unsubscribed`?",
        ),
        ({"age": None}, "when.age: `age` needs a length of time, like `{age: 30d}`"),
        ({"age": "30d", "lt": "2d"}, "when.lt: `age: 30d` already means “at least”"),
        ({"age": None, "between": ["2d", "1d"]}, "when.between: `between` takes the smaller value first: [1d, 2d]"),
        ({"idle": "soon"}, "when.idle: `soon` is not a length of time; write a whole number and a unit"),
        ({"idle": "7 days"}, "when.idle: `7 days` is not a length of time; did you mean `7d`?"),
        ({"idle": "7 d"}, "did you mean `7d`?"),
        ({"idle": "7D"}, "did you mean `7d`?"),
        ({"idle": "1 week"}, "did you mean `1w`?"),
        ({"idle": "24 Hours"}, "did you mean `24h`?"),
        ({"idle": "2 months"}, "did you mean `60d`?"),
        ({"activity": "email.open"}, "when.activity: there is no activity `email.open`; did you mean `email.read`?"),
        ({"activity": "Email.Opened"}, "did you mean `email.read`?"),
        ({"activity": "page.view"}, "did you mean `page.hit`?"),
        ({"activity": "form.submit"}, "did you mean `form.submitted`?"),
        ({"activity": "asset.downloaded"}, "did you mean `asset.download`?"),
        ({"field": "a", "is": None}, "when.is: `is` takes one value, not nothing; for no value write `empty: true`"),
        ({"field": "a", "is": ["x"]}, "when.is: `is` takes one value, not a list; for several values write `in`"),
        ({"field": "a", "in": "x"}, "when.in: `in` takes a list, like [a, b], not `x`"),
        ({"field": "a", "in": [None]}, "when.in: `in` takes a list of texts or numbers"),
        ({"field": "a", "is": float("nan")}, "when.is: nan is no number that anything could be compared with"),
        ({"field": "a", "gt": float("inf")}, "when.gt: `gt` takes a number, not `inf`"),
        ({"field": "a", "gt": True}, "when.gt: `gt` takes a number, not true"),
        ({"field": "a", "gt": "2026-01-01"}, "for dates write `after` or `before`"),
        ({"field": "a", "between": [3, 1]}, "when.between: `between` takes the smaller value first: [1, 3]"),
        (
            {"field": "a", "between": ["2026-02-01", "2026-01-01"]},
            "when.between: `between` takes the earlier day first",
        ),
        ({"field": "a", "between": [1]}, "when.between: `between` takes two values"),
        ({"field": "a", "not_empty": "yes"}, "when.not_empty: `not_empty` is true or false, not `yes`"),
        ({"field": "a", "like": ""}, "when.like: `like` takes a text"),
        (
            {"field": "a", "after": "soon"},
            "when.after: `after` takes a day like 2026-11-12 or a distance from now like -30d",
        ),
        ({"field": "a", "after": "2026-02-30"}, "when.after: `after` takes a day like 2026-11-12"),
        ({"field": "a", "after": "-9999w"}, "when.after: `9999w` is longer than a hundred years"),
        ({"field": "a", "matches": "("}, "when.matches: `(` is not a regular expression"),
        ({"field": "a", "matches": "(a+)+$"}, "when.matches: `(a+)+$` repeats a repetition"),
        ({"field": "a", "is": 1, "optional": "yes"}, "when.optional: `optional` is true or false, not `yes`"),
    ],
)
def test_what_is_wrong_is_said_with_the_way_out(spec, told):
    assert any(told in one for one in said(spec)), said(spec)


def test_everything_that_is_wrong_is_said_at_once():
    told = said({"any": [{"tga": "x"}, {"field": "a", "gt": "b"}, {"activity": "page.hits", "within": 3}]})
    assert len(told) == 4


def test_an_unknown_word_of_zerobounce_is_only_a_warning():
    problems = []
    assert parse_condition({"verdict": "quarantined"}, problems) is not None
    assert [one.warning for one in problems] == [True]


def test_conditions_do_not_nest_without_end():
    spec = {"tag": "x"}
    for _level in range(40):
        spec = {"not": spec}
    assert any("nest at most 30 deep" in one for one in said(spec))


def test_a_wrong_condition_is_a_configuration_error():
    with pytest.raises(ConfigError, match="did you mean `gt`"):
        compile_condition({"field": "a", "gtt": 1})


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("6h", 21_600), ("30d", 2_592_000), ("2w", 1_209_600)]
)
def test_lengths_of_time(text, seconds):
    assert parse_duration(text) == seconds
    assert parse_duration(duration_text(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "1.5h", "-1d", "30d\n", "1 d", "1y", 30, None, True, "99999999999d"])
def test_what_is_no_length_of_time(text):
    with pytest.raises(ValueError, match=r"length of time|hundred years"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["(a+)+", "(a*b)*", "((a+)b)*", "(?:a{2,})+", r"(\d+,)*x", "([+]a+)+"])
def test_repeated_repetitions_are_refused(text):
    with pytest.raises(ValueError, match="repeats a repetition"):
        compile_regex(text)


@pytest.mark.parametrize(
    "text",
    [
        r"(?i)\b(ceo|cto|head|director)\b",
        r"(ab)+",
        r"[(a+)]+",
        r"\(a+\)+",
        r"(a+)?",
        r"^\d{2,}-\w+$",
        "[]a+]+",
        r"(a\+)+",
        ".*foo.*",
        "foo.*bar.*baz",
        ".*foo.*bar.*baz.*",
        r"\d+-\d+",
        r"\w+\s+\w+\s+\w+",
        r"[a-z]+@[a-z]+\.[a-z]+",
        r"^[^@\s]+@[^@\s]+\.(de|at|ch)$",
        "[a-z]+[a-z0-9]*@",
        "[a-z]*[A-Z]*[0-9]*x",
        "(ceo|cto|owner)+",
        "(foo(bar)?baz)+",
        r"^(\d{1,3}\.){3}\d{1,3}$",
        r"(?i)(vice\s+)?president|vp|head\s+of\s+\w+",
        r"^(?=.*\d)(?=.*[a-z]).{8,}$",
        r"^https?://(www\.)?shop\.example/.*$",
        "((((((a{9}){9}){9}){9}){9}){9}){9}",
    ],
)
def test_ordinary_expressions_are_taken(text):
    assert compile_regex(text).pattern == text


@pytest.mark.parametrize(
    "text",
    [
        "(a|aa)+$",
        "(a|a)*$",
        "(a|b|ab)*c",
        "(a|aa){1,30}b",
        "(a{1,2})+b",
        r"(\s|\s\s)+x",
        "(?:x|xx|y)*z",
        "(a+){20}",
        "(a?){30}b",
        r"(.*,){11}P",
        r"(\w+\s?){1,10}x",
        "(?i)(a|A)+b(?:c|cc)+d",
    ],
)
def test_repetitions_that_can_be_read_in_several_ways_are_refused(text):
    with pytest.raises(ValueError, match="repeats what can be read in several ways"):
        compile_regex(text)


@pytest.mark.parametrize(
    "text", ["a*a*a*a*a*a*a*a*b", r"\w+\s*\w*\d*@", ".*a.*b.*c", "a?" * 30 + "a{30}", "x|a*a*a*b", "(?i)a*A*a*b"]
)
def test_many_repetitions_of_the_same_characters_are_refused(text):
    with pytest.raises(ValueError, match="has several repetitions that can match the same characters"):
        compile_regex(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 90 + "a" + ")?" * 90,
        "(?:" * 90 + "a" + "|b)" * 90,
        "(?:" * 40 + "a" + "c?d){1,2}" * 40,
        r"[\w\s]" * 900,
        "(?:ab.*|cd.*|e.*x)" * 60,
        "(?:" + "|".join(f"w{number}x" for number in range(300)) + ")+",
    ],
)
def test_an_intricate_expression_is_soon_judged(text):
    started = time.monotonic()
    with suppress(ValueError):
        compile_regex(text)
    assert time.monotonic() - started < 5


PARTS = st.sampled_from(["a", "b", "ab", "[ab]", ".", "c", r"\w"])
REPEATS = st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,3}", "{2,}", "{5,20}"])


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        PARTS,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map("".join),
            st.lists(inner, min_size=2, max_size=3).map(lambda some: f"(?:{'|'.join(some)})"),
            st.tuples(inner, REPEATS).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
        ),
        max_leaves=6,
    ),
    st.sampled_from(["$", "x", "c$"]),
)
def test_whatever_is_taken_ends(text, end):
    try:
        pattern = compile_regex(text + end)
    except ValueError:
        return
    started = time.monotonic()
    for unit in ("a", "ab", "aab", "abc"):
        pattern.search((unit * 200)[:199] + "!")
    assert time.monotonic() - started < 5


def test_a_refused_expression_would_have_taken_for_ever_and_an_accepted_one_is_quick():
    condition = compile_condition({"field": "f", "matches": r"(\w|\d)+@x"})
    started = time.monotonic()
    from mautic_sync.domain.contact import Signals

    condition.holds(Signals({"f": "a" * 5_000}), 0)
    assert time.monotonic() - started < 5


def test_the_nearest_word_is_found_whatever_its_letter_case():
    assert nearest("Page.Hit", ["page.hit", "email.read"]) == "page.hit"
    assert nearest("xyz", ["page.hit"]) is None


GOOD = [
    {"field": "a", "is": 1},
    {"field": "a", "not_in": ["x", 2, True]},
    {"field": "a", "empty": True, "optional": True},
    {"field": "a", "between": [1, 2]},
    {"field": "a", "after": "-30d"},
    {"tag": ["a", "b"]},
    {"segment": "x", "optional": True},
    {"campaign": "x"},
    {"activity": "page.hit", "where": {"url": ["a", "b"], "utm_source": "x"}, "within": "30d", "at_least": 2},
    {"verdict": ["accepted", "catch-all"]},
    {"idle": "30d", "optional": True},
    {"score": "fit", "gte": 7},
    {"stage": "Partner"},
    {"kind": "lead"},
    {"dnc": "email", "is": "bounced"},
    {"age": "30d"},
    {"idle": None, "lt": "2w"},
    {"all": [{"any": [{"not": {"tag": "x"}}]}]},
]
BAD = [
    {},
    {"field": "a"},
    {"field": "a", "is": 1, "gt": 2},
    {"field": "a", "gtt": 1},
    {"tag": []},
    {"tag": "a", "segment": "b"},
    {"all": []},
    {"any": [{"tag": "a"}], "tag": "b"},
    {"activity": "page.hit", "within": 30},
    {"activity": "page.hit", "where": {"uri": "x"}},
    {"activity": "page.hit", "at_least": -1},
    {"kind": "leed"},
    {"field": "a", "empty": "yes"},
    {"idle": "soon"},
]


def schema():
    return {"$ref": "#/$defs/Condition", "$defs": {"Condition": condition_schema()}}


@pytest.mark.parametrize("spec", GOOD)
def test_the_schema_accepts_what_the_reader_accepts(spec):
    assert not said(spec)
    jsonschema.validate(spec, schema())


@pytest.mark.parametrize("spec", BAD)
def test_the_schema_refuses_what_the_reader_refuses(spec):
    assert said(spec)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spec, schema())


def test_what_people_call_activities_is_said_of_types_that_there_are():
    assert set(CALLED.values()) <= set(ACTIVITY_TYPES)
    assert not set(CALLED) & set(ACTIVITY_TYPES)
