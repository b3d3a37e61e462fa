from __future__ import annotations

import contextlib
import json
import math

import pytest
from hypothesis import given, strategies as st

from mautic_sync.mautic.decoding import NotJsonError, decode, escaped, unescaped

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=10,
)


@given(JSON)
def test_anything_that_is_json_is_read_and_can_be_stored_as_utf_8(value):
    """NaN, infinities, surrogates and huge numbers included."""
    decoded, _ = decode(json.dumps(value).encode("utf-8", "surrogatepass"))
    json.dumps(decoded, allow_nan=False, ensure_ascii=False).encode("utf-8")


@given(st.binary(max_size=200))
def test_no_bytes_break_it_in_any_other_way(body):
    """It answers with a value or with NotJsonError."""
    with contextlib.suppress(NotJsonError):
        decode(body)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":NaN,"b":-Infinity,"c":1e999}', {"a": None, "b": None, "c": None}),
        (b'{"a":"caf\xe9"}', {"a": "caf\ufffd"}),
        (b'{"a":"\\ud800x"}', {"a": "\ufffdx"}),
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        (b'{"a":"line\nbreak"}', {"a": "line\nbreak"}),
    ],
)
def test_it_repairs_what_is_nearly_json_and_says_so(body, value):
    assert decode(body) == (value, True)


def test_clean_json_is_not_called_repaired():
    assert decode(b'{"total":"13"}') == ({"total": "13"}, False)


def test_a_megabyte_of_text_and_a_huge_number_are_read():
    text = "x" * 1_000_000
    assert decode(json.dumps({"a": text}).encode())[0] == {"a": text}
    assert math.isfinite(decode(b"123456789012345678901234567890")[0])


@pytest.mark.parametrize("body", [b"", b"<!DOCTYPE html>", b'{"a":', b"[" * 100_000])
def test_what_is_no_json_is_refused(body):
    with pytest.raises(NotJsonError):
        decode(body)


@given(st.text())
def test_what_was_escaped_is_read_back(text):
    """Of text without such entities of its own."""
    plain = unescaped(text)
    assert unescaped(escaped(plain)) == plain


@pytest.mark.parametrize(
    ("stored", "true"),
    [
        ("R&#38;D", "R&D"),
        ("a&#34;b&#39;c &#60;i&#62;", "a\"b'c <i>"),
        ("a&#10;b", "a\nb"),
        ("R&D &copy y &amp; &#8364; Ümlaut", "R&D &copy y &amp; &#8364; Ümlaut"),
    ],
)
def test_only_what_the_filter_writes_is_read_back(stored, true):
    assert unescaped(stored) == true
