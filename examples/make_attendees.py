"""Writes attendees.csv: invented people at example domains, the same bytes with every run.

    python examples/make_attendees.py [FILE]

It looks like the export of a registration desk: people come back with news of themselves, write their address in
another case, and now and then a row is wrong. What reading it gives is in EXPECTED, and a test checks it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import random
import sys
import unicodedata
from pathlib import Path

SEED = 27
PEOPLE = 2_200
UPDATES = 756
COLUMNS = (
    *("email", "firstname", "lastname", "companyname", "jobtitle", "phone"),
    *("address1", "address2", "city", "state", "zip", "countryid", "email_lc_sha256"),
)
EXPECTED = {
    "records": 3_000,
    "events": 2_984,
    "people": 2_200,
    "hash_only": 10,
    "rejected": {"ragged_row": 2, "not_an_email": 8, "missing": 6},
    "dropped": {"not_iso_3166_1": 8, "not_a_state": 6, "too_long": 4},
}

FIRST_NAMES = (
    *("Léa", "Tom", "Ana", "Jürgen", "Søren", "Chloé", "Marta", "Noah", "Yuki", "Aiko", "Priya", "Omar", "Zoë"),
    *("Liam", "Emma", "Lucía", "Björn", "Ingrid", "Paweł", "Nadia", "Hugo", "Olga", "Mateo", "Grace", "Kofi", "Mei"),
)
LAST_NAMES = (
    *("Martin", "Smith", "García", "Müller", "Jensen", "Dubois", "Kowalska", "Brown", "Tanaka", "Sato", "Patel"),
    *("Haddad", "Novak", "O'Brien", "Johnson", "Fernández", "Lindqvist", "Nilsen", "Wiśniewski", "Rossi", "Bernard"),
    *("Ivanova", "López", "Mensah", "Chen", "Wilson", "Tremblay", "Roy", "Nguyen", "de Vries", "Schmidt"),
)
COMPANIES = (
    *("Atelier Nord", "Blue Harbor Labs", 'Cooperative "Sol"', "Delta, Ltd.", "Everglow", "Fjord & Sons"),
    *("Green Acre Foods", "Hafen Logistik", "Ibis Travel", "Juniper Press", "Kestrel Robotics", "Lumen Studio"),
)
TITLES = ("Buyer", "Engineer", "Account Manager", "CTO", "Chargée de projet", "Data Analyst", "Teacher", "Designer")
STREETS = ("Rue des Arts", "Main Street", "Hauptstraße", "Calle Mayor", "Harbour Road", "Maple Avenue", "Strandvejen")
PLACES = (  # country, states or regions, cities, dialling code
    ("US", ("CA", "TX", "NY", "WA", "PR"), ("Springfield", "Riverton", "Fairview"), "+1555"),
    ("CA", ("QC", "ON", "BC"), ("Sainte-Rive", "Maplewood"), "+1555"),
    ("FR", ("", "Nord", "Bretagne"), ("Lille", "Rennes", "Lyon"), "+3320000"),
    ("DE", ("", "Hessen"), ("Kassel", "Jena"), "+4930000"),
    ("GB", ("", "Kent"), ("Dover", "Bath"), "+44161496"),
    ("ES", ("",), ("Vigo", "Cádiz"), "+3491000"),
    ("DK", ("",), ("Aarhus", "Odense"), "+453200"),
    ("JP", ("", "Hokkaido"), ("Otaru", "Naha"), "+81300"),
)
BAD_EMAILS = ("lea.martin", "@example.com", "tom smith@example.com", "ana@@example.org")
BAD_COUNTRIES = ("UK", "USA", "Germany", "XX")
BAD_STATES = (("US", "Texas"), ("CA", "TX"), ("US", "XY"))

Row = dict[str, str]


def plain(name: str) -> str:
    """The name as it stands in an address: ASCII letters alone."""
    spelled = name.lower().replace("ß", "ss").translate(str.maketrans("øł", "ol"))
    return "".join(letter for letter in unicodedata.normalize("NFD", spelled) if letter.isascii() and letter.isalpha())


def place(random_: random.Random) -> Row:
    country, states, cities, dialling = random_.choice(PLACES)
    return {
        "phone": f"{dialling}{random_.randrange(100_000, 1_000_000)}",
        "address1": f"{random_.randrange(1, 200)} {random_.choice(STREETS)}",
        "city": random_.choice(cities),
        "state": random_.choice(states),
        "zip": f"{random_.randrange(1_000, 100_000):05d}",
        "countryid": country,
    }


def person(random_: random.Random, number: int) -> Row:
    first, last = random_.choice(FIRST_NAMES), random_.choice(LAST_NAMES)
    domain = random_.choice(("example.com", "example.org", "example.net"))
    row = {
        "email": f"{plain(first)}.{plain(last)}{number}@{domain}",
        "firstname": first,
        "lastname": last,
        "companyname": random_.choice(COMPANIES),
        "jobtitle": random_.choice(TITLES),
    }
    row |= place(random_)
    if random_.random() < 0.2:
        row["address2"] = f"Floor {random_.randrange(1, 30)}"
    return row


def respelled(random_: random.Random, email: str) -> str:
    return random_.choice((email, email, email.upper(), email.title(), f" {email} "))


def update(random_: random.Random, known: Row) -> Row:
    """News of somebody: the same row again, a new job, a move, or one field alone."""
    email = {"email": respelled(random_, known["email"])}
    kind = random_.randrange(4)
    if kind == 0:
        return known | email
    if kind == 1:
        return known | email | {"jobtitle": random_.choice(TITLES), "companyname": random_.choice(COMPANIES)}
    if kind == 2:
        return known | email | place(random_)
    return email | {"phone": known["phone"]}


def bad_rows(random_: random.Random, people: list[Row]) -> list[Row]:
    """Rows of which a field or all is refused, and rows that know a hash alone."""
    chosen = iter(random_.sample(people, 32))
    rows = [next(chosen) | {"email": email} for email in BAD_EMAILS * 2]
    rows += [next(chosen) | {"email": ""} for _ in range(6)]
    rows += [next(chosen) | {"countryid": country, "state": ""} for country in BAD_COUNTRIES * 2]
    rows += [next(chosen) | {"countryid": country, "state": state} for country, state in BAD_STATES * 2]
    rows += [next(chosen) | {"companyname": "Very long name " * 20} for _ in range(4)]
    return rows


def hash_rows(random_: random.Random, people: list[Row]) -> list[Row]:
    hashes = [hashlib.sha256(row["email"].encode()).hexdigest() for row in random_.sample(people, 10)]
    return [{"email_lc_sha256": it, "jobtitle": random_.choice(TITLES)} for it in hashes]


def attendees() -> str:
    """The whole file. News of somebody comes after the row that it is news of."""
    random_ = random.Random(SEED)
    people = [person(random_, number) for number in range(PEOPLE)]
    news = [update(random_, known) for known in random_.choices(people, k=UPDATES)]
    rows = [*bad_rows(random_, people), *hash_rows(random_, people), *news]
    random_.shuffle(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(people)
    writer.writerows(rows[: len(rows) // 2])
    text.write("half.a.row@example.com,Half\r\n")
    writer.writerows(rows[len(rows) // 2 :])
    text.write("one.cell.too.many@example.org" + "," * len(COLUMNS) + "\r\n")
    return text.getvalue()


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("attendees.csv")
    target.write_bytes(attendees().encode())
