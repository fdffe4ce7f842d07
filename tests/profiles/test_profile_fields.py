from __future__ import annotations

import unicodedata

import pycountry
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model import Trait
from engine.profiles import countries
from engine.profiles.fields import (
    MAX_LENGTH,
    TARGET_FIELDS,
    FieldRefused,
    as_text,
    check_field,
    check_state,
    traits_of,
)


def test_the_codes_are_those_of_the_published_lists() -> None:
    subdivisions = pycountry.subdivisions
    us = {it.code[3:] for it in subdivisions.get(country_code="US")}
    assert {it.alpha_2 for it in pycountry.countries} == countries.COUNTRIES
    assert us | {"FM", "MH", "PW"} == countries.US_STATES
    assert {it.code[3:] for it in subdivisions.get(country_code="CA")} == countries.CA_PROVINCES
    assert (len(countries.COUNTRIES), len(countries.US_STATES), len(countries.CA_PROVINCES)) == (249, 60, 13)


def test_there_are_the_twelve_fields_of_the_destination_page() -> None:
    page = "address1 address2 city companyname countryid email firstname lastname jobtitle phone state zip"
    assert sorted(TARGET_FIELDS) == sorted(page.split())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("", ""),
        (" \t\n", ""),
        ("  Lille ", "Lille"),
        ("Le\u0301a", "Léa"),
        ("12 rue\r\n2e étage", "12 rue 2e étage"),
        ("Li\x00lle\x1b\x9f", "Lille"),
        ("\xa0Lille\u3000", "Lille"),
        ("👩\u200d💻", "👩\u200d💻"),
    ],
)
def test_text_is_composed_trimmed_and_free_of_control_characters(value: object, text: str) -> None:
    assert as_text(value) == text


@given(st.text())
def test_clean_text_stays_as_it_is(text: str) -> None:
    clean = as_text(text)
    assert as_text(clean) == clean
    assert unicodedata.is_normalized("NFC", clean)
    assert not any(unicodedata.category(character) == "Cc" for character in clean)


def reason_of(name: str, value: object) -> str:
    with pytest.raises(FieldRefused) as caught:
        check_field(name, value)
    return caught.value.reason


@pytest.mark.parametrize("value", [True, False, 7, 7.0, {}, [], ["Lille"], b"Lille", float("nan")])
def test_what_is_not_text_is_refused(value: object) -> None:
    assert reason_of("city", value) == "not_text"


@pytest.mark.parametrize(("value", "text"), [(59000, "59000"), (59000.0, "59000"), (0, "0"), ("059", "059")])
def test_phone_and_zip_may_come_as_numbers(value: object, text: str) -> None:
    assert check_field("zip", value) == check_field("phone", value) == check_field("badge", value) == text


@pytest.mark.parametrize("value", [True, 1.5, float("nan"), float("inf"), 1e300, 10**300, {}])
def test_a_number_that_nobody_wrote_as_a_zip_is_refused(value: object) -> None:
    assert reason_of("zip", value) == "not_text"


def test_the_length_counts_after_cleaning() -> None:
    assert check_field("city", f"  {'é' * MAX_LENGTH}\x00 ") == "é" * MAX_LENGTH
    assert reason_of("city", "x" * (MAX_LENGTH + 1)) == "too_long"


def test_half_a_surrogate_pair_is_refused() -> None:
    assert reason_of("city", "Li\ud800lle") == "not_unicode"


def test_a_country_is_an_upper_case_iso_code() -> None:
    assert check_field("countryid", " fr ") == "FR"
    assert [reason_of("countryid", it) for it in ("UK", "XK", "USA", "Germany", "ß")] == ["not_iso_3166_1"] * 5


@pytest.mark.parametrize(
    ("state", "country", "kept"),
    [
        ("tx", "US", "TX"),
        ("MH", "US", "MH"),
        ("qc", "CA", "QC"),
        ("tx", "", "TX"),
        ("Hauts-de-France", "FR", "Hauts-de-France"),
        ("", "US", ""),
        (None, None, ""),
    ],
)
def test_a_state_is_a_code_of_its_country(state: object, country: str | None, kept: str) -> None:
    assert check_state(state, country) == kept


@pytest.mark.parametrize(
    ("state", "country", "reason"),
    [
        ("QC", "US", "not_a_state"),
        ("AA", "US", "not_a_state"),
        ("TX", "CA", "not_a_state"),
        ("QC", "", "not_a_state"),
        ("Texas", "US", "not_a_state"),
        ("\ufb02", "US", "not_a_state"),
        ("TX", None, "no_valid_country"),
        (7, "US", "not_text"),
        ("x" * 256, "FR", "too_long"),
    ],
)
def test_a_state_that_is_none_is_refused(state: object, country: str | None, reason: str) -> None:
    with pytest.raises(FieldRefused) as caught:
        check_state(state, country)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("state", "country", "judged"),
    [
        ("TX", "US", False),
        ("TX", "", False),
        ("QC", "", True),
        ("TX", "CA", True),
        ("TX", "FR", True),
        ("", "FR", False),
    ],
)
def test_the_trait_marks_each_state_that_the_mapper_has_to_judge(state: str, country: str, judged: bool) -> None:
    assert traits_of(email=True, state=state, country=country) == Trait.EMAIL | (Trait.FOREIGN_STATE * judged)
    assert traits_of(email=False, state=state, country=country) == Trait.FOREIGN_STATE * judged
