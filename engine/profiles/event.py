"""A profile event as a program writes it; mappings with the same names do as well."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class ProfileEvent(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One change of one attendee. What is None stays as it is at RainFocus; there is no way to erase a field (U-10).

    `email` or `email_lc_sha256` (64 hexadecimal digits) says whose. `countryid` is ISO 3166-1 alpha-2, `state` a FIPS
    or Canadian code beside US or CA. `audiences`: {"namespace/id": {"status": "realized" | "exited",
    "lastQualificationTime": ISO 8601}}. `timestamp` counts for sources with order = "timestamp" only.
    `consents`: XDM's object, or flat as {"marketing.email": "n"}; what no destination asks for is not kept. Fields
    that a tenant has defined beside these go in as plain mappings.
    """

    email: str | None = None
    email_lc_sha256: str | None = None
    firstname: str | None = None
    lastname: str | None = None
    companyname: str | None = None
    jobtitle: str | None = None
    phone: str | None = None
    address1: str | None = None
    address2: str | None = None
    city: str | None = None
    state: str | None = None
    zip: str | None = None
    countryid: str | None = None
    audiences: dict[str, dict[str, Any]] | None = None
    timestamp: datetime | float | None = None
    consents: dict[str, Any] | None = None
