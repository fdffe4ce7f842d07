"""The part of `ports.State` that alerts use: beside settling, on the same two connections."""

from __future__ import annotations

from collections.abc import Mapping

from engine.adapters.sqlite import alert_sql
from engine.adapters.sqlite.inline import InlineWorker
from engine.adapters.sqlite.worker import SqliteWorker


class StoredAlerts:
    """See `ports.State`."""

    _reader: SqliteWorker | InlineWorker
    _writer: SqliteWorker | InlineWorker

    async def alerts(self) -> dict[tuple[str, str], bytes]:
        return await self._reader.run(alert_sql.read_alerts)

    async def keep_alerts(self, rows: Mapping[tuple[str, str], bytes | None], /) -> None:
        if rows:
            await self._writer.run(lambda connection: alert_sql.keep_alerts(connection, rows))
