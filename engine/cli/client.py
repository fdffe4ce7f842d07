"""The engine's HTTP API as methods: what the commands ask of a running engine."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp

from engine.cli.person import is_key, key_of_person
from engine.errors import EngineError
from engine.history import OutcomeFilter, RunFilter
from engine.model import LetterState
from engine.ports import LetterFilter

TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=300.0)  # an audit reads the whole backlog


class Unreachable(EngineError):
    """Nothing answers there, or not in HTTP."""


class ApiError(EngineError):
    """The engine refused. `problem` is the body as RFC 9457 has it, as far as there was one."""

    def __init__(self, sentence: str, status: int, problem: dict[str, Any]) -> None:
        super().__init__(sentence)
        self.status = status
        self.problem = problem


class Client:
    """One engine at `url`. `key` goes out as a bearer token; `certificate` is a PEM file to trust instead of the
    system's, for an engine that uses a certificate of its own. Every method raises Unreachable and ApiError."""

    def __init__(self, url: str, key: str = "", *, key_variable: str = "", certificate: str = "") -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._key_variable = key_variable
        self._certificate = certificate

    async def __aenter__(self) -> Self:
        trust = trusting(self._certificate) if self._certificate else True
        connector = aiohttp.TCPConnector(ssl=trust)
        self.session = aiohttp.ClientSession(connector=connector, timeout=TIMEOUT, headers=self._headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    async def call(
        self, method: str, path: str, *, query: dict[str, str] | None = None, body: dict[str, Any] | None = None
    ) -> Any:
        """The decoded JSON answer of one call."""
        url = f"{self.url}{path}"
        try:
            async with self.session.request(method, url, params=query, json=body, allow_redirects=False) as response:
                answer = await _decoded(response)
                if response.status >= 300:
                    raise self._error(response.status, answer)
                return answer
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unreachable(f"{self.url} does not answer as an engine ({trouble(error)})") from error

    def _error(self, status: int, answer: Any) -> ApiError:
        problem = answer if isinstance(answer, dict) else {}
        said = str(problem.get("detail") or problem.get("title") or f"HTTP {status} from {self.url}").rstrip(".")
        hint = ""
        if status in (401, 403) and self._key_variable:
            hint = f"; the key is taken from ${self._key_variable} (--key-env)"
        return ApiError(f"{said}{hint}", status, problem)

    # -- state ----------------------------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        return _mapping(await self.call("GET", "/v1/status"))

    async def metrics(self) -> str:
        """In the text format of Prometheus."""
        try:
            async with self.session.get(f"{self.url}/metrics", allow_redirects=False) as response:
                if response.status >= 300:
                    raise self._error(response.status, await _decoded(response))
                return await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unreachable(f"{self.url} does not answer as an engine ({trouble(error)})") from error

    async def destinations(self) -> list[dict[str, Any]]:
        answer = await self.call("GET", "/v1/destinations")
        return list(answer["destinations"] if isinstance(answer, dict) else answer)

    async def lookup(self, person: str) -> dict[str, Any]:
        """`person`: an address, which travels in the body, or a key of 64 digits."""
        if is_key(person):
            return _mapping(await self.call("GET", f"/v1/profiles/{person.lower()}"))
        return _mapping(await self.call("POST", "/v1/profiles/lookup", body={"email": person}))

    async def audit(self) -> dict[str, Any]:
        return _mapping(await self.call("GET", "/v1/audit"))

    async def alerts(self) -> dict[str, Any]:
        return _mapping(await self.call("GET", "/v1/alerts"))

    # -- orders ---------------------------------------------------------------------------------------------------

    async def test_destination(self, name: str, store_email: str | None) -> dict[str, Any]:
        body = {"store_email": store_email} if store_email else {}
        return _mapping(await self.call("POST", f"{_destination(name)}/test", body=body))

    async def test_notification(self, target: str) -> dict[str, Any]:
        return _mapping(await self.call("POST", "/v1/alerts/test", body={"target": target}))

    async def pause(self, name: str) -> None:
        await self.call("POST", f"{_destination(name)}/pause", body={})

    async def resume(self, name: str) -> None:
        await self.call("POST", f"{_destination(name)}/resume", body={})

    async def forget(self, person: str) -> dict[str, Any]:
        return _mapping(await self.call("DELETE", f"/v1/profiles/{key_of_person(person).hex()}"))

    async def traces(self, email: str, values: Sequence[str], offset: int, wait_seconds: float) -> dict[str, Any]:
        body = {"email": email, "values": list(values), "offset": offset, "wait_seconds": wait_seconds}
        return _mapping(await self.call("POST", "/v1/profiles/traces", body=body))

    async def backup(self, directory: Path) -> dict[str, Any]:
        return _mapping(await self.call("POST", "/v1/backup", body={"directory": str(directory)}))

    # -- dead letters ---------------------------------------------------------------------------------------------

    async def letters(self, which: LetterFilter, limit: int, after: int, with_content: bool) -> dict[str, Any]:
        query = {name: str(value) for name, value in conditions(which).items()}
        query |= {"limit": str(limit), "after": str(after)} | ({"content": "true"} if with_content else {})
        return _mapping(await self.call("GET", "/v1/dead-letters", query=query))

    async def replay(self, which: LetterFilter, dry_run: bool) -> dict[str, Any]:
        body = conditions(which) | {"dry_run": dry_run}
        return _mapping(await self.call("POST", "/v1/dead-letters/replay", body=body))

    async def purge(self, which: LetterFilter, dry_run: bool) -> dict[str, Any]:
        query = {name: str(value) for name, value in conditions(which).items()}
        query |= {"dry_run": "true"} if dry_run else {}
        return _mapping(await self.call("DELETE", "/v1/dead-letters", query=query))

    # -- the past -------------------------------------------------------------------------------------------------

    async def runs(self, which: RunFilter, limit: int, cursor: str) -> dict[str, Any]:
        audience = "*" if which.audience is None else which.audience
        given = {"destination": which.consumer, "audience": audience, "since": which.since, "until": which.until}
        query = _query(given | {"limit": limit, "cursor": cursor})
        return _mapping(await self.call("GET", "/v1/runs", query=query))

    async def export(self, which: OutcomeFilter, format: str) -> AsyncIterator[bytes]:
        given = {"destination": which.consumer, "outcome": which.outcome, "since": which.since, "until": which.until}
        url, query = f"{self.url}/v1/outcomes", _query(given | {"format": format})
        try:
            async with self.session.get(url, params=query, allow_redirects=False) as response:
                if response.status >= 300:
                    raise self._error(response.status, await _decoded(response))
                async for data in response.content.iter_any():
                    yield data
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unreachable(f"{self.url} did not answer to the end ({trouble(error)})") from error


def _query(given: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in given.items() if value not in (None, "")}


def conditions(which: LetterFilter) -> dict[str, Any]:
    """The filter under the names that the API uses; what is not set is left out."""
    ids = ",".join(map(str, which.ids)) if which.ids is not None else None
    given: dict[str, Any] = {"destination": which.consumer, "class": which.kind, "reason": which.reason, "id": ids}
    state = "all" if which.state is None else which.state
    given |= {"since": which.since, "until": which.until, "state": None if state == LetterState.KEPT else state}
    return {name: value for name, value in given.items() if value is not None}


def trusting(certificate: str) -> ssl.SSLContext:
    """Trust exactly this certificate, whatever name it is for: it is the engine's own, read from its configuration."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    return context


def trouble(error: BaseException) -> str:
    """Why a connection failed, in a few words and without the URL."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or type(error.os_error).__name__
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | aiohttp.ClientOSError):
        return "the connection broke"
    if isinstance(error, aiohttp.InvalidURL):
        return "not a URL; write http://HOST:PORT"
    return type(error).__name__


async def _decoded(response: aiohttp.ClientResponse) -> Any:
    import orjson

    data = await response.read()
    try:
        return orjson.loads(data) if data else None
    except orjson.JSONDecodeError:
        if response.status < 300:
            raise Unreachable(
                f"{response.url.origin()} answers, but not as an engine does; name it with --url"
            ) from None
        return None


def _mapping(answer: Any) -> dict[str, Any]:
    return dict(answer) if isinstance(answer, dict) else {}


def _destination(name: str) -> str:
    return f"/v1/destinations/{quote(name, safe='')}"
