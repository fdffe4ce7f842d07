"""`POST /oauth/token`: OAuth 2 client credentials (RFC 6749, 4.4), as AEP asks for them (domain reference, 2.5).

The one address that takes a form. What a browser sends carries Origin, and is refused whatever it says.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote_plus

import msgspec

from engine.adapters.http_ingress.access import Access, Grant
from engine.adapters.http_ingress.body import Bodies, Inflate
from engine.adapters.http_ingress.denials import Denied
from engine.adapters.http_ingress.problems import Problem, retry_after
from engine.adapters.http_ingress.request import IngressAnswer, IngressRequest
from engine.config import IngressConfig

OPERATION = "issue_token"
FORM = "application/x-www-form-urlencoded"
BODY_BYTES = 8_192
FIELDS_AT_MOST = 32
ONLY_IN_THE_BODY = ("grant_type", "client_id", "client_secret", "scope")
BASIC_CHALLENGE = 'Basic realm="rainfocus-engine", charset="UTF-8"'
HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store", "Pragma": "no-cache"}
REASON = {"invalid_client": "client_secret", "invalid_scope": "client_scope"}
DESCRIPTIONS = {
    "invalid_client": "client id or secret are not right",
    "invalid_scope": "the client does not have every scope that was asked for",
}

logger = logging.getLogger("engine.access")


class _Error(Exception):
    """Of RFC 6749, 5.2. `description` never quotes what was sent."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error, self.description = error, description


class _Presented(msgspec.Struct, frozen=True):
    """What a client says of itself: the secret in each way it may have been meant."""

    client_id: str
    secrets: tuple[str, ...]


class _Granted(msgspec.Struct):
    access_token: str
    token_type: str
    expires_in: int
    scope: str


class _Refusal(msgspec.Struct):
    error: str
    error_description: str


class TokenEndpoint:
    def __init__(self, config: IngressConfig, access: Access, inflate: Inflate) -> None:
        small = msgspec.structs.replace(config, max_body_bytes=BODY_BYTES, max_decompressed_bytes=BODY_BYTES)
        self._access, self._bodies = access, Bodies(small, inflate)

    async def answer(self, request: IngressRequest) -> IngressAnswer:
        """Raises Problem for what is not about OAuth: 403, 408, 413, 415."""
        headers, peer = request.head.headers, request.head.peer
        self._access.require_local(request.head)
        if "origin" in headers:
            raise Denied("from_a_page", "tokens are not for pages: a request with Origin comes from a browser")
        _check_media_type(headers, decoded=request.decoded)
        body = await self._bodies.read(request)
        try:
            form = _form(body, request.query)
            presented = _presented(headers.get("authorization"), form)
            scopes = frozenset(form["scope"].split(" ")) if "scope" in form else None
        except _Error as error:
            self._note(error.error, peer)
            return _refusal(error.error, error.description)
        grant = self._access.keys.grant(presented.client_id, presented.secrets, scopes)
        if not grant.error:
            return _granted(grant)
        self._note(grant.error, peer, grant.client)
        return self._refused(grant)

    def _note(self, error: str, peer: str, client: str = "") -> None:
        if error in REASON:
            self._access.denials.note(REASON[error], OPERATION, peer, caller=client)

    def _refused(self, grant: Grant) -> IngressAnswer:
        if grant.retry_after_seconds == 0:
            return _refusal(grant.error, DESCRIPTIONS[grant.error])
        wait = {"Retry-After": retry_after(grant.retry_after_seconds, self._access.random)}
        return _answer(429, _Refusal(grant.error, "too many wrong secrets; a right one is still taken"), wait)


def _check_media_type(headers: Mapping[str, str], *, decoded: bool) -> None:
    given = headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != FORM:
        raise Problem(
            "unsupported-media-type", f"Content-Type must be {FORM}", supported=[FORM], error="invalid_request"
        )
    if "content-encoding" in headers and not decoded:
        raise Problem("unsupported-encoding", "send the form as it is, not compressed", error="invalid_request")


def _form(body: bytes, query: Mapping[str, str]) -> dict[str, str]:
    """The parameters; one without a value counts as left out (RFC 6749, 3.2), and none may come twice."""
    if any(name in query for name in ONLY_IN_THE_BODY):
        raise _Error("invalid_request", "parameters belong into the body, where no log of a proxy keeps them")
    try:
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=FIELDS_AT_MOST, errors="strict")
    except ValueError:
        raise _Error("invalid_request", "the body is no form in UTF-8") from None
    if len({name for name, _ in pairs}) < len(pairs):
        raise _Error("invalid_request", "a parameter is given twice")
    form = {name: value for name, value in pairs if value}
    if "grant_type" not in form:
        raise _Error("invalid_request", "grant_type is missing; it is client_credentials")
    if form["grant_type"] != "client_credentials":
        raise _Error("unsupported_grant_type", "the only grant_type is client_credentials")
    return form


def _presented(authorization: str | None, form: Mapping[str, str]) -> _Presented:
    """By header or by form, never both (RFC 6749, 2.3). The id alone may stand in the form too."""
    if authorization is None:
        if "client_id" not in form or "client_secret" not in form:
            raise _Error("invalid_client", "client id and secret are missing: as Basic authorization or in the form")
        return _Presented(form["client_id"], (form["client_secret"],))
    presented = _basic(authorization)
    if "client_secret" in form or form.get("client_id", presented.client_id) != presented.client_id:
        raise _Error("invalid_request", "the client authenticates twice: by header and in the form")
    return presented


def _basic(authorization: str) -> _Presented:
    """RFC 6749, 2.3.1 has id and secret form-encoded inside; AEP and many others send them as they are."""
    scheme, _, value = authorization.partition(" ")
    try:
        decoded = base64.b64decode(value.strip(), validate=True).decode("utf-8") if scheme.lower() == "basic" else ""
    except (binascii.Error, ValueError):
        decoded = ""
    client_id, colon, secret = decoded.partition(":")
    if not colon or not client_id:
        raise _Error("invalid_client", "Authorization must be Basic, with client id and secret")
    return _Presented(unquote_plus(client_id) if "%" in client_id else client_id, (secret, unquote_plus(secret)))


def _granted(grant: Grant) -> IngressAnswer:
    scope = " ".join(grant.scopes)
    logger.info("a token was issued", extra={"caller": grant.client, "scope": scope})
    return _answer(200, _Granted(grant.token, "Bearer", grant.seconds, scope))


def _refusal(error: str, description: str) -> IngressAnswer:
    if error == "invalid_client":
        return _answer(401, _Refusal(error, description), {"WWW-Authenticate": BASIC_CHALLENGE})
    return _answer(400, _Refusal(error, description))


def _answer(status: int, body: msgspec.Struct, more: Mapping[str, str] | None = None) -> IngressAnswer:
    return IngressAnswer(status, {**HEADERS, **(more or {})}, msgspec.json.encode(body))
