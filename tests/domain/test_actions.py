"""What a change of stage sets off: what is left, and what is entered."""

from __future__ import annotations

import pytest

from mautic_sync.domain.actions import moved, stands


@pytest.mark.parametrize(
    ("before", "after", "occasions"),
    [
        ((None, None), ("Lead", "lead"), ["stage:Lead", "kind:lead"]),
        (("Ghost", "ghost"), ("Lead", "lead"), ["-stage:Ghost", "-kind:ghost", "stage:Lead", "kind:lead"]),
        (("Lead", "lead"), ("MQL", "lead"), ["-stage:Lead", "stage:MQL"]),
        (("Lead", "lead"), ("Lead", "lead"), ["stage:Lead"]),
        (("Foreign", None), ("Lead", "lead"), ["-stage:Foreign", "stage:Lead", "kind:lead"]),
        ((None, "ghost"), ("Lead", "lead"), ["-kind:ghost", "stage:Lead", "kind:lead"]),
    ],
)
def test_a_kind_is_left_and_entered_only_for_another_one(before, after, occasions):
    assert list(moved(*before, *after)) == occasions


@pytest.mark.parametrize(
    ("occasion", "still"),
    [
        ("stage:Lead", True),
        ("stage:Customer", False),
        ("-stage:Lead", False),
        ("-stage:Ghost", True),
        ("kind:lead", True),
        ("-kind:lead", False),
        ("hot", True),
        ("cold", False),
        ("low_value", False),
        ("not_low_value", True),
        ("when:Looks at prices", True),
        ("when:White glove", False),
    ],
)
def test_what_is_no_longer_so_does_not_stand(occasion, still):
    flags = {"hot", "when:Looks at prices"}
    assert stands(occasion, stage="Lead", kind="lead", flags=flags) is still
