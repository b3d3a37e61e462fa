"""YAML as people mean it."""

from __future__ import annotations

import pytest

from mautic_sync.yaml_text import MOST_NODES, read_yaml


def value(text):
    document = read_yaml(text.encode())
    assert not document.problems, document.problems
    return document.value


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("NO", "NO"), ("no", "no"), ("on", "on"), ("Off", "Off"), ("yes", "yes"), ("y", "y"), ("True", "True"),
        ("true", True), ("false", False), ("null", None), ("~", None), ("", None), ("Null", "Null"),
        ("2026-11-12", "2026-11-12"), ("2026-11-12 08:00:00", "2026-11-12 08:00:00"), ("12:30", "12:30"),
        ("1", 1), ("-1", -1), ("+1", 1), ("0", 0), ("010", "010"), ("1_000", "1_000"), ("0x10", "0x10"),
        ("1.5", 1.5), ("-.5", -0.5), ("1e3", 1000.0), (".inf", float("inf")), ("1.2.3", "1.2.3"),
        ("'1'", "1"), ('"true"', "true"), ("!!str 1", "1"), ("30d", "30d"), ("=", "="), ("9" * 30, float("9" * 30)),
    ],
)  # fmt: skip
def test_a_word_is_what_people_mean_by_it(text, meant):
    found = value(f"key: {text}")["key"]
    assert found == meant
    assert type(found) is type(meant)


def test_keys_are_text():
    assert value("{on: 1, 2: b, true: c}") == {"on": 1, "2": "b", "true": "c"}


def test_every_key_and_item_knows_its_line():
    document = read_yaml(b"# first\na:\n  - b: 1\n    c: 2\n  - {d: 3}\n")
    assert document.line(("a", 0, "c")) == 4
    assert document.line(("a", 1, "d")) == 5
    assert document.line(("a", 1, "missing", "deeper")) == 5
    assert document.line(()) == 2


def test_anchors_and_merge_keys_work():
    assert value("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\ne: *x\n")["d"] == {"b": 1, "c": 3}
    assert value("a: &x {b: 1}\nb: &y {b: 2, c: 3}\nd: {<<: [*x, *y]}\n")["d"] == {"b": 1, "c": 3}


def test_an_empty_file_is_nothing():
    assert value("") is None
    assert value("# only a comment\n") is None


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        (b"a: 1\nb: [1, 2\n", 3, "what is opened in line 2 is not closed"),
        (b"a: 1\n\tb: 2\n", 2, "use spaces, not tabs, to indent (YAML: found character"),
        (b"a: {b: 1,\n\tc: 2}\n", 2, "use spaces, not tabs"),
        (b"a: 1\nb: *nowhere\n", 2, 'what begins with `*` is put in quotes: "*nowhere"'),
        (b"a: {url: */x*, b: 1}\n", 1, 'what begins with `*` is put in quotes: "*/x*"'),
        (b"a: */x*  # all\n", 1, 'is put in quotes: "*/x*" (YAML'),
        (b"a:\n- &/y\n", 2, 'what begins with `&` is put in quotes: "&/y"'),
        (b"a: @you\n", 1, 'what begins with `@` is put in quotes: "@you"'),
        (b"name: Downloads: big\n", 1, "put the value in quotes: it contains a colon"),
        (b"a:\n  - {name: Downloads: big}\n", 2, "the value contains a colon: put the value in quotes"),
        (b"a: {on: page.hit where: {url: x}}\n", 1, "a comma is missing"),
        (b"a:\n  b: 1\n   c: 2\n", 3, "this line is indented otherwise than its neighbours"),
        (b"a:\n  - b: 1\n    c: 2\n   d: 3\n", 4, "this line is indented otherwise than its neighbours"),
        (b'a: "\\d+"\n', 1, "in double quotes YAML reads `\\d` itself; use single quotes, or write `\\\\d` (YAML: "),
        (b"a: {b: {c: 1}}}\n", 1, "a `}` too many stands here, or its opening one is missing (YAML: "),
        (b'a: "x" y\n', 1, "something follows the end of the value: put the value in quotes"),
        (b"a: 1\nb 2\nc: 3\n", 2, "this line lacks `: ` between its key and its value"),
        (b"a: 'x\nb: 1\n", 3, "the quotes that begin in line 1 do not end"),
        ("a: 1\nb:\xa02\nc: 3\n".encode(), 2, "a no-break space stands here"),
        ("a:\n  b: 1\n\xa0 c: 2\n".encode(), 3, "a no-break space stands here"),
        ("a: {b:\xa01, c: 2}\n".encode(), 1, "a no-break space stands here"),
        (b"a: 1\n---\nb: 2\n", 2, "this is not YAML"),
        (b"a: 1\nb: \xff\n", 2, "this is not UTF-8 text"),
        (b"a: \x00\n", 1, "this is not YAML"),
        (b"a: 1\nb: 2\na: 3\n", 3, "`a` stands twice here, first in line 1"),
        (b"a: 1\nb: !secret x\n", 2, "tags like `!secret` mean nothing here"),
        (b"a: !!python/object:os.system x\n", 1, "tags like"),
        (b"a: !!int x\n", 1, "is not what its tag `!!int` says"),
        (b"a: !!bool yes\n", 1, "is not what its tag `!!bool` says"),
        (b"{[a, b]: 1}\n", 1, "a key is a word"),
        (b"a: {<<: [1]}\n", 1, "`<<` takes an alias of a map"),
        (b"a: &x [*x]\n", 1, "an alias stands inside the thing that it repeats"),
        (b"[" * 60 + b"]" * 60, 1, "nests deeper than"),
        (b"[" * 30_000, 1, ""),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text, line, told):
    problem = read_yaml(text).problems[0]
    assert told in problem.text
    assert problem.line == line


def test_a_byte_order_mark_is_no_problem():
    assert read_yaml(b"\xef\xbb\xbfa: 1\n").value == {"a": 1}


def test_aliases_cannot_blow_up_a_file():
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 9):
        text += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    assert f"more than {MOST_NODES} values" in read_yaml(text.encode()).problems[0].text
