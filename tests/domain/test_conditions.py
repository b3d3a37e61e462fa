"""What each subject and operator means."""

from __future__ import annotations

import pytest

from mautic_sync.domain.activity import Activity
from mautic_sync.domain.conditions import ActivityMatcher, compile_condition, moment_of
from mautic_sync.domain.contact import Catalogue, Signals, VerdictSignal

NOW = 1_794_441_600  # 2026-11-12 00:00:00 UTC
DAY = 86_400


def holds(spec, signals=None, *, now=NOW, **known):
    return compile_condition(spec, **known).holds(signals or Signals({}), now)


def of_field(value, **operator):
    return holds({"field": "f", **operator}, Signals({} if value is None else {"f": value}))


@pytest.mark.parametrize(
    ("value", "operator", "expected"),
    [
        ("Berlin", {"is": "berlin"}, True),
        ("Zürich", {"is": "ZURICH"}, True),
        ("Straße", {"is": "strasse"}, True),
        ("Berlin", {"is": "Bern"}, False),
        (None, {"is": "Bern"}, False),
        ("3", {"is": 3}, True),
        ("3.0", {"is": 3}, True),
        (3, {"is": "3"}, True),
        (3.5, {"is": "3.5"}, True),
        ("007", {"is": "7"}, False),
        ("3", {"is": 4}, False),
        (True, {"is": True}, True),
        (True, {"is": "yes"}, True),
        (False, {"is": "no"}, True),
        (False, {"is": True}, False),
        ("1", {"is": True}, True),
        (0, {"is": False}, True),
        (True, {"is": 1}, True),
        ("Berlin", {"is_not": "Bern"}, True),
        ("Berlin", {"is_not": "BERLIN"}, False),
        (None, {"is_not": "Bern"}, True),
        ("b", {"in": ["A", "B"]}, True),
        ("c", {"in": ["A", "B"]}, False),
        (2, {"in": ["1", "2"]}, True),
        ("2", {"in": [1, 2]}, True),
        ("x", {"in": []}, False),
        (None, {"in": []}, False),
        ("c", {"not_in": ["A", "B"]}, True),
        ("b", {"not_in": ["A", "B"]}, False),
        (None, {"not_in": ["A"]}, True),
        ("x", {"not_in": []}, True),
        (None, {"empty": True}, True),
        ("x", {"empty": True}, False),
        (None, {"empty": False}, False),
        (0, {"empty": True}, False),
        ("x", {"not_empty": True}, True),
        (None, {"not_empty": True}, False),
        (None, {"not_empty": False}, True),
        (3, {"gt": 0}, True),
        ("10", {"gt": 9}, True),
        ("10", {"gt": "9"}, True),
        (0, {"gt": 0}, False),
        ("many", {"gt": 0}, False),
        ("nan", {"gte": 0}, False),
        (None, {"lt": 5}, False),
        (5, {"gte": 5}, True),
        (4.9, {"lt": 5}, True),
        (5, {"lte": 5}, True),
        (6, {"lte": 5}, False),
        (1, {"between": [1, 3]}, True),
        (3, {"between": [1, 3]}, True),
        (3.1, {"between": [1, 3]}, False),
        ("Head of Sales", {"like": "sales"}, True),
        ("Head of Sales", {"like": "head*"}, True),
        ("Head of Sales", {"like": "%of%"}, True),
        ("Head of Sales", {"like": "sales*"}, False),
        ("a[b].c", {"like": "a[b].*"}, True),
        ("+49 30 1", {"starts_with": "+49"}, True),
        ("mail@Example.com", {"ends_with": "@example.COM"}, True),
        ("CTO", {"matches": r"(?i)\b(ceo|cto)\b"}, True),
        ("cto", {"matches": r"\bCTO\b"}, False),
        ("x" * 1_000 + "CTO", {"matches": "CTO"}, False),
    ],
)
def test_a_field_is_compared(value, operator, expected):
    assert of_field(value, **operator) is expected


@pytest.mark.parametrize("country", ["Germany", "germany", "DE", "de", "DEU"])
@pytest.mark.parametrize("rule", ["Germany", "DE", "DEU", "GERMANY"])
def test_countries_are_the_same_under_name_and_code(country, rule):
    assert holds({"field": "country", "is": rule}, Signals({"country": country}))
    assert holds({"field": "country", "in": ["FR", rule]}, Signals({"country": country}))
    assert not holds({"field": "country", "not_in": [rule]}, Signals({"country": country}))


def test_a_field_of_type_country_is_compared_like_the_country():
    signals = Signals({"home": "United States"})
    assert holds({"field": "home", "is": "US"}, signals, catalogue=Catalogue(fields={"home": "country"}))
    assert not holds({"field": "home", "is": "US"}, signals, catalogue=Catalogue(fields={"home": "text"}))


def test_one_choice_of_a_multiselect_is_enough():
    signals, known = Signals({"likes": "tea|coffee"}), {"catalogue": Catalogue(fields={"likes": "multiselect"})}
    assert holds({"field": "likes", "is": "coffee"}, signals, **known)
    assert holds({"field": "likes", "in": ["milk", "tea"]}, signals, **known)
    assert not holds({"field": "likes", "not_in": ["milk", "tea"]}, signals, **known)
    assert holds({"field": "likes", "is_not": "milk"}, signals, **known)


@pytest.mark.parametrize(
    ("value", "operator", "expected"),
    [
        ("2026-11-12", {"after": "2026-11-11"}, True),
        ("2026-11-12", {"after": "2026-11-12"}, False),
        ("2026-11-12 23:59:59", {"after": "2026-11-12"}, False),
        ("2026-11-13 00:00:00", {"after": "2026-11-12"}, True),
        ("2026-11-11 23:59:59", {"before": "2026-11-12"}, True),
        ("2026-11-12 00:00:00", {"before": "2026-11-12"}, False),
        ("2026-11-12T10:00:00+00:00", {"after": "2026-11-12 09:59"}, True),
        ("2026-11-12T10:00:00Z", {"before": "2026-11-12 10:00:01"}, True),
        ("2026-11-01", {"after": "-30d"}, True),
        ("2026-10-01", {"after": "-30d"}, False),
        ("2026-10-01", {"before": "-30d"}, True),
        ("2026-11-15", {"before": "+7d"}, True),
        ("2026-11-30", {"before": "+7d"}, False),
        ("2026-11-12 08:00:00", {"between": ["2026-11-12", "2026-11-12"]}, True),
        ("2026-11-13", {"between": ["2026-11-01", "2026-11-12"]}, False),
        ("not a date", {"before": "2026-11-12"}, False),
        ("0000-00-00", {"before": "2026-11-12"}, False),
        (None, {"before": "2026-11-12"}, False),
    ],
)
def test_a_date_is_compared(value, operator, expected):
    assert of_field(value, **operator) is expected


def test_days_are_days_of_the_time_zone():
    late = Signals({"f": "2026-11-11 23:30:00"})  # already the 12th in Berlin
    assert not holds({"field": "f", "before": "2026-11-12"}, late, time_zone="Europe/Berlin")
    assert holds({"field": "f", "before": "2026-11-12"}, late, time_zone="UTC")


def test_a_bare_day_begins_at_midnight_of_the_zone():
    from zoneinfo import ZoneInfo

    assert moment_of("2026-11-12", ZoneInfo("UTC")) == NOW
    assert moment_of("2026-11-12", ZoneInfo("Europe/Berlin")) == NOW - 3_600
    assert moment_of("9999-12-31", ZoneInfo("Europe/Berlin")) is not None


def test_tags_are_compared_exactly_as_mautic_does():
    assert holds({"tag": "vip"}, Signals({}, tags=frozenset({"vip"})))
    assert not holds({"tag": "vip"}, Signals({}, tags=frozenset({"VIP"})))
    assert holds({"tag": ["a", "b"]}, Signals({}, tags=frozenset({"b"})))


@pytest.mark.parametrize("catalogue", [None, Catalogue(segments={4: "Newsletter"}, campaigns={7: "Onboarding"})])
def test_segments_and_campaigns_are_compared_without_letter_case(catalogue):
    signals = Signals({}, segments=frozenset({"Newsletter"}), campaigns=frozenset({"Onboarding"}))
    assert holds({"segment": "newsletter"}, signals, catalogue=catalogue)
    assert holds({"campaign": ["other", "ONBOARDING"]}, signals, catalogue=catalogue)
    assert not holds({"segment": "newsletter"}, Signals({}), catalogue=catalogue)


def evidence(spec, *times):
    (matcher,) = compile_condition(spec).matchers
    return Signals({}, evidence={matcher.key: times})


@pytest.mark.parametrize(
    ("operators", "times", "expected"),
    [
        ({}, (1,), True),
        ({}, (), False),
        ({"at_least": 2}, (1,), False),
        ({"at_least": 2}, (1, 2), True),
        ({"at_most": 1}, (), True),
        ({"at_most": 1}, (1, 2), False),
        ({"at_least": 1, "at_most": 2}, (), False),
        ({"at_least": 1, "at_most": 2}, (1, 2), True),
        ({"within": "7d"}, (NOW - 7 * DAY,), False),
        ({"within": "7d"}, (NOW - 7 * DAY + 1,), True),
        ({"within": "7d", "at_least": 2}, (NOW - 8 * DAY, NOW - DAY), False),
        ({"within": "7d", "at_most": 0}, (NOW - 8 * DAY,), True),
        ({"after": "-7d"}, (NOW - 6 * DAY,), True),
        ({"before": "-7d"}, (NOW - 6 * DAY,), False),
        ({"before": "-7d"}, (NOW - 8 * DAY,), True),
        ({"after": "2026-11-01", "before": "2026-11-05"}, (NOW - 9 * DAY,), True),
        ({"after": "2026-11-01", "before": "2026-11-05"}, (NOW - 2 * DAY,), False),
    ],
)
def test_activity_is_counted(operators, times, expected):
    spec = {"activity": "page.hit", "where": {"url": "*/pricing*"}, **operators}
    assert holds(spec, evidence(spec, *times)) is expected


@pytest.mark.parametrize(
    ("where", "attributes", "expected"),
    [
        ({}, {}, True),
        ({"url": "*/pricing*"}, {"url": "https://example.com/Pricing?x=1"}, True),
        ({"url": "*/pricing"}, {"url": "https://example.com/pricing/more"}, False),
        ({"url": "https://example.com/"}, {"url": "https://EXAMPLE.com/"}, True),
        ({"url": "*?plan=[a]*"}, {"url": "https://example.com/?plan=[a]&b"}, True),
        ({"url": "*a*a*"}, {"url": "xax"}, False),
        ({"url": "aba*ba"}, {"url": "aba"}, False),
        ({"form": "Checkout"}, {"form": "checkout"}, True),
        ({"form": ["Signup", "Contact*"]}, {"form": "Contact us"}, True),
        ({"form": "Checkout"}, {}, False),
        ({"utm_source": "*"}, {"utm_source": ""}, False),
        ({"utm_source": "*"}, {"utm_source": "news"}, True),
        ({"utm_source": "a", "utm_medium": "b"}, {"utm_source": "a", "utm_medium": "c"}, False),
    ],
)
def test_where_decides_which_activity_counts(where, attributes, expected):
    assert ActivityMatcher.of("page.hit", where).matches(Activity("page.hit", 1, attributes)) is expected


def test_another_type_of_activity_never_counts():
    assert not ActivityMatcher.of("page.hit", {}).matches(Activity("form.submitted", 1))


def test_the_key_of_a_matcher_is_stable_and_follows_its_meaning():
    assert ActivityMatcher.of("page.hit", {"url": "*/pricing*"}).key == "89aca96948711bd5"
    assert ActivityMatcher.of("page.hit", {"url": "*/pricing*"}).key == "89aca96948711bd5"
    same = [
        ActivityMatcher.of("page.hit", where).key
        for where in (
            {"url": ["A", "b"], "form": "x"},
            {"form": ["X"], "url": ["B", "a", "a"]},
        )
    ]
    assert same[0] == same[1]
    assert ActivityMatcher.of("page.hit", {}).key != ActivityMatcher.of("video.hit", {}).key
    assert ActivityMatcher.of("page.hit", {"url": "a"}).key != ActivityMatcher.of("page.hit", {"referer": "a"}).key


def test_two_conditions_on_the_same_activity_share_a_matcher():
    spec = {"any": [{"activity": "page.hit", "within": "7d"}, {"activity": "page.hit", "at_least": 3}]}
    assert len(compile_condition(spec).matchers) == 1


ACCEPTED = VerdictSignal("accepted", "valid", "alias_address", at=NOW - DAY, expires_at=NOW + DAY)


@pytest.mark.parametrize(
    ("word", "verdict", "now", "expected"),
    [
        ("accepted", ACCEPTED, NOW, True),
        ("valid", ACCEPTED, NOW, True),
        ("alias_address", ACCEPTED, NOW, True),
        ("Valid", ACCEPTED, NOW, True),
        ("missing", ACCEPTED, NOW, False),
        ("accepted", ACCEPTED, NOW + DAY, False),
        ("valid", ACCEPTED, NOW + DAY, False),
        ("missing", ACCEPTED, NOW + DAY, True),
        (["held", "accepted"], ACCEPTED, NOW, True),
        ("rejected", VerdictSignal("rejected", "spamtrap"), NOW, True),
        ("spamtrap", VerdictSignal("rejected", "spamtrap"), NOW, True),
        ("rejected", VerdictSignal("rejected", "spamtrap", fresh=False), NOW, False),
        ("held", VerdictSignal("held", "unknown", fresh=False), NOW, True),
        ("unknown", VerdictSignal("held", "unknown", expires_at=NOW - 1), NOW, True),
        ("missing", VerdictSignal("missing"), NOW, True),
    ],
)
def test_a_verdict_is_read_by_outcome_and_by_status(word, verdict, now, expected):
    assert holds({"verdict": word}, Signals({}, verdict=verdict), now=now) is expected


def test_do_not_contact_is_read_by_channel_and_reason():
    signals = Signals({}, dnc={"email": 1})
    assert holds({"dnc": "email"}, signals)
    assert not holds({"dnc": "sms"}, signals)
    assert holds({"dnc": "email", "is": "unsubscribed"}, signals)
    assert holds({"dnc": "email", "in": ["bounced", "unsubscribed"]}, signals)
    assert not holds({"dnc": "email", "is": "bounced"}, signals)
    assert holds({"dnc": "email", "is_not": "bounced"}, signals)
    assert not holds({"dnc": "email", "not_in": ["unsubscribed"]}, signals)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"age": "10d"}, True),
        ({"age": "11d"}, False),
        ({"age": None, "lt": "11d"}, True),
        ({"age": None, "lt": "10d"}, False),
        ({"age": None, "lte": "10d"}, True),
        ({"age": None, "gt": "10d"}, False),
        ({"age": None, "gte": "10d"}, True),
        ({"age": None, "between": ["1w", "2w"]}, True),
        ({"age": None, "between": ["11d", "2w"]}, False),
        ({"idle": "2d"}, True),
        ({"idle": "3d"}, False),
        ({"not": {"idle": "3d"}}, True),
    ],
)
def test_time_since_is_compared(spec, expected):
    assert holds(spec, Signals({}, first_seen=NOW - 10 * DAY, last_active=NOW - 2 * DAY)) is expected


def test_idle_counts_from_first_seen_when_nothing_was_ever_done():
    assert holds({"idle": "9d"}, Signals({}, first_seen=NOW - 10 * DAY))
    assert not holds({"idle": "9d"}, Signals({}))
    assert not holds({"age": None, "lt": "9d"}, Signals({}))


def test_stage_and_kind_are_read():
    signals = Signals({}, stage="Partner", kind="lead")
    assert holds({"stage": "partner"}, signals)
    assert holds({"kind": ["lead", "customer"]}, signals)
    assert not holds({"kind": "ghost"}, signals)


@pytest.mark.parametrize("operator", [{"is_not": "x"}, {"empty": True}, {"not_in": ["x"]}, {"gt": 0}, {"is": "x"}])
def test_an_optional_field_that_mautic_lacks_makes_the_condition_false(operator):
    spec = {"field": "orders_count", "optional": True, **operator}
    assert not holds(spec, catalogue=Catalogue())
    assert compile_condition(spec, catalogue=Catalogue()).due_at(Signals({}), NOW) is None


def test_an_optional_form_that_mautic_lacks_makes_the_condition_false():
    spec = {"activity": "form.submitted", "where": {"form": "Checkout"}, "at_most": 5, "optional": True}
    assert not holds(spec, catalogue=Catalogue(forms={1: "Contact"}))
    assert holds(spec, catalogue=Catalogue(forms={1: "checkout"}))


def test_one_of_several_optional_forms_is_enough():
    spec = {"activity": "form.submitted", "where": {"form": ["A", "B"]}, "optional": True}
    assert holds(spec, evidence(spec, 5), catalogue=Catalogue(forms={1: "B"}))


def test_a_field_is_found_in_mautic_whatever_its_letter_case():
    assert holds({"field": "Orders", "gt": 0}, Signals({"orders": 1}), catalogue=Catalogue(fields={"orders": "number"}))


@pytest.mark.parametrize(
    ("spec", "signals", "evidence_text", "reason_text"),
    [
        ({"field": "orders_count", "gt": 0}, Signals({"orders_count": 3}), "orders_count 3", "orders_count over 0"),
        ({"field": "country", "is": "DE"}, Signals({"country": "Germany"}), "country Germany", "country Germany"),
        ({"field": "phone", "not_empty": True}, Signals({"phone": "+4930"}), "phone known", "phone known"),
        ({"verdict": "accepted"}, Signals({}, verdict=ACCEPTED), "e-mail accepted", "e-mail accepted"),
        ({"tag": "vip"}, Signals({}, tags=frozenset({"vip"})), "tag vip", "tag vip"),
        (
            {"any": [{"tag": "vip"}, {"all": [{"verdict": "valid"}, {"field": "f", "is": 1}]}]},
            Signals({"f": 1}, verdict=ACCEPTED),
            "e-mail accepted, f 1",
            "e-mail accepted, f 1",
        ),
        ({"not": {"tag": "vip"}}, Signals({}), "not: tag vip", "not: tag vip"),
        ({"idle": "60d"}, Signals({}, last_active=1), "last active 60d ago or longer", "last active 60d ago or longer"),
    ],
)
def test_the_evidence_is_told_in_a_few_words(spec, signals, evidence_text, reason_text):
    condition = compile_condition(spec)
    assert condition.evidence_text(signals, NOW) == evidence_text
    assert condition.reason_text(signals, NOW) == reason_text


@pytest.mark.parametrize("subject", ["idle", "age"])
@pytest.mark.parametrize(
    ("compared", "told"),
    [
        ({"lt": "30d"}, "less than 30d ago"),
        ({"lte": "30d"}, "at most 30d ago"),
        ({"gt": "30d"}, "more than 30d ago"),
        ({"gte": "30d"}, "30d ago or longer"),
        ({"between": ["5d", "30d"]}, "5d to 30d ago"),
    ],
)
def test_a_distance_in_time_is_told_as_it_is_written(subject, compared, told):
    condition = compile_condition({subject: None, **compared})
    someone = Signals({}, first_seen=NOW - 12 * DAY, last_active=NOW - 12 * DAY)
    word = {"idle": "last active", "age": "first seen"}[subject]
    assert condition.evidence_text(someone, NOW) == f"{word} {told}"
    trace = condition.trace(someone, NOW)
    assert trace.text == f"{word} 12.0 days ago, {'' if trace.holds else 'not '}{told}"


def test_activity_is_told_with_the_day_that_fulfilled_the_rule():
    spec = {"activity": "form.submitted", "where": {"form": "Checkout"}, "at_least": 2}
    condition = compile_condition(spec, time_zone="Europe/Berlin")
    few = evidence(spec, NOW - 40 * DAY, NOW - 3_600)
    assert condition.evidence_text(few, NOW) == "form Checkout (2 times) 12 Nov 2026"
    assert condition.reason_text(few, NOW) == "form Checkout (2 times), 12 Nov 2026"
    more = evidence(spec, NOW - 40 * DAY, NOW - 3_600, NOW, NOW + 5)
    assert condition.reason_text(more, NOW + 9 * DAY) == condition.reason_text(few, NOW)


def test_activity_within_a_window_is_told_without_days_that_move():
    spec = {"activity": "page.hit", "where": {"url": "*/pricing*"}, "within": "7d", "at_least": 3}
    condition = compile_condition(spec)
    told = condition.reason_text(evidence(spec, NOW - 3, NOW - 2, NOW - 1), NOW)
    assert told == "page visit */pricing* within 1w, at least 3"


def test_the_trace_is_a_tree_of_sentences():
    condition = compile_condition({"any": [{"field": "orders_count", "gt": 0}, {"not": {"tag": "vip"}}]})
    assert condition.trace(Signals({"orders_count": 3}, tags=frozenset({"vip"})), NOW).as_dict() == {
        "text": "any",
        "holds": True,
        "children": [
            {"text": "orders_count = 3 > 0", "holds": True},
            {"text": "not", "holds": False, "children": [{"text": "tag vip", "holds": True}]},
        ],
    }


def test_the_deciding_part_leaves_the_others_out():
    condition = compile_condition({"any": [{"tag": "a"}, {"all": [{"tag": "b"}, {"field": "f", "is": "x"}]}]})
    told = condition.deciding(Signals({"f": "X"}, tags=frozenset({"b"})), NOW).as_dict()
    assert [child["text"] for child in told["children"]] == ["tag b", "f = X"]
    assert condition.path(Signals({"f": "X"}, tags=frozenset({"b"})), NOW) == "any[1].all"


def test_time_tells_when_it_will_change_the_answer():
    spec = {"activity": "page.hit", "within": "7d"}
    assert compile_condition(spec).due_at(evidence(spec, NOW - DAY), NOW) == NOW + 6 * DAY
    assert compile_condition(spec).due_at(evidence(spec), NOW) is None
    for ahead in ({"activity": "page.hit"}, {**spec, "at_least": 2}, {"activity": "page.hit", "at_most": 0}):
        assert compile_condition(ahead).due_at(evidence(ahead, NOW - DAY, NOW + 5), NOW) == NOW + 5
    assert compile_condition({"age": "30d"}).due_at(Signals({}, first_seen=NOW), NOW) == NOW + 30 * DAY
    assert compile_condition({"age": "30d"}).due_at(Signals({}, first_seen=NOW - 31 * DAY), NOW) is None
    assert compile_condition({"tag": "x"}).due_at(Signals({}), NOW) is None
    assert compile_condition({"verdict": "valid"}).due_at(Signals({}, verdict=ACCEPTED), NOW) == NOW + DAY
    assert compile_condition({"field": "f", "after": "-1d"}).due_at(Signals({"f": "2026-11-12"}), NOW) == NOW + DAY
    before = compile_condition({"field": "f", "before": "-1d"})
    assert before.due_at(Signals({"f": "2026-11-12"}), NOW) == NOW + DAY + 1
    assert not before.holds(Signals({"f": "2026-11-12"}), NOW + DAY)
    assert before.holds(Signals({"f": "2026-11-12"}), NOW + DAY + 1)


@pytest.mark.parametrize(
    ("spec", "holds"),
    [
        ({"score": "total", "gte": 7}, True),
        ({"score": "total", "gt": 7}, False),
        ({"score": "fit", "lt": -4}, True),
        ({"score": "fit", "lte": -6}, False),
        ({"score": "total", "is": 7}, True),
        ({"score": "total", "is_not": 7}, False),
        ({"score": "total", "between": [7, 9]}, True),
        ({"score": "nobody knows", "is": 0}, True),
    ],
)
def test_points_are_compared(spec, holds):
    assert compile_condition(spec).holds(Signals({}, scores={"total": 7, "fit": -5}), NOW) is holds


def test_points_are_told():
    condition, signals = compile_condition({"score": "total", "gte": 7}), Signals({}, scores={"total": 9})
    assert condition.trace(signals, NOW).text == "score 9 >= 7"
    assert condition.trace(Signals({}), NOW).text == "score 0, not >= 7"
    assert condition.evidence_text(signals, NOW) == "score 9"
    assert condition.reason_text(signals, NOW) == "score at least 7"
    assert compile_condition({"score": "fit", "lt": 2}).reason_text(Signals({}), NOW) == "score fit under 2"
    assert condition.timed is False
