"""What the demo holds the sandbox against: every state that the store can have come to, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from engine import Config
from engine.cli.demo_fold import expected_of
from engine.profiles.identity import key_of_address

LEA = "lea@example.com"
CONFIG = Config.from_dict({"account": [{"name": "demo"}], "destination": [{"name": "demo"}]})


def states(folder: Path, *records: dict[str, Any]) -> list[dict[str, Any]]:
    file = folder / "people.ndjson"
    file.write_bytes(b"\n".join(map(msgspec.json.encode, records)))
    return expected_of(file, CONFIG).states[LEA]


def test_one_event_has_one_state(tmp_path: Path) -> None:
    assert states(tmp_path, {"email": LEA, "city": "Lille"}) == [{"city": "Lille"}]


def test_fields_add_up_however_they_were_sent(tmp_path: Path) -> None:
    records = [{"email": LEA, "city": it, "zip": str(it == "Oslo")} for it in ("Lille", "Oslo", "Paris")]
    assert states(tmp_path, *records) == [{"city": "Paris", "zip": "False"}]


def test_a_state_that_was_sent_before_the_country_changed_stays(tmp_path: Path) -> None:
    """Sent together it is dropped: it is none of the new country."""
    before = {"email": LEA, "countryid": "CA", "state": "BC"}
    found = states(tmp_path, before, {"email": LEA, "countryid": "FR"})
    assert sorted(found, key=len) == [{"countryid": "FR"}, {"countryid": "FR", "state": "BC"}]


def test_a_record_that_knew_a_hash_only_counts_beside_a_plain_address(tmp_path: Path) -> None:
    hashed = {"email_lc_sha256": key_of_address(LEA).hex(), "city": "Oslo"}
    found = states(tmp_path, {"email": LEA, "city": "Lille"}, hashed)
    assert sorted(found, key=str) == [{"city": "Lille"}, {"city": "Oslo"}]
