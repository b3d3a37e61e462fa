"""Countries under all their names."""

from __future__ import annotations

import pycountry
import pytest

from mautic_sync.domain.countries import country_key, fold, mautic_country


@pytest.mark.parametrize(
    ("code", "spellings"),
    [
        ("US", ["United States", "USA", "us", "United States of America"]),
        ("GB", ["United Kingdom", "GBR", "UK", "Great Britain"]),
        ("RU", ["Russia", "Russian Federation", "RUS"]),
        ("KR", ["South Korea", "Korea, Republic of", "KOR"]),
        ("KP", ["North Korea", "PRK"]),
        ("CZ", ["Czech Republic", "Czechia", "CZE"]),
        ("TR", ["Turkey", "Türkiye", "TUR"]),
        ("MK", ["Macedonia", "North Macedonia"]),
        ("SZ", ["Swaziland", "Eswatini"]),
        ("CV", ["Cape Verde", "Cabo Verde"]),
        ("TL", ["East Timor", "Timor-Leste"]),
        ("CD", ["Democratic Republic of the Congo", "COD"]),
        ("CG", ["Republic of the Congo", "Congo"]),
        ("VG", ["Virgin Islands (British)", "Virgin Islands, British"]),
        ("VI", ["Virgin Islands (U.S.)", "VIR"]),
        ("RE", ["Réunion", "Reunion"]),
        ("CI", ["Côte d'Ivoire", "Ivory Coast"]),
        ("PF", ["French Polynesia", "Tahiti"]),
        ("VA", ["Holy See", "Vatican City"]),
        ("GW", ["Guinea Bissau", "Guinea-Bissau"]),
    ],
)
def test_every_spelling_of_a_country_is_the_same_country(code, spellings):
    assert {country_key(one) for one in [code, *spellings]} == {code}


def test_what_is_no_country_is_compared_as_text():
    assert country_key(" Atlantis ") == "atlantis"
    assert mautic_country("Atlantis") is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("US", "United States"),
        ("GBR", "United Kingdom"),
        ("ru", "Russia"),
        ("VN", "Vietnam"),
        ("BO", "Bolivia"),
        ("DE", "Germany"),
        ("TW", "Taiwan"),
        ("KR", "South Korea"),
    ],
)
def test_countries_are_written_as_mautic_spells_them(text, name):
    assert mautic_country(text) == name


def test_every_iso_country_has_a_key_and_a_name_that_leads_back():
    for country in pycountry.countries:
        assert country_key(country.alpha_2) == country_key(country.alpha_3) == country.alpha_2
        assert country_key(mautic_country(country.alpha_2)) == country.alpha_2


def test_text_is_folded_as_the_database_compares_it():
    assert fold("ÉCOLE Straße") == "ecole strasse"
    assert fold(fold("İzmir")) == fold("İzmir")
