"""The OpenAPI 3.1 document, made of the operations and the shapes below."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from engine.adapters.http_ingress import MEDIA_TYPES, TYPES
from engine.config import Scope
from engine.core.exports import FORMATS
from engine.core.runs import COMPLETED, PROCESSING
from engine.service.asking import IDS_MAX, KINDS, LETTERS_AT_ONCE, LETTERS_AT_ONCE_MAX, STATES, WAIT_MAX
from engine.service.operations import ADMIN, FILTER, INGRESS, Operation
from engine.service.past import OUTCOMES, RUN_FORMATS

Json = dict[str, Any]
SCOPES: tuple[str, ...] = get_args(Scope)


def _object(required: Mapping[str, Json] | None = None, **optional: Json) -> Json:
    needed = dict(required or {})
    shape: Json = {"type": "object", "properties": {**needed, **optional}}
    return shape | ({"required": [*needed]} if needed else {})


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


TEXT: Json = {"type": "string"}
WHOLE: Json = {"type": "integer"}
NUMBER: Json = {"type": "number"}
FLAG: Json = {"type": "boolean"}
ANY: Json = {"type": "object", "additionalProperties": True}
COUNTS: Json = {"type": "object", "additionalProperties": WHOLE}
BY_DESTINATION: Json = {"type": ["object", "null"], "additionalProperties": COUNTS}
KEY: Json = {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}
TIME: Json = {"description": "Epoch seconds or ISO 8601", "type": ["number", "string"]}
PROBLEM_TYPE: Json = {"type": "string", "examples": [*TYPES]}
STATE: Json = {"type": "string", "enum": ["pending", "settled"]}
DESTINATION: Json = _object({"name": TEXT, "state": {"enum": ["active", "paused", "open"]}, "counts": COUNTS})
ALERT: Json = _object(
    {"alert": TEXT, "when": TEXT, "destination": TEXT, "state": {"enum": ["ok", "pending", "raised", "resolved"]}},
    **{"since": {"type": ["number", "null"]}, "figure": NUMBER, "threshold": NUMBER, "unit": TEXT, "summary": TEXT},
    **{"advice": TEXT, "page": TEXT, "told_at": {"type": ["number", "null"]}, "to": _list(TEXT), "built_in": FLAG},
)
LETTER: Json = _object(
    {"id": WHOLE, "destination": TEXT, "key": KEY, "kind": {"enum": [*KINDS]}, "reason": TEXT},
    **{"excerpt": TEXT, "attempts": WHOLE, "events": WHOLE, "first_tried_at": NUMBER, "at": NUMBER, "state": TEXT},
    content=ANY,
)
RUN: Json = _object(
    {"id": TEXT},
    **{"destination": TEXT, "audience": {"type": ["string", "null"]}, "status": {"enum": [PROCESSING, COMPLETED]}},
    **{"started_at": NUMBER, "finished_at": {"type": ["number", "null"]}, "processing_seconds": NUMBER},
    **dict.fromkeys(("profiles_received", "identities_activated", "identities_removed"), WHOLE),
    **dict.fromkeys(("identities_excluded", "identities_failed"), WHOLE),
    **{"activation_rate": {"type": ["number", "null"]}, "excluded": COUNTS, "failed": COUNTS, "outcomes": COUNTS},
    errors=_list(ANY),
    metrics=ANY,
)
CONDITIONS: dict[str, Json] = {
    "destination": TEXT,
    "class": {"type": "string", "enum": [*KINDS]},
    "reason": TEXT,
    "since": TIME,
    "until": TIME,
    "state": {"type": "string", "enum": [*STATES], "default": "kept"},
    "key": KEY,
    "ids": {"description": f"At most {IDS_MAX}; joined with commas in a query", **_list(WHOLE)},
}
SCHEMAS: dict[str, Json] = {
    "Accepted": _object(
        {
            "accepted": WHOLE,
            "rejected": _list(_ref("Rejection")),
            "dropped": _list(_ref("Rejection")),
            "receipt": {"type": ["string", "null"]},
        },
        state=STATE,
        destinations=BY_DESTINATION,
    ),
    "Alert": ALERT,
    "Alerts": _object({"alerts": _list(_ref("Alert")), "targets": _list(ANY)}),
    "Anything": ANY,
    "Audit": _object({"ok": FLAG, "destinations": ANY, "problems": _list(TEXT)}),
    "Backup": _object({"directory": TEXT}),
    "Changes": {"description": "One record, an array of them, or the envelopes of AEP's streaming ingestion"},
    "Destination": DESTINATION,
    "Destinations": _object({"destinations": _list(_ref("Destination"))}),
    "Events": {"description": 'One profile, an array of them, {"profiles": […]}, or what AEP sends'},
    "Filter": _object(None, **CONDITIONS, dry_run=FLAG),
    "Forgotten": _object({"key": KEY, "offset": WHOLE}),
    "Found": _object({"key": KEY, "destinations": ANY}),
    "Letter": LETTER,
    "Letters": _object({"letters": _list(_ref("Letter")), "next": {"type": ["integer", "null"]}, "total": WHOLE}),
    "Lookup": _object({"email": {"type": "string", "format": "email"}}),
    "Notified": _object({"target": TEXT, "ok": FLAG, "result": TEXT, "seconds": NUMBER}),
    "Problem": _object({"type": PROBLEM_TYPE, "title": TEXT, "status": WHOLE, "detail": TEXT}),
    "Purged": _object({"matched": WHOLE, "purged": WHOLE}),
    "Ready": _object({"ready": FLAG}, reasons=_list(TEXT)),
    "Receipt": _object({"id": TEXT, "state": STATE, "destinations": BY_DESTINATION}),
    "Rejection": _object({"index": WHOLE, "field": TEXT, "reason": TEXT}),
    "Replayed": _object({"matched": WHOLE, "replayed": WHOLE}),
    "Run": RUN,
    "Runs": _object({"runs": _list(_ref("Run")), "next": {"type": ["string", "null"]}}),
    "Search": _object(
        {"email": {"type": "string", "format": "email"}},
        **{
            "values": _list(TEXT),
            "offset": WHOLE,
            "wait_seconds": {"type": "number", "minimum": 0, "maximum": WAIT_MAX},
        },
    ),
    "Test": _object(None, store_email={"type": "string", "format": "email"}),
    "Tested": _object({"ok": FLAG, "steps": _list(ANY)}),
    "TestNotification": _object({"target": TEXT}),
    "Text": TEXT,
    "Token": _object({"access_token": TEXT, "token_type": {"const": "Bearer"}, "expires_in": WHOLE, "scope": TEXT}),
    "TokenRequest": _object(
        {"grant_type": {"const": "client_credentials"}}, client_id=TEXT, client_secret=TEXT, scope=TEXT
    ),
    "Traces": _object(
        {"key": KEY, "done": FLAG, "waiting_for": _list(TEXT), "ok": FLAG, "found": {"type": ["integer", "null"]}},
        files=_list(_object({"file": TEXT, "bytes": WHOLE, "found": WHOLE, "rows": WHOLE, "problem": TEXT})),
    ),
}

BODY_KINDS: dict[str, Iterable[str]] = {
    "Events": MEDIA_TYPES,
    "Changes": [kind for kind in MEDIA_TYPES if kind != "text/csv"],
    "TokenRequest": ("application/x-www-form-urlencoded",),
}
"""Media types of the bodies that are not JSON alone."""

NEEDED_BODIES = ("Events", "Changes", "Lookup", "Backup", "TestNotification", "TokenRequest")


MEANING = {202: "Accepted", 207: "Accepted in part", 422: "Every record was rejected", 503: "Not now"}


def _query(name: str, schema: Json, description: str = "") -> Json:
    entry: Json = {"name": name, "in": "query", "required": False, "schema": schema}
    if schema.get("type") == "array":
        entry |= {"style": "form", "explode": False}
    return entry | ({"description": description} if description else {})


PARAMETERS: dict[str, Json] = {
    **{name: _query(name, CONDITIONS[name]) for name in FILTER},
    "source": _query("source", TEXT, "Which [[source]] the events are of; by default the key's, else the first"),
    "lane": _query("lane", {"type": "string", "enum": ["live", "backfill"]}),
    "limit": _query(
        "limit", {"type": "integer", "minimum": 1, "maximum": LETTERS_AT_ONCE_MAX, "default": LETTERS_AT_ONCE}
    ),
    "after": _query("after", {"type": "integer", "minimum": 0, "default": 0}, "The `next` of the page before"),
    "content": _query("content", {"type": "boolean", "default": False}, "Needs the scope profiles:view too"),
    "audience": _query("audience", TEXT, "An audience, or * for every one beside the whole; needs segments:view too"),
    "cursor": _query("cursor", TEXT, "The `next` of the page before"),
    "format": _query("format", {"type": "string", "enum": [*RUN_FORMATS], "default": "runs"}),
    "export_format": _query("format", {"type": "string", "enum": [*FORMATS], "default": "ndjson"}),
    "outcome": _query("outcome", {"type": "string", "enum": [*OUTCOMES]}),
    "dry_run": _query("dry_run", {"type": "boolean", "default": False}, "Only count"),
    "Prefer": {
        "name": "Prefer",
        "in": "header",
        "required": False,
        "schema": {"type": "string", "examples": ["wait=10"]},
        "description": "wait=N: answer when all is settled, or after N seconds (at most 60)",
    },
}


def document(version: str = "0") -> Json:
    """All of it: what the ingress and the admin side answer, whether they share a listener or not."""
    paths: dict[str, Json] = {}
    for operation in (*INGRESS, *ADMIN):
        paths.setdefault(operation.path, {})[operation.method.lower()] = _entry(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "RainFocus engine",
            "version": version,
            "description": "With [admin] configured, everything but events, receipts and probes has its own listener.",
        },
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "parameters": PARAMETERS,
            "responses": {"Problem": _content("Problem", "An error (RFC 9457)", "application/problem+json")},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "client": {
                    "type": "oauth2",
                    "flows": {"clientCredentials": {"tokenUrl": "oauth/token", "scopes": dict.fromkeys(SCOPES, "")}},
                },
            },
        },
    }


def _entry(operation: Operation) -> Json:
    entry: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [
            *({"$ref": f"#/components/parameters/{name}"} for name in operation.parameters),
            *(_in_path(name) for name in re.findall(r"{(\w+)}", operation.path)),
        ],
        "responses": {
            **_good(operation),
            "default": {"$ref": "#/components/responses/Problem"},
        },
        "security": [],
    }
    if operation.scope:
        scopes = [scope for scope in (operation.scope, operation.also) if scope]
        entry["security"] = [{"bearer": []}, {"header": []}, {"client": scopes}, {}]
        named = f"scope{'s' * (len(scopes) > 1)} {' and '.join(scopes)}"
        entry["description"] = f"Needs a key with the {named}; without keys, this machine."
    if operation.body:
        kinds = BODY_KINDS.get(operation.body, ("application/json",))
        entry["requestBody"] = {"content": {kind: {"schema": _ref(operation.body)} for kind in kinds}}
        entry["requestBody"]["required"] = operation.body in NEEDED_BODIES
    return entry


def _good(operation: Operation) -> Json:
    return {
        str(status): _content(name, MEANING.get(status, "Fine"), operation.media_type)
        for status, name in operation.answers.items()
    }


def _content(name: str, description: str, media_type: str) -> Json:
    return {"description": description, "content": {media_type: {"schema": _ref(name)}}}


def _in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": KEY if name == "key" else TEXT}
