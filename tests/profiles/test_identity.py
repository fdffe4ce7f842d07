from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.profiles.identity import key_from_hex, key_of, mask, normalise_email


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("lea@example.com", "lea@example.com"),
        ("  Lea.Martin+Tag@Example.COM\t", "lea.martin+tag@example.com"),
        ("o'neil@a-b.example.org", "o'neil@a-b.example.org"),
        ("lea@xn--bcher-kva.example", "lea@xn--bcher-kva.example"),
        ("Le\u0301a@example.com", "léa@example.com"),
        ("LÉA@BÜCHER.example", "léa@bücher.example"),
        ("x" * 64 + "@example.com", "x" * 64 + "@example.com"),
    ],
)
def test_an_address_is_trimmed_lower_cased_and_composed(text: str, normalised: str) -> None:
    assert normalise_email(text) == normalised


@pytest.mark.parametrize(
    "text",
    [
        *("", "lea", "@example.com", "lea@", "lea@@example.com", "lea@example", "lea@localhost", "a@b@example.com"),
        *(
            ".lea@example.com",
            "lea.@example.com",
            "le..a@example.com",
            "lea@.com",
            "lea@example..com",
            "lea@example.com.",
        ),
        *("le a@example.com", "lea@exam ple.com", "le\na@example.com", "le\x00a@example.com", "lea@example.com\x7f"),
        *('"lea martin"@example.com', "lea@[127.0.0.1]", "lea@127.0.0.1", "lea@-a.example.com", "lea@a-.example.com"),
        *("lea,tom@example.com", "mailto:lea@example.com", "<lea@example.com>", "lea(x)@example.com"),
        *(
            "x" * 65 + "@example.com",
            "lea@" + "a." * 130 + "com",
            "lea@" + "a" * 64 + ".com",
            "é" * 33 + "@example.com",
        ),
        *(
            "le\u200ba@example.com",
            "lea@exam\u3002ple.com",
            "lea\uff20example.com",
            "le\ud800a@example.com",
            "l\xa0a@a.com",
        ),
    ],
)
def test_what_is_not_an_address_is_none(text: str) -> None:
    assert normalise_email(text) is None


@given(st.emails() | st.text(max_size=80) | st.text("aé\u0301İΣ@.Å ", max_size=30).map(lambda text: f"{text}@a.com"))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise_email(text)
    assert once is None or normalise_email(once) == once


def test_a_very_long_text_is_refused_without_looking_at_it() -> None:
    assert normalise_email("a." * 5_000_000 + "@example.com") is None


def test_the_key_is_the_hash_that_adobe_documents() -> None:
    hexadecimal = "a6ea4cde5da5ae7cc68baae894d1d6544fca26254433b0fff7c2cb4843b4a097"
    normalised = normalise_email(" ECID@adobe.com ")
    assert normalised is not None
    assert key_of(normalised).hex() == hexadecimal
    assert key_from_hex(f" {hexadecimal.upper()}\n") == key_of(normalised)
    assert key_of("léa@example.com") == hashlib.sha256("léa@example.com".encode()).digest()


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "zz" * 32, "ab" * 31 + "a\n", "٣" * 64, " ".join("a" * 64)])
def test_a_hash_that_is_not_64_hexadecimal_digits_is_none(text: str) -> None:
    assert key_from_hex(text) is None


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("no such attendee: lea@example.com.", "no such attendee: <email>"),
        ('{"email":"Lea.Martin@example.com","code":"7"}', '{"email":"<email>","code":"7"}'),
        ("two: a@b.c and x@y", "two: <email> and <email>"),
        ("?email=lea%40example.com", "<email>"),
        ("lea\\u0040example.com", "<email>"),
        ("léa@bücher.example", "<email>"),
        ('<a href="mailto:lea@example.com">', '<a href="mailto:<email>">'),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_a_mask_leaves_no_address_in_a_text(text: str, masked: str) -> None:
    assert mask(text) == masked


@given(st.emails(), st.text(max_size=20), st.text(max_size=20))
def test_no_address_survives_the_mask(address: str, before: str, after: str) -> None:
    assert address not in mask(f"{before} {address} {after}")


def test_masking_a_long_text_takes_linear_time() -> None:
    text = "a" * 100_000
    assert mask(text) == text
