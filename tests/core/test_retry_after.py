"""How long a destination asks us to be silent."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core import retry_after

NOW = 1_790_000_000.0  # Mon, 21 Sep 2026 14:13:20 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("3601", 3600.0),
        ("9" * 20, 3600.0),
        ("Mon, 21 Sep 2026 14:13:50 GMT", 30.0),
        ("Monday, 21-Sep-26 14:13:50 GMT", 30.0),
        ("Mon Sep 21 14:13:50 2026", 30.0),
        ("Mon, 21 Sep 2026 14:13:50 -0000", 30.0),
        ("Mon, 21 Sep 2026 16:13:50 +0200", 30.0),
        ("Mon, 21 Sep 2026 14:13:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Tue, 21 Sep 2027 14:13:20 GMT", 3600.0),
    ],
)
def test_seconds_and_dates(value: str, seconds: float) -> None:
    assert retry_after.parse(value, NOW) == seconds


@pytest.mark.parametrize(
    "value", ["", "soon", "-5", "+5", "1e3", "nan", "inf", "٣", "9" * 5000, "Mon, 99 Sep 2026 14:13:50 GMT", ",", "1 2"]
)
def test_garbage_says_nothing(value: str) -> None:
    assert retry_after.parse(value, NOW) is None


@given(st.text(max_size=60), st.floats(0, 4e9))
def test_never_negative_never_longer_than_an_hour(value: str, now: float) -> None:
    seconds = retry_after.parse(value, now)
    assert seconds is None or 0.0 <= seconds <= 3600.0


@pytest.mark.parametrize("value", ["Mon Sep 21 14:13:50 2026", "Mon, 21 Sep 2026 14:13:50 -0000"])
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_a_date_without_a_zone_is_greenwich_s_wherever_the_engine_runs(
    value: str, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", zone)
        time.tzset()
        seconds = retry_after.parse(value, NOW)
    time.tzset()
    assert seconds == 30.0
