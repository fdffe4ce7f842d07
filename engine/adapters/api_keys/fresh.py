"""Fresh secrets, to be shown once, and the blocks for config.toml that know only their hashes."""

from __future__ import annotations

import hashlib
import json
import secrets

import msgspec

from engine.config import Name

KEY_PREFIX, CLIENT_PREFIX = "rfe_", "rfs_"


def new_key(name: str) -> tuple[str, str]:
    """(key, block). Raises ValueError for what cannot be a name."""
    return _new(name, KEY_PREFIX, "ingress.keys", [])


def new_client(name: str) -> tuple[str, str]:
    """(client secret, block); the client's id is its name. Raises ValueError for what cannot be a name."""
    return _new(name, CLIENT_PREFIX, "ingress.clients", [f"client_id = {json.dumps(name)}"])


def _new(name: str, prefix: str, table: str, more: list[str]) -> tuple[str, str]:
    msgspec.convert(name, Name)
    secret = prefix + secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    lines = [f"name = {json.dumps(name)}", *more, f'sha256 = "{digest}"', 'scopes = ["profiles:write"]']
    return secret, "\n".join([f"[[{table}]]", *lines, ""])
