"""The versions of `state.db` after the first: what each one adds.

To add a table: the next number and its statements here, and nothing of an earlier version is changed. A table with a
column `consumer` also belongs into `OWNED` of inspect_sql.py and the lists of consumer_sql.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.adapters.sqlite import alert_sql

UPGRADES: Mapping[int, str] = {2: alert_sql.TABLE}
