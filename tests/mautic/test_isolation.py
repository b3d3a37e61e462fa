"""One contact on which Mautic itself fails (a page of HTML, a 500) costs nobody else their turn."""

from __future__ import annotations

import pytest

from mautic_sync.errors import RefusedError, UnreadableError
from mautic_sync.mautic.contacts import contacts_by_id, sweep

EVERYBODY = range(1, 201)


class Failing:
    """A Mautic that fails whenever one of `poison` is among the rows; counts its calls."""

    def __init__(self, poison, error) -> None:
        self.poison, self.error, self.calls = set(poison), error, 0

    def read(self, path, params):
        assert path == "contacts"
        self.calls += 1
        asked = dict(params)
        if asked.get("orderByDir") == "desc":
            return {"total": str(len(EVERYBODY)), "contacts": {"200": {"id": "200"}}}
        values = {
            (asked[f"where[{n}][expr]"]): asked[f"where[{n}][val]"] for n in (0, 1) if f"where[{n}][expr]" in asked
        }
        if "in" in values:
            wanted = [int(number) for number in values["in"].split(",")]
        else:
            wanted = [number for number in EVERYBODY if values["gt"] < number <= values["lte"]]
        wanted = [number for number in wanted if number in EVERYBODY][: asked["limit"]]
        if self.poison & set(wanted):
            raise self.error
        rows = {str(number): {"id": number, "fields": {"all": {"firstname": f"P{number}"}}} for number in wanted}
        return {"total": str(len(EVERYBODY)), "contacts": rows}


HTML = UnreadableError("a page came back instead of JSON")
CRASH = RefusedError("Mautic answered 500", status=500)


@pytest.mark.parametrize("error", [HTML, CRASH])
@pytest.mark.parametrize("page_size", [7, 50, 150, 500])
@pytest.mark.parametrize("poison", [1, 99, 200])
def test_everybody_else_is_read_and_the_one_is_named(error, page_size, poison):
    mautic = Failing([poison], error)
    pages = list(sweep(mautic, 0, None, page_size, 1, ()))
    assert [one.id for page in pages for one in page.contacts] == [n for n in EVERYBODY if n != poison]
    assert [one.id for page in pages for one in page.malformed] == [poison]
    assert pages[-1].last_id == 200


def test_a_few_calls_more_find_it():
    mautic = Failing([99], HTML)
    list(sweep(mautic, 0, None, 500, 1, ()))
    assert mautic.calls <= 2 + 2 * 8


def test_a_mautic_that_fails_on_everything_is_told_at_once():
    mautic = Failing(EVERYBODY, HTML)
    with pytest.raises(UnreadableError):
        list(sweep(mautic, 0, None, 500, 1, ()))
    assert mautic.calls <= 4


def test_a_refusal_for_another_reason_is_not_searched():
    mautic = Failing(EVERYBODY, RefusedError("Mautic answered 400", status=400))
    with pytest.raises(RefusedError):
        list(sweep(mautic, 0, None, 500, 1, ()))
    assert mautic.calls <= 2


def test_contacts_by_number_go_round_it_too():
    page = contacts_by_id(Failing([5], HTML), [3, 4, 5, 6, 300])
    assert [one.id for one in page.contacts] == [3, 4, 6]
    assert [one.id for one in page.malformed] == [5]
