"""Every address there is, once: who may use it, and what its OpenAPI entry says. The routes are made from it."""

from __future__ import annotations

import msgspec

FILTER = ("destination", "class", "reason", "since", "until", "state", "key", "ids")
RUN_CONDITIONS = ("destination", "audience", "since", "until")


class Operation(msgspec.Struct, frozen=True):
    """`id` names its handler. `parameters` and `body` name parts of the OpenAPI document; `answers`: status -> schema.
    `media_type`: of the good answer. `also`: a second scope that is needed. `narrows`: callers who may see some
    destinations only may ask too, and the answer is about those; any other operation is refused to them."""

    id: str
    method: str
    path: str
    tag: str
    summary: str
    scope: str = ""
    answers: dict[int, str] = msgspec.field(default_factory=lambda: {200: "Anything"})
    parameters: tuple[str, ...] = ()
    body: str = ""
    media_type: str = "application/json"
    also: str = ""
    narrows: bool = False

    @property
    def status(self) -> int:
        return next(iter(self.answers))


WRITE, VIEW, ERASE = "profiles:write", "profiles:view", "profiles:erase"
SEE, MANAGE, ACTIVATE = "destinations:view", "destinations:manage", "destinations:activate"

INGRESS = (
    Operation(
        "post_profiles",
        "POST",
        "/v1/profiles",
        "events",
        "Hand in profile events; answered once they are durable",
        WRITE,
        {202: "Accepted", 207: "Accepted", 422: "Accepted"},
        ("source", "lane", "Prefer"),
        "Events",
        narrows=True,
    ),
    Operation(
        "post_changes",
        "POST",
        "/v1/sources/rainfocus",
        "events",
        "What RainFocus pushes: its own changes of attendees and around them; answered once they are durable",
        WRITE,
        {202: "Accepted", 207: "Accepted", 422: "Accepted"},
        ("Prefer",),
        "Changes",
    ),
    Operation(
        "get_receipt",
        "GET",
        "/v1/receipts/{id}",
        "events",
        "What became of the events",
        WRITE,
        {200: "Receipt"},
        narrows=True,
    ),
    Operation(
        "issue_token",
        "POST",
        "/oauth/token",
        "access",
        "Exchange client id and secret for a token (OAuth 2 client credentials)",
        "",
        {200: "Token"},
        body="TokenRequest",
    ),
    Operation("livez", "GET", "/livez", "probes", "Does the process answer"),
    Operation("readyz", "GET", "/readyz", "probes", "Does it accept events", "", {200: "Ready", 503: "Ready"}),
)

ADMIN = (
    Operation(
        "get_profile",
        "GET",
        "/v1/profiles/{key}",
        "profiles",
        "What became of a person's events",
        VIEW,
        {200: "Found"},
        narrows=True,
    ),
    Operation(
        "forget_profile",
        "DELETE",
        "/v1/profiles/{key}",
        "profiles",
        "Erase a person; durable when answered, done behind it",
        ERASE,
        {202: "Forgotten"},
    ),
    Operation(
        "lookup_profile",
        "POST",
        "/v1/profiles/lookup",
        "profiles",
        "The same by e-mail address, which never stands in a URL",
        VIEW,
        {200: "Found"},
        body="Lookup",
        narrows=True,
    ),
    Operation(
        "find_traces",
        "POST",
        "/v1/profiles/traces",
        "profiles",
        "Search the engine's files for a person, once the forget at `offset` is carried out",
        ERASE,
        {200: "Traces"},
        body="Search",
    ),
    Operation(
        "list_destinations",
        "GET",
        "/v1/destinations",
        "destinations",
        "All destinations",
        SEE,
        {200: "Destinations"},
        narrows=True,
    ),
    Operation(
        "get_destination",
        "GET",
        "/v1/destinations/{name}",
        "destinations",
        "One of them",
        SEE,
        {200: "Destination"},
        narrows=True,
    ),
    Operation(
        "test_destination",
        "POST",
        "/v1/destinations/{name}/test",
        "destinations",
        "Resolve, connect, fetch a token; with store_email also write that attendee",
        MANAGE,
        {200: "Tested"},
        body="Test",
        narrows=True,
    ),
    Operation(
        "pause_destination",
        "POST",
        "/v1/destinations/{name}/pause",
        "destinations",
        "Send nothing until resumed; events are kept",
        ACTIVATE,
        {200: "Destination"},
        narrows=True,
    ),
    Operation(
        "resume_destination",
        "POST",
        "/v1/destinations/{name}/resume",
        "destinations",
        "Go on sending",
        ACTIVATE,
        {200: "Destination"},
        narrows=True,
    ),
    Operation("get_status", "GET", "/v1/status", "books", "Journal, accounts, destinations", SEE, narrows=True),
    Operation(
        "list_alerts",
        "GET",
        "/v1/alerts",
        "books",
        "Alerts, what is raised first, and who is told",
        SEE,
        {200: "Alerts"},
        narrows=True,
    ),
    Operation(
        "test_notification",
        "POST",
        "/v1/alerts/test",
        "books",
        "Tell one target that this is a test, once",
        MANAGE,
        {200: "Notified"},
        body="TestNotification",
    ),
    Operation(
        "list_runs",
        "GET",
        "/v1/runs",
        "books",
        "Hourly runs with AEP's names, newest first; audiences need segments:view too",
        SEE,
        {200: "Runs"},
        (*RUN_CONDITIONS, "limit", "cursor", "format"),
        narrows=True,
    ),
    Operation(
        "export_outcomes",
        "GET",
        "/v1/outcomes",
        "books",
        "Last outcomes and dead letters as NDJSON or CSV",
        SEE,
        {200: "Text"},
        ("destination", "outcome", "since", "until", "export_format"),
        media_type="application/x-ndjson",
        also=VIEW,
        narrows=True,
    ),
    Operation(
        "get_audit", "GET", "/v1/audit", "books", "The conservation sums, recomputed from storage", SEE, {200: "Audit"}
    ),
    Operation(
        "make_backup",
        "POST",
        "/v1/backup",
        "books",
        "Copy journal and state into a directory of the engine's machine",
        MANAGE,
        body="Backup",
    ),
    Operation(
        "list_dead_letters",
        "GET",
        "/v1/dead-letters",
        "dead letters",
        "Page through dead letters; their content needs profiles:view too",
        SEE,
        {200: "Letters"},
        (*FILTER, "limit", "after", "content"),
        narrows=True,
    ),
    Operation(
        "purge_dead_letters",
        "DELETE",
        "/v1/dead-letters",
        "dead letters",
        "Empty dead letters of their content, for good",
        ACTIVATE,
        {200: "Purged"},
        (*FILTER, "dry_run"),
        narrows=True,
    ),
    Operation(
        "replay_dead_letters",
        "POST",
        "/v1/dead-letters/replay",
        "dead letters",
        "Hand dead letters in again, each for its destination",
        ACTIVATE,
        {200: "Replayed"},
        (*FILTER, "dry_run"),
        "Filter",
        narrows=True,
    ),
    Operation(
        "get_metrics", "GET", "/metrics", "books", "Prometheus metrics", SEE, {200: "Text"}, media_type="text/plain"
    ),
    Operation("openapi", "GET", "/openapi.json", "documents", "This document"),
    Operation("dashboard", "GET", "/", "documents", "The dashboard", "", {200: "Text"}, media_type="text/html"),
    Operation(
        "dashboard_script",
        "GET",
        "/assets/dashboard.js",
        "documents",
        "Its script",
        "",
        {200: "Text"},
        media_type="text/javascript",
    ),
    Operation(
        "dashboard_style",
        "GET",
        "/assets/dashboard.css",
        "documents",
        "Its style",
        "",
        {200: "Text"},
        media_type="text/css",
    ),
)
