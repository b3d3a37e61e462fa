"""Countries under all the names they go by: ISO codes, Mautic's English names and what other services write."""

from __future__ import annotations

import gettext
import unicodedata
from functools import cache, lru_cache
from typing import Any

import pycountry

# Where Mautic's list of countries does not use a name that ISO 3166 knows. `_ALSO` are older or rival spellings.
_MAUTIC = {
    "BN": "Brunei",
    "BQ": "Bonaire, Saint Eustatius and Saba",
    "CD": "Democratic Republic of the Congo",
    "CG": "Republic of the Congo",
    "CV": "Cape Verde",
    "CZ": "Czech Republic",
    "FK": "Falkland Islands",
    "FM": "Micronesia",
    "GW": "Guinea Bissau",
    "KP": "North Korea",
    "KR": "South Korea",
    "LA": "Laos",
    "MF": "Saint Martin",
    "MK": "Macedonia",
    "PS": "Palestine",
    "RU": "Russia",
    "SY": "Syria",
    "SZ": "Swaziland",
    "TL": "East Timor",
    "TR": "Turkey",
    "VA": "Holy See",
    "VG": "Virgin Islands (British)",
    "VI": "Virgin Islands (U.S.)",
}
_ALSO = {
    "BQ": ("Caribbean Netherlands",),
    "CD": ("Congo-Kinshasa", "DR Congo", "DRC"),
    "CG": ("Congo", "Congo-Brazzaville"),
    "CI": ("Ivory Coast", "Cote d'Ivoire"),
    "CW": ("Curacao",),
    "GB": ("UK", "Great Britain"),
    "MM": ("Burma",),
    "MO": ("Macau",),
    "NL": ("The Netherlands", "Holland"),
    "PF": ("Tahiti",),
    "US": ("United States of America", "U.S.", "U.S.A."),
    "VA": ("Vatican", "Vatican City"),
}
_LANGUAGES = (
    *("ar", "bg", "cs", "da", "de", "el", "es", "fi", "fr", "he", "hr", "hu", "it", "ja", "ko"),
    *("nb", "nl", "pl", "pt", "pt_BR", "ro", "ru", "sk", "sl", "sv", "tr", "uk", "zh_CN"),
)


@lru_cache(maxsize=65_536)
def _fold_marks(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char)).casefold()


def fold(text: str) -> str:
    """Text as MySQL's `utf8mb4_unicode_ci` compares it: without letter case and without accents."""
    return text.lower() if text.isascii() else _fold_marks(text)


@cache
def _codes() -> dict[str, str]:
    known: dict[str, str] = {}
    for country in pycountry.countries:
        code = country.alpha_2
        names = [code, country.alpha_3, country.name]
        names += [name for key in ("common_name", "official_name") if (name := getattr(country, key, None))]
        names += [*_ALSO.get(code, ()), *((_MAUTIC[code],) if code in _MAUTIC else ())]
        for name in names:
            known[fold(name)] = code
    return known


def country_key(text: str) -> str:
    """The same key for every spelling of a country: its ISO code, or the folded text of one nobody knows."""
    folded = fold(text.strip())
    return _codes().get(folded, folded)


def mautic_country(text: str) -> str | None:
    """How Mautic's list of countries spells the country that `text` names or codes; None when nobody knows it."""
    code = _codes().get(fold(text.strip()))
    return None if code is None else _mautic_name(code)


def translated_country(text: str) -> str | None:
    """The same for a name in another language, like `Deutschland`, which Mautic does not know."""
    codes = _translated().get(fold(text.strip()), set())
    return _mautic_name(next(iter(codes))) if len(codes) == 1 else None


def mautic_countries() -> tuple[str, ...]:
    """All countries as Mautic spells them."""
    return tuple(_mautic_name(country.alpha_2) for country in pycountry.countries)


@cache
def _translated() -> dict[str, set[str]]:
    known: dict[str, set[str]] = {}
    for language in _LANGUAGES:
        spoken = gettext.translation("iso3166-1", pycountry.LOCALES_DIR, [language], fallback=True)
        for country in pycountry.countries:
            for key in ("common_name", "name"):
                name = getattr(country, key, None)
                if name:
                    known.setdefault(fold(spoken.gettext(name)), set()).add(country.alpha_2)
    return known


def _mautic_name(code: str) -> str:
    if code in _MAUTIC:
        return _MAUTIC[code]
    country: Any = pycountry.countries.get(alpha_2=code)
    return str(getattr(country, "common_name", None) or country.name)


def is_country_code(text: str) -> bool:
    """Whether the text has the form of an ISO 3166 code (`DE`, `DEU`)."""
    return len(text) in {2, 3} and text.isascii() and text.isalpha()
