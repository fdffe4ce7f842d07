"""The versions of `state.db` after the first: what each one adds.

To add a table or a column: the next number and its statements here, and nothing of an earlier version is changed. A
table with a column `consumer` also belongs into `OWNED` of inspect_sql.py and the lists of consumer_sql.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.adapters.sqlite import alert_sql

_RUNS = """
CREATE TABLE run (
    consumer INTEGER NOT NULL, hour INTEGER NOT NULL, name TEXT NOT NULL, events INTEGER NOT NULL,
    PRIMARY KEY (consumer, hour, name)
) WITHOUT ROWID;
CREATE TABLE run_fate (
    consumer INTEGER NOT NULL, hour INTEGER NOT NULL, audience TEXT NOT NULL, fate TEXT NOT NULL,
    events INTEGER NOT NULL, PRIMARY KEY (consumer, hour, audience, fate)
) WITHOUT ROWID;
INSERT INTO run SELECT consumer, -1, name, events FROM count
"""

_CONSENTS = "ALTER TABLE ledger ADD COLUMN consents BLOB NOT NULL DEFAULT x''"  # what was said last, see `LedgerEntry`

_PARTS = """
CREATE TABLE part (
    id INTEGER PRIMARY KEY AUTOINCREMENT, consumer INTEGER NOT NULL, rank INTEGER NOT NULL, width INTEGER NOT NULL,
    keys INTEGER NOT NULL, live INTEGER NOT NULL, filter BLOB NOT NULL
);
CREATE TABLE block (id INTEGER PRIMARY KEY, packed BLOB NOT NULL);
CREATE TABLE folded (through INTEGER NOT NULL);
INSERT INTO folded SELECT coalesce(
    (SELECT min(id) FROM verdicts WHERE folded = 0), (SELECT max(id) FROM verdicts) + 1, 1
) - 1
"""  # the ledger in parts (`folding.take_over` empties the table `ledger` into them), and how far verdicts are in it

UPGRADES: Mapping[int, str] = {2: _RUNS, 3: _CONSENTS, 4: alert_sql.TABLE, 5: _PARTS}
