"""Addresses, the policy, and how long a verdict is good."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given, strategies as st

from mautic_sync.domain.contact import NO_VERDICT
from mautic_sync.domain.grammar import STATUSES, SUB_STATUSES
from mautic_sync.domain.validation import ValidationRules, Verdict, _normalise, normalise_address

DAY = 86_400
RULES = ValidationRules(
    outcomes={"valid": "accepted", "accept_all": "held", "unknown": "held", "invalid": "rejected", "abuse": "rejected"},
    ask_accepted=180 * DAY,
    ask_held=(6 * 3_600, DAY, 3 * DAY),
    ask_rejected=None,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (" Ada@Example.COM ", "ada@example.com"),
        ("first.last+tag@example.com", "first.last+tag@example.com"),
        ("a@sub.shop.example", "a@sub.shop.example"),
        ("a@shop.test", "a@shop.test"),
        ("o'brien@example.com", "o'brien@example.com"),
        ("x_y-z@example.co.uk", "x_y-z@example.co.uk"),
        ("kontakt@münchen.de", "kontakt@xn--mnchen-3ya.de"),
        ("kontakt@xn--mnchen-3ya.de", "kontakt@xn--mnchen-3ya.de"),
        ("KONTAKT@MÜNCHEN.DE", "kontakt@xn--mnchen-3ya.de"),
        ("josé@example.com", "josé@example.com"),
        ("a@1.example", "a@1.example"),
        (f"{'a' * 64}@example.com", f"{'a' * 64}@example.com"),
    ],
)
def test_an_address_has_one_form(text, address):
    assert normalise_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "ada", "ada@", "@example.com", "ada@example", "a b@example.com", "ada@exa mple.com", "ada@@example.com",
        "ada@b@example.com", "Ada <ada@example.com>", '"a b"@example.com', ".ada@example.com", "ada.@example.com",
        "a..b@example.com", "ada@-example.com", "ada@example-.com", "ada@example..com", "ada@example.com.",
        "ada@[127.0.0.1]", "ada@127.0.0.1", "ada@host.local", "ada@x.invalid", f"{'a' * 65}@example.com",
        f"a@{'b' * 64}.com", "ada@example.com\nbcc: x@example.com", "a,b@example.com", "ada@exam_ple.com",
        "mailto:ada@example.com,", f"a@{'.'.join(['b' * 60] * 5)}.com",
    ],
)  # fmt: skip
def test_what_is_no_address(text):
    assert normalise_address(text) is None


LOCAL = st.text(alphabet=string.ascii_letters + string.digits + "._+-'", max_size=12)
LABEL = st.text(alphabet=string.ascii_letters + string.digits + "-é", max_size=8)
ADDRESS = st.builds(
    lambda local, labels, tld: f"{local}@{'.'.join([*labels, tld])}",
    LOCAL,
    st.lists(LABEL, max_size=3),
    st.sampled_from(["com", "example", "test", "local", "c", "x1", "museum"]) | LABEL,
)


@given(ADDRESS | st.text(max_size=30) | st.emails())
@example("İ@example.com")
@example("ﬁ@example.com")
@example("ẞ@example.com")
def test_normalising_twice_is_normalising_once(text):
    once = normalise_address(text)
    assert once is None or normalise_address(once) == once


@given(ADDRESS)
@example("a@bb--cc.com")
@example("a@b.arpa")
def test_the_quick_way_and_the_long_way_agree(text):
    assert normalise_address(text) == _normalise(text.strip())


@given(ADDRESS)
def test_case_and_surrounding_blanks_do_not_make_another_address(text):
    if text.isascii():
        assert normalise_address(f"  {text.upper()} ") == normalise_address(text)


@pytest.mark.parametrize(
    ("status", "sub_status", "outcome", "known"),
    [
        ("valid", "", "accepted", True),
        ("valid", "accept_all", "held", True),
        ("valid", "alias_address", "accepted", True),
        ("invalid", "mailbox_not_found", "rejected", True),
        ("VALID", " Accept_All ", "held", True),
        ("quarantined", "", "held", False),
        ("quarantined", "abuse", "rejected", True),
        ("", "", "held", False),
    ],
)
def test_the_sub_status_decides_before_the_status(status, sub_status, outcome, known):
    assert RULES.policy(status, sub_status) == (outcome, known)


@given(st.sampled_from(STATUSES) | st.text(max_size=20), st.sampled_from(SUB_STATUSES) | st.text(max_size=20))
def test_every_answer_has_an_outcome_and_the_unnamed_are_held(status, sub_status):
    outcome, known = RULES.policy(status, sub_status)
    assert outcome in {"accepted", "held", "rejected"}
    assert known or outcome == "held"


def verdict(status, *, attempts=1):
    return Verdict("a@example.com", status, "", at=1_000, attempts=attempts)


@pytest.mark.parametrize(
    ("status", "attempts", "distance"),
    [
        ("valid", 1, 180 * DAY),
        ("unknown", 0, 21_600),
        ("unknown", 1, 21_600),
        ("unknown", 2, DAY),
        ("unknown", 3, 3 * DAY),
        ("unknown", 9, 3 * DAY),
    ],
)
def test_when_an_address_is_asked_again(status, attempts, distance):
    one = verdict(status, attempts=attempts)
    assert RULES.next_at(one) == 1_000 + distance
    assert RULES.is_fresh(one, 1_000 + distance - 1)
    assert not RULES.is_fresh(one, 1_000 + distance)


def test_a_rejected_address_is_never_asked_again():
    assert RULES.next_at(verdict("invalid")) is None
    assert RULES.is_fresh(verdict("invalid"), 10**12)


def test_the_signal_is_what_rules_read():
    assert RULES.signal(None, 5) is NO_VERDICT
    signal = RULES.signal(Verdict("a@example.com", "Valid", "Gold", at=1_000), 2_000)
    assert (signal.outcome, signal.status, signal.sub_status, signal.fresh) == ("accepted", "valid", "gold", True)
    assert signal.expires_at == 1_000 + 180 * DAY
    assert not RULES.signal(verdict("valid"), 1_000 + 180 * DAY).fresh
