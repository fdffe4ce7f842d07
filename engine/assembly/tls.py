"""config -> what TLS needs."""

from __future__ import annotations

import ssl

from engine.adapters.http_ingress import tls_context
from engine.config import Config
from engine.errors import ConfigError


def tls_of(config: Config) -> ssl.SSLContext | None:
    """None for plain HTTP. Raises ConfigError for files that cannot be used."""
    ingress = config.ingress
    if not ingress.tls_cert:
        return None
    try:
        return tls_context(
            str(config.base / ingress.tls_cert),
            str(config.base / ingress.tls_key) if ingress.tls_key else "",
            str(config.base / ingress.tls_client_ca) if ingress.tls_client_ca else "",
        )
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([f"ingress.tls_cert: certificate or key cannot be used ({error})"]) from error
