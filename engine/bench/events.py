"""Made-up profile events. Every address is at bench.invalid: outside the sandbox an engine never sends such a one."""

from __future__ import annotations

import random

import orjson

DOMAIN = "bench.invalid"
TEMPLATES = 64

_FIRST = ("Lea", "Jonas", "Amélie", "Priya", "Chen", "Olivia", "Mateus", "Ingrid", "Noor", "Tomasz", "Aiko", "Samuel")
_LAST = ("Martin", "Okafor", "Lindqvist", "García", "Nakamura", "O'Brien", "Kowalski", "Schneider", "Rossi", "Haddad")
_COMPANIES = ("Northwind Traders", "Contoso Ltd", "Fabrikam Inc", "Tailspin Toys", "Adventure Works Cycles")
_TITLES = ("Senior Product Manager", "Software Engineer", "Director of Marketing", "Data Analyst", "Solution Architect")
_PLACES = (
    ("Denver", "CO", "80202", "US"),
    ("Toronto", "ON", "M5H 2N2", "CA"),
    ("San Francisco", "CA", "94103", "US"),
    ("Montréal", "QC", "H2Y 1C6", "CA"),
    ("Lehi", "UT", "84043", "US"),
)


class Workload:
    """Bodies of requests with `events_per_request` events each, all of different people.

    `run` keeps the people of one run apart from those of another. Event i of request r is of person
    ``r * events_per_request + i``; `person_of` reads that number back from the address. An event has all 12 target
    fields and weighs about 400 bytes. Equal arguments make equal bodies.
    """

    def __init__(self, run: str, events_per_request: int, *, seed: int = 1) -> None:
        self.run, self.events_per_request = run, events_per_request
        rng = random.Random(seed)
        self._records = [orjson.dumps(template(rng, run)) for _ in range(TEMPLATES)]

    def body(self, request: int) -> bytes:
        """One JSON object, or an array of them."""
        first = request * self.events_per_request
        if self.events_per_request == 1:
            return self._record(first)
        return b"[" + b",".join(map(self._record, range(first, first + self.events_per_request))) + b"]"

    def person_of(self, email: str) -> int | None:
        """The number of the person, None for an address of another run."""
        run, _, number = email.partition("@")[0].rpartition("-")
        return int(number) if run == self.run and number.isdigit() else None

    def _record(self, person: int) -> bytes:
        return self._records[person % TEMPLATES] % person


def template(rng: random.Random, run: str) -> dict[str, str]:
    """All fields of an event of `run`; ``%d`` stands where the number of the person goes."""
    city, state, zip_code, country = rng.choice(_PLACES)
    first, last, company = rng.choice(_FIRST), rng.choice(_LAST), rng.choice(_COMPANIES)
    return {
        "email": f"{run}-%d@{DOMAIN}",
        "firstname": first,
        "lastname": last,
        "companyname": company,
        "jobtitle": rng.choice(_TITLES),
        "phone": f"+1 {rng.randrange(200, 999)} 555 {rng.randrange(10_000):04d}",
        "address1": f"{rng.randrange(1, 9999)} {rng.choice(_LAST)} Street",
        "address2": f"Suite {rng.randrange(1, 900)}, {company} building, attention of {first} {last}",
        "city": city,
        "state": state,
        "zip": zip_code,
        "countryid": country,
    }
