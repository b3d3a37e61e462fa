"""What brought somebody, told the same in whatever order Mautic tells of it."""

from __future__ import annotations

from itertools import permutations

import pytest

from mautic_sync.domain.activity import Activity
from mautic_sync.domain.journey import Journey

SITE = "https://shop.example"


def visit(at: int, page: str, **told: str) -> Activity:
    return Activity("page.hit", at, {"url": f"{SITE}/{page}", **told})


def journey(*seen: Activity, **until: int) -> dict[str, str]:
    found = Journey(until)
    for order, one in enumerate(seen):
        found.see(one, order)
    return found.told()


def test_the_first_and_the_last_page_are_told_with_where_they_came_from():
    told = journey(visit(10, "a", referer="https://search.example/"), visit(30, "c"), visit(20, "b"))
    assert (told["first.page"], told["first.referer"]) == (f"{SITE}/a", "https://search.example/")
    assert (told["first.at"], told["last.at"]) == ("1970-01-01 00:00:10", "1970-01-01 00:00:30")
    assert told["last.page"] == f"{SITE}/c"


def test_before_is_up_to_and_with_the_second_in_which_it_happened():
    seen = [visit(at, f"p{at}", utm_campaign=f"c{at}") for at in (10, 20, 30)]
    told = journey(*seen, before_lead=20, before_customer=29)
    assert (told["before_lead.page"], told["before_lead.campaign"]) == (f"{SITE}/p20", "c20")
    assert told["before_customer.page"] == f"{SITE}/p20"
    assert journey(*seen, before_lead=9)["before_lead.page"] == ""


def test_who_became_nothing_has_nothing_before_it():
    told = journey(visit(10, "a", utm_campaign="c"))
    assert told["before_lead.page"] == told["before_customer.campaign"] == told["before_lead.at"] == ""


def test_a_journey_of_nothing_tells_nothing():
    assert set(journey().values()) == {""}


def test_an_address_is_told_without_its_query():
    assert journey(visit(1, "pricing?utm_campaign=x#top"))["first.page"] == f"{SITE}/pricing"
    assert journey(Activity("page.hit", 1, {"page": "Landing"}))["first.page"] == "Landing"


@pytest.mark.parametrize(
    ("seen", "first", "last"),
    [
        ([visit(1, "a"), visit(2, "b", utm_campaign="ads"), visit(3, "c", utm_campaign="news")], "ads", "news"),
        ([Activity("email.click", 1, {"email": "Mail 1"}), Activity("campaign.added", 2, {"campaign": "On"})], "Mail 1", "On"),
        ([Activity("campaign.added", 1, {"campaign": "On"}), visit(2, "b", utm_campaign="ads")], "ads", "ads"),
        ([Activity("email.click", 1, {"email": "Mail 1", "utm_campaign": "ads"})], "ads", "ads"),
        ([Activity("page.hit", 1, {"page": "P"})], "", ""),
    ],
)  # fmt: skip
def test_a_campaign_in_an_address_says_more_than_one_in_mautic(seen, first, last):
    for order in permutations(seen):
        told = journey(*order)
        assert (told["first.campaign"], told["last.campaign"]) == (first, last)


@pytest.mark.parametrize(
    ("seen", "first", "last"),
    [
        ([visit(1, "a", utm_source="news"), visit(2, "b", utm_source="ads")], "news", "ads"),
        ([visit(1, "a", referer="https://www.Search.example:8443/?q=x"), visit(2, "b", utm_source="ads")], "www.search.example", "ads"),
        ([visit(1, "a", referer="https://search.example/", utm_source="news")], "news", "news"),
        ([visit(1, "a"), visit(2, "b", referer="https://search.example/")], "search.example", "search.example"),
        ([visit(1, "a", utm_source="news"), visit(2, "b", referer=f"{SITE}/a"), visit(3, "c", referer="https://www.shop.example/b")], "news", "news"),
        ([visit(1, "a", referer="search.example"), visit(2, "b", referer="https://[broken")], "", ""),
        ([Activity("email.click", 1, {"email": "Mail 1", "utm_source": "mail"}), visit(2, "b")], "mail", "mail"),
        ([Activity("form.submitted", 1, {"form": "F", "referer": "https://search.example/"})], "", ""),
    ],
)  # fmt: skip
def test_the_source_is_that_of_the_first_and_the_last_visit_that_has_one(seen, first, last):
    for order in permutations(seen):
        told = journey(*order)
        assert (told["first.source"], told["last.source"]) == (first, last)


def test_the_source_before_is_told_and_its_visit_is_known_to_be_needed():
    found = Journey({"before_lead": 20})
    for order, one in enumerate(
        [
            visit(5, "a"),
            visit(10, "b", utm_source="news"),
            visit(20, "c"),
            visit(30, "d", utm_source="ads"),
            visit(40, "e"),
        ]
    ):
        found.see(one, order)
    assert found.told()["before_lead.source"] == "news"
    assert found.rows == {0, 1, 2, 3, 4}


def test_in_one_second_the_order_of_mautic_decides():
    told = journey(visit(1, "a"), visit(1, "b"))
    assert (told["first.page"], told["last.page"]) == (f"{SITE}/a", f"{SITE}/b")
