from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given, strategies as st

from mautic_sync.errors import MalformedError
from mautic_sync.mautic.php import unserialize

INTEGERS = st.integers(-(2**63), 2**63 - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False) | st.text(),
    lambda children: st.dictionaries(INTEGERS | st.text(), children, max_size=5),
    max_leaves=20,
)


def serialize(value):
    """PHP's `serialize`, for what it makes of plain values."""
    if value is None:
        return "N;"
    if isinstance(value, bool):
        return f"b:{int(value)};"
    if isinstance(value, int):
        return f"i:{value};"
    if isinstance(value, float):
        return f"d:{'-INF' if value == -math.inf else 'INF' if value == math.inf else repr(value)};"
    if isinstance(value, str):
        return f's:{len(value.encode())}:"{value}";'
    return f"a:{len(value)}:{{{''.join(serialize(key) + serialize(item) for key, item in value.items())}}}"


@given(VALUES)
def test_it_reads_back_what_php_would_write(value):
    assert unserialize(serialize(value)) == value


@given(st.text(alphabet='aibdsNOCrR:;{}"0123456789.-é', max_size=60) | st.text())
def test_nothing_else_breaks_it_in_any_other_way(text):
    """It answers with a plain value or with MalformedError."""
    with contextlib.suppress(MalformedError):
        unserialize(text)


@given(VALUES, st.integers(1, 10))
def test_a_value_cut_short_is_refused(value, cut):
    text = serialize(value)
    if cut < len(text):
        with pytest.raises(MalformedError):
            unserialize(text[:-cut])


@pytest.mark.parametrize(
    "text",
    [
        'O:8:"stdClass":0:{}',
        'O:3:"PDO":1:{s:1:"a";i:1;}',
        'C:11:"ArrayObject":0:{}',
        'E:11:"Suit:Hearts";',
        "a:2:{i:0;i:1;i:1;R:2;}",
        'a:1:{i:0;O:7:"Phar\x00\x00\x00":0:{}}',
        "i:1;i:2;",
        "a:1:{d:1.5;i:1;}",
        's:3:"é";x',
        "i:12a;",
        "d:0x10;",
        "b:2;",
        "a:" + "9" * 11 + ":{}",
        "a:1:{i:0;" * 100 + "N;" + "}" * 100,
        "",
    ],
)
def test_objects_references_and_broken_values_are_refused(text):
    with pytest.raises(MalformedError):
        unserialize(text)


def test_a_date_is_read_as_its_parts():
    """Mautic's audit log holds `dateIdentified` as an object."""
    text = (
        'a:2:{i:0;s:0:"";i:1;O:8:"DateTime":3:{s:4:"date";s:26:"2026-11-22 23:26:54.416058";'
        's:13:"timezone_type";i:3;s:8:"timezone";s:3:"UTC";}}'
    )
    assert unserialize(text)[1]["date"] == "2026-11-22 23:26:54.416058"


def test_every_serialised_column_of_the_recordings_is_read(recording):
    columns = ("details", "query", "client_info", "open_details", "browser_languages", "ip_details")
    for exchange in recording:
        answer = exchange["response"]["json"]
        rows = answer.get("stats", []) if isinstance(answer, dict) else []
        for row in rows:
            for column in columns:
                if column in row:
                    unserialize(row[column])
